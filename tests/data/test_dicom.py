"""DICOM in folders: one case per stack, whatever the folders, and a reason for everything that is none."""

import logging
import tracemalloc
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pretext3d.data import dicom_files
from pretext3d.data.cases import find_cases
from pretext3d.data.checks import check_cases
from pretext3d.data.dataset import file_stamp
from pretext3d.data.dicom import find_stacks, is_dicom, open_stack, read_headers, read_stack
from pretext3d.data.dicom_files import begins_like_dicom
from pretext3d.data.faults import BadFileError
from pydicom.uid import (
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    DigitalXRayImageStorageForPresentation,
    GrayscaleSoftcopyPresentationStateStorage,
    KeyObjectSelectionDocumentStorage,
    RTDoseStorage,
    RTStructureSetStorage,
    SegmentationStorage,
    SpatialRegistrationStorage,
)

from tests.data.dicom_files import (
    AXIAL,
    CORONAL,
    Slice,
    data_of,
    item,
    off,
    set_pixels,
    stack,
    write,
    write_all,
    write_enhanced,
    write_other,
)


@pytest.fixture(autouse=True)
def quiet(caplog):
    caplog.set_level(logging.ERROR)


def test_one_series_a_folder(tmp_path, dicom):
    dicom("p1/ct"), dicom("p2/ct", suffix="")
    cases = find_cases(str(tmp_path), cache_dir=str(tmp_path / "cache"))
    assert [(c["id"], c["image"]) for c in cases] == [
        ("p1/ct", str(tmp_path / "p1/ct")),
        ("p2/ct", str(tmp_path / "p2/ct")),
    ]
    result = check_cases(cases)
    assert not result.bad
    # 6 columns of 3 mm along x, 5 rows of 2 mm along y, 4 slices 4 mm apart along z
    assert result.shapes["p1/ct"] == [6, 5, 4]
    assert result.spacings["p1/ct"] == pytest.approx([3, 2, 4])
    assert result.shapes == {"p1/ct": [6, 5, 4], "p2/ct": [6, 5, 4]}


def test_two_series_in_one_folder(tmp_path, dicom):
    dicom("p", uid="1.2.3.4", slices=3, number=7), dicom("p", uid="1.2.3.5", slices=5, start=3, number=8)
    cases = find_cases(str(tmp_path / "p"), cache_dir=str(tmp_path / "cache"))
    assert [c["id"] for c in cases] == ["series_7", "series_8"]
    assert {i: s[2] for i, s in check_cases(cases).shapes.items()} == {"series_7": 3, "series_8": 5}
    assert find_cases(str(tmp_path / "p"), cache_dir=str(tmp_path / "cache")) == cases  # the links are reused


def test_one_series_in_two_folders(tmp_path, dicom):
    dicom("p/a", uid="1.2.3.4", slices=3)
    second = dicom("p/b", uid="1.2.3.4", slices=6)
    for path in sorted(second.iterdir())[:3]:  # the first three are in the other folder
        path.unlink()
    (case,) = find_cases(str(tmp_path / "p"), cache_dir=str(tmp_path / "cache"))
    assert check_cases([case]).shapes[case["id"]] == [6, 5, 6]


def test_other_files_beside_a_series_do_no_harm(tmp_path, dicom):
    (dicom("p") / "report.txt").write_text("text")
    (case,) = find_cases(str(tmp_path / "p"), cache_dir=str(tmp_path / "cache"))
    assert case["id"] == "p"
    assert check_cases([case]).shapes["p"] == [6, 5, 4]


def test_one_slice_is_a_single_slice(tmp_path, dicom):
    dicom("p", slices=1)
    ((_, reason),) = check_cases(find_cases(str(tmp_path / "p"), cache_dir=str(tmp_path))).bad
    assert reason.startswith("single slice: ")


def test_broken_dicom_files(tmp_path):
    (tmp_path / "p").mkdir()
    for i in range(3):
        (tmp_path / f"p/{i}.dcm").write_bytes(b"not dicom at all")
    ((case, reason),) = check_cases(find_cases(str(tmp_path / "p"), cache_dir=str(tmp_path))).bad
    assert case["id"] == "p"
    assert reason.startswith("unreadable: ")


def test_is_dicom(tmp_path):
    magic = b"\0" * 128 + b"DICM"
    for name, content, expected in (
        ("a.dcm", b"", True),
        ("b.IMA", b"", True),
        ("c", magic, True),
        ("1.2.840.5", magic, True),
        ("d", b"short", False),
        ("e.txt", magic, False),
        ("DICOMDIR", magic, False),
    ):
        (tmp_path / name).write_bytes(content)
        assert is_dicom(tmp_path / name) is expected, name


def test_files_without_suffix_and_preamble_are_dicom_by_their_content(tmp_path):
    slices = stack(4)
    for number, one in enumerate(slices):
        path = write(tmp_path / f"p/IM{number}", one, bare=True)
        assert path.read_bytes()[:2] == b"\x08\x00"
        assert is_dicom(path)
    (case,) = find_cases(str(tmp_path), cache_dir=str(tmp_path / "cache"))
    assert off(*read_stack(case["image"]), slices) < 1e-9
    for other in (b"\x08\x00" * 64, b"\x02\x00\x00\x00UL", bytes(300), b"study,patient\n1,2\n"):
        assert not begins_like_dicom(other)


def test_files_that_are_no_image_are_counted_and_left_out(tmp_path, caplog):
    """A plan's dose, contours, segmentation, presentation state, key objects, registration next to a CT."""
    caplog.set_level(logging.INFO)
    files = write_all(tmp_path / "p", stack(4))
    for name, sop_class, modality in (
        ("dose", RTDoseStorage, "RTDOSE"),
        ("contours", RTStructureSetStorage, "RTSTRUCT"),
        ("seg", SegmentationStorage, "SEG"),
        ("state", GrayscaleSoftcopyPresentationStateStorage, "PR"),
        ("keys", KeyObjectSelectionDocumentStorage, "KO"),
        ("registration", SpatialRegistrationStorage, "REG"),
    ):
        write_other(tmp_path / f"p/{name}.dcm", sop_class, modality, series=f"9.{len(name)}")
    dose = data_of(series="9.99", sop_class=RTDoseStorage)
    set_pixels(dose, np.ones((3, 4, 5))).save_as(tmp_path / "p/dose2.dcm", enforce_file_format=True)
    (case,) = find_cases(str(tmp_path), cache_dir=str(tmp_path / "cache"))
    assert "7 DICOM files are no images and are left out: 1 KO, 1 PR, 1 REG, 2 RTDOSE, 1 RTSTRUCT, 1 SEG" in (
        caplog.text
    )
    assert case["id"] == "p"
    assert len(open_stack(case["image"]).frames) == len(files)


def test_bad_groups_are_bad_cases_with_their_reason(tmp_path):
    slices = stack(9)
    write_all(tmp_path / "gap", slices[:3] + slices[6:], series="1.1")
    write_all(tmp_path / "good", slices, series="1.2")
    cases = find_cases(str(tmp_path), cache_dir=str(tmp_path / "cache"))
    result = check_cases(cases)
    assert [case["id"] for case in result.good] == ["good"]
    assert [(case["id"], reason) for case, reason in result.bad] == [
        ("gap", "missing slices: 16 mm after slice 3, 4 mm elsewhere")
    ]


def test_several_stacks_of_one_file_are_cases_that_share_a_subject(tmp_path):
    """Two times of 4 slices in one multi-frame file; the identity of each is the file and its frames."""
    first, second = stack(4), stack(4, first=1000)
    marks = [item(TemporalPositionIndex=t) for t in (1, 2) for _ in range(4)]
    path = write_enhanced(tmp_path / "in/scan.dcm", [*first, *second], marks)
    cases = find_cases(str(tmp_path / "in"), cache_dir=str(tmp_path / "cache"))
    assert [case["id"] for case in cases] == ["scan_time_1", "scan_time_2"]
    assert cases[0]["subject"] == cases[1]["subject"]
    assert off(*read_stack(cases[1]["image"]), second) < 1e-9
    assert not check_cases(cases).bad
    assert [part[0] for part in file_stamp(cases[0]["image"])].count(str(path)) == 1
    assert file_stamp(cases[0]["image"]) != file_stamp(cases[1]["image"])
    assert find_cases(str(tmp_path / "in"), cache_dir=str(tmp_path / "cache")) == cases


def test_phases_of_a_multi_frame_file_that_begin_at_zero(tmp_path):
    """Trigger delays of 0 and 50 ms, stated in another functional group than the time index."""
    path = write_enhanced(tmp_path / "scan.dcm", [*stack(4), *stack(4, first=1000)])
    data = pydicom.dcmread(path)
    for number, group in enumerate(data.PerFrameFunctionalGroupsSequence):
        delay = item(NominalCardiacTriggerDelayTime=0.0 if number < 4 else 50.0)
        group.CardiacSynchronizationSequence = [delay]
    data.save_as(path)
    found = find_stacks([path], str(tmp_path / "cache"))
    assert [stack.path.name for stack in found] == ["scan_phase_1", "scan_phase_2"]
    assert read_stack(found[0].read)[0].max() < 1000 <= read_stack(found[1].read)[0].min()


def reason_of(path: Path, spatial_dims: int = 3) -> str:
    (found,) = find_stacks([path], str(path.parent / "cache"), spatial_dims)
    return found.reason


def test_geometry_that_a_file_does_not_state_is_a_reason(tmp_path):
    cine = set_pixels(data_of(), np.ones((30, 4, 5)))
    cine.save_as(tmp_path / "cine.dcm", enforce_file_format=True)
    assert reason_of(tmp_path / "cine.dcm") == (
        "no geometry: a multi-frame file of 30 frames that does not state where they lie"
    )
    cine.ImagePositionPatient, cine.ImageOrientationPatient, cine.PixelSpacing = (
        [0, 0, 0],
        list(AXIAL),
        [1, 1],
    )
    cine.save_as(tmp_path / "nm.dcm", enforce_file_format=True)
    assert reason_of(tmp_path / "nm.dcm") == (
        "no geometry: a multi-frame file of 30 frames that states the position of the first alone"
    )
    for missing in ("PixelSpacing", "ImageOrientationPatient"):
        data = pydicom.dcmread(write(tmp_path / "a.dcm", Slice((0, 0, 0))))
        del data[missing]
        data.save_as(tmp_path / "a.dcm")
        assert reason_of(tmp_path / "a.dcm") == f"no geometry: {missing} is missing"


@pytest.mark.parametrize(
    ("element", "value", "reason"),
    [
        ("PixelSpacing", [0, 1], "bad geometry: PixelSpacing is 0, 1 mm"),
        ("PixelSpacing", [1], "bad geometry: PixelSpacing is 1, expected 2 numbers"),
        (
            "ImageOrientationPatient",
            [1, 0, 0, 1, 0, 0],
            "bad geometry: ImageOrientationPatient is 1, 0, 0, 1, 0, 0, not two perpendicular unit vectors",
        ),
        (
            "ImageType",
            ["ORIGINAL", "PRIMARY", "M", "MOSAIC"],
            "mosaic: the slices of a volume as tiles of one ",
        ),
    ],
)
def test_bad_geometry_is_a_reason(tmp_path, element, value, reason):
    path = write(tmp_path / "a.dcm", Slice((0, 0, 0), elements={element: value}))
    assert reason_of(path).startswith(reason)


def test_an_enhanced_file_that_leaves_out_positions(tmp_path):
    data = pydicom.dcmread(write_enhanced(tmp_path / "a.dcm", stack(4)))
    del data.PerFrameFunctionalGroupsSequence[2].PlanePositionSequence
    data.save_as(tmp_path / "a.dcm")
    assert reason_of(tmp_path / "a.dcm") == "no geometry: ImagePositionPatient is missing"
    del data.PerFrameFunctionalGroupsSequence[2]
    data.save_as(tmp_path / "a.dcm")
    assert reason_of(tmp_path / "a.dcm") == "no geometry: 4 frames, but the positions of 3"


def test_an_x_ray_is_an_image_in_2d_alone(tmp_path):
    data = set_pixels(data_of(sop_class=DigitalXRayImageStorageForPresentation), np.ones((4, 5)))
    data.ImagerPixelSpacing, data.NumberOfFrames = [0.2, 0.1], 1
    data.save_as(tmp_path / "x.dcm", enforce_file_format=True)
    assert reason_of(tmp_path / "x.dcm").startswith("no geometry: no position in the patient (an X-ray")
    assert reason_of(tmp_path / "x.dcm", spatial_dims=2) == ""
    array, affine = read_stack(tmp_path / "x.dcm", spatial_dims=2)
    assert array.shape == (5, 4, 1)
    np.testing.assert_allclose(affine, np.diag([-0.1, -0.2, 1, 1]), atol=1e-12)  # placed like a picture


def test_single_slices_are_images_in_2d(tmp_path):
    """Three planes of a localizer, and five images at one position."""
    planes = [Slice((0, 0, 0), 0), Slice((0, 0, 0), 100, CORONAL), Slice((0, 0, 0), 200, (0, 1, 0, 0, 0, -1))]
    found = find_stacks(write_all(tmp_path / "a", planes), str(tmp_path / "cache"), spatial_dims=2)
    assert [stack.reason for stack in found] == ["", "", ""]
    assert len({stack.subject for stack in found}) == 1
    cine = [Slice((0, 0, 0), 100 * t) for t in range(5)]
    found = find_stacks(write_all(tmp_path / "b", cine), str(tmp_path / "cache"), spatial_dims=2)
    assert [open_stack(stack.read, 2).shape for stack in found] == [(5, 4, 1)] * 5


def test_a_folder_of_several_stacks_is_no_volume(tmp_path):
    """As in a datalist, which names the folder."""
    write_all(tmp_path / "p", stack(4), series="1.1")
    for number, one in enumerate(stack(5)):
        write(tmp_path / f"p/b{number}.dcm", one, series="1.2")
    with pytest.raises(
        BadFileError, match=r"^several stacks: 2 groups of slices \(5x4x4, 5x4x5\), expected one$"
    ):
        open_stack(tmp_path / "p")
    write_other(tmp_path / "q/a.dcm", RTDoseStorage, "RTDOSE")
    with pytest.raises(BadFileError, match=r"^unreadable: no image, found RTDOSE$"):
        open_stack(tmp_path / "q")


def test_unreadable_files_beside_a_stack(tmp_path):
    files = write_all(tmp_path / "p", stack(4))
    (tmp_path / "p/pointer.dcm").write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n")
    (tmp_path / "p/empty.dcm").write_bytes(b"")
    (tmp_path / "p/gone.dcm").symlink_to(tmp_path / "nowhere")
    broken = [tmp_path / f"p/{name}.dcm" for name in ("empty", "gone", "pointer")]
    good, bad = find_stacks([*files, *broken], str(tmp_path / "cache"))
    assert (good.path.name, good.reason) == ("p", "")
    assert open_stack(good.read).shape == (5, 4, 4)
    assert (bad.path.name, bad.reason) == (
        "p_unreadable", "unreadable: an empty file (empty.dcm, gone.dcm, pointer.dcm)",
    )  # fmt: skip
    (found,) = find_stacks(broken[2:], str(tmp_path / "cache"))
    assert (
        found.reason
        == "unreadable: a pointer of Git LFS, not the content; git lfs pull downloads it (pointer.dcm)"
    )


def test_files_without_a_series_are_a_series_per_folder(tmp_path):
    for number, one in enumerate(stack(4)):
        data = pydicom.dcmread(write(tmp_path / f"p/{number}.dcm", one, sop_class=CTImageStorage))
        del data.SeriesInstanceUID, data.SeriesNumber
        data.save_as(tmp_path / f"p/{number}.dcm")
    (found,) = find_stacks(sorted((tmp_path / "p").iterdir()), str(tmp_path / "cache"))
    assert (found.path, found.read, found.reason) == (tmp_path / "p", str(tmp_path / "p"), "")


def test_headers_are_small_in_memory(tmp_path):
    """100,000 of them fit in 150 MB."""
    path = str(write(tmp_path / "a.dcm", Slice((0, 0, 0))))
    read_headers([path])
    tracemalloc.start()
    kept = read_headers([path] * 200)
    size = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert size / len(kept) < 1500  # bytes per file


def test_a_deflated_file_that_expands_beyond_a_limit(tmp_path, monkeypatch):
    """A whole one expands to some 400 bytes; the limit is 1 GiB."""
    data = pydicom.dcmread(write(tmp_path / "a.dcm", Slice((0, 0, 0))))
    data.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    data.save_as(tmp_path / "a.dcm")
    assert read_stack(tmp_path / "a.dcm")[0].shape == (5, 4, 1)
    monkeypatch.setattr(dicom_files, "LARGEST_DEFLATED", 100)
    assert reason_of(tmp_path / "a.dcm") == "unreadable: deflated, to more than 100 bytes (a.dcm)"
    content = (tmp_path / "a.dcm").read_bytes()
    (tmp_path / "a.dcm").write_bytes(content[:132] + content[144:])
    assert reason_of(tmp_path / "a.dcm").startswith("unreadable: deflated, without the length")

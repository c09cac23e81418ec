"""2D data sets from folder to lists: layouts, reasons, splits by volume, spacing, classes."""

import json
import logging
from pathlib import Path

import numpy as np
import pytest
from pretext3d.data.cases import find_cases
from pretext3d.data.prepare import inference_cases, prepare_cases
from pretext3d.data.spacing import choose_pixdim
from pretext3d.errors import UserError

from .conftest import voxels
from .pictures import bomb, colours, picture


def ids(cases):
    return [c["id"] for c in cases]


@pytest.fixture
def prepare(tmp_path):
    def call(dataset_dir, **kwargs):
        settings = {"roi_size": [4, 4], "spatial_dims": 2, "cache_dir": str(tmp_path / "cache"), **kwargs}
        return prepare_cases(str(dataset_dir), **settings)

    return call


def mask(path: Path, value: int = 1) -> str:
    array = np.zeros((5, 7), np.uint8)
    array[1:3, 2:4] = value
    return picture(path, array)


def test_a_folder_of_pictures(tmp_path, prepare):
    for n, suffix in enumerate(("png", "jpg", "JPEG", "tif", "tiff")):
        picture(tmp_path / f"in/p{n}/eye_{n}.{suffix}", colours(seed=n))
    picture(tmp_path / "in/eye_9_seg.png", colours())
    ready = prepare(tmp_path / "in")
    assert sorted(ids(ready["train"] + ready["val"])) == [f"eye_{n}" for n in range(5)]
    assert (ready["channels"], ready["bad"]) == (3, [])
    # extents 7 and 5 mm at the nominal 1 mm; / (1.5 * 4) = 1.17 and 0.83, mean 0.99: below 1 mm
    assert ready["pixdim"] == [1.0, 1.0]
    assert json.loads(json.dumps(ready)) == ready


def test_pictures_in_3d_get_a_hint(tmp_path, volume):
    picture(tmp_path / "in/a.png", colours())
    with pytest.raises(UserError, match=r"no volumes found in .*; spatial_dims: 2 reads its 1 pictures"):
        find_cases(str(tmp_path / "in"))
    volume("in/b.nii.gz")
    assert ids(find_cases(str(tmp_path / "in"))) == ["b"]
    (tmp_path / "in/dataset.json").write_text(json.dumps({"training": ["a.png", "b.nii.gz"]}))
    found = inference_cases(str(tmp_path / "in"), "", cache_dir=str(tmp_path / "cache"))
    assert found["bad"] == [["a", "single slice: a picture, which spatial_dims: 2 reads"]]


@pytest.mark.parametrize(("images", "labels"), [("imagesTr", "labelsTr"), ("images", "labels")])
def test_pictures_with_labels(tmp_path, prepare, images, labels):
    for n in range(4):
        picture(tmp_path / f"in/{images}/x{n}.jpg", colours(seed=n))
        mask(tmp_path / f"in/{labels}/x{n}.png", 255)
    ready = prepare(tmp_path / "in", purpose="finetuning", val_fraction=0.25)
    assert (len(ready["train"]), len(ready["val"]), ready["num_classes"]) == (3, 1, 2)
    assert ready["train"][0]["label"].endswith(".png")


def test_nnunet_with_pictures(tmp_path, prepare):
    for n in range(3):
        for channel in range(2):
            picture(tmp_path / f"in/imagesTr/x{n}_000{channel}.png", colours(seed=n + 5 * channel)[..., 0])
        mask(tmp_path / f"in/labelsTr/x{n}.png", 2)
    listing = {"channel_names": {"0": "a"}, "labels": {"background": 0, "vessel": 2}, "file_ending": ".png"}
    (tmp_path / "in/dataset.json").write_text(json.dumps(listing))
    ready = prepare(tmp_path / "in", purpose="finetuning")
    assert (ready["channels"], ready["class_names"]) == (2, ["background", "vessel"])


def test_a_datalist_of_pictures_and_slices(tmp_path, prepare, volume):
    volume("in/v.nii.gz"), picture(tmp_path / "in/a.png", colours()[..., 0])
    entries = [
        {"image": "a.png"},
        {"image": "v.nii.gz", "slice": 3, "slice_axis": 1, "subject": "s"},
        {"image": "v.nii.gz", "slice": 4, "subject": "s"},
    ]
    (tmp_path / "in/dataset.json").write_text(json.dumps({"training": entries}))
    ready = prepare(tmp_path / "in", pixdim="native")
    cases = ready["train"] + ready["val"]
    assert {c["id"]: c.get("slice") for c in cases} == {"a": None, "v": 3, "v#2": 4}
    assert len({c["id"] in ids(ready["val"]) for c in cases if c.get("subject")}) == 1


def test_reasons(tmp_path, prepare, volume, caplog):
    folder = tmp_path / "in"
    for n in range(4):
        picture(folder / f"good{n}.png", colours(seed=n))
    picture(folder / "grey.png", colours()[..., 0])
    picture(folder / "black.png", np.zeros((5, 7, 3), np.uint8))
    cut = Path(picture(folder / "cut.jpg", colours(50, 70)))
    cut.write_bytes(cut.read_bytes()[:-400])
    bomb(folder / "huge.png")
    volume("in/volume.nii.gz", voxels((5, 6, 7, 3)))
    nan = voxels((5, 6, 1, 3)).astype(np.float32)
    nan[0, 0] = np.nan
    volume("in/nan.nii.gz", nan)
    ready = prepare(folder)
    assert sorted(ids(ready["train"] + ready["val"])) == [f"good{n}" for n in range(4)]
    reasons = {name: reason.split(":")[0] for name, reason in ready["bad"]}
    assert reasons == {
        "grey": "wrong number of channels",
        "black": "empty",
        "cut": "unreadable",
        "huge": "unreadable",
        "volume": "volume",
        "nan": "NaN",
    }
    assert "--slices \"{'axis': 2, 'every': 1}\" uses its slices" in caplog.text
    assert prepare(folder)["bad"] == ready["bad"]  # from the verdicts on disk


def test_bad_labels_of_pictures(tmp_path, prepare, volume):
    folder = tmp_path / "in"
    for name in ("a", "b", "c", "d", "e"):
        picture(folder / f"images/{name}.png", colours())
    mask(folder / "labels/a.png"), mask(folder / "labels/b.png")
    picture(folder / "labels/c.png", colours(5, 8)[..., 0])
    picture(folder / "labels/d.jpg", colours()[..., 0])
    volume(
        "in/labels/e.nii.gz", np.eye(7, 5, dtype=np.uint8), spacing=(1, 1, 1)
    )  # axes RAS, a picture's are LPS
    ready = prepare(folder, purpose="finetuning", skip_bad=True, val_fraction=0)
    reasons = dict(ready["bad"])
    assert reasons["c"] == "label shape: [8, 5, 1], the image's is [7, 5, 1]"
    assert reasons["d"] == "label values: a JPEG, which changes them; expected PNG, TIFF or NIfTI"
    assert reasons["e"].startswith("label geometry: RAS [1.0, 1.0, 1.0] mm, the image's is LPS")


def test_projections_of_one_dicom_series_are_cases_of_one_subject(tmp_path, prepare, dicom):
    pydicom = pytest.importorskip("pydicom")
    for patient in range(3):
        dicom(f"in/p{patient}", slices=2)
        for file in (tmp_path / f"in/p{patient}").iterdir():
            header = pydicom.dcmread(file)
            del header.ImagePositionPatient, header.ImageOrientationPatient
            header.save_as(file)
    dicom("in/ct", slices=3)
    ready = prepare(tmp_path / "in", pixdim="native")
    found = {c["id"]: c["subject"] for c in ready["train"] + ready["val"]}
    assert sorted(found) == sorted(f"p{n}/00{i}.dcm" for n in range(3) for i in range(2))
    assert all(found[f"p{n}/000.dcm"] == found[f"p{n}/001.dcm"] for n in range(3))
    assert len(set(found.values())) == 3
    assert len(ready["val"]) == 2
    assert ready["bad"] == [
        [
            "ct",
            "volume: 6x5x3 voxels, not a single slice; --slices \"{'axis': 2, 'every': 1}\" uses its slices",
        ]
    ]


@pytest.fixture
def labelled_volumes(tmp_path, volume, label):
    for n in range(10):
        volume(f"in/imagesTr/case{n}.nii.gz"), label(f"in/labelsTr/case{n}.nii.gz", 2)
    return str(tmp_path / "in")


def test_slices_are_held_out_with_their_volume_and_as_in_3d(labelled_volumes, prepare, caplog):
    caplog.set_level(logging.INFO)
    volumes = prepare(
        labelled_volumes, spatial_dims=3, roi_size=[4, 4, 4], purpose="finetuning", num_labelled=3
    )
    planes = prepare(labelled_volumes, slices={"axis": 2, "every": 2}, purpose="finetuning", num_labelled=3)
    for part in ("train", "val"):
        assert [c["id"] for c in planes[part]] == [
            f"{c['id']}/slice{index:03d}" for c in volumes[part] for index in (0, 2, 4, 6)
        ]
        assert all(c["subject"] == c["id"].split("/")[0] for c in planes[part])
    assert (planes["num_classes"], len(planes["pixdim"])) == (2, 2)  # label values 0 and 2
    assert "slices along axis 2: 12 of 3 volumes; 0 constant ones (air) left out" in caplog.text
    # extents 5 x 1 and 6 x 2 mm, finest 1 mm: sqrt(5 * 12) / (1.5 * 4) = 1.29
    assert planes["pixdim"] == [1.29, 1.29]


def test_one_bad_volume_is_one_line(labelled_volumes, prepare, volume):
    broken = voxels((5, 6, 7)).astype(np.float32)
    broken[0, 0, 0] = np.inf
    volume("in/imagesTr/case4.nii.gz", broken)
    ready = prepare(labelled_volumes, slices={"axis": 0})
    assert ready["bad"] == [["case4", "inf: 1 of 210 voxels"]]
    assert len(ready["train"]) + len(ready["val"]) == 9 * 5


def test_inference_counts_the_slices_of_a_volume(labelled_volumes, tmp_path):
    found = inference_cases(
        labelled_volumes, spatial_dims=2, slices={"axis": 1, "every": 4}, cache_dir=str(tmp_path / "cache")
    )
    assert len(found["cases"]) == 20  # slices 0 and 4 of the six along y
    assert {c["slice_count"] for c in found["cases"]} == {2}
    assert {c["result_name"] for c in found["cases"]} == {f"case{n}" for n in range(10)}


def test_the_phantom_gives_its_axial_slices(tmp_path, prepare, monkeypatch, labelled_volumes):
    monkeypatch.setattr("pretext3d.data.prepare.embedded_phantom", lambda cache: labelled_volumes)
    assert {c["slice_axis"] for c in prepare("")["train"]} == {2}
    assert {c["slice_axis"] for c in prepare("", slices={"axis": 0})["train"]} == {0}


def test_classes_of_pictures(tmp_path, prepare):
    lines = ["id,class,subject"]
    for n in range(6):
        picture(tmp_path / f"in/images/eye_{n}.jpg", colours(seed=n))
        lines.append(f"eye_{n},{'well' if n % 2 else 'ill'},{n // 2}")
    (tmp_path / "classes.csv").write_text("\n".join(lines))
    files = tmp_path / "files.csv"
    files.write_text(
        "\n".join([lines[0].replace("id", "image"), *(x.replace(",", ".jpg,", 1) for x in lines[1:])])
    )
    for table in (tmp_path / "classes.csv", files):
        ready = prepare(tmp_path / "in/images", purpose="classification", class_file=str(table))
        assert (ready["num_classes"], ready["class_names"]) == (2, ["ill", "well"])
        assert all(c["class"] == int(c["id"][-1]) % 2 for c in ready["train"] + ready["val"])


@pytest.mark.parametrize(
    ("pixdim", "roi_size", "expected"),
    [
        (2, None, [2.0, 2.0]),
        ([1, 2.5], None, [1.0, 2.5]),
        ("native", None, []),
        (None, None, []),
        ("median", None, [1.0, 2.0]),
        # extents 100 x 1 and 80 x 2 mm: sqrt(100 * 160) / (1.5 * 20) = 4.22
        ("fit", 20, [4.22, 4.22]),
        ({"fit": 3}, [20, 20], [2.11, 2.11]),
        # 100 / (2 * 20) and 160 / (2 * 10)
        ({"fit_each": 2}, [20, 10], [2.5, 8.0]),
    ],
)
def test_spacing_in_the_plane(pixdim, roi_size, expected):
    assert choose_pixdim(pixdim, [[100, 80]] * 3, [[1.0, 2.0]] * 3, roi_size, 2) == expected


@pytest.mark.parametrize("pixdim", [[1, 1, 1], [1], "small", {"fit": 0}])
def test_bad_spacing_in_the_plane(pixdim):
    with pytest.raises(UserError, match=r"pixdim: found .*one or two numbers in mm"):
        choose_pixdim(pixdim, [[100, 80]], [[1.0, 2.0]], 20, 2)
    with pytest.raises(UserError, match="needs one or two positive numbers"):
        choose_pixdim("fit", [[100, 80]], [[1.0, 2.0]], [4, 4, 4], 2)


@pytest.mark.real_data
def test_real_pictures_and_slices(real_data, prepare):
    eyes = prepare(real_data / "eyes/images", roi_size=64, purpose="classification",
                   class_file=str(real_data / "eyes/classes.csv"))  # fmt: skip
    assert (len(eyes["train"]) + len(eyes["val"]), eyes["channels"], eyes["num_classes"]) == (1000, 3, 4)
    heads = prepare(real_data / "brain_lesions", roi_size=64, slices={"axis": 2}, purpose="finetuning")
    assert len({c["subject"] for c in heads["train"] + heads["val"]}) == 36
    assert heads["bad"] == []


def test_volumes_without_slices_are_one_line(prepare, tmp_path, volume, caplog):
    for n in range(5):
        volume(f"in/v{n}.nii.gz", shape=(5, 6, 7 + n))
        picture(tmp_path / f"in/p{n}.png", np.arange(30, dtype=np.uint8).reshape(5, 6))
    prepare(str(tmp_path / "in"))
    lines = [r.getMessage() for r in caplog.records if r.getMessage().startswith("left out")]
    assert lines == [
        "left out: 5 volumes, not single slices (v0, v1, v2, ...); --slices \"{'axis': 2, 'every': 1}\" uses "
        "their slices",
        "left out: 5 of 10 cases",
    ]

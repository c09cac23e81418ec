"""Tests of NRRD: every space, channels first and last, detached data, segmentations, and faulty headers."""

import gzip
from pathlib import Path

import numpy as np
import pytest
from pretext3d.data.checks import check_cases
from pretext3d.data.loading import LoadCased
from pretext3d.data.prepare import prepare_cases
from pretext3d.data.reader import files_of_volume, read_volume
from pretext3d.data.volumes import VerdictCache, examine

from .conftest import voxels

nrrd = pytest.importorskip("nrrd")

# columns in the file's own space: i 2 mm to the second axis, j 1 mm against the first, k 3 mm
DIRECTIONS = np.array([[0.0, 2.0, 0.0], [-1.0, 0.0, 0.2], [0.0, 0.0, 3.0]])
ORIGIN = np.array([10.0, 20.0, 30.0])
HEADER = {"space": "left-posterior-superior", "space directions": DIRECTIONS, "space origin": ORIGIN}
LAYOUT = np.stack([voxels((5, 6, 7), seed) for seed in (0, 1)], -1)


def write(path: Path, array: np.ndarray, **fields) -> str:
    nrrd.write(str(path), array, {**HEADER, **fields})
    return str(path)


def edited(path: str, old: str, new: str) -> str:
    """The file with a line of its header replaced."""
    head, blank, data = Path(path).read_bytes().partition(b"\n\n")
    assert old.encode() in head
    Path(path).write_bytes(head.replace(old.encode(), new.encode()) + blank + data)
    return path


@pytest.mark.parametrize(
    ("space", "signs"),
    [
        ("left-posterior-superior", (-1, -1, 1)),
        ("LPS", (-1, -1, 1)),
        ("right-anterior-superior", (1, 1, 1)),
        ("RAS", (1, 1, 1)),
        ("left-anterior-superior", (-1, 1, 1)),
    ],
)
@pytest.mark.parametrize("encoding", ["raw", "gzip", "bzip2", "ascii"])
def test_spaces_and_encodings(tmp_path, space, signs, encoding):
    path = write(tmp_path / "a.nrrd", voxels((5, 6, 7)), space=space, encoding=encoding)
    found = read_volume(path)
    np.testing.assert_array_equal(found.array[..., 0], voxels((5, 6, 7)))
    truth = np.eye(4)
    truth[:3, :3], truth[:3, 3] = np.diag(signs) @ DIRECTIONS.T, np.multiply(signs, ORIGIN)
    np.testing.assert_allclose(found.affine, truth)
    # the check and the loader agree
    facts = examine(path, "image")
    loaded = LoadCased("image")({"image": path})["image"]
    assert (facts.shape, facts.affine) == (list(loaded.shape[1:]), loaded.affine.tolist())


@pytest.mark.parametrize("kind", ["list", "vector", "RGB-color", "???", "none"])
@pytest.mark.parametrize("first", [True, False])
def test_channels_first_and_last(tmp_path, kind, first):
    array, none = (np.moveaxis(LAYOUT, -1, 0), 0) if first else (LAYOUT, 3)
    rows = np.insert(DIRECTIONS, none, np.nan, axis=0)
    kinds = ["domain"] * 3
    kinds.insert(none, kind)
    path = write(tmp_path / "a.nrrd", array, kinds=kinds, **{"space directions": rows})
    found = read_volume(path)
    np.testing.assert_array_equal(found.array, LAYOUT)
    np.testing.assert_allclose(found.affine[:3, :3], np.diag([-1, -1, 1]) @ DIRECTIONS.T)
    facts = examine(path, "image")
    assert (facts.problem, facts.channels, facts.states) == ("", 2, [["", ""]] * 2)
    np.testing.assert_array_equal(LoadCased("image")({"image": path})["image"], np.moveaxis(LAYOUT, -1, 0))


def test_an_axis_of_time_or_of_anything_else(tmp_path):
    rows = np.insert(DIRECTIONS, 3, np.nan, axis=0)
    kinds = ["domain"] * 3
    timed = write(tmp_path / "a.nrrd", LAYOUT, kinds=[*kinds, "time"], **{"space directions": rows})
    assert examine(timed, "header").detail.startswith("2 time points, not channels; frames: first")
    np.testing.assert_array_equal(read_volume(timed, [1]).array, LAYOUT[..., 1:])
    tensor = edited(timed, "kinds: domain domain domain time", "kinds: domain domain domain 3D-matrix")
    assert examine(tensor, "header").detail == "an axis of kind 3d-matrix, expected channels"


@pytest.mark.parametrize(("unit", "factor"), [("mm", 1), ("um", 0.001), ("m", 1000), ("cm", 10)])
def test_units(tmp_path, unit, factor):
    path = write(tmp_path / "a.nrrd", voxels((5, 6, 7)), **{"space units": [unit] * 3})
    found = read_volume(path).affine
    np.testing.assert_allclose(found[:3, 3], factor * np.array([-10, -20, 30]))
    np.testing.assert_allclose(examine(path, "header").spacing[0], 2 * factor)


def test_detached_data(tmp_path):
    path = write(tmp_path / "a.nhdr", voxels((5, 6, 7)), encoding="raw")
    data = tmp_path / "a.raw"
    assert files_of_volume(path) == [path, str(data)]
    np.testing.assert_array_equal(read_volume(path).array[..., 0], voxels((5, 6, 7)))
    kept = VerdictCache(str(tmp_path / "cache"))
    assert kept.facts(path, "image").states == [["", ""]]
    data.write_bytes(bytes(420))  # the header has not changed
    again = VerdictCache(str(tmp_path / "cache")).facts(path, "image")
    assert again.states == [["empty", "every voxel is 0"]]
    listed = voxels((5, 6, 7))
    for k in range(7):
        (tmp_path / f"s{k}.raw").write_bytes(listed[..., k].tobytes(order="F"))
    names = "\n".join(f"s{k}.raw" for k in range(7))
    edited(path, "data file: a.raw", f"data file: LIST 2\n{names}")
    np.testing.assert_array_equal(read_volume(path).array[..., 0], listed)
    (tmp_path / "s3.raw").unlink()
    assert examine(path, "image").detail == "its data file s3.raw is missing"


def test_skipped_lines_and_bytes(tmp_path):
    path = write(tmp_path / "a.nhdr", voxels((5, 6, 7)), encoding="gzip")
    packed = tmp_path / "a.raw.gz"
    plain = gzip.decompress(packed.read_bytes())
    packed.write_bytes(b"one\ntwo\n" + gzip.compress(b"12345" + plain))
    edited(path, "encoding: gzip", "encoding: gzip\nline skip: 2\nbyte skip: 5")
    np.testing.assert_array_equal(read_volume(path).array[..., 0], voxels((5, 6, 7)))
    packed.write_bytes(b"any length of header" + plain)
    edited(path, "encoding: gzip\nline skip: 2\nbyte skip: 5", "encoding: raw\nbyte skip: -1")
    np.testing.assert_array_equal(read_volume(path).array[..., 0], voxels((5, 6, 7)))


@pytest.mark.parametrize(
    ("old", "new", "problem", "detail"),
    [
        ("space: left-posterior-superior", "space: scanner-xyz", "bad geometry",
         "space scanner-xyz, which does not say how the patient lies in its header"),
        ("space: left-posterior-superior\n", "", "bad geometry", "no space in its header"),
        ("\nspace origin: (10,20,30)", "", "bad geometry", "no space origin in its header"),
        ("space directions: (0,2,0) (-1,0,0.20000000000000001) (0,0,3)\n", "", "bad geometry",
         "no space directions in its header"),
        ("(0,0,3)", "(0,0,0)", "bad geometry", "its space directions are not a basis"),
        ("(0,0,3)", "none", "single slice", "shape 5x6"),
        ("(0,0,3)", "(0,4,0)", "bad geometry", "its space directions are not a basis"),
        ("type: int16", "type: block", "unreadable", "voxels of type block, expected one real number"),
        ("encoding: gzip", "encoding: zrl", "unreadable", "encoding zrl, expected raw, gzip"),
        ("sizes: 5 6 7", "sizes: 5 6 8", "unreadable", "fewer data than its header states in a.nrrd"),
        ("sizes: 5 6 7", "sizes: 5 6 6", "unreadable", "more data than its header states"),
        ("sizes: 5 6 7", "sizes: 9000 9000 9000", "unreadable", "its header states 9000x9000x9000 voxels"),
        ("sizes: 5 6 7", "sizes: 5 6", "unreadable", "sizes [5, 6] of 3 dimensions in its header"),
        ("sizes: 5 6 7", "sizes: 5 6 x", "unreadable", "a line of its header cannot be read"),
        ("endian: little", "endian: middle", "unreadable", "endian middle in its header"),
        ("NRRD", "nope", "unreadable", "no NRRD header in its first bytes"),
    ],
)  # fmt: skip
def test_faulty_headers(tmp_path, old, new, problem, detail):
    path = edited(write(tmp_path / "a.nrrd", voxels((5, 6, 7))), old, new)
    facts = examine(path, "image")
    assert facts.problem == problem
    assert facts.detail.startswith(detail)


SEGMENTS = {
    "Segment0_ID": "Segment_1", "Segment0_Name": "Hígado", "Segment0_LabelValue": "1", "Segment0_Layer": "0",
    "Segment1_ID": "Segment_2", "Segment1_Name": "spleen", "Segment1_LabelValue": "5", "Segment1_Layer": "0",
}  # fmt: skip


def segmentation(path: Path, array: np.ndarray, **fields) -> str:
    """A .seg.nrrd with two segments, as 3D Slicer writes it."""
    written = write(path, array, **{k: v for k, v in fields.items() if "Segment" not in k})
    lines = "".join(
        f"\n{name}:={value}" for name, value in {**SEGMENTS, **fields}.items() if "Segment" in name
    )
    return edited(written, "encoding: gzip", f"encoding: gzip{lines}")


def test_segmentations_of_slicer(tmp_path):
    array = np.zeros((5, 6, 7), np.uint8)
    array[1, 2, 3], array[2, 2, 3] = 1, 5
    facts = examine(segmentation(tmp_path / "a.seg.nrrd", array), "label")
    assert (facts.values, facts.names) == ([0, 1, 5], [[1, "Hígado"], [5, "spleen"]])
    layers = segmentation(tmp_path / "b.seg.nrrd", array, Segment1_Layer="1")
    assert examine(layers, "label").detail == "overlapping segments in 2 layers, expected one value per voxel"
    for value in ("-1", "65536"):
        outside = examine(segmentation(tmp_path / "d.seg.nrrd", array, Segment1_LabelValue=value), "label")
        assert outside.detail == f"Segment1_LabelValue is {value}, expected 0 to 65535"
    rows = np.insert(DIRECTIONS, 0, np.nan, axis=0)
    both = np.stack([array == 1, array == 5]).astype(np.uint8)
    stacked = segmentation(
        tmp_path / "c.seg.nrrd", both, kinds=["list", *["domain"] * 3], **{"space directions": rows}
    )
    assert examine(stacked, "label").detail.startswith("overlapping segments in 2 layers")


def test_segmentations_are_found_as_labels_and_name_the_classes(tmp_path):
    array = np.zeros((5, 6, 7), np.uint8)
    array[1, 2, 3], array[2, 2, 3] = 1, 5
    for folder in ("a/imagesTr", "a/labelsTr", "b"):
        (tmp_path / folder).mkdir(parents=True)
    for n in range(4):
        image = voxels((5, 6, 7), n)
        write(tmp_path / f"a/imagesTr/p{n}.nrrd", image), write(tmp_path / f"b/p{n}.nrrd", image)
        segmentation(tmp_path / f"a/labelsTr/p{n}.seg.nrrd", array)
        segmentation(tmp_path / f"b/p{n}.seg.nrrd", array)
    for folder in ("a", "b"):
        ready = prepare_cases(
            str(tmp_path / folder), purpose="finetuning", pixdim="native", cache_dir=str(tmp_path / "cache")
        )
        assert len(ready["train"]) == 3
        assert ready["train"][0]["label"].endswith(".seg.nrrd")
        assert ready["class_names"] == ["background", "Hígado", "spleen"]
    other = segmentation(tmp_path / "b/p1.seg.nrrd", array, Segment1_Name="kidney")
    cases = [{"id": n, "image": str(tmp_path / f"b/{n}.nrrd")} for n in ("p0", "p1", "p2")]
    cases = [{**c, "label": c["image"].replace(".nrrd", ".seg.nrrd")} for c in cases]
    assert check_cases(cases, require_label=True).bad[0][1] == (
        "label values: 5 is kidney, and spleen in another case"
    )
    array[3, 3, 3] = 7
    segmentation(Path(other), array)
    assert check_cases(cases, require_label=True).bad[0][1] == (
        "label values: 7, which no segment in its header has"
    )


def test_data_above_the_folder_are_not_read(tmp_path):
    """The file is there and would fit."""
    (tmp_path / "scans").mkdir()
    nrrd.write(str(tmp_path / "scans" / "a.nhdr"), voxels((5, 6, 7)), HEADER, detached_header=True)
    path = str(tmp_path / "scans" / "a.nhdr")
    assert examine(path, "image").problem == ""
    data = next((tmp_path / "scans").glob("a.raw*"))
    data.rename(tmp_path / data.name)
    text = Path(path).read_text()
    for named in (f"../{data.name}", str(tmp_path / data.name)):
        Path(path).write_text(text.replace(f"data file: {data.name}", f"data file: {named}"))
        facts = examine(path, "image")
        assert facts.problem == "unreadable"
        assert facts.detail.endswith("expected a data file in the header's folder")

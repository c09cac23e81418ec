"""Tests of reading one file: geometry in every format, every fault, and the verdicts on disk."""

import json
import os
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from pretext3d import extras
from pretext3d.data import volumes
from pretext3d.data.dicom import find_stacks
from pretext3d.data.volumes import VerdictCache, examine, strip_extension
from pretext3d.extras import not_installed

from .conftest import voxels


def test_strip_extension():
    assert [strip_extension(n) for n in ("a/b.nii.gz", "b.NII", "c.d.nrrd", "e.mha", "folder.x")] == [
        "a/b",
        "b",
        "c.d",
        "e",
        "folder.x",
    ]


@pytest.mark.parametrize(
    ("axes", "shape", "spacing"),
    [
        # i j k are 5 6 7 voxels of 1 2 3 mm; with PSR, i runs along y, j along z and k along x
        ("RAS", [5, 6, 7], [1, 2, 3]),
        ("LPS", [5, 6, 7], [1, 2, 3]),
        ("PSR", [7, 5, 6], [3, 1, 2]),
        ("ILA", [6, 7, 5], [2, 3, 1]),
    ],
)
def test_geometry_along_world_axes(volume, axes, shape, spacing):
    facts = examine(volume("a.nii.gz", axes=axes), "header")
    assert (facts.problem, facts.axes, facts.shape, facts.channels) == ("", axes, [5, 6, 7], 1)
    found_shape, found_spacing = facts.along_world()
    assert found_shape == shape
    assert found_spacing == pytest.approx(spacing)


def faulty(value):
    array = voxels((5, 6, 7)).astype(np.float32)
    array[0, 0, :2] = value
    return array


def beyond_float32():
    array = voxels((5, 6, 7)).astype(np.float64)
    array[0, 0, :2] = -1e39  # float32 ends at 3.4e38
    return array


@pytest.mark.parametrize(
    ("array", "states"),
    [
        (voxels((5, 6, 7)), [["", ""]]),
        (faulty(np.nan), [["NaN", "2 of 210 voxels"]]),
        (faulty(np.inf), [["inf", "2 of 210 voxels"]]),
        (faulty(-np.inf), [["inf", "2 of 210 voxels"]]),
        (beyond_float32(), [["inf", "2 of 210 voxels"]]),
        (np.full((5, 6, 7), 4, np.int16), [["empty", "every voxel is 4"]]),
        (
            np.stack([voxels((5, 6, 7)), np.zeros((5, 6, 7), np.int16)], -1),
            [["", ""], ["empty", "every voxel is 0"]],
        ),
    ],
)
def test_voxel_states(volume, array, states):
    facts = examine(volume("a.nii.gz", array), "image")
    assert (facts.problem, facts.states) == ("", states)


def test_scaled_voxels(tmp_path):
    image = nib.Nifti1Image(voxels((5, 6, 7)), np.eye(4))
    image.header.set_slope_inter(0.5, -1000)
    nib.save(image, tmp_path / "a.nii")
    assert examine(str(tmp_path / "a.nii"), "image").states == [["", ""]]


@pytest.mark.parametrize(
    ("array", "problem"),
    [
        (voxels((5, 6, 1)), "single slice"),
        (voxels((1, 6, 7)), "single slice"),
        (voxels((5, 6)), "single slice"),
        (voxels((5, 6, 1, 3)), "single slice"),
        (voxels((5, 6, 7, 1, 3)), "wrong number of dimensions"),
        (np.zeros((5, 6, 7), dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")]), "unreadable"),
        (np.zeros((5, 6, 7), np.complex64), "unreadable"),
    ],
)
def test_wrong_headers(volume, array, problem):
    assert examine(volume("a.nii.gz", array), "header").problem == problem


def test_one_channel_4d_is_fine(volume):
    facts = examine(volume("a.nii.gz", voxels((5, 6, 7, 1))), "image")
    assert (facts.problem, facts.channels, facts.states) == ("", 1, [["", ""]])


def test_singular_geometry(tmp_path):
    image = nib.Nifti1Image(voxels((5, 6, 7)), None)
    image.set_sform(np.diag([0.0, 0, 0, 1]), code=1)
    nib.save(image, tmp_path / "a.nii")
    raw = bytearray((tmp_path / "a.nii").read_bytes())
    raw[76:92] = np.array([1, np.nan, 1, 1], "<f4").tobytes()  # pixdim of the header: qfac, i, j, k
    (tmp_path / "a.nii").write_bytes(raw)
    assert examine(str(tmp_path / "a.nii"), "header").problem in ("bad geometry", "unreadable")


def test_broken_files(volume, tmp_path):
    whole = Path(volume("a.nii.gz", shape=(20, 20, 20)))
    data = whole.read_bytes()
    (tmp_path / "truncated.nii.gz").write_bytes(data[: len(data) // 2])
    (tmp_path / "text.nii.gz").write_text("<html>404</html>")
    (tmp_path / "empty.nii").write_bytes(b"")
    (tmp_path / "truncated.nii").write_bytes(Path(volume("b.nii")).read_bytes()[:500])
    (tmp_path / "folder.nii").mkdir()
    for name in ("truncated.nii.gz", "text.nii.gz", "empty.nii", "truncated.nii", "folder.nii"):
        facts = examine(str(tmp_path / name), "image")
        assert facts.problem == "unreadable", name
        assert facts.detail, name
    assert examine(str(tmp_path / "truncated.nii.gz"), "header").problem == ""  # its header is whole


def label_array(*values):
    array = np.zeros((5, 6, 7), np.float64)
    array[1, 1, : len(values)] = values
    return array


@pytest.mark.parametrize(
    ("array", "values", "fault"),
    [
        (label_array(1, 4).astype(np.uint8), [0, 1, 4], ""),
        (label_array(1, 4), [0, 1, 4], ""),
        (label_array().astype(np.uint8), [0], ""),
        (label_array(0.5), [], "0.5, expected integers"),
        (label_array(-1).astype(np.int16), [], "values -1 to 0, expected 0 to 65535"),
        (label_array(np.nan), [], "NaN or inf"),
    ],
)
def test_label_values(volume, array, values, fault):
    facts = examine(volume("a.nii.gz", array), "label")
    assert (facts.values, facts.states) == (values, [["values", fault]])


def test_nrrd(tmp_path):
    nrrd = pytest.importorskip("nrrd")
    header = {
        "space": "left-posterior-superior",
        "space directions": np.diag([1.0, 2, 3]),
        "space origin": [0, 0, 0],
    }
    nrrd.write(str(tmp_path / "a.nrrd"), voxels((5, 6, 7)), header)
    facts = examine(str(tmp_path / "a.nrrd"), "image")
    assert (facts.problem, facts.shape, facts.axes, facts.channels) == ("", [5, 6, 7], "LPS", 1)
    assert facts.spacing == pytest.approx([1, 2, 3])
    data = (tmp_path / "a.nrrd").read_bytes()
    (tmp_path / "b.nrrd").write_bytes(data[:-50])
    assert examine(str(tmp_path / "b.nrrd"), "image").problem == "unreadable"


def test_mha(tmp_path):
    itk = pytest.importorskip("itk")
    image = itk.image_from_array(voxels((7, 6, 5)))  # itk's arrays are k j i
    image.SetSpacing([1.0, 2.0, 3.0])
    for name in ("a.mha", "b.mhd"):
        itk.imwrite(image, str(tmp_path / name))
        facts = examine(str(tmp_path / name), "image")
        assert (facts.problem, facts.shape, facts.axes, facts.channels) == ("", [5, 6, 7], "LPS", 1), name
        assert facts.spacing == pytest.approx([1, 2, 3])
    (tmp_path / "b.raw").unlink()
    assert examine(str(tmp_path / "b.mhd"), "image").problem == "unreadable"


@pytest.mark.parametrize(
    ("name", "needs"), [("a.nrrd", "pynrrd"), ("a.nhdr", "pynrrd"), ("series", "pydicom")]
)
def test_missing_packages(tmp_path, monkeypatch, name, needs):
    monkeypatch.setattr(extras.importlib.util, "find_spec", lambda name: None)
    (tmp_path / name).write_bytes(b"")
    facts = VerdictCache(str(tmp_path / "cache")).facts(str(tmp_path / name), "image")
    assert facts.detail == not_installed(needs)
    assert not (tmp_path / "cache").exists()  # installing it mends the verdict


def test_a_package_that_is_too_old(tmp_path, monkeypatch):
    monkeypatch.setattr(extras.importlib.metadata, "version", lambda name: "2.4.5")
    text = "needs pydicom 3 or newer, found 2.4.5: pip install 'pydicom>=3'"
    assert examine(str(tmp_path / "series"), "image").detail == text
    (found,) = find_stacks([tmp_path / "0.dcm"], str(tmp_path / "cache"))
    assert found.reason == f"unreadable: {text}"


def test_verdicts_are_kept_until_the_file_changes(volume, tmp_path, monkeypatch):
    path = volume("a.nii.gz")
    kept = tmp_path / "cache"
    first = VerdictCache(str(kept)).facts(path, "image")
    monkeypatch.setattr(volumes, "examine", lambda *_: pytest.fail("read again"))
    assert VerdictCache(str(kept)).facts(path, "image") == first
    monkeypatch.undo()
    volume("a.nii.gz", np.full((5, 6, 8), 3, np.int16))
    assert VerdictCache(str(kept)).facts(path, "image").states == [["empty", "every voxel is 3"]]
    for verdict in kept.rglob("*.json"):
        verdict.write_text("{cut")
    assert VerdictCache(str(kept)).facts(path, "image").shape == [5, 6, 8]  # a broken verdict is made again
    assert all(json.loads(v.read_text()) for v in kept.rglob("*.json") if v.stat().st_size > 4)


def test_a_cache_that_cannot_be_written_is_no_error(volume, tmp_path):
    (tmp_path / "file").write_text("not a folder")
    assert VerdictCache(str(tmp_path / "file")).facts(volume("a.nii.gz"), "image").problem == ""


def test_missing_and_forbidden_files(tmp_path, volume):
    assert VerdictCache().facts(str(tmp_path / "gone.nii"), "image").problem == "missing file"
    (tmp_path / "link.nii").symlink_to(tmp_path / "gone.nii")
    assert VerdictCache().facts(str(tmp_path / "link.nii"), "header").problem == "missing file"
    path = volume("a.nii.gz")
    Path(path).chmod(0)
    if os.geteuid() != 0:
        assert VerdictCache().facts(path, "image").problem == "unreadable"

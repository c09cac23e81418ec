"""Slices of volumes: which are taken, that they are what the volume says, and that each file is read once."""

import logging
from concurrent.futures import ThreadPoolExecutor

import nibabel as nib
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from monai.transforms import Compose, LoadImaged, Orientationd
from pretext3d.data import slices as module
from pretext3d.data.checks import check_cases
from pretext3d.data.slices import RecentVolumes, check_slices, load_plane, slice_cases, to_stored
from pretext3d.data.volumes import examine
from pretext3d.errors import UserError

from .conftest import voxels


@pytest.mark.parametrize(
    ("given", "expected"),
    [(None, None), ({}, (2, 1)), ({"axis": 0}, (0, 1)), ({"axis": 1, "every": 3}, (1, 3))],
)
def test_which_slices(given, expected):
    assert check_slices(given, 2) == expected


@pytest.mark.parametrize(
    "given", [{"axis": 3}, {"axis": True}, {"every": 0}, {"every": 1.5}, {"step": 2}, [2, 1], {"axis": None}]
)
def test_bad_slices_are_named(given):
    with pytest.raises(UserError, match=r"slices: found .* expected {axis: 0, 1 or 2"):
        check_slices(given, 2)


def test_spatial_dims_and_slices_in_3d():
    with pytest.raises(UserError, match="spatial_dims: found 4, expected 2 or 3"):
        check_slices(None, 4)
    with pytest.raises(UserError, match=r"slices: found .* with spatial_dims 3, expected null"):
        check_slices({"axis": 2}, 3)


@pytest.mark.parametrize("axes", ["RAS", "LPS", "PSR", "ILA"])
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_slice_is_that_of_the_volume_in_ras_order(volume, axes, axis):
    path = volume("a.nii.gz", axes=axes, array=voxels((5, 6, 7, 2)))
    ras = Compose(
        [LoadImaged("image", ensure_channel_first=True), Orientationd("image", axcodes="RAS", labels=None)]
    )
    whole = ras({"image": path})["image"]
    in_plane = [w for w in range(3) if w != axis]
    for index in (0, 2, whole.shape[1 + axis] - 1):
        plane, across = load_plane(path, index, axis)
        assert across == axis
        torch.testing.assert_close(
            plane.as_tensor(), whole.as_tensor().select(1 + axis, index), rtol=0, atol=0
        )
        # spacings of x, y, z are the columns of the RAS affine, which is diagonal here
        spacing, corner = whole.affine.diag()[:3], whole.affine[:3, 3] + index * whole.affine[:3, axis]
        expected = torch.diag(torch.cat([spacing[[*in_plane, axis]], torch.ones(1).double()]))
        expected[:3, 3] = corner[[*in_plane, axis]]
        torch.testing.assert_close(plane.affine, expected)
    with pytest.raises(UserError, match="expected a single slice, or an index from 0 to"):
        load_plane(path, whole.shape[1 + axis], axis)
    with pytest.raises(UserError, match=r"found a volume of .* and slice None"):
        load_plane(path)


def test_an_oblique_volume_keeps_its_spacings(tmp_path):
    angle = 0.3
    turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    affine = np.eye(4)
    affine[:3, :3] = turn @ np.diag([1.0, 2.0, 3.0])
    nib.save(nib.Nifti1Image(voxels((5, 6, 7)), affine), tmp_path / "a.nii")
    plane, _ = load_plane(str(tmp_path / "a.nii"), 4, 2)
    torch.testing.assert_close(plane.affine.diag(), torch.tensor([1.0, 2, 3, 1]).double())
    assert plane.affine[2, 3] == 12


@pytest.mark.parametrize("shape", [(5, 6), (5, 6, 1), (5, 1, 7), (1, 6, 7), (5, 6, 1, 3)])
@pytest.mark.parametrize("axes", ["LPS", "PSR"])
def test_single_slices(volume, shape, axes):
    path = volume("a.nii.gz", voxels(shape), axes=axes)
    for kind in ("header", "image"):
        facts = examine(path, kind, 2)
        assert (facts.problem, facts.shape) == ("", [*shape, 1][:3])
    assert facts.flat == []
    plane, axis = load_plane(path)
    world = facts.along_world()[0]
    assert world[axis] == 1
    assert list(plane.shape) == [shape[3] if len(shape) == 4 else 1, *world[:axis], *world[axis + 1 :]]
    stored = voxels(shape)
    if len(shape) < 4:
        ras = np.expand_dims(plane[0].numpy(), axis)
        back = to_stored(ras, plane.meta["volume_affine"].numpy(), plane.meta["volume_shape"].tolist())
        np.testing.assert_array_equal(back, stored)


@given(
    axes=st.permutations(["RL", "AP", "SI"]).flatmap(lambda pairs: st.tuples(*map(st.sampled_from, pairs))),
    shape=st.tuples(*[st.integers(1, 4)] * 3),
)
def test_putting_back_undoes_bringing_to_ras(axes, shape):
    stored = np.arange(np.prod(shape)).reshape(shape)
    affine = nib.orientations.inv_ornt_aff(nib.orientations.axcodes2ornt(axes), shape)
    ras = nib.apply_orientation(stored, nib.io_orientation(affine))
    np.testing.assert_array_equal(to_stored(ras, affine, shape), stored)


def test_air_is_left_out_and_a_volumes_slices_stay_together(volume, tmp_path, caplog):
    array = voxels((5, 6, 7))
    array[:, :, 0] = array[:, :, 5] = 3  # stored slices 0 and 5; in an LPS volume z runs as in RAS
    flat_x = voxels((5, 6, 7))
    flat_x[0] = 0  # stored i = 0 is x = 4 in an LPS volume
    both = np.stack([array, voxels((5, 6, 7), 1)], -1)
    both[:, :, 5, 1] = 9
    paths = {
        "a": volume("a.nii.gz", array, axes="LPS"),
        "b": volume("b.nii.gz", flat_x, axes="LPS"),
        "c": volume("c.nii.gz", both, axes="LPS"),
        "one": volume("one.nii.gz", voxels((5, 6))),
    }
    cases = [{"id": f"set/{n}", "name": n, "image": p, "age": 61} for n, p in paths.items()]
    cases[1]["subject"] = "Anna"

    def taken(axis, every=1, channels=None, which=cases):
        found = slice_cases(which, check_slices({"axis": axis, "every": every}, 2), channels, str(tmp_path))
        return {n: [c["slice"] for c in found if c["image"] == p and "slice" in c] for n, p in paths.items()}

    caplog.set_level(logging.INFO)
    # c: slice 0 is constant in channel 0 alone, slice 5 in both
    full = [0, 1, 2, 3, 4, 5, 6]
    assert taken(2) == {"a": [1, 2, 3, 4, 6], "b": full, "c": [0, 1, 2, 3, 4, 6], "one": []}
    assert [r.getMessage() for r in caplog.records] == [
        "slices along axis 2: 18 of 3 volumes; 3 constant ones (air) left out"
    ]
    assert taken(2, every=5) == {"a": [], "b": [0, 5], "c": [0], "one": []}
    assert taken(2, channels=[0])["c"] == [1, 2, 3, 4, 6]
    assert taken(0)["b"] == [0, 1, 2, 3]
    found = slice_cases(cases, check_slices({}, 2), None, str(tmp_path))
    assert found[0] == {
        "id": "set/a/slice001", "name": "a/slice001", "image": paths["a"], "age": 61,
        "subject": "a", "volume": "set/a", "slice": 1, "slice_axis": 2, "slice_every": 1, "slice_count": 5,
    }  # fmt: skip
    assert {c["subject"] for c in found if c["image"] == paths["b"]} == {"Anna"}
    assert found[-1] == cases[-1]  # a single slice is a case as it stands
    with pytest.raises(UserError, match="gives only constant slices of 1 volumes"):
        taken(2, every=5, which=cases[:1])


def test_constant_slices_with_a_label_are_kept_where_a_volume_is_measured(volume, tmp_path):
    """Slices 0 and 5 of the image are constant; the label has a voxel in slice 5."""
    array, marked = voxels((5, 6, 7)), np.zeros((5, 6, 7), np.uint8)
    array[:, :, 0] = array[:, :, 5] = 3
    marked[2, 2, 5] = marked[2, 2, 3] = 1
    case = {"id": "a", "name": "a", "image": volume("a.nii.gz", array), "label": volume("l.nii.gz", marked)}

    def taken(**keys):
        return slice_cases([case], check_slices({}, 2), cache_dir=str(tmp_path), **keys)

    assert [c["slice"] for c in taken()] == [1, 2, 3, 4, 6]
    found = taken(keep_labelled=True)
    assert [c["slice"] for c in found] == [1, 2, 3, 4, 5, 6]
    assert [c["slice"] for c in found if c.get("constant")] == [5]
    assert {c["slice_count"] for c in found} == {6}


def test_checks_in_2d(volume, label, tmp_path):
    cases = [
        {"id": "volume", "image": volume("v.nii.gz")},
        {"id": "listed", "image": volume("v.nii.gz"), "slice": 4, "slice_axis": 0},
        {"id": "beyond", "image": volume("v.nii.gz"), "slice": 7},
        {"id": "row", "image": volume("r.nii.gz", voxels((5, 1, 1)))},
        {"id": "flat", "image": volume("f.nii.gz", np.full((5, 6), 2, np.int16))},
        {"id": "plane", "image": volume("p.nii.gz", voxels((5, 6)), axes="PSR")},
    ]
    checked = check_cases(cases, spatial_dims=2)
    assert {c["id"]: reason for c, reason in checked.bad} == {
        "volume": "volume: 5x6x7 voxels, not a single slice; --slices \"{'axis': 2, 'every': 1}\" uses its "
        "slices",
        "beyond": "no such slice: 7 along axis 2, the volume is 5x6x7 along x y z",
        "row": "single row: shape 5x1x1",
        "flat": "empty: every voxel is 2",
    }
    # 5 x 6 x 7 voxels of 1 x 2 x 3 mm: across x, the plane has y and z; PSR: i along y, j along z
    assert (checked.shapes["listed"], checked.spacings["listed"]) == ([6, 7], [2.0, 3.0])
    assert (checked.shapes["plane"], checked.spacings["plane"]) == ([5, 6], [1.0, 2.0])
    sliced = check_cases(
        cases[:1], spatial_dims=2, slices=check_slices({"axis": 1}, 2), cache_dir=str(tmp_path)
    )
    assert (sliced.shapes["volume"], sliced.spacings["volume"]) == ([5, 7], [1.0, 3.0])
    # a verdict in 2D is not one in 3D
    single = [{"id": "plane", "image": cases[5]["image"]}]
    assert check_cases(single, spatial_dims=2, cache_dir=str(tmp_path)).good
    assert check_cases(single, cache_dir=str(tmp_path)).bad[0][1] == "single slice: shape 5x6"


def test_a_volume_is_read_once(volume, monkeypatch):
    paths = [volume(f"{n}.nii.gz") for n in range(3)]
    reads = []
    original = module.read_ras
    monkeypatch.setattr(module, "read_ras", lambda path, frames: reads.append(path) or original(path, frames))
    recent = RecentVolumes()
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(recent, [path for path in paths for _ in range(20)]))
    assert sorted(reads) == sorted(paths)
    volume("0.nii.gz", voxels((5, 6, 8)))  # a changed file is read again
    assert recent(paths[0]).array.shape == (5, 6, 8, 1)
    small = RecentVolumes(files=2, limit=0)
    for path in paths:
        small(path)
    assert list(small.volumes) == paths[1:]
    assert set(small.locks) == set(paths[1:])


def test_a_dicom_slice_and_a_series(dicom):
    folder = dicom("series")
    whole, _ = load_plane(str(folder), 2, 2)
    single, axis = load_plane(str(folder / "002.dcm"))
    assert axis == 2
    torch.testing.assert_close(single.as_tensor(), whole.as_tensor())
    for row, column in ((0, 0), (1, 1), (0, 3), (1, 3)):  # a single file does not give the distance of slices
        assert single.affine[row, column] == whole.affine[row, column]
    facts = examine(str(folder / "002.dcm"), "image", 2)
    assert (facts.problem, facts.shape, facts.axes) == ("", [6, 5, 1], "LPS")
    assert facts.spacing[:2] == pytest.approx([3, 2])  # columns are 3 mm apart, rows 2

"""The patches of contrastive predictive coding: their grid by hand, random windows, locations in order."""

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from monai.data import MetaTensor
from pretext3d.data.subjects import subject_code
from pretext3d.errors import UserError
from pretext3d.methods.cpc.patches import PatchGrid, RandPatchGridd
from pretext3d.ops.grids import assemble_cubes

AFFINE = torch.diag(torch.tensor([2.0, 1.0, 3.0, 1.0], dtype=torch.float64))
LINE = PatchGrid(grid=[1, 3], size=[2, 2], steps=1, spatial_dims=2)  # three rows of one patch
CUBE = PatchGrid(grid=[2, 3, 4], size=[4, 4, 4], steps=2)


def numbered(*shape: int) -> MetaTensor:
    return MetaTensor(torch.arange(1.0, 1 + math.prod(shape)).reshape(shape), affine=AFFINE)


def sample_of(volume: torch.Tensor, patches: PatchGrid, seed: int = 0, shift: float = 1.0) -> dict[str, Any]:
    transform = RandPatchGridd(patches, shift)
    transform.set_random_state(seed=seed)
    return transform({"image": volume})


def test_patches_overlap() -> None:
    """2 x 3 patches of 4 x 4 pixels, 1 pixel in common: pitch 3, block 2 * 3 + 1 = 7 by 3 * 3 + 1 = 10."""
    patches = PatchGrid(grid=[2, 3], size=[4, 4], overlap=1, steps=1, spatial_dims=2)
    assert patches.block == (7, 10)
    image = numbered(1, 7, 10)  # pixel (i, j) is 10 i + j + 1
    got = sample_of(image, patches)
    assert got["starts"].tolist() == [[0, 0], [0, 3], [0, 6], [3, 0], [3, 3], [3, 6]]
    assert got["image"].shape == (6, 1, 4, 4)
    assert got["image"][:, 0, 0, 0].tolist() == [1, 4, 7, 31, 34, 37]
    cells = got["image"].view(2, 3, 4, 4)
    torch.testing.assert_close(cells[:, :-1, :, 3], cells[:, 1:, :, 0])  # of neighbours along j
    torch.testing.assert_close(cells[0, :, 3], cells[1, :, 0])


def test_the_authors_grid_fits_their_crop() -> None:
    """4 patches of 32 with 3 in common: 4 * 29 + 3 = 119 of their 121; without jitter a tenth overlaps."""
    assert PatchGrid(grid=4, size=[32] * 3, overlap=3).block == (119, 119, 119)
    assert len(PatchGrid(grid=4, size=[32] * 3).targets) == 3 * 16 + 2 * 16


def test_windows_jitter_in_their_patches() -> None:
    """Patches of 6 with jitter 3 at pitch 5: windows of 3, at 0 to 3 in the patch, and 1 | 2 zeros around."""
    patches = PatchGrid(grid=[2, 2], size=[6, 6], overlap=1, jitter=[3, 0], steps=1, spatial_dims=2)
    assert patches.block == (11, 11)
    image = numbered(1, 11, 11)
    places = []
    for seed in range(60):
        got = sample_of(image, patches, seed)
        corner = torch.tensor([[0, 0], [0, 5], [5, 0], [5, 5]])
        places.append(got["starts"] - corner)
        for start, patch in zip(got["starts"].tolist(), got["image"], strict=True):
            torch.testing.assert_close(
                patch[0, 1:4], image.as_tensor()[0, start[0] : start[0] + 3, start[1] : start[1] + 6]
            )
            assert not patch[0, 0].any()
            assert not patch[0, 4:].any()
    found = torch.stack(places)
    assert sorted(found[..., 0].unique().tolist()) == [0, 1, 2, 3]
    assert not found[..., 1].any()
    assert (found[:, 0, 0] != found[:, 1, 0]).any()  # each patch has its own


@given(seed=st.integers(0, 99), shift=st.sampled_from([0.0, 0.5, 1.0]))
def test_the_grid_is_inside_the_volume(seed: int, shift: float) -> None:
    volume = numbered(2, 11, 13, 17)
    before = volume.clone()
    got = sample_of(volume, CUBE, seed, shift)  # a block of 8 x 12 x 16: room 3, 1, 1
    joined = assemble_cubes(got["image"], got["starts"], (11, 13, 17))
    inside = assemble_cubes(torch.ones_like(got["image"]), got["starts"], (11, 13, 17))
    torch.testing.assert_close(joined, volume.as_tensor() * inside, rtol=0, atol=0)
    assert int(inside[0].sum()) == 8 * 12 * 16
    corner = got["starts"][0].tolist()
    assert all(0 <= place <= room for place, room in zip(corner, (3, 1, 1), strict=True))
    assert shift > 0 or corner == [2, 0, 0]  # in the middle; a half is rounded to even
    assert torch.equal(volume, before)


def test_same_seed_same_sample() -> None:
    patches = PatchGrid(grid=2, size=[4, 4, 4], overlap=1, jitter=1, steps=1)
    first, again, other = (sample_of(numbered(1, 9, 9, 9), patches, seed) for seed in (3, 3, 4))
    assert all(torch.equal(first[key], again[key]) for key in ("image", "starts", "negative"))
    assert not torch.equal(first["image"], other["image"])
    assert not torch.equal(first["negative"], other["negative"])


def test_cases_of_a_subject_have_its_code() -> None:
    cases = [{"id": name, "subject": name[0], "image": numbered(1, 2, 6)} for name in ("a1", "a2", "b1")]
    codes = [int(RandPatchGridd(LINE)(case)["subject_code"]) for case in cases]
    assert codes == [subject_code(case) for case in cases]
    assert codes[0] == codes[1] != codes[2]


def test_rows_go_from_the_top_downwards() -> None:
    """A volume of 2 x 1 x 3 patches in RAS order: the high end of the last axis is the top.

    Cells in C order: 0 1 2 with the first index 0, 3 4 5 with 1. Top row 2 and 5, then 1 and 4, then 0 and 3.
    """
    patches = PatchGrid(grid=[2, 1, 3], size=[2, 2, 2], steps=2)
    assert (patches.shape, patches.order.tolist()) == ((3, 2, 1), [2, 5, 1, 4, 0, 3])
    # one row ahead of locations 0 to 3 are 2 to 5, two rows ahead of 0 and 1 are 4 and 5
    assert patches.targets.tolist() == [2, 3, 4, 5, 4, 5]
    assert patches.step_of.tolist() == [1, 1, 1, 1, 2, 2]
    across = PatchGrid(grid=[2, 1, 3], size=[2, 2, 2], steps=1, row_axis=0)
    assert (across.shape, across.order.tolist()) == ((2, 1, 3), [3, 4, 5, 0, 1, 2])


def test_negatives_are_other_locations() -> None:
    found = torch.cat([sample_of(numbered(1, 2, 6), LINE, seed)["negative"] for seed in range(50)])
    assert sorted(found.unique().tolist()) == [1, 2]
    assert all(int((found == distance).sum()) > 30 for distance in (1, 2))  # of 100


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"grid": 0}, "grid: found 0"),
        ({"overlap": 4}, r"overlap: found \[4, 4\], expected fewer voxels than a patch of roi_size \[4, 4\]"),
        ({"jitter": [0, 4]}, r"jitter: found \[0, 4\], expected fewer voxels"),
        ({"steps": 3}, r"steps_ahead: found 3 with 3 rows of the grid \[3, 3\] along axis 1"),
        ({"steps": 0}, "steps_ahead: found 0"),
        ({"row_axis": 2}, "row_axis: found 2, expected an integer from 0 to 1"),
        ({"volume_size": 9}, r"grid: \[3, 3\] patches .* \[4, 4\] .* need \[10, 10\] voxels, found \[9, 9\]"),
        ({"volume_size": [12, 12, 12]}, "body_size: found"),
    ],
)  # fmt: skip
def test_impossible_grids(options: dict[str, Any], message: str) -> None:
    given = {"grid": 3, "size": [4, 4], "overlap": 1, "steps": 1, "spatial_dims": 2, **options}
    with pytest.raises(UserError, match=message):
        PatchGrid(**given)


def test_volumes_that_do_not_fit() -> None:
    with pytest.raises(UserError, match=r"need \[8, 12, 16\] voxels, found \[8, 11, 16\]"):
        sample_of(numbered(1, 8, 11, 16), CUBE)
    with pytest.raises(UserError, match="spatial_dims: found 3, expected the 2 axes of an image"):
        sample_of(numbered(1, 8, 16), CUBE)
    with pytest.raises(UserError, match="shift: found 2"):
        RandPatchGridd(CUBE, shift=2)

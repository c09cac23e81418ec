"""Random grids of cubes, and volumes stretched to them."""

import logging

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from pretext3d.errors import UserError
from pretext3d.transforms.grids import RandGrid, RandPuzzle, StretchToGridd


def numbered(*shape):
    return torch.arange(float(np.prod(shape))).reshape(shape)


def test_what_is_stretched_is_logged(caplog):
    stretch = StretchToGridd("image", (2, 3, 2), (1, 1, 1), (1, 0, 0))  # 4 x 3 x 2 voxels
    with caplog.at_level(logging.INFO):
        stretch({"id": "enough", "image": numbered(1, 4, 3, 3)})
        assert not caplog.records
        stretch({"id": "flat", "image": numbered(1, 3, 3, 3)})
    assert caplog.messages == ["case flat: [3, 3, 3] voxels stretched by 1.33 x 1.00 x 1.00 to the grid"]


def test_short_volumes_are_stretched():
    """2 x 3 x 4 voxels of 2 x 1 x 3 mm for a grid of 4 x 3 x 2: axis 0 becomes 4 voxels of 1 mm."""
    volume = MetaTensor(numbered(1, 2, 3, 4), affine=torch.diag(torch.tensor([2.0, 1.0, 3.0, 1.0])))
    got = StretchToGridd("image", (2, 3, 2), (1, 1, 1), (1, 0, 0))({"image": volume})["image"]
    assert got.shape == (1, 4, 3, 4)
    torch.testing.assert_close(got.affine.diagonal(), torch.tensor([1.0, 1.0, 3.0, 1.0], dtype=torch.float64))
    # trilinear, voxel centres at -0.25, 0.25, 0.75, 1.25 of the old ones: the middle two are 1/4 and
    # 3/4 between
    torch.testing.assert_close(got[0, :, 0, 0].as_tensor(), torch.tensor([0.0, 3.0, 9.0, 12.0]))
    enough = {"image": volume}
    assert StretchToGridd("image", 2, (1, 1, 1), 0)(enough)["image"] is volume


def test_short_images_are_stretched():
    """3 x 4 pixels of 2 x 1 mm for a grid of 6 x 3: axis 0 becomes 6 pixels of 1 mm, axis 1 stays."""
    affine = torch.diag(torch.tensor([2.0, 1.0, 1.0, 1.0]))
    stretch = StretchToGridd("image", 3, (1, 1), (1, 0))
    got = stretch({"image": MetaTensor(numbered(3, 3, 4), affine=affine)})["image"]
    assert got.shape == (3, 6, 4)
    assert got.affine.shape == (4, 4)
    torch.testing.assert_close(got.affine.diagonal()[:2], torch.tensor([1.0, 1.0], dtype=torch.float64))
    # pixel centres at -0.25, 0.25, 0.75, ... of the old ones: 0, then 1/4 and 3/4 between 0 and 4
    torch.testing.assert_close(got[0, :3, 0].as_tensor(), torch.tensor([0.0, 1.0, 3.0]))
    with pytest.raises(UserError, match="image: found 3 spatial axes, expected the 2 of the grid"):
        stretch({"image": numbered(1, 3, 4, 5)})


# ------------------------------------------------------------------------------------------- a random grid
def test_a_grid_by_hand():
    """2 x 1 cells of 2 + 1 and 3 + 2 voxels in 10 x 5: the block of 6 has 4 voxels of room along axis 0."""
    grid = RandGrid([2, 1], (2, 3), [1, 2], shift=0, spatial_dims=2).set_random_state(seed=0)
    grid.randomize(torch.zeros(1, 10, 5))
    assert grid.cells == 2
    assert grid.corner == (2, 0)  # in the middle
    assert torch.equal(grid.starts - torch.from_numpy(grid.offsets), torch.tensor([[2, 0], [5, 0]]))


def test_jitter_limits_the_place_in_a_cell():
    """Gap 4: without jitter every cube is 2 voxels into its cell, with a jitter of 2 from 1 to 3."""
    for jitter, allowed in ((0, {2}), (2, {1, 2, 3}), (4, set(range(5))), (None, set(range(5)))):
        grid = RandGrid(3, (2, 2, 2), 4, jitter=jitter).set_random_state(seed=0)
        seen = set()
        for _ in range(20):
            grid.randomize(torch.zeros(1, 18, 18, 18))
            seen |= set(grid.offsets.ravel().tolist())
        assert seen == allowed


@pytest.mark.parametrize(
    ("key", "arguments"),
    [("jitter", {"jitter": 3}), ("gap", {"gap": -1}), ("grid", {"grid": 0}), ("shift", {"shift": 2})],
)
def test_a_wrong_grid(key, arguments):
    with pytest.raises(UserError, match=rf"^{key}: found"):
        RandGrid(**{"grid": 2, "size": (2, 2, 2), "gap": 2} | arguments)


def test_a_grid_that_does_not_fit():
    grid = RandGrid(3, (2, 2, 2), 1)
    with pytest.raises(UserError, match=r"need \[9, 9, 9\] voxels, found a volume of \[9, 8, 9\]"):
        grid.randomize(torch.zeros(1, 9, 8, 9))
    with pytest.raises(UserError, match="spatial_dims: found 3, expected the 2 axes"):
        grid.randomize(torch.zeros(1, 9, 9))


def test_a_grid_that_does_not_fit_a_known_body():
    RandGrid(3, (2, 2, 2), 1, body_size=9)
    with pytest.raises(UserError, match=r"need \[9, 9, 9\] voxels, found body_size of \[9, 9, 8\]"):
        RandGrid(3, (2, 2, 2), 1, body_size=[9, 9, 8])
    with pytest.raises(UserError, match=r"body_size: found \[9, 9\], expected one or three integers"):
        RandGrid(3, (2, 2, 2), 1, body_size=[9, 9])


def test_a_puzzle_draws_the_grid_first_then_one_of_its_permutations():
    permutations = torch.tensor([[0, 1], [1, 0]])
    grid = RandGrid([2, 1], (2, 3), 1, spatial_dims=2).set_random_state(seed=3)
    puzzle = RandPuzzle(permutations, [2, 1], (2, 3), 1, spatial_dims=2).set_random_state(seed=3)
    drawn = set()
    for _ in range(20):
        for each in (grid, puzzle):
            each.randomize(torch.zeros(1, 10, 9))
        assert torch.equal(grid.starts, puzzle.starts)
        assert puzzle.permutation == int(grid.R.randint(2))
        assert torch.equal(puzzle.order, permutations[puzzle.permutation])
        drawn.add(puzzle.permutation)
    assert drawn == {0, 1}
    puzzle.order.zero_()
    assert torch.equal(permutations, torch.tensor([[0, 1], [1, 0]]))


def test_permutations_of_another_grid():
    with pytest.raises(UserError, match=r"permutations: found 2 cells, expected 4 for grid \[2, 2\]"):
        RandPuzzle(torch.tensor([[0, 1]]), 2, (1, 1), 0, spatial_dims=2)

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pretext3d.ops.grids import assemble_cubes, block_size, cube_starts, extract_cubes
from pretext3d.ops.rotations import half_turns

SHAPES = st.tuples(*[st.integers(1, 3)] * 3)


def numbered(*shape):
    return torch.arange(float(np.prod(shape))).reshape(shape)


def test_starts_by_hand():
    """Grid 1 x 2 x 2 of cubes 2 x 1 x 2 with gaps 1, 0, 3: cells are 3 x 1 x 5 voxels long."""
    offsets = np.array([[0, 0, 0], [1, 0, 3], [0, 0, 1], [1, 0, 2]])
    starts = cube_starts((4, 0, 1), (1, 2, 2), (2, 1, 2), (1, 0, 3), offsets)
    # cells in C order: (0,0,0), (0,0,1), (0,1,0), (0,1,1); start = (4,0,1) + cell * (3,1,5) + offset
    assert starts.tolist() == [[4, 0, 1], [5, 0, 9], [4, 1, 2], [5, 1, 8]]
    assert block_size((1, 2, 2), (2, 1, 2), (1, 0, 3)) == (3, 2, 10)


def test_extract_by_hand():
    """A 5 x 6 x 7 volume whose voxel (i, j, k) is 42 i + 7 j + k."""
    volume = numbered(1, 5, 6, 7)
    cubes = extract_cubes(volume, torch.tensor([[0, 0, 0], [3, 4, 5]]), (2, 1, 2))
    assert cubes.shape == (2, 1, 2, 1, 2)
    assert cubes[0].flatten().tolist() == [0, 1, 42, 43]
    assert cubes[1].flatten().tolist() == [159, 160, 201, 202]  # 42 * 3 + 7 * 4 + 5 = 159


def test_half_turn_by_hand():
    """About axis 0 of a 1 x 2 x 3 cube: axes 1 and 2 are both mirrored, so its six voxels are reversed."""
    cubes = numbered(2, 1, 1, 2, 3)
    turned = half_turns(cubes, torch.tensor([False, True]), 0)
    assert turned[0].flatten().tolist() == [0, 1, 2, 3, 4, 5]
    assert turned[1].flatten().tolist() == [11, 10, 9, 8, 7, 6]
    # about axis 2 only axis 1 moves here, as axis 0 has one voxel
    assert half_turns(cubes, torch.tensor([True, False]), 2)[0].flatten().tolist() == [3, 4, 5, 0, 1, 2]


@settings(derandomize=True, deadline=None, max_examples=25)
@given(
    grid=SHAPES,
    size=SHAPES,
    gap=st.tuples(*[st.integers(0, 2)] * 3),
    batch=st.integers(0, 2),
    seed=st.integers(0, 99),
)
def test_join_of_split_is_the_volume_inside_the_cubes(grid, size, gap, batch, seed):
    rng = np.random.default_rng(seed)
    cells = int(np.prod(grid))
    block = block_size(grid, size, gap)
    offsets = rng.integers(0, np.asarray(gap) + 1, size=(cells, 3))
    starts = cube_starts((1, 0, 2), grid, size, gap, offsets)
    shape = (block[0] + 1, block[1], block[2] + 2)
    volume = 1 + torch.rand(*(batch,) * (batch > 0), 2, *shape)
    starts = starts.expand(batch, -1, -1) if batch else starts
    cubes = extract_cubes(volume, starts, size)
    assert cubes.shape == (*(batch,) * (batch > 0), cells, 2, *size)
    joined = assemble_cubes(cubes, starts, shape)
    inside = assemble_cubes(torch.ones_like(cubes), starts, shape)
    assert inside.max() == 1
    assert inside.sum() == cubes.numel()  # cubes never overlap
    torch.testing.assert_close(joined, volume * inside, rtol=0, atol=0)
    torch.testing.assert_close(extract_cubes(joined, starts, size), cubes, rtol=0, atol=0)
    if batch:  # a batch is its elements
        torch.testing.assert_close(cubes[0], extract_cubes(volume[0], starts[0], size), rtol=0, atol=0)


@settings(derandomize=True, deadline=None, max_examples=15)
@given(size=SHAPES, axis=st.integers(0, 2), other=st.integers(0, 2))
def test_half_turns_undo_themselves_and_commute(size, axis, other):
    cubes = torch.rand(4, 2, *size)
    a, b = torch.tensor([True, False, True, False]), torch.tensor([True, True, False, False])
    once = half_turns(cubes, a, axis)
    torch.testing.assert_close(half_turns(once, a, axis), cubes, rtol=0, atol=0)
    torch.testing.assert_close(
        half_turns(once, b, other), half_turns(half_turns(cubes, b, other), a, axis), rtol=0, atol=0
    )


def test_a_cube_outside_is_an_error():
    for start in ([2, 0, 0], [0, -1, 0], [0, 0, 2]):
        with pytest.raises(IndexError):
            extract_cubes(numbered(1, 3, 3, 3), torch.tensor([start]), (2, 2, 2))
    message = r"cubes of \[2, 4, 2\] voxels at \[\[\[0, 0, 0\]\]\] in volumes of \[3, 3, 3\]"
    with pytest.raises(IndexError, match=message):
        extract_cubes(numbered(1, 3, 3, 3), torch.tensor([[0, 0, 0]]), (2, 4, 2))


@pytest.mark.parametrize("order", [(0, 1, 2, 3), (0, 3, 1, 2), (0, 2, 3, 1)])
def test_cubes_of_views_of_memory(order):
    """A part of a larger tensor, its axes in any order: each cube equals the slice of the view."""
    whole = numbered(4, 9, 8, 7)
    view = whole[1:3, 1:-1, :, 2:].permute(order)
    starts = torch.tensor([[0, 1, 2], [1, 0, 0]])
    got = extract_cubes(view, starts, (2, 3, 3))
    for cube, (i, j, k) in zip(got, starts.tolist(), strict=True):
        assert torch.equal(cube, view[:, i : i + 2, j : j + 3, k : k + 3])


def test_a_gradient_flows_through_cubes_that_overlap():
    """A voxel's gradient is the number of cubes that it is in."""
    volume = torch.zeros(1, 3, 3, 3, requires_grad=True)
    extract_cubes(volume, torch.tensor([[0, 0, 0], [1, 0, 0]]), (2, 2, 2)).sum().backward()
    expected = torch.zeros(1, 3, 3, 3)
    expected[:, :2, :2, :2] += 1
    expected[:, 1:, :2, :2] += 1
    assert torch.equal(volume.grad, expected)


# -------------------------------------------------------------------------------------------------------- 2D
def test_tiles_by_hand():
    """A 5 x 6 image whose pixel (i, j) is 6 i + j; 2 x 2 tiles of 2 x 1 in cells of 2 x 3 from (1, 0)."""
    offsets = np.array([[0, 0], [0, 2], [0, 1], [0, 0]])
    starts = cube_starts((1, 0), (2, 2), (2, 1), (0, 2), offsets)
    assert starts.tolist() == [[1, 0], [1, 5], [3, 1], [3, 3]]
    tiles = extract_cubes(numbered(1, 5, 6), starts, (2, 1))
    assert tiles.shape == (4, 1, 2, 1)
    assert tiles.flatten(1).tolist() == [[6, 12], [11, 17], [19, 25], [21, 27]]
    turned = half_turns(tiles, torch.tensor([True, False, False, True]), 2)
    assert turned.flatten(1).tolist() == [[12, 6], [11, 17], [19, 25], [27, 21]]


@given(
    grid=st.tuples(*[st.integers(1, 3)] * 2),
    size=st.tuples(*[st.integers(1, 3)] * 2),
    batch=st.integers(0, 2),
    seed=st.integers(0, 99),
)
def test_tiles_are_the_slices_of_cubes(grid, size, batch, seed):
    """A volume constant along z: its cubes are the image's tiles, and join to the same."""
    rng = np.random.default_rng(seed)
    offsets = rng.integers(0, 2, size=(grid[0] * grid[1], 2))
    starts = cube_starts((1, 0), grid, size, (1, 1), offsets)
    shape = (block_size(grid, size, (1, 1))[0] + 1, block_size(grid, size, (1, 1))[1])
    image = torch.rand(*(batch,) * (batch > 0), 2, *shape)
    starts = starts.expand(batch, -1, -1) if batch else starts
    places = torch.cat([starts, torch.zeros_like(starts[..., :1])], -1)
    tiles = extract_cubes(image, starts, size)
    cubes = extract_cubes(image[..., None].expand(*image.shape, 3), places, (*size, 3))
    assert torch.equal(cubes, tiles[..., None].expand_as(cubes))
    joined = assemble_cubes(tiles, starts, shape)
    assert torch.equal(assemble_cubes(cubes, places, (*shape, 3)), joined[..., None].expand(*joined.shape, 3))
    assert torch.equal(extract_cubes(joined, starts, size), tiles)
    turned = torch.from_numpy(rng.random(tuple(starts.shape[:-1])) < 0.5)
    assert torch.equal(half_turns(cubes, turned, 2)[..., 0], half_turns(tiles, turned, 2))

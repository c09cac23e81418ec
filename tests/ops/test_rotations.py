"""Flips and rotations: index geometry by hand, and its laws."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pretext3d.errors import UserError
from pretext3d.ops.rotations import (
    check_equal_edges,
    flip_matrix,
    half_turns,
    reorient,
    rotated_versions,
    rotation_classes,
    rotation_matrix,
)


def ramp(shape: tuple[int, ...] = (1, 5, 6, 7)) -> torch.Tensor:
    return torch.arange(float(np.prod(shape))).reshape(shape)


def test_quarter_turn_by_hand() -> None:
    # about axis 0: axis 1 goes to axis 2, axis 2 to minus axis 1; [[0, 1], [2, 3]] has j down, k to the right
    volume = torch.tensor([[[[0.0, 1.0], [2.0, 3.0]]]])
    got = reorient(volume, rotation_matrix(0, 1))
    # voxel (j, k) goes to (1 - k, j): 0 -> (1, 0), 1 -> (0, 0), 2 -> (1, 1), 3 -> (0, 1)
    torch.testing.assert_close(got, torch.tensor([[[[1.0, 3.0], [0.0, 2.0]]]]))


@given(st.integers(0, 2), st.integers(0, 3), st.lists(st.integers(0, 2), max_size=3, unique=True))
def test_voxels_go_where_the_matrix_says(axis: int, turns: int, flips: list[int]) -> None:
    matrix = rotation_matrix(axis, turns) @ flip_matrix(flips)
    n = 4
    volume = ramp((1, n, n, n))
    moved = reorient(volume, matrix)
    for voxel in itertools.product(range(n), repeat=3):
        centred = np.array(voxel) - (n - 1) / 2
        i, j, k = np.rint(matrix @ centred + (n - 1) / 2).astype(int)
        assert moved[0, i, j, k] == volume[0][voxel]


def test_rotation_in_the_plane_by_hand():
    # axis 0 goes to axis 1, axis 1 to minus axis 0: pixel (i, j) of 2 x 3 goes to (2 - j, i)
    image = torch.tensor([[[0.0, 1, 2], [3, 4, 5]]])
    got = reorient(image, rotation_matrix(2, 1, 2))
    torch.testing.assert_close(got, torch.tensor([[[2.0, 5], [1, 4], [0, 3]]]))


@given(st.integers(0, 3), st.lists(st.integers(0, 1), max_size=2, unique=True))
def test_an_image_moves_as_the_slices_of_a_volume(turns, flips):
    flat = rotation_matrix(2, turns, 2) @ flip_matrix(flips, 2)
    whole = rotation_matrix(2, turns) @ flip_matrix(flips)
    np.testing.assert_array_equal(whole[:2, :2], flat)
    image = ramp((2, 4, 5))
    moved = reorient(image[..., None].expand(-1, -1, -1, 3), whole)
    assert torch.equal(moved, reorient(image, flat)[..., None].expand_as(moved))


@pytest.mark.parametrize("axis", [0, 1, 3])
def test_images_rotate_in_their_plane_alone(axis):
    message = rf"axis: found \[{axis}\], expected a list of axes out of 2 \(spatial_dims 2: .* about axis 2\)"
    with pytest.raises(UserError, match=message):
        rotation_matrix(axis, 1, spatial_dims=2)
    with pytest.raises(UserError, match=message):
        half_turns(ramp((4, 1, 2, 2)), torch.ones(4, dtype=torch.bool), axis)


# ------------------------------------------------------------------------------------- rotated versions
TEN = ((0, 0), (0, 1), (0, 2), (0, 3), (1, 1), (1, 2), (1, 3), (2, 1), (2, 2), (2, 3))
FOUR = ((2, 0), (2, 1), (2, 2), (2, 3))


def test_ten_rotations_of_volumes_and_four_of_images() -> None:
    assert rotation_classes() == TEN
    assert rotation_classes(2) == rotation_classes(2, [2]) == FOUR
    assert rotation_classes(3, [2]) == FOUR
    assert rotation_classes(3, [1, 0]) == (
        (1, 0), (1, 1), (1, 2), (1, 3), (0, 1), (0, 2), (0, 3)
    )  # fmt: skip


@pytest.mark.parametrize(("dims", "axes"), [(3, []), (3, [1, 1]), (3, [3]), (2, [0]), (2, [])])
def test_axes_that_make_no_rotations(dims: int, axes: list[int]) -> None:
    with pytest.raises(UserError, match="rotation_axes: found"):
        rotation_classes(dims, axes)


def test_ten_versions_by_hand() -> None:
    """The voxels of 2 x 2 x 2, numbered 4 i + 2 j + k, read in that order after each rotation.

    About axis 0 by 90 degrees, j goes to k and k to minus j: the voxel at (i, j, k) was at (i, k, 1 - j). So
    the four of i = 0 read: (0,0,0) was (0,0,1) = 1; (0,0,1) was (0,1,1) = 3; (0,1,0) was (0,0,0) = 0; and
    (0,1,1) was (0,1,0) = 2; those of i = 1 are 4 larger. By 180 degrees j and k are mirrored: 3 2 1 0; by 270
    degrees it was at (i, 1 - k, j): 2 0 3 1. About axis 1, k goes to i and i to minus k: by 90 degrees it was
    at (1 - k, j, i); about axis 2, i goes to j and j to minus i: it was at (j, 1 - i, k).
    """
    expected = [
        [0, 1, 2, 3, 4, 5, 6, 7],
        [1, 3, 0, 2, 5, 7, 4, 6],
        [3, 2, 1, 0, 7, 6, 5, 4],
        [2, 0, 3, 1, 6, 4, 7, 5],
        [4, 0, 6, 2, 5, 1, 7, 3],
        [5, 4, 7, 6, 1, 0, 3, 2],
        [1, 5, 3, 7, 0, 4, 2, 6],
        [2, 3, 6, 7, 0, 1, 4, 5],
        [6, 7, 4, 5, 2, 3, 0, 1],
        [4, 5, 0, 1, 6, 7, 2, 3],
    ]
    got = rotated_versions(ramp((1, 1, 2, 2, 2)), torch.arange(10)[None], rotation_classes())
    assert got.shape == (1, 10, 1, 2, 2, 2)
    assert got.flatten(2)[0].tolist() == expected


def test_four_versions_of_an_image_by_hand() -> None:
    """[[0, 1], [2, 3]], axis 0 to axis 1: pixel (i, j) goes to (1 - j, i)."""
    got = rotated_versions(ramp((1, 1, 2, 2)), torch.arange(4)[None], rotation_classes(2))
    assert got.flatten(2)[0].tolist() == [[0, 1, 2, 3], [1, 3, 0, 2], [3, 2, 1, 0], [2, 0, 3, 1]]


@pytest.mark.parametrize("dims", [3, 2])
def test_versions_are_numpy_s_rotations_and_distinct(dims: int) -> None:
    """Of a volume without any symmetry; about axis a, NumPy rotates in the plane of a + 1 and a + 2."""
    image = torch.rand(1, 2, *[4] * dims, generator=torch.Generator().manual_seed(0))
    classes = rotation_classes(dims)
    got = rotated_versions(image, torch.arange(len(classes))[None], classes)[0]
    for version, (axis, turns) in zip(got, classes, strict=True):
        plane = (1 + (axis + 1) % 3, 1 + (axis + 2) % 3)
        np.testing.assert_array_equal(version.numpy(), np.rot90(image[0].numpy(), turns, plane))
    for a, b in itertools.combinations(got, 2):
        assert not torch.equal(a, b)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64, torch.int64, torch.bool])
@pytest.mark.parametrize("dims", [3, 2])
def test_versions_with_and_without_a_gradient_are_the_same(dims: int, dtype: torch.dtype) -> None:
    """The copy by NumPy, of any type, and torch's operations, which a gradient passes."""
    generator, rotations = torch.Generator().manual_seed(0), rotation_classes(dims)
    images = torch.randint(0, 50, (2, 3, *[5] * dims), generator=generator)
    classes = torch.randint(len(rotations), (2, 7), generator=generator)
    followed = images.float().requires_grad_()
    expected = rotated_versions(followed, classes, rotations)
    found = rotated_versions(images.to(dtype), classes, rotations)
    assert found.dtype == dtype
    assert torch.equal(found, expected.detach().to(dtype))
    expected.sum().backward()
    assert torch.equal(followed.grad, torch.full_like(images, 7.0, dtype=torch.float32))


@given(st.sampled_from([2, 3]), st.integers(1, 3), st.integers(1, 5), st.integers(0, 99))
def test_versions_of_a_batch_are_those_of_each_sample_and_can_be_undone(
    dims: int, count: int, versions: int, seed: int
) -> None:
    """Whatever the batch; and the rotation by the missing quarter turns brings every version back."""
    rng = torch.Generator().manual_seed(seed)
    images = torch.rand(count, 2, *[3] * dims, generator=rng)
    rotations = rotation_classes(dims)
    classes = torch.randint(0, len(rotations), (count, versions), generator=rng)
    before = images.clone()
    got = rotated_versions(images, classes, rotations)
    assert torch.equal(images, before)
    for sample in range(count):
        for version in range(versions):
            axis, turns = rotations[int(classes[sample, version])]
            here = got[sample, version]
            assert torch.equal(here, reorient(images[sample], rotation_matrix(axis, turns, dims)))
            assert torch.equal(reorient(here, rotation_matrix(axis, -turns, dims)), images[sample])


def test_edges_that_a_rotation_exchanges_must_be_equal() -> None:
    axial = rotation_classes(3, [2])
    assert rotated_versions(ramp((1, 1, 3, 3, 5)), torch.tensor([[1]]), axial).shape == (1, 1, 1, 3, 3, 5)
    check_equal_edges((3, 4, 5), [(0, 0), (1, 2)])  # half turns alone fit any volume
    message = r"roi_size: found \[3, 4, 5\], expected equal edges along axes 0 and 1, which a rotation by 90 "
    with pytest.raises(UserError, match=message + "degrees about axis 2 exchanges"):
        rotated_versions(ramp((1, 1, 3, 4, 5)), torch.tensor([[0]]), axial)
    with pytest.raises(UserError, match=r"roi_size: found \[3, 4\]"):
        check_equal_edges((3, 4), rotation_classes(2))

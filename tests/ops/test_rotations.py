"""Flips and rotations: index geometry by hand, and its laws."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pretext3d.errors import UserError
from pretext3d.ops.rotations import flip_matrix, half_turns, reorient, rotation_matrix


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

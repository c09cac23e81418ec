"""Flips and rotations: index geometry by hand, and its laws."""

import itertools

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st
from pretext3d.ops.rotations import flip_matrix, reorient, rotation_matrix


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

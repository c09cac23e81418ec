"""Small cubes out of the cells of a grid, and back: exact index geometry without a loop over cubes.

A grid of n_i x n_j x n_k cells, in 2D n_i x n_j, covers a block of the volume or image; each cell is as long
as a cube (in 2D a tile) plus `gap` voxels, and the cube may be anywhere in its cell. Cells are numbered in C
order: the last axis runs fastest. The number of spatial axes is that of the starts.
"""

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import torch

from pretext3d.annotations import Int, Shaped, Tensor

__all__ = ["assemble_cubes", "block_size", "cube_starts", "extract_cubes"]


def block_size(grid: Sequence[int], size: Sequence[int], gap: Sequence[int]) -> tuple[int, ...]:
    """Size of the complete grid in voxels: n * (size + gap) along each axis.

    Examples:
        >>> block_size((1, 2, 2), (2, 1, 2), (1, 0, 3))
        (3, 2, 10)
    """
    return tuple(n * (s + g) for n, s, g in zip(grid, size, gap, strict=True))


def cube_starts(
    corner: Sequence[int],
    grid: Sequence[int],
    size: Sequence[int],
    gap: Sequence[int],
    offsets: Shaped[np.ndarray, "m d"],
) -> Int[Tensor, "m d"]:
    """The lowest voxel of each cube: corner + cell * (size + gap) + offset, for d spatial axes.

    Args:
        corner: Lowest voxel of the block.
        grid: Cells along each axis.
        size: Voxels of a cube.
        gap: Voxels by which a cell is longer than its cube.
        offsets: Place of each cube in its cell, 0 to gap along each axis.

    Examples:
        >>> cube_starts((4, 0), (1, 2), (2, 1), (0, 2), np.zeros((2, 2), dtype=int)).tolist()
        [[4, 0], [4, 3]]
    """
    lengths = tuple(s + g for s, g in zip(size, gap, strict=True))
    return torch.from_numpy(_lowest(tuple(grid), lengths) + np.asarray(corner) + offsets)


@lru_cache
def _lowest(grid: tuple[int, ...], lengths: tuple[int, ...]) -> Shaped[np.ndarray, "m d"]:
    """The lowest voxel of each cell, from that of the block; not to be changed."""
    return np.indices(grid).reshape(len(grid), -1).T * np.asarray(lengths)


def _indices(starts: Int[Tensor, "b m d"], size: Sequence[int]) -> tuple[Any, ...]:
    """The index (batch, all channels, i, j, ...) of every voxel of every cube; broadcast, (b, m, *size)."""
    dims = starts.shape[-1]
    batch = torch.arange(len(starts), device=starts.device).view(-1, *[1] * (dims + 1))
    places = [
        (starts[..., axis, None] + torch.arange(size[axis], device=starts.device)).view(
            *starts.shape[:2], *[size[axis] if other == axis else 1 for other in range(dims)]
        )
        for axis in range(dims)
    ]
    return batch, slice(None), *places


def extract_cubes(
    volume: Shaped[Tensor, "..."], starts: Int[Tensor, "*b m d"], size: Sequence[int]
) -> Shaped[Tensor, "..."]:
    """The cubes [start, start + size) of each volume, copied.

    Args:
        volume: Volumes (*b, c, i, j, k) or images (*b, c, i, j).
        starts: Lowest voxels of the cubes.
        size: Voxels of a cube.

    Returns:
        (*b, m, c, *size).

    Raises:
        IndexError: If a cube extends beyond its volume.

    Examples:
        >>> extract_cubes(torch.arange(4).view(1, 2, 2), torch.tensor([[0, 0], [1, 0]]), (1, 2)).tolist()
        [[[[0, 1]]], [[[2, 3]]]]
    """
    size, dims = tuple(size), starts.shape[-1]
    volumes = volume.reshape(-1, *volume.shape[-dims - 1 :])
    places = starts.reshape(-1, *starts.shape[-2:]).cpu().numpy()
    space, steps = volumes.shape[2:], volumes.stride()
    if ((places < 0) | (places > np.subtract(space, size))).any():
        raise IndexError(f"cubes of {list(size)} voxels at {places.tolist()} in volumes of {list(space)}")
    # the memory as all rows of a cube's length, which overlap: a cube is a choice of them, and whole rows are
    # copied, not voxels
    last = sum((length - 1) * step for length, step in zip(volumes.shape, steps, strict=True))
    rows = volumes.as_strided((max(0, last + 1 - (size[-1] - 1) * steps[-1]), size[-1]), (1, steps[-1]))
    first = torch.from_numpy(places @ np.array(steps[2:])).to(volumes.device)
    chosen = first[:, :, None, None] + _places_of_rows(tuple(volumes.shape[:2]), size[:-1], steps[:-1]).to(
        volumes.device
    )
    cubes = rows.index_select(0, chosen.flatten())
    return cubes.reshape(*starts.shape[:-1], volumes.shape[1], *size)


@lru_cache
def _places_of_rows(
    volumes: tuple[int, ...], edges: tuple[int, ...], steps: tuple[int, ...]
) -> Int[Tensor, "b 1 c rows"]:
    """Where the rows of cubes begin, in voxels from the first one of the first volume; not to be changed.

    Args:
        volumes: Number of volumes and of channels.
        edges: Voxels of a cube along each axis but the last.
        steps: Voxels from one volume to the next, one channel to the next, and along these axes.

    Examples:
        >>> _places_of_rows((1, 2), (2, 2), (200, 100, 20, 5)).tolist()
        [[[[0, 5, 20, 25], [100, 105, 120, 125]]]]
    """
    lengths = (*volumes, *edges)
    places = np.indices(lengths).reshape(len(lengths), math.prod(lengths)).T @ np.asarray(steps)
    return torch.from_numpy(places).reshape(volumes[0], 1, volumes[1], math.prod(edges))


def assemble_cubes(
    cubes: Shaped[Tensor, "..."], starts: Int[Tensor, "*b m d"], shape: Sequence[int]
) -> Shaped[Tensor, "..."]:
    """The inverse of `extract_cubes`: each cube at its start in a volume of `shape`, zeros between.

    Args:
        cubes: (*b, m, c, *size).
        starts: Lowest voxels of the cubes.
        shape: Voxels of the volumes along each spatial axis.

    Returns:
        (*b, c, *shape).
    """
    dims = starts.shape[-1]
    flat = cubes.reshape(math.prod(starts.shape[:-2]), *cubes.shape[starts.ndim - 2 :])
    places = starts.reshape(-1, *starts.shape[-2:]).to(cubes.device)
    volume = flat.new_zeros(len(flat), flat.shape[2], *shape)
    volume[_indices(places, cubes.shape[-dims:])] = flat.movedim(2, -1)
    return volume.reshape(*starts.shape[:-2], *volume.shape[1:])

"""Small cubes out of the cells of a grid, and back: exact index geometry without a loop over cubes.

A grid of n_i x n_j x n_k cells stands on a block of the volume; each cell is a cube and `gap` voxels long,
and the cube lies anywhere in its cell. Cells are numbered in C order: the last axis runs fastest.
"""

import logging
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.transforms import MapTransform, Resize

from pretext3d.annotations import Bool, Int, Shaped, Tensor
from pretext3d.errors import UserError

__all__ = [
    "StretchToGridd",
    "assemble_cubes",
    "block_size",
    "check_grid",
    "cube_starts",
    "extract_cubes",
    "half_turns",
]

logger = logging.getLogger(__name__)


def check_grid(name: str, value: Any, least: int = 1) -> tuple[int, int, int]:
    """One whole number, or three, as three.

    Raises:
        UserError: anything else, or a number below `least`; names the key.
    """
    single = isinstance(value, int) or not isinstance(value, Sequence) or isinstance(value, str)
    given = [value] * 3 if single else list(value)
    if len(given) != 3 or not all(
        isinstance(n, int) and not isinstance(n, bool) and n >= least for n in given
    ):
        raise UserError(f"{name}: found {value!r}, expected one or three whole numbers of {least} or more")
    return given[0], given[1], given[2]


def block_size(grid: Sequence[int], size: Sequence[int], gap: Sequence[int]) -> tuple[int, ...]:
    """Voxels of the whole grid: n * (size + gap) along each axis."""
    return tuple(n * (s + g) for n, s, g in zip(grid, size, gap, strict=True))


def cube_starts(
    corner: Sequence[int],
    grid: Sequence[int],
    size: Sequence[int],
    gap: Sequence[int],
    offsets: Shaped[np.ndarray, "m 3"],
) -> Int[Tensor, "m 3"]:
    """The lowest voxel of each cube: corner + cell * (size + gap) + offset.

    Args:
        corner: lowest voxel of the block.
        grid: cells along each axis.
        size: voxels of a cube.
        gap: voxels by which a cell is longer than its cube.
        offsets: of each cube in its cell, 0 to gap along each axis.
    """
    cells = np.stack(np.meshgrid(*[np.arange(n) for n in grid], indexing="ij"), axis=-1).reshape(-1, 3)
    return torch.from_numpy(np.asarray(corner) + cells * (np.asarray(size) + np.asarray(gap)) + offsets)


class StretchToGridd(MapTransform):
    """Deterministic: volumes that are shorter than the grid along an axis are resampled to its length there.

    Padding would put edges into the outer cubes that tell where they belong and how they were turned. The log
    names every volume that is stretched, and by how much along each axis.

    Args:
        keys: volumes (c, i, j, k).
        grid: cells along each axis, one number or three.
        size: voxels of a cube.
        gap: voxels by which a cell is longer than its cube, one number or three.
    """

    def __init__(
        self,
        keys: Sequence[str] | str,
        grid: int | Sequence[int],
        size: Sequence[int],
        gap: int | Sequence[int],
    ) -> None:
        super().__init__(keys)
        cells, edges = check_grid("grid", grid), check_grid("roi_size", size)
        self.size = block_size(cells, edges, check_grid("gap", gap, least=0))

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """The case with its volumes stretched, affine and all."""
        d = dict(data)
        for key in self.key_iterator(d):
            shape = tuple(d[key].shape[1:])
            longer = tuple(max(pair) for pair in zip(self.size, shape, strict=True))
            if longer != shape:
                factors = " x ".join(f"{new / old:.2f}" for new, old in zip(longer, shape, strict=True))
                logger.info(
                    "case %s: %s voxels stretched by %s to the grid", d.get("id"), list(shape), factors
                )
                d[key] = Resize(longer, mode="trilinear")(d[key])
        return d


def _indices(starts: Int[Tensor, "b m 3"], size: Sequence[int]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Indices of every voxel of every cube along batch, i, j, k; together they broadcast to (b, m, *size)."""
    batch = torch.arange(len(starts), device=starts.device).reshape(-1, 1, 1, 1, 1)
    i, j, k = (starts[..., axis, None] + torch.arange(size[axis], device=starts.device) for axis in range(3))
    return batch, i[:, :, :, None, None], j[:, :, None, :, None], k[:, :, None, None, :]


def extract_cubes(
    volume: Shaped[Tensor, "*b c i j k"], starts: Int[Tensor, "*b m 3"], size: Sequence[int]
) -> Shaped[Tensor, "*b m c si sj sk"]:
    """The cubes [start, start + size) of each volume, copied.

    Raises:
        IndexError: a cube reaches out of its volume.
    """
    batched = volume.reshape(-1, *volume.shape[-4:])
    places = starts.reshape(-1, *starts.shape[-2:]).to(volume.device)
    b, i, j, k = _indices(places, size)
    cubes = batched[b, :, i, j, k].movedim(-1, 2)  # the channels end up last, behind the indices
    return cubes.reshape(*starts.shape[:-1], *cubes.shape[2:])


def assemble_cubes(
    cubes: Shaped[Tensor, "*b m c si sj sk"], starts: Int[Tensor, "*b m 3"], shape: Sequence[int]
) -> Shaped[Tensor, "*b c i j k"]:
    """The inverse of `extract_cubes`: each cube at its start in a volume of `shape`, zeros between."""
    flat = cubes.reshape(-1, *cubes.shape[-5:])
    places = starts.reshape(-1, *starts.shape[-2:]).to(cubes.device)
    volume = flat.new_zeros(len(flat), flat.shape[2], *shape)
    b, i, j, k = _indices(places, cubes.shape[-3:])
    volume[b, :, i, j, k] = flat.movedim(2, -1)
    return volume.reshape(*cubes.shape[:-5], *volume.shape[1:])


def half_turns(
    cubes: Shaped[Tensor, "*m c i j k"], turned: Bool[Tensor, "*m"], axis: int
) -> Shaped[Tensor, "*m c i j k"]:
    """The cubes, those with `turned` rotated by 180 degrees about spatial axis 0, 1 or 2: its own inverse."""
    others = [a - 3 for a in range(3) if a != axis]
    where = turned.to(cubes.device).reshape(*turned.shape, 1, 1, 1, 1)
    return torch.where(where, cubes.flip(others), cubes)

"""One image file, opened: what its header states, and its voxels on request."""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["Header", "Scan", "corner_distance", "is_basis"]

Affine = NDArray[np.float64] | Sequence[Sequence[float]]


@dataclass(frozen=True)
class Header:
    """The geometry of a file.

    Attributes:
        shape: Voxels along i j k.
        channels: Length of the fourth axis, 1 where there is none.
        affine: Affine (4, 4), voxel indices to world mm, axes right, anterior, superior.
        stored_dims: Number of spatial axes in the file, of which a single slice may have two.
        time: What a fourth axis is that is not channels, e.g. "30 time points, 2 s apart"; '' for channels.
        note: Choice that was made between contradicting statements; ''.
        names: Names of the values of a label, where the file has them.
    """

    shape: tuple[int, ...]
    channels: int
    affine: NDArray[np.float64]
    stored_dims: int = 3
    time: str = ""
    note: str = ""
    names: dict[int, str] = field(default_factory=dict)


class Scan(NamedTuple):
    """An opened file.

    Attributes:
        header: Geometry.
        voxels: Function that reads the stored numbers (i, j, k, c).
        slope: Slope of value = stored * slope + intercept.
        intercept: Intercept.
    """

    header: Header
    voxels: Callable[[], NDArray[Any]]
    slope: float = 1.0
    intercept: float = 0.0


def is_basis(affine: NDArray[np.float64]) -> bool:
    """Whether three axes are finite and independent, whatever their unit.

    Examples:
        >>> is_basis(np.diag([1e-3, 1e-3, 5e-3, 1])), is_basis(np.diag([1.0, 1, 0, 1]))
        (True, False)
    """
    axes = np.asarray(affine, dtype=float)[:3, :3]
    lengths = np.linalg.norm(axes, axis=0)
    if not np.isfinite(affine).all() or not (lengths > 0).all():
        return False
    return bool(abs(np.linalg.det(axes / lengths)) > 1e-3)


def corner_distance(one: Affine, other: Affine, shape: Sequence[int]) -> tuple[float, float]:
    """The largest distance between two positions of a corner voxel: in voxels of `one` along an axis, and mm.

    Args:
        one: Affine (4, 4), mm.
        other: Affine (4, 4) of the same array elsewhere.
        shape: Voxels along i j k.

    Examples:
        >>> moved = np.diag([2.0, 2, 2, 1])
        >>> moved[0, 3] = 1
        >>> corner_distance(np.diag([2.0, 2, 2, 1]), moved, (5, 6, 7))
        (0.5, 1.0)
    """
    corners = np.array([*itertools.product(*((0, n - 1) for n in shape))], dtype=float).T
    corners = np.vstack([corners, np.ones(corners.shape[1])])
    here, there = (np.asarray(affine, dtype=float) @ corners for affine in (one, other))
    voxels = np.linalg.solve(np.asarray(one, dtype=float), there) - corners
    return float(np.abs(voxels)[:3].max()), float(np.linalg.norm(there - here, axis=0).max())

"""Flips and rotations by multiples of 90 degrees, as exact index geometry in 2D and 3D.

An orientation is a signed permutation matrix M: a point p of a cube [-1, 1]^d before the transform is at M p
after it. Rotation axes keep their numbers in 2D: an image is in the plane of the axes 0 and 1, and the only
rotation in that plane is about axis 2.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from pretext3d.annotations import Bool, Float, Shaped, Tensor
from pretext3d.errors import UserError

__all__ = [
    "check_flip_axes",
    "check_rotation_axes",
    "flip_matrix",
    "half_turns",
    "reorient",
    "rotation_matrix",
]


def check_flip_axes(name: str, axes: Any, spatial_dims: int = 3) -> tuple[int, ...]:
    """The axes to mirror, checked: out of 0, 1, 2, in 2D out of 0, 1.

    Raises:
        UserError: For another axis, or anything but a list; names the key.

    Examples:
        >>> check_flip_axes("flip_axes", [0, 1], spatial_dims=2)
        (0, 1)
    """
    return _checked_axes(name, axes, range(spatial_dims), "")


def check_rotation_axes(name: str, axes: Any, spatial_dims: int = 3) -> tuple[int, ...]:
    """The axes to rotate about, checked: out of 0, 1, 2; in 2D only 2, the axis through the plane.

    Raises:
        UserError: For another axis, or anything but a list; names the key.

    Examples:
        >>> check_rotation_axes("rotate_axes", [2], spatial_dims=2)
        (2,)
    """
    if spatial_dims == 3:
        return _checked_axes(name, axes, range(3), "")
    return _checked_axes(name, axes, (2,), " (spatial_dims 2: images rotate in their plane, about axis 2)")


def _checked_axes(name: str, axes: Any, legal: Sequence[int], why: str) -> tuple[int, ...]:
    if not isinstance(axes, Sequence) or not set(axes) <= set(legal):
        numbers = ", ".join(map(str, legal))
        raise UserError(f"{name}: found {axes!r}, expected a list of axes out of {numbers}{why}")
    return tuple(axes)


def flip_matrix(axes: Sequence[int], spatial_dims: int = 3) -> Float[np.ndarray, "d d"]:
    """The orientation that mirrors the given axes.

    Examples:
        >>> flip_matrix([1], spatial_dims=2).tolist()
        [[1.0, 0.0], [0.0, -1.0]]
    """
    return np.diag([-1.0 if axis in axes else 1.0 for axis in range(spatial_dims)])


def rotation_matrix(axis: int, quarter_turns: int, spatial_dims: int = 3) -> Float[np.ndarray, "d d"]:
    """Rotation by `quarter_turns` * 90 degrees about a voxel axis: from the next axis to the one after it.

    About axis 0 one quarter turn takes axis 1 to axis 2 and axis 2 to minus axis 1; about axis 2, in 2D the
    only one, axis 0 to axis 1 and axis 1 to minus axis 0.

    Raises:
        UserError: For an axis that does not exist, see `check_rotation_axes`.

    Examples:
        >>> rotation_matrix(2, 1, spatial_dims=2).tolist()
        [[0.0, -1.0], [1.0, 0.0]]
    """
    check_rotation_axes("axis", [axis], spatial_dims)
    a, b = (axis + 1) % 3, (axis + 2) % 3
    turn = np.eye(3)
    turn[[a, b], [a, b]] = 0.0
    turn[b, a], turn[a, b] = 1.0, -1.0
    return np.linalg.matrix_power(turn, quarter_turns % 4)[:spatial_dims, :spatial_dims]


def reorient(volume: Shaped[Tensor, "c *space"], orientation: np.ndarray) -> Shaped[Tensor, "c *result"]:
    """Move a volume's content by a signed permutation matrix.

    Result axis a is axis p of the volume, with orientation[a, p] = 1, or mirrored with -1.

    Examples:
        >>> reorient(torch.tensor([[[1, 2], [3, 4]]]), rotation_matrix(2, 1, spatial_dims=2)).tolist()
        [[[2, 4], [1, 3]]]
    """
    source = np.abs(orientation).argmax(axis=1)
    mirrored = [a + 1 for a, p in enumerate(source) if orientation[a, p] < 0]
    moved = volume.permute(0, *(int(p) + 1 for p in source))
    return moved.flip(mirrored) if mirrored else moved.contiguous()


def half_turns(cubes: Shaped[Tensor, "..."], turned: Bool[Tensor, "*m"], axis: int) -> Shaped[Tensor, "..."]:
    """The cubes, with those marked by `turned` rotated by 180 degrees about an axis; it is its own inverse.

    Args:
        cubes: Cubes (*m, c, i, j, k), or tiles (*m, c, i, j); the shape of `turned` determines which.
        turned: Whether each cube is rotated.
        axis: Spatial axis 0, 1 or 2; in 2D only 2, see `check_rotation_axes`.

    Raises:
        UserError: For an axis that does not exist.

    Examples:
        >>> half_turns(torch.tensor([[[[1, 2], [3, 4]]]]), torch.tensor([True]), axis=2).tolist()
        [[[[4, 3], [2, 1]]]]
    """
    dims = cubes.ndim - turned.ndim - 1
    check_rotation_axes("axis", [axis], dims)
    others = [a - dims for a in range(dims) if a != axis]
    where = turned.to(cubes.device).reshape(*turned.shape, *[1] * (dims + 1))
    return torch.where(where, cubes.flip(others), cubes)

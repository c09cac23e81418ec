"""Flips and rotations by multiples of 90 degrees, as exact index geometry in 2D and 3D.

An orientation is a signed permutation matrix M: a point p of a cube [-1, 1]^d before the transform is at M p
after it. Rotation axes keep their numbers in 2D: an image is in the plane of the axes 0 and 1, and the only
rotation in that plane is about axis 2.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import torch

from pretext3d.annotations import Bool, Float, Int, Shaped, Tensor
from pretext3d.errors import UserError
from pretext3d.ops.tensors import as_integers, copies_by_numpy

__all__ = [
    "check_equal_edges",
    "check_flip_axes",
    "check_rotation_axes",
    "flip_matrix",
    "half_turns",
    "reorient",
    "rotated_versions",
    "rotation_classes",
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
    """Axes as a tuple; an error for one that is none of the legal ones."""
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


def rotation_classes(spatial_dims: int = 3, axes: Sequence[int] | None = None) -> tuple[tuple[int, int], ...]:
    """The distinct rotations by 0, 90, 180 and 270 degrees about one axis each: pairs (axis, quarter turns).

    The rotation by 0 degrees is the same about every axis, and comes once, first: 10 about three axes, 7
    about two, 4 about one. In 2D there are the 4 about the axis through the plane.

    Args:
        spatial_dims: Number of spatial axes, 3 or 2.
        axes: Axes to rotate about, see `check_rotation_axes`; None = all.

    Raises:
        UserError: no axis, one twice, or one that does not exist; names `rotation_axes`.

    Examples:
        >>> rotation_classes(spatial_dims=2)
        ((2, 0), (2, 1), (2, 2), (2, 3))
        >>> len(rotation_classes()), rotation_classes()[:5]
        (10, ((0, 0), (0, 1), (0, 2), (0, 3), (1, 1)))
    """
    usual = (0, 1, 2) if spatial_dims == 3 else (2,)
    chosen = usual if axes is None else check_rotation_axes("rotation_axes", axes, spatial_dims)
    if not chosen or len(set(chosen)) < len(chosen):
        legal = ", ".join(map(str, usual))
        raise UserError(
            f"rotation_axes: found {list(chosen)}, expected one or more different axes out of {legal}"
        )
    return ((chosen[0], 0), *((axis, turns) for axis in chosen for turns in (1, 2, 3)))


def rotated_versions(
    images: Shaped[Tensor, "b c *space"],
    classes: Int[Tensor, "b v"],
    rotations: Sequence[tuple[int, int]],
) -> Shaped[Tensor, "b v c *space"]:
    """Several rotated versions of each volume or image, on its device: version v by rotations[classes[b, v]].

    On a GPU there is one step per rotation, for all versions with this rotation in the batch: at most ten,
    for any number of samples. On a CPU each version is one copy of its voxels to their places, by NumPy,
    whose views can be mirrored: torch's `flip` is a copy before the copy.

    Args:
        images: Volumes (b, c, i, j, k) or images (b, c, i, j).
        classes: Rotation of each version, 0 to len(rotations) - 1.
        rotations: Pairs (axis, quarter turns), see `rotation_classes`.

    Raises:
        UserError: rotations by 90 degrees between axes of different length; names `roi_size`.

    Examples:
        >>> image = torch.tensor([[[[1, 2], [3, 4]]]])
        >>> rotated_versions(image, torch.tensor([[0, 1]]), rotation_classes(spatial_dims=2)).tolist()
        [[[[[1, 2], [3, 4]]], [[[2, 4], [1, 3]]]]]
    """
    shape, space = images.shape[1:], images.shape[2:]
    check_equal_edges(space, rotations)
    count, versions = classes.shape
    flat = classes.to(images.device).flatten()
    result = images.new_empty(count * versions, *shape)
    if copies_by_numpy(images):
        source, target = as_integers(images), as_integers(result)
        for place, number in enumerate(flat.tolist()):
            axes, steps = _view(*rotations[number], len(space))
            target[place] = source[place // versions].transpose(axes)[steps]
        return result.view(count, versions, *shape)
    for number in flat.unique().tolist():
        places, (axis, turns) = (flat == number).nonzero().squeeze(1), rotations[number]
        # a rotation is the same for all channels; a single image needs no copy before it is rotated
        joined = images[0] if count == 1 else images.index_select(0, places // versions).flatten(0, 1)
        moved = reorient(joined, rotation_matrix(axis, turns, len(space))).view(-1, *shape)
        result.index_copy_(0, places, moved.expand(len(places), *shape))
    return result.view(count, versions, *shape)


@lru_cache
def _view(axis: int, quarter_turns: int, spatial_dims: int) -> tuple[tuple[int, ...], tuple[slice, ...]]:
    """A rotation as a view of an array (c, *space), see `reorient`: order of the axes, their directions."""
    orientation = rotation_matrix(axis, quarter_turns, spatial_dims)
    source = np.abs(orientation).argmax(axis=1)
    steps = (slice(None, None, -1 if orientation[a, p] < 0 else 1) for a, p in enumerate(source))
    return (0, *(int(p) + 1 for p in source)), (slice(None), *steps)


def check_equal_edges(size: Sequence[int], rotations: Sequence[tuple[int, int]]) -> None:
    """Refuse a size that rotations by 90 degrees do not bring onto itself.

    Args:
        size: Voxels along each spatial axis.
        rotations: Pairs (axis, quarter turns).

    Raises:
        UserError: names `roi_size` and two axes of different length that a rotation exchanges.

    Examples:
        >>> check_equal_edges((40, 40, 56), rotation_classes(axes=[2]))
    """
    for axis in sorted({axis for axis, turns in rotations if turns % 2}):
        a, b = (other for other in range(len(size)) if other != axis)
        if size[a] != size[b]:
            raise UserError(
                f"roi_size: found {list(size)}, expected equal edges along axes {a} and {b}, which a "
                f"rotation by 90 degrees about axis {axis} exchanges"
            )


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

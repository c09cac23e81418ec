"""Checks of the input of functions for 2D and 3D: volumes (c, i, j, k) and images (c, i, j)."""

from typing import Any

from pretext3d.annotations import Tensor
from pretext3d.checking import WORDS
from pretext3d.errors import UserError

__all__ = ["check_spatial_dims", "check_volume_shape"]


def check_spatial_dims(spatial_dims: Any) -> None:
    """Raise a `UserError` for a number of spatial axes other than 2 and 3."""
    if spatial_dims not in WORDS:
        raise UserError(f"spatial_dims: found {spatial_dims!r}, expected 2 or 3")


def check_volume_shape(name: str, volume: Tensor) -> None:
    """Raise a `UserError` that names a tensor which is not a volume or an image of floating-point values."""
    if volume.ndim not in (3, 4) or not volume.is_floating_point() or 0 in volume.shape:
        found = f"shape {list(volume.shape)} of {volume.dtype}"
        raise UserError(f"{name}: found {found}, expected floating-point (c, i, j, k) or, in 2D, (c, i, j)")

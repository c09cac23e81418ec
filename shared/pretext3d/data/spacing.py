"""The spacing that images are resampled to: given, or by a rule from the cases' shapes and spacings."""

from collections.abc import Mapping, Sequence

import numpy as np

from pretext3d.checking import is_number
from pretext3d.errors import UserError

__all__ = ["choose_pixdim"]

CROPS_PER_VOLUME_LENGTH = 1.5  # with pixdim: fit, a volume is about this many crops long


def choose_pixdim(
    pixdim: str | int | float | Sequence[int | float] | Mapping[str, int | float] | None,
    shapes: Sequence[Sequence[int]],
    spacings: Sequence[Sequence[float]],
    roi_size: Sequence[int] | int | None = None,
    spatial_dims: int = 3,
) -> list[float]:
    """The spacing (mm along x y z, in 2D along the plane's two axes) that images are resampled to.

    - one number or `spatial_dims` numbers: these;
    - native (or None): [], no resampling;
    - median: along each axis the median over the cases;
    - {fit: n}: one number for all axes, max(m, e / (n r)), rounded to 2 decimals: m is the median over the
      cases of their finest spacing, e the geometric mean over the axes of the median extent (mm), r that of
      `roi_size` (voxels). So a volume is about n crops long, and never finer than most volumes are;
    - fit: the same with n = 1.5;
    - {fit_each: n}: a number for each axis a, max(m, e_a / (n r_a)), rounded to 2 decimals, where e_a is the
      median extent and r_a the `roi_size` along it. So a volume is about n crops long along every axis.

    Args:
        pixdim: Spacing or rule, one of the above.
        shapes: Shape of each case, voxels along x y z, or along the plane's two axes.
        spacings: Spacing of each case, mm along the same axes.
        roi_size: Size of the crop, voxels.
        spatial_dims: Number of spatial axes, 3 or 2.

    Raises:
        UserError: For anything else.

    Examples:
        >>> choose_pixdim("median", [[64, 64, 20]] * 2, [[1.0, 1.0, 3.0], [2.0, 2.0, 3.0]])
        [1.5, 1.5, 3.0]
    """
    several = "three" if spatial_dims == 3 else "two"
    expected = (
        "expected 'fit', {fit: 1.5}, {fit_each: 1.5}, 'median', 'native', in fine-tuning 'pretrained', one "
        f"or {several} numbers in mm"
    )
    if pixdim is None or pixdim == "native":
        return []
    crops, each_axis = CROPS_PER_VOLUME_LENGTH, False
    if isinstance(pixdim, Mapping):
        name, crops = next(iter(pixdim.items()), ("", 0))
        if len(pixdim) != 1 or name not in ("fit", "fit_each") or not (is_number(crops) and crops > 0):
            raise UserError(f"pixdim: found {dict(pixdim)}, {expected}")
        pixdim, each_axis = "fit", name == "fit_each"
    if isinstance(pixdim, str) and pixdim not in ("fit", "median"):
        raise UserError(f"pixdim: found {pixdim!r}, {expected}")
    if not isinstance(pixdim, str):
        given = [pixdim] * spatial_dims if isinstance(pixdim, int | float) else list(pixdim)
        numbers = all(is_number(p) and p > 0 for p in given)
        if given and (len(given) != spatial_dims or not numbers):
            raise UserError(f"pixdim: found {pixdim!r}, {expected}")
        return [float(p) for p in given]
    spacing = np.asarray(spacings, dtype=float)
    if pixdim == "median":
        return [round(float(s), 4) for s in np.median(spacing, axis=0)]
    crop = np.ravel(np.asarray(roi_size if roi_size is not None else [], dtype=float))
    if crop.size not in (1, spatial_dims) or not (crop > 0).all():
        raise UserError(
            f"roi_size: found {roi_size!r}, pixdim: fit needs one or {several} positive numbers of voxels"
        )
    extent, finest = np.median(np.asarray(shapes, dtype=float) * spacing, axis=0), spacing.min(axis=1)
    if not each_axis:
        extent, crop = (np.full(spatial_dims, np.exp(np.log(lengths).mean())) for lengths in (extent, crop))
    return [round(float(value), 2) for value in np.maximum(np.median(finest), extent / (crops * crop))]

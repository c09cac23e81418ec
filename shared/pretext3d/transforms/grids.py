"""Volumes resampled to the size that a grid of cubes needs; the grid is in `pretext3d.ops.grids`."""

import logging
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

from monai.transforms import MapTransform, Resize

from pretext3d.checking import per_axis
from pretext3d.errors import UserError
from pretext3d.ops.grids import block_size

__all__ = ["StretchToGridd"]

LINEAR = {2: "bilinear", 3: "trilinear"}

logger = logging.getLogger(__name__)


class StretchToGridd(MapTransform):
    """Deterministic: volumes that are shorter than the grid along an axis are resampled to its length.

    Padding would put edges into the outer cubes that reveal their position and rotation. The log names every
    volume that is stretched, and the factor along each axis.

    Args:
        keys: Keys of volumes (c, i, j, k) or, in 2D, images (c, i, j).
        grid: Cells along each axis, one number or one per axis.
        size: Size of a cube in voxels, one number per spatial axis.
        gap: Voxels by which a cell is longer than its cube, one number or one per axis.

    Raises:
        UserError: For invalid arguments and, when called, for a volume with another number of spatial axes.
    """

    def __init__(
        self,
        keys: Sequence[str] | str,
        grid: int | Sequence[int],
        size: Sequence[int],
        gap: int | Sequence[int],
    ) -> None:
        super().__init__(keys)
        dims = len(size)
        cells, edges = per_axis("grid", grid, dims), per_axis("roi_size", size, dims)
        self.size = block_size(cells, edges, per_axis("gap", gap, dims, minimum=0))

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """The case with its volumes stretched, including their affines."""
        d = dict(data)
        for key in self.key_iterator(d):
            shape = tuple(d[key].shape[1:])
            if len(shape) != len(self.size):
                raise UserError(
                    f"{key}: found {len(shape)} spatial axes, expected the {len(self.size)} of the grid"
                )
            longer = tuple(max(pair) for pair in zip(self.size, shape, strict=True))
            if longer != shape:
                factors = " x ".join(f"{new / old:.2f}" for new, old in zip(longer, shape, strict=True))
                logger.info(
                    "case %s: %s voxels stretched by %s to the grid", d.get("id"), list(shape), factors
                )
                d[key] = Resize(longer, mode=LINEAR[len(shape)])(d[key])
        return d

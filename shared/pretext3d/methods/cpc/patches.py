"""The overlapping patches of CPC (section 3.1): geometry of their grid, and the random patches of a volume.

The pitch of the grid is `size - overlap` voxels. Of each patch the network sees a window that is `jitter`
voxels shorter, from a random place in the patch, in the middle of `size` voxels of zeros: van den Oord et al.
and the authors' code (28 of 32 voxels) do so, and no edge can be followed exactly from one patch to the next.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from monai.transforms import Randomizable, Transform

from pretext3d.annotations import Int, Shaped, Tensor
from pretext3d.checking import integer, number, per_axis
from pretext3d.data.subjects import subject_code
from pretext3d.errors import UserError
from pretext3d.ops.grids import cube_starts, extract_cubes
from pretext3d.ops.tensors import plain_tensor

__all__ = ["PatchGrid", "RandPatchGridd"]


class PatchGrid:
    """The grid of patches, its rows from top to bottom, and which location is predicted from which row.

    Cells are numbered in C order, the order of the patches in a sample; locations row by row, from the high
    end of `row_axis` (top: superior in a volume in RAS order, the upper edge of an image) to its low end. The
    predictions are those of the first step ahead, then those of the second, and so on, each in the order of
    locations.

    Args:
        grid: Number of patches along each axis, one number or one per axis.
        size: Voxels of a patch.
        overlap: Voxels that neighbouring patches have in common, one number or one per axis.
        jitter: Voxels by which the window that is seen is shorter than its patch, one number or one per axis.
        steps: Number L of rows ahead that are predicted.
        row_axis: Axis along which the rows follow each other; None = the last one.
        volume_size: Size of the volumes; None = not known before they are read.
        spatial_dims: Number of spatial axes, 3 for volumes, 2 for images.

    Attributes:
        block: Voxels of the complete grid along each axis.
        shape: Number of rows, then the number of patches along each other axis.
        order: The cell of each location (m,).
        targets: The location that each prediction is of (q,).
        step_of: The number of rows ahead of each prediction, from 1 (q,).

    Raises:
        UserError: for invalid arguments, and where the grid is longer than the volume.

    Examples:
        >>> grid = PatchGrid(grid=[2, 3], size=[4, 4], overlap=1, steps=2, spatial_dims=2)
        >>> grid.block, grid.shape, grid.order.tolist()
        ((7, 10), (3, 2), [2, 5, 1, 4, 0, 3])
        >>> grid.targets.tolist(), grid.step_of.tolist()
        ([2, 3, 4, 5, 4, 5], [1, 1, 1, 1, 2, 2])
    """

    def __init__(
        self,
        grid: int | Sequence[int],
        size: Sequence[int],
        overlap: int | Sequence[int] = 0,
        jitter: int | Sequence[int] = 0,
        steps: int = 2,
        row_axis: int | None = None,
        volume_size: int | Sequence[int] | None = None,
        spatial_dims: int = 3,
    ) -> None:
        self.grid = per_axis("grid", grid, spatial_dims)
        self.size = per_axis("roi_size", size, spatial_dims)
        self.overlap = per_axis("overlap", overlap, spatial_dims, minimum=0)
        self.jitter = per_axis("jitter", jitter, spatial_dims, minimum=0)
        for name, values in (("overlap", self.overlap), ("jitter", self.jitter)):
            if any(value >= edge for value, edge in zip(values, self.size, strict=True)):
                raise UserError(
                    f"{name}: found {list(values)}, expected fewer voxels than a patch of roi_size "
                    f"{list(self.size)} has"
                )
        axis = spatial_dims - 1 if row_axis is None else row_axis
        self.row_axis = integer("row_axis", axis, 0, spatial_dims - 1)
        rows = self.grid[self.row_axis]
        self.steps = integer("steps_ahead", steps, 1)
        if rows <= self.steps:
            raise UserError(
                f"steps_ahead: found {self.steps} with {rows} rows of the grid {list(self.grid)} along axis "
                f"{self.row_axis}, expected fewer than there are rows"
            )
        others = [n for axis, n in enumerate(self.grid) if axis != self.row_axis]
        self.shape, columns = (rows, *others), int(np.prod(others))
        self.pitch = tuple(s - o for s, o in zip(self.size, self.overlap, strict=True))
        self.block = tuple(n * p + o for n, p, o in zip(self.grid, self.pitch, self.overlap, strict=True))
        cells = torch.arange(rows * columns).view(self.grid)
        self.order = cells.movedim(self.row_axis, 0).flip(0).flatten()
        ahead = [torch.arange(step * columns, rows * columns) for step in range(1, self.steps + 1)]
        self.targets = torch.cat(ahead)
        self.step_of = torch.cat([torch.full_like(part, step) for step, part in enumerate(ahead, start=1)])
        if volume_size is not None:
            self.check_fits(per_axis("body_size", volume_size, spatial_dims))

    def check_fits(self, volume_size: Sequence[int]) -> None:
        """Refuse a volume that is shorter than the grid.

        Raises:
            UserError: names the grid, its size in voxels, and the volume's.
        """
        if len(volume_size) != len(self.grid):
            raise UserError(
                f"spatial_dims: found {len(self.grid)}, expected the {len(volume_size)} axes of an image of "
                f"{list(volume_size)}"
            )
        if any(edge < needed for edge, needed in zip(volume_size, self.block, strict=True)):
            raise UserError(
                f"grid: {list(self.grid)} patches of roi_size {list(self.size)} with overlap "
                f"{list(self.overlap)} need {list(self.block)} voxels, found {list(volume_size)} (body_size)"
            )


class RandPatchGridd(Randomizable, Transform):
    """A volume (c, i, j, k) becomes its patches: `image` (m, c, *size), in the order of the cells.

    The grid is in the middle of the volume or, where the volume is longer, up to `shift` of the free space
    away from it. Adds `starts` (m, d), the lowest voxel of the window that is seen of each patch, and
    `negative` (q,) int64, for each prediction the location of a negative, as its distance from the right one:
    1 to m - 1, modulo m. Of a case, which has an `id`, also `subject_code`, an int64 scalar: other
    images of a subject are no negatives (see `subjects.subject_code`).

    Args:
        patches: Geometry of the grid.
        shift: Range of the grid's position, 0 (in the middle) to 1 (anywhere in the volume).
        image_key: Key of the volume.

    Raises:
        UserError: for invalid arguments and, when called, for a volume shorter than the grid.
    """

    def __init__(self, patches: PatchGrid, shift: float = 1.0, image_key: str = "image") -> None:
        self.patches, self.image_key = patches, image_key
        self.shift = number("shift", shift, 0, 1)
        count = len(patches.order)
        self.corner = (0,) * len(patches.grid)
        self.offsets = np.zeros((count, len(patches.grid)), dtype=np.int64)
        self.negative = np.ones(len(patches.targets), dtype=np.int64)

    def randomize(self, data: Shaped[Tensor, "c *space"]) -> None:
        """Draw the positions of grid and windows, and the negatives."""
        self.patches.check_fits(data.shape[1:])
        room = [n - b for n, b in zip(data.shape[1:], self.patches.block, strict=True)]
        self.corner = tuple(round(r / 2 + self.R.uniform(-0.5, 0.5) * r * self.shift) for r in room)
        self.offsets = self.R.randint(0, np.asarray(self.patches.jitter) + 1, size=self.offsets.shape)
        self.negative = self.R.randint(1, len(self.offsets), size=self.negative.shape)

    def __call__(self, data: dict[str, Any]) -> dict[str, Any]:
        """The case with its patches."""
        d = dict(data)
        volume = plain_tensor(d[self.image_key])
        self.randomize(volume)
        patches = self.patches
        starts = cube_starts(self.corner, patches.grid, patches.pitch, (0,) * len(patches.grid), self.offsets)
        d[self.image_key] = windows(volume, starts, patches.size, patches.jitter)
        d["starts"], d["negative"] = starts, torch.from_numpy(self.negative.copy())
        if "id" in d:
            d["subject_code"] = torch.tensor(subject_code(d))
        return d


def windows(
    volume: Shaped[Tensor, "..."], starts: Int[Tensor, "*b m d"], size: Sequence[int], jitter: Sequence[int]
) -> Shaped[Tensor, "..."]:
    """The windows [start, start + size - jitter) of each volume, in the middle of zeros of `size`.

    Returns:
        (*b, m, c, *size).

    Examples:
        >>> windows(torch.tensor([[7, 8, 9, 5]]), torch.tensor([[1]]), [4], [2]).tolist()
        [[[0, 8, 9, 0]]]
    """
    seen = [edge - less for edge, less in zip(size, jitter, strict=True)]
    cubes = extract_cubes(volume, starts, seen)
    if not any(jitter):
        return cubes
    return F.pad(cubes, [n for less in reversed(list(jitter)) for n in (less // 2, less - less // 2)])

"""Grids of cubes on volumes: a random grid, and volumes long enough for it; see `pretext3d.ops.grids`."""

import logging
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
from monai.transforms import MapTransform, Randomizable, Resize

from pretext3d.annotations import Int, Shaped, Tensor
from pretext3d.checking import number, per_axis
from pretext3d.errors import UserError
from pretext3d.ops.grids import block_size, cube_starts
from pretext3d.ops.tensors import LINEAR, plain_tensor

__all__ = ["RandGrid", "RandPuzzle", "StretchToGridd"]

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


class RandGrid(Randomizable):
    """Base of transforms that cut a grid of cubes: the grid at a random position, each cube in its cell.

    The block of grid * (size + gap) voxels is in the middle of the volume or, where the volume is longer, up
    to `shift` of the free space away from it. Each cube is at a random place of its cell, `jitter` voxels
    long, in the cell's middle: neighbours are `gap` voxels apart on average, and gap - jitter to gap + jitter
    for an even difference of the two. In 2D the cubes are tiles of an image.

    Derived classes draw what else they need in `randomize`, after this one's, and read `starts`.

    Args:
        grid: Number of cells along each axis, one number or one per axis.
        size: Size of a cube in voxels.
        gap: Mean number of voxels between neighbours, one number or one per axis.
        shift: Range of the block's position, 0 (in the middle) to 1 (anywhere in the volume).
        jitter: Range of a cube's place, 0 to gap, one number or one per axis; None = gap, the whole cell.
        image_key: Key of the volume.
        spatial_dims: Number of spatial axes, 3 for volumes, 2 for images.
        body_size: Voxels of all volumes along each axis, one number or one per axis, where they are known: a
            grid that does not fit is then refused at once.

    Attributes:
        cells: Number m of cells.

    Raises:
        UserError: for invalid arguments and, when drawing, for a volume shorter than the grid (see
            `StretchToGridd`).
    """

    def __init__(
        self,
        grid: int | Sequence[int],
        size: Sequence[int],
        gap: int | Sequence[int],
        shift: float = 1.0,
        jitter: int | Sequence[int] | None = None,
        image_key: str = "image",
        spatial_dims: int = 3,
        body_size: int | Sequence[int] | None = None,
    ) -> None:
        self.grid = per_axis("grid", grid, spatial_dims)
        self.size = per_axis("roi_size", size, spatial_dims)
        self.gap = per_axis("gap", gap, spatial_dims, minimum=0)
        self.jitter = self.gap if jitter is None else per_axis("jitter", jitter, spatial_dims, minimum=0)
        if any(moves > room for moves, room in zip(self.jitter, self.gap, strict=True)):
            raise UserError(
                f"jitter: found {list(self.jitter)}, expected at most gap, "
                f"{list(self.gap)}: each one stays in its cell"
            )
        self._places = np.asarray(self.jitter) + 1  # of a cube in its cell, along each axis
        self._lowest = (np.asarray(self.gap) - self.jitter) // 2
        self.shift, self.image_key = number("shift", shift, 0, 1), image_key
        self.block = block_size(self.grid, self.size, self.gap)
        self.cells = int(np.prod(self.grid))
        self.corner = (0,) * spatial_dims
        self.offsets = np.zeros((self.cells, spatial_dims), dtype=np.int64)
        if body_size is not None:
            self.room(per_axis("body_size", body_size, spatial_dims), "body_size")

    def room(self, shape: Sequence[int], found: str = "a volume") -> list[int]:
        """Voxels along each axis by which a volume is longer than the grid.

        Raises:
            UserError: the volume is shorter; `found` says what is.
        """
        room = [length - needed for length, needed in zip(shape, self.block, strict=True)]
        if min(room) < 0:
            raise UserError(
                f"grid: {list(self.grid)} cells of roi_size {list(self.size)} and gap {list(self.gap)} need "
                f"{list(self.block)} voxels, found {found} of {list(shape)}"
            )
        return room

    def randomize(self, data: Shaped[Tensor, "c *space"]) -> None:
        """Draw the position of the block, and the place of each cube."""
        if data.ndim - 1 != len(self.grid):
            raise UserError(
                f"spatial_dims: found {len(self.grid)}, expected the {data.ndim - 1} axes of an image of "
                f"{list(data.shape[1:])}"
            )
        room = self.room(data.shape[1:])
        moved = self.R.uniform(-0.5, 0.5, size=len(room)).tolist()
        self.corner = tuple(round(n / 2 + part * n * self.shift) for n, part in zip(room, moved, strict=True))
        self.offsets = self.R.randint(0, self._places, size=self.offsets.shape) + self._lowest

    @property
    def starts(self) -> Int[Tensor, "m d"]:
        """Lowest voxels of the cubes of the cells, in the volume, as drawn."""
        return cube_starts(self.corner, self.grid, self.size, self.gap, self.offsets)

    def volume(self, data: Mapping[str, Any]) -> Shaped[Tensor, "c *space"]:
        """The case's volume as a plain tensor."""
        return plain_tensor(data[self.image_key])


class RandPuzzle(RandGrid):
    """Base of transforms that permute the cubes of a grid by one of K permutations, drawn with equal chances.

    Args:
        permutations: Classes (K, m).
        grid: Number of cells along each axis; for this and what follows see `RandGrid`.
        size: Size of a cube in voxels.
        gap: Mean number of voxels between neighbours.
        **options: Further arguments of `RandGrid`.

    Attributes:
        permutation: The class that was drawn, 0 to K - 1.

    Raises:
        UserError: permutations of another number of cells; see also `RandGrid`.
    """

    def __init__(
        self,
        permutations: Int[Tensor, "k m"],
        grid: int | Sequence[int],
        size: Sequence[int],
        gap: int | Sequence[int],
        **options: Any,
    ) -> None:
        super().__init__(grid, size, gap, **options)
        if permutations.shape[1] != self.cells:
            raise UserError(
                f"permutations: found {permutations.shape[1]} cells, expected {self.cells} for grid "
                f"{list(self.grid)}"
            )
        self.permutations, self.permutation = permutations, 0

    def randomize(self, data: Shaped[Tensor, "c *space"]) -> None:
        """Draw the grid, then the permutation."""
        super().randomize(data)
        self.permutation = int(self.R.randint(len(self.permutations)))

    @property
    def order(self) -> Int[Tensor, "m"]:
        """The cell of the cube at each position, as drawn."""
        return self.permutations[self.permutation].clone()

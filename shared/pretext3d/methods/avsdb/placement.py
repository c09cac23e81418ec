"""Where shapes are: the largest first, overlaps up to a limit, smaller ones over larger ones.

Tadokoro et al., CVPRW 2023, section 2, "Arrangement of shapes".

Deviates: a position is one of at most 100, as in the successor; then the shape is dropped, and counted. The
successor divides the overlap by the volume of another shape, as it sorts them in between; here it is the
shape's own, as in the paper, of a shape that the first or last slice cuts that of its part in the volume. The
order is that of the complete volumes, so that of two shapes that are cut the one with the larger part may be
over the other. Centres are on voxels.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch

from pretext3d.annotations import Int, Shaped, Tensor
from pretext3d.methods.avsdb.shapes import EDGE, Shapes

__all__ = ["BORDER", "Placement", "Solid", "place", "solids"]

BORDER = 2  # voxels, the outline's width in a slice (PrimGeoSeg)
TOGETHER = 2**15  # pixels of shapes of about the same size whose gauges are computed in one box


class Solid(NamedTuple):
    """The voxels of a shape in the smallest box around its centre, 1 or 0, int16.

    `inner` are those that are not part of its outline: in each slice, more than two voxels from what is
    outside. `half` is the number of voxels on either side of the centre along each axis, `filled` that of the
    shape's voxels.
    """

    voxels: Int[Tensor, "a b c"]
    inner: Int[Tensor, "a b c"]
    half: tuple[int, int, int]
    filled: int


@dataclass(frozen=True)
class Placement:
    """What became of the shapes of one volume.

    Attributes:
        codes: 0 where there is no shape; 2 n - 1 on the outline of the n-th placed shape, 2 n inside; int16.
        placed: Numbers of the shapes that found a position, in the order of placement.
        overlaps: Overlap with what was filled before, divided by the volume in the image, of each of these.
        centres: Voxel of the centre of each of these.
    """

    codes: Int[Tensor, "i j k"]
    placed: list[int]
    overlaps: list[float]
    centres: list[tuple[int, ...]]

    def look_up(self, values: np.ndarray) -> Shaped[Tensor, "i j k"]:
        """For each voxel the value of its code: of the background, then of each outline and interior.

        Args:
            values: Values (1 + 2 * shapes,): of the background, then of the outline and the interior of each
                shape, in their order before the placement.
        """
        numbers = np.asarray(self.placed, dtype=int)
        order = np.concatenate([[0], np.stack([2 * numbers + 1, 2 * numbers + 2], axis=1).ravel()])
        table = torch.from_numpy(values[order]).to(self.codes.device)
        return table.index_select(0, self._indices).view(self.codes.shape)

    @cached_property
    def _indices(self) -> Int[Tensor, "n"]:
        return self.codes.flatten().int()


def solids(shapes: Shapes, size: Sequence[int], device: torch.device | str = "cpu") -> list[Solid]:
    """The voxels of each shape in a volume of some size: those whose centres are inside the shape.

    Args:
        shapes: Shapes, in voxels of a volume of 96 x 96 x 96.
        size: Voxels of the volume along i, j, k. One slice is filled by every shape's cross-section.
        device: Device of the result.
    """
    scale = np.asarray(size) / EDGE
    reach = shapes.reach * scale[:2]
    upright = shapes.height / 2 * scale[2] if size[2] > 1 else np.zeros(len(shapes))
    half = np.floor(np.concatenate([reach, upright[:, None]], axis=1) + 1e-9).astype(int)
    found: dict[int, Solid] = {}
    pixels = (2 * half[:, :2] + 1).prod(1)
    for group in np.array_split(np.argsort(pixels), min(len(shapes), -(-pixels.sum() // TOGETHER))):
        numbers = group.tolist()
        together = solids_of_group(shapes.chosen(group), half[group], scale, size[2] == 1, device)
        found |= dict(zip(numbers, together, strict=True))
    return [found[number] for number in range(len(shapes))]


def solids_of_group(
    shapes: Shapes, half: np.ndarray, scale: np.ndarray, flat: bool, device: torch.device | str
) -> list[Solid]:
    """The solids of shapes of about the same size, computed together; see `solids`.

    gauge <= ratio is asked for every pixel and slice. Both are replaced by how many of the shape's slices
    have a smaller ratio, small integers, which are compared much faster.
    """
    most = half.max(0).tolist()
    steps = [torch.arange(-n, n + 1, dtype=torch.float64, device=device) for n in most]
    x, y, z = ((step / scale[axis]).expand(len(shapes), -1) for axis, step in enumerate(steps))
    gauge, ratio = shapes.gauge(x, y), torch.ones_like(z) if flat else shapes.ratio(z)
    order = ratio.sort(dim=1).values
    above = torch.searchsorted(order, gauge.flatten(1), out_int32=True).to(torch.int16).view(gauge.shape)
    level = 1 + torch.searchsorted(order, ratio, out_int32=True).to(torch.int16)
    counts = (len(order[0]) - above).sum((1, 2)).tolist()
    wide = dilated(above)
    found = []
    for number, (own, count) in enumerate(zip(half.tolist(), counts, strict=True)):
        a, b, c = (slice(m - n, m + n + 1) for n, m in zip(own, most, strict=True))
        voxels, inner = ((level[number, c] - part[number, a, b, None]).clamp_(0, 1) for part in (above, wide))
        found.append(Solid(voxels, inner, (own[0], own[1], own[2]), count))
    return found


def dilated(above: Int[Tensor, "n a b"], width: int = BORDER) -> Int[Tensor, "n a b"]:
    """The largest value of the pixels that are at most `width` steps away.

    A voxel is inside by more than `width` where its pixel's largest gauge is at most the ratio, whatever the
    slice: the outlines of all slices take one maximum filter.
    """
    found = torch.nn.functional.pad(above, (width,) * 4, value=torch.iinfo(torch.int16).max)
    for _ in range(width):
        rows = torch.maximum(torch.maximum(found[:, 2:, 1:-1], found[:, :-2, 1:-1]), found[:, 1:-1, 1:-1])
        found = torch.maximum(torch.maximum(rows, found[:, 1:-1, 2:]), found[:, 1:-1, :-2])
    return found


def place(
    shapes: Sequence[Solid],
    volumes: np.ndarray,
    positions: np.ndarray,
    size: Sequence[int],
    max_overlap: float | None,
    z_margin: float = 0.0,
) -> Placement:
    """Place the shapes of one volume.

    Args:
        shapes: Voxels of the shapes.
        volumes: Volumes of the shapes (shapes,), which decide their order.
        positions: Positions to try, (shapes, tries, 3), from 0 to 1: along i and j between the places where
            a shape touches the volume's faces, along k where its centre is `z_margin` from them.
        size: Voxels of the volume along i, j, k.
        max_overlap: Overlap as a fraction of the volume in the image, below which a position is taken; None:
            no overlap.
        z_margin: Smallest distance of the centre from the first and the last slice, in voxels.
    """
    device = shapes[0].voxels.device
    found = Placement(torch.zeros(tuple(size), dtype=torch.int16, device=device), [], [], [])
    last = np.asarray(size) - 1
    for number in np.argsort(-volumes, kind="stable").tolist():
        voxels, inner, half, filled = shapes[number]
        # a later shape has higher codes: to overwrite is to take the maximum
        step = len(found.placed)
        lowest = np.minimum([half[0], half[1], z_margin], last / 2)
        for position in positions[number]:
            centre = np.rint(lowest + position * (last - 2 * lowest)).astype(int).tolist()
            inside, own = windows(centre, half, size)
            part, here = voxels[own], found.codes[inside]
            count = filled if part.shape == voxels.shape else int(torch.count_nonzero(part))
            overlap = int(torch.count_nonzero(torch.minimum(here, part)))
            if count and (overlap < max_overlap * count if max_overlap else not overlap):
                torch.maximum(here, torch.add(inner[own], part, alpha=2 * step + 1), out=here)
                found.placed.append(number)
                found.overlaps.append(overlap / count)
                found.centres.append(tuple(centre))
                break
    return found


def windows(
    centre: Sequence[int], half: Sequence[int], size: Sequence[int]
) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    """The part of a volume that a box covers, and that part of the box.

    Examples:
        >>> windows([1], [2], [8])
        ((slice(0, 4, None),), (slice(1, 5, None),))
    """
    inside, own = [], []
    for middle, reach, most in zip(centre, half, size, strict=True):
        start, stop = max(middle - reach, 0), min(middle + reach + 1, most)
        inside.append(slice(start, stop))
        own.append(slice(start - middle + reach, stop - middle + reach))
    return tuple(inside), tuple(own)

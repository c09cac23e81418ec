"""Where shapes lie: the largest first, overlaps up to a limit, smaller ones over larger ones.

Tadokoro et al., CVPRW 2023, section 2, "Arrangement of shapes".

Deviates: a position is one of at most 100, as in the successor; then the shape is dropped, and counted. The
successor divides the overlap by the volume of another shape, as it sorts them in between; here it is the
shape's own, as in the paper. Centres are on voxels.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch

from pretext3d.annotations import Bool, Int, Tensor
from pretext3d.methods.avsdb.shapes import EDGE, Shapes

__all__ = ["BORDER", "Placement", "Solid", "place", "solids"]

BORDER = 2  # voxels, the outline's width in a slice (PrimGeoSeg)


class Solid(NamedTuple):
    """The voxels of a shape in the smallest box around its centre, and those of its outline in every slice.

    `half` is the number of voxels on either side of the centre along each axis.
    """

    voxels: Bool[Tensor, "a b c"]
    half: tuple[int, int, int]


@dataclass(frozen=True)
class Placement:
    """What became of the shapes of one volume.

    Attributes:
        instances: 1 + the number of the shape at each voxel, 0 where there is none, int16.
        border: Whether a voxel belongs to the outline of its shape: in each slice, the shape's voxels at most
            two voxels from its boundary.
        placed: Numbers of the shapes that found a position, in the order of placement.
        overlaps: Overlap with what was filled before, divided by the volume, of each of these.
        centres: Voxel of the centre of each of these.
    """

    instances: Int[Tensor, "i j k"]
    border: Bool[Tensor, "i j k"]
    placed: list[int]
    overlaps: list[float]
    centres: list[tuple[int, ...]]


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
    steps = [torch.arange(-most, most + 1, dtype=torch.float64, device=device) for most in half.max(0)]
    x, y, z = ((step / scale[axis]).expand(len(shapes), -1) for axis, step in enumerate(steps))
    gauge, ratio = shapes.gauge(x, y), shapes.ratio(z) if size[2] > 1 else torch.ones_like(z)
    found = []
    for number, own in enumerate(half.tolist()):
        a, b, c = (slice(most - n, most + n + 1) for n, most in zip(own, half.max(0).tolist(), strict=True))
        found.append(Solid(gauge[number, a, b, None] <= ratio[number, None, None, c], tuple(own)))
    return found


def outline(voxels: Bool[Tensor, "a b c"], width: int = BORDER) -> Bool[Tensor, "a b c"]:
    """The voxels of a solid that are at most `width` voxels, in the slice, from what is outside it."""
    inner = torch.nn.functional.pad(voxels, (0, 0, width, width, width, width))
    for _ in range(width):
        core = inner[1:-1, 1:-1]
        inner = core & inner[2:, 1:-1] & inner[:-2, 1:-1] & inner[1:-1, 2:] & inner[1:-1, :-2]
    return voxels & ~inner


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
        max_overlap: Overlap as a fraction of the volume, below which a position is taken; None: no overlap.
        z_margin: Smallest distance of the centre from the first and the last slice, in voxels.
    """
    device = shapes[0].voxels.device if shapes else torch.device("cpu")
    instances = torch.zeros(tuple(size), dtype=torch.int16, device=device)
    border = torch.zeros(tuple(size), dtype=torch.bool, device=device)
    found = Placement(instances, border, [], [], [])
    for number in np.argsort(-volumes, kind="stable").tolist():
        voxels, half = shapes[number]
        lowest = np.minimum([half[0], half[1], z_margin], (np.asarray(size) - 1) / 2)
        centres = np.rint(lowest + positions[number] * (np.asarray(size) - 1 - 2 * lowest)).astype(int)
        whole = int(voxels.sum())
        for centre in centres.tolist():
            inside, own = windows(centre, half, size)
            part = voxels[own]
            count = whole if part.shape == voxels.shape else int(part.sum())
            overlap = int(((instances[inside] > 0) & part).sum())
            if count and (overlap < max_overlap * count if max_overlap else not overlap):
                instances[inside].masked_fill_(part, number + 1)
                torch.where(part, outline(voxels)[own], border[inside], out=border[inside])
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

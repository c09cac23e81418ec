"""SLIC: supervoxels of volumes, superpixels of images, with any number of channels, in torch, on any device.

Achanta R, Shaji A, Smith K, Lucchi A, Fua P, Suesstrunk S. SLIC Superpixels Compared to State-of-the-Art
Superpixel Methods. PAMI 2012. Parameters and distance are those of `skimage.segmentation.slic` with
`channel_axis=0, sigma=0, start_label=1, convert2lab=False`, so that its settings mean the same here.

Deviates from scikit-image: the centres are in the middle of equal cells, as many along each axis as in
scikit-image, which leaves the remainder at the far end; a centre starts with its cell's mean colours, which
scikit-image computes in its first pass; a voxel chooses among the centres of its cell and of the 26 (in 2D 8)
adjacent cells, not among those that have moved close; centres are means over every second voxel along an axis
where cells are eight voxels or longer, odd and even voxels alternately; with a mask the cells cover its
bounding box, and those at least half inside have centres, where scikit-image spreads them by k-means on
random voxels; a region that is too small joins the most similar neighbour, not the last one found, and stays
if it has none.
"""

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from skimage.util import regular_grid

from pretext3d import checking
from pretext3d.annotations import Bool, Float, Int, Tensor
from pretext3d.checking import WORDS
from pretext3d.errors import UserError
from pretext3d.ops.checks import check_volume_shape
from pretext3d.ops.connectivity import connected_regions

__all__: list[str] = []

# Elements (voxels times candidates) of one array operation: on a CPU few enough to stay in its cache.
CPU_ELEMENTS = 2**18
GPU_ELEMENTS = 2**26
COARSE = 8  # length of a cell along an axis, in voxels, from which every second voxel suffices for its centre
INDEX_BITS = 31  # low bits of a distance that hold the number of the candidate


def slic(
    image: Float[Tensor, "c *space"],
    n_segments: int = 400,
    compactness: float = 0.15,
    spacing: Sequence[float] | None = None,
    mask: Bool[Tensor, "*space"] | None = None,
    max_iterations: int = 10,
    enforce_connectivity: bool = True,
    min_size_factor: float = 0.5,
    max_size_factor: float = 3.0,
) -> Int[Tensor, "*space"]:
    """Cut a volume or, in 2D, an image into supervoxels: k-means in colour and space, from a regular grid.

    The squared distance of a voxel at p with colours f to a centre at q with colours g is

        |f - g|^2 / `compactness`^2 + |`spacing` * (p - q)|^2 / S^2,

    with the colours of all channels scaled together to [0, 1] (within the mask), p and q in voxels, and S the
    largest distance of neighbouring centres on the first grid, in voxels: larger spacings give space more
    weight.

    Args:
        image: Volume or image of finite values of any range; all channels share one scale, so they need
            similar ranges.
        n_segments: Approximate number of supervoxels; the result may have some more or fewer, but never more
            than voxels. A volume (or mask) with fewer voxels gets one supervoxel per voxel.
        compactness: Weight of space, above 0; higher values give more cubic supervoxels. A constant image
            gives a grid.
        spacing: Length of a voxel along each axis; None: all 1. Its unit matters only together with
            `compactness`.
        mask: True where there are supervoxels; `n_segments` supervoxels share these voxels, but each
            separate part of the mask has at least one. None: everywhere.
        max_iterations: Number of assignments of voxels to centres; with a mask, as many more by space alone
            come first.
        enforce_connectivity: Make every supervoxel one connected region, of bounded size; in NumPy on the
            CPU, also for a volume on a GPU.
        min_size_factor: Factor of the mean size (voxels / centres) below which a region joins a neighbour.
        max_size_factor: Factor of the mean size above which a region is first cut into equal parts.

    Returns:
        int32 labels 1..n on the image's device, 0 outside the mask. The same input gives the same labels.

    Raises:
        UserError: For a number outside its range, NaN or infinite voxels, an empty or misshapen mask.
    """
    check_volume(image, mask)
    spacing = [1.0] * (image.ndim - 1) if spacing is None else spacing
    check_settings(n_segments, compactness, spacing, max_iterations, image.ndim - 1)
    mask = torch.ones_like(image[0], dtype=torch.bool) if mask is None else mask.to(image.device)
    box = _bounding_box(mask)
    labels = torch.zeros(mask.shape, dtype=torch.int32, device=image.device)
    inside = mask[box]
    values = image.detach()[(slice(None), *box)].to(torch.float32)
    lowest, highest = _range(values, inside)
    values = (values - lowest) * (1 / (compactness * (highest - lowest)) if highest > lowest else 0.0)
    part, cells = _cluster(values, inside, n_segments, spacing, max_iterations)
    if enforce_connectivity:
        size = inside.numel() / cells
        limits = int(min_size_factor * size), max(1, int(max_size_factor * size))
        part = torch.from_numpy(connected_regions(part.cpu().numpy(), values.cpu().numpy(), *limits)).to(
            image.device
        )
    else:
        used = torch.bincount(part.reshape(-1), minlength=1) > 0
        used[0] = False
        part = used.cumsum(0).to(torch.int32)[part]  # 0 stays 0: none is before it
    labels[box] = torch.where(inside, part.to(torch.int32), 0)
    return labels


def check_settings(
    n_segments: int,
    compactness: float,
    spacing: Sequence[float] | None = None,
    max_iterations: int = 10,
    spatial_dims: int = 3,
) -> None:
    """Raise a `UserError` for a setting outside its range."""
    for name, number in (("n_segments", n_segments), ("max_iterations", max_iterations)):
        checking.integer(name, number, minimum=1)
    checking.number("compactness", compactness, low=0, low_open=True)
    if spacing is not None and (len(spacing) != spatial_dims or not all(0 < s < math.inf for s in spacing)):
        raise UserError(f"spacing: found {list(spacing)}, expected {WORDS[spatial_dims]} lengths above 0")


def check_volume(image: Tensor, mask: Tensor | None, name: str = "image", mask_name: str = "mask") -> None:
    """Raise a `UserError` that names a volume or mask that SLIC cannot process."""
    check_volume_shape(name, image)
    if mask is not None and mask.shape != image.shape[1:]:
        found = f"{mask_name}: found shape {list(mask.shape)}"
        raise UserError(f"{found}, expected the shape {list(image.shape[1:])} of {name}")
    if mask is not None and not mask.any():
        raise UserError(f"{mask_name}: found no voxel in it, expected one at least")
    bad = ~image.isfinite()
    if mask is not None:
        bad &= mask.to(bad.device)
    if bad.any():
        raise UserError(
            f"{name}: found NaN or infinite values in {int(bad.any(0).sum())} voxels, expected none"
        )


# ----------------------------------------------------------------------------------------- the grid of cells
@dataclass(frozen=True)
class _Cells:
    """A volume cut into n cells of nearly equal size, each padded to (a, b, d) voxels, an image to (a, b).

    `values` (n, c, a, b, d): colours, float32; `inside` (n, a, b, d): False for padding and outside the mask;
    `axes`: voxel coordinates along i, j, k, (n, a), (n, b), (n, d); `near` (n, m): numbers of the candidate
    centres of each cell, its own and those of adjacent cells, in increasing order; n = no cell; `lengths`
    (n, 3): a cell's voxels along i, j, k without padding; `shift` (n, 3): from the middle of the voxels that
    are left in a cell to the middle of all its voxels. In 2D these have no k.
    """

    values: Tensor
    inside: Tensor
    axes: tuple[Tensor, ...]
    near: Tensor
    lengths: Tensor
    shift: Tensor

    def every_second(self, phase: int) -> "_Cells":
        """The cells with every second voxel along the axes where they are long enough."""
        halved = [n >= COARSE for n in self.inside.shape[1:]]
        cut = [slice(phase % 2, None, 2) if half else slice(None) for half in halved]
        axes = tuple(axis[:, c].contiguous() for axis, c in zip(self.axes, cut, strict=True))
        values, inside = self.values[(..., *cut)].contiguous(), self.inside[(..., *cut)].contiguous()
        # of 0 1 2 3 the voxels 0 2 or 1 3 are left, half a voxel off; 0 1 2 3 4 stays symmetric
        even = (self.lengths % 2 == 0) & torch.tensor(halved, device=inside.device)
        return replace(self, values=values, inside=inside, axes=axes, shift=even * (0.5 - phase % 2))

    def parts(self) -> Iterator[tuple[slice, slice]]:
        """Cells, and planes along i in them, that are processed at a time."""
        n, a, *rest = self.inside.shape
        limit = CPU_ELEMENTS if self.inside.device.type == "cpu" else GPU_ELEMENTS
        plane = math.prod(rest) * self.near.shape[1]
        planes = min(a, max(1, limit // plane))
        planes = math.ceil(a / math.ceil(a / planes))  # parts of similar size
        cells = max(1, limit // (plane * planes)) if planes == a else 1
        for first in range(0, n, cells):
            for low in range(0, a, planes):
                yield slice(first, min(n, first + cells)), slice(low, min(a, low + planes))


def _cut(values: Tensor, inside: Tensor, counts: Sequence[int]) -> tuple[_Cells, list[Tensor]]:
    """Cut volumes (c, *space) and (*space) into `counts` cells along the axes, and find their voxels.

    The places are, per axis, indices into (cells * padded length) of the voxels 0, 1, 2 ...
    """
    device, dims, sizes, picks, valid, places = values.device, inside.ndim, [], [], [], []
    for length, count in zip(inside.shape, counts, strict=True):
        edges = [n * length // count for n in range(count + 1)]
        size = math.ceil(length / count)
        first = torch.tensor(edges[:-1], device=device)
        pick = first[:, None] + torch.arange(size, device=device)
        picks.append(pick.clamp(max=length - 1))
        valid.append(pick < torch.tensor(edges[1:], device=device)[:, None])
        places.append(valid[-1].reshape(-1).nonzero()[:, 0])
        sizes.append(size)
    grid = [x for pair in zip(counts, sizes, strict=True) for x in pair]  # cells and voxels of i, of j, of k
    for axis, pick in enumerate(picks):
        if pick.numel() > inside.shape[axis]:
            values = values.index_select(axis + 1, pick.reshape(-1))
            inside = inside.index_select(axis, pick.reshape(-1))
    inside = inside.view(grid).clone()
    for axis, one in enumerate(valid):
        inside &= one.view([n if x // 2 == axis else 1 for x, n in enumerate(grid)])
    number = torch.arange(math.prod(counts), device=device).view(*counts)
    cell = torch.stack(torch.meshgrid([torch.arange(n, device=device) for n in counts], indexing="ij"), -1)
    cell = cell.view(-1, dims)
    offsets = itertools.product(*[(-1, 0, 1) if n > 1 else (0,) for n in counts])
    around = cell[:, None] + torch.tensor(list(offsets), device=device)
    exists = ((around >= 0) & (around < torch.tensor(counts, device=device))).all(-1)
    near = number[tuple(around.clamp(min=0).minimum(torch.tensor(counts, device=device) - 1).unbind(-1))]
    lengths = torch.stack([one.sum(1)[cell[:, axis]] for axis, one in enumerate(valid)], 1)
    cells = _Cells(
        values.view(-1, *grid)
        .permute(*range(1, 2 * dims, 2), 0, *range(2, 2 * dims + 1, 2))
        .reshape(len(cell), -1, *sizes),
        inside.permute(*range(0, 2 * dims, 2), *range(1, 2 * dims, 2)).reshape(-1, *sizes),
        tuple(pick[cell[:, axis]].to(torch.float32) for axis, pick in enumerate(picks)),
        torch.where(exists, near, len(cell)),
        lengths,
        torch.zeros_like(lengths, dtype=torch.float32),
    )
    return cells, places


# -------------------------------------------------------------------------------------------------- k-means
def _cluster(
    values: Tensor, inside: Tensor, n_segments: int, spacing: Sequence[float], max_iterations: int
) -> tuple[Tensor, int]:
    """Labels 1..n of the voxels inside, with gaps, and the number n of cells; `values` over compactness."""
    share = float(inside.sum()) / inside.numel()
    grid = regular_grid(inside.shape, max(1, round(n_segments / share)))
    steps = [s.step or 1 for s in grid]
    counts = [len(range(*s.indices(length))) for s, length in zip(grid, inside.shape, strict=True)]
    scale = [s / max(steps) for s in spacing]
    cells, places = _cut(values, inside, counts)
    dims = inside.ndim
    own = torch.arange(len(cells.near), dtype=torch.int32, device=values.device)
    own = own.view(-1, *[1] * dims).expand_as(cells.inside)
    centres = torch.full((len(own) + 1, dims + len(values)), math.inf, device=values.device)
    centres[:, dims:] = 0
    _update(cells, own, centres)
    # the voxels of a cell that is mostly outside the mask go to adjacent cells, where these have centres
    filled = cells.inside.flatten(1).sum(1)
    kept = filled * 2 >= cells.lengths.prod(1)
    kept |= (filled > 0) & ~torch.cat([kept, kept.new_zeros(1)])[cells.near].any(1)
    centres[:-1][~kept] = math.inf
    coarse = [cells.every_second(0), cells.every_second(1)]
    if share < 1:
        for n in range(max_iterations):
            _update(coarse[n % 2], _assign(coarse[n % 2], centres, scale, colours=False), centres)
    for n in range(max_iterations - 2):
        _update(coarse[n % 2], _assign(coarse[n % 2], centres, scale), centres)
    labels = _assign(cells, centres, scale) if max_iterations > 1 or share < 1 else own
    labels = torch.where(cells.inside, labels + 1, 0).view(*counts, *cells.inside.shape[1:])
    labels = labels.permute([x for axis in range(dims) for x in (axis, dims + axis)]).reshape(
        [n * m for n, m in zip(counts, labels.shape[dims:], strict=True)]
    )
    for axis, place in enumerate(places):
        if len(place) < labels.shape[axis]:
            labels = labels.index_select(axis, place)
    return labels, len(cells.near)


def _assign(cells: _Cells, centres: Tensor, scale: Sequence[float], colours: bool = True) -> Tensor:
    """The number of the nearest of the candidate centres, int32 like `inside`; any number outside."""
    dims = len(cells.axes)
    result = torch.zeros(cells.inside.shape, dtype=torch.int32, device=centres.device)
    m = cells.near.shape[1]
    numbers = torch.arange(m, dtype=torch.int32, device=centres.device)[:, None]
    buffers = centres.new_empty(2, 0)
    for part, planes in cells.parts():
        inside = cells.inside[part, planes]
        if not centres.is_cuda and not inside.any():  # on a GPU the check costs more than it saves
            continue
        near = cells.near[part]
        candidates = centres[near]  # (n, m, dims + c)
        axes = [cells.axes[0][part, planes], *(axis[part] for axis in cells.axes[1:])]
        space = [
            ((axis[:, None] - candidates[..., a, None]) * scale[a])
            .square_()
            .view(*near.shape, *[1] * a, -1, *[1] * (dims - 1 - a))
            for a, axis in enumerate(axes)
        ]
        shape = (len(near), m, *inside.shape[1:])
        if buffers.shape[1] < math.prod(shape):
            buffers = centres.new_empty(2, math.prod(shape))
        distance, difference = buffers[:, : math.prod(shape)].view(2, *shape[:2], -1)
        torch.add(sum(space[:-1]), space[-1], out=distance.view(shape))
        for c in range(cells.values.shape[1] if colours else 0):
            channel = cells.values[part, c, planes].reshape(len(near), 1, -1)
            torch.sub(channel, candidates[:, :, dims + c, None], out=difference)
            distance.addcmul_(difference, difference)
        # Non-negative floats have the same order as their bits read as integers: with the candidate's number
        # in the lowest five bits, one minimum finds distance and number, 20 times faster than
        # argmin. Distances that agree to 2^-19 of their value count as equal, and the lower number wins.
        bits = distance.view(torch.int32).bitwise_and_(~INDEX_BITS).bitwise_or_(numbers)
        nearest = bits.amin(1).bitwise_and_(INDEX_BITS)
        result[part, planes] = near.gather(1, nearest.to(torch.int64)).view(inside.shape)  # to int32
    return result


def _update(cells: _Cells, labels: Tensor, centres: Tensor) -> None:
    """Move the centres (n + 1, dims + c) to the means of their voxels; a centre without voxels stays."""
    n, dims = len(centres), len(cells.axes)
    labels = torch.where(cells.inside, labels, n - 1).reshape(-1)
    counts = torch.bincount(labels, minlength=n).to(torch.float64)
    axes = [
        (x + cells.shift[:, a, None])
        .view(len(x), *[1] * a, -1, *[1] * (dims - 1 - a))
        .expand_as(cells.inside)
        for a, x in enumerate(cells.axes)
    ]
    moved = counts > 0
    moved[-1] = False
    for feature, column in enumerate([*axes, *cells.values.unbind(1)]):
        sums = torch.zeros_like(counts).index_add_(0, labels, column.reshape(-1).to(torch.float64))
        centres[:, feature] = torch.where(moved, (sums / counts).to(centres.dtype), centres[:, feature])


def _bounding_box(mask: Tensor) -> tuple[slice, ...]:
    """The smallest box that contains a mask."""
    box = []
    for axis in range(mask.ndim):
        there = mask
        for other in range(mask.ndim):
            there = there if other == axis else there.any(dim=other, keepdim=True)
        places = there.reshape(-1).nonzero()
        box.append(slice(int(places[0]), int(places[-1]) + 1))
    return tuple(box)


def _range(values: Tensor, inside: Tensor) -> tuple[float, float]:
    """The lowest and highest value inside."""
    low = torch.where(inside, values, math.inf).min()
    high = torch.where(inside, values, -math.inf).max()
    return float(low), float(high)

"""Boundary targets: a 3D median filter and the magnitude of the 3D Scharr gradient, on any device.

Zhang Y, Gu P, Sapkota N, Zheng H, Liang P, Chen DZ. A Point in the Right Direction: Vector Prediction for
Spatially-Aware Self-Supervised Volumetric Representation Learning. ISBI 2023, section 2.2.

Borders are mirrored including the border voxel (c b a | a b c d | d c b), SciPy's and scikit-image's `reflect`.

The median is exact and has no sort: a window's voxels go through a network of pairwise minima and maxima, each one
an operation on whole arrays. Windows side by side share their common part (Adams A. Fast median filters using
separable sorting networks. ACM Trans. Graph. 2021, here in 3D): about 450 operations a voxel for 5^3 = 125 values.
"""

from collections.abc import Callable, Hashable, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform
from monai.utils import convert_to_tensor

from pretext3d.errors import UserError
from pretext3d.shapes import Float, Int, Tensor

__all__ = ["BoundaryTargetsd"]

MEDIANS = ("exact", "separable")
ELEMENTS = {"cpu": 2**15, "other": 2**22}  # of one operation of the network: CPU caches, or the device's memory


# --------------------------------------------------------------------------------------------- Scharr gradient
def scharr(volume: Float[Tensor, "*b i j k"]) -> Float[Tensor, "*b i j k"]:
    """Magnitude of the 3D Scharr gradient, sqrt((g_i^2 + g_j^2 + g_k^2) / 3), in intensity per voxel.

    g_a is the difference [-1, 0, 1] / 2 along axis a of the volume smoothed by [3, 10, 3] / 16 along the other
    two. Equal to `skimage.filters.scharr`, borders included.

    Args:
        volume: any number of leading dimensions, floating point.
    """
    smooth_k = _smooth(volume, -1)
    g_i = _difference(_smooth(smooth_k, -2), -3)
    g_j = _difference(_smooth(smooth_k, -3), -2)
    g_k = _difference(_smooth(_smooth(volume, -2), -3), -1)
    return g_i.square_().addcmul_(g_j, g_j).addcmul_(g_k, g_k).mul_(1 / 12).sqrt_()


def _smooth(volume: Tensor, axis: int) -> Tensor:
    """[3, 10, 3] / 16 along an axis; a mirrored border voxel counts twice."""
    n = volume.shape[axis]
    smoothed = volume * (10 / 16)
    smoothed.narrow(axis, 1, n - 1).add_(volume.narrow(axis, 0, n - 1), alpha=3 / 16)
    smoothed.narrow(axis, 0, n - 1).add_(volume.narrow(axis, 1, n - 1), alpha=3 / 16)
    smoothed.narrow(axis, 0, 1).add_(volume.narrow(axis, 0, 1), alpha=3 / 16)
    smoothed.narrow(axis, n - 1, 1).add_(volume.narrow(axis, n - 1, 1), alpha=3 / 16)
    return smoothed


def _difference(volume: Tensor, axis: int) -> Tensor:
    """[-1, 0, 1] along an axis, not halved."""
    n = volume.shape[axis]
    result = torch.empty_like(volume)
    if n > 2:
        torch.sub(volume.narrow(axis, 2, n - 2), volume.narrow(axis, 0, n - 2), out=result.narrow(axis, 1, n - 2))
    for at, after, before in ((0, min(1, n - 1), 0), (n - 1, n - 1, max(0, n - 2))):
        torch.sub(volume.narrow(axis, after, 1), volume.narrow(axis, before, 1), out=result.narrow(axis, at, 1))
    return result


# ---------------------------------------------------------------------------------------------- sorting network
class Step(NamedTuple):
    """One operation on whole arrays: value `result` = min or max of two values; `dead` are not used afterwards."""

    result: int
    is_max: bool
    left: int
    right: int
    dead: tuple[int, ...]


class Program(NamedTuple):
    """A network's operations in order; values 0..inputs - 1 are given, `outputs` are asked for."""

    inputs: int
    steps: tuple[Step, ...]
    outputs: tuple[int, ...]


class Network:
    """Builds a network of minima and maxima over numbered values; equal operations are made once."""

    def __init__(self, inputs: int) -> None:
        self.inputs = inputs
        self.operations: list[tuple[bool, int, int]] = []
        self.known: dict[Hashable, int] = {}

    def value(self, is_max: bool, left: int, right: int) -> int:
        """The number of min or max of two values."""
        operation = (is_max, min(left, right), max(left, right))
        if operation not in self.known:
            self.known[operation] = self.inputs + len(self.operations)
            self.operations.append(operation)
        return self.known[operation]

    def merge(self, a: list[int], b: list[int]) -> list[int]:
        """Two ascending lists to one: Batcher's odd-even merge for any lengths."""
        if not a or not b:
            return a + b
        if len(a) == len(b) == 1:
            return [self.value(False, a[0], b[0]), self.value(True, a[0], b[0])]
        first, *even = self.merge(a[::2], b[::2])
        odd = self.merge(a[1::2], b[1::2])
        merged = [first]
        for x, y in zip(even, odd, strict=False):
            merged += [self.value(False, x, y), self.value(True, x, y)]
        paired = min(len(even), len(odd))
        return merged + even[paired:] + odd[paired:]

    def merge_all(self, lists: list[list[int]]) -> list[int]:
        """Any number of ascending lists to one."""
        if len(lists) == 1:
            return lists[0]
        half = len(lists) // 2
        return self.merge(self.merge_all(lists[:half]), self.merge_all(lists[half:]))

    def kth(self, a: list[int], b: list[int], k: int) -> int:
        """The k-th smallest (from 0) of two ascending lists: min over i of max(i-th of a, (k + 1 - i)-th of b)."""
        result: int | None = None
        for i in range(max(0, k + 1 - len(b)), min(len(a), k + 1) + 1):
            ends = ([a[i - 1]] if i else []) + ([b[k - i]] if i <= k else [])
            largest = ends[0] if len(ends) == 1 else self.value(True, ends[0], ends[1])
            result = largest if result is None else self.value(False, result, largest)
        assert result is not None
        return result

    def program(self, outputs: Sequence[int]) -> Program:
        """What the outputs need, and nothing else."""
        needed, stack = set[int](), list(outputs)
        while stack:
            value = stack.pop()
            if value not in needed:
                needed.add(value)
                if value >= self.inputs:
                    stack += self.operations[value - self.inputs][1:]
        order = [v for v in range(self.inputs, self.inputs + len(self.operations)) if v in needed]
        last_use = {arg: v for v in order for arg in self.operations[v - self.inputs][1:]}
        steps = []
        for v in order:
            is_max, left, right = self.operations[v - self.inputs]
            dead = (arg for arg in (left, right) if last_use[arg] == v and arg >= self.inputs and arg not in outputs)
            steps.append(Step(v, is_max, left, right, tuple(dead)))
        return Program(self.inputs, tuple(steps), tuple(outputs))


def _lists(count: int, length: int, first: int = 0) -> list[list[int]]:
    return [list(range(first + n * length, first + (n + 1) * length)) for n in range(count)]


@lru_cache
def sort_program(size: int, middle_only: bool = False) -> Program:
    """`size` values to ascending order, or to their median."""
    network = Network(size)
    ordered = network.merge_all(_lists(size, 1))
    return network.program([ordered[size // 2]] if middle_only else ordered)


@lru_cache
def pair_program(length: int) -> Program:
    """Two ascending lists of `length` to one."""
    network = Network(2 * length)
    return network.program(network.merge(*_lists(2, length)))


@lru_cache
def tile_program(size: int, length: int, middle_only: bool = False) -> Program:
    """Two neighbouring windows of `size` lists: from merged pairs of the `size` - 1 lists both have, and one each.

    Inputs: (size - 1) / 2 ascending lists of 2 `length`, then the first window's own list of `length`, then the
    second's. Outputs: each window's values in ascending order, or each window's median.
    """
    pairs = size // 2
    shared_values = 2 * pairs * length
    network = Network(shared_values + 2 * length)
    shared = network.merge_all(_lists(pairs, 2 * length))
    own = _lists(2, length, shared_values)
    if middle_only:
        return network.program([network.kth(shared, single, size * length // 2) for single in own])
    return network.program([value for single in own for value in network.merge(shared, single)])


def run_program(program: Program, inputs: Sequence[Tensor], results: Sequence[Tensor]) -> None:
    """Apply a network to arrays of one shape, writing its outputs into `results`; memory of dead values is reused."""
    values: dict[int, Tensor] = dict(enumerate(inputs))
    target = dict(zip(program.outputs, results, strict=True))
    free: list[Tensor] = []
    for result, is_max, left, right, dead in program.steps:
        out = target.get(result)
        if out is None:
            out = free.pop() if free else torch.empty_like(inputs[0], memory_format=torch.contiguous_format)
        values[result] = (torch.maximum if is_max else torch.minimum)(values[left], values[right], out=out)
        free += [values.pop(value) for value in dead]


# ------------------------------------------------------------------------------------------------------ medians
def _mirror(length: int, before: int, after: int, device: torch.device) -> Int[Tensor, "n"]:
    """Indices of an axis with mirrored voxels before and after it, however short it is."""
    index = torch.arange(-before, length + after, device=device) % (2 * length)
    return torch.minimum(index, 2 * length - 1 - index)


def median_exact(volume: Float[Tensor, "i j k"], size: int = 5) -> Float[Tensor, "i j k"]:
    """Median over a window of `size`^3 voxels, equal to `scipy.ndimage.median_filter(volume, size)`.

    Sorts the values of a window along k, merges neighbouring columns along j, and selects from neighbouring planes
    along i; two windows at a time along j and i share what they have in common. Axes i and j are kept as (tile,
    half), so that every operation works on contiguous memory, in slabs along i that fit the cache.
    """
    half, (ni, nj, nk) = size // 2, volume.shape
    ti, tj = (ni + 1) // 2, (nj + 1) // 2
    index_i = _mirror(ni, half, 2 * ti - ni + half, volume.device)
    padded = volume.index_select(1, _mirror(nj, half, 2 * tj - nj + half, volume.device))
    padded = padded.index_select(2, _mirror(nk, half, half, volume.device))
    result = volume.new_empty(ti, 2, tj, 2, nk)
    elements = ELEMENTS.get(volume.device.type, ELEMENTS["other"])
    slab = max(1, elements // (2 * tj * nk))
    for low in range(0, ti, slab):
        tiles = min(slab, ti - low)
        rows = 2 * (tiles + half)
        part = padded.index_select(0, index_i[2 * low : 2 * low + rows]).view(rows, tj + half, 2, -1).transpose(1, 2)
        columns = volume.new_empty(size, rows, 2, tj + half, nk)
        run_program(sort_program(size), [part[..., d : d + nk].contiguous() for d in range(size)], list(columns))
        planes = volume.new_empty(size * size, rows, 2, tj, nk)
        windows = [plane[:, h] for h in (0, 1) for plane in planes]
        _merge_neighbours(columns[:, :, 0], columns[:, :, 1], 2, tj, size, windows, middle_only=False)
        halves = planes.view(size * size, tiles + half, 2, 2, tj, nk)
        medians = volume.new_empty(2, tiles, 2, tj, nk)
        _merge_neighbours(halves[:, :, 0], halves[:, :, 1], 1, tiles, size, list(medians), middle_only=True)
        result[low : low + tiles] = medians.permute(1, 0, 3, 2, 4)
    return result.view(2 * ti, 2 * tj, nk)[:ni, :nj].contiguous()


def _merge_neighbours(
    even: Tensor, odd: Tensor, axis: int, tiles: int, size: int, results: list[Tensor], *, middle_only: bool
) -> None:
    """Merge the sorted lists (axis 0) of `size` neighbours along `axis`, given as its even and odd places.

    Window 2t has the places 2t .. 2t + size - 1: the pairs (2t + 1, 2t + 2), ... belong to window 2t + 1 too.
    """
    half, length = size // 2, len(even)
    left, right = odd.narrow(axis, 0, tiles + half - 1), even.narrow(axis, 1, tiles + half - 1)
    pairs = even.new_empty(2 * length, *left.shape[1:])
    run_program(pair_program(length), [v.contiguous() for v in (*left, *right)], list(pairs))
    parts = [pairs.narrow(axis, p, tiles) for p in range(half)]
    parts += [even.narrow(axis, 0, tiles), odd.narrow(axis, half, tiles)]
    inputs = [value.contiguous() for part in parts for value in part]
    run_program(tile_program(size, length, middle_only), inputs, results)


def median_separable(volume: Float[Tensor, "i j k"], size: int = 5) -> Float[Tensor, "i j k"]:
    """Median of `size` along k, then along j, then along i: not the exact median, but removes noise as well."""
    program = sort_program(size, middle_only=True)
    for axis in (2, 1, 0):
        n = volume.shape[axis]
        padded = volume.index_select(axis, _mirror(n, size // 2, size // 2, volume.device))
        volume = torch.empty_like(volume, memory_format=torch.contiguous_format)
        run_program(program, [padded.narrow(axis, d, n).contiguous() for d in range(size)], [volume])
    return volume


# ---------------------------------------------------------------------------------------------- boundary target
def boundary_target(
    volume: Float[Tensor, "*b i j k"],
    median_size: int = 5,
    offset: float = 0.01,
    gain: float = 30.0,
    median: str = "exact",
) -> Float[Tensor, "*b i j k"]:
    """clip((scharr(median(volume)) - offset) * gain, 0, 1).

    Args:
        volume: any number of leading dimensions, intensities [0, 1].
        median_size: voxels of the median's window along each axis, odd; 1 = no median.
        offset: gradient, in intensity per voxel, up to which there is no boundary.
        gain: 1 / (gradient from `offset` to a full boundary).
        median: "exact" (of the cubic window) or "separable" (three 1D medians, about a tenth of the time).

    Source: the paper gives no scaling; these three numbers are those of its author's code.
    """
    smooth = volume
    if median_size > 1:
        function: Callable[[Tensor, int], Tensor] = median_exact if median == "exact" else median_separable
        volumes = volume.reshape(-1, *volume.shape[-3:])
        smooth = torch.stack([function(v, median_size) for v in volumes]).view(volume.shape)
    return scharr(smooth).sub_(offset).mul_(gain).clamp_(0, 1)


class BoundaryTargetsd(MapTransform):
    """Deterministic: adds the boundary target of a volume (c, i, j, k) with intensities [0, 1].

    boundary = clip((scharr(median(volume)) - `offset`) * `gain`, 0, 1), same shape as the volume. With a MetaTensor
    the target keeps its affine. The volume itself is left as it is.

    Args:
        keys: the clean volumes.
        output_key: where the target goes: one name per key.
        median_size: voxels of the median's window along each axis, odd, 1 to 7; 1 = no median.
        offset: gradient, in intensity per voxel, up to which there is no boundary.
        gain: 1 / (gradient from `offset` to a full boundary), above 0.
        median: `exact` (the definition) or `separable` (three 1D medians, about a tenth of the time).
        allow_missing_keys: pass over keys that a sample lacks.

    Raises:
        UserError: for an argument outside its range and, when called, for a volume that is not (c, i, j, k).
    """

    def __init__(
        self,
        keys: KeysCollection = "image",
        output_key: str | Sequence[str] = "boundary",
        median_size: int = 5,
        offset: float = 0.01,
        gain: float = 30.0,
        median: str = "exact",
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.output_keys = (output_key,) if isinstance(output_key, str) else tuple(output_key)
        if len(self.output_keys) != len(self.keys):
            raise UserError(f"output_key: found {list(self.output_keys)}, expected one name for each of {list(self.keys)}")
        if median_size not in (1, 3, 5, 7):
            raise UserError(f"median_size: found {median_size}, expected 1 (no median), 3, 5 or 7 voxels")
        if not gain > 0:
            raise UserError(f"gain: found {gain}, expected a number above 0")
        if not offset >= 0:
            raise UserError(f"offset: found {offset}, expected 0 or more")
        if median not in MEDIANS:
            raise UserError(f"median: found {median!r}, expected one of {', '.join(MEDIANS)}")
        self.median_size, self.median = int(median_size), median
        self.offset, self.gain = float(offset), float(gain)

    def __call__(self, data: dict[str, Any]) -> dict[str, Any]:
        d = dict(data)
        for key, output_key in self.key_iterator(d, self.output_keys):
            volume = convert_to_tensor(d[key], track_meta=False)
            if volume.ndim != 4 or not volume.is_floating_point() or 0 in volume.shape:
                raise UserError(
                    f"{key}: found shape {list(volume.shape)} of {volume.dtype}, expected floating-point (c, i, j, k)"
                )
            target = boundary_target(volume, self.median_size, self.offset, self.gain, self.median)
            d[output_key] = MetaTensor(target, meta=d[key].meta) if isinstance(d[key], MetaTensor) else target
        return d

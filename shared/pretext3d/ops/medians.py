"""Median filters of volumes and images on any device.

Borders are mirrored including the border voxel (c b a | a b c d | d c b), SciPy's `reflect`.

The exact median needs no sort: a window's voxels go through a network of pairwise minima and maxima, each an
operation on complete arrays. Neighbouring windows share their common part (Adams A. Fast median filters using
separable sorting networks. ACM Trans. Graph. 2021; here also in 3D): 449 operations per voxel for 5^3 = 125
values.
"""

import math
from collections.abc import Hashable, Sequence
from functools import lru_cache
from typing import NamedTuple

import torch

from pretext3d.annotations import Float, Int, Tensor

# Voxels of one array operation on a CPU, so that the arrays of one slab stay in its cache; measured.
CPU_ELEMENTS = 2**15


# ------------------------------------------------------------------------------- sorting network
class Step(NamedTuple):
    """One operation on complete arrays: `result` = min or max of two values; `dead` are not used again."""

    result: int
    is_max: bool
    left: int
    right: int
    dead: tuple[int, ...]


class Program(NamedTuple):
    """A network's operations in order; values 0..inputs - 1 are given, `outputs` are requested."""

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
        """Merge two ascending lists into one: Batcher's odd-even merge for any lengths."""
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
        """Merge any number of ascending lists into one."""
        if len(lists) == 1:
            return lists[0]
        half = len(lists) // 2
        return self.merge(self.merge_all(lists[:half]), self.merge_all(lists[half:]))

    def kth(self, a: list[int], b: list[int], k: int) -> int:
        """The k-th smallest of two ascending lists: min over i of max(i-th of a, (k + 1 - i)-th of b).

        k counts from 0, the i-th element from 1.
        """
        result: int | None = None
        for i in range(max(0, k + 1 - len(b)), min(len(a), k + 1) + 1):
            ends = ([a[i - 1]] if i else []) + ([b[k - i]] if i <= k else [])
            largest = ends[0] if len(ends) == 1 else self.value(True, ends[0], ends[1])
            result = largest if result is None else self.value(False, result, largest)
        assert result is not None
        return result

    def program(self, outputs: Sequence[int]) -> Program:
        """The program of the operations that the outputs need."""
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
            temporary = [arg for arg in (left, right) if arg >= self.inputs and arg not in outputs]
            dead = tuple(arg for arg in temporary if last_use[arg] == v)
            steps.append(Step(v, is_max, left, right, dead))
        return Program(self.inputs, tuple(steps), tuple(outputs))


def _lists(count: int, length: int, first: int = 0) -> list[list[int]]:
    return [list(range(first + n * length, first + (n + 1) * length)) for n in range(count)]


@lru_cache
def sort_program(size: int, middle_only: bool = False) -> Program:
    """Sorts `size` values, or finds their median."""
    network = Network(size)
    ordered = network.merge_all(_lists(size, 1))
    return network.program([ordered[size // 2]] if middle_only else ordered)


@lru_cache
def pair_program(length: int) -> Program:
    """Merges two ascending lists of `length` into one."""
    network = Network(2 * length)
    return network.program(network.merge(*_lists(2, length)))


@lru_cache
def tile_program(size: int, length: int, middle_only: bool = False) -> Program:
    """Sorts two neighbouring windows of `size` lists each, of which they share all but one.

    Inputs: the shared lists merged in pairs, (size - 1) / 2 ascending lists of 2 `length`; the list of
    `length` that only the first window has; that of the second. Outputs: each window's values in ascending
    order, or each window's median.
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
    """Apply a network to arrays of one shape and write to `results`; memory of dead values is reused."""
    values: dict[int, Tensor] = dict(enumerate(inputs))
    target = dict(zip(program.outputs, results, strict=True))
    free: list[Tensor] = []
    for result, is_max, left, right, dead in program.steps:
        out = target.get(result)
        if out is None:
            out = free.pop() if free else torch.empty_like(inputs[0], memory_format=torch.contiguous_format)
        values[result] = (torch.maximum if is_max else torch.minimum)(values[left], values[right], out=out)
        free += [values.pop(value) for value in dead]


# --------------------------------------------------------------------------------------- medians
def _mirror(length: int, before: int, after: int, device: torch.device) -> Int[Tensor, "n"]:
    """Indices of an axis with mirrored voxels before and after it, however short it is."""
    index = torch.arange(-before, length + after, device=device) % (2 * length)
    return torch.minimum(index, 2 * length - 1 - index)


def median_exact(volume: Float[Tensor, "*space"], size: int = 5) -> Float[Tensor, "*space"]:
    """Median over a window of `size`^d voxels, equal to `scipy.ndimage.median_filter(volume, size)`.

    Sorts a window's values along the last axis, merges neighbouring columns along the middle axis where there
    is one, and selects from neighbouring planes along the first; two windows at a time, along the middle and
    along the first axis, share their common part. These two axes are kept as (tile, half), so that every
    operation works on contiguous memory, in slabs along the first axis that fit the cache.

    Args:
        volume: Volume (i, j, k) or image (i, j).
        size: Voxels of the window along each axis, odd.

    Examples:
        >>> median_exact(torch.tensor([[0.0, 9.0, 1.0, 2.0]] * 3), size=3)[1].tolist()
        [0.0, 1.0, 2.0, 2.0]
    """
    half, ni, nk = size // 2, volume.shape[0], volume.shape[-1]
    middle = [(n + 1) // 2 for n in volume.shape[1:-1]]  # tiles of the middle axis; none in 2D
    ti = (ni + 1) // 2
    index_i = _mirror(ni, half, 2 * ti - ni + half, volume.device)
    padded = volume.index_select(-1, _mirror(nk, half, half, volume.device))
    for tj, nj in zip(middle, volume.shape[1:-1], strict=True):
        padded = padded.index_select(1, _mirror(nj, half, 2 * tj - nj + half, volume.device))
    halved = [n for tj in middle for n in (2, tj)]  # the middle axis as (half, tile)
    result = volume.new_empty(ti, 2, *[n for tj in middle for n in (tj, 2)], nk)
    elements = CPU_ELEMENTS if volume.device.type == "cpu" else 2**23
    slab = max(1, elements // (math.prod(halved) * nk))
    for low in range(0, ti, slab):
        tiles = min(slab, ti - low)
        rows = 2 * (tiles + half)
        part = padded.index_select(0, index_i[2 * low : 2 * low + rows])
        for tj in middle:
            part = part.view(rows, tj + half, 2, -1).transpose(1, 2)
        shifted = [part[..., d : d + nk].contiguous() for d in range(size)]
        lists = volume.new_empty(size, *shifted[0].shape)
        run_program(sort_program(size), shifted, list(lists))
        for tj in middle:
            columns, lists = lists, volume.new_empty(size * size, rows, 2, tj, nk)
            windows = [plane[:, h] for h in (0, 1) for plane in lists]
            _merge_neighbours(columns[:, :, 0], columns[:, :, 1], 2, tj, size, windows, middle_only=False)
        halves = lists.view(len(lists), tiles + half, 2, *halved, nk)
        medians = volume.new_empty(2, tiles, *halved, nk)
        _merge_neighbours(halves[:, :, 0], halves[:, :, 1], 1, tiles, size, list(medians), middle_only=True)
        medians = medians.transpose(0, 1)
        result[low : low + tiles] = medians.transpose(2, 3) if middle else medians
    result = result.view(2 * ti, *[2 * tj for tj in middle], nk)
    return result[tuple(slice(n) for n in volume.shape)].contiguous()


def _merge_neighbours(
    even: Tensor, odd: Tensor, axis: int, tiles: int, size: int, results: list[Tensor], *, middle_only: bool
) -> None:
    """Merge the sorted lists (axis 0) of `size` neighbours along `axis`, given as even and odd positions.

    Window 2t has positions 2t .. 2t + size - 1: the pairs (2t + 1, 2t + 2), ... also belong to window 2t + 1.
    """
    half, length = size // 2, len(even)
    left, right = odd.narrow(axis, 0, tiles + half - 1), even.narrow(axis, 1, tiles + half - 1)
    pairs = even.new_empty(2 * length, *left.shape[1:])
    run_program(pair_program(length), [v.contiguous() for v in (*left, *right)], list(pairs))
    parts = [pairs.narrow(axis, p, tiles) for p in range(half)]
    parts += [even.narrow(axis, 0, tiles), odd.narrow(axis, half, tiles)]
    inputs = [value.contiguous() for part in parts for value in part]
    run_program(tile_program(size, length, middle_only), inputs, results)


def median_separable(volume: Float[Tensor, "*space"], size: int = 5) -> Float[Tensor, "*space"]:
    """Median of `size` along each axis, the last one first: not the exact median, but similar in effect."""
    program = sort_program(size, middle_only=True)
    for axis in reversed(range(volume.ndim)):
        n = volume.shape[axis]
        padded = volume.index_select(axis, _mirror(n, size // 2, size // 2, volume.device))
        volume = torch.empty_like(volume, memory_format=torch.contiguous_format)
        run_program(program, [padded.narrow(axis, d, n).contiguous() for d in range(size)], [volume])
    return volume

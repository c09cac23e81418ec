"""Models Genesis's corruption written plainly, window by window: oracle of tests, baseline of benchmarks.

Volumes are NumPy arrays (c, i, j, k) in [0, 1]; every function returns a new one. Single numbers come from
Python's `Random`, whole arrays from NumPy's RandomState, as in the original: for each that is the faster one.
"""

from collections.abc import Sequence
from random import Random
from typing import Any

import numpy as np
from pretext3d.ops.shuffling import Windows, window_bank


def plain_genesis(
    volume: np.ndarray, shuffled: bool, curved: bool, painted: bool, inpainted: bool, *draws: Any
) -> np.ndarray:
    """The operations asked for, in the original's order, with its numbers; `draws` = Random, RandomState."""
    if shuffled:
        volume = plain_shuffle(volume, *draws)
    if curved:
        points = draws[1].rand(2, 2)
        volume = plain_bezier(volume, points, draws[0].random() < 0.5)
    if painted:
        volume = plain_inpaint(volume, *draws) if inpainted else plain_outpaint(volume, *draws)
    return volume


def plain_shuffle(
    volume: np.ndarray, random: Random, arrays: np.random.RandomState, num_windows: int = 10_000
) -> np.ndarray:
    """One window after the other: a fresh permutation of its voxels of the original."""
    shape, result = volume.shape[1:], volume.copy()
    for _ in range(num_windows):
        size = [random.randint(1, n // 10) for n in shape]
        start = [random.randint(0, n - s) for n, s in zip(shape, size, strict=True)]
        box = _box(start, size)
        window = volume[box].reshape(len(volume), -1).T  # voxels first: shuffled with all their channels
        if len(volume) == 1:
            window = window.flatten()  # the faster case of NumPy's shuffle
        arrays.shuffle(window)
        result[box] = window.T.reshape(len(volume), *size)
    return result


def plain_shuffle_drawn(volume: np.ndarray, windows: Windows) -> np.ndarray:
    """The same, with the windows and the stored permutations of a draw."""
    pairs, first, count, number = window_bank(volume.shape[1:], windows.max_size)
    result = volume.copy()
    for size, start, permutation in zip(windows.size, windows.start, windows.permutation, strict=True):
        kind = np.ravel_multi_index(tuple(size - 1), windows.max_size)
        begin = first[kind] + permutation % number * count[kind]
        entries = pairs[begin : begin + count[kind]]
        targets, sources = entries & 0xFFFFFFFF, entries >> 32
        box = _box(start, size)
        window = volume[box].reshape(len(volume), -1)
        result[box] = window[:, np.searchsorted(targets, sources)].reshape(volume[box].shape)
    return result


def plain_bezier(
    volume: np.ndarray, points: np.ndarray, decreasing: bool, steps: int = 100_000
) -> np.ndarray:
    """Interpolation between the curve's points at 100,000 values of its parameter.

    The original's parameter runs from (1, 1) to (0, 0): with x alone sorted, the curve decreases.
    """
    t = np.linspace(1.0, 0.0, steps)
    basis = np.stack([(1 - t) ** 3, 3 * t * (1 - t) ** 2, 3 * t**2 * (1 - t), t**3])
    x, y = np.array([[0.0, 0.0], *points, [1.0, 1.0]]).T @ basis
    x, y = np.sort(x), y if decreasing else np.sort(y)
    return np.interp(volume, x, y)


def plain_inpaint(volume: np.ndarray, random: Random, arrays: np.random.RandomState) -> np.ndarray:
    """Up to five blocks of noise."""
    result, shape, left = volume.copy(), volume.shape[1:], 5
    while left > 0 and random.random() < 0.95:
        size = [random.randint(n // 6, n // 3) for n in shape]
        start = [random.randint(3, n - s - 3) for n, s in zip(shape, size, strict=True)]
        result[_box(start, size)] = arrays.rand(*size)
        left -= 1
    return result


def plain_outpaint(volume: np.ndarray, random: Random, arrays: np.random.RandomState) -> np.ndarray:
    """Noise all over, but for one window and up to four more."""
    result, shape, left = arrays.rand(*volume.shape), volume.shape[1:], 5
    while left == 5 or (left > 0 and random.random() < 0.95):
        size = [n - random.randint(3 * n // 7, 4 * n // 7) for n in shape]
        start = [random.randint(3, n - s - 3) for n, s in zip(shape, size, strict=True)]
        result[_box(start, size)] = volume[_box(start, size)]
        left -= 1
    return result


def _box(start: Sequence[int], size: Sequence[int]) -> tuple[slice, ...]:
    return (slice(None), *(slice(s, s + n) for s, n in zip(start, size, strict=True)))

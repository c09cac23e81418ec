"""Permuting the voxels inside thousands of overlapping windows, without a loop over them.

A voxel's value depends only on the last window over it, and on the source of that value in the window's
permutation. So a draw of windows becomes one map, voxel to source voxel, which any number of channels follow.
Windows pick one of a few stored permutations of their shape: the map is then a gather from that bank.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch

from pretext3d.annotations import Int, Shaped, Tensor

BANK_ENTRIES = 2**21  # voxels of all stored permutations for one volume shape, 8 bytes each
CHUNK_ENTRIES = 2**16  # voxels of windows worked on at a time on a CPU, so that the arrays stay in its cache


@dataclass(frozen=True)
class Windows:
    """Windows to shuffle, later over earlier ones: in voxels, and a number that picks a permutation."""

    size: Int[np.ndarray, "n d"]
    start: Int[np.ndarray, "n d"]
    permutation: Int[np.ndarray, "n"]
    max_size: tuple[int, ...]


@lru_cache(maxsize=4)
def window_bank(shape: tuple[int, ...], max_size: tuple[int, ...]) -> tuple[np.ndarray, ...]:
    """The stored permutations of every window shape up to `max_size`, as pairs of voxel offsets in a volume.

    The number of permutations per shape is a power of two from 2 to 32, fewer where the windows are larger.

    Returns:
        pairs: int64, target offset + 2^32 * source offset for each voxel of each permutation of each shape,
            the shapes in C order of (a - 1, b - 1, ...), offsets relative to the window's first voxel.
        first, count: (shapes,), where a shape's permutations begin in `pairs`, and the voxels of one.
        number: (), permutations per shape.
    """
    dims = len(shape)
    sizes = np.indices(max_size).reshape(dims, -1).T + 1
    count = sizes.prod(axis=1)
    number = 2 ** int(np.clip(np.log2(BANK_ENTRIES / count.sum()), 1, 5))
    strides = np.cumprod([1, *shape[:0:-1]])[::-1, None]  # of a volume's voxels in C order
    random = np.random.RandomState(0)
    pairs = []
    for size, voxels in zip(sizes.tolist(), count.tolist(), strict=True):
        offsets = (strides * np.indices(size).reshape(dims, -1)).sum(axis=0, dtype=np.int64)
        sources = offsets[np.argsort(random.rand(number, voxels), axis=1)]
        pairs.append((offsets + (sources << 32)).ravel())
    return np.concatenate(pairs), (np.cumsum(count) - count) * number, count, np.array(number)


@lru_cache(maxsize=4)
def _device_pairs(shape: tuple[int, ...], max_size: tuple[int, ...], device: str) -> Tensor:
    return torch.from_numpy(window_bank(shape, max_size)[0]).to(device)


def _window_entries(windows: Windows, shape: tuple[int, ...]) -> tuple[np.ndarray, ...]:
    """For each window: its first entry in the bank, its number of voxels, and its place as such a pair."""
    _, first, count, number = window_bank(shape, windows.max_size)
    kind = np.ravel_multi_index((windows.size - 1).T, windows.max_size)
    voxels = count[kind]
    place = np.ravel_multi_index(windows.start.T, shape).astype(np.int64)
    return first[kind] + (windows.permutation % number) * voxels, voxels, place + (place << 32)


def source_voxels(windows: Windows, shape: Sequence[int], device: torch.device) -> Int[Tensor, "v"]:
    """For each voxel, in C order, the voxel whose value the last window over it puts there (int32).

    On a CPU the windows are written in order, in chunks (NumPy's assignment keeps the last of several
    values); on other devices they are written all at once, and each voxel takes the highest entry that
    targets it, with the same result.
    """
    spatial = tuple(map(int, shape))
    first, voxels, place = _window_entries(windows, spatial)
    if device.type != "cpu":
        return _source_voxels_batched(windows, spatial, device, first, voxels, place)
    pairs = window_bank(spatial, windows.max_size)[0]
    sources = np.arange(int(np.prod(spatial)), dtype=np.int32)
    ends = np.cumsum(voxels)
    cuts = np.searchsorted(ends, np.arange(CHUNK_ENTRIES, ends[-1], CHUNK_ENTRIES)).tolist()
    for low, high in zip([0, *cuts], [*cuts, len(voxels)], strict=True):
        repeats = voxels[low:high]
        before = ends[low] - voxels[low]
        entries = np.repeat(first[low:high] - (ends[low:high] - repeats - before), repeats)
        entries += np.arange(len(entries))
        both = pairs.take(entries)
        both += np.repeat(place[low:high], repeats)
        halves = both.astype("<i8", copy=False).view("<i4")  # little end first: targets, then sources
        sources[halves[::2]] = halves[1::2]
    return torch.from_numpy(sources)


def _source_voxels_batched(
    windows: Windows,
    shape: tuple[int, ...],
    device: torch.device,
    first: np.ndarray,
    voxels: np.ndarray,
    place: np.ndarray,
) -> Int[Tensor, "v"]:
    total = int(voxels.sum())
    shift = torch.from_numpy(first - (np.cumsum(voxels) - voxels)).to(device)
    counts, offset = torch.from_numpy(voxels).to(device), torch.from_numpy(place).to(device)
    entry = torch.arange(total, device=device)
    window = torch.repeat_interleave(counts, output_size=total)
    both = _device_pairs(shape, windows.max_size, str(device))[entry + shift[window]] + offset[window]
    last = torch.full((int(np.prod(shape)),), -1, device=device)
    last.scatter_reduce_(0, both & 0xFFFFFFFF, entry, "amax")
    itself = torch.arange(len(last), device=device)
    return torch.where(last >= 0, (both >> 32)[last.clamp(min=0)], itself).to(torch.int32)


def shuffle_windows(volume: Shaped[Tensor, "c *space"], windows: Windows) -> Shaped[Tensor, "c *space"]:
    """Permute the voxels in each window of the ORIGINAL volume; later windows overwrite earlier ones."""
    sources = source_voxels(windows, volume.shape[1:], volume.device)
    return torch.stack([c.reshape(-1).index_select(0, sources) for c in volume]).view(volume.shape)

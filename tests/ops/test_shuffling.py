"""Tests of the shuffled windows: by hand, and against the plain loop, exactly and in distribution."""

from random import Random

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st
from pretext3d.ops.shuffling import (
    Windows,
    _source_voxels_batched,
    _window_entries,
    shuffle_windows,
    source_voxels,
    window_bank,
)
from pretext3d.transforms.noising import draw_noising, noising_settings

from tests.reference.plain_noising import plain_shuffle, plain_shuffle_drawn

CPU = torch.device("cpu")
SHAPE = (5, 6, 7)
shapes = st.tuples(*[st.integers(1, 9)] * 3)


def numbered(*shape: int, channels: int = 1) -> torch.Tensor:
    """Every voxel another value in [0, 1)."""
    count = channels * int(np.prod(shape))
    return (torch.arange(count, dtype=torch.float32) / count).view(channels, *shape)


def windows(*boxes: tuple[tuple[int, ...], tuple[int, ...], int], max_size: tuple[int, int, int]) -> Windows:
    """Windows from (start, size, permutation)."""
    start, size, permutation = (np.array(part) for part in zip(*boxes, strict=True))
    return Windows(size, start, permutation, max_size)


def drawn_windows(shape: tuple[int, ...], seed: int, count: int = 200, fraction: float = 0.5) -> Windows:
    settings = noising_settings("genesis", shuffle_prob=1, num_windows=count, window_size=fraction)
    drawn = draw_noising(settings, shape, np.random.RandomState(seed)).windows
    assert drawn is not None
    return drawn


def test_window_of_two_voxels_swaps_or_keeps_them():
    # the only permutations of 2 voxels: both occur among the stored ones
    volume = numbered(*SHAPE)
    seen = set()
    for n in range(32):
        result = shuffle_windows(volume, windows(((1, 2, 3), (1, 1, 2), n), max_size=(1, 1, 2)))
        # voxel (1, 2, 3) is number 1*42 + 2*7 + 3 = 59 of 210, (1, 2, 4) number 60
        pair = tuple((result[0, 1, 2, 3:5] * 210).round().int().tolist())
        assert pair in {(59, 60), (60, 59)}
        seen.add(pair)
        result[0, 1, 2, 3:5] = volume[0, 1, 2, 3:5]
        assert torch.equal(result, volume)  # nothing else changed
    assert len(seen) == 2


def test_later_window_reads_the_original_and_overwrites():
    # the second window is one voxel of the first: it puts the ORIGINAL value back
    volume = numbered(*SHAPE)
    first = ((0, 0, 0), (5, 6, 7), 0)
    alone = shuffle_windows(volume, windows(first, max_size=SHAPE))
    both = shuffle_windows(volume, windows(first, ((4, 5, 6), (1, 1, 1), 0), max_size=SHAPE))
    assert (alone != volume).float().mean() > 0.9
    assert both[0, 4, 5, 6] == volume[0, 4, 5, 6]
    assert torch.equal(both.flatten()[:-1], alone.flatten()[:-1])


def test_stored_permutations_are_permutations_and_differ():
    shape, limits = (20, 21, 22), (2, 3, 4)
    pairs, first, count, number = window_bank(shape, limits)
    assert len(pairs) == count.sum() * number
    for kind in range(24):
        a, b, c = np.unravel_index(kind, limits)
        offsets = [i * 21 * 22 + j * 22 + k for i in range(a + 1) for j in range(b + 1) for k in range(c + 1)]
        stored = pairs[first[kind] : first[kind] + count[kind] * number].reshape(number, -1)
        assert (stored & 0xFFFFFFFF == offsets).all()
        assert (np.sort(stored >> 32, axis=1) == offsets).all()
        if count[kind] > 4:
            assert len(np.unique(stored, axis=0)) > number / 2
    # uniform: the first voxel's source lies in the middle of the window on average
    ranks = [(pairs[f : f + n * number : n] >> 32) for f, n in zip(first, count, strict=True) if n == 24]
    rank = np.searchsorted(np.sort(pairs[first[-1] : first[-1] + 24] >> 32), np.concatenate(ranks))
    assert abs(rank.mean() - 11.5) < 4 * np.sqrt(24**2 / 12 / number)  # within 4 standard errors


def test_fewer_permutations_are_stored_where_windows_are_larger():
    assert window_bank((32, 32, 32), (3, 3, 3))[3] == 32
    # sides up to 12: (1 + ... + 12)^3 = 78^3 = 474,552 voxels of all shapes; 2^21 / 474,552 = 4.4
    assert window_bank((128, 128, 128), (12, 12, 12))[3] == 4


@given(shapes, st.integers(0, 1000))
def test_shuffling_equals_the_plain_loop(shape, seed):
    volume = numbered(*shape, channels=2)
    drawn = drawn_windows(shape, seed, fraction=1.0)
    expected = plain_shuffle_drawn(volume.numpy(), drawn)
    assert torch.equal(shuffle_windows(volume, drawn), torch.from_numpy(expected))


@given(shapes, st.integers(0, 1000))
def test_batched_form_for_other_devices_equals_the_ordered_one(shape, seed):
    drawn = drawn_windows(shape, seed)
    batched = _source_voxels_batched(drawn, shape, CPU, *_window_entries(drawn, shape))
    assert torch.equal(batched, source_voxels(drawn, shape, CPU))


def test_many_windows_in_several_chunks_equal_the_plain_loop():
    volume = numbered(40, 30, 50)
    drawn = drawn_windows((40, 30, 50), 3, count=3000, fraction=0.1)
    assert drawn.size.prod(axis=1).sum() > 2**15
    assert torch.equal(
        shuffle_windows(volume, drawn), torch.from_numpy(plain_shuffle_drawn(volume.numpy(), drawn))
    )


@given(st.integers(0, 1000))
def test_a_single_window_keeps_its_values(seed):
    volume = numbered(*SHAPE)
    drawn = drawn_windows(SHAPE, seed, count=1, fraction=1.0)
    (i, j, k), (a, b, c) = drawn.start[0], drawn.size[0]
    result = shuffle_windows(volume, drawn)
    inside = result[:, i : i + a, j : j + b, k : k + c].clone()
    assert torch.equal(
        inside.flatten().sort()[0], volume[:, i : i + a, j : j + b, k : k + c].flatten().sort()[0]
    )
    result[:, i : i + a, j : j + b, k : k + c] = volume[:, i : i + a, j : j + b, k : k + c]
    assert torch.equal(result, volume)


def test_same_distribution_as_the_plain_shuffling():
    """Share of moved voxels, and how far and where they move, against fresh permutations in a loop.

    40^3, sides 1 to 4, five samples of 64,000 voxels each way. A share near 0.85 has a standard error of
    about sqrt(0.85 * 0.15 / 64,000 * 16 / 5) = 0.0025 (the 16 or so voxels of a window are not independent).
    """
    edge = 40
    shape, count = (edge, edge, edge), edge**3
    image = np.arange(count, dtype=np.float64).reshape(1, *shape)
    places = np.indices(shape).reshape(3, -1)
    random, arrays = Random(0), np.random.RandomState(0)

    def statistics(sources: np.ndarray) -> tuple[float, np.ndarray, float]:
        moved = np.stack(np.unravel_index(sources, shape)) - places
        histogram = np.stack([np.bincount(axis + 3, minlength=7) for axis in moved]) / count
        return float((sources != np.arange(count)).mean()), histogram, float(moved.prod(axis=0).mean())

    plain = [statistics(plain_shuffle(image, random, arrays).ravel().astype(int)) for _ in range(5)]
    settings = noising_settings("genesis", shuffle_prob=1)
    ours = []
    for seed in range(5):
        drawn = draw_noising(settings, shape, np.random.RandomState(seed)).windows
        assert drawn is not None
        ours.append(statistics(source_voxels(drawn, shape, CPU).numpy()))
    shares = [np.mean([s[0] for s in group]) for group in (plain, ours)]
    assert 0.7 < shares[0] < 0.95
    assert abs(shares[0] - shares[1]) < 0.01
    histograms = [np.mean([s[1] for s in group], axis=0) for group in (plain, ours)]
    assert (histograms[0] > 0.001).all()  # all displacements from -3 to 3 occur along each axis
    np.testing.assert_allclose(histograms[0], histograms[1], atol=0.005)
    # displacements along different axes are independent in direction: the mean product is 0 for both
    assert all(abs(np.mean([s[2] for s in group])) < 0.02 for group in (plain, ours))


# -------------------------------------------------------------------------------------------------------- 2D
@given(st.tuples(*[st.integers(1, 12)] * 2), st.integers(0, 1000))
def test_shuffling_of_an_image_equals_the_plain_loop(shape, seed):
    image = numbered(*shape, channels=3)
    drawn = drawn_windows(shape, seed, fraction=0.7)
    expected = plain_shuffle_drawn(image.numpy(), drawn)
    assert torch.equal(shuffle_windows(image, drawn), torch.from_numpy(expected))
    batched = _source_voxels_batched(drawn, shape, CPU, *_window_entries(drawn, shape))
    assert torch.equal(batched, source_voxels(drawn, shape, CPU))


def test_share_of_moved_pixels_is_that_of_the_plain_shuffling():
    """As in 3D: five samples of 60 x 60 pixels, 300 windows of sides 1 to 6; standard error about 0.015."""
    image = np.arange(3600, dtype=np.float64).reshape(1, 60, 60)
    random, arrays = Random(0), np.random.RandomState(0)
    plain = [(plain_shuffle(image, random, arrays, 300) != image).mean() for _ in range(5)]
    drawn = [drawn_windows((60, 60), seed, 300, 0.1) for seed in range(5)]
    sources = np.stack([source_voxels(windows, (60, 60), CPU).numpy() for windows in drawn])
    ours = (sources != np.arange(3600)).mean(axis=1)
    assert 0.5 < np.mean(plain) < 0.8
    assert abs(np.mean(plain) - np.mean(ours)) < 0.04

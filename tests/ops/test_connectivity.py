"""Tests of connected regions of bounded size, by hand; laws are tested with `slic`."""

import numpy as np
import pytest
from pretext3d.ops.connectivity import connected_regions


def line(*labels: int) -> np.ndarray:
    return np.array(labels).reshape(-1, 1, 1)


def regions(labels: np.ndarray, values: np.ndarray | None = None, **limits: float) -> list[int]:
    values = np.zeros(labels.shape) if values is None else values
    return connected_regions(labels, values[None].astype(np.float32), **limits).ravel().tolist()


def test_parts_of_a_label_get_labels_of_their_own():
    assert regions(line(7, 7, 2, 2, 7, 0, 7)) == [1, 1, 2, 2, 3, 0, 4]
    corner = np.array([[[3, 4], [4, 3]]])  # across an edge is no neighbour
    assert regions(corner) == [1, 2, 3, 4]


def test_small_region_joins_the_neighbour_most_like_it():
    labels, values = line(1, 1, 1, 2, 3, 3, 3), line(0, 0, 0, 6, 10, 10, 10)
    assert regions(labels, values, min_size=2) == [1, 1, 1, 2, 2, 2, 2]  # 6 is nearer to 10 than to 0
    assert regions(labels, 10 - values.clip(0, 4), min_size=2) == [1, 1, 1, 2, 2, 2, 2]
    values[3] = 4
    assert regions(labels, values, min_size=2) == [1, 1, 1, 1, 2, 2, 2]
    assert regions(labels, values, min_size=1) == [1, 1, 1, 2, 3, 3, 3]


def test_of_equally_near_ones_the_longest_border_counts():
    labels = np.array([[1, 1, 1, 1], [1, 5, 2, 2], [2, 2, 2, 2], [2, 2, 2, 2]])[None]
    result = connected_regions(labels, np.zeros((1, 1, 4, 4), np.float32), min_size=2)
    assert result[0, 1, 1] == result[0, 0, 0]  # two faces each: the lower number
    labels[0, 1, 0] = 2
    result = connected_regions(labels, np.zeros((1, 1, 4, 4), np.float32), min_size=2)
    assert result[0, 1, 1] == result[0, 3, 3]  # three faces against one


def test_chains_of_small_regions_join_the_large_one():
    # 1 and 2 become a pair while 3 joins 4, and then none is small; below a limit of 3 the pair joins, too
    assert regions(line(1, 2, 3, 4, 4, 4), min_size=2) == [1, 1, 2, 2, 2, 2]
    assert regions(line(1, 2, 3, 4, 4, 4), min_size=3) == [1] * 6
    assert regions(line(1, 2, 0, 4, 4), min_size=3) == [1, 1, 0, 2, 2]  # small, but without neighbours
    assert regions(line(1, 0, 2, 0, 3), min_size=9) == [1, 0, 2, 0, 3]


def test_the_one_that_stays_within_the_limit_comes_first():
    labels, values = line(*[1] * 4, 2, *[3] * 2), line(*[0] * 4, 1, *[9] * 2)
    assert regions(labels, values, min_size=2, max_size=4) == [1, 1, 1, 1, 2, 2, 2]
    assert regions(labels, values, min_size=2, max_size=5) == [1, 1, 1, 1, 1, 2, 2]


def test_large_region_is_cut_into_equal_parts():
    # 10 voxels, at most 4: three parts, voxel r in part 3 r // 10
    assert regions(line(*[1] * 10), max_size=4) == [1] * 4 + [2] * 3 + [3] * 3
    # across the longest axis, whichever it is
    block = np.ones((2, 8, 3), int)
    result = connected_regions(block, np.zeros((1, 2, 8, 3), np.float32), max_size=24)
    assert (result[:, :4] == 1).all()
    assert (result[:, 4:] == 2).all()
    two = np.concatenate([block, 2 * block], axis=2)  # two such regions side by side
    result = connected_regions(two, np.zeros((1, 2, 8, 6), np.float32), max_size=24)
    assert np.bincount(result.ravel()).tolist() == [0, 24, 24, 24, 24]


@pytest.mark.parametrize("shape", [(1, 1, 1), (4, 1, 3)])
def test_one_region_and_none(shape):
    assert regions(np.full(shape, 9), min_size=99) == [1] * np.prod(shape)
    assert regions(np.zeros(shape, int), min_size=2, max_size=1) == [0] * np.prod(shape)


def test_pixels_are_neighbours_across_an_edge():
    labels = np.array([[3, 4, 4], [4, 3, 3]])
    zeros = np.zeros((1, 2, 3), np.float32)
    assert connected_regions(labels, zeros).tolist() == [[1, 2, 2], [3, 4, 4]]
    # 1 and 3 are small: 1 joins 2 or 3, and of equally near ones the lower number
    assert connected_regions(labels, zeros, min_size=2).max() == 2
    block = connected_regions(np.ones((2, 8), int), zeros[:, :, :1].repeat(8, 2), max_size=8)
    assert block.tolist() == [[1] * 4 + [2] * 4] * 2  # across the longer axis


@pytest.mark.parametrize("seed", range(5))
def test_an_image_is_cut_as_a_volume_of_one_slice(seed):
    random = np.random.default_rng(seed)
    labels, values = random.integers(0, 4, (9, 11)), random.random((2, 9, 11)).astype(np.float32)
    limits = {"min_size": 3, "max_size": 12}
    flat = connected_regions(labels, values, **limits)
    whole = connected_regions(labels[None], values[:, None], **limits)
    np.testing.assert_array_equal(whole[0], flat)

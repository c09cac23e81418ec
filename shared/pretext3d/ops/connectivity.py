"""Label maps whose labels are connected regions of bounded size: components, splits and merges.

Voxels are neighbours across a face, pixels across an edge (6- and 4-connectivity). NumPy on the CPU, without
loops over voxels: components by scikit-image, merges on the graph of neighbouring regions.
"""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import connected_components
from skimage.measure import label as components

from pretext3d.annotations import Float, Int

__all__: list[str] = []

Array = NDArray[Any]


def connected_regions(
    labels: Int[np.ndarray, "*space"],
    values: Float[np.ndarray, "c *space"],
    min_size: float = 0,
    max_size: float = np.inf,
) -> Int[np.ndarray, "*space"]:
    """Give every connected region of equal label a separate label, within limits of size.

    A region of more than `max_size` voxels is cut across its longest axis into parts of equal size; then each
    region of fewer than `min_size` voxels joins the neighbour with the most similar mean colours or, among
    equals, the one with which it shares the most faces. Neighbours of at least `min_size` voxels are
    preferred, and among these those that stay within `max_size`, which may be exceeded where there are none.
    A small region without neighbours stays.

    Args:
        labels: Label map; 0 = outside, stays 0.
        values: Colours, one map per channel.
        min_size: Smallest size in voxels.
        max_size: Largest size in voxels, at least 1.

    Returns:
        int32 labels 1..n in the order of their first voxels (C order), 0 outside; each one connected.

    Examples:
        >>> connected_regions(np.array([[5, 5, 0, 5]]), np.zeros((1, 1, 4))).tolist()
        [[1, 1, 0, 2]]
    """
    regions = components(labels, background=0, connectivity=1).astype(np.int32)
    if np.isfinite(max_size):
        regions = _split_large(regions, max(1.0, max_size))
    return _merge_small(regions, values, min_size, max_size)


def _split_large(regions: Array, max_size: float) -> Array:
    """Cut every region of more than `max_size` voxels into equal parts across its longest axis."""
    sizes = np.bincount(regions.ravel())
    large = sizes > max_size
    large[0] = False
    if not large.any():
        return regions
    voxels = np.flatnonzero(large[regions])
    numbers = (np.cumsum(large) - 1)[regions.ravel()[voxels]]
    counts = sizes[large]
    position = np.stack(np.unravel_index(voxels, regions.shape), axis=1).astype(np.float64)
    position -= _sums(numbers, position, len(counts))[numbers] / counts[numbers, None]
    products = (position[:, :, None] * position[:, None, :]).reshape(len(position), -1)
    covariance = _sums(numbers, products, len(counts)).reshape(-1, regions.ndim, regions.ndim)
    longest = np.linalg.eigh(covariance)[1][:, :, -1]
    longest *= np.sign(longest[np.arange(len(longest)), np.abs(longest).argmax(axis=1)])[:, None]
    order = np.lexsort(((position * longest[numbers]).sum(axis=1), numbers))
    first = np.cumsum(counts) - counts
    rank = np.arange(len(voxels)) - first[numbers[order]]  # along the axis, within the region
    parts = np.ceil(counts / max_size).astype(np.int64)
    part = rank * parts[numbers[order]] // counts[numbers[order]]
    result = regions.copy()
    result.ravel()[voxels[order]] = len(sizes) + (np.cumsum(parts) - parts)[numbers[order]] + part
    return components(result, background=0, connectivity=1).astype(np.int32)


def _sums(numbers: Array, values: Array, n: int) -> Array:
    """Sums of the rows of `values` (v, f) over equal numbers 0..n-1: (n, f)."""
    return np.stack([np.bincount(numbers, column, n) for column in values.T], axis=1)


def _merge_small(regions: Array, values: Array, min_size: float, max_size: float) -> Array:
    """Join regions of fewer than `min_size` voxels to neighbours, until none with a neighbour is left."""
    sizes = np.bincount(regions.ravel())
    sizes[0] = 0
    n = len(sizes)
    small = (sizes < min_size) & (sizes > 0)
    if not small.any():
        return regions
    colours = _sums(regions.ravel(), values.reshape(len(values), -1).T, n)
    group = np.arange(n)  # for each region: the lowest number among those it is joined with
    first, second, faces = _neighbours(regions, small)
    while True:
        source, target = np.concatenate([first, second]), np.concatenate([second, first])
        chosen = small[source]
        if not chosen.any():
            break
        source, target, shared = source[chosen], target[chosen], np.concatenate([faces, faces])[chosen]
        mean = colours / np.maximum(sizes, 1)[:, None]
        apart = np.square(mean[source] - mean[target]).sum(axis=1)
        fits = sizes[source] + sizes[target] <= max_size
        order = np.lexsort((-target, shared, -apart, fits, ~small[target], source))
        best = order[np.append(np.diff(source[order]) > 0, True)]  # the last of each source
        joined = connected_components(_graph(source[best], target[best], n), directed=False)[1]
        lowest = np.full(joined.max() + 1, n)
        np.minimum.at(lowest, joined, np.arange(n))
        step = lowest[joined]
        group, sizes = step[group], np.bincount(step, sizes, n).astype(np.int64)
        colours = _sums(step, colours, n)
        first, second, faces = _aggregate(step[first], step[second], faces, n)
        small = (sizes < min_size) & (sizes > 0)
    used = np.zeros(n, dtype=np.int32)
    used[group[1:]] = 1
    number = np.cumsum(used, dtype=np.int32)
    number[0] = 0
    return number[group][regions]


def _neighbours(regions: Array, small: Array) -> tuple[Array, Array, Array]:
    """Pairs of neighbouring regions, one of them small, the lower first, and the number of shared faces."""
    flat, fragments = regions.ravel(), small[regions]
    lower, upper = [], []
    for axis in range(regions.ndim):
        near, far = ((slice(None),) * axis + (slice(one, regions.shape[axis] - 1 + one),) for one in (0, 1))
        border = np.zeros(regions.shape, dtype=bool)
        border[near] = (fragments[near] | fragments[far]) & (regions[near] != regions[far])
        places = np.flatnonzero(border)
        lower.append(flat[places])
        upper.append(flat[places + math.prod(regions.shape[axis + 1 :])])
    a, b = np.concatenate(lower), np.concatenate(upper)
    inside = (a > 0) & (b > 0)
    a, b = a[inside], b[inside]
    return _aggregate(a, b, np.ones(len(a), np.int64), len(small))


def _aggregate(a: Array, b: Array, faces: Array, n: int) -> tuple[Array, Array, Array]:
    """Each pair of different numbers below n once, the lower first, with the sum of its faces."""
    apart = a != b
    graph = _graph(np.minimum(a, b)[apart], np.maximum(a, b)[apart], n, faces[apart])
    graph.sum_duplicates()
    pairs = graph.tocoo()
    return pairs.row.astype(np.int64), pairs.col.astype(np.int64), pairs.data


def _graph(a: Array, b: Array, n: int, weights: Array | None = None) -> csr_matrix:
    return csr_matrix((np.ones(len(a), np.int64) if weights is None else weights, (a, b)), shape=(n, n))

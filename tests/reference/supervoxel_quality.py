"""How well supervoxels keep to the borders of known regions: measures for tests and benchmarks.

Neubert P, Protzel P. Superpixel Benchmark and Comparison. Forum Bildverarbeitung 2012.
"""

import numpy as np
import scipy.ndimage


def under_segmentation_error(labels: np.ndarray, truth: np.ndarray) -> float:
    """1/N * sum over true regions S and supervoxels P that meet of min(|P in S|, |P outside S|); 0 is best.

    A supervoxel that leaks out of a region costs what leaks, or what is inside if that is less. Voxels with
    label 0 are left out.
    """
    inside = labels > 0
    regions, s = np.unique(truth[inside], return_inverse=True)
    supervoxels, p = np.unique(labels[inside], return_inverse=True)
    both = np.bincount(p * len(regions) + s, minlength=len(supervoxels) * len(regions))
    both = both.reshape(len(supervoxels), len(regions))
    return float(np.minimum(both, both.sum(axis=1, keepdims=True) - both).sum() / inside.sum())


def boundary_recall(labels: np.ndarray, truth: np.ndarray, tolerance: int = 1) -> float:
    """The share of true border voxels with a border voxel of the supervoxels at most `tolerance` away.

    A border voxel has a neighbour across a face with another label; distances are the largest of the three
    axes' (Chebyshev), in voxels. 1 where there is no true border.
    """
    true, found = borders(truth), borders(labels)
    near = scipy.ndimage.maximum_filter(found, size=2 * tolerance + 1, mode="constant")
    return float(near[true].mean()) if true.any() else 1.0


def borders(labels: np.ndarray) -> np.ndarray:
    """True where a voxel has a neighbour across a face with another label."""
    result = np.zeros(labels.shape, dtype=bool)
    for axis in range(labels.ndim):
        differs = np.diff(labels.astype(np.int64), axis=axis) != 0
        for one_after in (0, 1):
            result[(slice(None),) * axis + (slice(one_after, labels.shape[axis] - 1 + one_after),)] |= differs
    return result

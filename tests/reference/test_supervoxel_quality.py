"""Tests of the measures of supervoxels, by hand."""

import numpy as np
import pytest

from tests.reference.supervoxel_quality import borders, boundary_recall, under_segmentation_error

LABELS = np.array([1, 1, 1, 2, 2, 2]).reshape(6, 1, 1)
TRUTH = np.array([0, 0, 5, 5, 5, 5]).reshape(6, 1, 1)


def test_under_segmentation_error_by_hand():
    # supervoxel 1 has 2 voxels in region 0 and 1 in region 5: min(2, 1) + min(1, 2); supervoxel 2: 0
    assert under_segmentation_error(LABELS, TRUTH) == pytest.approx(2 / 6)
    assert under_segmentation_error(LABELS, LABELS) == 0
    # without the first voxel (label 0): 1 and 1 of 2 voxels: 2 of 5
    without = LABELS * (np.arange(6) > 0).reshape(6, 1, 1)
    assert under_segmentation_error(without, TRUTH) == pytest.approx(2 / 5)


def test_boundary_recall_by_hand():
    # true border voxels 1 and 2, found ones 2 and 3
    assert np.flatnonzero(borders(TRUTH)).tolist() == [1, 2]
    assert boundary_recall(LABELS, TRUTH, 0) == 0.5
    assert boundary_recall(LABELS, TRUTH, 1) == 1
    assert boundary_recall(np.ones_like(TRUTH), TRUTH, 3) == 0
    assert boundary_recall(LABELS, np.ones_like(TRUTH), 0) == 1

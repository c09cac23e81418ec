"""The surface Dice at a tolerance, worked out by hand on slabs and rods."""

import pytest
from pretext3d.errors import UserError
from pretext3d.training.evaluation import CaseMetrics, case_metrics

from tests.training.test_evaluation import NAMES, SPACING, box, slab


@pytest.mark.parametrize(
    ("pred", "label", "tolerance", "expected"),
    [
        ((2, 3), (2, 3), 0.0, 1.0),  # the same
        ((2, 2), (3, 3), 3.0, 1.0),  # one voxel of 3 mm apart: all of both surfaces within 3 mm
        ((2, 2), (3, 3), 2.9, 0.0),
        # two voxels thick, shifted by one: each has one slice in the other (0 mm) and one that is 3 mm away
        ((2, 3), (3, 4), 2.0, 0.5),
    ],
)
def test_surface_dice_by_hand(pred, label, tolerance, expected) -> None:
    (row,) = case_metrics(slab(*pred), slab(*label), {1: [1]}, SPACING, tolerance).values()
    assert row["nsd"] == pytest.approx(expected)


def test_surface_dice_of_unequal_surfaces() -> None:
    """A rod of 2 voxels against one of 4 along axis 0 (1 mm): all are surface. Voxels 0 and 1 agree in both.

    Within 1 mm voxel 2 of the long one agrees too: (2 + 3) / (2 + 4); without tolerance (2 + 2) / (2 + 4).
    """
    short, long = box(1, (0, 2), (2, 3), (3, 4)), box(1, (0, 4), (2, 3), (3, 4))
    for tolerance, expected in ((0.0, 4 / 6), (0.9, 4 / 6), (1.0, 5 / 6), (2.0, 1.0)):
        row = case_metrics(short, long, {1: [1]}, SPACING, tolerance)[1]
        assert row["nsd"] == pytest.approx(expected)


@pytest.mark.parametrize("tolerance", [-1.0, float("nan"), "2 mm"])
def test_a_tolerance_is_a_distance(tmp_path, tolerance: object) -> None:
    with pytest.raises(UserError, match="tolerance_mm: found"):
        CaseMetrics(str(tmp_path), NAMES, tolerance_mm=tolerance)

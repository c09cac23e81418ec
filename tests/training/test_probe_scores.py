"""The figures of a probe, worked out by hand."""

import math

import pytest
import torch
from pretext3d.training.probe_scores import LinearProbe, best_thresholds, nearest_classes, painted_dice

ANY = torch.ones(1, 3) > 0


def test_neighbours_by_the_angle_about_the_mean():
    """The mean is (2, 2); from it, references at 45, 135 and -90 degrees, the case at 0."""
    known = torch.tensor([[3.0, 3.0], [1.0, 3.0], [2.0, 0.0]])
    asked = torch.tensor([[9.0, 2.0]])  # cosines 0.707, -0.707, 0
    classes = torch.tensor([0, 1, 1])
    assert nearest_classes(asked, known, classes, ANY, 1).tolist() == [0]
    assert nearest_classes(asked, known, classes, ANY, 3).tolist() == [1]  # two of three
    assert nearest_classes(asked, known, classes, ANY, 2).tolist() == [0]  # one each: the nearer one
    assert nearest_classes(asked, known, classes, ANY, 99).tolist() == [1]
    # without the centre, (1, 1) / sqrt(2) is about as near to (9, 2) as (1, 0) is: 0.84 against 0.98
    assert nearest_classes(asked, known, torch.tensor([0, 0, 1]), ANY, 1).tolist() == [0]


def test_a_reference_that_is_not_allowed_is_no_neighbour():
    known = torch.tensor([[3.0, 3.0], [1.0, 3.0], [2.0, 0.0]])
    asked, classes = torch.tensor([[9.0, 2.0]]), torch.tensor([0, 1, 2])
    assert nearest_classes(asked, known, classes, torch.tensor([[False, True, True]]), 1).tolist() == [2]
    assert nearest_classes(asked, known, classes, ~ANY, 2).tolist() == [-1]


def test_votes_outweigh_every_sum_of_cosines():
    """Two neighbours of class 1, opposite to the case, against one of class 0 in its direction."""
    known = torch.tensor([[2.0, 0.0], [-1.0, 0.1], [-1.0, -0.1]])
    found = nearest_classes(torch.tensor([[1.0, 0.0]]), known, torch.tensor([0, 1, 1]), ANY, 3)
    assert found.tolist() == [1]


def test_dice_of_painted_cells_is_that_of_voxels():
    """Two of three cells of four voxels are painted; 3, 1 and 2 voxels in them: 2 * 4 / (8 + 6)."""
    voxels = torch.tensor([[1, 1, 1, 0], [0, 0, 0, 1], [1, 0, 0, 1]])
    painted = torch.tensor([True, True, False])
    blocks = painted[:, None].expand(3, 4)
    expected = 2 * (voxels * blocks).sum() / (voxels.sum() + blocks.sum())
    found = painted_dice(painted[:, None], voxels.float().mean(1, keepdim=True))
    assert found.item() == pytest.approx(8 / 14) == pytest.approx(float(expected))
    assert math.isnan(painted_dice(~ANY.T, torch.zeros(3, 1)).item())
    assert painted_dice(ANY.T, torch.zeros(3, 1)).item() == 0


def test_threshold_is_the_best_of_all():
    generator = torch.Generator().manual_seed(3)
    scores = torch.rand(40, 3, generator=generator).mul(10).round() / 10  # many are equal
    fractions = torch.rand(40, 3, generator=generator) ** 3
    found = painted_dice(scores > best_thresholds(scores, fractions), fractions)
    every = [painted_dice(scores > t, fractions) for t in torch.linspace(-0.05, 0.95, 11)]
    torch.testing.assert_close(found, torch.stack(every).amax(0))


def test_fit_minimises_the_error_and_the_weights():
    """mean |z W - (y - y0)|^2 + 0.1 |W|^2, as a least-squares problem with more rows."""
    x = torch.randn(50, 4, generator=torch.Generator().manual_seed(5)).double() * 7 + 3
    x[:, 3] = 2.0  # a feature that does not vary
    y = torch.rand(50, 2, generator=torch.Generator().manual_seed(6)).double()
    z, centred = (x[:, :3] - x[:, :3].mean(0)) / x[:, :3].std(0, correction=0), y - y.mean(0)
    rows = torch.cat([z, (0.1 * 50) ** 0.5 * torch.eye(3).double()])
    weights = torch.linalg.lstsq(rows, torch.cat([centred, torch.zeros(3, 2).double()])).solution
    torch.testing.assert_close(LinearProbe(x, y).scores(x), z @ weights + y.mean(0))


def test_a_rare_class_is_found():
    """One cell of 200 stands out in one feature: its score is far below one half, but above all others."""
    x = torch.randn(200, 8, generator=torch.Generator().manual_seed(7)) * 0.1
    x[17, 2] = 5.0
    y = torch.zeros(200, 1)
    y[17] = 1.0
    masks = LinearProbe(x, y).masks(x)
    assert masks.nonzero().tolist() == [[17, 0]]

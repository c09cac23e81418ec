"""The figures of a probe, worked out by hand."""

import math

import pytest
import torch
from pretext3d.training.probe_scores import (
    LinearProbe,
    best_thresholds,
    logistic_classes,
    nearest_classes,
    painted_dice,
)

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


# ----------------------------------------------------------------------------------- logistic regression
def clouds(count: int, noise: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """`count` cases of each of three classes about corners of a triangle, and `noise` further features."""
    generator = torch.Generator().manual_seed(count)
    corners = torch.tensor([[0.0, 0.0], [4.0, 0.0], [0.0, 4.0]]).repeat(count, 1)
    features = corners + 0.5 * torch.randn(3 * count, 2, generator=generator)
    more = 3.0 * torch.randn(3 * count, noise, generator=generator)
    return torch.cat([features, more], dim=1), torch.tensor([2, 5, 7]).repeat(count)


def test_a_linear_probe_finds_classes_and_keeps_their_numbers():
    known, classes = clouds(8)
    asked, expected = clouds(20)
    found, strength = logistic_classes(asked, known, classes, range(24))
    assert found.tolist() == expected.tolist()
    assert strength in (1e-4, 1e-3, 1e-2)  # all strengths separate them: the strongest regularisation


def test_features_of_any_scale_are_alike():
    """Standardised over the references: feature 1 in other units and another origin."""
    (known, classes), (asked, _) = clouds(8, noise=5), clouds(20, noise=5)
    scale, shift = torch.tensor([1.0, 1e5, *[1.0] * 5]), torch.tensor([0.0, -3e6, *[0.0] * 5])
    found = logistic_classes(asked, known, classes, range(24))
    other = logistic_classes(asked * scale + shift, known * scale + shift, classes, range(24))
    assert found[0].tolist() == other[0].tolist()
    assert found[1] == other[1]


def test_strength_is_chosen_on_subjects_and_not_on_their_cases():
    """Ten images of a person are nearly the same: to recognise a person says nothing of the next person.

    Where folds divided people, features that tell people apart would find every class, with less
    regularisation.
    """
    generator = torch.Generator().manual_seed(3)
    people = torch.arange(10).repeat_interleave(10)
    person = torch.randn(10, 20, generator=generator)[people]
    hint = (people % 2).float()[:, None] + torch.randn(100, 1, generator=generator)
    features = torch.cat([hint, person + 0.01 * torch.randn(100, 20, generator=generator)], dim=1)
    _, by_person = logistic_classes(features, features, people % 2, people.tolist())
    _, by_image = logistic_classes(features, features, people % 2, range(100))
    assert by_person < by_image


def test_few_labels_leave_nothing_to_choose():
    known = torch.tensor([[0.0, 1.0], [1.0, 0.0], [1.0, 0.1]])
    asked = torch.tensor([[0.0, 2.0], [3.0, 0.0]])
    # class 4 has one person, whatever class 9 has
    found, strength = logistic_classes(asked, known, torch.tensor([4, 9, 9]), ["a", "b", "c"])
    assert (found.tolist(), strength) == ([4, 9], 1.0)
    found, strength = logistic_classes(asked, known, torch.tensor([4, 4, 4]), ["a", "b", "c"])
    assert (found.tolist(), strength) == ([4, 4], 1.0)


def test_a_rare_class_has_the_weight_of_the_others():
    """40 of class 0 about 0 and 4 of class 1 about 1: the border is halfway, not far in the rare class."""
    generator = torch.Generator().manual_seed(1)
    noise = 0.3 * torch.randn(44, 1, generator=generator)
    classes = torch.tensor([0] * 40 + [1] * 4)
    found, _ = logistic_classes(torch.tensor([[0.35], [0.65]]), classes[:, None] + noise, classes, range(44))
    assert found.tolist() == [0, 1]

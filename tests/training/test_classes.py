"""Tests of the loss and the accuracy of classes, by hand."""

import math

import pytest
import torch
from pretext3d.training.classes import ClassAccuracy, ClassLoss, class_metrics


def test_loss_by_hand() -> None:
    """Logits log 3, 0 and class 0: -log 3/4; logits 0, 0 and class 1: log 2; the loss is their mean.

    Whether they are two answers of a sample, or one of each of two samples.
    """
    pred = torch.tensor([[math.log(3), 0.0], [0.0, 0.0]])
    expected = (math.log(4 / 3) + math.log(2)) / 2
    loss = ClassLoss("location")
    assert loss(pred[:, None], {"location": torch.tensor([[0], [1]])}).item() == pytest.approx(expected)
    target = {"location": torch.tensor([[0, 1]]), "starts": torch.zeros(1, 2)}
    assert loss(pred[None], target).item() == pytest.approx(expected)


def test_four_answers_of_two_samples_by_hand() -> None:
    """Probabilities 3/4 and 1/4; the first sample has classes 0 and 1, the other 1 and 1."""
    pred = torch.tensor([math.log(3.0), 0.0]).expand(2, 2, 2)
    expected = (-math.log(0.75) - 3 * math.log(0.25)) / 4
    found = ClassLoss("rotation")(pred, {"rotation": torch.tensor([[0, 1], [1, 1]])})
    assert found.item() == pytest.approx(expected)


def test_a_guess_costs_log_c() -> None:
    loss = ClassLoss("permutation")(torch.zeros(2, 2, 100), {"permutation": torch.tensor([[0, 5], [50, 99]])})
    assert loss.item() == pytest.approx(math.log(100))


def test_accuracy_by_hand() -> None:
    """Three answers of the first sample, two right; three of the second, none; the answers are 0, 1, 2."""
    pred = torch.eye(3).expand(2, 3, 3)
    label = {"location": torch.tensor([[0, 1, 1], [1, 2, 0]])}
    found = ClassAccuracy("location")({"pred": pred, "label": label})
    torch.testing.assert_close(found, torch.tensor([2 / 3, 0.0]))


def test_metrics_have_the_chance_next_to_the_accuracy() -> None:
    """Four classes; of two answers of one sample one is right."""
    metrics = class_metrics("rotation")
    assert list(metrics) == ["rotation_accuracy", "chance"]
    output = {"pred": torch.eye(4)[None, :2], "label": {"rotation": torch.tensor([[0, 2]])}}
    for metric in metrics.values():
        metric.update(metric._output_transform(output))
    assert [metric.compute() for metric in metrics.values()] == [0.5, 0.25]

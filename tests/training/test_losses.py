"""The loss of classes is MONAI's; that of regions is worked out by hand."""

import math

import pytest
import torch
from monai.losses import DiceCELoss, DiceLoss
from pretext3d.errors import UserError
from pretext3d.training.losses import SegmentationLoss

REGIONS = {"values": [0, 1, 2], "regions": {"whole": [1, 2], "core": [2]}, "order": [1, 2]}


@pytest.mark.parametrize("size", [(3, 4), (3, 4, 2)])
def test_classes(size: tuple[int, ...]) -> None:
    random = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 3, *size, generator=random)
    classes = torch.randint(0, 3, (2, 1, *size), generator=random)
    labels = {"values": [0, 1, 9]}
    expected = DiceCELoss(softmax=True, to_onehot_y=True)(logits, classes)
    assert torch.equal(SegmentationLoss(labels)(logits, classes), expected)
    expected = DiceLoss(softmax=True, to_onehot_y=True, include_background=False)(logits, classes)
    found = SegmentationLoss(labels, cross_entropy=False, include_background=False)(logits, classes)
    assert torch.equal(found, expected)


@pytest.mark.parametrize("size", [(1, 4), (1, 2, 2)])
def test_regions_by_hand(size: tuple[int, ...]) -> None:
    """Classes 0, 1, 2, 2. Every logit is 0, so every probability 1/2, and each cross-entropy is ln 2.

    whole = 0 1 1 1: Dice (2 * 1.5) / (2 + 3) = 0.6. core = 0 0 1 1: (2 * 1) / (2 + 2) = 0.5. Mean 0.55.
    """
    classes = torch.tensor([0, 1, 2, 2]).reshape(1, 1, *size)
    logits = torch.zeros(1, 2, *size, requires_grad=True)
    dice = SegmentationLoss(REGIONS, cross_entropy=False, include_background=False)(logits, classes)
    assert float(dice.detach()) == pytest.approx(1 - 0.55, abs=1e-5)
    loss = SegmentationLoss(REGIONS)(logits, classes)
    assert float(loss.detach()) == pytest.approx(1 - 0.55 + math.log(2), abs=1e-5)
    loss.backward()
    assert (logits.grad[0, 0].flatten() < 0).tolist() == [False, True, True, True]  # to a higher logit inside
    assert (logits.grad[0, 1].flatten() < 0).tolist() == [False, False, True, True]


def test_a_perfect_prediction_costs_nothing() -> None:
    classes = torch.tensor([0, 1, 2, 2]).reshape(1, 1, 2, 2)
    masks = torch.tensor([[0, 1, 1, 1], [0, 0, 1, 1]]).reshape(1, 2, 2, 2)
    assert float(SegmentationLoss(REGIONS)(100.0 * (2 * masks - 1), classes)) == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize(
    ("argument", "key"), [("cross_entropy", "cross_entropy"), ("include_background", "dice_background")]
)
def test_flags_are_true_or_false(argument: str, key: str) -> None:
    with pytest.raises(UserError, match=f"^{key}: found 'no', expected True or False"):
        SegmentationLoss(REGIONS, **{argument: "no"})  # type: ignore[arg-type]

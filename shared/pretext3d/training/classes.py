"""Loss, accuracy and chance of a pretext task whose answers are classes, one or more of a sample."""

from collections.abc import Mapping
from typing import Any

import torch.nn.functional as F
from ignite.metrics import Metric
from torch import nn

from pretext3d.annotations import Float, Tensor
from pretext3d.training.metrics import SampleMean

__all__ = ["ClassAccuracy", "ClassLoss", "chance", "class_metrics"]


class ClassLoss(nn.Module):
    """The cross-entropy -log p(class), the mean over all answers of a batch; log c for a guess of c classes.

    Args:
        key: Key of the classes in the target: `permutation`, `rotation`, `location`.
    """

    def __init__(self, key: str) -> None:
        super().__init__()
        self.key = key

    def forward(self, pred: Float[Tensor, "b k c"], target: Mapping[str, Tensor]) -> Float[Tensor, ""]:
        """The loss of a batch.

        Args:
            pred: Logits of c classes for each of k answers.
            target: Classes (b, k) at `key`.
        """
        return F.cross_entropy(pred.flatten(0, 1), target[self.key].flatten())


class ClassAccuracy:
    """Fraction of a sample's answers that are right, one number per sample; 1 / c for a guess of c classes.

    Args:
        key: Key of the classes in the target, see `ClassLoss`.
    """

    def __init__(self, key: str) -> None:
        self.key = key

    def __call__(self, output: Mapping[str, Any]) -> Float[Tensor, "b"]:
        """Of an engine's output: logits `pred` (b, k, c), and at `key` of `label` the classes (b, k)."""
        return (output["pred"].argmax(-1) == output["label"][self.key]).float().mean(1)


def chance(output: Mapping[str, Any]) -> Float[Tensor, "b"]:
    """The accuracy of a guess, 1 / c of c classes, for each sample: logits `pred` (b, k, c).

    Examples:
        >>> import torch
        >>> chance({"pred": torch.zeros(2, 3, 4)})
        tensor([0.2500, 0.2500])
    """
    pred = output["pred"]
    return pred.new_full((len(pred),), 1 / pred.shape[-1])


def class_metrics(key: str) -> dict[str, Metric]:
    """The metrics of a validation: `<key>_accuracy`, 0 to 1, and `chance`, so that the table has both.

    Args:
        key: Key of the classes in the target, see `ClassLoss`.

    Examples:
        >>> list(class_metrics("rotation"))
        ['rotation_accuracy', 'chance']
    """
    return {f"{key}_accuracy": SampleMean(ClassAccuracy(key)), "chance": SampleMean(chance)}

"""Loss and accuracy of a pretext task whose answers are classes, one or more of a sample."""

from collections.abc import Mapping
from typing import Any

import torch.nn.functional as F
from torch import nn

from pretext3d.annotations import Float, Tensor

__all__ = ["ClassAccuracy", "ClassLoss"]


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

"""Mean of a number per sample, over all samples of a validation and over all processes."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from ignite.metrics import Loss, Metric
from ignite.metrics.metric import reinit__is_reduced, sync_all_reduce

__all__ = ["SampleMean", "ValidationLoss"]


class SampleMean(Metric):
    """Mean over samples of `per_sample(engine.state.output)`, a tensor of shape (batch,).

    `ignite.metrics.Average` treats such a tensor as one vector-valued sample; and the mean of batch means
    would give the samples of a smaller last batch more weight. NaN where there was no sample.
    """

    _state_dict_all_req_keys = ("total", "count")

    def __init__(self, per_sample: Callable[[Any], torch.Tensor]) -> None:
        super().__init__(output_transform=per_sample)

    @reinit__is_reduced
    def reset(self) -> None:
        """Discard all samples."""
        self.total = torch.zeros((), dtype=torch.float64)
        self.count = torch.zeros((), dtype=torch.float64)

    @reinit__is_reduced
    def update(self, output: torch.Tensor) -> None:
        """Add the samples of one batch."""
        self.total += output.detach().cpu().double().sum()
        self.count += len(output)

    @sync_all_reduce("total", "count")
    def compute(self) -> float:
        """The mean."""
        return float(self.total / self.count)


class ValidationLoss(Loss):
    """Mean of a pretext loss over all samples of a validation.

    The evaluator's output has `pred` and `label`; a label may be a dictionary of targets.

    Args:
        loss_fn: Loss of (pred, label), the mean over the batch.
    """

    def __init__(self, loss_fn: Callable[[Any, Any], torch.Tensor]) -> None:
        super().__init__(loss_fn, output_transform=pred_and_label, batch_size=batch_size)


def pred_and_label(output: Mapping[str, Any]) -> tuple[Any, Any]:
    """The two entries of an engine's output that a loss takes."""
    return output["pred"], output["label"]


def batch_size(label: Any) -> int:
    """Number of samples of a target, or of the first target in a dictionary.

    Examples:
        >>> batch_size(torch.zeros(4, 1, 8, 8)), batch_size({"mask": torch.zeros(2, 1)})
        (4, 2)
    """
    return len(next(iter(label.values())) if isinstance(label, Mapping) else label)

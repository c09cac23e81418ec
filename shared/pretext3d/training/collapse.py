"""Collapse: whether the features of a validation still differ, and along how many directions.

A loss that draws views together is small where every input has the same features (complete collapse), or
features along one direction (dimensional collapse; Jing et al., ICLR 2022). The loss alone does not show it.
"""

import logging
import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from ignite.engine import Engine, Events
from ignite.metrics import Metric
from ignite.metrics.metric import reinit__is_reduced, sync_all_reduce

from pretext3d.annotations import Float, Tensor
from pretext3d.ranks import is_first

__all__ = ["CollapseWarning", "EffectiveRank", "FeatureStd", "collapse_metrics"]

logger = logging.getLogger(__name__)

LEAST_STD, LEAST_RANK = 0.01, 1.1  # lower ones are a collapse
LEAST_SAMPLES = 8  # of which a rank says something: that of n samples is at most n - 1
SPREADING = 1.5  # times the figure of the validation before: more is no collapse yet
ROUNDING = 1e-12  # variance, relative to the mean square, that sums cannot tell from 0

ADVICE = "a lower --learning_rate"  # of a method that gives none of its own


def collapse_metrics(
    features_of_output: Callable[[Any], Float[Tensor, "*b d"]],
    normalise: bool = True,
    advice: str = ADVICE,
    per_case: int = 1,
) -> dict[str, Metric]:
    """The metrics `feature_std` and `effective_rank`, for the validation metrics of a method.

    `RunReport` watches these names: see `CollapseWarning`.

    Args:
        features_of_output: Function from the evaluator's output to features (..., d): each row is a sample.
        normalise: Whether `feature_std` is that of directions (see `FeatureStd`); False for a loss that
            compares plain distances with a margin, or products of features, to which a vector that is added
            to all of them means nothing.
        advice: What to try where features collapse, for the warning: keys of the method's configuration.
        per_case: Number of rows of a case that should differ from each other: its patches, not its views.
    """
    return {
        "feature_std": FeatureStd(features_of_output, normalise, advice, per_case),
        "effective_rank": EffectiveRank(features_of_output),
    }


class FeatureStd(Metric):
    """Standard deviation of the features over the samples of a validation, in units of 1 / sqrt(d).

    feature_std = sqrt(d) * mean_k std_k, with std_k^2 = mean_n x_nk^2 - (mean_n x_nk)^2

    Features are divided by their length first: a next layer or a cosine undoes their scale, and weight decay
    changes it, so it says nothing about collapse. 1 then means directions evenly spread over the sphere, for
    any d, and 0 the same direction for every sample (Chen & He, "SimSiam", CVPR 2021, figure 2, there without
    the factor sqrt(d)). With `normalise` False it is about the distance of a sample's features from their
    mean, which can be compared with a margin. NaN where there was no sample.

    Keeps sums alone, in float64 on the features' device; they are added over all processes.

    Args:
        features_of_output: Function from the engine's output to features (..., d): each row is a sample.
        normalise: Whether each sample's features are divided by their Euclidean length; zeros stay zeros.
        advice: What to try where features collapse; the engine's state has it as `collapse_advice`.
        per_case: Number of rows of a case that should differ; the engine's state has it as `rows_per_case`.
    """

    _state_dict_all_req_keys = ("total", "squares", "count")

    def __init__(
        self,
        features_of_output: Callable[[Any], Float[Tensor, "*b d"]],
        normalise: bool = True,
        advice: str = ADVICE,
        per_case: int = 1,
    ) -> None:
        self.normalise, self.advice, self.per_case = normalise, advice, per_case
        super().__init__(output_transform=features_of_output)

    @reinit__is_reduced
    def reset(self) -> None:
        """Discard all samples."""
        self.total, self.squares, self.count = (torch.zeros((), dtype=torch.float64) for _ in range(3))

    def completed(self, engine: Engine, name: str) -> None:
        """Put the figure, the advice and the rows of a case into the state of the engine."""
        super().completed(engine, name)
        engine.state.collapse_advice, engine.state.rows_per_case = self.advice, self.per_case

    @reinit__is_reduced
    def update(self, output: Tensor) -> None:
        """Add the samples of one batch."""
        rows = _rows(output)
        rows = F.normalize(rows, dim=1) if self.normalise else rows
        self.total = self.total.to(rows.device) + rows.sum(0)
        self.squares = self.squares.to(rows.device) + (rows**2).sum(0)
        self.count += len(rows)

    @sync_all_reduce("total", "squares", "count")
    def compute(self) -> float:
        """The figure, from 0."""
        count = float(self.count)
        if not count:
            return math.nan
        mean, square = self.total / count, self.squares / count
        variance = square - mean**2
        variance = torch.where(variance <= ROUNDING * square, 0.0, variance)  # NaN stays
        return float(variance.sqrt().mean()) * math.sqrt(len(variance))


class EffectiveRank(Metric):
    """Effective number of directions that the features of a validation vary along, from 1 to d.

    exp(-sum_k p_k ln p_k) with p_k = sigma_k / sum_j sigma_j, and sigma_k the singular values of the matrix
    (samples, d) of features minus their mean: the square roots of the eigenvalues of their covariance
    (Roy & Vetterli, "The effective rank", EUSIPCO 2007). It is d where the features vary equally along all
    axes, 1 where they vary along one, and here 0 where they do not vary. It does not change with the scale of
    the features. That of n samples is at most n - 1. NaN where there was no sample.

    Keeps sums alone, a matrix (d, d) in float64 on the features' device; they are added over all processes.

    Args:
        features_of_output: Function from the engine's output to features (..., d): each row is a sample.
    """

    _state_dict_all_req_keys = ("total", "products", "count")

    def __init__(self, features_of_output: Callable[[Any], Float[Tensor, "*b d"]]) -> None:
        super().__init__(output_transform=features_of_output)

    @reinit__is_reduced
    def reset(self) -> None:
        """Discard all samples."""
        self.total, self.products, self.count = (torch.zeros((), dtype=torch.float64) for _ in range(3))

    @reinit__is_reduced
    def update(self, output: Tensor) -> None:
        """Add the samples of one batch."""
        rows = _rows(output)
        self.total = self.total.to(rows.device) + rows.sum(0)
        self.products = self.products.to(rows.device) + rows.T @ rows
        self.count += len(rows)

    @sync_all_reduce("total", "products", "count")
    def compute(self) -> float:
        """The figure, from 0."""
        count = float(self.count)
        return effective_rank(self.total / count, self.products / count) if count else math.nan


def effective_rank(mean: Float[Tensor, "d"], square: Float[Tensor, "d d"]) -> float:
    """See `EffectiveRank`; NaN where a value is not finite.

    Args:
        mean: Mean features.
        square: Mean of their outer products with themselves.

    Examples:
        >>> round(effective_rank(torch.zeros(3), torch.diag(torch.tensor([4.0, 4.0, 0.0]))), 6)
        2.0
    """
    if not bool(torch.isfinite(square).all()):
        return math.nan
    covariance = (square - torch.outer(mean, mean)).double()
    variances = torch.linalg.eigvalsh(covariance)
    sigma = torch.where(variances > ROUNDING * square.trace(), variances, 0.0).sqrt()
    if not float(sigma.sum()):
        return 0.0
    p = sigma / sigma.sum()
    return float(torch.special.entr(p).sum().exp())


def _rows(output: Tensor) -> Float[Tensor, "n d"]:
    """The features of one batch in float64, one sample per row."""
    return output.detach().flatten(0, -2).double()


class CollapseWarning:
    """Handler of a trainer: one warning per run where features have collapsed in two validations in a row.

    The first one alone says little: features of an untrained network are nearly equal. While they spread fast
    (`SPREADING`) they have not collapsed.

    It watches the metrics of `collapse_metrics` by their names, after each validation; a run without them
    gets none. List it after the validation handler.

    Args:
        evaluator: Validation whose metrics are watched; None = none.
    """

    def __init__(self, evaluator: Any = None) -> None:
        self.evaluator = evaluator
        self.warned = self.suspected = False
        self.before: float | None = None

    def attach(self, engine: Engine) -> None:
        """Register with the trainer."""
        if self.evaluator is not None and is_first():
            engine.add_event_handler(Events.EPOCH_COMPLETED, self.end_epoch)

    def end_epoch(self, engine: Engine) -> None:
        """Warn, unless this validation's figures are good or there was a warning before."""
        epoch, state = engine.state.epoch, self.evaluator.state
        if self.warned or state.epoch != epoch:
            return
        dataset = self.evaluator.data_loader.dataset
        cases = len(getattr(dataset, "data", dataset))  # crops of one case may have equal features
        samples = cases * getattr(state, "rows_per_case", 1)
        std = state.metrics.get("feature_std")
        found = collapse(std, state.metrics.get("effective_rank"), samples, self.before)
        self.before = std
        self.warned, self.suspected = bool(found) and self.suspected, bool(found)
        if self.warned:
            logger.warning(
                "epoch %d: %s; expected features that differ; try %s; such weights are of little use",
                epoch, found, getattr(state, "collapse_advice", ADVICE),
            )  # fmt: skip


def collapse(std: float | None, rank: float | None, samples: int, before: float | None = None) -> str:
    """What has happened to features with these figures; '' where they differ from sample to sample.

    Nor is it a collapse yet where `std` is low and grows fast: features spread when a training begins.

    Args:
        std: Figure of `FeatureStd`; None = not measured.
        rank: Figure of `EffectiveRank`; None = not measured.
        samples: Number of independent samples of the validation: its cases, or their patches.
        before: `std` of the validation before; None = not measured.

    Examples:
        >>> collapse(0.7, 1.01, samples=100)
        'the features vary along one direction (effective_rank 1.01): dimensional collapse'
        >>> collapse(0.006, 3.5, samples=100, before=0.003)
        ''
    """
    if samples < 2:
        return ""
    spreading = std is not None and before is not None and std > SPREADING * before > 0
    if std is not None and std < LEAST_STD and not spreading:
        return f"the features are the same for every sample (feature_std {std:.2g}): collapse"
    if rank is not None and rank < LEAST_RANK and samples >= LEAST_SAMPLES:
        return f"the features vary along one direction (effective_rank {rank:.3g}): dimensional collapse"
    return ""

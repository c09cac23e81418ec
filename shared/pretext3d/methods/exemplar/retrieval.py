"""Retrieval: whether the anchor nearest to a held-out view is its own, over a complete validation (ours)."""

import math
from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from ignite.metrics import Metric
from ignite.metrics.metric import reinit__is_reduced

from pretext3d.annotations import Float, Int, Tensor
from pretext3d.training.metrics import pred_and_label
from pretext3d.training.processes import gathered

__all__ = ["Retrieval", "chance", "own_is_nearest"]

ROWS = 1024  # views whose distances to all anchors are in memory at a time


def own_is_nearest(
    anchors: Float[Tensor, "n f"], views: Float[Tensor, "n f"], cases: Int[Tensor, "n"]
) -> float:
    """Fraction of views whose nearest anchor, by L2 distance, is of their own case, 0 to 1.

    Args:
        anchors: Embedding of each sample's anchor.
        views: Embedding of its view.
        cases: Number of its case; one case may have several samples.

    Examples:
        >>> own_is_nearest(torch.tensor([[0.0], [1.0]]), torch.tensor([[0.4], [0.3]]), torch.tensor([7, 8]))
        0.5
    """
    hits = [
        cases[torch.cdist(some, anchors, compute_mode="donot_use_mm_for_euclid_dist").argmin(1)] == own
        for some, own in zip(views.split(ROWS), cases.split(ROWS), strict=True)
    ]
    return float(torch.cat(hits).float().mean())


def chance(anchors: Float[Tensor, "n f"], views: Float[Tensor, "n f"], cases: Int[Tensor, "n"]) -> float:
    """`own_is_nearest` of guessing: the mean fraction of anchors that are of a view's own case.

    1 / (number of cases), where each has as many samples.

    Examples:
        >>> z = torch.zeros(4, 1)
        >>> chance(z, z, torch.tensor([7, 8, 7, 8])), chance(z, z, torch.tensor([7, 7, 7, 8]))
        (0.5, 0.625)
    """
    counts = cases.unique(return_counts=True)[1].double()
    return float((counts / counts.sum()).square().sum())


class Retrieval(Metric):
    """A measure of all anchors and views of a validation, of all processes; NaN without samples.

    Keeps all embeddings on the CPU: 2 f numbers per sample.

    Args:
        measure: Function of the embeddings of anchors and views (n, f), and the samples' cases (n,).
        cosine: Whether the largest cosine similarity is nearest: embeddings are divided by their length.
    """

    def __init__(self, measure: Callable[[Tensor, Tensor, Tensor], float], cosine: bool = False) -> None:
        self.measure, self.cosine = measure, cosine
        super().__init__(output_transform=pred_and_label)

    @reinit__is_reduced
    def reset(self) -> None:
        """Discard all samples."""
        self.batches: list[tuple[Tensor, Tensor]] = []

    @reinit__is_reduced
    def update(self, output: tuple[Tensor, Mapping[str, Tensor]]) -> None:
        """Add one batch: embeddings (b, 2, f), and `case_code` (b,)."""
        embeddings = output[0].detach().float().cpu()
        embeddings = F.normalize(embeddings, dim=-1) if self.cosine else embeddings
        self.batches.append((embeddings, output[1]["case_code"].cpu()))

    def compute(self) -> float:
        """The measure; every process has to make this call."""
        batches = gathered(self.batches)
        if not batches:
            return math.nan
        anchors, views = torch.cat([z for z, _ in batches]).unbind(1)
        return self.measure(anchors, views, torch.cat([case for _, case in batches]))

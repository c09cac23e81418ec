"""Retrieval: whether the anchor nearest to a held-out view is of its own case, over a validation (ours)."""

import math
from abc import abstractmethod
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from ignite.metrics import Metric
from ignite.metrics.metric import reinit__is_reduced

from pretext3d.annotations import Float, Int, Tensor
from pretext3d.training.metrics import pred_and_label
from pretext3d.training.processes import gathered

__all__ = ["LIMIT", "RetrievalAccuracy", "RetrievalChance", "chance", "own_is_nearest"]

LIMIT = 4096  # samples of a validation that are compared with each other, at most
ROWS = 1024  # views whose distances to all anchors are in memory at a time


def own_is_nearest(
    anchors: Float[Tensor, "n f"], views: Float[Tensor, "n f"], cases: Int[Tensor, "n"]
) -> float:
    """Fraction of views whose nearest anchor, by L2 distance, is of their own case, 0 to 1.

    Nearest is where |a|^2 - 2 v.a is smallest, one matrix product; from the anchors' mean, since in float32
    the rounding of these terms grows with the distance from the origin.

    Args:
        anchors: Embedding of each sample's anchor.
        views: Embedding of its view.
        cases: Number of its case; one case may have several samples, of which any anchor is right.

    Examples:
        >>> own_is_nearest(torch.tensor([[0.0], [1.0]]), torch.tensor([[0.4], [0.3]]), torch.tensor([7, 8]))
        0.5
    """
    centre = anchors.mean(0)
    anchors, views = anchors - centre, views - centre
    squares = anchors.square().sum(1)
    hits = [
        cases[torch.addmm(squares, some, anchors.T, alpha=-2).argmin(1)] == own
        for some, own in zip(views.split(ROWS), cases.split(ROWS), strict=True)
    ]
    return float(torch.cat(hits).float().mean())


def chance(cases: Int[Tensor, "n"]) -> float:
    """`own_is_nearest` of guessing: the mean fraction of anchors that are of a view's own case.

    1 / (number of cases), where each has as many samples.

    Examples:
        >>> chance(torch.tensor([7, 8, 7, 8])), chance(torch.tensor([7, 7, 7, 8]))
        (0.5, 0.625)
    """
    counts = cases.unique(return_counts=True)[1].double()
    return float((counts / counts.sum()).square().sum())


class FirstSamples(Metric):
    """A measure of the first `LIMIT` samples of a validation, of all processes; NaN without samples.

    A validation has the first sample of every case, subjects in turn, then the second ones, and so on: where
    it is longer than `LIMIT`, each case has fewer samples, or later cases have none. Kept on the CPU.
    """

    def __init__(self) -> None:
        super().__init__(output_transform=pred_and_label)

    @abstractmethod
    def kept(self, embeddings: Float[Tensor, "b 2 f"], cases: Int[Tensor, "b"]) -> tuple[Tensor, ...]:
        """What of a batch is kept, each (b, ...)."""

    @abstractmethod
    def measured(self, *kept: Tensor) -> float:
        """The measure of what was kept, each (n, ...)."""

    @reinit__is_reduced
    def reset(self) -> None:
        """Discard all samples."""
        self.batches: list[tuple[Tensor, ...]] = []
        self.count = 0

    @reinit__is_reduced
    def update(self, output: tuple[Tensor, Mapping[str, Tensor]]) -> None:
        """Add one batch: embeddings (b, 2, f), and `case_code` (b,)."""
        if self.count < LIMIT:  # of one process; the first ones of all are among these
            cases = output[1]["case_code"]
            self.batches.append(tuple(x.cpu() for x in self.kept(output[0].detach(), cases)))
            self.count += len(cases)

    def compute(self) -> float:
        """The measure; every process has to make this call."""
        batches = gathered(self.batches)
        if not batches:
            return math.nan
        return self.measured(*(torch.cat(part)[:LIMIT] for part in zip(*batches, strict=True)))


class RetrievalAccuracy(FirstSamples):
    """`own_is_nearest` of a validation; keeps 2 f numbers per sample.

    Args:
        cosine: Whether the largest cosine similarity is nearest: embeddings are divided by their length.
    """

    def __init__(self, cosine: bool = False) -> None:
        self.cosine = cosine
        super().__init__()

    def kept(self, embeddings: Float[Tensor, "b 2 f"], cases: Int[Tensor, "b"]) -> tuple[Tensor, ...]:
        """The embeddings in float32, and the cases."""
        embeddings = embeddings.float()
        return F.normalize(embeddings, dim=-1) if self.cosine else embeddings, cases

    def measured(self, *kept: Tensor) -> float:
        """`own_is_nearest`."""
        embeddings, cases = kept
        anchors, views = embeddings.unbind(1)
        return own_is_nearest(anchors, views, cases)


class RetrievalChance(FirstSamples):
    """`chance` of the samples that `RetrievalAccuracy` compares; keeps no embeddings."""

    def kept(self, embeddings: Float[Tensor, "b 2 f"], cases: Int[Tensor, "b"]) -> tuple[Tensor, ...]:
        """The cases."""
        return (cases,)

    def measured(self, *kept: Tensor) -> float:
        """`chance`."""
        return chance(*kept)

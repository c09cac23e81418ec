"""3D exemplar networks: recognise an image among its transformed versions and other images.

Taleb A, Loetzsch W, Danz N, Severin J, Gaertner T, Bergner B, Lippert C. 3D Self-Supervised Methods for
Medical Imaging. NeurIPS 2020.

In the paper's order (section 3.5): the network, which embeds the anchor x and its transformed version x+ (see
`views`), the triplet loss (Eq. 3) with negatives from the batch or from the whole data set, and the
contrastive loss that may replace it. The paper gives no accuracy of the task; `retrieval` is ours.

Deviates: the mean runs over all triplets of a batch instead of one random negative per anchor (`mining`
"any"). Negatives never are of the anchor's own subject, which the paper does not state. One head, shared and
without a bound on its output; the authors' code has three separate heads that end in a sigmoid.
"""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import ignite.distributed as idist
import torch
import torch.nn.functional as F
from ignite.metrics import Metric
from torch import nn

from pretext3d.annotations import Bool, Float, Int, Tensor
from pretext3d.checking import integer, number, one_of
from pretext3d.methods.exemplar.retrieval import RetrievalAccuracy, RetrievalChance
from pretext3d.networks.backbone import Backbone
from pretext3d.networks.heads import FullyConnectedHead, PatchFeatures
from pretext3d.training.collapse import ADVICE, collapse_metrics

__all__ = [
    "EmbeddingMemory", "ExemplarLoss", "ExemplarNet", "contrastive_loss", "triplet_loss",
    "validation_metrics",
]  # fmt: skip

logger = logging.getLogger(__name__)

OBJECTIVES = ("triplet", "contrastive")
NEGATIVES = ("batch", "dataset")
MINING = ("any", "hardest")
MARGIN, TEMPERATURE = 1.0, 0.1
# arguments of one objective alone, with their defaults
OWN: dict[str, dict[str, Any]] = {
    "triplet": {"margin": MARGIN, "mining": "any"},
    "contrastive": {"temperature": TEMPERATURE},
}
EMPTY = -1  # subject of a place in the memory that has not been filled


# ---------------------------------------------------------------------------------------------- the network
class EmbeddingMemory(nn.Module):
    """The embeddings of the last `size` anchors, with their subjects: negatives from the whole data set.

    Two buffers, so that they are in the checkpoints: a resumed run has the same negatives. In several
    processes each one remembers the anchors of all.

    Args:
        size: Number of embeddings; the number of training cases keeps about one of each.
        features: Length of an embedding.

    Raises:
        UserError: size is below 1.
    """

    embeddings: Tensor
    subjects: Tensor

    def __init__(self, size: int, features: int) -> None:
        super().__init__()
        integer("memory_size", size, minimum=1)
        self.register_buffer("embeddings", torch.zeros(size, features))
        self.register_buffer("subjects", torch.full((size,), EMPTY, dtype=torch.int64))

    @torch.no_grad()
    def add(self, embeddings: Float[Tensor, "b f"], subjects: Int[Tensor, "b"]) -> None:
        """Put the anchors of all processes in front, and forget the oldest. All processes have to call it."""
        new, whose = embeddings.detach().float(), subjects
        if idist.get_world_size() > 1:
            new, whose = idist.all_gather(new.contiguous()), idist.all_gather(whose.contiguous())
        size = len(self.subjects)
        self.embeddings.copy_(torch.cat([new.to(self.embeddings), self.embeddings])[:size])
        self.subjects.copy_(torch.cat([whose.to(self.subjects), self.subjects])[:size])


class ExemplarNet(nn.Module):
    """One encoder and one head for anchors and views alike: the embeddings z of section 3.5.

    The coarsest map is average-pooled to `pool_size` along each axis; fully connected layers without a bound
    on their output embed it. All images of a batch are encoded in one call.

    Args:
        backbone: Network with `encode`; its decoder is not used.
        features: Length of an embedding.
        hidden: Units of the head's hidden layers.
        dropout: Probability with which a hidden unit is dropped in training.
        pool_size: Edge of the pooled map.
        negatives: Source of negatives, `batch` or `dataset`; `dataset` makes an `EmbeddingMemory`.
        memory_size: Number of embeddings in it.

    Attributes:
        memory: `EmbeddingMemory` or None.
    """

    def __init__(
        self,
        backbone: Backbone,
        features: int = 128,
        hidden: Sequence[int] = (2048, 1024),
        dropout: float = 0.5,
        pool_size: int = 1,
        negatives: str = "batch",
        memory_size: int = 1024,
    ) -> None:
        super().__init__()
        one_of("negatives", negatives, NEGATIVES)
        integer("embedding_size", features, minimum=1)
        self.backbone, self.pooled = backbone, PatchFeatures(backbone, pool_size)
        self.head = FullyConnectedHead(self.pooled.features, features, hidden, dropout=dropout)
        self.memory = EmbeddingMemory(memory_size, features) if negatives == "dataset" else None

    def forward(self, x: Float[Tensor, "b v c *space"]) -> Float[Tensor, "b v f"]:
        """The embedding of each view."""
        features = self.pooled(self.backbone, x)
        return self.head(features.flatten(0, 1)).unflatten(0, x.shape[:2])


# ------------------------------------------------------------------------------------------ Eq. 3, the loss
def triplet_loss(
    anchors: Float[Tensor, "b f"],
    positives: Float[Tensor, "b f"],
    candidates: Float[Tensor, "n f"],
    negative: Bool[Tensor, "b n"],
    margin: float = MARGIN,
    mining: str = "any",
) -> Float[Tensor, ""]:
    """Eq. 3: the mean of max(0, D(z, z+) - D(z, z-) + margin) over triplets, D the L2 distance.

    `any`: all triplets of an anchor, its positive and a negative. Their mean is what one negative per anchor,
    drawn at random, gives on average. `hardest`: of each anchor the triplet with its nearest negative. An
    anchor without a negative has no triplet; a batch without one has the loss 0. The gradient of a distance
    of 0 is 0.

    Args:
        anchors: Embeddings z.
        positives: Embeddings z+.
        candidates: Embeddings z-.
        negative: Whether a candidate is a negative of an anchor.
        margin: Distance by which a negative has to be farther away than the positive.
        mining: `any` or `hardest`.
    """
    near = torch.linalg.vector_norm(anchors - positives, dim=1)
    far = torch.cdist(anchors, candidates, compute_mode="donot_use_mm_for_euclid_dist")
    if mining == "hardest":
        far = torch.where(negative, far, torch.inf).amin(1, keepdim=True)
        negative = negative.any(1, keepdim=True)
    losses = (near[:, None] - far + margin).clamp(min=0)
    return torch.where(negative, losses, 0.0).sum() / negative.sum().clamp(min=1)


def contrastive_loss(
    anchors: Float[Tensor, "b f"],
    positives: Float[Tensor, "b f"],
    subjects: Int[Tensor, "b"],
    temperature: float = TEMPERATURE,
    remembered: Float[Tensor, "n f"] | None = None,
    whose: Int[Tensor, "n"] | None = None,
) -> Float[Tensor, ""]:
    """NT-Xent (Chen et al., SimCLR, ICML 2020), with negatives of other subjects only.

    For each of the 2b embeddings u of anchors and positives, with its counterpart u+ and cosine similarity s:
    -log(exp(s(u, u+) / t) / (exp(s(u, u+) / t) + sum over negatives exp(s(u, u-) / t))), averaged. Negatives
    are all embeddings of the batch, and those remembered, of other subjects; without one the loss is 0.

    Args:
        anchors: Embeddings z.
        positives: Embeddings z+.
        subjects: Subject of each pair.
        temperature: t; lower ones weigh the most similar negatives more.
        remembered: Further embeddings.
        whose: Their subjects.
    """
    both = F.normalize(torch.cat([anchors, positives]), dim=1)
    own = subjects.repeat(2)
    logits, negative = both @ both.T, own[:, None] != own
    if remembered is not None and whose is not None:
        logits = torch.cat([logits, both @ F.normalize(remembered, dim=1).T], dim=1)
        negative = torch.cat([negative, (own[:, None] != whose) & (whose != EMPTY)], dim=1)
    logits = logits / temperature
    count = len(anchors)
    place = torch.arange(2 * count, device=logits.device)
    alike = logits[place, (place + count) % (2 * count)]
    others = torch.where(negative, logits, -torch.inf)
    return (torch.cat([alike[:, None], others], dim=1).logsumexp(1) - alike).mean()


class ExemplarLoss(nn.Module):
    """`triplet_loss` (the paper's) or `contrastive_loss` of a batch; negatives are of other subjects.

    With a memory, negatives of a training step are the batch's anchors and those remembered, and its anchors
    are then added. A validation (without gradients, `torch.is_grad_enabled`) neither reads nor fills it: its
    loss is of its own batches, the same ones in every epoch. In several processes the batch is each process'
    own.

    Args:
        objective: `triplet` or `contrastive`.
        margin: Margin of the triplet loss (the paper: 1).
        mining: Negatives of the triplet loss, `any` or `hardest`.
        temperature: Temperature of the contrastive loss.
        memory: The network's `memory`; None = negatives from the batch.

    Raises:
        UserError: for invalid arguments. One of the other objective, which is not the default, is a warning.
    """

    def __init__(
        self,
        objective: str = "triplet",
        margin: float = MARGIN,
        mining: str = "any",
        temperature: float = TEMPERATURE,
        memory: EmbeddingMemory | None = None,
    ) -> None:
        super().__init__()
        one_of("objective", objective, OBJECTIVES)
        one_of("mining", mining, MINING)
        self.objective, self.mining, self.memory = objective, mining, memory
        self.margin = number("margin", margin, 0, low_open=True)
        self.temperature = number("temperature", temperature, 0, low_open=True)
        (other,) = set(OBJECTIVES) - {objective}
        for key, default in OWN[other].items():
            if (value := getattr(self, key)) != default:
                logger.warning("%s: %s has no effect with objective %s", key, value, objective)

    @property
    def advice(self) -> str:
        """What to try where embeddings collapse."""
        tries = ["a lower --learning_rate", "a larger --batch_size"]
        if self.objective == "contrastive":
            tries += [] if self.memory else ["--negatives dataset"]
            return ", ".join([*tries, "a higher --temperature"])
        tries += ["--mining any"] if self.mining == "hardest" else []
        return ", ".join([*tries, "--objective contrastive"])

    def forward(self, pred: Float[Tensor, "b 2 f"], target: Mapping[str, Tensor]) -> Tensor:
        """The target has `subject_code` (b,), the subject of each pair."""
        anchors, positives = pred.float().unbind(1)
        subjects = target["subject_code"]
        old, whose = anchors[:0], subjects[:0]
        memory = self.memory if torch.is_grad_enabled() else None
        if memory is not None:  # copies: the memory changes before the gradient is computed
            old, whose = memory.embeddings.clone().to(anchors), memory.subjects.clone()
        if self.objective == "contrastive":
            loss = contrastive_loss(anchors, positives, subjects, self.temperature, old, whose)
        else:
            owners = torch.cat([subjects, whose])
            negative = (subjects[:, None] != owners) & (owners != EMPTY)
            candidates = torch.cat([anchors, old])
            loss = triplet_loss(anchors, positives, candidates, negative, self.margin, self.mining)
        if memory is not None:
            memory.add(anchors, subjects)
        return loss


# -------------------------------------------------------------------------------------- measures of training
def embeddings_of(output: Mapping[str, Any]) -> Float[Tensor, "b f"]:
    """The embeddings of the anchors, from the engine's output."""
    return output["pred"][:, 0].float()


def validation_metrics(objective: str = "triplet", advice: str = ADVICE) -> dict[str, Metric]:
    """The metrics of a validation, by name: retrieval and its chance, and whether embeddings collapse.

    Args:
        objective: `triplet`, which compares L2 distances, or `contrastive`, cosine similarities.
        advice: What to try where embeddings collapse, that of the loss.
    """
    cosine = one_of("objective", objective, OBJECTIVES) == "contrastive"
    return {
        "retrieval_accuracy": RetrievalAccuracy(cosine),
        "retrieval_chance": RetrievalChance(),
        **collapse_metrics(embeddings_of, normalise=cosine, advice=advice),
    }

"""3D contrastive predictive coding: predict the codes of patches from those of the patches above.

Taleb A, Loetzsch W, Danz N, Severin J, Gaertner T, Bergner B, Lippert C. 3D Self-Supervised Methods for
Medical Imaging. NeurIPS 2020. After van den Oord A, Li Y, Vinyals O. Representation learning with contrastive
predictive coding. arXiv 1807.03748, 2018.

In the paper's order (section 3.1): the patches (`patches`), the encoder g_enc, the context network g_cxt
(`context`), one linear map per step ahead, the InfoNCE loss (Eq. 1), and the accuracy of its N-way
classification.

Deviates: Eq. 1 prints exp of the sum over the negatives; here, as in InfoNCE, it is the sum of their exp. The
loss is the mean over the predictions, where Eq. 1 has their sum. The negatives are all other locations of the
image, of which the paper draws some. In 2D (which the paper uses without a definition) a row is a line of
patches. Options: `negatives` of a batch's other subjects, too; `loss_form` `pairwise` as in the authors'
code; masked convolutions as the context network.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from ignite.metrics import Metric
from torch import nn

from pretext3d.annotations import Bool, Float, Int, Tensor
from pretext3d.checking import integer, one_of
from pretext3d.errors import UserError
from pretext3d.methods.cpc.context import build_context
from pretext3d.methods.cpc.patches import PatchGrid
from pretext3d.networks.backbone import Backbone
from pretext3d.networks.heads import PatchFeatures
from pretext3d.training.collapse import ADVICE, collapse_metrics
from pretext3d.training.metrics import SampleMean

__all__ = ["CpcLoss", "CpcNet", "validation_metrics"]

LOSS_FORMS = ("infonce", "pairwise")
NEGATIVES = ("image", "batch")


# ------------------------------------------------------------------------------------------ 3.1 the network
class CpcNet(nn.Module):
    """The codes z of all patches, and the predictions of those that are some rows further down.

    z = g_enc(patch): the encoder's coarsest map, pooled, then a linear layer; all patches of a batch go
    through the encoder in one call. c = g_cxt(codes above), see `context`. The prediction of z_{i+l,j,k} is
    W_l c_{i,j,k}, for l = 1 to L. 2D or 3D, as the backbone.

    Args:
        backbone: Network with `encode`; its decoder is not used.
        patches: Geometry of the grid.
        code_size: Number of features of a code (the authors: 1024).
        context: Kind of the context network, `gru` or `masked_conv`.
        context_units: Size of a context vector (the authors: 256).
        context_radius: Largest half width of the inverted pyramid (the paper: 2).
        pool_size: Edge of the pooled map of each patch.

    Raises:
        UserError: another kind of context, or a size below 1.
    """

    def __init__(
        self,
        backbone: Backbone,
        patches: PatchGrid,
        code_size: int = 1024,
        context: str = "gru",
        context_units: int = 256,
        context_radius: int = 2,
        pool_size: int = 1,
    ) -> None:
        super().__init__()
        integer("code_size", code_size, minimum=1)
        self.patches = patches
        self.backbone, self.patch_features = backbone, PatchFeatures(backbone, pool_size)
        self.code = nn.Linear(self.patch_features.features, code_size)
        self.context = build_context(context, code_size, context_units, patches.shape, context_radius)
        self.ahead = nn.ModuleList(
            nn.Linear(context_units, code_size, bias=False) for _ in range(patches.steps)
        )

    def forward(self, x: Float[Tensor, "b m c *space"]) -> tuple[Tensor, Tensor]:
        """Codes (b, m, code_size) by location, and predictions (b, q, code_size), see `PatchGrid`.

        The context network and the predictions are computed in float32.
        """
        codes = self.code(self.patch_features(self.backbone, x))
        with torch.autocast(x.device.type, enabled=False):
            codes = codes.float()[:, self.patches.order.to(codes.device)]
            return codes, self.predict(codes)

    def predict(self, codes: Float[Tensor, "b m f"]) -> Float[Tensor, "b q f"]:
        """The predictions, from the codes by location."""
        contexts = self.context(codes.unflatten(1, self.patches.shape))
        rows = contexts.shape[1]
        ahead = [linear(contexts[:, : rows - step]).flatten(1, -2) for step, linear in enumerate(self.ahead)]
        return torch.cat(ahead, dim=1)


# ---------------------------------------------------------------------------------------- 3.1 the loss, Eq. 1
def similarities(pred: tuple[Tensor, Tensor], batch: bool = False) -> Float[Tensor, "b q n"]:
    """The product of each prediction with each code of its image or, with `batch`, of all images.

    Args:
        pred: Codes (b, m, f) and predictions (b, q, f).
        batch: Whether to compare with all b * m codes.
    """
    codes, predicted = pred
    return predicted @ (codes.flatten(0, 1) if batch else codes).transpose(-1, -2)


def other_images(subjects: Int[Tensor, "b"]) -> Bool[Tensor, "b b"]:
    """Which images of a batch are others of the subject of each image.

    Examples:
        >>> other_images(torch.tensor([7, 5, 7])).int().tolist()
        [[0, 0, 1], [0, 0, 0], [1, 0, 0]]
    """
    same = subjects[:, None] == subjects
    return same & ~torch.eye(len(subjects), dtype=torch.bool, device=subjects.device)


class CpcLoss(nn.Module):
    """Eq. 1: cross-entropy of recognising the predicted location among N, the mean over all predictions.

    `infonce`: -log(exp(p . z+) / sum_n exp(p . z_n)) over the N = m locations of the image, the right one
    included, or with `negatives="batch"` also over those of the batch's images of other subjects (N = m (1 +
    their number); another image of the same subject shows the same place). Predictions of 0 cost log N.
    `pairwise`: binary cross-entropy of the right location (1) and of one negative (0) of the same image,
    -(log sigmoid(p . z+) + log sigmoid(-p . z-)) / 2, so that predictions of 0 cost log 2.

    Args:
        patches: Geometry of the grid.
        loss_form: `infonce` (Eq. 1) or `pairwise` (the authors' code).
        negatives: `image` (the paper) or `batch`.

    Raises:
        UserError: another form or kind of negatives, or pairs with negatives of the batch.
    """

    def __init__(self, patches: PatchGrid, loss_form: str = "infonce", negatives: str = "image") -> None:
        super().__init__()
        one_of("loss_form", loss_form, LOSS_FORMS)
        one_of("negatives", negatives, NEGATIVES)
        if loss_form == "pairwise" and negatives == "batch":
            raise UserError("negatives: found 'batch' with loss_form 'pairwise', expected 'image'")
        self.targets, self.pairwise, self.batch = (
            patches.targets,
            loss_form == "pairwise",
            negatives == "batch",
        )

    @property
    def advice(self) -> str:
        """What to try where codes collapse."""
        other = "" if self.batch else f", --{'loss_form infonce' if self.pairwise else 'negatives batch'}"
        return f"a lower --learning_rate, a longer --lr_scheduler::warmup{other}"

    def forward(self, pred: tuple[Tensor, Tensor], target: Mapping[str, Tensor]) -> Tensor:
        """The target has `negative` (b, q) and, for negatives of the batch, `subject_code` (b,).

        See `RandPatchGridd`.
        """
        codes, _ = pred
        count, locations = codes.shape[:2]
        right = self.targets.to(codes.device).expand(count, -1)
        logits = similarities(pred, self.batch)
        if self.pairwise:
            wrong = (right + target["negative"]) % locations
            pairs = logits.gather(2, torch.stack([right, wrong], dim=2))
            return F.softplus(pairs * pairs.new_tensor([-1.0, 1.0])).mean()
        if self.batch:
            right = right + locations * torch.arange(count, device=codes.device)[:, None]
            left_out = other_images(target["subject_code"]).repeat_interleave(locations, dim=1)
            logits = logits.masked_fill(left_out[:, None], float("-inf"))
        return F.cross_entropy(logits.flatten(0, 1), right.flatten())


# ---------------------------------------------------------------------------------------------- the accuracy
class LocationAccuracy:
    """Fraction of an image's predictions that are closest to the right one of its m codes, 0 to 1.

    Chance is 1 / m, whatever the loss compares with.

    Args:
        patches: Geometry of the grid.
        step: Number of rows ahead of the predictions that count; None = all.
    """

    def __init__(self, patches: PatchGrid, step: int | None = None) -> None:
        self.targets = patches.targets
        self.counted = patches.step_of == step if step else torch.ones_like(patches.targets, dtype=torch.bool)

    def __call__(self, output: Mapping[str, Any]) -> Float[Tensor, "b"]:
        """One number per image."""
        found = similarities(output["pred"]).argmax(-1).cpu()
        return (found == self.targets)[:, self.counted].float().mean(1)


def chance(output: Mapping[str, Any]) -> Float[Tensor, "b"]:
    """The accuracy of guessing, 1 / m, for each image."""
    codes = output["pred"][0]
    return codes.new_full((len(codes),), 1 / codes.shape[1])


def codes_of(output: Mapping[str, Any]) -> Float[Tensor, "b m f"]:
    """The codes of all patches, from the engine's output."""
    return output["pred"][0]


def validation_metrics(patches: PatchGrid, advice: str = ADVICE) -> dict[str, Metric]:
    """The metrics of a validation, by name.

    `accuracy` of the N-way classification, `accuracy_step_1` and so on for each number of rows ahead, and
    `chance` (1 / N), means over the held-out images; `feature_std` and `effective_rank` of the codes, see
    `collapse_metrics`: the products of Eq. 1 do not change with a vector that is added to all codes.

    Args:
        patches: Geometry of the grid.
        advice: What to try where codes collapse, that of the loss.
    """
    per_sample: dict[str, Callable[[Any], Tensor]] = {"accuracy": LocationAccuracy(patches)}
    for step in range(1, patches.steps + 1):
        per_sample[f"accuracy_step_{step}"] = LocationAccuracy(patches, step)
    per_sample["chance"] = chance
    means = {name: SampleMean(function) for name, function in per_sample.items()}
    return {
        **means,
        **collapse_metrics(codes_of, normalise=False, advice=advice, per_case=len(patches.order)),
    }

"""Rotation prediction: by which multiple of 90 degrees, about which axis, is the body rotated?

Taleb A, Loetzsch W, Danz N, Severin J, Gaertner T, Bergner B, Lippert C. 3D Self-Supervised Methods for
Medical Imaging. NeurIPS 2020. In 2D the task is that of Gidaris S, Singh P, Komodakis N. Unsupervised
Representation Learning by Predicting Image Rotations. ICLR 2018.

In the paper's order (section 3.4): the R rotations (10 of volumes, 4 of images), several rotated versions of
each image, the network with its fully connected head, and the accuracy. The rotations themselves are in
`pretext3d.ops.rotations`; the loss L_Rot is `ClassLoss` in `pretext3d.training.classes`.

Deviates: the paper does not say how many versions of an image a step has, nor how they are drawn: here a key
each (`versions`, `distinct_versions`). Ours, as options: rotations about some axes only, crops of the body,
and the size of the pooled map that the head reads.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from ignite.metrics import Metric
from monai.transforms import Randomizable, Transform
from torch import nn

from pretext3d.annotations import Float, Tensor
from pretext3d.checking import boolean, integer
from pretext3d.errors import UserError
from pretext3d.networks.backbone import Backbone
from pretext3d.networks.heads import FullyConnectedHead, PatchFeatures
from pretext3d.ops.rotations import check_equal_edges, rotated_versions, rotation_classes
from pretext3d.ops.tensors import plain_tensor
from pretext3d.training.classes import class_metrics
from pretext3d.training.metrics import SampleMean

__all__ = [
    "RandRotationsd",
    "RotationNet",
    "validation_metrics",
]


# ------------------------------------------------------------------------- 3.4 several rotated versions
class RandRotationsd(Randomizable, Transform):
    """A volume (c, i, j, k), in 2D an image (c, i, j), becomes rotated ones: `image` (v, c, *space).

    Adds `rotation` (v,), int64: the class of each version, an index of `rotation_classes`; class 0 is the
    volume itself. Each class is equally probable.

    Args:
        versions: Number of versions of an image in one sample.
        distinct: Whether the versions of one image have different rotations; with as many versions as
            rotations, a sample has every rotation once. Otherwise each is drawn independently.
        axes: Axes to rotate about, out of 0, 1, 2, in 2D only 2 (in the plane); None: all.
        roi_size: Voxels of the volumes along each axis.
        body_size: Voxels of the body that `roi_size` is taken from; None: no crop.
        image_key: Key of the volume.

    Raises:
        UserError: for invalid arguments: more distinct versions than rotations; a roi_size that a rotation by
            90 degrees changes, or that is larger than the body.
    """

    def __init__(
        self,
        versions: int,
        roi_size: Sequence[int],
        distinct: Any = True,
        axes: Sequence[int] | None = None,
        body_size: Sequence[int] | None = None,
        image_key: str = "image",
    ) -> None:
        self.rotations = rotation_classes(len(roi_size), axes)
        self.versions = integer("versions", versions, minimum=1)
        self.distinct = boolean("distinct_versions", distinct)
        if self.distinct and versions > len(self.rotations):
            raise UserError(
                f"versions: found {versions}, expected 1 to {len(self.rotations)}, the number of "
                "rotations, with distinct_versions"
            )
        check_equal_edges(roi_size, self.rotations)
        if body_size is not None and any(b < r for b, r in zip(body_size, roi_size, strict=True)):
            raise UserError(
                f"body_size: found {list(body_size)}, expected roi_size, {list(roi_size)}, or more along an "
                "axis: zeros outside the body would reveal its rotation"
            )
        self.image_key = image_key
        self.classes = np.zeros(self.versions, dtype=np.int64)

    def randomize(self, data: Any = None) -> None:
        """Draw the class of each version."""
        count = len(self.rotations)
        self.classes = (
            self.R.permutation(count)[: self.versions]
            if self.distinct
            else self.R.randint(count, size=self.versions)
        )

    def __call__(self, data: dict[str, Any]) -> dict[str, Any]:
        """The case with its versions and their rotations."""
        d = dict(data)
        image = plain_tensor(d[self.image_key])
        self.randomize()
        classes = torch.from_numpy(self.classes.astype(np.int64))
        d[self.image_key] = rotated_versions(image[None], classes[None], self.rotations)[0]
        d["rotation"] = classes
        return d


# -------------------------------------------------------------------------------- appendix: the network
class RotationNet(nn.Module):
    """One encoder for all versions, and a fully connected head on each version's pooled coarsest map.

    Args:
        backbone: Network with `encode`; its decoder is not used.
        axes: Axes of the rotations, as in `RandRotationsd`.
        hidden: Units of each hidden layer of the head.
        dropout: Probability with which a hidden unit is dropped.
        pool_size: Edge of the pooled map.
    """

    def __init__(
        self,
        backbone: Backbone,
        axes: Sequence[int] | None = None,
        hidden: Sequence[int] = (2048, 1024),
        dropout: float = 0.5,
        pool_size: int = 1,
    ) -> None:
        super().__init__()
        self.backbone, self.patches = backbone, PatchFeatures(backbone, pool_size)
        self.classes = len(rotation_classes(backbone.spatial_dims, axes))
        self.head = FullyConnectedHead(self.patches.features, self.classes, hidden, dropout=dropout)

    def forward(self, x: Float[Tensor, "b v c *space"]) -> Float[Tensor, "b v classes"]:
        """The logits of each version's rotation."""
        features = self.patches(self.backbone, x)
        return self.head(features.flatten(0, 1)).view(*x.shape[:2], self.classes)


# ------------------------------------------------------------------------------------------ the accuracies
class AccuracyUpToHalfTurns:
    """Fraction of an image's versions whose rotation is recognised, or missed by a half turn.

    0 and 180 degrees about any axis are one answer, 90 and 270 degrees about the same axis another; chance is
    0.28 of ten rotations and 0.5 of four. Far above `rotation_accuracy`, it says that the anatomy looks alike
    after a half turn (an eye, an axial slice of a leg): then more training does not help.

    Args:
        rotations: Pairs (axis, quarter turns), see `rotation_classes`.
    """

    def __init__(self, rotations: Sequence[tuple[int, int]]) -> None:
        self.groups = torch.tensor([1 + axis if turns % 2 else 0 for axis, turns in rotations])

    def __call__(self, output: Mapping[str, Any]) -> Float[Tensor, "b"]:
        """One number per image."""
        pred, truth = output["pred"].argmax(-1), output["label"]["rotation"]
        groups = self.groups.to(pred.device)
        return (groups[pred] == groups[truth]).float().mean(1)


class RotationRecall:
    """For each version of one class in a batch: 1 where it is recognised, else 0.

    Args:
        number: The class.
    """

    def __init__(self, number: int) -> None:
        self.number = number

    def __call__(self, output: Mapping[str, Any]) -> Float[Tensor, "n"]:
        """One number per version of this class, none where the batch has none."""
        pred, truth = output["pred"].argmax(-1), output["label"]["rotation"]
        return (pred[truth == self.number] == self.number).float()


def validation_metrics(
    spatial_dims: int = 3, axes: Sequence[int] | None = None, per_class: bool = False
) -> dict[str, Metric]:
    """The metrics of a validation, by name: means over all held-out versions, 0 to 1.

    `rotation_accuracy` is the fraction that is recognised; `chance` is 0.1, in 2D 0.25.

    Args:
        spatial_dims: Number of spatial axes, 3 or 2.
        axes: Axes of the rotations, as in `RandRotationsd`.
        per_class: Whether there is an accuracy of each rotation, too, by axis and degrees.

    Examples:
        >>> list(validation_metrics(spatial_dims=2, per_class=True))[3:]
        ['accuracy_0', 'accuracy_axis2_90', 'accuracy_axis2_180', 'accuracy_axis2_270']
    """
    rotations = rotation_classes(spatial_dims, axes)
    metrics = {
        **class_metrics("rotation"),
        "accuracy_up_to_half_turns": SampleMean(AccuracyUpToHalfTurns(rotations)),
    }
    for number, (axis, turns) in enumerate(rotations if per_class else ()):
        name = f"accuracy_axis{axis}_{90 * turns}" if turns else "accuracy_0"
        metrics[name] = SampleMean(RotationRecall(number))
    return metrics

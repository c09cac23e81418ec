"""The loss of a segmentation: of classes, which exclude each other, or of regions, which may overlap."""

from collections.abc import Mapping
from typing import Any

import torch
from monai.losses import DiceCELoss, DiceLoss
from torch import nn

from pretext3d.annotations import Float, Shaped, Tensor
from pretext3d.checking import boolean
from pretext3d.data.labels import LabelMap
from pretext3d.ops.masks import class_masks

__all__ = ["SegmentationLoss"]


class SegmentationLoss(nn.Module):
    """Dice loss and cross-entropy, each the mean over outputs, added with weight 1.

    Of classes this is MONAI's `DiceCELoss` with softmax. Of regions the outputs are independent: sigmoid,
    Dice of each region, and binary cross-entropy, the mean over voxels and regions.

    Args:
        labels: Label map, in plain form.
        cross_entropy: Add the cross-entropy; False: Dice alone.
        include_background: Whether the Dice loss has a term for class 0; regions have no background.

    Raises:
        UserError: a flag that is neither True nor False.
    """

    def __init__(
        self, labels: Mapping[str, Any], cross_entropy: Any = True, include_background: Any = True
    ) -> None:
        super().__init__()
        boolean("cross_entropy", cross_entropy)
        boolean("dice_background", include_background)  # the key
        found = LabelMap.of(labels)
        self.members = found.members() if found.regions else []
        kind = DiceCELoss if cross_entropy and not self.members else DiceLoss
        output = {"sigmoid": True} if self.members else {"softmax": True, "to_onehot_y": True}
        self.dice = kind(include_background=include_background or bool(self.members), **output)
        self.binary_cross_entropy = nn.BCEWithLogitsLoss() if cross_entropy and self.members else None

    def forward(
        self, logits: Float[Tensor, "b c *space"], classes: Shaped[Tensor, "b 1 *space"]
    ) -> Float[Tensor, ""]:
        """The loss of a batch.

        Args:
            logits: Outputs of the network.
            classes: Class of each voxel.
        """
        if not self.members:
            loss: Tensor = self.dice(logits, classes)
            return loss
        masks = class_masks(classes.long(), self.members, channel=1).to(logits.dtype)
        loss = self.dice(logits, masks)
        if self.binary_cross_entropy is not None:
            loss = loss + self.binary_cross_entropy(logits, masks)
        return torch.as_tensor(loss)

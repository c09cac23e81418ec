"""The segmentation network that every pretext task hands its weights to."""

from monai.networks.layers.factories import Conv
from torch import nn

from pretext3d.errors import UserError
from pretext3d.networks.backbone import Backbone
from pretext3d.shapes import Float, Tensor

__all__ = ["SegmentationNet"]


class SegmentationNet(nn.Module):
    """A backbone and a 1x1x1 convolution to one logit for each class.

    Args:
        backbone: see `factory.build_backbone`.
        num_classes: background included; 1 for a single sigmoid output.

    Raises:
        UserError: num_classes is no whole number of 1 or more.
    """

    def __init__(self, backbone: Backbone, num_classes: int) -> None:
        super().__init__()
        if not isinstance(num_classes, int) or num_classes < 1:
            raise UserError(f"num_classes: found {num_classes!r}, expected a whole number of 1 or more")
        self.backbone = backbone
        self.head = Conv[Conv.CONV, backbone.spatial_dims](backbone.out_channels, num_classes, kernel_size=1)

    def forward(self, x: Float[Tensor, "b c *space"]) -> Float[Tensor, "b classes *space"]:
        """Logits."""
        return self.head(self.backbone.decode(self.backbone.encode(x)))

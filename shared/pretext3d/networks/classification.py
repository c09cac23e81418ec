"""The classification network on the pre-trained encoder (Zhuang et al., MICCAI 2019, section 2.2)."""

from torch import nn

from pretext3d.annotations import Float, Tensor
from pretext3d.checking import integer
from pretext3d.networks.backbone import Backbone

__all__ = ["ClassificationNet"]


class ClassificationNet(nn.Module):
    """A backbone's coarsest map, averaged over space, and a linear layer to one logit per class.

    Args:
        backbone: Backbone from `factory.build_backbone`; its decoder is not trained.
        num_classes: Number of classes, 2 or more.

    Raises:
        UserError: For fewer than two classes.
    """

    def __init__(self, backbone: Backbone, num_classes: int) -> None:
        super().__init__()
        integer("num_classes", num_classes, minimum=2)
        self.backbone = backbone.train_encoder_only()
        self.head = nn.Linear(backbone.feature_channels[-1], num_classes)

    def forward(self, x: Float[Tensor, "b c *space"]) -> Float[Tensor, "b classes"]:
        """Logits."""
        return self.head(self.backbone.encode_coarsest(x).flatten(2).mean(-1))

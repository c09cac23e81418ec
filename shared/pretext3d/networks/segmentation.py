"""The segmentation network that every pretext task transfers its weights to."""

from monai.networks.blocks import SubpixelUpsample
from monai.networks.layers.factories import Conv
from torch import nn

from pretext3d.annotations import Float, Tensor
from pretext3d.checking import integer
from pretext3d.errors import UserError
from pretext3d.networks.backbone import Backbone

__all__ = ["SegmentationNet"]

DECODERS = ("", "duc")


class SegmentationNet(nn.Module):
    """A backbone and a layer to one logit per class.

    With the backbone's own decoder that layer is a 1x1x1 convolution of the decoder's map. With `duc` (dense
    upsampling convolution; Wang et al., "Understanding convolution for semantic segmentation", WACV 2018; in
    3D Zhuang et al., MICCAI 2019) it reads only the encoder's coarsest map: a 1x1x1 convolution to
    num_classes * r^3 channels, with the map's stride r, and a pixel shuffle to full resolution. After a
    pre-training of the encoder alone, only this layer is new, with c * num_classes * r^3 weights for c
    channels. That is few for small r; at r = 8 and 8 classes it is as many as a U-Net's decoder has. The cost
    is detail finer than r voxels.

    Args:
        backbone: Backbone from `factory.build_backbone`.
        num_classes: Number of classes, background included; 1 for a single sigmoid output.
        decoder: Name of the decoder: '' = the backbone's own, or `duc`.

    Raises:
        UserError: If num_classes is not an integer of 1 or more, the decoder is unknown, or `duc` is given
            with a backbone whose coarsest map has different strides along different axes.
    """

    def __init__(self, backbone: Backbone, num_classes: int, decoder: str = "") -> None:
        super().__init__()
        integer("num_classes", num_classes, minimum=1)
        if decoder not in DECODERS:
            raise UserError(f"decoder: found {decoder!r}, expected '' (the encoder's own) or 'duc'")
        self.decoder = decoder
        dims = backbone.spatial_dims
        if not decoder:
            self.backbone = backbone
            self.head = Conv[Conv.CONV, dims](backbone.out_channels, num_classes, kernel_size=1)
            return
        strides = set(backbone.axis_strides[-1])
        if len(strides) > 1:
            raise UserError(
                f"decoder: found 'duc', but the encoder's coarsest map has strides "
                f"{backbone.axis_strides[-1]}; expected the same along every axis"
            )
        self.backbone = backbone.train_encoder_only()
        stride, deepest = strides.pop(), backbone.feature_channels[-1]
        convolution = Conv[Conv.CONV, dims](deepest, num_classes * stride**dims, kernel_size=1)
        self.head = SubpixelUpsample(
            dims, deepest, num_classes, stride, conv_block=convolution, apply_pad_pool=False
        )

    def forward(self, x: Float[Tensor, "b c *space"]) -> Float[Tensor, "b classes *space"]:
        """Logits."""
        if not self.decoder:
            return self.head(self.backbone(x))
        # a coarsest map that was rounded up extends beyond the input
        return self.head(self.backbone.encode_coarsest(x))[(..., *(slice(size) for size in x.shape[2:]))]

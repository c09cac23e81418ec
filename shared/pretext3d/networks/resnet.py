"""Residual encoders with the light additive decoder of VectorPOSE.

Sources: He et al., "Deep residual learning for image recognition", CVPR 2016, in the 3D form that MONAI
shares with MedicalNet; VectorPOSE, section 2.3: a 3D ResNet-50 as encoder, and a light decoder of linear
upsampling and additions.

Ours, where the paper is silent:
- The stem is the usual one (7x7x7 convolution with stride 2, max pooling), so the residual stages see strides
  4, 8, 16, 32 at the usual cost of a ResNet. Its finest map is at half resolution: too coarse to draw a
  boundary that is one voxel wide. A parallel branch, one 3x3x3 convolution from the image to 16 channels,
  norm and ReLU, gives the decoder a map at full resolution.
- The decoder brings each map to a common width with a 1x1x1 convolution, and from coarse to fine upsamples
  the sum so far (trilinear) and adds; norm and ReLU follow each addition, or the complete decoder would be
  one linear map.
- Maps are upsampled to the size of the finer one rather than by 2: sizes need not be multiples of 32.
  Multiples of 8 are required: up to stride 8 every map is exact, beyond it sizes are rounded up.
- Shortcuts are 1x1x1 convolutions in every depth. MONAI's own setting for ResNet-18 (type A, a slice padded
  with zeros) detaches the shortcut from the gradient.
"""

import torch.nn.functional as F
from monai.networks.layers.factories import Conv
from monai.networks.layers.utils import get_norm_layer
from monai.networks.nets import resnet as monai_resnet
from torch import nn

from pretext3d.annotations import Float, Tensor
from pretext3d.checking import integer
from pretext3d.errors import UserError
from pretext3d.networks.backbone import Backbone
from pretext3d.ops.tensors import LINEAR

__all__ = ["AdditiveDecoder", "ResNet"]

DEPTHS = {10: ("basic", (1, 1, 1, 1)), 18: ("basic", (2, 2, 2, 2)), 50: ("bottleneck", (3, 4, 6, 3))}
PLANES = (64, 128, 256, 512)


class AdditiveDecoder(nn.Module):
    """Fuses feature maps by upsampling and addition.

    x_M = W_M f_M for the coarsest map f_M, then x_m = ReLU(norm(up(x_{m+1}) + W_m f_m)).

    Args:
        feature_channels: Channels of the maps, fine to coarse.
        width: Channels of every x_m.
        spatial_dims: Number of spatial axes, 3 or 2.
    """

    def __init__(self, feature_channels: tuple[int, ...], width: int, spatial_dims: int) -> None:
        super().__init__()
        self.mode = LINEAR[spatial_dims]
        # no bias: the norm after each addition has one
        self.lateral = nn.ModuleList(
            Conv[Conv.CONV, spatial_dims](channels, width, kernel_size=1, bias=False)
            for channels in feature_channels
        )
        self.norm = nn.ModuleList(
            get_norm_layer(name="batch", spatial_dims=spatial_dims, channels=width)
            for _ in feature_channels[:-1]
        )

    def forward(self, features: list[Tensor]) -> Tensor:
        """The map at the size of the finest one."""
        x = self.lateral[-1](features[-1])
        for level in reversed(range(len(self.norm))):
            fine = self.lateral[level](features[level])
            x = fine + F.interpolate(x, size=fine.shape[2:], mode=self.mode, align_corners=False)
            x = F.relu(self.norm[level](x), inplace=True)
        return x


class ResNet(Backbone):
    """ResNet-10, -18 or -50 with a full-resolution branch and the additive decoder.

    Maps of `encode`: `detail` channels at stride 1, 64 at 2, then the four stages at 4, 8, 16 and 32 with
    64/128/256/512 channels, four times as many in ResNet-50.

    Args:
        in_channels: Number of channels of the image.
        depth: Depth of the ResNet, 10, 18 or 50.
        width: Channels of the decoder and of its map.
        detail: Channels of the full-resolution branch.
        spatial_dims: Number of spatial axes, 3 or 2.

    Raises:
        UserError: For another depth, or an invalid width or detail.
    """

    outside_encoder = ("detail", "decoder")
    encodes_any_size = True

    def __init__(
        self, in_channels: int, depth: int = 50, width: int = 64, detail: int = 16, spatial_dims: int = 3
    ) -> None:
        if depth not in DEPTHS:
            raise UserError(f"depth: found {depth!r}, expected one of {', '.join(map(str, DEPTHS))}")
        for key, value in (("width", width), ("detail", detail)):
            integer(key, value, minimum=1)
        block, layers = DEPTHS[depth]
        expansion = 4 if block == "bottleneck" else 1
        super().__init__(
            in_channels,
            spatial_dims,
            feature_channels=(detail, PLANES[0], *(planes * expansion for planes in PLANES)),
            strides=(1, 2, 4, 8, 16, 32),
            out_channels=width,
            size_divisor=8,
        )
        self.detail = nn.Sequential(
            Conv[Conv.CONV, spatial_dims](in_channels, detail, kernel_size=3, padding=1, bias=False),
            get_norm_layer(name="batch", spatial_dims=spatial_dims, channels=detail),
            nn.ReLU(inplace=True),
        )
        net = monai_resnet.ResNet(
            block=block,
            layers=list(layers),
            block_inplanes=list(PLANES),
            spatial_dims=spatial_dims,
            n_input_channels=in_channels,
            conv1_t_size=7,
            conv1_t_stride=2,
            shortcut_type="B",
            bias_downsample=False,
            feed_forward=False,
        )
        # MONAI's and MedicalNet's names, so that their weights can be read under `backbone.`
        self.conv1, self.bn1, self.act, self.maxpool = net.conv1, net.bn1, net.act, net.maxpool
        self.layer1, self.layer2, self.layer3, self.layer4 = net.layer1, net.layer2, net.layer3, net.layer4
        self.decoder = AdditiveDecoder(self.feature_channels, width, spatial_dims)

    def encode(self, x: Float[Tensor, "b c *space"]) -> list[Tensor]:
        """The full-resolution branch, the stem, and the four stages."""
        return [self.detail(x), *self._stages(x)]

    def encode_coarsest(self, x: Float[Tensor, "b c *space"]) -> Tensor:
        """The last stage."""
        return self._stages(x)[-1]

    def _stages(self, x: Tensor) -> list[Tensor]:
        self.check_batch(x)
        features = [self.act(self.bn1(self.conv1(x)))]
        x = self.maxpool(features[0])
        for stage in (self.layer1, self.layer2, self.layer3, self.layer4):
            x = stage(x)
            features.append(x)
        return features

    def decode(self, features: list[Tensor]) -> Float[Tensor, "b out *space"]:
        """See `AdditiveDecoder`."""
        return self.decoder(features)

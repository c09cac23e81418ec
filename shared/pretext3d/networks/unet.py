"""A plain U-Net, by default that of supervoxel in-painting.

Source: Kayal, Chen, de Bruijne, "Region-of-interest guided supervoxel inpainting for self-supervision",
MICCAI 2020: 3 levels of 16, 32 and 64 channels, two 3x3x3 convolutions per level, batch norm after each,
ReLU, zero padding, concatenated skips.

Ours, where the paper is silent: pooling is the maximum over 2 voxels along each axis; a 2x2x2 transposed
convolution with stride 2 upsamples maps and halves their channels. In a training step on one CPU thread
(16/32/64/128 channels, batch 8 of 32^3) trilinear upsampling after a 1x1x1 convolution takes 3 to 15 %
longer; instance norm 9 % longer than batch norm, group norm 10 % less.
"""

import itertools
from collections.abc import Sequence
from typing import Any

import torch
from monai.networks.layers.factories import Conv, Pool
from monai.networks.layers.utils import get_norm_layer
from torch import nn

from pretext3d.annotations import Float, Tensor
from pretext3d.checking import one_of
from pretext3d.errors import UserError
from pretext3d.networks.axis_order import axis_to_swap, call_swapped, swapped
from pretext3d.networks.backbone import Backbone

__all__ = ["UNet"]

NORMS: dict[str, str | tuple[str, dict[str, object]]] = {
    "batch": "batch",
    "instance": ("instance", {"affine": True}),
    "group": ("group", {"num_groups": 8}),
}


def convolution_block(
    spatial_dims: int, source: int, target: int, norm: str, count: int = 2, norm_last: bool = False
) -> nn.Sequential:
    """`count` times: 3x3x3 convolution with zero padding, norm, ReLU; with `norm_last` the norm last.

    A convolution right before its norm has no bias, since the norm has one.
    """
    layers: list[nn.Module] = []
    for channels in (source, *(target,) * (count - 1)):
        normalise = get_norm_layer(name=NORMS[norm], spatial_dims=spatial_dims, channels=target)
        activate = nn.ReLU(inplace=True)
        layers += [
            Conv[Conv.CONV, spatial_dims](channels, target, kernel_size=3, padding=1, bias=norm_last),
            *((activate, normalise) if norm_last else (normalise, activate)),
        ]
    return nn.Sequential(*layers)


class UNet(Backbone):
    """U-Net without an output layer; `decode` returns channels[0] channels.

    With more levels and other numbers of convolutions the encoder is a 3D VGG (see `factory.ENCODERS`).

    With one input channel and the default channels it has 339,552 parameters.

    Args:
        in_channels: Number of channels of the image.
        channels: Channels of each level, fine to coarse; each level halves the map.
        norm: Kind of norm: `batch` (the paper), `instance` or `group` (8 groups).
        convolutions: Convolutions of each level of the encoder, one number or one per level; the decoder has
            2 per level.
        spatial_dims: Number of spatial axes, 3 or 2.
        norm_last: Whether the norm comes after the ReLU, as in Taleb et al., NeurIPS 2020.

    Raises:
        UserError: For fewer than two levels, an invalid number of channels, or an unknown norm.
    """

    outside_encoder = ("up", "merge")
    encodes_any_size = True

    def __init__(
        self,
        in_channels: int,
        channels: Sequence[int] = (16, 32, 64),
        norm: str = "batch",
        spatial_dims: int = 3,
        convolutions: int | Sequence[Any] = 2,
        norm_last: bool = False,
    ) -> None:
        channels = tuple(channels)
        counts = (convolutions,) * len(channels) if isinstance(convolutions, int) else tuple(convolutions)
        if len(counts) != len(channels) or not all(isinstance(n, int) and n > 0 for n in counts):
            raise UserError(
                f"convolutions: found {convolutions!r}, expected one integer, or one for each of the "
                f"{len(channels)} levels"
            )
        if len(channels) < 2 or not all(isinstance(c, int) and c > 0 for c in channels):
            raise UserError(f"channels: found {list(channels)}, expected two or more integers")
        one_of("norm", norm, NORMS)
        if norm == "group" and any(c % 8 for c in channels):
            raise UserError(f"channels: found {list(channels)}, expected multiples of 8 with norm 'group'")
        super().__init__(
            in_channels,
            spatial_dims,
            feature_channels=channels,
            strides=[2**level for level in range(len(channels))],
            out_channels=channels[0],
            min_voxels=2 if norm == "instance" else 1,
        )
        self.batch_statistics = norm == "batch"
        self.pool = Pool[Pool.MAX, spatial_dims](kernel_size=2, ceil_mode=True)
        pairs = list(itertools.pairwise(channels))
        self.down = nn.ModuleList(
            convolution_block(spatial_dims, source, target, norm, count, norm_last)
            for (source, target), count in zip([(self.in_channels, channels[0]), *pairs], counts, strict=True)
        )
        self.up = nn.ModuleList(
            Conv[Conv.CONVTRANS, spatial_dims](coarse, fine, kernel_size=2, stride=2)
            for fine, coarse in pairs
        )
        self.merge = nn.ModuleList(
            convolution_block(spatial_dims, 2 * fine, fine, norm, norm_last=norm_last)
            for fine in channels[:-1]
        )

    def encode(self, x: Float[Tensor, "b c *space"]) -> list[Tensor]:
        """One map per level, before its pooling."""
        if self.batch_statistics:
            self.check_batch(x)
        axis = axis_to_swap(self, x)
        x = swapped(x, axis)
        features: list[Tensor] = []
        for level, block in enumerate(self.down):
            x = call_swapped(block, self.pool(x) if level else x, axis)
            features.append(x.transpose(axis, -1))
        return features

    def decode(self, features: list[Tensor]) -> Float[Tensor, "b out *space"]:
        """The finest level's map after its two convolutions."""
        axis = axis_to_swap(self, features[0])
        x = swapped(features[-1], axis)
        for level in reversed(range(len(self.up))):
            upsampled = call_swapped(self.up[level], x, axis)
            both = torch.cat([swapped(features[level], axis), upsampled], dim=1)
            x = call_swapped(self.merge[level], both, axis)
        return x.transpose(axis, -1)

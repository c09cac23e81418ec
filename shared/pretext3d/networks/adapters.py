"""MONAI's SwinUNETR, UNETR, DynUNet and SegResNet behind the encode/decode interface.

The modules are MONAI's own, under MONAI's names (`swinViT.layers1...`, `vit.blocks...`), so that their
published weights can be read under `backbone.`. Left out are the output layers and, in DynUNet, the deep
supervision and the second listing of every module in `skip_layers`. `decode` returns the input of MONAI's
output layer.
"""

from collections.abc import Sequence

from monai.networks import nets

from pretext3d.annotations import Float, Tensor
from pretext3d.errors import UserError
from pretext3d.networks.backbone import Backbone, check_sizes
from pretext3d.networks.vit import TokenBackbone, require_einops

__all__ = ["DynUNetBackbone", "SegResNetBackbone", "SwinUNETRBackbone", "UNETRBackbone"]

MAX_LEVELS = 6  # nnU-Net's number of levels for 128^3
MIN_EDGE = 4  # fewest voxels that nnU-Net leaves along an axis


class SwinUNETRBackbone(Backbone):
    """SwinUNETR (Hatamizadeh et al., 2022, arXiv:2201.01266).

    Maps of `encode`: the image's block at stride 1, then the Swin stages behind their residual blocks
    (strides 2, 4, 8), the fourth stage without a block (16), the fifth behind its block (32). A roi_size of
    32 along every axis is refused: the coarsest map would be one voxel, which instance norm cannot process.

    Args:
        in_channels: Number of channels of the image.
        feature_size: Channels of the finest map, a multiple of 12; 48 as in AVS-DB and MONAI's recipes.
        use_checkpoint: Recompute the Swin stages in the backward pass: less memory, more time.
        spatial_dims: Number of spatial axes, 3 or 2.

    Raises:
        UserError: If feature_size is not a multiple of 12, or einops is not installed.
    """

    outside_encoder = (
        "encoder1", "encoder2", "encoder3", "encoder4",
        "decoder5", "decoder4", "decoder3", "decoder2", "decoder1",
    )  # fmt: skip

    def __init__(
        self, in_channels: int, feature_size: int = 48, use_checkpoint: bool = False, spatial_dims: int = 3
    ) -> None:
        require_einops("swin_unetr")
        if not isinstance(feature_size, int) or feature_size < 12 or feature_size % 12:
            raise UserError(f"feature_size: found {feature_size!r}, expected a multiple of 12")
        super().__init__(
            in_channels,
            spatial_dims,
            feature_channels=[feature_size * factor for factor in (1, 1, 2, 4, 8, 16)],
            strides=(1, 2, 4, 8, 16, 32),
            out_channels=feature_size,
            min_voxels=2,
        )
        net = nets.SwinUNETR(
            in_channels=in_channels,
            out_channels=1,
            feature_size=feature_size,
            use_checkpoint=use_checkpoint,
            spatial_dims=spatial_dims,
        )
        self.swinViT = net.swinViT
        self.encoder1, self.encoder2, self.encoder3 = net.encoder1, net.encoder2, net.encoder3
        self.encoder4, self.encoder10 = net.encoder4, net.encoder10
        self.decoder5, self.decoder4, self.decoder3 = net.decoder5, net.decoder4, net.decoder3
        self.decoder2, self.decoder1 = net.decoder2, net.decoder1

    def encode(self, x: Float[Tensor, "b c *space"]) -> list[Tensor]:
        """The maps that MONAI's decoder takes."""
        hidden = self.swinViT(x, True)
        return [
            self.encoder1(x),
            self.encoder2(hidden[0]),
            self.encoder3(hidden[1]),
            self.encoder4(hidden[2]),
            hidden[3],
            self.encoder10(hidden[4]),
        ]

    def encode_coarsest(self, x: Float[Tensor, "b c *space"]) -> Tensor:
        """The transformer's last map, without the blocks of the skips."""
        return self.encoder10(self.swinViT(x, True)[4])

    def decode(self, features: list[Tensor]) -> Float[Tensor, "b out *space"]:
        """The map before MONAI's `out`."""
        *skips, x = features
        blocks = (self.decoder5, self.decoder4, self.decoder3, self.decoder2, self.decoder1)
        for block, skip in zip(blocks, reversed(skips), strict=True):
            x = block(x, skip)
        return x


class UNETRBackbone(TokenBackbone):
    """UNETR (Hatamizadeh et al., WACV 2022, arXiv:2103.10504): a ViT-B/16 and a convolutional decoder.

    Maps of `encode`: the image's block at stride 1; the tokens of the 4th, 7th and 10th transformer block
    upsampled to strides 2, 4 and 8; the last tokens as a map at stride 16.

    Args:
        in_channels: Number of channels of the image.
        roi_size: Voxels of every input, multiples of 16.
        feature_size: Channels of the finest map.
        hidden_size: Width of a token.
        mlp_dim: Hidden width of the transformer's MLPs.
        num_heads: Number of attention heads; divides hidden_size.
        spatial_dims: Number of spatial axes, 3 or 2.

    Raises:
        UserError: If roi_size is not as above, hidden_size is not a multiple of num_heads, or einops is not
            installed.
    """

    outside_encoder = (
        "encoder1", "encoder2", "encoder3", "encoder4", "decoder5", "decoder4", "decoder3", "decoder2",
    )  # fmt: skip

    def __init__(
        self,
        in_channels: int,
        roi_size: Sequence[int],
        feature_size: int = 16,
        hidden_size: int = 768,
        mlp_dim: int = 3072,
        num_heads: int = 12,
        spatial_dims: int = 3,
    ) -> None:
        require_einops("unetr")
        if num_heads < 1 or hidden_size % num_heads:
            raise UserError(f"hidden_size: found {hidden_size}, expected a multiple of num_heads {num_heads}")
        super().__init__(
            in_channels,
            spatial_dims,
            feature_channels=(*(feature_size * factor for factor in (1, 2, 4, 8)), hidden_size),
            strides=(1, 2, 4, 8, 16),
            out_channels=feature_size,
        )
        self.check_roi_size(roi_size)
        net = nets.UNETR(
            in_channels=in_channels,
            out_channels=1,
            img_size=tuple(roi_size),
            feature_size=feature_size,
            hidden_size=hidden_size,
            mlp_dim=mlp_dim,
            num_heads=num_heads,
            spatial_dims=spatial_dims,
        )
        self.set_transformer(roi_size, net.vit)
        self.encoder1, self.encoder2, self.encoder3 = net.encoder1, net.encoder2, net.encoder3
        self.encoder4 = net.encoder4
        self.decoder5, self.decoder4 = net.decoder5, net.decoder4
        self.decoder3, self.decoder2 = net.decoder3, net.decoder2

    def encode(self, x: Float[Tensor, "b c *space"]) -> list[Tensor]:
        """The maps that MONAI's decoder takes.

        Raises:
            UserError: If x is not of roi_size.
        """
        last, hidden = self.tokens(x)
        return [
            self.encoder1(x),
            self.encoder2(self.to_map(hidden[3])),
            self.encoder3(self.to_map(hidden[6])),
            self.encoder4(self.to_map(hidden[9])),
            self.to_map(last),
        ]

    def decode(self, features: list[Tensor]) -> Float[Tensor, "b out *space"]:
        """The map before MONAI's `out`."""
        *skips, x = features
        blocks = (self.decoder5, self.decoder4, self.decoder3, self.decoder2)
        for block, skip in zip(blocks, reversed(skips), strict=True):
            x = block(x, skip)
        return x


def plan_strides(roi_size: Sequence[int]) -> list[list[int]]:
    """Strides of each DynUNet level for a roi_size, after nnU-Net.

    A level halves every axis that is even, keeps 4 voxels or more, and is not already shorter than half of
    the longest; at most 6 levels and at least 3. nnU-Net compares the axes' spacings; here the sizes are used
    instead.

    Returns:
        One list per level, the first all ones: (96, 96, 96) gives 1, 2, 2, 2, 2 along every axis.

    Raises:
        UserError: For sizes that are not multiples of 4, or none of 16 or more.

    Examples:
        >>> plan_strides((32, 32, 16))
        [[1, 1, 1], [2, 2, 2], [2, 2, 2], [2, 2, 1]]
    """
    sizes = list(roi_size)
    if any(size % MIN_EDGE for size in sizes) or max(sizes) < 4 * MIN_EDGE:
        nearest = [max(MIN_EDGE, round(size / MIN_EDGE) * MIN_EDGE) for size in sizes]
        if max(nearest) < 4 * MIN_EDGE:
            nearest = [4 * MIN_EDGE] * len(sizes)
        raise UserError(
            f"roi_size: found {list(roi_size)}, expected multiples of {MIN_EDGE}, one of them "
            f"{4 * MIN_EDGE} or more, for DynUNet; nearest valid: {nearest}"
        )
    strides = [[1] * len(sizes)]
    while len(strides) < MAX_LEVELS:
        longest = max(sizes)
        stride = [
            2 if size % 2 == 0 and size >= 2 * MIN_EDGE and 2 * size >= longest else 1 for size in sizes
        ]
        if max(stride) == 1:
            break
        sizes = [size // s for size, s in zip(sizes, stride, strict=True)]
        strides.append(stride)
    return strides + [[1] * len(sizes)] * (3 - len(strides))


class DynUNetBackbone(Backbone):
    """DynUNet, MONAI's nnU-Net (Isensee et al., 2021, arXiv:1904.08128), without deep supervision.

    3x3x3 convolutions, instance norm, leaky ReLU, channels 32, 64, 128, 256, 320, 320. The strides follow
    from roi_size and are kept in `options`, so that a checkpoint is rebuilt with the same strides for another
    roi_size.

    Args:
        in_channels: Number of channels of the image.
        roi_size: Voxels of a crop, from which the strides follow.
        strides: Strides to use instead, one list per level; at least 3, the first all ones.
        spatial_dims: Number of spatial axes, 3 or 2.

    Raises:
        UserError: For a roi_size that `plan_strides` refuses, or invalid strides.
    """

    outside_encoder = ("upsamples",)

    def __init__(
        self,
        in_channels: int,
        roi_size: Sequence[int],
        strides: Sequence[Sequence[int]] | None = None,
        spatial_dims: int = 3,
    ) -> None:
        sizes = check_sizes(roi_size, spatial_dims)
        levels = [list(stride) for stride in strides] if strides else plan_strides(sizes)
        if len(levels) < 3 or max(levels[0]) > 1 or any(len(s) != spatial_dims or min(s) < 1 for s in levels):
            raise UserError(
                f"strides: found {levels}, expected 3 or more levels of {spatial_dims} integers, "
                "the first all ones"
            )
        total = [levels[0]]
        for stride in levels[1:]:
            total.append([a * b for a, b in zip(total[-1], stride, strict=True)])
        filters = [min(32 * 2**level, 320) for level in range(len(levels))]
        super().__init__(in_channels, spatial_dims, filters, total, out_channels=filters[0], min_voxels=2)
        net = nets.DynUNet(
            spatial_dims=spatial_dims,
            in_channels=in_channels,
            out_channels=1,
            kernel_size=[[3] * spatial_dims] * len(levels),
            strides=levels,
            upsample_kernel_size=levels[1:],
            filters=filters,
            deep_supervision=False,
        )
        self.input_block, self.downsamples = net.input_block, net.downsamples
        self.bottleneck, self.upsamples = net.bottleneck, net.upsamples
        self.options = {"strides": levels}

    def encode(self, x: Float[Tensor, "b c *space"]) -> list[Tensor]:
        """One map per level."""
        features: list[Tensor] = []
        for block in (self.input_block, *self.downsamples, self.bottleneck):
            x = block(x)
            features.append(x)
        return features

    def decode(self, features: list[Tensor]) -> Float[Tensor, "b out *space"]:
        """The map before MONAI's `output_block`."""
        *skips, x = features
        for block, skip in zip(self.upsamples, reversed(skips), strict=True):
            x = block(x, skip)
        return x


class SegResNetBackbone(Backbone):
    """SegResNet (Myronenko, 2018, arXiv:1810.11654) without the variational branch.

    Args:
        in_channels: Number of channels of the image.
        init_filters: Channels of the finest map, a multiple of 8; 32 as in the paper (MONAI's default is 8).
        spatial_dims: Number of spatial axes, 3 or 2.

    Raises:
        UserError: If init_filters is not a multiple of 8.
    """

    outside_encoder = ("up_samples", "up_layers", "conv_final")

    def __init__(self, in_channels: int, init_filters: int = 32, spatial_dims: int = 3) -> None:
        if not isinstance(init_filters, int) or init_filters < 8 or init_filters % 8:
            raise UserError(f"init_filters: found {init_filters!r}, expected a multiple of 8")
        super().__init__(
            in_channels,
            spatial_dims,
            feature_channels=[init_filters * factor for factor in (1, 2, 4, 8)],
            strides=(1, 2, 4, 8),
            out_channels=init_filters,
        )
        net = nets.SegResNet(
            spatial_dims=spatial_dims,
            init_filters=init_filters,
            in_channels=in_channels,
            out_channels=1,
            blocks_down=(1, 2, 2, 4),
            blocks_up=(1, 1, 1),
        )
        self.convInit, self.down_layers = net.convInit, net.down_layers
        self.up_samples, self.up_layers = net.up_samples, net.up_layers
        self.conv_final = net.conv_final[:-1]  # norm and activation stay: the blocks end before theirs

    def encode(self, x: Float[Tensor, "b c *space"]) -> list[Tensor]:
        """One map per level."""
        x = self.convInit(x)
        features: list[Tensor] = []
        for layer in self.down_layers:
            x = layer(x)
            features.append(x)
        return features

    def decode(self, features: list[Tensor]) -> Float[Tensor, "b out *space"]:
        """The map before the last convolution of MONAI's `conv_final`."""
        *skips, x = features
        for up, layer, skip in zip(self.up_samples, self.up_layers, reversed(skips), strict=True):
            x = layer(up(x) + skip)
        return self.conv_final(x)

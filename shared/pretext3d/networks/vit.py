"""Networks with one token per patch of the input: what they share, and a small one for laptops.

`ViTBackbone` is MONAI's `ViT` under a light convolutional decoder. Source of the transformer: Dosovitskiy et
al., ICLR 2021 (arXiv:2010.11929); its width of 192 and 3 heads are those of ViT-Tiny (Touvron et al., ICML
2021, arXiv:2012.12877). Ours: 6 layers in place of 12, patches that follow from roi_size, the decoder.

With patches of 8 or 16 voxels, tokens alone leave the edges of structures blurred. Maps of the image at every
stride before that of a patch, one strided convolution each, sharpen them: on slices of cardiac MR (patches of
8 x 8, 120 steps) Dice was 0.33 with those at strides 1 and 2 alone; with that at stride 4 as well it was 0.63
and 0.51 (two seeds), where `unet4` had 0.56 and 0.63.
"""

import math
from abc import ABC
from collections.abc import Sequence
from typing import Any

import torch
from monai.networks import nets
from monai.networks.layers.factories import Conv
from monai.networks.layers.utils import get_act_layer, get_norm_layer
from monai.utils import optional_import
from torch import nn

from pretext3d.annotations import Float, Tensor
from pretext3d.checking import integer
from pretext3d.errors import UserError
from pretext3d.networks.backbone import Backbone, check_sizes

__all__ = ["TokenBackbone", "ViTBackbone", "plan_steps", "require_einops"]

MAX_TOKENS = 256  # that a planned patch size gives; attention grows with their square
MAX_LAYERS = 64
MIN_STEPS = 2  # halvings from the image to its tokens


def require_einops(encoder: str) -> None:
    """Check for einops, which the transformers of MONAI need and MONAI does not install.

    Raises:
        UserError: If einops is not installed.
    """
    if not optional_import("einops")[1]:
        raise UserError(f"encoder: {encoder} needs the package einops: pip install einops")


class TokenBackbone(Backbone, ABC):
    """A backbone around MONAI's `ViT`, which has one position embedding per token.

    It takes inputs of roi_size only; a transfer of weights to another roi_size resamples `position_keys`.
    Patches are as large as the strides of the coarsest map, which is the map of the tokens.

    Attributes:
        roi_size: Voxels of every input.
        vit: The transformer.
    """

    position_keys = ("vit.patch_embedding.position_embeddings",)
    roi_size: tuple[int, ...]
    vit: nets.ViT

    def set_transformer(self, roi_size: Sequence[int], vit: nets.ViT) -> None:
        """Keep the transformer, without the norms of a cross-attention that it does not have."""
        self.roi_size = tuple(int(size) for size in roi_size)
        for block in vit.blocks:
            block.norm_cross_attn = nn.Identity()  # MONAI builds it and does not call it
        self.vit = vit

    def encode_coarsest(self, x: Float[Tensor, "b c *space"]) -> Tensor:
        """The transformer's tokens as a map, without the blocks of the skips."""
        return self.to_map(self.tokens(x)[0])

    def tokens(self, x: Float[Tensor, "b c *space"]) -> tuple[Tensor, list[Tensor]]:
        """The tokens (b, tokens, width) after the last norm, and those after each block.

        Raises:
            UserError: If x is not of roi_size.
        """
        tracing = torch.jit.is_tracing()  # type: ignore[attr-defined]
        if not tracing and tuple(x.shape[2:]) != self.roi_size:
            raise UserError(
                f"roi_size: found an input of {list(x.shape[2:])}, expected {list(self.roi_size)}: "
                f"{type(self).__name__.removesuffix('Backbone')} has a position embedding for each token of "
                "the roi_size that it was built for"
            )
        last, hidden = self.vit(x)
        return last, hidden

    def to_map(self, tokens: Float[Tensor, "b tokens width"]) -> Float[Tensor, "b width *grid"]:
        """Tokens at their places in the image."""
        return tokens.transpose(1, 2).reshape(len(tokens), -1, *self.map_sizes(self.roi_size)[-1])


def plan_steps(roi_size: Sequence[int]) -> list[list[int]]:
    """Steps from the image to its tokens: the downsampling of each level relative to the one before.

    A step halves every axis that is even and not already shorter than half of the longest, as DynUNet's do;
    the last one is the first, of two or more, after which there are 256 tokens or fewer.

    Returns:
        One list per step; the product of all is the patch size. (64, 64, 8) gives patches of 8x8x2 voxels and
        8 x 8 x 4 tokens.

    Raises:
        UserError: If no such steps exist, e.g. for an odd size; names the nearest sizes that have some.

    Examples:
        >>> plan_steps((64, 64, 8))
        [[2, 2, 1], [2, 2, 1], [2, 2, 2]]
        >>> plan_steps((48, 48, 48))
        [[2, 2, 2], [2, 2, 2], [2, 2, 2]]
    """
    steps = _steps(roi_size)
    if steps is None:
        edge = 2 ** (MIN_STEPS + 1)
        nearest: list[int] = []
        while not nearest or _steps(nearest) is None:
            nearest = [max(edge, round(size / edge) * edge) for size in roi_size]
            edge *= 2
        raise UserError(
            f"roi_size: found {list(roi_size)}, expected even sizes that patches of 4 voxels or more along "
            f"one axis divide into {MAX_TOKENS} tokens or fewer, for ViT; nearest valid: {nearest}"
        )
    return steps


def _steps(roi_size: Sequence[int]) -> list[list[int]] | None:
    """The steps of `plan_steps`; None where there are none."""
    sizes = list(roi_size)
    steps: list[list[int]] = []
    while len(steps) < MIN_STEPS or math.prod(sizes) > MAX_TOKENS:
        longest = max(sizes)
        step = [2 if size % 2 == 0 and 2 * size >= longest else 1 for size in sizes]
        if max(step) == 1:
            return None
        sizes = [size // s for size, s in zip(sizes, step, strict=True)]
        steps.append(step)
    return steps if math.prod(sizes) > 1 else None


def instance_norm(spatial_dims: int, channels: int) -> nn.Module:
    """Instance norm with a learned scale and shift."""
    norm: nn.Module = get_norm_layer(("instance", {"affine": True}), spatial_dims, channels)
    return norm


def convolution(spatial_dims: int, source: int, target: int, step: Sequence[int]) -> nn.Sequential:
    """A 3x3x3 convolution with strides `step`, instance norm, leaky ReLU."""
    return nn.Sequential(
        # no bias: the norm has one
        Conv[Conv.CONV, spatial_dims](
            source, target, kernel_size=3, stride=tuple(step), padding=1, bias=False
        ),
        instance_norm(spatial_dims, target),
        get_act_layer(("leakyrelu", {"negative_slope": 0.01, "inplace": True})),
    )


class ViTBackbone(TokenBackbone):
    """A small vision transformer with a light convolutional decoder.

    Maps of `encode`: the image after a 3x3x3 convolution at stride 1, then after one more per step but the
    last, and the tokens as a map at the stride of a patch. From the tokens on, each step of the decoder
    upsamples by a transposed convolution with instance norm, adds the map of that level, and convolves: one
    3x3x3 convolution, instance norm, leaky ReLU. Channels double from level to level.

    The steps follow from roi_size and are kept in `options`, so that a checkpoint is rebuilt with the same
    patches for another roi_size.

    Args:
        in_channels: Number of channels of the image.
        roi_size: Voxels of every input, from which the patches follow.
        steps: Steps to use instead, one list per level, 2 levels or more: their product is the patch size.
        feature_size: Channels of the finest map.
        hidden_size: Width of a token.
        mlp_dim: Hidden width of the transformer's MLPs; 0 = 4 * hidden_size.
        num_layers: Number of transformer blocks.
        num_heads: Number of attention heads; divides hidden_size.
        spatial_dims: Number of spatial axes, 3 or 2.

    Raises:
        UserError: For a roi_size that `plan_steps` refuses or the steps do not divide, invalid steps, a
            number below 1, a hidden_size that is not a multiple of num_heads, or if einops is not installed.
    """

    outside_encoder = ("skips", "up", "merge")

    def __init__(
        self,
        in_channels: int,
        roi_size: Sequence[int],
        steps: Sequence[Any] | None = None,
        feature_size: int = 16,
        hidden_size: int = 192,
        mlp_dim: int = 0,
        num_layers: int = 6,
        num_heads: int = 3,
        spatial_dims: int = 3,
    ) -> None:
        require_einops("vit_tiny")
        for key, value in (("feature_size", feature_size), ("hidden_size", hidden_size)):
            integer(key, value, minimum=1)
        integer("num_heads", num_heads, minimum=1)
        integer("num_layers", num_layers, minimum=1, maximum=MAX_LAYERS)
        integer("mlp_dim", mlp_dim, minimum=0)
        if hidden_size % num_heads:
            raise UserError(f"hidden_size: found {hidden_size}, expected a multiple of num_heads {num_heads}")
        sizes = check_sizes(roi_size, spatial_dims)
        levels = plan_steps(sizes) if steps is None else check_steps(steps, spatial_dims)
        ones = [1] * spatial_dims
        strides = [ones]
        for step in levels:
            strides.append([a * b for a, b in zip(strides[-1], step, strict=True)])
        channels = [feature_size * 2**level for level in range(len(levels))]
        super().__init__(
            in_channels,
            spatial_dims,
            feature_channels=(*channels, hidden_size),
            strides=strides,
            out_channels=feature_size,
            min_voxels=2,
        )
        self.check_roi_size(sizes)
        self.options = {"steps": levels}
        vit = nets.ViT(
            in_channels=in_channels,
            img_size=sizes,
            patch_size=strides[-1],
            hidden_size=hidden_size,
            mlp_dim=mlp_dim or 4 * hidden_size,
            num_layers=num_layers,
            num_heads=num_heads,
            spatial_dims=spatial_dims,
        )
        self.set_transformer(sizes, vit)
        self.skips = nn.ModuleList(
            convolution(spatial_dims, source, target, step)
            for source, target, step in zip(
                [in_channels, *channels], channels, [ones, *levels[:-1]], strict=False
            )
        )
        self.up = nn.ModuleList(  # fine to coarse, as the maps
            nn.Sequential(
                Conv[Conv.CONVTRANS, spatial_dims](
                    coarse, fine, kernel_size=tuple(step), stride=tuple(step), bias=False
                ),
                instance_norm(spatial_dims, fine),
            )
            for fine, coarse, step in zip(channels, [*channels[1:], hidden_size], levels, strict=True)
        )
        self.merge = nn.ModuleList(convolution(spatial_dims, width, width, ones) for width in channels)

    def encode(self, x: Float[Tensor, "b c *space"]) -> list[Tensor]:
        """The maps of the image, and the tokens.

        Raises:
            UserError: If x is not of roi_size.
        """
        coarsest = self.encode_coarsest(x)
        features: list[Tensor] = []
        for skip in self.skips:
            x = skip(x)
            features.append(x)
        return [*features, coarsest]

    def decode(self, features: list[Tensor]) -> Float[Tensor, "b out *space"]:
        """The finest level's map."""
        *skips, x = features
        for level in reversed(range(len(skips))):
            x = self.merge[level](self.up[level](x) + skips[level])
        return x


def check_steps(steps: Any, spatial_dims: int) -> list[list[int]]:
    """The steps as lists of integers.

    Raises:
        UserError: For fewer than two steps, one that does not downsample, or other values than integers.
    """
    try:
        levels = [list(check_sizes(step, spatial_dims)) for step in steps]
    except (TypeError, UserError):
        levels = []
    if len(levels) < MIN_STEPS or any(max(step) == 1 for step in levels):
        raise UserError(
            f"steps: found {steps!r}, expected {MIN_STEPS} or more lists of {spatial_dims} integers from 1, "
            "one of each above 1"
        )
    return levels

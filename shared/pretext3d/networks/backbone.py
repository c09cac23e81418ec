"""The one interface of every network here: encode to feature maps, decode to a map at input resolution."""

import logging
import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from pretext3d.annotations import Float, Tensor
from pretext3d.checking import integer, per_axis
from pretext3d.errors import UserError
from pretext3d.ops.checks import check_spatial_dims

__all__ = ["Backbone", "channels_last"]

logger = logging.getLogger(__name__)

LAYOUTS = {2: torch.channels_last, 3: torch.channels_last_3d}


class Backbone(nn.Module, ABC):
    """Encoder and decoder without a head: what a pretext task trains and a segmentation inherits.

    Every parameter takes part in `decode(encode(x))`, so that several processes can train it (DDP) without a
    search for unused ones. MONAI's output layers are therefore left out.

    Args:
        in_channels: Number of channels of the image.
        spatial_dims: Number of spatial axes: 3 for volumes, 2 for images.
        feature_channels: Channels of each map of `encode`, fine to coarse.
        strides: Downsampling of each map relative to the input; one number, or one per axis.
        out_channels: Channels of the map of `decode`.
        size_divisor: Number that roi sizes are multiples of; by default the strides of the coarsest map, axis
            by axis.
        min_voxels: Fewest voxels that the coarsest map may have (instance norm needs 2).

    Attributes:
        feature_strides: Downsampling of each map; along the axis that shrinks most, where axes differ.
        axis_strides: Downsampling of each map along every axis.
        options: Values that, besides the record's first four entries, are needed to rebuild the network.
        record: Plain values that `factory.rebuild` takes: encoder, in_channels, spatial_dims, roi_size and,
            where there are any, options; empty until `factory.build_backbone` sets it.
        position_keys: Parameters that hold one vector per token of roi_size, as named in the state dict; a
            transfer of weights to another roi_size resamples them.
        encodes_any_size: Whether `encode` also takes sizes that are not multiples of the strides; its maps
            round up.
        outside_encoder: Submodules that the coarsest map does not depend on: the decoder, blocks of skips.

    Raises:
        UserError: If in_channels or spatial_dims are invalid.
    """

    position_keys: tuple[str, ...] = ()
    outside_encoder: tuple[str, ...] = ()
    encodes_any_size: bool = False

    def __init__(
        self,
        in_channels: int,
        spatial_dims: int,
        feature_channels: Sequence[int],
        strides: Sequence[int | Sequence[int]],
        out_channels: int,
        size_divisor: int = 0,
        min_voxels: int = 1,
    ) -> None:
        super().__init__()
        integer("in_channels", in_channels, minimum=1)
        check_spatial_dims(spatial_dims)
        self.in_channels = int(in_channels)
        self.spatial_dims = int(spatial_dims)
        self.feature_channels = tuple(int(channels) for channels in feature_channels)
        self.axis_strides = tuple(
            (int(stride),) * spatial_dims if isinstance(stride, int) else tuple(int(s) for s in stride)
            for stride in strides
        )
        self.feature_strides = tuple(max(stride) for stride in self.axis_strides)
        self.out_channels = int(out_channels)
        self.divisors = (size_divisor,) * spatial_dims if size_divisor else self.axis_strides[-1]
        self.size_divisor = max(self.divisors)
        self.min_voxels = min_voxels
        self.options: dict[str, Any] = {}
        self.record: dict[str, Any] = {}

    @abstractmethod
    def encode(self, x: Float[Tensor, "b c *space"]) -> list[Tensor]:
        """Feature maps (b, feature_channels[m], *space / feature_strides[m]), fine to coarse."""

    @abstractmethod
    def decode(self, features: list[Tensor]) -> Float[Tensor, "b out *space"]:
        """The map (b, out_channels, *space) at input resolution, from the maps of `encode`."""

    def encode_coarsest(self, x: Float[Tensor, "b c *space"]) -> Tensor:
        """`encode(x)[-1]`, without the branches that only finer maps need."""
        return self.encode(x)[-1]

    def forward(self, x: Float[Tensor, "b c *space"]) -> Float[Tensor, "b out *space"]:
        """`decode(encode(x))`."""
        return self.decode(self.encode(x))

    def train_encoder_only(self) -> "Backbone":
        """Freeze `outside_encoder`, for a task that reads only the coarsest map, and state this in `record`.

        Several processes then do not wait for gradients that never arrive, and weights that were never
        trained are not transferred.

        Raises:
            UserError: If the class does not define `outside_encoder`.
        """
        if not self.outside_encoder:
            raise UserError(
                f"encoder: {type(self).__name__} does not define `outside_encoder`; expected the names "
                "of the submodules that its coarsest map does not depend on (its decoder)"
            )
        for name in self.outside_encoder:
            self.get_submodule(name).requires_grad_(False)
        self.record["untrained"] = list(self.outside_encoder)
        return self

    def map_sizes(self, roi_size: Sequence[int]) -> list[tuple[int, ...]]:
        """Voxels along each axis of each map of `encode`, for inputs of roi_size: ceil(roi_size / stride)."""
        return [
            tuple(-(-size // s) for size, s in zip(roi_size, stride, strict=True))
            for stride in self.axis_strides
        ]

    def check_roi_size(self, roi_size: Sequence[int]) -> None:
        """Refuse sizes that the network cannot process.

        Raises:
            UserError: names `roi_size`, what was found, and the nearest sizes that are valid.
        """
        sizes = check_sizes(roi_size, self.spatial_dims)
        name = type(self).__name__
        if any(size % divisor for size, divisor in zip(sizes, self.divisors, strict=True)):
            pairs = list(zip(sizes, self.divisors, strict=True))
            below = [max(d, size // d * d) for size, d in pairs]
            above = [-(-size // d) * d for size, d in pairs]
            valid = [s for s in (below, above) if math.prod(self.map_sizes(s)[-1]) >= self.min_voxels]
            nearest = " or ".join(dict.fromkeys(map(str, valid or [[2 * d for d in self.divisors]])))
            one = len(set(self.divisors)) == 1
            multiples = f"multiples of {self.divisors[0] if one else list(self.divisors)}"
            raise UserError(
                f"roi_size: found {sizes}, expected {multiples} for {name}; nearest valid: {nearest}"
            )
        if math.prod(self.map_sizes(sizes)[-1]) < self.min_voxels:
            larger = [2 * divisor for divisor in self.divisors]
            raise UserError(
                f"roi_size: found {sizes}, expected one axis of {max(larger)} or more for {name}, whose "
                f"coarsest map would be one voxel; nearest valid cube: {larger}"
            )

    def check_one_voxel(self, roi_size: Sequence[int], refuse: bool = False) -> None:
        """Warn where the coarsest map is one voxel: features then do not say where something is.

        Args:
            roi_size: Voxels of the input along each axis.
            refuse: Whether an input of which only the finest map has more than one voxel is an error.

        Raises:
            UserError: see `refuse`; names `roi_size`.
        """
        sizes, name = check_sizes(roi_size, self.spatial_dims), type(self).__name__
        counts = [math.prod(size) for size in self.map_sizes(sizes)]
        strides = self.axis_strides[-1]
        if max(strides) == 1 or counts[-1] > 1:
            return
        larger = [stride + 1 for stride in strides]
        if refuse and max(counts[1:]) == 1:
            raise UserError(
                f"roi_size: found {sizes}, expected {larger} or more for {name}: only its finest map would "
                "have more than one voxel"
            )
        logger.warning(
            "roi_size: found %s, with which the coarsest map of %s is one voxel, so that features do not say "
            "where something is; expected %s or more",
            sizes, name, larger,
        )  # fmt: skip

    def check_batch(self, x: Tensor) -> None:
        """Refuse to train batch norm on a single value: a batch of one input whose coarsest map is one voxel.

        Raises:
            UserError: names `batch_size` and the sizes.
        """
        if not self.training or len(x) > 1 or torch.jit.is_tracing():  # type: ignore[attr-defined]
            return
        sizes = list(x.shape[2:])
        if math.prod(self.map_sizes(sizes)[-1]) == 1:
            larger = [2 * stride for stride in self.axis_strides[-1]]
            raise UserError(
                f"batch_size: found 1 with inputs of {sizes}, whose coarsest map is one voxel, too few to "
                f"train batch norm; expected a batch of 2 or more, or roi_size {larger} or more"
            )


def channels_last(spatial_dims: int) -> torch.memory_format:
    """The layout of images (spatial_dims 2) or volumes (3) in which bfloat16 convolutions are fastest.

    Examples:
        >>> channels_last(2)
        torch.channels_last
    """
    return LAYOUTS[spatial_dims]


def check_sizes(roi_size: Sequence[Any] | np.ndarray, spatial_dims: int) -> list[int]:
    """The sizes as a list of `spatial_dims` positive integers.

    Raises:
        UserError: For any other sizes; names `roi_size`.

    Examples:
        >>> check_sizes(np.array([96, 96]), spatial_dims=2)
        [96, 96]
    """
    expected = f"{spatial_dims} integers of 1 or more"
    given = roi_size if isinstance(roi_size, str) else list(roi_size)
    return list(per_axis("roi_size", given, spatial_dims, single=False, expected=expected))

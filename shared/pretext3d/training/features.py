"""Pretrained weights for users of PyTorch and scikit-learn: a network, its preprocessing, its features.

The network is rebuilt from a checkpoint's record, and images are prepared as that record says. Features are
those of the frozen encoder that `pretext3d probe` and the probe of a pre-training read (`probe_inputs`).
"""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from pretext3d.annotations import Float, Shaped, Tensor
from pretext3d.checking import integer
from pretext3d.errors import UserError
from pretext3d.networks.backbone import Backbone
from pretext3d.ops.tensors import plain_tensor
from pretext3d.training.pictures import evaluating
from pretext3d.training.precision import AutocastInferer, check_precision
from pretext3d.training.preprocessing import RecordedPreprocessing
from pretext3d.training.pretrained import load_classification, load_segmentation
from pretext3d.training.probe_inputs import FrozenEncoder, mean_of
from pretext3d.training.rebuilding import Pretrained, filled

__all__ = ["Level", "PretrainedModel", "model_of"]

BACKBONE = "backbone."
Image = Shaped[Tensor, "..."] | Shaped[np.ndarray, "..."]  # prepared
FINE_TUNED = {"segmentation": load_segmentation, "classification": load_classification}


class Level(NamedTuple):
    """One map of an encoder.

    Attributes:
        channels: Number of its channels.
        strides: Voxels of the input per cell of the map, along each axis.
    """

    channels: int
    strides: tuple[int, ...]


class _EncoderMaps(nn.Module):
    """All maps of a backbone's encoder, as a tuple."""

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.backbone = backbone

    def forward(self, x: Float[Tensor, "b c *space"]) -> tuple[Tensor, ...]:
        """The maps, fine to coarse."""
        return tuple(self.backbone.encode(x))


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class PretrainedModel:
    """A pretrained network, the preprocessing of its images, and its features.

    Attributes:
        network: Network in evaluation mode, on the CPU: of a fine-tuned run it returns logits, (b, c, *space)
            to (b, classes, *space), of a classification (b, classes); of a pre-training it is the backbone,
            without the heads of the pretext task. Its decoder is as it was initialised where the method
            trains the encoder alone: the record's `backbone` then has `untrained`.
        preprocess: Transform from a path or a dictionary to a dictionary with the prepared image (c, *space).
        record: What the training recorded: method, backbone, channels, pixdim (mm), normalisation, ...
        file: Path of the weights.
        precision: `auto` (bfloat16 where the device is fast at it), `bf16` or `fp32`.

    Examples:
        >>> from pretext3d.networks.factory import build_backbone
        >>> backbone = build_backbone("unet", in_channels=1, roi_size=[16, 16], spatial_dims=2).eval()
        >>> record = {"backbone": backbone.record, "pixdim": [], "normalisation": {"window": [0, 255]}}
        >>> model = PretrainedModel(backbone, RecordedPreprocessing(record), record, Path("model.pt"))
        >>> model.levels[-1]
        Level(channels=64, strides=(4, 4))
        >>> image = model.preprocess({"image": np.zeros((1, 30, 20))})["image"]
        >>> [list(features.shape) for features in model.encode(image)]
        [[16, 30, 20], [32, 15, 10], [64, 8, 5]]
        >>> model.pooled(image).shape
        (64,)
        >>> model
        PretrainedModel(model.pt: unet 2D, 1 channel, pixdim native, levels 16, 32, 64)
    """

    network: nn.Module
    preprocess: RecordedPreprocessing
    record: Mapping[str, Any]
    file: Path
    precision: str = "auto"

    def __repr__(self) -> str:
        """One line: the file, the method, the encoder, the image that it takes."""
        made = self.backbone.record
        method = f"{self.record['method']}, " if "method" in self.record else ""
        channels = f"{made['in_channels']} channel{'s' * (made['in_channels'] != 1)}"
        widths = ", ".join(str(level.channels) for level in self.levels)
        network = f"{method}{made['encoder']} {made['spatial_dims']}D"
        pixdim = self.record.get("pixdim") or "native"
        return f"PretrainedModel({self.file}: {network}, {channels}, pixdim {pixdim}, levels {widths})"

    @property
    def backbone(self) -> Backbone:
        """The encoder and decoder inside the network."""
        found = self.network if isinstance(self.network, Backbone) else self.network.get_submodule("backbone")
        assert isinstance(found, Backbone)
        return found

    @property
    def roi_size(self) -> tuple[int, ...]:
        """Voxels of a window, the input that the encoder was trained on, along each axis."""
        return tuple(int(n) for n in self.backbone.record["roi_size"])

    @property
    def levels(self) -> tuple[Level, ...]:
        """Channels and strides of each map of `encode`, fine to coarse."""
        pairs = zip(self.backbone.feature_channels, self.backbone.axis_strides, strict=True)
        return tuple(Level(*pair) for pair in pairs)

    @property
    def device(self) -> torch.device:
        """Device of the network; `model.network.to("cuda")` moves it."""
        return next(self.network.parameters()).device

    def encode(self, image: Image) -> tuple[Float[Tensor, "..."], ...]:
        """The maps of the frozen encoder, fine to coarse, without gradients; see `levels`.

        An image whose size the network cannot take is padded with zeros at its end, up to the next size that
        it can. Cell n of map m covers voxels n * strides to (n + 1) * strides - 1 along each axis.

        Args:
            image: Prepared images (b, c, *space), or one image (c, *space); a tensor or an array.

        Returns:
            Maps (b, levels[m].channels, *space / levels[m].strides, rounded up), float32, on the device of
            the network; of one image without the first axis.

        Raises:
            UserError: another number of channels or axes; a size that the network does not take at all, as a
                vision transformer takes `roi_size` alone.
        """
        backbone, dims = self.backbone, self.backbone.spatial_dims
        x = as_tensor(image).float()
        given, single = list(x.shape), x.ndim == dims + 1
        x = x[None] if single else x
        if x.ndim != dims + 2 or x.shape[1] != backbone.in_channels:
            raise UserError(
                f"image: found shape {given}, expected ({backbone.in_channels}, "
                f"{', '.join('ijk'[:dims])}), or a batch of such images"
            )
        if not backbone.encodes_any_size:
            sizes = [
                -(-size // divisor) * divisor
                for size, divisor in zip(x.shape[2:], backbone.divisors, strict=True)
            ]
            backbone.check_roi_size(sizes)
            after = [n - size for n, size in zip(sizes, x.shape[2:], strict=True)]
            x = F.pad(x, [n for size in after[::-1] for n in (0, size)])
        read = _EncoderMaps(backbone)
        with evaluating(read), torch.no_grad():
            maps = AutocastInferer(self.precision, self.device)(x.to(self.device), read)
        return tuple(one[0] for one in maps) if single else tuple(maps)

    def pooled(self, image: Image, max_windows: int = 8) -> Float[np.ndarray, "d"]:
        """One vector of an image, for scikit-learn: its coarsest maps, averaged over space.

        The image is read in a regular grid of windows of `roi_size`, the size that the encoder was trained
        on. With `max_windows=1` it is one window in the middle, which `pretext3d probe` reads.

        Args:
            image: Prepared image (c, *space), a tensor or an array.
            max_windows: Largest number of windows.

        Returns:
            `levels[-1].channels` values, float32.

        Raises:
            UserError: another number of channels or axes.
        """
        integer("max_windows", max_windows, minimum=1)
        backbone, x = self.backbone, as_tensor(image)
        if x.ndim != backbone.spatial_dims + 1 or x.shape[0] != backbone.in_channels:
            raise UserError(
                f"image: found shape {list(x.shape)}, expected ({backbone.in_channels}, "
                f"{', '.join('ijk'[: backbone.spatial_dims])})"
            )
        inferer = AutocastInferer(self.precision, self.device)
        reader = FrozenEncoder(backbone, inferer, self.device, max_windows=max_windows)
        return mean_of(reader.encoded(reader.windows(x))).numpy()


def as_tensor(image: Image) -> Tensor:
    """An image as a plain tensor; arrays may be views that run backwards, and of any byte order."""
    if not isinstance(image, Tensor):
        array = np.asarray(image)
        image = torch.from_numpy(np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("=")))
    return plain_tensor(image)


def model_of(
    pretrained: Pretrained, encoder: str = "", pixdim: Any = None, precision: str = "auto"
) -> PretrainedModel:
    """The network of a checkpoint that was read, with its preprocessing; see `load_pretrained`.

    Raises:
        UserError: weights that are not those of the network in their record; an invalid spacing or precision.
    """
    check_precision(precision)
    load = FINE_TUNED.get(str(pretrained.record.get("method")))
    network: nn.Module
    if load is not None:
        network = load(pretrained, encoder=encoder)
    else:
        own = {
            name.removeprefix(BACKBONE): value
            for name, value in pretrained.network.items()
            if name.startswith(BACKBONE)
        }
        network = filled(dataclasses.replace(pretrained, network=own), lambda backbone: backbone, encoder)
    prepare = RecordedPreprocessing(pretrained.record, pixdim)
    return PretrainedModel(network.eval(), prepare, pretrained.record, pretrained.file, precision)

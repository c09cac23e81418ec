"""Backbones by name, and rebuilt from a checkpoint's record."""

import importlib
import inspect
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from pretext3d.checking import closest_hint
from pretext3d.errors import UserError
from pretext3d.networks.adapters import DynUNetBackbone, SegResNetBackbone, SwinUNETRBackbone, UNETRBackbone
from pretext3d.networks.backbone import Backbone, check_sizes
from pretext3d.networks.resnet import ResNet
from pretext3d.networks.unet import UNet
from pretext3d.networks.vit import ViTBackbone

__all__ = ["ENCODERS", "build_backbone", "check_recorded", "rebuild"]

ENCODERS: dict[str, Callable[..., Backbone]] = {
    "unet": UNet,
    "unet4": partial(UNet, channels=(16, 32, 64, 128)),
    "vgg": partial(UNet, channels=(64, 128, 256, 512, 512), convolutions=(1, 1, 2, 2, 2)),  # VGG-11's layout
    "taleb_unet": partial(UNet, channels=(16, 32, 64, 128, 256), norm_last=True),  # Taleb et al., 2020
    "resnet10": partial(ResNet, depth=10),
    "resnet18": partial(ResNet, depth=18),
    "resnet50": partial(ResNet, depth=50),
    "swin_unetr": SwinUNETRBackbone,
    "unetr": UNETRBackbone,
    "vit_tiny": ViTBackbone,
    "dynunet": DynUNetBackbone,
    "segresnet": SegResNetBackbone,
}
HINT = "; did you mean {!r}?"


def find_builder(encoder: str) -> Callable[..., Backbone]:
    """The builder of a backbone by name: an entry of ENCODERS, or a class by its dotted name.

    Raises:
        UserError: For an unknown name, or a class that is not a `Backbone`.
    """
    if encoder in ENCODERS:
        return ENCODERS[encoder]
    found = None
    if "." in str(encoder):
        module, _, name = str(encoder).rpartition(".")
        try:
            found = getattr(importlib.import_module(module), name, None)
        except ImportError as error:
            raise UserError(f"encoder: found {encoder!r}, which cannot be imported: {error}") from error
    if not (isinstance(found, type) and issubclass(found, Backbone)):
        raise UserError(
            f"encoder: found {encoder!r}, expected one of {', '.join(ENCODERS)}, or the dotted name of a "
            f"class derived from {Backbone.__module__}.Backbone"
            f"{closest_hint(str(encoder).lower(), ENCODERS, HINT)}"
        )
    return found


def build_backbone(
    encoder: str,
    in_channels: int,
    roi_size: Sequence[int],
    spatial_dims: int = 3,
    options: Mapping[str, Any] | None = None,
    encoder_only: bool = False,
) -> Backbone:
    """A backbone with fresh weights.

    Args:
        encoder: Key of ENCODERS, or the dotted name of your own class derived from `Backbone`, with the
            arguments in_channels, spatial_dims, roi_size if it needs that, and options.
        in_channels: Number of channels of the image.
        roi_size: Voxels of the crops that are its input.
        spatial_dims: Number of spatial axes: 3 for volumes, 2 for images.
        options: Further arguments of the encoder's class, e.g. {"feature_size": 24} for `swin_unetr`.
        encoder_only: Whether `decode` is never called: then an encoder that takes any size takes any
            roi_size, unless all but its finest map were one voxel.

    Returns:
        The backbone with its `record` set: encoder, in_channels, spatial_dims, roi_size, and options where
        there are any.

    A coarsest map of one voxel gives a warning.

    Raises:
        UserError: For an unknown encoder or option, or a roi_size that the encoder cannot process.
    """
    backbone = fresh_backbone(encoder, in_channels, roi_size, spatial_dims, options, encoder_only)
    any_size = encoder_only and backbone.encodes_any_size
    backbone.check_one_voxel(backbone.record["roi_size"], refuse=any_size)
    return backbone


def fresh_backbone(
    encoder: str,
    in_channels: int,
    roi_size: Sequence[int],
    spatial_dims: int,
    options: Mapping[str, Any] | None,
    encoder_only: bool = False,
) -> Backbone:
    """`build_backbone`, whatever the size of the coarsest map: for a record that is only described."""
    builder = find_builder(encoder)
    known = set(inspect.signature(builder).parameters) - {"in_channels", "roi_size", "spatial_dims"}
    preset = set(builder.keywords) if isinstance(builder, partial) else set()
    extra = dict(options or {})
    for key in extra:
        if key not in known - preset:
            raise UserError(
                f"options: found {key!r} for encoder {encoder!r}, expected any of {sorted(known - preset)}"
                f"{closest_hint(key, sorted(known - preset), HINT)}"
            )
    sizes = check_sizes(roi_size, spatial_dims)
    place = {"roi_size": sizes} if "roi_size" in inspect.signature(builder).parameters else {}
    backbone = builder(in_channels=in_channels, spatial_dims=spatial_dims, **place, **extra)
    if not (encoder_only and backbone.encodes_any_size):
        backbone.check_roi_size(sizes)
    backbone.record = {
        "encoder": encoder,
        "in_channels": backbone.in_channels,
        "spatial_dims": backbone.spatial_dims,
        "roi_size": sizes,
    }
    if extra or backbone.options:
        backbone.record["options"] = {**extra, **backbone.options}
    return backbone


def check_recorded(encoder: str, given: str = "") -> None:
    """Make sure that a checkpoint's record names no code of its own choice.

    Args:
        encoder: Encoder in the record.
        given: Encoder that the user has named.

    Raises:
        UserError: the record names a class that the user has not named, which would be imported.

    Examples:
        >>> check_recorded("unet")
        >>> check_recorded("mine.Net", given="mine.Net")
    """
    if encoder not in ENCODERS and encoder != given:
        raise UserError(
            f"encoder: found {encoder!r} in a checkpoint's record, expected one of {', '.join(ENCODERS)}; a "
            f"class of your own is imported only if you name it: --encoder {encoder}"
        )


def rebuild(
    record: Mapping[str, Any],
    in_channels: int | None = None,
    roi_size: Sequence[int] | None = None,
    spatial_dims: int | None = None,
    encoder: str = "",
) -> Backbone:
    """The backbone that a record describes, with fresh weights.

    Args:
        record: Record of a backbone (`Backbone.record`), as a checkpoint holds it.
        in_channels: Another number of input channels; the first convolutions then differ in shape.
        roi_size: Another size of the crops; the parameters in `Backbone.position_keys` then differ in shape.
        spatial_dims: Number of spatial axes, 3 or 2, that the run needs; None: that of the record.
        encoder: Encoder that the user has named; needed for a class that is not in ENCODERS.

    Raises:
        UserError: If the record lacks an entry, names code of its own choice, or describes a network with
            another number of spatial axes; see also `build_backbone`.
    """
    missing = [key for key in ("encoder", "in_channels", "spatial_dims", "roi_size") if key not in record]
    if missing:
        raise UserError(
            f"backbone record: found {sorted(record)}, expected {', '.join(missing)} as well, to "
            "rebuild the network"
        )
    check_recorded(record["encoder"], encoder)
    found = record["spatial_dims"]
    if spatial_dims is not None and found != spatial_dims:
        raise UserError(
            f"spatial_dims: found weights of a {found}D network (spatial_dims {found}), expected "
            f"{spatial_dims}; weights do not carry over between 3D and 2D: give --spatial_dims {found}, or "
            f"weights pre-trained with --spatial_dims {spatial_dims}"
        )
    build = fresh_backbone if roi_size is None else build_backbone
    return build(
        encoder=record["encoder"],
        in_channels=record["in_channels"] if in_channels is None else in_channels,
        roi_size=record["roi_size"] if roi_size is None else roi_size,
        spatial_dims=record["spatial_dims"],
        options=record.get("options"),
    )

"""Pretrained weights, in one pass: path -> `Pretrained` -> network rebuilt from its record -> transfer.

`read_pretrained` opens and validates a checkpoint once; the next steps take its result. A configuration that
needs both the record and the network names the checkpoint once:

    checkpoint: {_target_: pretext3d.training.pretrained.read_pretrained, path: ..., method: segmentation}
    record: $@checkpoint.record
    network_def: {_target_: pretext3d.training.pretrained.load_segmentation, pretrained: '@checkpoint'}

Networks keep what is transferred in the submodule `backbone`; their heads stay behind. See `transfer` for
the status of each tensor.
"""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from pretext3d.annotations import Tensor
from pretext3d.checking import boolean
from pretext3d.data.splits import check_unseen
from pretext3d.errors import UserError
from pretext3d.networks.backbone import Backbone
from pretext3d.networks.classification import ClassificationNet
from pretext3d.networks.factory import build_backbone
from pretext3d.networks.rescaling import rescale_like
from pretext3d.networks.segmentation import SegmentationNet
from pretext3d.training.checkpoint_files import resolve_pretrained
from pretext3d.training.checkpoint_io import load_checkpoint, unwrap
from pretext3d.training.preprocessing import check_spacing, check_window
from pretext3d.training.rebuilding import Pretrained, backbone_of, filled
from pretext3d.training.record import check_output_layer, running_output_layer, split_settings
from pretext3d.training.record_schema import check_finite, known_entries
from pretext3d.training.safe_weights import preferred
from pretext3d.training.transfer import Adapter, Row, TransferReport, mark_transferred, transferred
from pretext3d.training.workflow import has_setting, setting

__all__ = [
    "Pretrained",
    "load_classification",
    "load_pretrained",
    "load_segmentation",
    "pixdim_of",
    "read_pretrained",
    "read_record",
    "transfer_weights",
]

logger = logging.getLogger(__name__)

MIN_FRACTION = 0.5  # share of the backbone's parameters that must be transferred


def read_pretrained(
    path: str | Path, weights: str = "best", method: str = "", key: str = "pretrained"
) -> Pretrained:
    """Open a checkpoint, once, and validate it.

    Args:
        path: Path of a checkpoint, a run or a bundle, see `resolve_pretrained`.
        weights: Checkpoint to take from a folder: best (on the held-out cases) or final (the last step).
        method: Method that its record must name; '' = any.
        key: Name of the path in messages.

    Raises:
        UserError: no checkpoint found, a damaged or foreign file, or a checkpoint of another method.
    """
    file = preferred(resolve_pretrained(path, weights, key))
    content = load_checkpoint(file)
    pretrained = Pretrained(file, known_entries(content["record"], str(file)), content["network"])
    check_method(pretrained, method, key)
    return pretrained


def read_record(path: str | Path, weights: str = "best", method: str = "") -> dict[str, Any]:
    """The record only; call `read_pretrained` where the weights are used as well."""
    return dict(read_pretrained(path, weights, method).record)


def pixdim_of(pixdim: Any, pretrained: Pretrained | str | Path, spatial_dims: int) -> Any:
    """The value of `pixdim`, or for the word pretrained the spacing that the weights were trained at (mm).

    Args:
        pixdim: Spacing or rule of a configuration, see `choose_pixdim`.
        pretrained: Source of the weights, see `read_pretrained`; '' = from scratch.
        spatial_dims: Number of spatial axes, 3 or 2.

    Raises:
        UserError: pretrained from scratch, with a record without a spacing, or with one of other axes.
    """
    if not isinstance(pixdim, str) or pixdim != "pretrained":
        return pixdim
    instead = "expected a spacing in mm, e.g. 1.5, or a rule such as median"
    if not pretrained:
        raise UserError(f"pixdim: found 'pretrained' with no weights in the key pretrained, {instead}")
    found = pretrained if isinstance(pretrained, Pretrained) else read_pretrained(pretrained)
    check_spatial_dims(found.file, found.record, spatial_dims)
    if not found.record.get("pixdim"):
        raise UserError(
            f"pixdim: found 'pretrained', but {found.file} was not trained at one spacing (its record has "
            f"no pixdim), {instead}"
        )
    return list(found.record["pixdim"])


def check_method(pretrained: Pretrained, method: str, key: str = "pretrained") -> None:
    """Refuse a checkpoint of another method than `method`; '' = any. `key` gives the path, in the message."""
    found = pretrained.record.get("method")
    if method and found != method:
        work = f"cannot segment: fine-tune it with finetune.yaml first, and give that run by --{key}"
        raise UserError(
            f"{pretrained.file}: a checkpoint of method {found!r} "
            f"{work if method == 'segmentation' else f'found, expected {method!r}'}"
        )


def check_spatial_dims(file: Path, record: Mapping[str, Any], spatial_dims: int) -> None:
    """Refuse weights of a 3D network for a 2D one, and the reverse; 0 = any. Only the record is read."""
    found = (record.get("backbone") or {}).get("spatial_dims", spatial_dims)
    if spatial_dims and found != spatial_dims:
        raise UserError(
            f"{file}: its network has spatial_dims {found}, this one has spatial_dims "
            f"{spatial_dims}; expected weights of a {spatial_dims}D network: choose another checkpoint, or "
            f"--spatial_dims {found}"
        )


def transfer_weights(
    network: nn.Module,
    pretrained: Pretrained | str | Path,
    exclude: Sequence[str] = (),
    keep_head: bool = False,
) -> TransferReport:
    """Copy a checkpoint's backbone into a network, in place, and log what was transferred.

    The names of the tensors that now hold the checkpoint's values are noted on the network: `recipes`
    freezes them, or trains them at a separate learning rate.

    Args:
        network: Network with a submodule `backbone`; may be wrapped for several processes.
        pretrained: Checkpoint that was read, or the path of one, of a run or of a bundle.
        exclude: Prefixes of tensor names that are not transferred, e.g. `backbone.decoder`.
        keep_head: Whether to transfer the submodule `head` too: the checkpoint is of the same task.

    Raises:
        UserError: another number of spatial dimensions; less than half of the backbone's parameters (the
            excluded ones apart) could be transferred; with `keep_head`, the head does not fit.
    """
    if not isinstance(pretrained, Pretrained):
        pretrained = read_pretrained(pretrained)
    file, record, source = pretrained.file, pretrained.record, pretrained.network
    network = unwrap(network)
    backbone = network.get_submodule("backbone")
    records = record.get("backbone") or {}, getattr(backbone, "record", {})
    check_spatial_dims(file, record, records[1].get("spatial_dims", 0))
    adapt = Adapter(record, backbone)
    excluded = (*exclude, *(f"backbone.{name}." for name in records[0].get("untrained", ())))
    parts = ("backbone.", "head.") if keep_head else ("backbone.",)
    rows: list[Row] = []
    values: dict[str, Tensor] = {}
    for name, here in network.state_dict().items():
        there, status = source.get(name), "missing"
        if not name.startswith(parts) or name.startswith(excluded):
            status = "new"
        elif there is not None:
            status, value = adapt(name, there, here)
            values |= {name: value} if status != "missing" else {}
        rows.append(Row(name, status, None if there is None else tuple(there.shape), tuple(here.shape)))
    known = {row.name for row in rows}
    rows += [Row(name, "unexpected", tuple(t.shape), None) for name, t in source.items() if name not in known]
    sizes = {f"backbone.{name}": weight.numel() for name, weight in backbone.named_parameters()}
    wanted = {name: size for name, size in sizes.items() if not name.startswith(excluded)}
    fraction = sum(size for name, size in wanted.items() if name in values) / max(1, sum(wanted.values()))
    if fraction < MIN_FRACTION:
        encoders = [repr(one.get("encoder", "unknown")) for one in records]
        raise UserError(
            f"{file}: its weights are of encoder {encoders[0]}, this network's is {encoders[1]}: only "
            f"{fraction:.0%} of the backbone's parameters are found there in the same shape; expected half "
            "or more"
        )
    unfit = [name for name in known if name.startswith("head.") and name not in values]
    if keep_head and (unfit or record.get("method") != "segmentation"):
        raise UserError(
            f"{file}: its head cannot be kept: it is of method {record.get('method')!r}, {len(unfit)} "
            "of its tensors do not fit; expected a segmentation checkpoint with the same classes"
        )
    check_finite({name: source[name] for name in values}, str(file))
    network.load_state_dict(values, strict=False)
    mark_transferred(network, values)
    report = TransferReport(str(file), tuple(rows), fraction)
    settings = [f"{key} {record[key]}" for key in ("method", "pixdim", "normalisation") if record.get(key)]
    logger.info("transfer of weights, trained with %s\n%s", ", ".join(settings) or "settings unknown", report)
    return report


def load_pretrained(
    pretrained: Pretrained | str | Path,
    encoder: str,
    in_channels: int,
    roi_size: Sequence[int],
    num_classes: int,
    default_encoder: str = "",
    task: str = "segmentation",
    decoder: str = "",
    keep_head: bool = False,
    held_out: Sequence[dict[str, Any]] = (),
    normalisation: Mapping[str, Any] | None = None,
    exclude: Sequence[str] = (),
    spatial_dims: int = 3,
    tested: Sequence[dict[str, Any]] = (),
    transfer: str = "all",
    rescale: bool = False,
    options: Mapping[str, Any] | None = None,
) -> SegmentationNet | ClassificationNet:
    """A network for a labelled task: its backbone rebuilt from a checkpoint's record alone, or from scratch.

    Args:
        pretrained: Checkpoint that was read, or the path of one, of a run or of a bundle; '' = from scratch.
        encoder: Name of the encoder; '' = the checkpoint's, or `default_encoder` from scratch. Any other than
            the checkpoint's is an error.
        in_channels: Number of channels of the images; may differ from the checkpoint's.
        roi_size: Size of the crops in voxels; may differ from the checkpoint's.
        num_classes: Number of classes of the new head; for a segmentation, background included.
        default_encoder: Encoder from scratch, where `encoder` is ''.
        task: Name of the task, segmentation or classification.
        decoder: Decoder of a segmentation, see `SegmentationNet`.
        keep_head: Whether to transfer the head too, from a segmentation checkpoint with the same classes.
        held_out: Validation cases: a warning where the checkpoint was trained on one. It names the keys of
            the split that differ between that training and the running configuration.
        normalisation: Scaling of the intensities: a warning where the checkpoint was trained in a window and
            this is none or another one, since the same tissue then looks different.
        exclude: Prefixes of tensor names, see `transfer_weights`.
        spatial_dims: Number of spatial axes, 3 or 2; the checkpoint's must be the same.
        tested: Cases of the test set: none may have trained the checkpoint, or chosen its weights.
        transfer: Part of the backbone to transfer: all, or encoder, so that the decoder starts at random.
        rescale: Whether to give transferred convolutions before a norm the L2 norm that they have at
            initialisation, see `rescaling.rescale_like`.
        options: Further arguments of the encoder's class from scratch, e.g. {"steps": ...} of `vit_tiny` for
            the patches of the weights that it is compared with. A checkpoint has its own: any others are an
            error.

    Raises:
        UserError: no such checkpoint, one of another encoder or with other options, one that does not fit,
            one that has seen a test case, or an unknown part.
    """
    boolean("rescale", rescale)
    if transfer not in ("all", "encoder"):
        raise UserError(
            f"transfer: found {transfer!r}, expected 'all' or 'encoder' (the decoder starts at random)"
        )
    if transfer == "encoder" and keep_head and not decoder:
        raise UserError(
            "keep_head: found with transfer 'encoder', whose decoder is new; expected one of them"
        )

    def network_of(backbone: Backbone) -> SegmentationNet | ClassificationNet:
        if task == "classification":
            return ClassificationNet(backbone, num_classes)
        return SegmentationNet(backbone, num_classes, decoder)

    if not pretrained:
        if not (encoder or default_encoder):
            raise UserError("encoder: found '', expected an encoder's name, or a checkpoint in `pretrained`")
        backbone = build_backbone(encoder or default_encoder, in_channels, roi_size, spatial_dims, options)
        network = network_of(backbone)
        mark_transferred(network, ())
        return network
    if not isinstance(pretrained, Pretrained):
        pretrained = read_pretrained(pretrained)
    file, record = pretrained.file, pretrained.record.get("backbone") or {}
    check_spatial_dims(file, pretrained.record, spatial_dims)
    split = split_settings()
    check_unseen(held_out, pretrained.record, refuse=False, split=split, what="validation")
    if tested:
        check_unseen(tested, pretrained.record, split=split, what="test")
    check_window(file, pretrained.record.get("normalisation") or {}, normalisation)
    if has_setting("spacing"):
        check_spacing(file, pretrained.record.get("pixdim") or [], setting("spacing"))
    if encoder and encoder != record.get("encoder", encoder):
        raise UserError(
            f"encoder: found {encoder!r}, expected '' or {record['encoder']!r}, the encoder of {file}"
        )
    recorded = record.get("options") or {}
    if any(recorded.get(key) != value for key, value in (options or {}).items()):
        raise UserError(f"options: found {options}, expected none or {recorded}, those of {file}")
    if default_encoder not in ("", record.get("encoder")) and not encoder:
        said = "encoder: %s, that of %s; the profile's, %s, is for a training from scratch"
        logger.info(said, record.get("encoder"), file, default_encoder)
    if keep_head:
        check_output_layer(file, pretrained.record, running_output_layer(decoder))
    network = network_of(backbone_of(pretrained, encoder, in_channels, roi_size))
    if transfer == "encoder":
        exclude = (*exclude, *(f"backbone.{name}." for name in network.backbone.outside_encoder))
    initial = {name: value.clone() for name, value in network.state_dict().items()} if rescale else {}
    transfer_weights(network, pretrained, exclude=exclude, keep_head=keep_head)
    if rescale:
        rescale_like(network, initial, (1, in_channels, *roi_size), transferred(network))
    return network


def load_segmentation(
    pretrained: Pretrained | str | Path,
    in_channels: int = 0,
    weights: str = "final",
    spatial_dims: int = 0,
    encoder: str = "",
) -> SegmentationNet:
    """The complete network of a checkpoint that was fine-tuned to segment.

    Args:
        pretrained: Checkpoint that was read, or the path of one, of a fine-tuned run or of a bundle of one.
        in_channels: Number of channels of the images; 0 = not checked.
        weights: Checkpoint to take from a folder: final (the last step) or best (on the held-out cases).
        spatial_dims: Number of spatial axes, 3 or 2; 0 = not checked.
        encoder: Name of the encoder, needed for a class of your own: a record's is not imported unless you
            name it.

    Raises:
        UserError: the checkpoint has another task, number of channels or number of spatial axes, or its
            weights do not fit its record.
    """
    read = _read_finetuned(pretrained, "segmentation", in_channels, weights, spatial_dims)
    record = read.record
    head = record["num_classes"], record.get("decoder", "")
    return filled(read, lambda backbone: SegmentationNet(backbone, *head), encoder)


def load_classification(
    pretrained: Pretrained | str | Path,
    in_channels: int = 0,
    weights: str = "final",
    spatial_dims: int = 0,
    encoder: str = "",
) -> ClassificationNet:
    """The complete network of a checkpoint that was fine-tuned to classify; see `load_segmentation`."""
    read = _read_finetuned(pretrained, "classification", in_channels, weights, spatial_dims)
    count = read.record["num_classes"]
    return filled(read, lambda backbone: ClassificationNet(backbone, count), encoder)


def _read_finetuned(
    pretrained: Pretrained | str | Path, task: str, in_channels: int, weights: str, spatial_dims: int
) -> Pretrained:
    """A fine-tuned checkpoint, read and checked against its future input."""
    if not isinstance(pretrained, Pretrained):
        pretrained = read_pretrained(pretrained, weights)
    file, record = pretrained.file, pretrained.record
    check_method(pretrained, task)
    check_spatial_dims(file, record, spatial_dims)
    logger.info("weights: %s", file)
    if in_channels and in_channels != record["channels"]:
        raise UserError(
            f"{file}: was trained on {record['channels']} channel(s), the images have {in_channels}; "
            "choose by channels, e.g. [0]"
        )
    return pretrained

"""Hand-over of pre-trained weights to another network: by name, counted, refused where almost nothing fits.

Networks keep what is handed over in the submodule `backbone`; their heads stay behind. Each tensor is

    matched     in the checkpoint with the same name and shape
    reshaped    a first convolution for another number of channels, or a position embedding of another grid
    new         not in the checkpoint, not wanted, or of a shape that cannot be adapted: as initialised
    left        in the checkpoint, but with no place in the receiving network (pretext heads, for example)
"""

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn
from torch.nn import functional as F

from pretext3d.annotations import Float, Tensor
from pretext3d.data.splits import check_unseen
from pretext3d.errors import UserError
from pretext3d.networks.backbone import Backbone
from pretext3d.networks.classification import ClassificationNet
from pretext3d.networks.factory import build_backbone, rebuild
from pretext3d.networks.segmentation import SegmentationNet
from pretext3d.training.checkpoint_io import load_checkpoint, unwrap
from pretext3d.training.checkpointer import epoch_files

__all__ = [
    "HandOver",
    "Row",
    "hand_over",
    "load_pretrained",
    "load_segmentation",
    "read_record",
    "resolve_pretrained",
]

logger = logging.getLogger(__name__)

LEAST = 0.5  # of the backbone's parameters have to be handed over


@dataclass(frozen=True)
class Row:
    """What became of one tensor: its shapes there (source) and here (target), None where it is not."""

    name: str
    status: str
    source: tuple[int, ...] | None
    target: tuple[int, ...] | None

    @property
    def size(self) -> int:
        """Number of its values."""
        return math.prod(self.target or self.source or ())


@dataclass(frozen=True)
class HandOver:
    """Report of a hand-over.

    Attributes:
        source: where the weights come from.
        rows: every tensor of both networks.
        fraction: handed-over share of the receiving backbone's parameters, 0 to 1.
    """

    source: str
    rows: tuple[Row, ...]
    fraction: float

    def of(self, status: str) -> list[Row]:
        """The rows that are matched, reshaped, new or left."""
        return [row for row in self.rows if row.status == status]

    def __str__(self) -> str:
        """The table that is logged: counts, and the parts of the networks that they are in."""
        lines = [f"{'weights':10}{'tensors':>8}{'parameters':>13}  in"]
        for status in ("matched", "reshaped", "new", "left"):
            rows = self.of(status)
            lines.append(f"{status:10}{len(rows):8}{sum(r.size for r in rows):13,}  {_places(rows)}".rstrip())
        for row in self.rows:
            if row.target and row.source and row.source != row.target:
                lines.append(f"{row.status}: {row.name} {_shape(row.source)} -> {_shape(row.target)}")
        lines.append(f"{self.fraction:.1%} of the backbone's parameters come from {self.source}")
        return "\n".join(lines)


def _shape(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape))


def _places(rows: Sequence[Row]) -> str:
    """Names of submodules, two levels deep, with how many tensors each has: `backbone.encoder 12, head 2`."""
    counts: dict[str, int] = {}
    for row in rows:
        place = ".".join(row.name.split(".")[:-1][:2]) or row.name
        counts[place] = counts.get(place, 0) + 1
    return ", ".join(f"{place} {count}" for place, count in counts.items())


def resolve_pretrained(path: str | Path, weights: str = "best") -> Path:
    """The checkpoint that a user means by a file or by the folder of a run, its checkpoints or a bundle.

    In a folder the first of these is taken: best.pt, final.pt, the newest epoch_XXXX.pt, model.pt; with
    `weights` final: final.pt, the newest epoch_XXXX.pt, best.pt, model.pt. They are looked for in
    `checkpoints`, then in `models`, then in the folder itself.

    Raises:
        UserError: nothing there; says what was looked for.
    """
    if weights not in ("best", "final"):
        raise UserError(f"weights: found {weights!r}, expected final or best")
    path = Path(path).expanduser()
    if path.is_file():
        return path
    if not path.is_dir():
        raise UserError(f"pretrained: {path}: not found; expected a checkpoint, a run or a bundle")
    for folder in (path / "checkpoints", path / "models", path):
        best, final, epochs = folder / "best.pt", folder / "final.pt", reversed(epoch_files(folder))
        order = [best, final, *epochs] if weights == "best" else [final, *epochs, best]
        for file in (*order, folder / "model.pt"):
            if file.is_file():
                return file
    raise UserError(
        f"pretrained: {path}: no checkpoint in this folder; looked for best.pt, final.pt, epoch_XXXX.pt and "
        "model.pt in checkpoints/, in models/ and in the folder itself"
    )


def of_method(file: Path, record: Mapping[str, Any], method: str) -> None:
    """Refuse a checkpoint of another method than `method`; '' = any."""
    if method and record.get("method") != method:
        work = "cannot segment; expected one that finetune.yaml has written"
        raise UserError(
            f"{file}: a checkpoint of method {record.get('method')!r} "
            f"{work if method == 'segmentation' else f'found, expected {method!r}'}"
        )


def read_record(path: str | Path, weights: str = "best", method: str = "") -> dict[str, Any]:
    """The record of a checkpoint, run or bundle: method, backbone, channels, spacing, ...; see `state`.

    Args:
        path: as in `resolve_pretrained`.
        weights: of a folder, see there.
        method: what it has to be of; '' = any.

    Raises:
        UserError: no checkpoint, or one of another method.
    """
    file = resolve_pretrained(path, weights)
    record: dict[str, Any] = load_checkpoint(file)["record"]
    of_method(file, record, method)
    return record


def first_convolution(
    weight: Float[Tensor, "out source *kernel"], channels: int
) -> Float[Tensor, "out target *kernel"]:
    """A convolution's weights for another number of input channels.

    w'_t = (S / T) * mean_s w_s for each of T new channels, with S before: the response to T equal channels is
    that to S equal channels before.
    """
    scale = weight.shape[1] / channels
    repeats = [1, channels] + [1] * (weight.ndim - 2)
    return weight.mean(dim=1, keepdim=True).repeat(repeats) * scale


def position_embedding(
    embedding: Float[Tensor, "1 source width"], old: Sequence[int], new: Sequence[int]
) -> Float[Tensor, "1 target width"]:
    """Position embeddings of a token grid `old`, resampled linearly along each axis to the grid `new`."""
    grid = embedding.reshape(*old, -1).movedim(-1, 0)[None]
    mode = {1: "linear", 2: "bilinear", 3: "trilinear"}[len(old)]
    resampled = F.interpolate(grid, size=tuple(new), mode=mode, align_corners=False)
    return resampled[0].movedim(0, -1).reshape(1, math.prod(new), -1)


def token_grid(tokens: int, roi_size: Sequence[int]) -> tuple[int, ...] | None:
    """The grid of `tokens` cubic patches that covers `roi_size`; None where there is no such grid."""
    edge = round((math.prod(roi_size) / tokens) ** (1 / len(roi_size)))
    grid = tuple(size // edge for size in roi_size) if edge > 0 else ()
    return grid if grid and math.prod(grid) == tokens else None


class _Adapter:
    """Fits a tensor of the checkpoint to its namesake here; what the two backbones are decides how."""

    def __init__(self, record: Mapping[str, Any], backbone: nn.Module) -> None:
        there, here = record.get("backbone") or {}, getattr(backbone, "record", {})
        self.channels = (
            there.get("in_channels", record.get("channels")),
            getattr(backbone, "in_channels", 0),
        )
        self.roi_sizes = there.get("roi_size") or (), here.get("roi_size") or ()
        names = getattr(backbone, "position_keys", ())
        self.positions = {"backbone." + name.removeprefix("backbone.") for name in names}

    def __call__(self, name: str, source: Tensor, target: Tensor) -> tuple[str, Tensor]:
        """(matched, reshaped or new; the values that the tensor here takes)."""
        if name in self.positions and all(self.roi_sizes):
            old = token_grid(source.shape[1], self.roi_sizes[0])
            new = token_grid(target.shape[1], self.roi_sizes[1])
            if old and new and old != new and source.shape[2:] == target.shape[2:]:
                return "reshaped", position_embedding(source, old, new)
        if source.shape == target.shape:
            return "matched", source
        if source.ndim == target.ndim > 2 and (source.shape[1], target.shape[1]) == self.channels:
            adapted = first_convolution(source, target.shape[1])
            if adapted.shape == target.shape:
                return "reshaped", adapted
        return "new", target


def hand_over(
    network: nn.Module,
    pretrained: str | Path | Mapping[str, Any],
    exclude: Sequence[str] = (),
    keep_head: bool = False,
) -> HandOver:
    """Copy a checkpoint's backbone into a network, in place, and log what was handed over.

    Args:
        network: has a submodule `backbone`; may be wrapped for several processes.
        pretrained: a checkpoint, run or bundle, or the content of a checkpoint.
        exclude: beginnings of names that are not taken, e.g. `backbone.decoder`.
        keep_head: take the submodule `head`, too: the checkpoint is of the same task.

    Raises:
        UserError: less than half of the backbone's parameters (those not excluded) could be handed over; with
            `keep_head`, the head does not fit.
    """
    if isinstance(pretrained, Mapping):
        content, where = pretrained, str(pretrained.get("file", "the checkpoint"))
    else:
        file = resolve_pretrained(pretrained)
        content, where = load_checkpoint(file), str(file)
    record, source = content["record"], content["network"]
    network = unwrap(network)
    backbone = network.get_submodule("backbone")
    adapt = _Adapter(record, backbone)
    untrained = [f"backbone.{name}." for name in (record.get("backbone") or {}).get("untrained", ())]
    excluded = (*exclude, *untrained)
    parts = ("backbone.", "head.") if keep_head else ("backbone.",)
    rows: list[Row] = []
    values: dict[str, Tensor] = {}
    for name, here in network.state_dict().items():
        there, status = source.get(name), "new"
        if there is not None and name.startswith(parts) and not name.startswith(excluded):
            status, value = adapt(name, there, here)
            values |= {name: value} if status != "new" else {}
        rows.append(Row(name, status, None if there is None else tuple(there.shape), tuple(here.shape)))
    known = {row.name for row in rows}
    rows += [Row(name, "left", tuple(t.shape), None) for name, t in source.items() if name not in known]
    sizes = {f"backbone.{name}": weight.numel() for name, weight in backbone.named_parameters()}
    wanted = {name: size for name, size in sizes.items() if not name.startswith(excluded)}
    fraction = sum(size for name, size in wanted.items() if name in values) / max(1, sum(wanted.values()))
    if fraction < LEAST:
        records = record.get("backbone") or {}, getattr(backbone, "record", {})
        there, here = (repr(one.get("encoder", "unknown")) for one in records)
        raise UserError(
            f"{where}: its weights are of encoder {there}, this network's is {here}: only {fraction:.0%} of "
            "the backbone's parameters are found there in the same shape; expected half or more"
        )
    unfit = [name for name in known if name.startswith("head.") and name not in values]
    if keep_head and (unfit or record.get("method") != "segmentation"):
        raise UserError(
            f"{where}: its head cannot be kept: it is of method {record.get('method')!r}, {len(unfit)} "
            "of its tensors do not fit; expected a segmentation checkpoint with the same classes"
        )
    network.load_state_dict(values, strict=False)
    report = HandOver(where, tuple(rows), fraction)
    settings = [f"{key} {record[key]}" for key in ("method", "pixdim", "normalisation") if record.get(key)]
    logger.info(
        "hand-over of weights, trained with %s\n%s", ", ".join(settings) or "settings unknown", report
    )
    return report


def load_pretrained(
    pretrained: str,
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
) -> SegmentationNet | ClassificationNet:
    """A network for a labelled task: its backbone rebuilt from a checkpoint's record alone, or from scratch.

    Args:
        pretrained: a checkpoint, a run or a bundle; '' = from scratch.
        encoder: '' = the checkpoint's, or from scratch `default_encoder`; not the checkpoint's is an error.
        in_channels: channels of the images; may differ from the checkpoint's.
        roi_size: voxels of the crops; may differ from the checkpoint's.
        num_classes: of the new head, for a segmentation background included.
        default_encoder: the encoder from scratch, where `encoder` is ''.
        task: segmentation or classification.
        decoder: of a segmentation, see `SegmentationNet`.
        keep_head: take the head, too, from a segmentation checkpoint with the same classes.
        held_out: cases that will judge the network: a warning where the checkpoint was trained on one.
        normalisation: of the intensities here: a warning where the checkpoint was trained in a window and
            this is none or another one, since the same tissue then looks different.
        exclude: see `hand_over`.

    Raises:
        UserError: no such checkpoint, one of another encoder, or one that does not fit.
    """

    def network_of(backbone: Backbone) -> SegmentationNet | ClassificationNet:
        if task == "classification":
            return ClassificationNet(backbone, num_classes)
        return SegmentationNet(backbone, num_classes, decoder)

    if not pretrained:
        if not (encoder or default_encoder):
            raise UserError("encoder: found '', expected an encoder's name, or a checkpoint in `pretrained`")
        return network_of(build_backbone(encoder or default_encoder, in_channels, roi_size))
    file = resolve_pretrained(pretrained)
    content = load_checkpoint(file)
    check_unseen(held_out, content["record"], refuse=False)
    check_window(file, content["record"].get("normalisation") or {}, normalisation)
    record = content["record"].get("backbone") or {}
    if "encoder" not in record:
        raise UserError(f"{file}: its record names no encoder; the network cannot be rebuilt from it")
    if encoder and encoder != record["encoder"]:
        raise UserError(
            f"encoder: found {encoder!r}, expected '' or {record['encoder']!r}, the encoder of {file}"
        )
    network = network_of(rebuild(record, in_channels=in_channels, roi_size=roi_size))
    hand_over(network, {**content, "file": str(file)}, exclude=exclude, keep_head=keep_head)
    return network


def check_window(file: Path, there: Mapping[str, Any], here: Mapping[str, Any] | None) -> None:
    """Warn where one of two normalisations is a window of intensities that the other is not."""
    windows = [
        list(np.ravel(one["window"])) if isinstance(one, Mapping) and "window" in one else None
        for one in (there, here or there)
    ]
    if windows[0] != windows[1]:
        logger.warning(
            "%s: trained with normalisation %s, here it is %s: the same tissue looks different; "
            "give the same by --normalisation",
            file, there, here,
        )  # fmt: skip


def load_segmentation(pretrained: str, in_channels: int = 0, weights: str = "final") -> SegmentationNet:
    """The whole network of a fine-tuned checkpoint, ready to segment.

    Args:
        pretrained: a fine-tuned run, a bundle that holds one, or a checkpoint.
        in_channels: channels of the images; 0 = not checked.
        weights: of a folder: final (the last step) or best (on the held-out cases).

    Raises:
        UserError: the checkpoint is of pre-training, or of another number of channels.
    """
    file = resolve_pretrained(pretrained, weights)
    content = load_checkpoint(file)
    record = content["record"]
    of_method(file, record, "segmentation")
    logger.info("weights: %s", file)
    if in_channels and in_channels != record["channels"]:
        raise UserError(
            f"{file}: was trained on {record['channels']} channel(s), the images have {in_channels}; "
            "choose by channels, e.g. [0]"
        )
    network = SegmentationNet(rebuild(record["backbone"]), record["num_classes"], record.get("decoder", ""))
    network.load_state_dict(content["network"])
    return network

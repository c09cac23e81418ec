"""The status of each tensor in a transfer of weights: adapted where needed, counted, listed.

matched     in the checkpoint with the same name and shape
adapted     a first convolution for another number of channels, or a position embedding of another grid
new         here, at random by design: a new head, what the pre-training did not train, what is excluded
missing     here, but not in the checkpoint, or of a shape that cannot be adapted: not changed
unexpected  in the checkpoint, but not in the receiving network (pretext heads, for example)
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn
from torch.nn import functional as F

from pretext3d.annotations import Float, Tensor
from pretext3d.ops.tensors import LINEAR

__all__ = [
    "STATUSES",
    "Adapter",
    "Row",
    "TransferReport",
    "first_convolution",
    "mark_transferred",
    "position_embedding",
    "token_grid",
    "transferred",
]

STATUSES = ("matched", "adapted", "new", "missing", "unexpected")


BACKBONE = "backbone."


@dataclass(frozen=True)
class Row:
    """Status of one tensor: shapes in the checkpoint (source) and here (target), None where absent."""

    name: str
    status: str
    source: tuple[int, ...] | None
    target: tuple[int, ...] | None

    @property
    def size(self) -> int:
        """Number of values."""
        return math.prod(self.target or self.source or ())


@dataclass(frozen=True)
class TransferReport:
    """Report of a transfer of weights.

    Attributes:
        source: Path of the checkpoint.
        rows: One row per tensor of both networks.
        fraction: Fraction that was transferred of the backbone's parameters that are not new, 0 to 1.
    """

    source: str
    rows: tuple[Row, ...]
    fraction: float

    def of(self, status: str) -> list[Row]:
        """The rows with one of STATUSES."""
        return [row for row in self.rows if row.status == status]

    def __str__(self) -> str:
        """The table for the log: counts, and the parts of the networks that the tensors belong to."""
        lines = [f"{'weights':10}{'tensors':>8}{'parameters':>13}  in"]
        for status in STATUSES:
            rows = self.of(status)
            lines.append(f"{status:10}{len(rows):8}{sum(r.size for r in rows):13,}  {_places(rows)}".rstrip())
        for row in self.rows:
            if row.target and row.source and row.source != row.target:
                lines.append(f"{row.status}: {row.name} {_shape(row.source)} -> {_shape(row.target)}")
        new = _places([row for row in self.rows if row.status == "new" and row.name.startswith(BACKBONE)])
        rest = f", not counting {new}, which start at random" if new else ""
        lines.append(f"{self.fraction:.1%} of the backbone's parameters come from {self.source}{rest}")
        return "\n".join(lines)


def _shape(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape))


def _places(rows: Sequence[Row]) -> str:
    """Names of submodules, two levels deep, with their numbers of tensors: `backbone.encoder 12, head 2`."""
    counts: dict[str, int] = {}
    for row in rows:
        place = ".".join(row.name.split(".")[:-1][:2]) or row.name
        counts[place] = counts.get(place, 0) + 1
    return ", ".join(f"{place} {count}" for place, count in counts.items())


def first_convolution(
    weight: Float[Tensor, "out source *kernel"], channels: int
) -> Float[Tensor, "out target *kernel"]:
    """A convolution's weights for another number of input channels.

    w'_t = (S / T) * mean_s w_s for each of T new channels, with S before: the response to T equal channels is
    that to S equal channels before.

    Args:
        weight: Weights (output channels, S, kernel size along each axis).
        channels: Number T of new input channels.
    """
    scale = weight.shape[1] / channels
    repeats = [1, channels] + [1] * (weight.ndim - 2)
    return weight.mean(dim=1, keepdim=True).repeat(repeats) * scale


def position_embedding(
    embedding: Float[Tensor, "1 source width"], old: Sequence[int], new: Sequence[int]
) -> Float[Tensor, "1 target width"]:
    """Position embeddings of a token grid `old`, resampled linearly along each axis to the grid `new`."""
    grid = embedding.reshape(*old, -1).movedim(-1, 0)[None]
    resampled = F.interpolate(grid, size=tuple(new), mode=LINEAR[len(old)], align_corners=False)
    return resampled[0].movedim(0, -1).reshape(1, math.prod(new), -1)


def token_grid(tokens: int, roi_size: Sequence[int], patch_size: Sequence[int]) -> tuple[int, ...] | None:
    """The grid of `tokens` patches that covers `roi_size`; None where such patches give another number.

    Examples:
        >>> token_grid(8, (32, 32, 32), (16, 16, 16)), token_grid(12, (64, 48), (16, 16))
        ((2, 2, 2), (4, 3))
        >>> token_grid(7, (32, 32), (16, 16)) is None
        True
    """
    grid = tuple(size // edge for size, edge in zip(roi_size, patch_size, strict=True))
    return grid if math.prod(grid) == tokens else None


class Adapter:
    """Adapts a checkpoint's tensor to the tensor of the same name here, depending on the two backbones."""

    def __init__(self, record: Mapping[str, Any], backbone: nn.Module) -> None:
        there, here = record.get("backbone") or {}, getattr(backbone, "record", {})
        self.channels = (
            there.get("in_channels", record.get("channels")),
            getattr(backbone, "in_channels", 0),
        )
        self.roi_sizes = there.get("roi_size") or (), here.get("roi_size") or ()
        self.patch_size = getattr(backbone, "axis_strides", ((),))[-1]
        names = getattr(backbone, "position_keys", ())
        self.positions = {"backbone." + name.removeprefix("backbone.") for name in names}

    def __call__(self, name: str, source: Tensor, target: Tensor) -> tuple[str, Tensor]:
        """Return (matched, adapted or missing; the new values of the tensor here)."""
        if name in self.positions and all(self.roi_sizes):
            old = token_grid(source.shape[1], self.roi_sizes[0], self.patch_size)
            new = token_grid(target.shape[1], self.roi_sizes[1], self.patch_size)
            if old and new and old != new and source.shape[2:] == target.shape[2:]:
                return "adapted", position_embedding(source, old, new)
        if source.shape == target.shape:
            return "matched", source
        if source.ndim == target.ndim > 2 and (source.shape[1], target.shape[1]) == self.channels:
            adapted = first_convolution(source, target.shape[1])
            if adapted.shape == target.shape:
                return "adapted", adapted
        return "missing", target


def mark_transferred(network: nn.Module, names: Iterable[str]) -> None:
    """Note on a network which of its tensors hold a checkpoint's values; see `transferred`."""
    network.transferred = frozenset(names)  # type: ignore[assignment]  # torch allows any attribute


def transferred(network: nn.Module) -> frozenset[str]:
    """Names of the tensors of a network's backbone that hold a checkpoint's values.

    They are parameters and buffers, named as in the state dict. Those of a kept head are left out. For a
    network that neither `load_pretrained` nor `transfer_weights` has processed: all of the backbone's.
    """
    names = getattr(network, "transferred", network.state_dict())
    return frozenset(name for name in names if name.startswith(BACKBONE))

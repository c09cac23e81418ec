"""A checkpoint that was read, and the networks that its record describes.

The record is compared with the weights before anything is built: it can neither import code nor ask for more
memory than a network of these weights takes.
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from pretext3d.annotations import Tensor
from pretext3d.errors import UserError, one_line
from pretext3d.networks.backbone import Backbone
from pretext3d.networks.factory import ENCODERS, build_backbone, check_recorded, rebuild
from pretext3d.training.record_schema import check_finite

__all__ = ["Pretrained", "backbone_of", "filled"]

Network = TypeVar("Network", bound=nn.Module)


@dataclass(frozen=True, eq=False)
class Pretrained:
    """A checkpoint that has been read and validated.

    Attributes:
        file: Path of the checkpoint.
        record: Method, backbone, channels, spacing, ...; see `checkpoint_io`.
        network: Tensors by name, on the CPU.
    """

    file: Path
    record: Mapping[str, Any]
    network: Mapping[str, Tensor]


class _RatesOnCpu(TorchFunctionMode):
    """Within `torch.device("meta")`: MONAI's SwinUNETR reads its drop-path rates from a tensor."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """The function, `torch.linspace` on the CPU."""
        more = {"device": "cpu"} if func is torch.linspace else {}
        return func(*args, **{**(kwargs or {}), **more})


def backbone_of(
    pretrained: Pretrained,
    encoder: str = "",
    in_channels: int | None = None,
    roi_size: Sequence[int] | None = None,
) -> Backbone:
    """The backbone that a checkpoint's record describes, with fresh weights; see `factory.rebuild`.

    Args:
        pretrained: Checkpoint that was read.
        encoder: Encoder that the user has named; needed for a class that is not in ENCODERS.
        in_channels: Another number of input channels.
        roi_size: Another size of the crops.

    Raises:
        UserError: the record names a class that the user has not named, or describes a network that cannot
            be built or is larger than the weights.
    """
    record = check_described(pretrained, encoder, lambda backbone: backbone)
    with _named(pretrained):
        return rebuild(record, in_channels=in_channels, roi_size=roi_size, encoder=encoder)


def filled(pretrained: Pretrained, make: Callable[[Backbone], Network], encoder: str = "") -> Network:
    """The complete network of a checkpoint, with all of its weights.

    Args:
        pretrained: Checkpoint that was read.
        make: Makes the network around its backbone.
        encoder: Encoder that the user has named; needed for a class that is not in ENCODERS.

    Raises:
        UserError: as `backbone_of`; or the weights are not finite, or do not fit.
    """
    check_finite(pretrained.network, str(pretrained.file))
    record = check_described(pretrained, encoder, make)
    with _named(pretrained):
        network = make(rebuild(record, encoder=encoder))
    try:
        network.load_state_dict(pretrained.network)
    except RuntimeError as error:
        raise UserError(
            f"{pretrained.file}: its weights do not fit the network of its record: {one_line(error)}"
        ) from error
    return network


def check_described(
    pretrained: Pretrained, encoder: str, make: Callable[[Any], nn.Module]
) -> Mapping[str, Any]:
    """The record of a checkpoint's backbone, if it names no foreign code and is no larger than the weights.

    Args:
        pretrained: Checkpoint that was read.
        encoder: Encoder that the user has named.
        make: Makes the network around the backbone.

    Raises:
        UserError: it does, is, or describes no network.
    """
    record: Mapping[str, Any] = pretrained.record.get("backbone") or {}
    if "encoder" not in record:
        raise UserError(
            f"{pretrained.file}: its record names no encoder; the network cannot be rebuilt from it"
        )
    check_recorded(record["encoder"], encoder)
    if record["encoder"] not in ENCODERS:  # code of the user's
        return record
    named = {key: value for key, value in record.items() if key != "untrained"}
    with _named(pretrained), torch.device("meta"), _RatesOnCpu():  # shapes without memory
        described = make(build_backbone(**named, encoder_only=True)).state_dict()
    size, stored = (sum(v.numel() for v in state.values()) for state in (described, pretrained.network))
    if size > stored:
        raise UserError(
            f"{pretrained.file}: its record describes a network of {size:,} values, of which the file has "
            f"{stored:,}; expected all of them"
        )
    return record


@contextlib.contextmanager
def _named(pretrained: Pretrained) -> Iterator[None]:
    """Whatever a network makes of the arguments in a record, as an error that names the checkpoint."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        raise UserError(
            f"{pretrained.file}: the network of its record cannot be built: {one_line(error)}"
        ) from error

"""Mixed precision on CPU and GPU alike.

MONAI's trainer knows CUDA's autocast only. An inferer is the place where both trainer and evaluator call the
network, so autocast around it serves every device. bfloat16 needs no gradient scaler.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from typing import Any

import torch
from monai.inferers import Inferer, SimpleInferer
from torch import nn
from torch.overrides import TorchFunctionMode

from pretext3d.errors import UserError

__all__ = ["AutocastInferer"]


def use_bfloat16(precision: str, device: torch.device) -> bool:
    """Whether to compute in bfloat16: `bf16`, `fp32`, or `auto` = if the device has instructions for it."""
    if precision not in ("auto", "bf16", "fp32"):
        raise UserError(f"precision: found {precision!r}, expected auto, bf16 or fp32")
    if precision != "auto":
        return precision == "bf16"
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device)[0] >= 8
    return device.type == "cpu" and torch.cpu._is_avx512_bf16_supported()


class FlatMapsInFloat32(TorchFunctionMode):
    """While it is on, 3D convolutions whose kernel is deeper than their input are computed in float32.

    A kernel of 3 on a map of 2 x 8 x 8, for example. In bfloat16 on a CPU, the weight gradient of such a
    convolution depends on memory that nothing has written (oneDNN 3.12, which torch 2.13 brings): it differs
    from run to run, is NaN now and then, and what lies behind it is overwritten. Depth is the first axis; the
    other two do no harm.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Every call of torch's comes by here."""
        if func is torch.conv3d and _flat(*args[:2], **(kwargs or {})):
            args = [_as_float32(arg) for arg in args]
            kwargs = {name: _as_float32(arg) for name, arg in (kwargs or {}).items()}
            with torch.autocast("cpu", enabled=False):
                return func(*args, **kwargs)
        return func(*args, **(kwargs or {}))


def _flat(input: torch.Tensor, weight: torch.Tensor, **_: Any) -> bool:  # noqa: A002 - torch's names
    return weight.shape[2] > input.shape[-3]


def _as_float32(value: Any) -> Any:
    return value.float() if isinstance(value, torch.Tensor) else value


class AutocastInferer(Inferer):
    """Another inferer, run under autocast and in the channels-last layout, bfloat16 convolutions' fastest.

    On a CPU under `FlatMapsInFloat32`.

    Args:
        precision: `auto`, `bf16` or `fp32`.
        device: the device that the network is on.
        inferer: what to run; None = the network's plain call.
    """

    def __init__(self, precision: str, device: torch.device | str, inferer: Inferer | None = None) -> None:
        super().__init__()
        device = torch.device(device)
        self.enabled = use_bfloat16(precision, device)
        self.device_type = device.type
        self.inferer = inferer if inferer is not None else SimpleInferer()

    def __call__(self, inputs: torch.Tensor, network: nn.Module, *args: Any, **kwargs: Any) -> Any:
        """What `inferer` gives, a tensor or a tuple of them, in float32 for loss and metrics."""
        guard = FlatMapsInFloat32() if self.enabled and self.device_type == "cpu" else nullcontext()
        with guard, torch.autocast(self.device_type, dtype=torch.bfloat16, enabled=self.enabled):
            if inputs.ndim == 5:  # sets of cubes have an axis more: their network lays them out itself
                inputs = inputs.to(memory_format=torch.channels_last_3d)
            output = self.inferer(inputs, network, *args, **kwargs)
        return tuple(part.float() for part in output) if isinstance(output, tuple) else output.float()

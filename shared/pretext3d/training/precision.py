"""Mixed precision and the channels-last layout, on CPU and GPU, in 2D and 3D.

MONAI's trainer supports CUDA's autocast only. An inferer is the place where both trainer and evaluator call
the network, so autocast around it covers every device. bfloat16 needs no gradient scaler.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from typing import Any

import torch
from monai.inferers import Inferer, SimpleInferer
from torch import nn
from torch.overrides import TorchFunctionMode

from pretext3d.errors import UserError
from pretext3d.networks.backbone import channels_last

__all__ = ["AutocastInferer", "spatial_dims_of", "to_device"]

CONVOLUTIONS = (torch.conv2d, torch.conv3d)


def spatial_dims_of(network: Any) -> int:
    """Number of spatial axes that a network is for, 3 or 2.

    The backbone's value (also inside DDP's wrapper); for another network, that of its convolutions; 3 where
    there is none.

    Examples:
        >>> spatial_dims_of(nn.Sequential(nn.Conv2d(3, 8, 1), nn.ReLU()))
        2
    """
    network = getattr(network, "module", network)
    found = getattr(getattr(network, "backbone", network), "spatial_dims", None)
    if found in (2, 3):
        return int(found)
    weights = network.parameters() if isinstance(network, nn.Module) else ()
    return 2 if max((weight.ndim for weight in weights), default=0) == 4 else 3


def to_device(network: nn.Module, device: torch.device | str, spatial_dims: int | None = None) -> nn.Module:
    """The network on a device, its weights in the channels-last layout of its dimension.

    Args:
        network: Changed in place, and returned.
        device: Device to move the network to.
        spatial_dims: Number of spatial axes, 3 or 2; None: see `spatial_dims_of`.
    """
    dims = spatial_dims_of(network) if spatial_dims is None else spatial_dims
    network.to(device=device, memory_format=channels_last(dims))  # type: ignore[call-overload]
    return network


def check_precision(precision: str) -> None:
    """Refuse any other precision than auto, bf16 and fp32.

    Raises:
        UserError: names the key.
    """
    if precision not in ("auto", "bf16", "fp32"):
        raise UserError(f"precision: found {precision!r}, expected auto, bf16 or fp32")


def use_bfloat16(precision: str, device: torch.device) -> bool:
    """Whether to compute in bfloat16: `bf16`, `fp32`, or `auto` = where the device supports it."""
    check_precision(precision)
    if precision != "auto":
        return precision == "bf16"
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device)[0] >= 8
    return device.type == "cpu" and torch.cpu._is_avx512_bf16_supported()


class FaultsInFloat32(TorchFunctionMode):
    """While it is active, convolutions that oneDNN computes wrongly in bfloat16 are computed in float32.

    On CPUs with bfloat16, oneDNN 3.12, which torch 2.13 includes, leaves a part of some results uninitialised
    or writes behind their memory: outputs and weight gradients differ from run to run, are sometimes NaN,
    sometimes only wrong. The cases, found by comparing random convolutions, forwards and backwards, with
    float32 and with themselves, in memory filled with large numbers:

    - in 3D, a kernel deeper than its map, for example of 3 on a map of 2 x 8 x 8. Depth is the first axis;
      kernels longer than the map along the other two do no harm;
    - an axis with a stride and a kernel longer than 1 and an output of 1: patches of 8 x 8 x 8 of a volume of
      64 x 64 x 8, or the last stages of a ResNet on small crops;
    - a kernel of 4 or more along the last axis whose length times the input channels is a multiple of 64:
      patches of 16 x 16 of images with 4 channels.

    Others agree with float32 to bfloat16's rounding: 1,500 random ones in 2D and 3D, kernels of 1 to 8,
    strides to 8, maps of 1 to 20 along each axis, 1 to 64 channels, padded or not, both layouts; and 2D ones
    of stride 1 in every bit from run to run.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Intercept every call of torch's functions."""
        if func in CONVOLUTIONS and _faulty(*args, **(kwargs or {})):
            args = [_as_float32(arg) for arg in args]
            kwargs = {name: _as_float32(arg) for name, arg in (kwargs or {}).items()}
            with torch.autocast("cpu", enabled=False):
                return func(*args, **kwargs)
        return func(*args, **(kwargs or {}))


def _faulty(
    input: torch.Tensor,  # noqa: A002 - torch's names
    weight: torch.Tensor,
    bias: torch.Tensor | None = None,
    stride: int | Sequence[int] = 1,
    padding: int | str | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
) -> bool:
    kernel = weight.shape[2:]
    dims = len(kernel)
    sizes = input.shape[-dims:]
    if dims == 3 and kernel[0] > sizes[0]:
        return True
    if kernel[-1] >= 4 and kernel[-1] * weight.shape[1] % 64 == 0:
        return True
    strides = _each(stride, dims)
    if max(strides) == 1:
        return False
    before = [0] * dims if isinstance(padding, str) else _each(padding, dims)  # a text: only with stride 1
    axes = zip(sizes, before, kernel, strides, _each(dilation, dims), strict=True)
    return any(k > 1 and s > 1 and size + 2 * p - d * (k - 1) - 1 < s for size, p, k, s, d in axes)


def _each(value: int | Sequence[int], dims: int) -> list[int]:
    """One number per axis, as torch reads it."""
    found = [value] if isinstance(value, int) else list(value)
    return found * dims if len(found) == 1 else found


def _as_float32(value: Any) -> Any:
    return value.float() if isinstance(value, torch.Tensor) else value


class AutocastInferer(Inferer):
    """Runs another inferer under autocast, in channels-last layout, the fastest for bfloat16 convolutions.

    On a CPU it also runs under `FaultsInFloat32`.

    Args:
        precision: `auto`, `bf16` or `fp32`.
        device: Device of the network.
        inferer: Inferer to run; None = a plain call of the network.
    """

    def __init__(self, precision: str, device: torch.device | str, inferer: Inferer | None = None) -> None:
        super().__init__()
        device = torch.device(device)
        self.enabled = use_bfloat16(precision, device)
        self.device_type = device.type
        self.inferer = inferer if inferer is not None else SimpleInferer()

    def __call__(self, inputs: torch.Tensor, network: nn.Module, *args: Any, **kwargs: Any) -> Any:
        """Return the output of `inferer`, a tensor or a tuple of them, in float32 for loss and metrics."""
        guard = FaultsInFloat32() if self.enabled and self.device_type == "cpu" else nullcontext()
        with guard, torch.autocast(self.device_type, dtype=torch.bfloat16, enabled=self.enabled):
            dims = spatial_dims_of(network)
            if inputs.ndim == dims + 2:  # sets of cubes have one more axis: their network sets the layout
                inputs = inputs.to(memory_format=channels_last(dims))
            output = self.inferer(inputs, network, *args, **kwargs)
        return tuple(part.float() for part in output) if isinstance(output, tuple) else output.float()

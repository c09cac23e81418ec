"""The order of the axes in which a CPU trains convolutions fastest.

The gradient of a convolution's weights takes long where the last spatial axis is short, as in volumes of few
thick slices: a training step of `unet4` on 64 x 64 x 8 voxels is 1.3 to 1.7 times as fast with the last axis
and the longest one swapped (`tests/benchmarks/bench_axis_order.py`; oneDNN, bfloat16 on a CPU with AMX, a
busy machine). A network of convolutions, norms and poolings that treat all axes alike is therefore called
with both swapped, in its input and in its weights: the same function, up to rounding. Maps of `encode` are
then views, neither contiguous nor channels last.

Only training does so, and none where a forward or backward hook would see the swapped maps.
"""

import torch
from torch import nn
from torch.func import functional_call

from pretext3d.annotations import Float, Tensor
from pretext3d.networks.backbone import channels_last

__all__ = ["axis_to_swap", "call_swapped", "swapped"]

LAST = -1
SHORT = 16  # voxels; from here on, swapping takes as long as it saves


def axis_to_swap(network: nn.Module, x: Float[Tensor, "b c *space"]) -> int:
    """The spatial axis of volumes that swaps places with the last one, from the end; -1 = none.

    In training on a CPU that is the longest one, where the last is short and at most half as long.

    Examples:
        >>> network = nn.Conv3d(1, 1, 3)
        >>> axis_to_swap(network, torch.zeros(1, 1, 64, 64, 8))
        -2
        >>> axis_to_swap(network.eval(), torch.zeros(1, 1, 64, 64, 8))
        -1
    """
    exported = torch.jit.is_tracing() or torch.compiler.is_exporting()  # type: ignore[attr-defined]
    if exported or not network.training or not torch.is_grad_enabled() or x.device.type != "cpu":
        return LAST
    sizes = x.shape[2:]
    short = len(sizes) == 3 and sizes[LAST] < SHORT and 2 * sizes[LAST] <= max(sizes)
    if not short or any(map(has_hook, network.modules())):
        return LAST
    return max(range(-len(sizes), 0), key=lambda axis: (sizes[axis], axis))


def has_hook(module: nn.Module) -> bool:
    """Whether a call of the module calls something else, which sees its maps."""
    backward = module._backward_hooks or module._backward_pre_hooks
    return bool(module._forward_hooks or module._forward_pre_hooks or backward)


def swapped(x: Tensor, axis: int) -> Tensor:
    """A batch of maps, or a convolution's weights, with an axis and the last one swapped, channels last.

    Twice the same gives what was there before.
    """
    if axis == LAST:
        return x
    return x.transpose(axis, LAST).contiguous(memory_format=channels_last(x.ndim - 2))


def call_swapped(module: nn.Module, x: Float[Tensor, "b c *space"], axis: int) -> Tensor:
    """`module` with its convolutions' weights swapped, of maps that are swapped.

    Args:
        module: Convolutions, norms and activations that treat all axes alike.
        x: Maps with `axis` and the last axis swapped.
        axis: See `axis_to_swap`.
    """
    if axis == LAST:
        return module(x)
    weights = {name: swapped(w, axis) for name, w in module.named_parameters() if w.ndim == x.ndim}
    return functional_call(module, weights, x)

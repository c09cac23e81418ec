"""The order of the axes in which a CPU trains convolutions fastest.

The gradient of a convolution's weights takes long where the last spatial axis is short, as in volumes of few
thick slices: a training step of `unet4` on 64 x 64 x 8 voxels takes 1.4 times as long as on 64 x 8 x 64
(`tests/benchmarks/bench_axis_order.py`; oneDNN, bfloat16 on a CPU with AMX). A network of convolutions, norms
and poolings that treat all axes alike is therefore called with the last axis and the longest one swapped, in
its input and in its weights: the same function, up to rounding.
"""

import torch
from torch import nn
from torch.func import functional_call

from pretext3d.annotations import Float, Tensor
from pretext3d.networks.backbone import channels_last

__all__ = ["axis_to_swap", "call_swapped", "swapped"]

LAST = -1
SHORT = 16  # voxels; from here on, swapping takes as long as it saves


def axis_to_swap(x: Float[Tensor, "b c *space"]) -> int:
    """The spatial axis that swaps places with the last one, from the end; -1 = none, the last with itself.

    In training on a CPU that is the longest one, where the last is short and at most half as long.

    Examples:
        >>> axis_to_swap(torch.zeros(1, 1, 64, 64, 8)), axis_to_swap(torch.zeros(1, 1, 8, 64, 64))
        (-2, -1)
    """
    sizes = x.shape[2:]
    exported = torch.jit.is_tracing() or torch.compiler.is_exporting()  # type: ignore[attr-defined]
    trained = torch.is_grad_enabled() and not exported
    if x.device.type != "cpu" or not trained or sizes[LAST] >= SHORT or 2 * sizes[LAST] > max(sizes):
        return LAST
    return max(range(-len(sizes), 0), key=lambda axis: (sizes[axis], axis))


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

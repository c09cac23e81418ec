"""Convolutions before a norm, rescaled: the same function, and steps as large as at initialisation.

A norm divides by the spread of its input, so the scale of the convolution before it has no effect on the
output. It has one on training: an optimizer such as Adam takes steps of a given size, and what counts is the
step relative to the kernel. Pre-trained kernels have grown, so that fine-tuning learns slower than training
from scratch. Source of the argument: van Laarhoven, "L2 regularization versus batch and weight
normalization", 2017 (arXiv:1706.05350).
"""

import copy
import logging
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.autograd.graph import Node
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd
from torch.nn.modules.instancenorm import _InstanceNorm

from pretext3d.annotations import Tensor

logger = logging.getLogger(__name__)

__all__ = ["normed_convolutions", "rescale_like"]

NORMS = (_BatchNorm, _InstanceNorm, nn.GroupNorm)
# f(g x) = g f(x) for g > 0: what may lie between a convolution and its norm
HOMOGENEOUS = (nn.ReLU, nn.LeakyReLU, nn.Identity, nn.modules.dropout._DropoutNd)


Way = tuple[str, tuple[Any, ...]]  # from a convolution, by its name: the operations since, as graph nodes


def normed_convolutions(network: nn.Module, in_shape: Sequence[int]) -> dict[str, str]:
    """The convolutions whose output goes to a norm and nowhere else, with that norm.

    They are found in the graph of a pass of a copy without values (torch's device `meta`), which costs no
    arithmetic. Left out: a module that is called more than once; a convolution whose output is changed on the
    way by more than a rectifier or dropout, or has another way past the norm, as a residual connection.

    Args:
        network: Network to look at, whose output is one tensor; it is not changed.
        in_shape: Shape (batch, channels, *spatial) of an input that it accepts.

    Returns:
        Names of the norms by the names of their convolutions.

    Examples:
        >>> block = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.BatchNorm2d(2), nn.Conv2d(2, 1, 1))
        >>> normed_convolutions(block, (1, 1, 8, 8))
        {'0': '2'}
    """
    model = copy.deepcopy(network).to("meta", torch.float32).eval().requires_grad_(True)
    calls: Counter[str] = Counter()
    kept: list[Any] = []  # so that no identity is used twice
    ways: dict[int, Way] = {}  # of a tensor, by its identity
    entered: dict[str, Way | None] = {}  # of a module's input
    found: dict[str, Way] = {}

    def enter(name: str, module: nn.Module, inputs: tuple[Any, ...]) -> None:
        way = ways.get(id(inputs[0]))
        unchanged = way and inputs[0].grad_fn is way[1][-1]  # not in place, as by a residual connection
        entered[name] = way if unchanged else None

    def leave(name: str, module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> None:
        calls[name] += 1
        kept.extend((inputs, output))
        way = entered[name]
        if isinstance(module, _ConvNd):
            ways[id(output)] = (name, (output.grad_fn,))
        elif way and isinstance(module, HOMOGENEOUS):
            ways[id(output)] = (way[0], (*way[1], output.grad_fn))
        elif way:
            found[way[0]] = (name, way[1])

    for name, module in model.named_modules():
        if isinstance(module, (_ConvNd, *NORMS, *HOMOGENEOUS)):
            module.register_forward_pre_hook(partial(enter, name))
            module.register_forward_hook(partial(leave, name))
    with torch.enable_grad():
        uses = _uses(model(torch.zeros(tuple(in_shape), device="meta")).grad_fn)
    return {
        conv: norm
        for conv, (norm, way) in found.items()
        if calls[conv] == calls[norm] == 1 and all(uses[node] == 1 for node in way)
    }


def _uses(last: Node) -> Counter[Node]:
    """How many later operations read the result of each operation that `last` depends on."""
    uses: Counter[Node] = Counter()
    waiting = [last]
    while waiting:
        for node, _ in waiting.pop().next_functions:
            if node is not None:
                uses[node] += 1
                if uses[node] == 1:
                    waiting.append(node)
    return uses


def rescale_like(
    network: nn.Module,
    initial: Mapping[str, Tensor],
    in_shape: Sequence[int],
    names: Collection[str] | None = None,
) -> dict[str, float]:
    """Give each convolution before a norm the L2 norm that it has in `initial`, in place.

    With g = |w_initial| / |w|: w becomes g w, its bias g b, the norm's running mean g m and running variance
    g^2 v. The output of the network in evaluation mode stays the same up to the norms' eps.

    Args:
        network: Network to rescale.
        initial: Its tensors at initialisation, by name, as in its state dict.
        in_shape: See `normed_convolutions`.
        names: Names of the tensors that may be rescaled: a convolution is where its weight is one, and its
            norm's statistics with it; None = all.

    Returns:
        The factor g of each convolution that was rescaled, by its name.
    """
    factors: dict[str, float] = {}
    held = Counter(id(value) for module in network.modules() for value in module.parameters(recurse=False))
    for conv_name, norm_name in normed_convolutions(network, in_shape).items():
        weight = f"{conv_name}.weight"
        if names is not None and weight not in names:
            continue
        conv, norm = network.get_submodule(conv_name), network.get_submodule(norm_name)
        if any(held[id(value)] > 1 for value in conv.parameters(recurse=False)):
            continue  # another layer has it, too, and would change
        before = float(network.get_parameter(weight).detach().norm())
        wanted = float(initial[weight].norm())
        if not before or not wanted:
            continue
        factors[conv_name] = factor = wanted / before
        with torch.no_grad():
            for value in conv.parameters(recurse=False):
                value.mul_(factor)
            for name, statistic in norm.named_buffers(recurse=False):
                statistic.mul_({"running_mean": factor, "running_var": factor**2}.get(name, 1))
    if factors:
        low, high = min(factors.values()), max(factors.values())
        logger.info("%d convolutions before a norm rescaled, by %.2f to %.2f", len(factors), low, high)
    return factors

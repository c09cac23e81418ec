"""Recipes of fine-tuning: which parameters are trained, from which epoch on and at which learning rate.

Two keys control what was transferred from a checkpoint (see `transfer.transferred`); from scratch they have
no effect:

    freeze_encoder_epochs   number of epochs for which the transferred encoder is frozen: `FreezeEncoder`
    backbone_learning_rate  the learning rate of all that was transferred: `parameter_groups`

Frozen means that neither a parameter nor a running statistic of a norm changes. Heads, including kept ones,
and tensors without a counterpart in the checkpoint are always trained at `learning_rate`.
"""

import logging
from collections.abc import Mapping
from typing import Any

import torch
from ignite.engine import Engine, Events
from monai.engines import IterationEvents
from monai.optimizers import WarmupCosineSchedule
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.hooks import RemovableHandle

from pretext3d.checking import integer, is_integer, is_number, number
from pretext3d.errors import UserError
from pretext3d.training.checkpoint_io import unwrap
from pretext3d.training.transfer import transferred

__all__ = ["FreezeEncoder", "Frozen", "WarmupCosine", "check_recipe", "parameter_groups", "warmup_cosine"]

logger = logging.getLogger(__name__)

BACKBONE = "backbone"  # name of the second parameter group; see `checkpointer.check_same_settings`


def check_recipe(keys: Mapping[str, Any]) -> None:
    """Check the values of a recipe, of those keys that are there; a run does so before it reads any volume.

    Args:
        keys: Values of learning_rate, backbone_learning_rate, freeze_encoder_epochs, warmup, final_lr_factor.

    Raises:
        UserError: names the key.

    Examples:
        >>> check_recipe({"warmup": 0.1, "freeze_encoder_epochs": -1})
        Traceback (most recent call last):
        pretext3d.errors.UserError: freeze_encoder_epochs: found -1, expected an integer from 0
    """
    if "learning_rate" in keys:
        number("learning_rate", keys["learning_rate"], low=0, low_open=True)
    rate = keys.get("backbone_learning_rate")
    if rate is not None:
        number("backbone_learning_rate", rate, low=0, expected="null (as learning_rate) or a number from 0")
    epochs = keys.get("freeze_encoder_epochs", 0)
    integer("freeze_encoder_epochs", epochs, minimum=0, expected="an integer from 0")
    warmup = keys.get("warmup", 0)
    if not is_number(warmup) or warmup < 0 or (warmup > 1 and not is_integer(warmup)):
        raise UserError(f"warmup: found {warmup!r}, expected a share from 0.0 to 1.0 or a number of steps")
    number("final_lr_factor", keys.get("final_lr_factor", 0), 0, 1, expected="a number from 0 to 1")


def parameter_groups(
    network: nn.Module, learning_rate: float, backbone_learning_rate: float | None = None
) -> list[dict[str, Any]]:
    """The parameter groups for an optimizer: the heads and what is new, then what was transferred.

    Both are in the network's order, so that a resumed run has the same ones. With one rate for both, or where
    nothing was transferred, there is one group of all parameters. At a rate of 0 what was transferred is
    permanently frozen, including the running statistics of its norms.

    Args:
        network: Network to train; may be wrapped for several processes.
        learning_rate: Learning rate of the heads and of what is new.
        backbone_learning_rate: Learning rate of what was transferred; None = learning_rate.

    Raises:
        UserError: a rate that is not a finite number, learning_rate not above 0, backbone_learning_rate below
            0.
    """
    check_recipe({"learning_rate": learning_rate, "backbone_learning_rate": backbone_learning_rate})
    rate = learning_rate if backbone_learning_rate is None else backbone_learning_rate
    parameters = dict(unwrap(network).named_parameters())
    names = transferred(unwrap(network)) if rate != learning_rate else frozenset()
    moved = [parameter for name, parameter in parameters.items() if name in names]
    if not moved:
        if rate != learning_rate:
            logger.warning("backbone_learning_rate: nothing was transferred, all learns at learning_rate")
        return [{"params": list(parameters.values()), "lr": learning_rate}]
    if rate == 0:
        frozen = Frozen(network, names)
        frozen.hold()
        logger.info("backbone frozen for good: %s", frozen)
    rest = [parameter for name, parameter in parameters.items() if name not in names]
    return [{"params": rest, "lr": learning_rate}, {"params": moved, "lr": rate, "name": BACKBONE}]


class Frozen:
    """A part of a network that can be frozen: its trainable parameters, and its norms' running statistics.

    MONAI's trainer calls `train()` on the network in each iteration; frozen norms are therefore put
    into evaluation mode immediately before each pass.

    DistributedDataParallel waits, in each step, for the gradients of all parameters that required one when it
    was built. Under it frozen parameters still require gradients, and `drop_gradients` removes these before
    the optimizer's step: `find_unused_parameters` is not needed, and the result is the same.

    Args:
        network: Network to train; may be wrapped for several processes.
        names: Names of the tensors, as in its state dict.
    """

    def __init__(self, network: nn.Module, names: frozenset[str]) -> None:
        self.distributed = any(isinstance(module, DistributedDataParallel) for module in network.modules())
        network = unwrap(network)
        named = network.named_parameters()
        self.parameters = [value for name, value in named if name in names and value.requires_grad]
        modules = network.named_modules()
        self.norms = [module for name, module in modules if f"{name}.running_mean" in names]
        self.handles: list[RemovableHandle] = []

    def __str__(self) -> str:
        """Number of parameters and tensors."""
        count = sum(parameter.numel() for parameter in self.parameters)
        return f"{count:,} transferred parameters in {len(self.parameters)} tensors"

    def hold(self) -> None:
        """Freeze: from now on no value changes."""
        for parameter in self.parameters:
            parameter.requires_grad_(self.distributed)
        self.drop_gradients()
        self.handles = [norm.register_forward_pre_hook(_evaluate) for norm in self.norms]

    def release(self) -> None:
        """Release: from now on it is trained."""
        for parameter in self.parameters:
            parameter.requires_grad_(True)
        for handle in self.handles:
            handle.remove()

    def drop_gradients(self) -> None:
        """Remove the gradients, so that the optimizer leaves the parameters unchanged."""
        for parameter in self.parameters:
            parameter.grad = None


def _evaluate(module: nn.Module, inputs: Any) -> None:
    module.eval()


class FreezeEncoder:
    """Handler of a trainer: freezes the transferred part of the encoder for the first epochs, see `Frozen`.

    The encoder is the backbone without `Backbone.outside_encoder`. Whether it is frozen depends on the epoch
    alone, so a resumed run behaves like an uninterrupted one.

    Args:
        network: Network with a submodule `backbone`; may be wrapped for several processes.
        epochs: Number of epochs, freeze_encoder_epochs; 0 = none.

    Raises:
        UserError: epochs is not an integer from 0; the backbone does not name what is outside its
            encoder.
    """

    def __init__(self, network: nn.Module, epochs: int = 0) -> None:
        check_recipe({"freeze_encoder_epochs": epochs})
        self.network, self.epochs, self.frozen = network, epochs, False
        self.names = _encoder_names(unwrap(network)) if epochs else frozenset()
        self.encoder: Frozen | None = None

    def attach(self, engine: Engine) -> None:
        """Register with the trainer."""
        if self.names:
            engine.add_event_handler(Events.EPOCH_STARTED, self.start_epoch)
            engine.add_event_handler(IterationEvents.BACKWARD_COMPLETED, self.end_backward)

    def start_epoch(self, engine: Engine) -> None:
        """Freeze or release, depending on the epoch."""
        frozen = engine.state.epoch <= self.epochs
        if frozen == self.frozen:
            return
        self.frozen = frozen
        if self.encoder is None:  # created now: must not include what another recipe froze permanently
            self.encoder = Frozen(self.network, self.names)
        if frozen:
            self.encoder.hold()
            logger.info("encoder frozen up to epoch %d: %s", self.epochs, self.encoder)
        else:
            self.encoder.release()
            logger.info("encoder released: trained from epoch %d on", engine.state.epoch)

    def end_backward(self, engine: Engine) -> None:
        """Drop the gradients that were computed for a frozen encoder, as several processes do."""
        if self.frozen and self.encoder is not None:
            self.encoder.drop_gradients()


def _encoder_names(network: nn.Module) -> frozenset[str]:
    """Names of the encoder's tensors that were transferred."""
    backbone = network.get_submodule("backbone")
    outside = tuple(f"backbone.{name}." for name in getattr(backbone, "outside_encoder", ()))
    if not outside:
        raise UserError(
            f"freeze_encoder_epochs: {type(backbone).__name__} does not say what is `outside_encoder`; "
            "expected the names of the submodules that its coarsest map does not depend on (its decoder)"
        )
    names = frozenset(name for name in transferred(network) if not name.startswith(outside))
    if not names:
        logger.warning("freeze_encoder_epochs: nothing was transferred to the encoder, nothing is frozen")
    return names


class WarmupCosine(WarmupCosineSchedule):
    """MONAI's linear warmup and cosine decay, ending at the same share of each group's own rate.

    MONAI's `end_lr` is one number for all groups: a group at a tenth of the rate, or at 0, would also end
    there. See `warmup_cosine`.
    """

    def __init__(
        self, optimizer: torch.optim.Optimizer, steps: int, warmup_steps: int, final_lr_factor: float
    ) -> None:
        self.final_lr_factor = final_lr_factor
        super().__init__(optimizer, warmup_steps=warmup_steps, t_total=steps)

    def get_lr(self) -> list[float]:
        """One rate per parameter group."""
        factor = self.lr_lambda(self.last_epoch)
        if self.last_epoch < self.warmup_steps:
            return [base * factor for base in self.base_lrs]
        return [max(base * self.final_lr_factor, base * factor) for base in self.base_lrs]


def warmup_cosine(
    optimizer: torch.optim.Optimizer, steps: int, warmup: float = 0, final_lr_factor: float = 0.0
) -> WarmupCosine:
    """A learning-rate schedule that is stepped once per iteration.

    With W warmup steps of S, the factor of step s is s / W for s < W, then the larger of final_lr_factor and
    (1 + cos(pi (s - W) / (S - W))) / 2. Each group's rate is its own initial one times the factor.

    Args:
        optimizer: Optimizer whose groups have the initial rates.
        steps: Number of steps S of the run.
        warmup: Fraction of the steps, 0.0 to 1.0, or their number W as an integer.
        final_lr_factor: Smallest factor after the warmup, 0 to 1; 1 = constant.

    Raises:
        UserError: a value of the wrong type or out of range.

    Examples:
        >>> optimizer = torch.optim.SGD([{"params": [nn.Parameter(torch.ones(1))], "lr": 0.5}])
        >>> [round(warmup_cosine(optimizer, 4, 1, 0.1).lr_lambda(step), 2) for step in range(5)]
        [0.0, 1.0, 0.75, 0.25, 0.0]
    """
    integer("steps", steps, minimum=1, expected="an integer from 1")
    check_recipe({"warmup": warmup, "final_lr_factor": final_lr_factor})
    warmup_steps = int(warmup) if is_integer(warmup) else int(warmup * steps)
    return WarmupCosine(optimizer, steps, warmup_steps, final_lr_factor)

"""Parts of a network that are frozen for a time: what was transferred, or its encoder."""

import logging
from typing import Any

from ignite.engine import Engine, Events
from monai.engines import IterationEvents
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.hooks import RemovableHandle

from pretext3d.checking import integer
from pretext3d.errors import UserError
from pretext3d.training.checkpoint_io import unwrap
from pretext3d.training.schedules import WarmupCosine
from pretext3d.training.transfer import transferred

__all__ = ["FreezeEncoder", "Frozen"]

logger = logging.getLogger(__name__)


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
    """Handler of a trainer: freezes the transferred part of the encoder at the start of a run, see `Frozen`.

    The encoder is the backbone without `Backbone.outside_encoder`. It is frozen for the first epochs, and for
    the first steps of a schedule that has some (see `schedules.warmup_cosine`), whichever lasts longer.
    Whether it is frozen depends on the number of the step alone, so a resumed run behaves like an
    uninterrupted one.

    Args:
        network: Network with a submodule `backbone`; may be wrapped for several processes.
        epochs: Number of epochs, freeze_encoder_epochs; 0 = none.
        schedule: Schedule with a number `encoder_start` of first steps; None = none.

    Raises:
        UserError: epochs is not an integer from 0; the backbone does not name what is outside its
            encoder.
    """

    def __init__(self, network: nn.Module, epochs: int = 0, schedule: WarmupCosine | None = None) -> None:
        integer("freeze_encoder_epochs", epochs, minimum=0, expected="an integer from 0")
        self.network, self.epochs, self.frozen = network, epochs, False
        self.schedule = schedule if schedule and schedule.encoder_start else None
        self.names = _encoder_names(unwrap(network), bool(epochs)) if epochs or self.schedule else frozenset()
        self.encoder: Frozen | None = None

    def attach(self, engine: Engine) -> None:
        """Register with the trainer."""
        if self.names:
            engine.add_event_handler(Events.ITERATION_STARTED, self.start_step)
            engine.add_event_handler(IterationEvents.BACKWARD_COMPLETED, self.end_backward)

    def start_step(self, engine: Engine) -> None:
        """Freeze or release, depending on the epoch and the step."""
        frozen = engine.state.epoch <= self.epochs
        # the schedule's number, as a resumed run has restored it
        frozen |= self.schedule is not None and engine.state.iteration <= self.schedule.encoder_start
        if frozen == self.frozen:
            return
        self.frozen = frozen
        if self.encoder is None:  # created now: must not include what another recipe froze permanently
            self.encoder = Frozen(self.network, self.names)
        if frozen:
            self.encoder.hold()
            logger.info("encoder frozen %s: %s", self._until(), self.encoder)
        else:
            self.encoder.release()
            state = engine.state
            begun = f"step {state.iteration}" if self.schedule else f"epoch {state.epoch}"
            logger.info("encoder released: trained from %s on", begun)

    def _until(self) -> str:
        steps = f"up to step {self.schedule.encoder_start}" if self.schedule else ""
        return " and ".join(filter(None, [f"up to epoch {self.epochs}" * bool(self.epochs), steps]))

    def end_backward(self, engine: Engine) -> None:
        """Drop the gradients that were computed for a frozen encoder, as several processes do."""
        if self.frozen and self.encoder is not None:
            self.encoder.drop_gradients()


def _encoder_names(network: nn.Module, asked: bool) -> frozenset[str]:
    """Names of the encoder's tensors that were transferred; a warning if there are none, where `asked`."""
    backbone = network.get_submodule("backbone")
    outside = tuple(f"backbone.{name}." for name in getattr(backbone, "outside_encoder", ()))
    if not outside:
        raise UserError(
            f"freeze_encoder_epochs: {type(backbone).__name__} does not say what is `outside_encoder`; "
            "expected the names of the submodules that its coarsest map does not depend on (its decoder)"
        )
    names = frozenset(name for name in transferred(network) if not name.startswith(outside))
    if not names and asked:
        logger.warning("freeze_encoder_epochs: nothing was transferred to the encoder, nothing is frozen")
    return names

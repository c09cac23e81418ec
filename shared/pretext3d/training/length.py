"""The length of a run: in epochs, or in optimiser steps, also where these end within an epoch.

An epoch is one pass of the data loader, whose length follows from the cases, the crops of each and the batch
size. Papers state epochs over their own data: a number of optimiser steps transfers to other data, a number
of epochs does not.
"""

import logging
import math

from ignite.engine import Engine, Events

from pretext3d.checking import integer
from pretext3d.errors import UserError
from pretext3d.ranks import is_first
from pretext3d.training.last_batch import check_last_batch

__all__ = ["RunLength"]

logger = logging.getLogger(__name__)


class RunLength:
    """Handler of a trainer: ends its last epoch after exactly `max_steps` optimiser steps.

    With max_steps S and L steps per epoch a run has ceil(S / L) epochs. The last one may be shorter; like any
    other it ends with validation, metrics and checkpoints. Without max_steps no epoch is shorter.

    A run that gets to the end of an epoch is refused in its first step where the epoch's last batch is too
    small for batch norm, see `check_last_batch`.

    Args:
        max_epochs: Number of epochs; it does not matter where max_steps is given.
        max_steps: Number of optimiser steps; None = max_epochs decides. In several processes a step is one
            step of all of them.
        steps_per_epoch: Number of batches L of the data loader, in each process.

    Raises:
        UserError: both None, or not integers from 1.

    Examples:
        >>> length = RunLength(max_epochs=None, max_steps=10, steps_per_epoch=4)
        >>> length.epochs, length.steps(length.epochs), length.steps(2)
        (3, 10, 8)
        >>> RunLength(max_epochs=12, max_steps=None, steps_per_epoch=4).epochs
        12
    """

    def __init__(self, max_epochs: int | None, max_steps: int | None, steps_per_epoch: int) -> None:
        check_length(max_epochs, max_steps)
        self.max_steps, self.steps_per_epoch = max_steps, steps_per_epoch
        self.epochs = int(max_epochs or 0) if max_steps is None else math.ceil(max_steps / steps_per_epoch)

    def steps(self, epochs: int) -> int:
        """Number of steps of a run of so many epochs, at most max_steps: the length of its schedule."""
        steps = epochs * self.steps_per_epoch
        return steps if self.max_steps is None else min(steps, self.max_steps)

    @staticmethod
    def interval(val_interval: int | None, epochs: int) -> int:
        """Number of epochs between validations; None = a quarter of the run's, rounded down, at least 1.

        Examples:
            >>> RunLength.interval(None, 54), RunLength.interval(None, 2), RunLength.interval(3, 54)
            (13, 1, 3)
        """
        return val_interval or max(1, epochs // 4)

    def reached(self, iteration: int) -> bool:
        """Whether a run that has made so many steps is at its max_steps."""
        return self.max_steps is not None and iteration >= self.max_steps

    def attach(self, engine: Engine) -> None:
        """Register with the trainer."""
        if self.steps(self.epochs) >= self.steps_per_epoch:
            engine.add_event_handler(Events.STARTED, check_last_batch)
        if self.max_steps is not None:
            engine.add_event_handler(Events.STARTED, self.start_run)
            engine.add_event_handler(Events.ITERATION_COMPLETED, self.end_step)

    def start_run(self, engine: Engine) -> None:
        """Report the length; make no step where all are made, as in a further round of a federated run."""
        if self.reached(engine.state.iteration):
            engine.terminate()
        elif is_first():
            last = self.steps(self.epochs) - (self.epochs - 1) * self.steps_per_epoch
            shorter = f", the last one of {last}" if last < self.steps_per_epoch else ""
            many = f"{self.epochs} epochs of {self.steps_per_epoch} steps{shorter}"
            logger.info("%d steps: %s", self.max_steps, "1 epoch" if self.epochs == 1 else many)

    def end_step(self, engine: Engine) -> None:
        """End the epoch early where this was the last step."""
        if self.reached(engine.state.iteration) and engine.state.iteration % self.steps_per_epoch:
            engine.terminate_epoch()


def check_length(max_epochs: int | None, max_steps: int | None) -> None:
    """Refuse a run without a length.

    Raises:
        UserError: both None, or not integers from 1.
    """
    if max_epochs is None and max_steps is None:
        raise UserError("max_epochs, max_steps: found null for both, expected a number for one of them")
    for key, value in (("max_epochs", max_epochs), ("max_steps", max_steps)):
        if value is not None:
            integer(key, value, 1, expected="an integer from 1, or null")

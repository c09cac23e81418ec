"""A run's numbers as a table: one line per epoch in metrics.csv, for pandas and the curves in the docs."""

import csv
import logging
import math
import time
from pathlib import Path
from typing import Any

import ignite.distributed as idist
import torch
from ignite.engine import Engine, Events

from pretext3d.errors import UserError
from pretext3d.files import replacing

__all__ = ["History"]

logger = logging.getLogger(__name__)


class History:
    """Handler of a trainer: writes one line per epoch with its numbers.

    They are epoch, steps, seconds, mean training loss over all processes, learning rate and the validation's
    metrics. List it after the progress bar, which then ends first, and the validation handler. After a resume
    the lines of epochs that are trained again are dropped.

    Args:
        path: Path of the CSV file.
        optimizer: Optimizer whose first group's learning rate is recorded.
        evaluator: Validation whose metrics are recorded.
    """

    def __init__(self, path: str, optimizer: torch.optim.Optimizer, evaluator: Any = None) -> None:
        self.path = Path(path)
        self.optimizer, self.evaluator = optimizer, evaluator
        self.loss_sum, self.steps, self.begun = 0.0, 0, time.perf_counter()

    def attach(self, engine: Engine) -> None:
        """Register with the trainer."""
        engine.add_event_handler(Events.STARTED, self.start_run)
        engine.add_event_handler(Events.EPOCH_STARTED, self.start_epoch)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.add_loss)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self.end_epoch)

    def start_run(self, engine: Engine) -> None:
        """Say which epochs of an earlier run are trained again: not saved, or shortened."""
        again = [line["epoch"] for line in self._rows() if int(float(line["epoch"])) > engine.state.epoch]
        if again and idist.get_rank() == 0:
            logger.info("%s: epoch %s: trained again", self.path, ", ".join(again))

    def start_epoch(self, engine: Engine) -> None:
        """Start a new mean."""
        self.loss_sum, self.steps, self.begun = 0.0, 0, time.perf_counter()

    def add_loss(self, engine: Engine) -> None:
        """Add the loss of one step."""
        output = engine.state.output
        loss = output[0]["loss"] if isinstance(output, list) else output["loss"]  # a list once decollated
        self.loss_sum += float(torch.as_tensor(loss).detach())
        self.steps += 1

    def end_epoch(self, engine: Engine) -> None:
        """Write one line to the table and to the log."""
        row: dict[str, float] = {
            "epoch": engine.state.epoch,
            "step": engine.state.iteration,
            "seconds": round(time.perf_counter() - self.begun, 2),
            "train_loss": float(idist.all_reduce(self.loss_sum / max(1, self.steps)))
            / idist.get_world_size(),
            "learning_rate": self.optimizer.param_groups[0]["lr"],
        }
        if not math.isfinite(row["train_loss"]):
            raise UserError(
                f"the training loss is {row['train_loss']} after epoch {engine.state.epoch}: diverged; "
                "try a lower --learning_rate or --precision fp32 (the last good checkpoint is kept)"
            )
        if self.evaluator is not None and self.evaluator.state.epoch == engine.state.epoch:
            row |= {name: float(value) for name, value in self.evaluator.state.metrics.items()}
        if idist.get_rank() > 0:
            return
        text = ", ".join(
            f"{name} {value:.4g}" for name, value in row.items() if name not in ("epoch", "step")
        )
        logger.info("epoch %d of %d: %s", engine.state.epoch, engine.state.max_epochs, text)
        earlier = [line for line in self._rows() if int(float(line["epoch"])) < engine.state.epoch]
        names = list(dict.fromkeys(name for line in [*earlier, row] for name in line))
        with replacing(self.path) as draft, draft.open("w", newline="") as file:
            writer = csv.DictWriter(file, names)
            writer.writeheader()
            writer.writerows([*earlier, row])

    def _rows(self) -> list[dict[str, Any]]:
        """The lines that the table has."""
        if not self.path.exists():
            return []
        with self.path.open(newline="") as file:
            return list(csv.DictReader(file))

"""Checkpoints and resume: a run can be killed at any point and continues as if it had never stopped."""

import logging
import math
import random
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import ignite.distributed as idist
import numpy as np
import torch
from ignite.engine import Engine, Events
from torch import nn

from pretext3d.errors import UserError, one_line
from pretext3d.training.checkpoint_files import epoch_files, epoch_of
from pretext3d.training.checkpoint_io import (
    check_same_run,
    load_checkpoint,
    plain,
    rng_state,
    save_checkpoint,
    set_rng_state,
    unwrap,
)
from pretext3d.training.length import RunLength
from pretext3d.training.record_schema import check_finite, check_record
from pretext3d.training.resume import (
    check_moments,
    check_optimizer_settings,
    check_same_settings,
    schedule_state,
)

__all__ = ["RunCheckpointer", "load_checkpoint", "save_checkpoint"]

logger = logging.getLogger(__name__)

EPOCH_KEYS = {"optimizer", "lr_scheduler", "scaler", "rng", "epoch", "iteration", "best_metric", "best_epoch"}


class RunCheckpointer:
    """Handler of a trainer: writes the checkpoints of each epoch, the best and the last; resumes from them.

    It writes after all other handlers (validation, learning-rate scheduler, metrics), whatever its position
    in their list, because it attaches its step at the end of an epoch only when the run starts. It reads when
    the run starts: list it FIRST, so that the other handlers start from the resumed state.

    At the start of each epoch the global generators of torch, NumPy and Python are seeded by (seed, epoch,
    rank): dropout and the like are a function of the epoch. A run killed at any point and resumed then
    gives, on CPU, the same losses and weights bit for bit, if the order of the data is a function of the
    epoch (`EpochSampler`) and an epoch is one pass of the data loader. All ranks read; only rank 0 writes.
    An epoch that `RunLength` ended early is trained again where the run is resumed with another length.

    Args:
        ckpt_dir: Folder of epoch_0001.pt ..., best.pt, final.pt.
        network: Network to train; it may be wrapped for several processes.
        optimizer: Optimizer whose state is kept.
        record: Record of the run. A checkpoint of another method, backbone or number of channels is refused.
        lr_scheduler: Schedule whose position is kept; its length is the current configuration's, so that a
            finished run can be resumed with more epochs.
        scaler: Gradient scaler of mixed precision; None = the trainer's own.
        evaluator: Validation whose metric decides on best.pt; None = no best.pt.
        key_metric: Name of that metric; '' = the evaluator's key metric.
        negative_key_metric: True where lower is better (an error), False where higher is (Dice). Of equal
            errors the latest is the best, since a loss with a margin ends at 0 while the network goes on
            learning; of equal scores the earliest.
        keep: Number of epoch checkpoints that are kept, the newest ones.
        resume: True = continue from the newest intact checkpoint, from the beginning where there is none;
            False = an error where ckpt_dir already holds a run.
        seed: Seed of the run; None = the generators are not seeded (only restored on resume).
        length: Length of the run, which may end within an epoch; attached here, after the resume.

    Raises:
        UserError: from the constructor for a bad argument; from the run where it cannot be resumed.
    """

    def __init__(
        self,
        ckpt_dir: str,
        network: nn.Module,
        optimizer: torch.optim.Optimizer,
        record: Mapping[str, Any],
        lr_scheduler: Any = None,
        scaler: Any = None,
        evaluator: Any = None,
        key_metric: str = "",
        negative_key_metric: bool = False,
        keep: int = 2,
        resume: bool = False,
        seed: int | None = 0,
        length: RunLength | None = None,
    ) -> None:
        if keep < 1:
            raise UserError(f"keep: found {keep}, expected 1 checkpoint or more")
        if seed is not None and seed < 0:
            raise UserError(f"seed: found {seed}, expected 0 or more")
        self.ckpt_dir = Path(ckpt_dir)
        self.network = network
        self.parts = {"optimizer": optimizer, "lr_scheduler": lr_scheduler, "scaler": scaler}
        self.record = plain(record, "record")
        check_record(self.record, "this run")
        self.evaluator = evaluator
        self.key_metric = key_metric or (evaluator.state.key_metric_name if evaluator is not None else "")
        if evaluator is not None and not self.key_metric:
            raise UserError("key_metric: the evaluator has no key metric; name one, or give no evaluator")
        self.negative_key_metric = negative_key_metric
        self.keep = keep
        self.resume = resume
        self.seed = seed
        self.length = length
        self.best_metric: float | None = None
        self.best_epoch: int | None = None
        self.done_epoch = -1  # the last epoch that the weights have completed

    def attach(self, engine: Engine) -> None:
        """Register with the trainer."""
        engine.add_event_handler(Events.STARTED, self.start_run)
        engine.add_event_handler(Events.EPOCH_STARTED, self.start_epoch)
        engine.add_event_handler(Events.COMPLETED, self.end_run)
        if self.length is not None:
            self.length.attach(engine)

    def start_run(self, engine: Engine) -> None:
        """Resume, or make sure that nothing is overwritten; a trainer that runs a second time continues."""
        if self.done_epoch >= 0:  # the next round of a federated training
            return
        if self.parts["scaler"] is None:
            self.parts["scaler"] = getattr(engine, "scaler", None)  # MONAI's trainer makes it in run()
        epochs = epoch_files(self.ckpt_dir)
        if not self.resume:
            refuse_earlier_run(self.ckpt_dir)
        if self.resume and not epochs:
            final = self.ckpt_dir / "final.pt"
            if final.exists() and load_checkpoint(final)["epoch"] == 0:
                logger.warning("%s: holds initial weights, which is all of this run", final)
                engine.terminate()
                return
            if final.exists():
                raise UserError(f"{self.ckpt_dir}: holds final.pt, but no epoch checkpoint to resume from")
            logger.warning("nothing to resume in %s, starting from the beginning", self.ckpt_dir)
        elif self.resume:
            self._resume(engine, epochs)
        if idist.get_rank() == 0:
            for draft in self.ckpt_dir.glob(".*.pt.*.tmp"):  # left by a process killed while writing
                draft.unlink(missing_ok=True)
        if not engine.has_event_handler(self.end_epoch, Events.EPOCH_COMPLETED):
            engine.add_event_handler(Events.EPOCH_COMPLETED, self.end_epoch)

    def start_epoch(self, engine: Engine) -> None:
        """Seed the global generators by (seed, epoch, rank)."""
        if self.seed is not None:
            words = np.random.SeedSequence([self.seed, engine.state.epoch, idist.get_rank()]).generate_state(
                3
            )
            random.seed(int(words[0]))
            np.random.seed(int(words[1]))
            torch.manual_seed(int(words[2]))

    def end_epoch(self, engine: Engine) -> None:
        """Write best.pt where the metric improved, then this epoch's checkpoint, then remove the oldest."""
        state = engine.state
        self.done_epoch = state.epoch
        value = self._metric(state.epoch)
        if value is not None and self._improves(value):
            self.best_metric, self.best_epoch = value, state.epoch
            self._write("best.pt", state.epoch)
        parts = {name: None if part is None else part.state_dict() for name, part in self.parts.items()}
        more = {**parts, "rng": rng_state(), "iteration": state.iteration}
        if state.epoch_length and state.iteration < state.epoch * state.epoch_length:
            more["ended_early"] = True
        # after best.pt: a run killed between the two repeats this epoch and writes the same best.pt
        self._write(f"epoch_{state.epoch:04d}.pt", state.epoch, **more)
        if idist.get_rank() == 0:
            for path in [p for p in epoch_files(self.ckpt_dir) if epoch_of(p) <= state.epoch][: -self.keep]:
                path.unlink()

    def end_run(self, engine: Engine) -> None:
        """Write final.pt, unless the run was interrupted in the middle of an epoch; say what best.pt is."""
        if self.done_epoch == engine.state.epoch:
            self._write("final.pt", engine.state.epoch)
            if idist.get_rank() == 0 and self.best_metric is not None:
                logger.info(
                    "best.pt: the weights after epoch %d, with %s %.4g in the validation; final.pt: those "
                    "after epoch %d",
                    self.best_epoch, self.key_metric, self.best_metric, engine.state.epoch,
                )  # fmt: skip

    def _write(self, name: str, epoch: int, **more: Any) -> None:
        if idist.get_rank() == 0:
            network = unwrap(self.network).state_dict()
            best = {"best_metric": self.best_metric, "best_epoch": self.best_epoch}
            content = {"record": self.record, "network": network, "epoch": epoch, **best, **more}
            save_checkpoint(self.ckpt_dir / name, content)

    def _metric(self, epoch: int) -> float | None:
        """The key metric of this epoch's validation; None where there was none, or where it is not finite."""
        metrics = self.evaluator.state.metrics if self.evaluator is not None else {}
        if not metrics or self.evaluator.state.epoch != epoch:  # else the one before is still there
            return None
        if self.key_metric not in metrics:
            known = ", ".join(sorted(metrics))
            raise UserError(f"key_metric: found {self.key_metric!r}, expected one of {known}")
        value = float(metrics[self.key_metric])
        return value if math.isfinite(value) else None

    def _improves(self, value: float) -> bool:
        if self.best_metric is None:
            return True
        return value <= self.best_metric if self.negative_key_metric else value > self.best_metric

    def _resume(self, engine: Engine, epochs: list[Path]) -> None:
        path, content = newest = newest_good(epochs)
        if self._goes_on(content):
            earlier = [p for p in epochs if epoch_of(p) < content["epoch"]]
            if not earlier and content["epoch"] == 1:
                logger.warning("%s: its only epoch was ended early, starting from the beginning", path)
                return
            if not earlier:
                raise UserError(
                    f"{path}: its epoch was ended early, after {content['iteration']} steps, and no earlier "
                    f"checkpoint is left; expected --max_steps {content['iteration']}"
                )
            path, content = newest_good(earlier)
        check_same_run(path, content["record"], self.record)
        for name, part in self.parts.items():
            if isinstance(part, torch.optim.Optimizer) and content[name]:
                check_optimizer_settings(path, content[name], part)
            elif name == "lr_scheduler" and part is not None and content[name]:
                content[name] = schedule_state(path, content[name], part.state_dict())
        check_same_settings(path, content, self.parts)
        _load_part(path, "network", unwrap(self.network), content["network"])
        for name, part in self.parts.items():
            stored = content[name]
            if part is not None and stored:
                _load_part(path, name, part, stored)
            elif part is not None or stored:  # a scaler's state is empty where mixed precision is off
                logger.warning(
                    "%s: %s is %s",
                    path,
                    name,
                    "not used" if stored else "not stored, starts from its initial state",
                )
        if idist.get_rank() == 0:
            _restore(path, "rng", set_rng_state, content["rng"])  # rank 0's; the others draw by `seed`
        self.best_metric, self.best_epoch = newest[1]["best_metric"], newest[1]["best_epoch"]  # of best.pt
        if self.evaluator is not None and self.best_epoch is not None:
            self.evaluator.state.best_metric = self.best_metric
            self.evaluator.state.best_metric_epoch = self.best_epoch
        state, epoch = engine.state, content["epoch"]
        self.done_epoch = state.epoch = epoch
        state.iteration = content["iteration"]
        expected = epoch * (state.epoch_length or 0)
        if state.epoch_length and state.iteration != expected and "ended_early" not in content:
            logger.warning("%s: an epoch had another number of iterations than now", path)
            state.iteration = expected
        if epoch >= state.max_epochs:
            logger.warning(
                "%s: %d of %d epochs are done, nothing is left to do", path, epoch, state.max_epochs
            )
        else:
            logger.info("resumed from %s: continuing with epoch %d of %d", path, epoch + 1, state.max_epochs)

    def _goes_on(self, content: Mapping[str, Any]) -> bool:
        """Whether a checkpoint is of an epoch that was ended early, and this run does not end there."""
        ended = self.length is not None and self.length.reached(content["iteration"])
        return "ended_early" in content and not ended


def refuse_earlier_run(ckpt_dir: str | Path) -> None:
    """Make sure that a new run overwrites no earlier one.

    Raises:
        UserError: there are checkpoints in the folder.
    """
    folder = Path(ckpt_dir)
    present = [*epoch_files(folder), *(p for p in (folder / "best.pt", folder / "final.pt") if p.exists())]
    if present:
        names = ", ".join(p.name for p in present)
        raise UserError(
            f"{folder}: holds a run already ({names}); --resume True goes on with that run, a new one needs "
            "another --output_dir"
        )


def newest_good(paths: Sequence[Path]) -> tuple[Path, dict[str, Any]]:
    """The newest intact epoch checkpoint; logs each damaged one that is skipped.

    Raises:
        UserError: none is intact.
    """
    reasons = []
    for path in reversed(paths):
        try:
            content = load_checkpoint(path)
            missing = EPOCH_KEYS - set(content)
            if missing:
                raise UserError(f"{path}: has no {', '.join(sorted(missing))}; expected an epoch checkpoint")
            check_finite(content["network"], str(path))
        except UserError as error:
            logger.warning("%s; falling back to the checkpoint before it", error)
            reasons.append(str(error))
        else:
            return path, content
    raise UserError("no checkpoint can be resumed from: " + "; ".join(reasons))


def _load_part(path: Path, name: str, part: Any, state: Any) -> None:
    if isinstance(part, torch.optim.Optimizer):
        check_moments(path, state, part)
    _restore(path, name, part.load_state_dict, state)


def _restore(path: Path, name: str, load: Callable[[Any], object], state: Any) -> None:
    """Load a part of a checkpoint; an error where it is of another run."""
    try:
        load(state)
    except Exception as error:  # whatever torch and its schedules make of a state that is not theirs
        raise UserError(f"{path}: its {name} does not fit this run: {one_line(error)}") from error

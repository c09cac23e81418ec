"""What a training shows while it runs: progress, a table of its numbers, pictures, MLflow's parameters."""

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Engine, Events
from ignite.handlers import ProgressBar

from pretext3d.data.subjects import subject_count
from pretext3d.progress import Bar
from pretext3d.ranks import is_first
from pretext3d.training.collapse import CollapseWarning
from pretext3d.training.history import History
from pretext3d.training.length import RunLength
from pretext3d.training.pictures import Pictures
from pretext3d.training.probe import Probe
from pretext3d.training.tracking import MLflowDetails
from pretext3d.training.workflow import built, setting

__all__ = ["Progress", "RunReport", "ValidationReport"]

logger = logging.getLogger(__name__)

PARAMETERS = ("profile", "roi_size", "batch_size", "max_epochs", "max_steps", "learning_rate")


class Progress(ProgressBar):
    """Handler of any engine: a progress bar per epoch, of the first process; see `progress.Bar`.

    Args:
        desc: Text before the bar.
        max_steps: Number of iterations of the whole run, whose last epoch may be shorter; None = all are
            complete.
    """

    def __init__(self, desc: str, max_steps: int | None = None) -> None:
        super().__init__(persist=False, desc=desc)
        self.pbar_cls = Bar
        self.max_steps = max_steps
        self.engine: Engine | None = None

    def attach(self, engine: Engine, *args: Any, **kwargs: Any) -> None:
        """Register with the engine."""
        self.engine = engine
        if is_first():
            super().attach(engine, *args, **kwargs)

    def _reset(self, pbar_total: int | None) -> None:
        """Start the bar of an epoch, after its first iteration.

        ignite 0.5.5 has no public way to give an epoch another length than that of the data.
        """
        if self.engine is not None and self.max_steps is not None and pbar_total is not None:
            pbar_total = min(pbar_total, self.max_steps - self.engine.state.iteration + 1)
        super()._reset(pbar_total)


class RunReport:
    """Handler of a trainer: progress bars, metrics.csv, pictures, and the parameters of an MLflow run.

    The last epoch is validated here, whatever the interval: see `LastValidation`. List it last: metrics.csv
    includes the validation's metrics. See `History`, `Pictures`, `MLflowDetails`; `ValidationReport` for what
    it logs at the start, `CollapseWarning` and `Probe`.

    Args:
        output_dir: Folder of the run.
        optimizer: Optimizer whose learning rate is recorded.
        record: Record of the run, one of MLflow's parameters.
        evaluator: Validation whose metrics are recorded and whose first cases are drawn; None = none.
        title: Text before the progress bar.
        draw: Figure of the pretext task, see `Pictures`; None = no pictures.
        pictures: Number of cases to draw.
        probe: Settings of the probe, see `probe.Settings`; None = no probe.
    """

    def __init__(
        self,
        output_dir: str,
        optimizer: torch.optim.Optimizer,
        record: Mapping[str, Any],
        evaluator: Any = None,
        title: str = "training",
        draw: Callable[..., Any] | None = None,
        pictures: int = 0,
        probe: Mapping[str, Any] | None = None,
    ) -> None:
        parameters = {key: setting(key) for key in PARAMETERS} | {"record": record}
        self.evaluator = evaluator
        self.handlers: list[Any] = [
            ValidationReport(evaluator, measured="num_classes" in record),
            LastValidation(evaluator),
            Probe(probe, evaluator),
            Progress(title, parameters["max_steps"]),
            History(str(Path(output_dir) / "metrics.csv"), optimizer, evaluator),
            CollapseWarning(evaluator),
            MLflowDetails(parameters, output_dir),
        ]
        if evaluator is not None and draw is not None:
            dataset, device = evaluator.data_loader.dataset, evaluator.state.device
            shown = (dataset, evaluator.network, evaluator.inferer)
            self.handlers.append(Pictures(*shown, draw, output_dir, device, pictures))

    def attach(self, engine: Engine) -> None:
        """Register with the trainer, and its progress bar with the validation."""
        for handler in self.handlers:
            handler.attach(engine)
        if self.evaluator is not None:
            Progress("validation").attach(self.evaluator, closing_event_name=Events.COMPLETED)


def validated(val_interval: int | None, epochs: int) -> list[int]:
    """The epochs after which a run validates: every `val_interval`-th one and the last one.

    Args:
        val_interval: Number of epochs between validations, None = a quarter of the run's; a number above the
            run's: it never validates.
        epochs: Number of epochs of the run.

    Examples:
        >>> validated(4, 10), validated(None, 54), validated(100, 54)
        ([4, 8, 10], [13, 26, 39, 52, 54], [])
    """
    interval = RunLength.interval(val_interval, epochs)
    return sorted({*range(interval, epochs + 1, interval), epochs}) if interval <= epochs else []


class LastValidation:
    """Handler of a trainer: validates after its last epoch, where the interval leaves that one out.

    Reads val_interval from the running configuration. The last epoch is that of the configuration: further
    rounds of a federated training have none.

    Args:
        evaluator: Validation; None = none.
    """

    def __init__(self, evaluator: Any = None) -> None:
        self.evaluator = evaluator
        self.val_interval = setting("val_interval")
        self.last = 0

    def attach(self, engine: Engine) -> None:
        """Register with the trainer."""
        if self.evaluator is not None and len(self.evaluator.data_loader.dataset.data):
            engine.add_event_handler(Events.STARTED, self.start_run)
            engine.add_event_handler(Events.EPOCH_COMPLETED, self.end_epoch)

    def start_run(self, engine: Engine) -> None:
        """Note which epoch is the last one."""
        self.last = self.last or int(engine.state.max_epochs or 0)

    def end_epoch(self, engine: Engine) -> None:
        """Validate, if that is the last epoch, and it has not been validated."""
        epoch = engine.state.epoch
        due = epoch == self.last and epoch in validated(self.val_interval, self.last)
        if due and self.evaluator.state.epoch != epoch:
            self.evaluator.run(epoch)


class ValidationReport:
    """Handler of a trainer: logs when and on which cases a run validates, and what best.pt will be.

    Reads val_interval and the test set from the running configuration.

    Args:
        evaluator: Validation; None = none.
        measured: Whether evaluate.yaml measures the network later: one for a labelled task.
    """

    def __init__(self, evaluator: Any = None, measured: bool = False) -> None:
        self.evaluator, self.measured = evaluator, measured
        self.val_interval = setting("val_interval")

    def attach(self, engine: Engine) -> None:
        """Register with the trainer."""
        if self.evaluator is not None and is_first():
            engine.add_event_handler(Events.EPOCH_STARTED, self.report)

    def report(self, engine: Engine) -> None:
        """Log once, before the first epoch; a run without steps has none."""
        engine.remove_event_handler(self.report, Events.EPOCH_STARTED)
        logger.info("%s", self.text(engine))

    def text(self, engine: Engine) -> str:
        """The lines of the log, one per question: when, on what, which weights are kept, what comes later."""
        cases, test = self.evaluator.data_loader.dataset.data, (built("cases") or {}).get("test")
        epochs = int(engine.state.max_epochs or 0)
        found, interval = validated(self.val_interval, epochs), RunLength.interval(self.val_interval, epochs)
        if not cases or not found:
            why = f"val_interval {interval} of {epochs} epochs" if cases else "no case is held out"
            return f"validation: none ({why}); final.pt will be the weights after the last step, no best.pt"
        when = f"every {interval} epochs" if interval > 1 else "every epoch"
        when += " and the last one" if epochs % interval else ""
        metric = getattr(self.evaluator.state, "key_metric_name", None) or "metric"
        which = "lowest" if "loss" in metric else "highest"
        lines = [
            f"validation: after {when}, {len(found)} in all, on {counted(cases)} not trained on",
            f"best.pt: the weights with the {which} {metric} there; final.pt: those after the last step",
        ]
        if self.measured and test:
            lines.append(f"the evaluation will measure {counted(test)} of the test set")
        elif self.measured:
            lines.append(
                "the evaluation will measure the cases of the validation: too high for best.pt, which was "
                "chosen by them, not for final.pt, the default; --test_fraction holds out others"
            )
        return "\n".join(lines)


def counted(cases: Any) -> str:
    """The number of subjects and volumes, or of items that are not cases."""
    known = all(isinstance(case, Mapping) and "id" in case for case in cases)
    return subject_count(list(cases), unit=True) if known else f"{len(cases)} items"

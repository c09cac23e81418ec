"""What a training shows while it runs: progress, a table of its numbers, pictures, MLflow's parameters."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Engine
from ignite.handlers import ProgressBar

from pretext3d.progress import Bar
from pretext3d.ranks import is_first
from pretext3d.training.history import History
from pretext3d.training.pictures import Pictures
from pretext3d.training.tracking import MLflowDetails
from pretext3d.training.workflow import setting

__all__ = ["Progress", "RunReport"]

PARAMETERS = ("profile", "roi_size", "batch_size", "max_epochs", "max_steps", "learning_rate")


class Progress(ProgressBar):
    """Handler of any engine: a progress bar per epoch, of the first process; see `progress.Bar`.

    Args:
        desc: Text before the bar.
    """

    def __init__(self, desc: str) -> None:
        super().__init__(persist=False, desc=desc)
        self.pbar_cls = Bar

    def attach(self, engine: Engine, *args: Any, **kwargs: Any) -> None:
        """Register with the engine."""
        if is_first():
            super().attach(engine, *args, **kwargs)


class RunReport:
    """Handler of a trainer: progress bar, metrics.csv, pictures, and the parameters of an MLflow run.

    List it last: metrics.csv includes the validation's metrics. See `History`, `Pictures`, `MLflowDetails`.

    Args:
        output_dir: Folder of the run.
        optimizer: Optimizer whose learning rate is recorded.
        record: Record of the run, one of MLflow's parameters.
        evaluator: Validation whose metrics are recorded; None = none.
        title: Text before the progress bar.
        pictures: Pictures of the pretext task; None = none.
    """

    def __init__(
        self,
        output_dir: str,
        optimizer: torch.optim.Optimizer,
        record: Mapping[str, Any],
        evaluator: Any = None,
        title: str = "training",
        pictures: Pictures | None = None,
    ) -> None:
        parameters = {key: setting(key) for key in PARAMETERS} | {"record": record}
        self.handlers: list[Any] = [
            Progress(title),
            History(str(Path(output_dir) / "metrics.csv"), optimizer, evaluator),
            MLflowDetails(parameters, output_dir),
            *([pictures] if pictures is not None else []),
        ]

    def attach(self, engine: Engine) -> None:
        """Register with the trainer."""
        for handler in self.handlers:
            handler.attach(engine)

"""The probe of a pre-training: what its frozen features know of held-out cases, while it runs.

A pretext task's own figures do not show when its features stop improving for other tasks. Where the data have
classes or labels, a few of them show it: see docs/probe.md. They never reach the training.
"""

import logging
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ignite.engine import Engine, Events

from pretext3d.checking import closest_hint, integer
from pretext3d.data.dataset import CachedVolumes
from pretext3d.errors import UserError
from pretext3d.networks.backbone import Backbone
from pretext3d.ranks import is_first
from pretext3d.training.checkpoint_io import unwrap
from pretext3d.training.pictures import untouched_generators
from pretext3d.training.probe_inputs import FrozenEncoder
from pretext3d.training.probe_tasks import LinearDice, NearestNeighbours, find_classes

__all__ = ["Probe", "check_probe", "initial_figures"]

logger = logging.getLogger(__name__)

FIGURES = ("probe_knn_accuracy", "probe_dice")
INITIAL = "probe before the first step, with the initial weights: "  # a line of the log; figures follow


class Settings(NamedTuple):
    """The configuration's key `probe`.

    Attributes:
        every: Number of epochs between two probes, where these epochs validate.
        class_file: Path of a CSV file with the columns id and class; '' = the datalist's classes.
        neighbours: Number of nearest neighbours.
        level: Encoder map of the linear Dice, an index, fine to coarse; -1 = the coarsest.
        max_cases: Largest number of training cases, and of held-out cases.
        max_windows: Largest number of windows of a case.
    """

    every: int = 2
    class_file: str = ""
    neighbours: int = 5
    level: int = -1
    max_cases: int = 40
    max_windows: int = 8


def check_probe(probe: Any) -> Settings | None:
    """The settings of the key `probe`; None = no probe.

    Raises:
        UserError: not null or a mapping; an unknown entry; a value of the wrong type or out of range.

    Examples:
        >>> check_probe({"every": 5}).every, check_probe(None)
        (5, None)
    """
    if probe is None:
        return None
    expected = f"null or a mapping with {', '.join(Settings._fields)}"
    if not isinstance(probe, Mapping):
        raise UserError(f"probe: found {probe!r}, expected {expected}")
    for name in probe:
        if name not in Settings._fields:
            hint = closest_hint(name, Settings._fields)
            raise UserError(f"probe: found {name!r}, expected {expected}{hint}")
    found = Settings(**{str(name): value for name, value in probe.items()})
    for name in ("every", "neighbours", "max_cases", "max_windows"):
        integer(f"probe::{name}", getattr(found, name), minimum=1)
    integer("probe::level", found.level)
    if not isinstance(found.class_file, str):
        raise UserError(f"probe::class_file: found {found.class_file!r}, expected the path of a CSV file")
    if found.class_file and not Path(found.class_file).expanduser().is_file():
        raise UserError(f"probe::class_file: {found.class_file} not found; expected a CSV file")
    return found


def initial_figures(log: str) -> dict[str, float]:
    r"""The finite figures of the probe before the first step; {} without any.

    Args:
        log: Text of a run's log. Of several first steps, as in a run that was repeated, the last one counts.

    Examples:
        >>> initial_figures(f"12:00 INFO probe: {INITIAL}probe_dice 0.25\n12:01 INFO report: epoch 1")
        {'probe_dice': 0.25}
    """
    lines = re.findall(f"{re.escape(INITIAL)}(.*)$", log, re.MULTILINE)
    pairs = re.findall(r"(\w+) ([^\s,]+)", lines[-1]) if lines else []
    values = {name: float(value) for name, value in pairs if name in FIGURES}
    return {name: value for name, value in values.items() if math.isfinite(value)}


class Probe:
    """Handler of a trainer: adds `probe_knn_accuracy` or `probe_dice` to a validation's metrics.

    It measures after every `every`-th epoch that validates and, for the log, before the first step. Cases are
    those of the training's and the validation's data sets, in 2D and 3D; the slices of a volume are one case.

    - Where cases have classes: the fraction of held-out cases whose class is that of their nearest training
      cases, never of the same subject, by features averaged over the coarsest maps of all windows.
    - Otherwise, where they have labels: the Dice of a linear map from the features of a cell to the classes
      in it, fitted to training cases in closed form; mean over a held-out case's classes, then over cases.
    - Otherwise there is no figure.

    Weights, running statistics, modes, random generators and the order of the data do not change. Of several
    processes the first one measures; the others wait for it in their next exchange.

    Args:
        settings: Value of the key `probe`; None = no probe.
        evaluator: Validation whose metrics get the figure; None = no probe.
    """

    def __init__(self, settings: Mapping[str, Any] | None, evaluator: Any = None) -> None:
        self.settings = check_probe(settings)
        self.evaluator = evaluator
        self.task: NearestNeighbours | LinearDice | None = None
        self.started = False

    def attach(self, engine: Engine) -> None:
        """Register with the trainer."""
        if self.settings is not None and self.evaluator is not None and is_first():
            engine.add_event_handler(Events.STARTED, self.start, self.settings)
            self.evaluator.add_event_handler(Events.EPOCH_STARTED, self.validate, self.settings.every)

    def start(self, engine: Engine, settings: Settings) -> None:
        """Choose the cases and what is measured; measure the initial weights."""
        if self.started:  # the next round of a federated training
            return
        self.started = True
        with untouched_generators():
            self.task = self.choose(engine, settings)
            if self.task is not None and engine.state.epoch == 0:
                found = ", ".join(f"{name} {value:.4g}" for name, value in self.task.measure().items())
                logger.info("%s%s", INITIAL, found)

    def validate(self, evaluator: Engine, every: int) -> None:
        """Measure, where a probe is due in this epoch."""
        for name in FIGURES:  # of an earlier epoch
            evaluator.state.metrics.pop(name, None)
        if self.task is not None and evaluator.state.epoch % every == 0:
            with untouched_generators():
                evaluator.state.metrics.update(self.task.measure())

    def choose(self, engine: Any, settings: Settings) -> NearestNeighbours | LinearDice | None:
        """What the data allow to measure."""
        loader = self.evaluator.data_loader
        datasets = [engine.data_loader.dataset, loader.dataset]
        backbone = getattr(unwrap(self.evaluator.network), "backbone", None)
        if not (isinstance(backbone, Backbone) and backbone.record):
            return None
        if not all(isinstance(dataset, CachedVolumes) for dataset in datasets):
            return None
        inferer, device = self.evaluator.inferer, self.evaluator.state.device
        numbers = settings.level, loader.batch_size or 1, settings.max_windows
        encoder = FrozenEncoder(backbone, inferer, device, *numbers)
        classes = find_classes(datasets, settings.class_file)
        if classes is not None:
            return NearestNeighbours(encoder, datasets, *classes, settings.neighbours, settings.max_cases)
        if all(any("label" in case for case in dataset.data) for dataset in datasets):
            task = LinearDice(encoder, datasets, settings.max_cases)
            if task.usable:
                return task
        logger.info(
            "probe: off, since no training and held-out cases have a class or a label to measure features "
            "by; see docs/probe.md"
        )
        return None

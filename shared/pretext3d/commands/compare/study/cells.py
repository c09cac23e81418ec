"""The cells of a study: pre-trainings, and fine-tunings of screening and confirmation with their evaluation.

A cell's settings are what the study file says of it. They identify it on every machine, so paths are as in
the file, and weights are those of a pre-training's settings, or the SHA-256 of a file. A cell's runs are
bundle runs on this machine.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pretext3d.commands.bundles import bundles_at_hand
from pretext3d.commands.compare.cells import NEVER_VALIDATE
from pretext3d.commands.compare.study.arms import StudyArm
from pretext3d.commands.compare.study.definition import Label, Study, StudyTask
from pretext3d.commands.compare.study.keys import finetuning, known_keys, pretraining, steps_of
from pretext3d.commands.compare.tasks import Task
from pretext3d.commands.parser import top_key
from pretext3d.errors import UserError
from pretext3d.files import sha256_of
from pretext3d.training.checkpoint_files import resolve_pretrained
from pretext3d.training.recipes import Recipe, choose_recipe

__all__ = [
    "Cells",
    "Point",
    "StudyCell",
    "confirmation_cell",
    "digest_of",
    "grid",
    "probe_cell",
    "real_paths",
    "screening_cells",
]

# keys that say how a fine-tuning trains, or that the probe has options for
NOT_PROBED = frozenset({"encoder", "max_steps", "max_epochs", "steps_per_epoch", "recipe", "recipes"})
LABELLED = ("num_labelled", "label_fraction")  # how much of the data trains
PATHS = ("dataset_dir", "datalist", "class_file", "subjects")


@dataclass(frozen=True)
class Point:
    """A point of the grid: a learning rate and, where the study has them, a recipe."""

    rate: float
    recipe: str = ""

    @property
    def name(self) -> str:
        """Part of a cell's name, and its name in tables.

        Examples:
            >>> Point(0.001).name, Point(0.003, "warmup").name
            ('lr0.001', 'lr0.003_warmup')
        """
        return f"lr{self.rate:g}" + (f"_{self.recipe}" if self.recipe else "")

    @property
    def overrides(self) -> dict[str, Any]:
        """The keys of a fine-tuning that it sets."""
        return {"learning_rate": self.rate, **({"recipe": self.recipe} if self.recipe else {})}


@dataclass(frozen=True)
class StudyCell:
    """A cell: a folder, a result and, of a fine-tuning, a score.

    Attributes:
        name: Path of its folder below `cells`, and of its result below the results' folder.
        settings: What identifies it.
        runs: Configuration files and overrides of its bundle runs, by run.
        needs: Name of the pre-training that has to be done first, or ''.
        task: What it measures; None of a pre-training and a probe.
        keys: Arm, encoder, task, label, seed and point of the grid, for tables.
    """

    name: str
    settings: Mapping[str, Any]
    runs: Mapping[str, Mapping[str, Any]] = field(repr=False)
    needs: str = ""
    task: Task | None = None
    keys: Mapping[str, Any] = field(default_factory=dict)

    @property
    def has_result(self) -> bool:
        """Whether it has a result; a pre-training has weights alone."""
        return self.settings["stage"] != "pretraining"

    @property
    def title(self) -> str:
        """Name in messages."""
        return self.name

    @property
    def part(self) -> tuple[str, str]:
        """Its task and its encoder."""
        return self.keys["task"], self.keys["encoder"]

    @property
    def digest(self) -> str:
        """What a result names its settings by."""
        return digest_of(self.settings)


@dataclass(frozen=True)
class Source:
    """Where a cell's first weights come from: a pre-training, a file, or nowhere: then all is ''.

    Attributes:
        path: The pre-training's folder, or the file.
        digest: What identifies them on every machine: of the pre-training's settings, or of the file.
        needs: Name of the pre-training.
    """

    path: str = ""
    digest: str = ""
    needs: str = ""


def digest_of(settings: Mapping[str, Any]) -> str:
    """Sixteen hexadecimal digits that settings have on every machine."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]


def grid(study: Study) -> list[Point]:
    """The points of the grid, the same for every arm, in the study's order."""
    return [Point(rate, recipe) for rate in study.rates for recipe in study.recipes]


def points(study: Study, task: StudyTask, encoder: str, arm: StudyArm) -> list[Point]:
    """The points of the grid that differ for an arm: from random weights, a recipe is its ramp alone.

    Raises:
        UserError: a recipe that the fine-tuning does not have.
    """
    if study.recipes == ("",):
        return grid(study)
    table = finetuning(study, task, encoder, arm).get("recipes")
    source = "" if arm.is_random else arm.name
    first: dict[Recipe, str] = {}  # the name of every recipe that differs
    try:
        for name in study.recipes:
            first.setdefault(choose_recipe(name, table, source), name)
    except UserError as error:
        raise UserError(f"{study.file}: {error}") from error
    return [point for point in grid(study) if point.recipe in first.values()]


def places(study: Study) -> Iterator[tuple[StudyTask, str, StudyArm]]:
    """Every task, encoder and arm that belong together."""
    for task in study.tasks.values():
        for encoder in study.encoders:
            for arm in study.arms_of(task.name, encoder):
                yield task, encoder, arm


class Cells:
    """Builds the cells of a study.

    Args:
        study: Study.
        cells_dir: Folder of the cells' folders.

    Raises:
        UserError: weights that are not there; an arm whose number of steps is not known.
    """

    def __init__(self, study: Study, cells_dir: Path) -> None:
        self.study, self.cells_dir = study, cells_dir
        self.pretrainings: dict[str, StudyCell] = {}  # by digest
        self.of_place: dict[tuple[str, str, str], StudyCell] = {}
        self.of_file: dict[str, Source] = {}  # by its path
        for task, encoder, arm in places(study):
            if arm.bundle:
                cell = self.pretraining(task, encoder, arm)
                # tasks on the same data share it, under the name of the first
                self.of_place[task.name, encoder, arm.name] = self.pretrainings.setdefault(cell.digest, cell)

    def pretraining(self, task: StudyTask, encoder: str, arm: StudyArm) -> StudyCell:
        """The pre-training of an arm for a task's data: of its training subjects alone."""
        overrides = pretraining(self.study, task, encoder, arm)
        name = f"pretraining/{task.name}/{encoder}/{arm.name}"
        settings = {"stage": "pretraining", "bundle": arm.bundle, "overrides": overrides}
        config = bundles_at_hand()[arm.bundle] / "configs" / "train.yaml"
        run = {
            "config_file": str(config),
            **real_paths(self.study, overrides, f"tasks::{task.name}"),
            "output_dir": str(self.cells_dir / name),
        }
        keys = {"task": task.name, "encoder": encoder, "arm": arm.name}
        return StudyCell(name, plain(settings), {"pretrain": run}, keys=keys)

    def finetuning(
        self,
        stage: str,
        task: StudyTask,
        encoder: str,
        arm: StudyArm,
        label: Label,
        seed: int,
        point: Point,
    ) -> StudyCell:
        """A fine-tuning with its evaluation, in screening on validation subjects, else on test subjects."""
        study, screening = self.study, stage == "screening"
        budget = study.screening if screening else {}
        tuning = {**finetuning(study, task, encoder, arm), **budget}
        tuning |= self.length(task, encoder, arm, tuning)
        tuning |= {**point.overrides, **label.override, "seed": seed, "subset_seed": seed}
        validate = 0 if screening else study.validate_every
        tuning |= {"val_interval": validate or NEVER_VALIDATE}
        measured = "val" if screening else "all" if task.tested else "test"
        source = self.source(task, encoder, arm)
        settings = {
            "stage": stage,
            "task": task.kind.name,
            "bundle": study.bundle,
            "overrides": tuning,
            "measured": measured,
            **({"evaluation": dict(task.evaluation)} if task.evaluation else {}),
            **({"tested": dict(task.tested)} if measured == "all" else {}),
            **({"pretrained": source.digest} if source.digest else {}),
        }
        name = f"{stage}/{task.name}/{encoder}/{arm.name}_{label.name}_seed{seed}"
        name += f"_{point.name}" if screening else ""
        keys = {"task": task.name, "encoder": encoder, "arm": arm.name, "label": label.value, "seed": seed}
        return StudyCell(
            name,
            plain(settings),
            self.runs(name, task, tuning, measured, source),
            source.needs,
            task.kind,
            {**keys, "rate": point.rate, "recipe": point.recipe},
        )

    def length(
        self, task: StudyTask, encoder: str, arm: StudyArm, tuning: Mapping[str, Any]
    ) -> dict[str, Any]:
        """The key of a fine-tuning that is as long as a pre-training and the others' fine-tuning together."""
        study = self.study
        if arm.max_steps:
            return {"max_steps": arm.max_steps}
        if not arm.as_long_as:
            return {}
        other = study.arms[arm.as_long_as]
        where = f"{study.file}: arms::{arm.name}::as_long_as"
        if not other.bundle:
            raise UserError(
                f"{where}: found {other.name}, which has no pre-training; expected a bundle's arm"
            )
        before = steps_of(pretraining(study, task, encoder, other))
        after = steps_of(tuning)
        for stage, steps in (("pretrain", before), ("finetune", after)):
            if not steps:
                raise UserError(
                    f"{where}: the steps of {other.name} are not known; expected max_steps in {stage}, or "
                    f"max_steps for {arm.name} itself"
                )
        return {"max_steps": before + after}

    def source(self, task: StudyTask, encoder: str, arm: StudyArm) -> Source:
        """Where an arm's cells start; the digest of a file is the same wherever the file is."""
        first = self.of_place.get((task.name, encoder, arm.name))
        if first:
            return Source(str(self.cells_dir / first.name), first.digest, first.name)
        path = arm.pretrained.get(encoder, "")
        if path and path not in self.of_file:
            file = resolve_pretrained(path, key=f"{self.study.file}: arms::{arm.name}::pretrained")
            self.of_file[path] = Source(path, sha256_of(file)[:16])
        return self.of_file.get(path, Source())

    def runs(
        self,
        name: str,
        task: StudyTask,
        tuning: Mapping[str, Any],
        measured: str,
        source: Source,
    ) -> dict[str, dict[str, Any]]:
        """The two bundle runs of a fine-tuning."""
        configs = bundles_at_hand()[self.study.bundle] / "configs"
        files = [str(configs / file) for file in task.kind.files]
        own = {
            **real_paths(self.study, tuning, f"tasks::{task.name}"),
            "output_dir": str(self.cells_dir / name),
        }
        replaced = {top_key(key) for key in known_keys(self.study.bundle, task.kind.files[1])}
        evaluation = {key: value for key, value in own.items() if top_key(key) not in replaced}
        if measured == "all":
            evaluation = {key: value for key, value in evaluation.items() if key not in LABELLED}
            evaluation |= real_paths(self.study, task.tested, f"tasks::{task.name}::test")
        own |= {"pretrained": source.path} if source.path else {}
        return {
            "finetune": {"config_file": files[0], **own},
            "evaluate": {
                "config_file": files,
                **evaluation,
                **task.evaluation,
                "weights": "final",
                "measured": measured,
            },
        }


def probe_cell(
    cells: Cells,
    task: StudyTask,
    encoder: str,
    arm: StudyArm,
    labels: Sequence[Label],
    seeds: Sequence[int],
) -> StudyCell:
    """The probe of an arm's frozen features, by `pretext3d probe`: all label counts and seeds at once."""
    study = cells.study
    overrides = finetuning(study, task, encoder, arm)
    overrides = {key: value for key, value in overrides.items() if key not in NOT_PROBED}
    source = cells.source(task, encoder, arm)
    values = [label.value for label in labels]
    settings = {
        "stage": "probe",
        "overrides": overrides,
        "encoder": study.encoders[encoder]["finetune"]["encoder"],
        "labelled": values,
        "seeds": list(seeds),
        **({"pretrained": source.digest} if source.digest else {}),
    }
    name = f"probe/{task.name}/{encoder}/{arm.name}"
    option = "--num_labelled" if isinstance(values[0], int) else "--label_fractions"
    words = [f"{arm.name}={source.path}" if source.path else "scratch", option, *map(str, values)]
    words += ["--seeds", *map(str, seeds), "--encoder", settings["encoder"], "--measured", "test"]
    words += ["--bundle", str(bundles_at_hand()[study.bundle]), "--output_dir", str(cells.cells_dir / name)]
    for key, value in real_paths(study, overrides, f"tasks::{task.name}").items():
        words += [f"--{key}={value}"]
    keys = {"task": task.name, "encoder": encoder, "arm": arm.name}
    return StudyCell(name, plain(settings), {"probe": {"words": words}}, source.needs, keys=keys)


def screening_cells(cells: Cells) -> list[StudyCell]:
    """The cells of screening: every arm at every point of the grid, with one number of labels."""
    return [
        cells.finetuning("screening", task, encoder, arm, task.screened, seed, point)
        for task, encoder, arm in places(cells.study)
        for point in points(cells.study, task, encoder, arm)
        for seed in cells.study.screening_seeds
    ]


def confirmation_cell(
    cells: Cells, task: str, encoder: str, arm: str, label: Label, seed: int, point: Point
) -> StudyCell:
    """A cell of confirmation."""
    study = cells.study
    return cells.finetuning("confirmation", study.tasks[task], encoder, study.arms[arm], label, seed, point)


def real_paths(study: Study, overrides: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Overrides with the paths of this machine in place of those in the study file."""
    texts = {key: overrides[key] for key in PATHS if isinstance(overrides.get(key), str)}
    return {
        **overrides,
        **{key: study.path(text, f"{where}::{key}") for key, text in texts.items() if text != "none"},
    }


def plain(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings in JSON's form, so that they can be compared with those on disk."""
    found: dict[str, Any] = json.loads(json.dumps(settings, default=str))
    return found

"""Runs a study's cells: each in its own process, with its result as a small file when it is done."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from pretext3d.commands.bundles import bundles_at_hand
from pretext3d.commands.compare.convergence import curve_of
from pretext3d.commands.compare.folder import finished, read_json, write_json
from pretext3d.commands.compare.plan import read_configs, resolved
from pretext3d.commands.compare.processes import ProcessRunner, resumable
from pretext3d.commands.compare.study.cells import StudyCell, digest_of, real_paths
from pretext3d.commands.compare.study.definition import Study, StudyTask
from pretext3d.commands.compare.study.keys import finetuning
from pretext3d.commands.compare.study.reading import read_yaml
from pretext3d.commands.compare.study.results import TEXT, Results
from pretext3d.commands.compare.tasks import CLASSIFICATION
from pretext3d.data.splits import part_of
from pretext3d.data.subjects import by_subject
from pretext3d.errors import UserError
from pretext3d.files import sha256_of
from pretext3d.training.checkpoint_files import epoch_files, resolve_pretrained
from pretext3d.version import __version__

__all__ = ["StudyRunner", "subjects_of"]


class StudyRunner(ProcessRunner):
    """Runs pre-trainings and fine-tunings with their evaluation, and writes the results of the latter.

    Args:
        study: Study.
        cells_dir: Folder of the cells' folders.
        results: Results of the study.
        threads: Number of threads of each process.
        descriptors: Open files that each process keeps open too, see `ProcessRunner`.
    """

    def __init__(
        self,
        study: Study,
        cells_dir: Path,
        results: Results,
        threads: int = 1,
        descriptors: Sequence[int] = (),
    ) -> None:
        super().__init__(threads, descriptors)
        self.study, self.cells_dir, self.results = study, cells_dir, results
        self.subjects: dict[str, int] = {}  # training subjects of each task
        self.configurations: dict[str, str] = {}  # digest of each task's configurations

    def is_done(self, cell: StudyCell) -> bool:
        """Whether a cell is done, here or on another machine; refuses one of other settings.

        Raises:
            UserError: a result, or a folder, of other settings.
        """
        if cell.has_result and self.results.has(cell):
            return True
        if not finished(self.folder(cell), cell.settings):
            return False
        if cell.has_result:  # its result has been removed
            self.write_result(cell)
        return True

    def job(self, cell: StudyCell) -> dict[str, Any]:
        """The content of a cell's settings.json; a training resumes where there is something to resume."""
        return {
            "settings": dict(cell.settings),
            "provenance": self.provenance(cell),
            **resumable(cell.runs),
        }

    def provenance(self, cell: StudyCell) -> dict[str, Any]:
        """What a cell is run with, for the first line of its result; no part of its identity.

        The version of the package and the digest of the configurations; of a cell that starts from weights,
        `pretraining` with their SHA-256 and, if the study has trained them, the digest of that train.yaml.
        """
        found: dict[str, Any] = {"version": __version__}
        if not cell.has_result:
            bundle = bundles_at_hand()[cell.settings["bundle"]]
            return {**found, "configuration": digest_of(read_yaml(bundle / "configs" / "train.yaml"))}
        found["configuration"] = self.configuration(self.study.tasks[cell.keys["task"]])
        arm = self.study.arms[cell.keys["arm"]]
        if cell.needs:
            folder = self.cells_dir / cell.needs
            first = read_json(folder / "settings.json").get("provenance", {})
            trained = {"configuration": first["configuration"]} if first else {}
            found["pretraining"] = {**trained, "weights": sha256_of(resolve_pretrained(folder))}
        elif arm.pretrained:
            file = resolve_pretrained(arm.pretrained[cell.keys["encoder"]])
            found["pretraining"] = {"weights": sha256_of(file)}
        return found

    def __call__(self, cell: StudyCell) -> float:
        """Run a cell to its end; its score, NaN of a pre-training.

        Raises:
            RuntimeError: it failed, with the end of its log.
        """
        return self.finish(cell, self.run(self.folder(cell), self.job(cell)))

    def folder(self, cell: StudyCell) -> Path:
        """The folder of a cell."""
        return self.cells_dir / cell.name

    def finish(self, cell: StudyCell, seconds: float) -> float:
        """Write done.json, and the result of a fine-tuning; its score.

        Checkpoints of single epochs, from which a finished cell no longer resumes, are removed.
        """
        folder = self.folder(cell)
        write_json(folder / "done.json", {"settings": dict(cell.settings), "seconds": round(seconds, 1)})
        score = self.write_result(cell) if cell.has_result else math.nan
        for file in epoch_files(folder / "checkpoints"):
            file.unlink()
        return score

    def write_result(self, cell: StudyCell) -> float:
        """Write the result of a fine-tuning or a probe that is done; its score."""
        folder = self.folder(cell)
        task = self.study.tasks[cell.keys["task"]]
        trained: dict[str, Any] = {}
        if cell.task is None:
            table, curve, labelled = probed(folder, cell.keys["arm"]), [], 0
            own = table[(table["arm"] == cell.keys["arm"]) & (table["reader"] == "linear")]
            score = float(CLASSIFICATION.per_cell(own)["balanced_accuracy"].mean())
        else:
            table, score = cell.task.read(folder), cell.task.cell_score(folder)
            trained = trained_as(folder)
            found = curve_of(folder, cell.task)
            points = [] if found is None else found.to_numpy()
            curve = [[int(epoch), int(step), round(float(value), 5)] for epoch, step, value in points]
            labelled = self.labelled(task, cell.keys["label"])
        more = {
            "labelled": labelled,
            "seconds": read_json(folder / "done.json")["seconds"],
            **trained,
            **read_json(folder / "settings.json").get("provenance", {}),
        }
        self.results.write(cell, table, score, curve, more)
        return score

    def configuration(self, task: StudyTask) -> str:
        """The digest of the two configurations of a task."""
        if task.name not in self.configurations:
            folder = bundles_at_hand()[self.study.bundle] / "configs"
            self.configurations[task.name] = read_configs(folder, task.kind)[2]
        return self.configurations[task.name]

    def labelled(self, task: StudyTask, label: float) -> int:
        """The number of labelled subjects of a fine-tuning."""
        if isinstance(label, int):
            return label
        if task.name not in self.subjects:
            self.count(task)
        return part_of(self.subjects[task.name], label)

    def check(self, cells: Sequence[StudyCell]) -> None:
        """Check, before anything is run, that each task has as many labelled subjects as are asked for.

        Raises:
            UserError: fewer; or data that cannot be read.
        """
        for name in dict.fromkeys(cell.keys["task"] for cell in cells if cell.task is not None):
            task = self.study.tasks[name]
            self.count(task)
            most, where = self.subjects[name], f"{self.study.file}: tasks::{name}"
            values = [label.value for label in task.labels]
            numbers = [self.labelled(task, value) for value in values]
            if max(numbers) > most:
                raise UserError(
                    f"{where}::num_labelled: found {max(numbers)}, expected at most {most}: the labelled "
                    "subjects that train"
                )
            if len(set(numbers)) < len(numbers):
                raise UserError(
                    f"{where}::label_fractions: found {values}, which are {numbers} of {most} subjects; "
                    "expected fractions that differ"
                )

    def count(self, task: StudyTask) -> None:
        """Count the labelled training subjects of a task."""
        if task.name not in self.subjects:
            self.subjects[task.name] = subjects_of(self.study, task)


def trained_as(folder: Path) -> dict[str, Any]:
    """Network (encoder and options) and precision of a fine-tuning, in which arms should not differ."""
    from pretext3d.training.checkpoint_io import load_checkpoint

    record = load_checkpoint(folder / "checkpoints" / "final.pt")["record"]
    backbone = record["backbone"]
    found: dict[str, Any] = {
        "network": {key: backbone[key] for key in ("encoder", "options") if key in backbone}
    }
    if "precision" in record:
        found["precision"] = record["precision"]
    return found


def probed(folder: Path, arm: str) -> pd.DataFrame:
    """The table of a probe; the baseline without a network, the same for every arm, with scratch alone."""
    table = pd.read_csv(folder / "probe.csv", dtype=TEXT)
    return table if arm == "scratch" else table[table["arm"] == arm]


def subjects_of(study: Study, task: StudyTask) -> int:
    """The number of labelled training subjects of a task, as its fine-tuning finds them.

    Raises:
        UserError: names the task, and what is wrong with its data.
    """
    encoder = task.encoders[0]
    overrides = finetuning(study, task, encoder, study.arms["scratch"])
    given = real_paths(study, overrides, f"tasks::{task.name}")
    config = bundles_at_hand()[study.bundle] / "configs" / task.kind.files[0]
    try:
        cases: Mapping[str, Any] = resolved(config, {**given, "num_labelled": 0}, ["cases"])["cases"]
    except UserError as error:
        there = not given.get("dataset_dir") or Path(given["dataset_dir"]).exists()
        hint = "" if there else f"; relative paths are below --data_root, {study.data_root}"
        raise UserError(f"{study.file}: tasks::{task.name}: {error}{hint}") from error
    return len(by_subject(cases["train"]))

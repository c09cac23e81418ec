"""A small study with a fake runner in place of training, for the tests of studies."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from pretext3d.commands.compare.study import runner as runners
from pretext3d.commands.compare.study.cells import Cells
from pretext3d.commands.compare.study.definition import read_study
from pretext3d.commands.compare.study.results import Results
from pretext3d.commands.compare.study.runner import StudyRunner
from pretext3d.commands.compare.study.study import StudyRun, chosen_parts
from pretext3d.training.checkpoint_io import save_checkpoint

from tests.commands.test_study_reading import content, written

GAIN = {"scratch": 0.0, "scratch_long": 0.01, "vp": 0.1, "cube": 0.05}  # of each arm
CASES = [f"c{n}" for n in range(8)]


class FakeRunner(StudyRunner):
    """Instead of training: Dice by arm and rate (0.003 is better, but for scratch), one CSV per cell."""

    fails = ""

    def _run(self, command: Any, log: Any) -> int:
        folder = Path(command[-1])
        self.ran.append(folder.relative_to(self.cells_dir).as_posix())
        if self.ran[-1] == self.fails:
            log.write("error: no such volume\n")
            log.flush()
            return 1
        runs = json.loads((folder / "settings.json").read_text())
        if "probe" in runs:
            tables = [
                guesses(gain).assign(arm=arm, num_labelled=n, seed=seed, reader=reader, c=1.0)
                for arm, gain in ((folder.name, GAIN[folder.name]), ("intensities", -0.1))
                for n in (10, 20)
                for seed in (0, 1)
                for reader in ("linear", "knn")
            ]
            pd.concat(tables).to_csv(folder / "probe.csv", index=False)
            return 0
        if "finetune" not in runs:
            (folder / "model.pt").write_bytes(b"weights")
            return 0
        record = {"backbone": {"encoder": "unet4", "options": {"levels": 4}, "in_channels": 1}}
        (folder / "checkpoints").mkdir()
        save_checkpoint(folder / "checkpoints" / "final.pt", {"record": record, "network": {}})
        arm = folder.name.split("_n0")[0].split("_f0")[0]
        rate = runs["finetune"]["learning_rate"] * (-1 if arm == "scratch" else 1)
        if "classification" in runs["finetune"]["config_file"]:
            return classified(folder, GAIN[arm])
        dice = 0.5 + GAIN[arm] + rate * 3 + np.linspace(0, 0.1, len(CASES))
        table = pd.DataFrame({"case": CASES, "class": "liver", "dice": dice, "iou": dice / (2 - dice)})
        table.assign(hd95_mm=2.0, surface_distance_mm=1.0).to_csv(folder / "evaluation.csv", index=False)
        curve = pd.DataFrame({"epoch": [1, 2], "step": [5, 10], "val_mean_dice": [0.3, 0.5 + GAIN[arm]]})
        curve.to_csv(folder / "metrics.csv", index=False)
        return 0


def guesses(gain: float) -> pd.DataFrame:
    """Eight cases of two classes, of which 4 + 20 times an arm's gain are found."""
    classes, other = ["a", "b"] * 4, {"a": "b", "b": "a"}
    found = [one if n < 4 + 20 * gain else other[one] for n, one in enumerate(classes)]
    return pd.DataFrame({"case": CASES, "class": classes, "predicted": found})


def classified(folder: Path, gain: float) -> int:
    """What an evaluation writes."""
    (folder / "evaluation").mkdir(exist_ok=True)
    guesses(gain).to_csv(folder / "evaluation" / "classification.csv", index=False)
    summary = pd.DataFrame({"metric": ["accuracy"], "value": [0.5]})
    summary.to_csv(folder / "evaluation" / "classification_summary.csv", index=False)
    return 0


def builder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., StudyRun]:
    """What builds the run of a study, in the same folders each time."""
    monkeypatch.setattr(runners, "subjects_of", lambda study, task: 40)
    monkeypatch.chdir(folder)

    def build(
        runs: str = "runs", accept_plan: bool = False, only: Sequence[str] = (), **more: Any
    ) -> StudyRun:
        arms = {**content()["arms"], "cube": {"bundle": "rubiks_cube"}}
        found = read_study(written(folder, content(**{"arms": arms, "seeds": [0, 1], **more})))
        results = Results(found.results_dir)
        cells = Cells(found, folder / runs / "cells")
        made = FakeRunner(found, folder / runs / "cells", results)
        made.ran = []
        return StudyRun(found, cells, results, made, accept_plan=accept_plan, parts=chosen_parts(found, only))

    return build

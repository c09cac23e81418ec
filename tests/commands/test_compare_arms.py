"""Arms with keys of their own, run: a 2D network on slices among 3D ones, and a supervised pre-training."""

from pathlib import Path

import pandas as pd
import pytest
from pretext3d.__main__ import main
from pretext3d.commands.compare import compare, options, plan
from pretext3d.errors import UserError


@pytest.mark.slow
@pytest.mark.usefixtures("forked_cells")
def test_a_network_on_slices_is_measured_on_the_same_volumes(tmp_path: Path) -> None:
    """Then the scratch cell's weights are an arm: a supervised pre-training of the same classes."""
    words = ["--profile=laptop", "--max_epochs=1", "--steps_per_epoch=2", "--num_workers=0", "--threads=1"]
    words += ["--num_labelled", "2", "--seeds", "0", "--set", "flat", "spatial_dims", "2", "--pixdim", "8"]
    words += ["--val_fraction", "0.1"]
    words += ["--output_dir", str(tmp_path / "out"), "--arms", "scratch", "flat=scratch"]
    assert main(["compare", *words]) == 0
    results = pd.read_csv(tmp_path / "out" / "results.csv", dtype={"case": str})
    cases = {arm: set(table["case"]) for arm, table in results.groupby("arm")}
    assert cases["flat"] == cases["scratch"] != set()
    assert "| 2 | flat |" in (tmp_path / "out" / "summary.md").read_text()
    words.append(f"supervised={tmp_path / 'out' / 'cells' / 'scratch_n002_seed0'}")
    assert main(["compare", *words]) == 0
    log = (tmp_path / "out" / "cells" / "supervised_n002_seed0" / "output.log").read_text()
    assert "100.0% of the backbone's parameters" in log


def test_an_arm_with_other_cases_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Slices of a quarter of the volumes are not what the others are measured on."""

    def resolve(config: Path, given: dict, keys: list[str]) -> dict:
        held = ["a", "b"] if given.get("spatial_dims", 3) == 3 else ["a"]
        found = {
            "train": [{"id": "c", "subject": "c"}],
            "val": [{"id": name, "subject": name} for name in held],
            "test": [],
            "class_names": ["background", "liver"],
        }
        known = [key for key in keys if key != "cases"]
        return {**plan.resolved(config, given, known), "cases": found}

    monkeypatch.setattr(compare, "resolved", resolve)
    monkeypatch.setattr(compare, "run_all", lambda *_: [])
    words = ["compare", "--profile", "laptop", "--num_labelled", "1", "--output_dir", str(tmp_path)]
    words += ["--arms", "scratch", "flat=scratch", "--set", "flat"]
    with pytest.raises(
        UserError, match="--set flat: found 1 cases in val, 1 of them among the 2 of the other"
    ):
        options.main([*words[1:], "spatial_dims", "2"])
    folds = ["--folds", "2"]  # of the three volumes, of which the arm has two
    with pytest.raises(UserError, match="--set flat: found 2 cases in train, val, test, 2 of them"):
        options.main([*words[1:], "spatial_dims", "2", *folds])
    assert main([*words, "learning_rate", "0.01"]) == 0
    assert main([*words, "learning_rate", "0.01", "--output_dir", str(tmp_path / "folds"), *folds]) == 0

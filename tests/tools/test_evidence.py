"""The figures of a study in the docs of bundles, from a table made by hand."""

from pathlib import Path

import pandas as pd
import pytest
from pretext3d.commands.compare.study.scores import COLUMNS
from pretext3d.errors import UserError

from tools.bundles import evidence

ROW = {
    "task": "eyes", "encoder": "cnn", "arm": "rotation", "bundle": "rotation", "reader": "",
    "metric": "balanced_accuracy", "labelled": 21, "fraction": 0.05, "score": 0.5, "std": 0.01, "cells": 3,
    "missing": 0, "to_scratch": 0.1, "to_scratch_low": 0.05, "to_scratch_high": 0.15, "to_scratch_p": 0.01,
    "to_scratch_long": 0.1, "to_scratch_long_low": -0.05, "to_scratch_long_high": 0.25,
    "to_scratch_long_p": 0.2,
}  # fmt: skip


def scores(*changes: dict[str, object]) -> pd.DataFrame:
    return pd.DataFrame([{**ROW, **change} for change in changes], columns=COLUMNS)


def test_a_table_by_hand() -> None:
    neighbours = {"reader": "knn", "to_scratch": 0.2, "to_scratch_p": 0.06}
    loss = {"to_scratch": -0.1, "to_scratch_low": -0.15, "to_scratch_high": -0.05}
    lines = evidence.evidence(scores({}, neighbours, {"reader": "linear", **loss}), "rotation").splitlines()
    assert "**eyes, cnn**" in lines
    both = "+0.100 [+0.050, +0.150]\\* | +0.100 [-0.050, +0.250]"
    frozen = "-0.100 [-0.150, -0.050]\\* | +0.200 [+0.050, +0.150]"
    assert lines[-1] == f"| 21 (5 %) | 0.500 | {both} | {frozen} |"


def test_the_score_of_a_segmentation_is_dice() -> None:
    row = {"task": "heart", "metric": "dice", "labelled": 4, "fraction": float("nan")}
    assert "| labelled | Dice | to random weights |" in evidence.evidence(scores(row), "rotation")


def test_a_significant_loss_is_marked_too() -> None:
    loss = {"to_scratch": -0.1, "to_scratch_low": -0.15, "to_scratch_high": -0.05}
    assert "-0.100 [-0.150, -0.050]\\*" in evidence.evidence(scores(loss), "rotation")


def test_a_small_p_alone_is_not_marked() -> None:
    """The interval is of seeds, too, the test of subjects alone."""
    unsure = {"to_scratch": 0.1, "to_scratch_low": -0.05, "to_scratch_high": 0.15, "to_scratch_p": 0.001}
    assert "+0.100 [-0.050, +0.150] |" in evidence.evidence(scores(unsure), "rotation")


def test_arms_of_one_bundle_are_named_and_unfinished_tasks_left_out() -> None:
    found = evidence.evidence(
        scores({}, {"arm": "half"}, {"task": "heart", "missing": 3}, {"bundle": "cpc", "arm": "cpc"}),
        "rotation",
    )
    assert [line for line in found.splitlines() if line.startswith("**")] == [
        "**eyes, cnn**",
        "**eyes, cnn, half**",
    ]
    assert evidence.evidence(scores({"missing": 1}), "rotation") == evidence.NONE_YET


def test_lines_are_written_between_the_marks() -> None:
    text = f"# Title\n\n{evidence.BEGIN}\n\nold\n\n{evidence.END}\n\nrest\n"
    wanted = f"# Title\n\n{evidence.BEGIN}\n\nnew\n\n{evidence.END}\n\nrest\n"
    assert evidence.inserted(text, "new", "README.md") == wanted
    assert evidence.inserted(wanted, "new", "README.md") == wanted
    for broken in ("# Title\n", f"{evidence.END}\n{evidence.BEGIN}\n", text + text):
        with pytest.raises(UserError, match=r"README.md: expected the line .*, once each"):
            evidence.inserted(broken, "new", "README.md")


def test_a_card_has_what_started_from_its_weights(tmp_path: Path) -> None:
    """Of a study whose cells name them by their SHA-256; not other arms, unfinished tasks, probes."""
    study = tmp_path / "main"
    for task, arm, weights in (
        ("heart", "shipped", "a1"),
        ("eyes", "shipped", "a1"),
        ("heart", "other", "b2"),
    ):
        file = study / "confirmation" / task / "cnn" / f"{arm}_n004_seed0.csv"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f'# {{"pretraining": {{"weights": "{weights}"}}}}\ncase,dice\n')
    random = study / "confirmation" / "heart" / "cnn" / "scratch_n004_seed0.csv"
    random.write_text("# {}\ncase,dice\n")
    alone = {"to_scratch_long": float("nan")}
    table = scores(
        {"task": "heart", "arm": "shipped", "metric": "dice", "labelled": 4, **alone},
        {"task": "heart", "arm": "other"}, {"task": "heart", "arm": "shipped", "reader": "knn"},
        {"task": "eyes", "arm": "shipped", "missing": 2},
    )  # fmt: skip
    table.to_csv(study / "scores.csv", index=False)
    assert evidence.measured(study)["a1"] == {("heart", "cnn", "shipped"), ("eyes", "cnn", "shipped")}
    lines = evidence.card({study: evidence.measured(study), tmp_path: {}}, "a1").splitlines()
    rows = [line for line in lines if line.startswith("| main")]
    assert rows == ["| main | heart | cnn | shipped | 4 | Dice | 0.500 | +0.100 [+0.050, +0.150]\\* |  |"]
    assert evidence.card({study: evidence.measured(study)}, "c3") == ""


def test_the_docs_of_bundles_have_the_study_s_figures(capsys: pytest.CaptureFixture[str]) -> None:
    assert evidence.main(["--check"]) == 0, capsys.readouterr().out

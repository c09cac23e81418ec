"""What a comparison of classifications, a cross-validation and curves report, worked out by hand."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from pretext3d.commands.compare import report
from pretext3d.commands.compare.convergence import convergence, mean_curves, read_curves
from pretext3d.commands.compare.figures import (
    Panel,
    colours,
    curves_figure,
    draw_curves,
    draw_efficiency,
    draw_overview,
)
from pretext3d.commands.compare.tasks import CLASSIFICATION, SEGMENTATION

COMMON = {"dataset_dir": "eyes", "task": "classification"}
TRUE = {"c1": "a", "c2": "a", "c3": "b", "c4": "b"}


def classified(arm: str, predicted: str, seed: int = 0, **keys: Any) -> pd.DataFrame:
    """A cell's table: cases c1, c2 of class a and c3, c4 of class b, found as the letters of `predicted`."""
    cases = pd.DataFrame({"case": [*TRUE], "class": [*TRUE.values()], "predicted": [*predicted]})
    return cases.assign(arm=arm, num_labelled=4, seed=seed, accuracy=0.5, auc=0.6, **keys)


def rows_of(lines: list[str], start: str) -> list[str]:
    """The lines of the first table whose header begins like `start`, without the header."""
    first = next(n for n, line in enumerate(lines) if line.startswith(start))
    found = []
    for line in lines[first + 2 :]:
        if not line.startswith("|"):
            break
        found.append(line)
    return found


def test_balanced_accuracy_of_cells_and_cases() -> None:
    """Both of a right, one of b: (1 + 1/2) / 2 = 0.75; the sizes of the classes do not count."""
    cells = CLASSIFICATION.per_cell(classified("scratch", "aaba"))
    assert cells[["balanced_accuracy", "auc"]].to_numpy().tolist() == [[0.75, 0.6]]
    cases = CLASSIFICATION.per_case(classified("scratch", "aaba"))
    assert cases["balanced_accuracy"].tolist() == [1, 1, 1, 0]
    assert cases["stratum"].tolist() == ["a", "a", "b", "b"]
    uneven = classified("scratch", "abbb").assign(**{"class": ["a", "a", "a", "b"]})
    assert CLASSIFICATION.per_cell(uneven)["balanced_accuracy"].item() == pytest.approx((1 / 3 + 1) / 2)


def test_what_an_arm_finds_in_cases_without_foreground_costs_it() -> None:
    """Four cases have lesions, found by both with 0.8; of the other four vp finds some in two: 6 / 8 of 1."""
    cases = pd.DataFrame({"case": [f"c{n}" for n in range(8)], "class": "lesion", "hd95_mm": np.nan})
    tables = [
        cases.assign(arm=arm, num_labelled=4, seed=0, dice=[0.8] * 4 + empty, iou=[0.7] * 4 + empty)
        for arm, empty in (("scratch", [np.nan] * 4), ("vp", [0.0, 0.0, np.nan, np.nan]))
    ]
    results = pd.concat(tables, ignore_index=True)
    cells = SEGMENTATION.per_cell(results).set_index("arm")
    assert cells["dice"].tolist() == pytest.approx([0.9, 0.65])
    assert cells["iou"].tolist() == pytest.approx([0.85, 0.6])
    assert cells["pairs"].tolist() == [4, 6]
    table = report.summarise(results, ["scratch", "vp"]).set_index("arm")
    assert table["difference_mean"]["vp"] == pytest.approx(-0.25)


def test_the_summary_of_a_classification() -> None:
    """scratch 0.75 and 0.5, mean 0.625, standard deviation 0.177; cube 1 and 1."""
    tables = [
        classified("scratch", "aaba", 0),
        classified("scratch", "bbbb", 1),
        classified("cube", "aabb", 0),
        classified("cube", "aabb", 1),
    ]
    lines = report.summary_text(
        pd.concat(tables), ["scratch", "cube"], COMMON, task=CLASSIFICATION, fractions={4: 0.25}
    ).splitlines()
    found = rows_of(lines, "| labelled | arm | balanced accuracy | accuracy | AUC |")
    beginning = "| 4 (25 %) | scratch | 0.625 ± 0.177 | 0.500 ± 0.000 | 0.600 ± 0.000 |  |  | 2 |"
    assert found[0] == beginning
    assert found[1].startswith(
        "| 4 (25 %) | cube | 1.000 ± 0.000 | 0.500 ± 0.000 | 0.600 ± 0.000 | +0.375 [+"
    )
    # of a 2 and 0 of 2 right, of b 1 and 2
    recalls = rows_of(lines, "| labelled | arm | recall, a | recall, b |")
    assert recalls[0] == "| 4 (25 %) | scratch | 0.500 | 0.750 |"
    assert any(line.startswith("Balanced accuracy: the fraction") for line in lines)


def test_a_cross_validation_by_hand() -> None:
    """Each fold's score is the mean over its seeds; mean and standard deviation are over the folds.

    scratch: fold 0 has the seeds 0.5 and 0.75, 0.625; fold 1 has 1: mean 0.8125, standard deviation 0.265.
    """
    other = {"c1": "d1", "c2": "d2", "c3": "d3", "c4": "d4"}  # fold 1 holds out other cases
    tables = [classified("scratch", "bbbb", 0, fold=0), classified("scratch", "aaba", 1, fold=0)]
    for seed in (0, 1):
        held = classified("scratch", "aabb", seed, fold=1)
        tables.append(held.assign(case=held["case"].map(other)))
    tables += [table.assign(arm="cube", predicted=table["class"]) for table in tables]
    results = pd.concat(tables)
    lines = report.summary_text(
        results, ["scratch", "cube"], {**COMMON, "folds": 2}, task=CLASSIFICATION
    ).splitlines()
    found = rows_of(lines, "| labelled | arm | fold 0 | fold 1 | balanced accuracy | 95 % |")
    assert found[0].startswith("| 4 | scratch | 0.625 | 1.000 | 0.812 ± 0.265 | [0.")
    assert found[1] == "| 4 | cube | 1.000 | 1.000 | 1.000 ± 0.000 | [1.000, 1.000] |"
    # fold 0: c1 and c2 gain 1/2 each, c3 0, c4 1/2; of class a the mean of 1/2, 1/2, 0, 0 is 1/4, of b 1/8
    main = rows_of(lines, "| labelled | arm | balanced accuracy | accuracy")
    assert main[1].startswith("| 4 | cube | 1.000 ± 0.000 | 0.500 ± 0.000 | 0.600 ± 0.000 | +0.188 [")
    assert "8 held-out cases." in "\n".join(lines)
    assert any("no unbiased" in line or "Folds share training cases" in line for line in lines)


def test_a_cross_validation_of_a_segmentation() -> None:
    columns = ["case", "class", "dice", "iou", "hd95_mm", "surface_distance_mm"]
    tables = [
        pd.DataFrame([[f"c{fold}", "x", dice, dice, 2.0, 1.0]], columns=columns).assign(
            arm=arm, num_labelled=4, seed=0, fold=fold
        )
        for arm, scores in {"scratch": (0.5, 0.7), "vp": (0.6, 0.7)}.items()
        for fold, dice in enumerate(scores)
    ]
    text = report.summary_text(pd.concat(tables), ["scratch", "vp"], {"folds": 2})
    assert "| 4 | scratch | 0.500 | 0.700 | 0.600 ± 0.141 | [0.500, 0.700] |" in text
    assert "+0.050 [+0.000, +0.100]" in text


def test_a_metric_that_the_evaluation_has_is_a_column() -> None:
    """NSD of one case, 0.8 and 0.6 of its classes: 0.7; without that column there is none."""
    rows = [["c1", "x", 0.5, 0.3, 2.0, 1.0, 0.8], ["c1", "y", 0.5, 0.3, 2.0, 1.0, 0.6]]
    names = ["case", "class", "dice", "iou", "hd95_mm", "surface_distance_mm", "nsd"]
    table = pd.DataFrame(rows, columns=names).assign(arm="scratch", num_labelled=4, seed=0)
    text = report.summary_text(table, ["scratch"], {})
    assert "| labelled | arm | Dice | mIoU | NSD | HD95, mm |" in text
    assert "| 4 | scratch | 0.500 | 0.300 | 0.700 | 2.00 |" in text
    assert "NSD" not in report.summary_text(table.drop(columns="nsd"), ["scratch"], {})


# --------------------------------------------------------------------------------------------- convergence
def curve(arm: str, seed: int, scores: dict[int, float]) -> pd.DataFrame:
    """The validations of one cell."""
    table = pd.DataFrame({"epoch": [*scores], "step": [10 * n for n in scores], "score": [*scores.values()]})
    return table.assign(arm=arm, num_labelled=4, seed=seed)


CURVES = pd.concat(
    [
        curve("scratch", 0, {2: 0.1, 4: 0.3, 6: 0.5, 8: 0.6}),
        curve("scratch", 1, {2: 0.3, 4: 0.3, 6: 0.5, 8: 0.8}),
        curve("vp", 0, {2: 0.5, 4: 0.7, 6: 0.7, 8: 0.6}),
        curve("slow", 0, {2: 0.1, 4: 0.1, 6: 0.2, 8: 0.3}),
    ]
)


def test_convergence_by_hand() -> None:
    """After 2, 4 and 8 of 8 epochs scratch has 0.2, 0.3 and 0.7, its last score, which vp has after 4."""
    lines = convergence(CURVES, ["scratch", "vp", "slow"], "scratch", "Dice", {4: 0.5})
    assert rows_of(
        lines, "| labelled | arm | after 25 % | after 50 % | after 100 % | epochs to scratch's"
    ) == [
        "| 4 (50 %) | scratch | 0.200 | 0.300 | 0.700 | 8 |",
        "| 4 (50 %) | vp | 0.500 | 0.700 | 0.600 | 4 |",
        "| 4 (50 %) | slow | 0.100 | 0.100 | 0.300 | not reached |",
    ]
    without = convergence(CURVES[CURVES["arm"] == "vp"], ["vp"], "scratch", "Dice")
    assert without[-2] == "| 4 | vp | 0.500 | 0.700 | 0.600 |  |"


def test_epochs_that_some_cells_lack_are_left_out() -> None:
    curves = pd.concat([CURVES, curve("scratch", 2, {2: 0.2})])
    means = mean_curves(curves).set_index(["arm", "epoch"])["mean"]
    assert means["scratch"].to_dict() == pytest.approx({2: 0.2})
    assert len(means["vp"]) == 4


def test_curves_are_read_from_metrics(tmp_path: Path) -> None:
    for name, column in (("a", "val_mean_dice"), ("b", "loss")):
        folder = tmp_path / "cells" / name
        folder.mkdir(parents=True)
        table = pd.DataFrame({"epoch": [1, 2, 3], "step": [5, 10, 15], column: [np.nan, 0.5, 0.75]})
        table.to_csv(folder / "metrics.csv", index=False)
        settings = {"arm": name, "num_labelled": 4, "seed": 1, "fold": 2}
        (folder / "done.json").write_text(json.dumps({"settings": settings}))
    (tmp_path / "cells" / "c").mkdir()  # under way
    found = read_curves(tmp_path, SEGMENTATION)
    assert found.to_dict("records") == [
        {"arm": "a", "num_labelled": 4, "seed": 1, "fold": 2, "epoch": 2, "step": 10, "score": 0.5},
        {"arm": "a", "num_labelled": 4, "seed": 1, "fold": 2, "epoch": 3, "step": 15, "score": 0.75},
    ]


def test_figures(tmp_path: Path) -> None:
    cells = CLASSIFICATION.per_cell(classified("scratch", "aaba"))
    draw_efficiency(cells, ["scratch"], tmp_path / "a.png", CLASSIFICATION, {4: 0.1})
    draw_curves(CURVES, ["scratch", "vp", "slow"], tmp_path / "b.png", SEGMENTATION)
    panels = [Panel("eyes, cnn", cells, ["scratch"], CLASSIFICATION, {4: 0.1})] * 4  # in two rows
    draw_overview(panels, tmp_path / "c.png")
    for name in ("a.png", "b.png", "c.png"):
        assert (tmp_path / name).read_bytes()[:4] == b"\x89PNG"


def test_curves_are_seen_whole_and_named_once() -> None:
    """Panels share the axis of scores: low ones with few labels hide no high ones; an arm may lack some."""
    low = curve("scratch", 0, {1: 0.1, 2: 0.2})
    high = pd.concat([curve("scratch", 0, {1: 0.7, 2: 0.8}), curve("vp", 0, {1: 0.8, 2: 0.9})])
    curves = pd.concat([low, high.assign(num_labelled=12)])
    figure = curves_figure(curves, ["scratch", "vp"], SEGMENTATION, None, "epoch")
    for axes in figure.axes:
        bottom, top = axes.get_ylim()
        assert bottom <= 0.1
        assert top >= 0.9
    assert [text.get_text() for text in figure.axes[-1].get_legend().get_texts()] == ["scratch", "vp"]


def test_many_arms_have_different_colours() -> None:
    arms = ["scratch", "scratch_long", *map(str, range(12))]
    assert len(set(map(str, colours(arms).values()))) == len(arms)

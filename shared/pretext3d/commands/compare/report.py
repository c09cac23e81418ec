"""The report of a comparison: results.csv, summary.md and figures.

In the table: mean and standard deviation (n - 1) of a metric over the seeds, in a cross-validation over the
folds, each the mean over its seeds.

Paired difference to the baseline arm, with the same number of labels: d[s, c] = score of the arm - score of
the baseline (see `tasks`) for seed s and case c, averaged over all pairs; of a classification within each
class first. Every seed is evaluated on the same held-out cases, so seeds and cases are crossed; the 95 %
interval is a percentile bootstrap that draws seeds and subjects, each with all its volumes, both with
replacement and independently of each other (the pigeonhole bootstrap). With --monte_carlo and --folds each
seed or fold has its own cases: these are drawn, and for each of them its subjects.
Source: Owen 2007, The pigeonhole bootstrap, Annals of Applied Statistics 1(2). Of a cross-validation it is
rough: its folds share training cases, and no unbiased estimate of their variance exists (Bengio and
Grandvalet 2004, JMLR 5). The p-value is that of `statistics.sign_flip_test`, corrected by Holm's procedure
for the number of arms with as many labels.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pretext3d.commands.compare.convergence import convergence, read_curves
from pretext3d.commands.compare.figures import draw_curves, draw_efficiency
from pretext3d.commands.compare.folder import changed_keys, read_json
from pretext3d.commands.compare.statistics import DRAWS, bootstrap, holm, sign_flip_test
from pretext3d.commands.compare.tasks import SEGMENTATION, TASKS, Task, case_subjects, keys_of
from pretext3d.commands.compare.text import (
    CLASSIFIED,
    CROSSED,
    FOLDED,
    NESTED,
    NOTES,
    SEGMENTED,
    markdown,
    spread,
)
from pretext3d.errors import UserError
from pretext3d.files import replacing, write_whole

DIFFERENCE = ("mean", "low", "high", "p", "seeds")  # what `summarise` takes from a paired difference


def read_cells(output_dir: Path, task: Task = SEGMENTATION) -> tuple[pd.DataFrame, dict[str, Any]]:
    """All done cells as one table (the columns of the task), and the settings that they share.

    Raises:
        UserError: cells that were run with different settings, or a broken file of one.
    """
    tables: list[pd.DataFrame] = []
    common: dict[str, Any] | None = None
    first = ""
    for file in sorted((output_dir / "cells").glob("*/done.json")):
        settings = read_json(file)["settings"]
        lines: list[str] = [] if common is None else changed_keys(settings["common"], common)
        if lines:
            raise UserError(
                f"{file.parent.name} and {first} were run with different settings: {'; '.join(lines)}"
            )
        common, first = settings["common"], file.parent.name
        table = task.read(file.parent)
        for key in ("fold", "seed", "num_labelled", "arm"):
            if key in settings:
                table.insert(0, key, settings[key])
        tables.append(table)
    results = pd.concat(tables, ignore_index=True) if tables else pd.DataFrame()
    kept = [n for n in results if n == "fold" or n in task.metrics or task is not SEGMENTATION]
    more = [name for name in kept if name not in task.columns]
    return results.reindex(columns=[*task.columns, *more]), common or {}


def paired_difference(
    cases: pd.DataFrame,
    arm: str,
    baseline: str,
    num_labelled: int,
    nested: bool = False,
    task: Task = SEGMENTATION,
) -> dict[str, Any] | None:
    """Difference in the score, arm - baseline, over the pairs (seed, case) of both, or None.

    Its mean, low and high, p (see `statistics.sign_flip_test`), and the numbers of seeds, cases and subjects.
    """
    rows = [key for key in ("seed", "fold") if key in cases]
    tables = []
    for name in (arm, baseline):
        chosen = cases[(cases["arm"] == name) & (cases["num_labelled"] == num_labelled)]
        tables.append(chosen.pivot(index=rows, columns="case", values=task.score))
    return interval(tables[0] - tables[1], cases, nested, test=True)


def interval(
    scores: pd.DataFrame, cases: pd.DataFrame, nested: bool, test: bool = False
) -> dict[str, Any] | None:
    """Mean and 95 % interval of scores by seed, or by seed and fold, and case; None without any.

    With `test` also p, of the mean 0.
    """
    if "fold" in scores.index.names:
        scores = scores.groupby(level="fold").mean()  # over the seeds: they share a fold's cases
    table = scores.dropna(how="all").dropna(how="all", axis=1)
    if table.empty:
        return None
    known = cases.drop_duplicates("case").set_index("case").reindex(table.columns)
    subjects = known["subject"].tolist()
    strata = known["stratum"].tolist() if "stratum" in known else None
    pairs = table.to_numpy(dtype=float)
    mean, low, high = bootstrap(pairs, nested, subjects=subjects, strata=strata)
    found: dict[str, Any] = {"mean": mean, "low": low, "high": high}
    found |= {"p": sign_flip_test(pairs, subjects=subjects, strata=strata)} if test else {}
    return {**found, "seeds": len(pairs), "cases": pairs.shape[1], "subjects": len(set(subjects))}


def each_seed_splits(common: Mapping[str, Any]) -> bool:
    """Whether the cells are of a comparison with --monte_carlo or --folds: each has its own cases."""
    return isinstance(common.get("split_seed"), str) or "folds" in common


def replicates(cells: pd.DataFrame, columns: Sequence[str]) -> pd.DataFrame:
    """The metrics of each seed, or of each fold, the mean over its seeds."""
    return cells.groupby("fold" if "fold" in cells else "seed")[list(columns)].mean()


def summarise(
    results: pd.DataFrame,
    arms: Sequence[str],
    baseline: str = "scratch",
    nested: bool = False,
    task: Task = SEGMENTATION,
    jointly: bool = False,
) -> pd.DataFrame:
    """One line per number of labels and arm (in the order of `arms`): metrics, difference, cells.

    `difference_p` is corrected for the arms with as many labels, see `statistics.holm`; `jointly` for all
    arms and numbers of labels.
    """
    cases, cells = task.per_case(results), task.per_cell(results)
    columns = [task.score, *(name for name in task.metrics if name in cells)]
    rows = []
    for n in sorted(cells["num_labelled"].unique()):
        for arm in arms:
            chosen = cells[(cells["arm"] == arm) & (cells["num_labelled"] == n)]
            if chosen.empty:
                continue
            each = replicates(chosen, columns)
            row: dict[str, Any] = {"num_labelled": int(n), "arm": arm}
            for name in columns:
                row |= {name: each[name].mean(), f"{name}_std": each[name].std()}
            row |= {name: int(chosen[name].sum()) for name in ("no_distance", "pairs") if name in chosen}
            pair = paired_difference(cases, arm, baseline, int(n), nested, task) if arm != baseline else None
            row |= {f"difference_{key}": (pair or {}).get(key, np.nan) for key in DIFFERENCE}
            rows.append({**row, "cells": len(chosen)})
    table = pd.DataFrame(rows)
    if rows:
        family = pd.Series(0, table.index) if jointly else table["num_labelled"]
        table["difference_p"] = table.groupby(family)["difference_p"].transform(
            lambda values: holm(values.tolist())
        )
    return table


def p_value(value: float) -> str:
    """A p-value as text; '' for NaN.

    Examples:
        >>> p_value(0.0213), p_value(0.0002)
        ('0.021', '<0.001')
    """
    return "" if np.isnan(value) else "<0.001" if value < 0.001 else f"{value:.3f}"


def signed(mean: float, low: float, high: float) -> str:
    """`+0.050 [-0.010, +0.110]`; '' for NaN."""
    return "" if np.isnan(mean) else f"{mean:+.3f} [{low:+.3f}, {high:+.3f}]"


def with_p(mean: float, low: float, high: float, p: float) -> str:
    """A difference with its interval and its p-value; '' for NaN.

    Examples:
        >>> with_p(0.05, -0.01, 0.11, 0.0213)
        '+0.050 [-0.010, +0.110], p 0.021'
    """
    cut = signed(mean, low, high)
    return f"{cut}, p {p_value(p)}".replace("p <", "p < ") if cut else ""


def main_table(table: pd.DataFrame, task: Task, baseline: str, fractions: Mapping[int, float]) -> list[str]:
    """The table of all arms."""
    shown = {name: how for name, how in task.metrics.items() if name in table}
    header = ["labelled", "arm", task.title, *(title for title, _, _ in shown.values())]
    header += ["no distance"] * ("no_distance" in table)
    header += [f"{task.title} difference to {baseline} [95 %]", "p", "cells"]
    rows = []
    for row in table.to_dict("records"):
        cut = signed(row["difference_mean"], row["difference_low"], row["difference_high"])
        line = [amount(row["num_labelled"], fractions), row["arm"]]
        line.append(spread(row[task.score], row[f"{task.score}_std"], 3))
        for name, (_, digits, spreads) in shown.items():
            value = row[name]
            plain = "" if np.isnan(value) else f"{value:.{digits}f}"
            line.append(spread(value, row[f"{name}_std"], digits) if spreads else plain)
        line += [f"{row['no_distance']} of {row['pairs']}"] if "no_distance" in table else []
        rows.append([*line, cut, p_value(row["difference_p"]), str(row["cells"])])
    return markdown(header, rows)


def amount(number: int, fractions: Mapping[int, float]) -> str:
    """A number of labelled subjects as text.

    Examples:
        >>> amount(4, {}), amount(4, {4: 0.1})
        ('4', '4 (10 %)')
    """
    return f"{number} ({100 * fractions[number]:g} %)" if number in fractions else str(number)


def class_table(
    results: pd.DataFrame, table: pd.DataFrame, task: Task, fractions: Mapping[int, float]
) -> list[str]:
    """The mean of each class: its Dice, or the fraction of its cases that are found as it."""
    if task is SEGMENTATION:
        values, title = results.assign(value=results["dice"]), "Dice"
    else:
        values, title = results.assign(value=(results["class"] == results["predicted"]) * 1.0), "recall"
    names = list(values["class"].unique())
    if len(names) < 2:
        return []
    means = values.groupby(["num_labelled", "arm", "class"])["value"].mean()
    body = [
        [amount(int(n), fractions), arm, *(f"{means.get((n, arm, name), np.nan):.3f}" for name in names)]
        for n, arm in zip(table["num_labelled"], table["arm"], strict=True)
    ]
    return [*markdown(["labelled", "arm", *(f"{title}, {name}" for name in names)], body), ""]


def fold_table(
    results: pd.DataFrame, table: pd.DataFrame, task: Task, fractions: Mapping[int, float]
) -> list[str]:
    """The score of each fold, their mean and spread, and the interval of the mean."""
    cells, cases = task.per_cell(results), task.per_case(results)
    folds = sorted(cells["fold"].unique())
    rows = []
    for n, arm in zip(table["num_labelled"], table["arm"], strict=True):
        own = (cells["arm"] == arm) & (cells["num_labelled"] == n)
        each = replicates(cells[own], [task.score])[task.score]
        of = cases[(cases["arm"] == arm) & (cases["num_labelled"] == n)]
        found = interval(of.pivot(index=["seed", "fold"], columns="case", values=task.score), cases, True)
        ends = "" if found is None or len(each) < len(folds) else f"[{found['low']:.3f}, {found['high']:.3f}]"
        values = [f"{each[fold]:.3f}" if fold in each else "" for fold in folds]
        rows.append([amount(int(n), fractions), arm, *values, spread(each.mean(), each.std(), 3), ends])
    header = ["labelled", "arm", *(f"fold {fold}" for fold in folds), task.title, "95 %"]
    return [f"## {task.title[0].upper()}{task.title[1:]} of each fold", "", *markdown(header, rows), ""]


def summary_text(
    results: pd.DataFrame,
    arms: Sequence[str],
    common: Mapping[str, Any],
    planned: int = 0,
    warnings: Sequence[str] = (),
    baseline: str = "scratch",
    task: Task = SEGMENTATION,
    fractions: Mapping[int, float] | None = None,
    curves: pd.DataFrame | None = None,
) -> str:
    """The content of summary.md."""
    done, fractions = results[keys_of(results)].drop_duplicates(), fractions or {}
    table = summarise(results, arms, baseline, each_seed_splits(common), task)
    count = f"{len(done)} of {planned}" if planned > len(done) else str(len(done))
    people = case_subjects(results)
    subjects = len(set(people.values()))
    of = f" of {subjects} subjects" if subjects < len(people) else ""
    lines = ["# Comparison", "", f"{count} cells, {len(people)} held-out cases{of}."]
    shown = {**common, "dataset_dir": common.get("dataset_dir") or "(the embedded phantom)"}
    settings = ", ".join(f"{key} {value}" for key, value in shown.items() if key != "configuration")
    lines += [f"Settings of all cells: {settings}.", ""]
    lines += [f"**Warning**: {text}\n" for text in warnings]
    lines += [*main_table(table, task, baseline, fractions), ""]
    lines += class_table(results, table, task, fractions)
    if "fold" in results:
        lines += fold_table(results, table, task, fractions)
    if curves is not None and len(curves):
        lines += convergence(curves, arms, baseline, task.title, fractions)
    crossing = FOLDED if "fold" in results else NESTED if each_seed_splits(common) else CROSSED
    own = SEGMENTED if task is SEGMENTATION else CLASSIFIED
    over = "folds" if "fold" in results else "seeds"
    lines += [own.format(over=over), "", NOTES.format(baseline=baseline, draws=DRAWS, crossing=crossing)]
    return "\n".join(lines) + "\n"


def write_report(output_dir: Path, planned: int = 0) -> pd.DataFrame:
    """Write results.csv, summary.md and the figures from what is done; return the summary.

    The task, the order of the arms and the warnings are those of comparison.json, if it is there.
    """
    file = output_dir / "comparison.json"
    plan = read_json(file) if file.exists() else {}
    task = TASKS[plan.get("task", "segmentation")]
    results, common = read_cells(output_dir, task)
    if results.empty:
        raise UserError(f"{output_dir}: no cell is done yet; expected {output_dir / 'cells'}/*/done.json")
    found = list(results["arm"].unique())
    arms = [arm for arm in plan.get("arms", {}) if arm in found]
    arms += [arm for arm in found if arm not in arms]
    baseline = "scratch" if "scratch" in arms else arms[0]
    fractions = {int(number): fraction for number, fraction in plan.get("fractions", {}).items()}
    curves = read_curves(output_dir, task)
    with replacing(output_dir / "results.csv") as draft:
        results.to_csv(draft, index=False, float_format="%.5g")
    warnings = list(plan.get("warnings", {}).values())
    text = summary_text(results, arms, common, planned, warnings, baseline, task, fractions, curves)
    write_whole(output_dir / "summary.md", text)
    with replacing(output_dir / "label_efficiency.png") as draft:
        draw_efficiency(task.per_cell(results), arms, draft, task, fractions)
    if len(curves):
        with replacing(output_dir / "convergence.csv") as draft:
            curves.to_csv(draft, index=False, float_format="%.5g")
        with replacing(output_dir / "convergence.png") as draft:
            draw_curves(curves, arms, draft, task, fractions)
    return summarise(results, arms, baseline, each_seed_splits(common), task)

"""Tables and the picture of a comparison: results.csv, summary.md, label_efficiency.png.

Foreground Dice of a case: the mean over its foreground classes (those that the label or the prediction has).
Of a cell: the mean over its cases. In the table: mean and standard deviation (n - 1) over the seeds.

Paired difference to the baseline arm, with the same number of labels: d[s, c] = Dice of the arm - Dice of the
baseline for seed s and case c, averaged over all pairs. Every seed is evaluated on the same held-out cases,
so seeds and cases are crossed; the 95 % interval is a percentile bootstrap that draws seeds and subjects,
each with all its volumes, both with replacement and independently of each other (the pigeonhole bootstrap).
With --monte_carlo each seed has its own cases: seeds are drawn, and for each of them its subjects.
Source: Owen 2007, The pigeonhole bootstrap, Annals of Applied Statistics 1(2).
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pretext3d.commands.compare.cells import difference, read_json
from pretext3d.commands.compare.statistics import DRAWS, bootstrap
from pretext3d.errors import UserError
from pretext3d.files import replacing, write_whole

METRICS = ["dice", "iou", "hd95_mm", "surface_distance_mm"]
COLUMNS = ["arm", "num_labelled", "seed", "case", "subject", "class", *METRICS]

CROSSED = "independent of each other, since the cases are the same for every seed"
NESTED = "each seed's subjects are drawn for it alone, since each seed holds out cases of its own"
NOTES = """Dice: the mean over the foreground classes of a case, then over the held-out cases; mean ±
standard deviation over the seeds. A seed sets the first weights, the order of the data and which cases
are labelled, the same ones for every arm; *labelled* counts subjects, each with all its volumes. HD95:
the mean over the classes that both label and prediction have; *no distance* counts the (case, class)
pairs that only one of the two has: they have no distance and count 0 in the Dice, so an arm with more of
them looks better in HD95 than it is.

Difference: arm - {baseline}, paired by (seed, case); the 95 % interval is a percentile bootstrap of
{draws:,} draws of seeds and of subjects, each with all its cases, with replacement:
{crossing}.
With three seeds or fewer it is rough; with one seed it covers the subjects only. *restart* is scratch
trained twice: what more training gives without any pre-training. An arm starts from the output layer of its
weights where it is one of this segmentation, as that of restart, and from a new one otherwise."""


def read_cells(output_dir: Path) -> tuple[pd.DataFrame, dict[str, Any]]:
    """All done cells as one table (COLUMNS), and the settings that they share.

    Raises:
        UserError: cells that were run with different settings, or a broken file of one.
    """
    tables: list[pd.DataFrame] = []
    common: dict[str, Any] | None = None
    first = ""
    for file in sorted((output_dir / "cells").glob("*/done.json")):
        settings = read_json(file)["settings"]
        lines: list[str] = [] if common is None else difference(settings["common"], common)
        if lines:
            raise UserError(
                f"{file.parent.name} and {first} were run with different settings: {'; '.join(lines)}"
            )
        common, first = settings["common"], file.parent.name
        table = pd.read_csv(file.parent / "evaluation.csv", dtype={"case": str, "class": str, "subject": str})
        for key in ("seed", "num_labelled", "arm"):
            table.insert(0, key, settings[key])
        tables.append(table)
    results = pd.concat(tables, ignore_index=True) if tables else pd.DataFrame()
    return results.reindex(columns=COLUMNS), common or {}


def case_subjects(results: pd.DataFrame) -> dict[str, str]:
    """The subject of each case: the first that any of its lines names, otherwise the case itself."""
    known: dict[str, str] = {}
    if "subject" in results:
        named = results[["case", "subject"]].dropna().drop_duplicates("case")
        known = dict(zip(named["case"], named["subject"], strict=True))
    return {case: known.get(case, case) for case in results["case"].unique()}


def per_case(results: pd.DataFrame) -> pd.DataFrame:
    """One line per arm, num_labelled, seed and case: dice, hd95_mm (means over classes), pairs, no_distance.

    `subject` is that of the case, by which the bootstrap draws.

    `pairs` counts the classes that label or prediction has, `no_distance` those of them that only one has.
    """
    table = results.assign(
        pairs=results["dice"].notna(), no_distance=results["dice"].notna() & results["hd95_mm"].isna()
    )
    groups = table.groupby(["arm", "num_labelled", "seed", "case"], sort=False)
    means = groups[["dice", "iou", "hd95_mm"]].mean()
    cases = means.join(groups[["pairs", "no_distance"]].sum()).reset_index()
    return cases.assign(subject=cases["case"].map(case_subjects(results)))


def paired_difference(
    cases: pd.DataFrame, arm: str, baseline: str, num_labelled: int, nested: bool = False
) -> dict[str, Any] | None:
    """Difference in foreground Dice, arm - baseline, over the pairs (seed, case) of both, or None."""
    tables = []
    for name in (arm, baseline):
        chosen = cases[(cases["arm"] == name) & (cases["num_labelled"] == num_labelled)]
        tables.append(chosen.pivot(index="seed", columns="case", values="dice"))
    pairs = (tables[0] - tables[1]).dropna(how="all").dropna(how="all", axis=1)
    if pairs.empty:
        return None
    subjects = cases.drop_duplicates("case").set_index("case")["subject"].reindex(pairs.columns).tolist()
    mean, low, high = bootstrap(pairs.to_numpy(dtype=float), nested, subjects=subjects)
    counts = {"seeds": len(pairs), "cases": pairs.shape[1], "subjects": len(set(subjects))}
    return {"mean": mean, "low": low, "high": high, **counts}


def each_seed_splits(common: Mapping[str, Any]) -> bool:
    """Whether the cells are of a comparison with --monte_carlo."""
    return isinstance(common.get("split_seed"), str)


def summarise(
    results: pd.DataFrame, arms: Sequence[str], baseline: str = "scratch", nested: bool = False
) -> pd.DataFrame:
    """One line per number of labels and arm (in the order of `arms`): Dice, HD95, difference, cells."""
    cases = per_case(results)
    rows = []
    for n in sorted(cases["num_labelled"].unique()):
        for arm in arms:
            chosen = cases[(cases["arm"] == arm) & (cases["num_labelled"] == n)]
            if chosen.empty:
                continue
            seeds = chosen.groupby("seed")[["dice", "iou", "hd95_mm"]].mean()
            row = {
                "num_labelled": int(n),
                "arm": arm,
                "dice": seeds["dice"].mean(),
                "dice_std": seeds["dice"].std(),
                "iou": seeds["iou"].mean(),
            }
            row |= {"hd95_mm": seeds["hd95_mm"].mean(), "hd95_std": seeds["hd95_mm"].std()}
            row |= {"no_distance": int(chosen["no_distance"].sum()), "pairs": int(chosen["pairs"].sum())}
            pair = paired_difference(cases, arm, baseline, int(n), nested) if arm != baseline else None
            row |= {
                f"difference_{key}": (pair or {}).get(key, np.nan) for key in ("mean", "low", "high", "seeds")
            }
            rows.append({**row, "cells": len(seeds)})
    return pd.DataFrame(rows)


def spread(mean: float, std: float, digits: int) -> str:
    """`0.734 ± 0.012`; without the spread where there is only one seed."""
    if np.isnan(mean):
        return "none"
    return f"{mean:.{digits}f}" + ("" if np.isnan(std) else f" ± {std:.{digits}f}")


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """A table in Markdown."""
    return [f"| {' | '.join(line)} |" for line in [header, ["---"] * len(header), *rows]]


def summary_text(
    results: pd.DataFrame,
    arms: Sequence[str],
    common: Mapping[str, Any],
    planned: int = 0,
    warnings: Sequence[str] = (),
    baseline: str = "scratch",
) -> str:
    """The content of summary.md."""
    cells = results[["arm", "num_labelled", "seed"]].drop_duplicates()
    table = summarise(results, arms, baseline, each_seed_splits(common))
    count = f"{len(cells)} of {planned}" if planned > len(cells) else str(len(cells))
    people = case_subjects(results)
    subjects = len(set(people.values()))
    of = f" of {subjects} subjects" if subjects < len(people) else ""
    lines = ["# Comparison", "", f"{count} cells, {len(people)} held-out cases{of}."]
    shown = {**common, "dataset_dir": common.get("dataset_dir") or "(the embedded phantom)"}
    settings = ", ".join(f"{key} {value}" for key, value in shown.items() if key != "configuration")
    lines += [f"Settings of all cells: {settings}.", ""]
    lines += [f"**Warning**: {text}\n" for text in warnings]
    header = [
        "labelled",
        "arm",
        "Dice",
        "mIoU",
        "HD95, mm",
        "no distance",
        f"Dice difference to {baseline} [95 %]",
        "cells",
    ]
    rows = []
    for row in table.itertuples():
        cut = "" if np.isnan(row.difference_mean) else (
            f"{row.difference_mean:+.3f} [{row.difference_low:+.3f}, {row.difference_high:+.3f}]"
        )  # fmt: skip
        dice, distance = spread(row.dice, row.dice_std, 3), spread(row.hd95_mm, row.hd95_std, 2)
        missing = f"{row.no_distance} of {row.pairs}"
        iou = "" if np.isnan(row.iou) else f"{row.iou:.3f}"
        rows.append([str(row.num_labelled), row.arm, dice, iou, distance, missing, cut, str(row.cells)])
    lines += [*markdown(header, rows), ""]
    names = list(results["class"].unique())
    if len(names) > 1:
        means = results.groupby(["num_labelled", "arm", "class"])["dice"].mean()
        header = ["labelled", "arm", *(f"Dice, {name}" for name in names)]
        keys = [(int(row.num_labelled), row.arm) for row in table.itertuples()]
        body = [
            [str(n), arm, *(f"{means.get((n, arm, name), np.nan):.3f}" for name in names)] for n, arm in keys
        ]
        lines += [*markdown(header, body), ""]
    crossing = NESTED if each_seed_splits(common) else CROSSED
    lines += [NOTES.format(baseline=baseline, draws=DRAWS, crossing=crossing)]
    return "\n".join(lines) + "\n"


def draw(results: pd.DataFrame, arms: Sequence[str], path: Path) -> None:
    """Label efficiency: Dice against labelled cases; one line per arm, bars of ± 1 std, one dot per seed."""
    from matplotlib.figure import Figure

    seeds = per_case(results).groupby(["arm", "num_labelled", "seed"])["dice"].mean()
    figure = Figure(figsize=(6.4, 4.4), dpi=150, layout="constrained")
    axes = figure.subplots()
    numbers = sorted(results["num_labelled"].unique())
    place = {n: i for i, n in enumerate(numbers)}
    present = [arm for arm in arms if arm in set(results["arm"])]
    for i, arm in enumerate(present):
        groups = seeds[arm].groupby("num_labelled")
        means, stds = groups.mean(), groups.std().fillna(0)
        shift = (i - (len(present) - 1) / 2) * 0.08  # side by side, so that no bar hides another
        x = [place[n] + shift for n in means.index]
        line = axes.errorbar(x, means, yerr=stds, marker="o", capsize=3, label=arm, zorder=3)[0]
        dots = seeds[arm].reset_index()
        axes.scatter(
            [place[n] + shift for n in dots["num_labelled"]],
            dots["dice"],
            s=10,
            alpha=0.5,
            color=line.get_color(),
        )
    axes.set(xlabel="labelled subjects", ylabel="foreground Dice of held-out cases")
    axes.set_xticks(range(len(numbers)), [str(n) for n in numbers])
    axes.set_xlim(-0.5, len(numbers) - 0.5)
    low, high = axes.get_ylim()
    slack = max(0.0, 0.05 - (high - low)) / 2  # a negligible difference should not fill the picture
    axes.set_ylim(low - slack, high + slack)
    axes.grid(axis="y", alpha=0.3)
    axes.legend(frameon=False)
    figure.savefig(path, format="png")


def write_report(output_dir: Path, planned: int = 0) -> pd.DataFrame:
    """Write results.csv, summary.md and label_efficiency.png from what is done; return the summary.

    The order of the arms and the warnings are those of comparison.json, if it is there.
    """
    results, common = read_cells(output_dir)
    if results.empty:
        raise UserError(f"{output_dir}: no cell is done yet; expected {output_dir / 'cells'}/*/done.json")
    file = output_dir / "comparison.json"
    plan = read_json(file) if file.exists() else {}
    found = list(results["arm"].unique())
    arms = [arm for arm in plan.get("arms", {}) if arm in found]
    arms += [arm for arm in found if arm not in arms]
    baseline = "scratch" if "scratch" in arms else arms[0]
    with replacing(output_dir / "results.csv") as draft:
        results.to_csv(draft, index=False, float_format="%.5g")
    warnings = list(plan.get("warnings", {}).values())
    write_whole(output_dir / "summary.md", summary_text(results, arms, common, planned, warnings, baseline))
    with replacing(output_dir / "label_efficiency.png") as draft:
        draw(results, arms, draft)
    return summarise(results, arms, baseline, each_seed_splits(common))

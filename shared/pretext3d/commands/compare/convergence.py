"""Speed of convergence: the score of validations during training against epochs, with --validate_every.

Every arm is validated after the same epochs, on its held-out cases; the validations choose nothing.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from pretext3d.commands.compare.folder import read_json
from pretext3d.commands.compare.tasks import Task
from pretext3d.commands.compare.text import markdown

__all__ = ["convergence", "curve_of", "mean_curves", "read_curves"]

SHARES = (0.25, 0.5, 1.0)  # parts of the training after which the table gives the score


def curve_of(folder: Path, task: Task) -> pd.DataFrame | None:
    """The validations of a run, epoch, step and score of each; None where its metrics.csv has no score."""
    history = folder / "metrics.csv"
    table = pd.read_csv(history) if history.exists() else pd.DataFrame()
    if task.curve not in table:
        return None
    return table[["epoch", "step", task.curve]].rename(columns={task.curve: "score"}).dropna()


def read_curves(output_dir: Path, task: Task) -> pd.DataFrame:
    """One line per validation of each done cell: the cell's keys, epoch, step, score; empty without any."""
    tables = []
    for file in sorted((output_dir / "cells").glob("*/done.json")):
        found = curve_of(file.parent, task)
        if found is None:
            continue
        settings = read_json(file)["settings"]
        for key in ("fold", "seed", "num_labelled", "arm"):
            if key in settings:
                found.insert(0, key, settings[key])
        tables.append(found)
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame()


def mean_curves(curves: pd.DataFrame, unit: str = "epoch") -> pd.DataFrame:
    """Mean, standard deviation and number of cells per arm, number of labels and epoch, or step.

    An epoch that not all cells of an arm have been validated after, as in a comparison under way, is left
    out.
    """
    groups = curves.groupby(["num_labelled", "arm", unit])["score"]
    table = groups.agg(["mean", "std", "count"]).reset_index()
    most = table.groupby(["num_labelled", "arm"])["count"].transform("max")
    return table[table["count"] == most]


def convergence(
    curves: pd.DataFrame,
    arms: Sequence[str],
    baseline: str,
    title: str,
    fractions: Mapping[int, float] | None = None,
    unit: str = "epoch",
) -> list[str]:
    """The section of the summary: scores along the training, and epochs until the baseline's last score.

    Args:
        curves: Table from `read_curves`.
        arms: Names of the arms in order.
        baseline: Name of the arm whose last score the others are to reach.
        title: Name of the score.
        fractions: Fraction of the labels by number of subjects, where fractions were compared.
        unit: Unit along the training, a column of the table: epoch or step.
    """
    means = mean_curves(curves, unit)
    rows = []
    for n in sorted(means["num_labelled"].unique()):
        of = means[means["num_labelled"] == n].set_index("arm")
        goal = of.loc[[baseline], "mean"].iloc[-1] if baseline in of.index else np.nan
        for arm in (arm for arm in arms if arm in of.index):
            line = of.loc[[arm]]
            last = line[unit].max()
            scores = [line[line[unit] >= share * last]["mean"].iloc[0] for share in SHARES]
            reached = line[line["mean"] >= goal][unit]
            when = "" if np.isnan(goal) else str(int(reached.iloc[0])) if len(reached) else "not reached"
            share = f" ({100 * fractions[n]:g} %)" if fractions and n in fractions else ""
            rows.append([f"{n}{share}", arm, *(f"{score:.3f}" for score in scores), when])
    shares = [f"after {100 * share:g} %" for share in SHARES]
    header = ["labelled", "arm", *shares, f"{unit}s to {baseline}'s last score"]
    about = f"{title[0].upper()}{title[1:]} of validations, mean over the cells, after parts of the {unit}s."
    return ["## Speed of convergence", "", about, "", *markdown(header, rows), ""]

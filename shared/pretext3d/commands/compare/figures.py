"""The figures of a comparison: the score against labels, and against epochs."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from pretext3d.commands.compare.convergence import mean_curves
from pretext3d.commands.compare.tasks import Task

__all__ = ["draw_curves", "draw_efficiency"]

LEAST = 0.05  # height of an axis of scores: a negligible difference should not fill the picture


def ticks_of(table: pd.DataFrame, fractions: Mapping[int, float] | None) -> dict[int, str]:
    """The numbers of labelled subjects in a table, ascending, each with its name on an axis.

    Args:
        table: Table with the column `num_labelled`.
        fractions: Fraction of the labels by number of subjects, where fractions were compared.

    Examples:
        >>> ticks_of(pd.DataFrame({"num_labelled": [12, 4, 4]}), None)
        {4: '4', 12: '12'}
    """
    shares = fractions or {}
    numbers = [int(n) for n in sorted(table["num_labelled"].unique())]
    return {n: f"{n}\n{100 * shares[n]:g} %" if n in shares else str(n) for n in numbers}


def blank(width: float, height: float, columns: int = 1) -> tuple[Any, list[Any]]:
    """A figure of so many inches, and its panels in a row, which share the axis of scores."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=150, layout="constrained")
    return figure, list(figure.subplots(1, columns, sharey=True, squeeze=False)[0])


def draw_efficiency(
    cells: pd.DataFrame,
    arms: Sequence[str],
    path: Path,
    task: Task,
    fractions: Mapping[int, float] | None = None,
) -> None:
    """Score against labelled subjects; one line per arm, bars of ± 1 std, one dot per seed and fold.

    Args:
        cells: Table from `Task.per_cell`.
        arms: Names of the arms in order.
        path: Path of the PNG file.
        task: Task of the comparison.
        fractions: Fraction of the labels by number of subjects, where fractions were compared.
    """
    figure, [axes] = blank(6.4, 4.4)
    ticks = ticks_of(cells, fractions)
    place = {n: i for i, n in enumerate(ticks)}
    present = [arm for arm in arms if arm in set(cells["arm"])]
    for i, arm in enumerate(present):
        own = cells[cells["arm"] == arm]
        groups = own.groupby("num_labelled")[task.score]
        means, stds = groups.mean(), groups.std().fillna(0)
        shift = (i - (len(present) - 1) / 2) * 0.08  # side by side, so that no bar hides another
        x = [place[n] + shift for n in means.index]
        line = axes.errorbar(x, means, yerr=stds, marker="o", capsize=3, label=arm, zorder=3)[0]
        dots = [place[n] + shift for n in own["num_labelled"]]
        axes.scatter(dots, own[task.score], s=10, alpha=0.5, color=line.get_color())
    axes.set(xlabel="labelled subjects", ylabel=task.axis)
    axes.set_xticks(range(len(ticks)), list(ticks.values()))
    axes.set_xlim(-0.5, len(ticks) - 0.5)
    finish(axes)
    axes.legend(frameon=False)
    figure.savefig(path, format="png")


def draw_curves(
    curves: pd.DataFrame,
    arms: Sequence[str],
    path: Path,
    task: Task,
    fractions: Mapping[int, float] | None = None,
    unit: str = "epoch",
) -> None:
    """Score of validations against epochs: a panel per number of labels, a line and ± 1 std per arm.

    Args:
        curves: Table from `convergence.read_curves`.
        arms: Names of the arms in order.
        path: Path of the PNG file.
        task: Task of the comparison.
        fractions: Fraction of the labels by number of subjects, where fractions were compared.
        unit: Unit along the training, epoch or step.
    """
    means = mean_curves(curves, unit)
    ticks = ticks_of(means, fractions)
    figure, panels = blank(1.2 + 3.6 * len(ticks), 3.4, len(ticks))
    for axes, (n, name) in zip(panels, ticks.items(), strict=True):
        for i, arm in enumerate(arms):
            line = means[(means["num_labelled"] == n) & (means["arm"] == arm)]
            if line.empty:
                continue
            axes.plot(line[unit], line["mean"], marker=".", color=f"C{i % 10}", label=arm)
            std = line["std"].fillna(0)
            band = line["mean"] - std, line["mean"] + std
            axes.fill_between(line[unit], *band, color=f"C{i % 10}", alpha=0.15, linewidth=0)
        axes.set(xlabel=unit, title=f"{name} labelled".replace("\n", ", "))
        finish(axes)
    panels[0].set_ylabel(f"{task.title}, validation")
    panels[0].legend(frameon=False, fontsize=8)
    figure.savefig(path, format="png")


def finish(axes: Any) -> None:
    """A grid, and an axis of scores that is not too short."""
    low, high = axes.get_ylim()
    slack = max(0.0, LEAST - (high - low)) / 2
    axes.set_ylim(low - slack, high + slack)
    axes.grid(axis="y", alpha=0.3)

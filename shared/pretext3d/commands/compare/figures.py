"""The figures of a comparison: the score against labels, and against epochs."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from pretext3d.commands.compare.convergence import mean_curves
from pretext3d.commands.compare.tasks import Task

__all__ = ["Panel", "curves_figure", "draw_curves", "draw_efficiency", "draw_overview"]

RANDOM = {"scratch": "0.2", "scratch_long": "0.6"}  # greys of the arms with random weights
SIDE_BY_SIDE = 0.7  # of the distance between two numbers of labels that the bars of all arms take at most
LEGEND = 0.35  # of an overview's panel, above its points
LEAST = 0.05  # height of an axis of scores: a negligible difference should not fill the picture


class Panel(NamedTuple):
    """A panel of an overview: its title, the table from `Task.per_cell`, arms, task and fractions."""

    title: str
    cells: pd.DataFrame
    arms: Sequence[str]
    task: Task
    fractions: Mapping[int, float] | None = None


def colours(arms: Sequence[str]) -> dict[str, Any]:
    """A colour for each arm: greys for random weights, different ones for up to twenty others.

    Examples:
        >>> colours(["scratch", "vp"])["scratch"]
        '0.2'
    """
    from matplotlib import colormaps

    others = [arm for arm in arms if arm not in RANDOM]
    table = colormaps["tab10" if len(others) <= 10 else "tab20"]
    return RANDOM | {arm: table(i % table.N) for i, arm in enumerate(others)}


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
    present = [arm for arm in arms if arm in set(cells["arm"])]
    figure, [axes] = blank(6.4 + 0.35 * max(0, len(present) - 5), 4.4)
    efficiency(axes, Panel("", cells, present, task, fractions), colours(present))
    axes.set_ylabel(task.axis)
    axes.legend(frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))  # beside: no bar is hidden
    figure.savefig(path, format="png")


def draw_overview(panels: Sequence[Panel], path: Path) -> None:
    """The score against labelled subjects, one panel per task and encoder, three in a row.

    Args:
        panels: Panels in order.
        path: Path of the PNG file.
    """
    from matplotlib.figure import Figure

    columns = min(3, len(panels))
    rows = math.ceil(len(panels) / columns)
    figure = Figure(figsize=(0.4 + 3.4 * columns, 3.2 * rows), dpi=150, layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False).flatten()
    shared = colours(list(dict.fromkeys(arm for panel in panels for arm in panel.arms)))
    for axes, panel in zip(grid, panels, strict=False):
        efficiency(axes, panel, shared)
        axes.set_title(panel.title, fontsize=10)
        axes.set_ylabel(panel.task.title)
        low, high = axes.get_ylim()
        axes.set_ylim(low, high + LEGEND * (high - low))
        axes.legend(frameon=False, fontsize=8, loc="upper left")
    for axes in grid[len(panels) :]:
        axes.set_axis_off()
    figure.savefig(path, format="png")


def efficiency(axes: Any, panel: Panel, shown: Mapping[str, Any]) -> None:
    """The lines of `draw_efficiency` in one panel, each arm in its colour."""
    cells, task = panel.cells, panel.task
    ticks = ticks_of(cells, panel.fractions)
    place = {n: i for i, n in enumerate(ticks)}
    step = min(0.08, SIDE_BY_SIDE / len(panel.arms))
    for i, arm in enumerate(panel.arms):
        own, colour = cells[cells["arm"] == arm], shown[arm]
        groups = own.groupby("num_labelled")[task.score]
        means, stds = groups.mean(), groups.std().fillna(0)
        shift = (i - (len(panel.arms) - 1) / 2) * step  # side by side, so that no bar hides another
        x = [place[n] + shift for n in means.index]
        axes.errorbar(x, means, yerr=stds, marker="o", capsize=3, label=arm, zorder=3, color=colour)
        dots = [place[n] + shift for n in own["num_labelled"]]
        axes.scatter(dots, own[task.score], s=10, alpha=0.5, color=colour)
    axes.set(xlabel="labelled subjects")
    axes.set_xticks(range(len(ticks)), list(ticks.values()))
    axes.set_xlim(-0.5, len(ticks) - 0.5)
    finish(axes)


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
    curves_figure(curves, arms, task, fractions, unit).savefig(path, format="png")


def curves_figure(
    curves: pd.DataFrame, arms: Sequence[str], task: Task, fractions: Mapping[int, float] | None, unit: str
) -> Any:
    """The figure of `draw_curves`."""
    means = mean_curves(curves, unit)
    ticks = ticks_of(means, fractions)
    figure, panels = blank(2.4 + 3.2 * len(ticks), 3.4, len(ticks))
    shown, drawn = colours(arms), {}
    for axes, (n, name) in zip(panels, ticks.items(), strict=True):
        for arm in arms:
            colour = shown[arm]
            line = means[(means["num_labelled"] == n) & (means["arm"] == arm)]
            if line.empty:
                continue
            drawn[arm] = axes.plot(line[unit], line["mean"], marker=".", color=colour)[0]
            std = line["std"].fillna(0)
            band = line["mean"] - std, line["mean"] + std
            axes.fill_between(line[unit], *band, color=colour, alpha=0.15, linewidth=0)
        axes.set(xlabel=unit, title=f"{name} labelled".replace("\n", ", "))
    for axes in panels:  # after all are drawn, since they share the axis of scores
        finish(axes)
    panels[0].set_ylabel(f"{task.title}, validation")
    named = [arm for arm in arms if arm in drawn]
    outside = {"loc": "center left", "bbox_to_anchor": (1, 0.5), "frameon": False, "fontsize": 8}
    panels[-1].legend([drawn[arm] for arm in named], named, **outside)
    return figure


def finish(axes: Any) -> None:
    """A grid, and an axis of scores that is not too short."""
    low, high = axes.get_ylim()
    slack = max(0.0, LEAST - (high - low)) / 2
    axes.set_ylim(low - slack, high + slack)
    axes.grid(axis="y", alpha=0.3)

"""What screening chooses: a point of the grid for every arm, and the arms of confirmation.

The score of a point is the mean over the seeds of screening, of the validation subjects. The best point is
chosen, the first in the grid's order of equal ones. Confirmation has the arms of `always`, those it names,
and the `best` further ones with the highest scores, for every task and encoder separately.
"""

from collections.abc import Collection, Mapping

import numpy as np

from pretext3d.commands.compare.study.cells import (
    Cells,
    Point,
    StudyCell,
    confirmation_cell,
    probe_cell,
    screening_cells,
)
from pretext3d.commands.compare.study.definition import Study
from pretext3d.commands.compare.study.plans import Choice, Plan, PlanPart
from pretext3d.commands.compare.study.results import Results

__all__ = ["choose", "planned_cells"]


def choose(cells: Cells, results: Results, parts: Collection[PlanPart]) -> dict[PlanPart, Plan]:
    """The plan of some parts that follows from their results of screening, all of which are there."""
    study = cells.study
    scores: dict[PlanPart, dict[str, dict[Point, list[float]]]] = {}
    for cell in screening_cells(cells):
        if cell.part in parts:
            points = scores.setdefault(cell.part, {}).setdefault(cell.keys["arm"], {})
            point = Point(cell.keys["rate"], cell.keys["recipe"])
            points.setdefault(point, []).append(results.score(cell))
    found = {}
    for part, arms in scores.items():
        choices = {arm: best_of(points) for arm, points in arms.items()}
        confirmed, labels = confirmed_arms(study, part, choices), study.tasks[part[0]].labels
        found[part] = Plan(choices, confirmed, labels, tuple(study.seeds), study.tasks[part[0]].probe)
    return found


def best_of(points: Mapping[Point, list[float]]) -> Choice:
    """The point with the highest mean score."""
    means = {point: float(np.mean(values)) for point, values in points.items()}
    best = max(means, key=lambda point: (not np.isnan(means[point]), means[point]))
    return Choice(best, means[best], {point.name: mean for point, mean in means.items()})


def confirmed_arms(study: Study, part: PlanPart, choices: Mapping[str, Choice]) -> tuple[str, ...]:
    """The arms of confirmation: `always`, `confirmation::arms` and `by_task`, and the `best` others."""
    listed = {*study.always, *study.confirmed, *study.confirmed_in.get(part, ())}
    others = [arm for arm in choices if arm not in listed]
    first = sorted(others, key=lambda arm: -np.nan_to_num(choices[arm].score))
    chosen = {*listed, *first[: study.best]}
    return tuple(arm for arm in choices if arm in chosen)


def planned_cells(cells: Cells, plans: Mapping[PlanPart, Plan]) -> list[StudyCell]:
    """The cells of confirmation: every label count and seed of every arm, and its probe."""
    study, found = cells.study, []
    for task, encoder in [part for part in study.parts if part in plans]:
        plan = plans[task, encoder]
        for arm in plan.arms:
            point = plan.choices[arm].point
            found += [
                confirmation_cell(cells, task, encoder, arm, label, seed, point)
                for label in plan.labels
                for seed in plan.seeds
            ]
            chosen = study.arms[arm]
            if plan.probe and (not chosen.is_random or arm == "scratch"):
                of_task = study.tasks[task]
                found.append(probe_cell(cells, of_task, encoder, chosen, plan.labels, plan.seeds))
    return found

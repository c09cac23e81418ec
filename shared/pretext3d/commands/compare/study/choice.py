"""What screening chooses: a point of the grid for every arm, and the arms of confirmation; plan.yaml.

The score of a point is the mean over the seeds of screening, of the validation subjects. The best point is
chosen, the first in the grid's order of equal ones. Confirmation has the arms of `always`, those it names,
and the `best` further ones with the highest scores, for every task and encoder separately.

plan.yaml is the choice as a file that can be committed before a test subject is measured. Confirmation
follows this file; where it differs from what screening chooses, only if the user accepts it. A study may be
run task by task: the file grows by the parts, a task with an encoder each, that have been screened.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import yaml

from pretext3d.commands.compare.study.cells import (
    Cells,
    Point,
    StudyCell,
    confirmation_cell,
    grid,
    places,
    probe_cell,
    screening_cells,
)
from pretext3d.commands.compare.study.checks import above_zero, known_name, score, text
from pretext3d.commands.compare.study.definition import Study
from pretext3d.commands.compare.study.reading import Section, read_yaml
from pretext3d.commands.compare.study.results import Results
from pretext3d.errors import UserError
from pretext3d.files import write_whole

__all__ = ["Choice", "Plan", "choose", "plan_changes", "read_plan", "write_plan"]

HEAD = """# The plan of {name}: what screening chose, by its scores on validation subjects, and the cells of
# confirmation, which are measured once on test subjects. Commit it before these are run.
"""
OF_CHOICE = ("task", "encoder", "arm", "learning_rate", "recipe", "score", "scores")
Place = tuple[str, str, str]  # task, encoder, arm
PlanPart = tuple[str, str]  # task, encoder


@dataclass(frozen=True)
class Choice:
    """The point that an arm has in confirmation, with the scores of all."""

    point: Point
    score: float
    scores: Mapping[str, float]


@dataclass(frozen=True)
class Plan:
    """The choices by task, encoder and arm, and the names of confirmation's cells."""

    choices: Mapping[Place, Choice]
    cells: tuple[str, ...]

    @property
    def parts(self) -> list[PlanPart]:
        """The tasks with their encoders that it has."""
        return list(dict.fromkeys(place[:2] for place in self.choices))

    def of(self, parts: Collection[PlanPart]) -> "Plan":
        """What it has of some parts."""
        choices = {place: choice for place, choice in self.choices.items() if place[:2] in parts}
        return Plan(choices, tuple(name for name in self.cells if part_of_cell(name) in parts))

    def plus(self, other: "Plan") -> "Plan":
        """Both plans, whose parts differ, in one."""
        return Plan({**self.choices, **other.choices}, (*self.cells, *other.cells))


def part_of_cell(name: str) -> PlanPart:
    """The task and the encoder of a cell, from its name.

    Examples:
        >>> part_of_cell("confirmation/heart/cnn/scratch_n004_seed0")
        ('heart', 'cnn')
    """
    task, encoder = name.split("/")[1:3]
    return task, encoder


def choose(cells: Cells, results: Results, parts: Collection[PlanPart]) -> Plan:
    """The plan of some parts that follows from their results of screening, all of which are there."""
    study = cells.study
    scores: dict[Place, dict[Point, list[float]]] = {}
    for cell in screening_cells(cells):
        key = cell.keys
        if cell.part not in parts:
            continue
        points = scores.setdefault((key["task"], key["encoder"], key["arm"]), {})
        points.setdefault(Point(key["rate"], key["recipe"]), []).append(results.score(cell))
    choices = {}
    for place, points in scores.items():
        means = {point: float(np.mean(values)) for point, values in points.items()}
        best = max(means, key=lambda point: (not np.isnan(means[point]), means[point]))
        choices[place] = Choice(best, means[best], {point.name: mean for point, mean in means.items()})
    names = [name for name, _ in confirmation_names(study, cells, confirmed_arms(study, choices), choices)]
    return Plan(choices, tuple(names))


def confirmed_arms(study: Study, choices: Mapping[Place, Choice]) -> list[Place]:
    """The places of confirmation: `always`, `confirmation::arms` and `by_task`, and the `best` others."""
    found = []
    for task in study.tasks:
        for encoder in study.encoders:
            arms = [arm.name for arm in study.arms_of(task, encoder) if (task, encoder, arm.name) in choices]
            listed = {*study.always, *study.confirmed, *study.confirmed_in.get((task, encoder), ())}
            others = [arm for arm in arms if arm not in listed]
            first = sorted(others, key=lambda arm: -np.nan_to_num(choices[task, encoder, arm].score))
            chosen = {*listed, *first[: study.best]}
            found += [(task, encoder, arm) for arm in arms if arm in chosen]
    return found


def confirmation_names(
    study: Study, cells: Cells, confirmed: Sequence[Place], choices: Mapping[Place, Choice]
) -> list[tuple[str, StudyCell]]:
    """The cells of confirmation by name: every label count and seed of every place, and its probe."""
    found = []
    for task, encoder, arm in confirmed:
        point = choices[task, encoder, arm].point
        for label in study.tasks[task].labels:
            for seed in study.seeds:
                cell = confirmation_cell(cells, task, encoder, arm, label, seed, point)
                found.append((cell.name, cell))
        chosen = study.arms[arm]
        if study.tasks[task].probe and (not chosen.is_random or arm == "scratch"):
            cell = probe_cell(cells, study.tasks[task], encoder, chosen)
            found.append((cell.name, cell))
    return found


def planned_cells(cells: Cells, plan: Plan) -> list[StudyCell]:
    """The cells of confirmation that a plan lists.

    Raises:
        UserError: a cell that the study does not have, or whose arm the plan chooses nothing for.
    """
    known = dict(confirmation_names(cells.study, cells, list(plan.choices), plan.choices))
    for name in plan.cells:
        known_name(f"{cells.study.results_dir / 'plan.yaml'}: cells", name, known, "a cell of this study")
    return [known[name] for name in plan.cells]


def write_plan(file: Path, study: Study, plan: Plan) -> None:
    """Write plan.yaml."""
    choices = [
        {
            "task": task,
            "encoder": encoder,
            "arm": arm,
            "learning_rate": choice.point.rate,
            **({"recipe": choice.point.recipe} if choice.point.recipe else {}),
            "score": round(choice.score, 6),
            "scores": {name: round(score, 6) for name, score in choice.scores.items()},
        }
        for (task, encoder, arm), choice in plan.choices.items()
    ]
    content = {"study": study.name, "choices": choices, "cells": list(plan.cells)}
    file.parent.mkdir(parents=True, exist_ok=True)
    body = yaml.safe_dump(content, sort_keys=False, default_flow_style=None, width=110)
    write_whole(file, HEAD.format(name=study.name) + body)


def read_plan(file: Path, study: Study) -> Plan:
    """Read plan.yaml; an empty plan where there is no file.

    Raises:
        UserError: names the file and the key, what was found and what was expected.
    """
    if not file.exists():
        return Plan({}, ())
    top = Section(file, "", read_yaml(file), ("study", "choices", "cells"))
    if top.text("study") != study.name:
        raise UserError(f"{file}: study: found {top.text('study')}, expected {study.name}")
    known = {(task.name, encoder, arm.name) for task, encoder, arm in places(study)}
    choices: dict[Place, Choice] = {}
    points = grid(study)
    listed = top.values.get("choices")
    for number, each in enumerate(listed if isinstance(listed, list) else []):
        own = Section(file, f"choices::{number}", each, OF_CHOICE)
        place = own.text("task"), own.text("encoder"), own.text("arm")
        if place not in known:
            raise UserError(f"{own.where()}: found {', '.join(place)}, expected an arm of {study.file}")
        point = Point(own.value("learning_rate", above_zero), own.value("recipe", text, ""))
        if point not in points:
            names = ", ".join(each.name for each in points)
            raise UserError(
                f"{own.where()}: found {point.name}, expected a point of the study's grid: {names}"
            )
        listed_scores = own.section("scores", [each.name for each in points])
        scores = {name: listed_scores.value(name, score) for name in listed_scores.values}
        choices[place] = Choice(point, own.value("score", score), scores)
    if not choices:
        raise UserError(f"{top.where('choices')}: found none, expected what screening chose")
    return Plan(choices, tuple(top.listed("cells", text)))


def plan_changes(file: Plan, screened: Plan) -> list[str]:
    """What a plan in a file has other than screening chooses, one text each."""
    found = []
    for place in dict.fromkeys([*file.choices, *screened.choices]):
        there, here = file.choices.get(place), screened.choices.get(place)
        if there is None or here is None or there.point != here.point:
            names = [each.point.name if each else "none" for each in (there, here)]
            found.append(f"{', '.join(place)}: {names[0]} there, {names[1]} chosen")
    more, fewer = set(file.cells) - set(screened.cells), set(screened.cells) - set(file.cells)
    for names_of, words in ((more, "cells there alone"), (fewer, "cells missing there")):
        if names_of:
            first = sorted(names_of)[0]
            found.append(f"{len(names_of)} {words} ({first}{', ...' if len(names_of) > 1 else ''})")
    return found

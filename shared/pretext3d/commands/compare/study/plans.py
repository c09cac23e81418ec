"""The plan of a task with an encoder, `plan/TASK/ENCODER.yaml`: what screening chose, what confirmation runs.

A plan is a file so that it can be committed before a test subject is measured. Confirmation follows the file;
where it differs from what screening chooses, only if the user accepts it. The cells follow from it: every arm
with every number of labels and every seed.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from pretext3d.commands.compare.study.cells import Point, grid
from pretext3d.commands.compare.study.checks import above_zero, known_in, score, text
from pretext3d.commands.compare.study.definition import Label, Study
from pretext3d.commands.compare.study.reading import Section, read_yaml
from pretext3d.errors import UserError
from pretext3d.files import write_whole

__all__ = ["Choice", "Plan", "PlanPart", "plan_changes", "plan_file", "read_plan", "read_plans", "write_plan"]

HEAD = """# The plan of {study} for {task}, {encoder}: what screening chose, by its scores on validation
# subjects, and what confirmation measures once on test subjects. Commit it before that is run.
"""
OF_CHOICE = ("learning_rate", "recipe", "score", "scores")
OF_CONFIRMATION = ("arms", "labels", "seeds")
PlanPart = tuple[str, str]  # task, encoder


@dataclass(frozen=True)
class Choice:
    """The point that an arm has in confirmation, with the scores of all."""

    point: Point
    score: float
    scores: Mapping[str, float]


@dataclass(frozen=True)
class Plan:
    """The plan of a task with an encoder.

    Attributes:
        choices: What was chosen for every arm that was screened.
        arms: Arms of confirmation.
        labels: Numbers or fractions of labels of confirmation.
        seeds: Seeds of confirmation.
    """

    choices: Mapping[str, Choice]
    arms: tuple[str, ...]
    labels: tuple[Label, ...]
    seeds: tuple[int, ...]

    @property
    def confirmation(self) -> dict[str, list[Any]]:
        """What confirmation measures, as in the file: all combinations are its cells."""
        labels = [label.value for label in self.labels]
        return {"arms": list(self.arms), "labels": labels, "seeds": list(self.seeds)}


def plan_file(study: Study, part: PlanPart) -> Path:
    """The file of a part's plan."""
    return study.results_dir / "plan" / part[0] / f"{part[1]}.yaml"


def write_plan(study: Study, part: PlanPart, plan: Plan) -> Path:
    """Write a plan; its file."""
    choices = {
        arm: {
            "learning_rate": choice.point.rate,
            **({"recipe": choice.point.recipe} if choice.point.recipe else {}),
            "score": round(choice.score, 6),
            "scores": {name: round(score, 6) for name, score in choice.scores.items()},
        }
        for arm, choice in plan.choices.items()
    }
    content = {"study": study.name, "choices": choices, "confirmation": plan.confirmation}
    body = yaml.safe_dump(content, sort_keys=False, default_flow_style=None, width=110)
    file = plan_file(study, part)
    file.parent.mkdir(parents=True, exist_ok=True)
    write_whole(file, HEAD.format(study=study.name, task=part[0], encoder=part[1]) + body)
    return file


def read_plans(study: Study) -> dict[PlanPart, Plan]:
    """The plans of a study that are there, by task and encoder."""
    return {part: read_plan(study, part) for part in study.parts if plan_file(study, part).exists()}


def read_plan(study: Study, part: PlanPart) -> Plan:
    """Read a plan.

    Raises:
        UserError: names the file and the key, what was found and what was expected.
    """
    file = plan_file(study, part)
    top = Section(file, "", read_yaml(file), ("study", "choices", "confirmation"))
    if top.text("study") != study.name:
        raise UserError(f"{file}: study: found {top.text('study')}, expected {study.name}")
    arms = [arm.name for arm in study.arms_of(*part)]
    listed = top.section("choices", arms)
    choices = {arm: read_choice(study, listed.section(arm, OF_CHOICE)) for arm in listed.values}
    if not choices:
        raise UserError(f"{top.where('choices')}: found none, expected what screening chose")
    own = top.section("confirmation", OF_CONFIRMATION)
    labels = {label.value: label for label in study.tasks[part[0]].labels}
    return Plan(
        choices,
        tuple(own.listed("arms", known_in("arm", choices))),
        tuple(labels[value] for value in own.listed("labels", one_of(list(labels)))),
        tuple(own.listed("seeds", one_of(study.seeds))),
    )


def read_choice(study: Study, own: Section) -> Choice:
    """What was chosen for an arm."""
    points = grid(study)
    point = Point(own.value("learning_rate", above_zero), own.value("recipe", text, ""))
    if point not in points:
        names = ", ".join(each.name for each in points)
        raise UserError(f"{own.where()}: found {point.name}, expected a point of the study's grid: {names}")
    scores = own.section("scores", [each.name for each in points])
    named = {name: scores.value(name, score) for name in scores.values}
    return Choice(point, own.value("score", score), named)


def one_of(values: Sequence[float]) -> Callable[[str, Any], Any]:
    """A check of numbers that the study has."""

    def check(where: str, value: Any) -> Any:
        if isinstance(value, bool) or value not in values:
            known = ", ".join(f"{each:g}" for each in values)
            raise UserError(f"{where}: found {value!r}, expected those of the study: {known}")
        return value

    return check


def plan_changes(part: PlanPart, there: Plan, chosen: Plan) -> list[str]:
    """What a plan in a file has other than screening chooses, one text each."""
    found = []
    for arm in dict.fromkeys([*there.choices, *chosen.choices]):
        both = [plan.choices.get(arm) for plan in (there, chosen)]
        names = [each.point.name if each else "none" for each in both]
        if names[0] != names[1]:
            found.append(f"{', '.join(part)}, {arm}: {names[0]} there, {names[1]} chosen")
    for what in OF_CONFIRMATION:
        names = [", ".join(map(str, plan.confirmation[what])) for plan in (there, chosen)]
        if names[0] != names[1]:
            found.append(f"{', '.join(part)}, {what}: {names[0]} there, {names[1]} chosen")
    return found

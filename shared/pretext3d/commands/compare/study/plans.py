"""The plan of a task with an encoder, `plan/TASK/ENCODER.yaml`: what screening chose, what confirmation runs.

A plan is a file so that it can be committed before a test subject is measured. Confirmation follows the file;
where it differs from what screening chooses, only if the user accepts it. The cells follow from it: every arm
with every number of labels and every seed, and where there are probes, one of every pre-trained arm.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import yaml

from pretext3d.checking import boolean, brief
from pretext3d.commands.compare.study.cells import Point, grid
from pretext3d.commands.compare.study.checks import above_zero, known_name, score, text
from pretext3d.commands.compare.study.definition import Label, Study
from pretext3d.commands.compare.study.reading import Section, read_yaml
from pretext3d.errors import UserError
from pretext3d.files import write_whole

__all__ = ["Choice", "Plan", "PlanPart", "plan_changes", "plan_file", "read_plan", "read_plans", "write_plan"]

HEAD = """# The plan of {study} for {task}, {encoder}: what screening chose, by its scores on validation
# subjects, and what confirmation measures once on test subjects. Commit it before confirmation runs.
"""
OF_CHOICE = ("learning_rate", "recipe", "score", "scores")
OF_CONFIRMATION = ("arms", "labels", "seeds", "probe")
FORMER = "plan.yaml"  # of all tasks, in an earlier state of this repository
PlanPart = tuple[str, str]  # task, encoder
T = TypeVar("T")


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
        probe: Whether frozen features are measured, too.
    """

    choices: Mapping[str, Choice]
    arms: tuple[str, ...]
    labels: tuple[Label, ...]
    seeds: tuple[int, ...]
    probe: bool


def plan_file(study: Study, part: PlanPart) -> Path:
    """The file of a part's plan."""
    return study.results_dir / "plan" / part[0] / f"{part[1]}.yaml"


def write_plan(study: Study, part: PlanPart, plan: Plan) -> None:
    """Write the file of a plan."""
    choices = {
        arm: {
            "learning_rate": choice.point.rate,
            **({"recipe": choice.point.recipe} if choice.point.recipe else {}),
            "score": round(choice.score, 6),
            "scores": {name: round(score, 6) for name, score in choice.scores.items()},
        }
        for arm, choice in plan.choices.items()
    }
    confirmation = {
        "arms": list(plan.arms),
        "labels": [label.value for label in plan.labels],
        "seeds": list(plan.seeds),
        **({"probe": True} if plan.probe else {}),
    }
    content = {"study": study.name, "choices": choices, "confirmation": confirmation}
    body = yaml.safe_dump(content, sort_keys=False, default_flow_style=None, width=90)
    file = plan_file(study, part)
    file.parent.mkdir(parents=True, exist_ok=True)
    write_whole(file, HEAD.format(study=study.name, task=part[0], encoder=part[1]) + body)


def read_plans(study: Study) -> dict[PlanPart, Plan]:
    """The plans of a study that are there, by task and encoder.

    Raises:
        UserError: a mistake in one; a plan of another task or encoder, or of the former kind.
    """
    former, folder = study.results_dir / FORMER, study.results_dir / "plan"
    if former.exists():
        raise UserError(
            f"{former}: found one plan of all tasks, expected {folder.name}/TASK/ENCODER.yaml: move what it "
            "chooses there, or remove it to take what screening chooses"
        )
    known = [plan_file(study, part) for part in study.parts]
    for file in sorted(folder.rglob("*")):
        if file.is_file() and not file.name.startswith(".") and file not in known:
            raise UserError(
                f"{file}: found a plan of no task and encoder of {study.file}, expected "
                f"{', '.join(f'{task}/{encoder}.yaml' for task, encoder in study.parts)}"
            )
    return {part: read_plan(study, part) for part in study.parts if plan_file(study, part).exists()}


def read_plan(study: Study, part: PlanPart) -> Plan:
    """Read a plan.

    Raises:
        UserError: names the file and the key, what was found and what was expected.
    """
    try:
        return parsed_plan(study, part)
    except UserError as error:
        raise UserError(f"{error}. Or remove the file to take what screening chooses") from error


def parsed_plan(study: Study, part: PlanPart) -> Plan:
    """The plan in a file, for `read_plan`."""
    file = plan_file(study, part)
    top = Section(file, "", read_yaml(file), ("study", "choices", "confirmation"))
    if top.text("study") != study.name:
        raise UserError(f"{file}: study: found {top.text('study')}, expected {study.name}")
    listed = top.section("choices", [arm.name for arm in study.arms_of(*part)])
    choices = {arm: parsed_choice(study, listed.section(arm, OF_CHOICE)) for arm in listed.values}
    if not choices:
        raise UserError(f"{top.where('choices')}: found none, expected what screening chose")

    def chosen_arm(where: str, arm: Any) -> str:
        return known_name(where, arm, list(choices), "an arm that `choices` has")

    own, labels = top.section("confirmation", OF_CONFIRMATION), study.tasks[part[0]].labels
    arms = tuple(own.listed("arms", chosen_arm))
    values = own.listed("labels", of_study("label counts", [label.value for label in labels], study))
    return Plan(
        choices,
        arms,
        tuple(label for label in labels if label.value in values),
        tuple(own.listed("seeds", of_study("seeds", study.seeds, study))),
        own.value("probe", boolean, False),
    )


def parsed_choice(study: Study, own: Section) -> Choice:
    """What was chosen for an arm."""
    points = grid(study)
    point = Point(own.value("learning_rate", above_zero), own.value("recipe", text, ""))
    if point not in points:
        names = ", ".join(each.name for each in points)
        raise UserError(f"{own.where()}: found {point.name}, expected a point of the study's grid: {names}")
    scores = own.section("scores", [each.name for each in points])
    named = {name: scores.value(name, score) for name in scores.values}
    return Choice(point, own.value("score", score), named)


def of_study(what: str, values: Sequence[T], study: Study) -> Callable[[str, Any], T]:
    """A check of numbers that a study has, which returns the study's own."""

    def check(where: str, value: Any) -> T:
        if isinstance(value, bool) or value not in values:
            known = ", ".join(map(str, values))
            raise UserError(f"{where}: found {brief(value)}, expected {what} of {study.file}: {known}")
        return values[values.index(value)]

    return check


def plan_changes(part: PlanPart, there: Plan, chosen: Plan) -> list[str]:
    """How a plan in a file differs from what screening chooses, one text each."""
    found, place = [], ", ".join(part)
    for arm in dict.fromkeys([*there.choices, *chosen.choices]):
        both = [plan.choices.get(arm) for plan in (there, chosen)]
        names = [each.point.name if each else "no choice" for each in both]
        if names[0] != names[1]:
            found.append(f"{place}, {arm}: {names[0]} in the file, {names[1]} by screening")
    for what, file, new in (
        ("arms", there.arms, chosen.arms),
        ("labels", [label.title for label in there.labels], [label.title for label in chosen.labels]),
        ("seeds", there.seeds, chosen.seeds),
        ("probe", [there.probe], [chosen.probe]),
    ):
        for more, fewer, words in ((file, new, "in the file alone"), (new, file, "missing in the file")):
            if only := [str(value) for value in more if value not in fewer]:
                found.append(f"{place}: {what} {', '.join(only)} {words}")
    return found

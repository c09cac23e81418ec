"""Warnings of a study's report: cells that are compared, but were not run alike.

A study goes on for weeks and on several machines. It is warned of configurations, weights, networks,
precision and cases that differ; not of the package's code, of which each cell records the version.
"""

from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from typing import Any, TypeVar

from pretext3d.commands.compare.study.cells import StudyCell
from pretext3d.commands.compare.study.definition import Study
from pretext3d.commands.compare.study.results import Results

__all__ = ["mixed"]

UNKNOWN = "not recorded"
V = TypeVar("V", bound=Hashable)


def mixed(study: Study, done: Sequence[StudyCell], results: Results) -> list[str]:
    """Warnings where cells of a table differ in configurations, networks, precision or an arm's weights."""
    lines = []
    for task in study.tasks:
        own = [cell for cell in done if cell.keys["task"] == task]
        versions = {results.head(cell).get("configuration") for cell in own}
        if len(versions) > 1:
            file = study.tasks[task].kind.files[0]
            lines.append(
                f"**Warning**: {task}: its cells were measured with {len(versions)} versions of {file}.\n"
            )
        for encoder, arm in dict.fromkeys((cell.keys["encoder"], cell.keys["arm"]) for cell in own):
            started = [
                results.head(cell).get("pretraining") or {}
                for cell in own
                if (cell.keys["encoder"], cell.keys["arm"]) == (encoder, arm)
            ]
            for key, what in (("weights", "weights"), ("configuration", "versions of train.yaml")):
                found = {each.get(key) for each in started}
                if len(found) > 1:
                    where = f"{task}, {encoder}, {arm}"
                    lines.append(f"**Warning**: {where}: its cells started from {len(found)} {what}.\n")
        trained = [cell for cell in own if cell.task is not None]
        lines += other_networks(trained, results)
        lines += other_cases(task, trained, results)
        for encoder in dict.fromkeys(cell.keys["encoder"] for cell in trained):
            of_encoder = [cell for cell in trained if cell.keys["encoder"] == encoder]
            lines += other_precisions(f"{task}, {encoder}", of_encoder, results)
    return lines


def arms_by(cells: Sequence[StudyCell], value: Callable[[StudyCell], V]) -> dict[V, str]:
    """The arms of cells by a value of these, each with the number of its cells, as text."""
    found: dict[V, Counter[str]] = {}
    for cell in cells:
        found.setdefault(value(cell), Counter())[cell.keys["arm"]] += 1
    return {key: ", ".join(f"{arm} ({n})" for arm, n in arms.items()) for key, arms in found.items()}


def other_precisions(where: str, cells: Sequence[StudyCell], results: Results) -> list[str]:
    """A warning where some cells were computed in bfloat16 and others in float32, as their machines do.

    Args:
        where: Task and encoder.
        cells: Their fine-tunings that are done.
        results: Their results; older ones do not tell their precision.
    """
    found = arms_by(cells, lambda cell: results.head(cell).get("precision", UNKNOWN))
    if len(found) < 2:
        return []
    counts = "; ".join(f"{precision}: {arms}" for precision, arms in found.items())
    known = "may not all" if UNKNOWN in found and len(found) == 2 else "do not all"
    return [f"**Warning**: {where}: its cells {known} have the same precision. {counts}.\n"]


def other_cases(task: str, cells: Sequence[StudyCell], results: Results) -> list[str]:
    """A warning where cells of a task were measured on different cases, which their scores are means of."""
    found = arms_by(cells, lambda cell: frozenset(results.table(cell)["case"]))
    if len(found) < 2:
        return []
    some = min(frozenset.union(*found) - frozenset.intersection(*found))
    counts = "; ".join(f"with{'out' * (some not in cases)} {some}: {arms}" for cases, arms in found.items())
    return [f"**Warning**: {task}: its cells were measured on different cases. {counts}.\n"]


def other_networks(cells: Sequence[StudyCell], results: Results) -> list[str]:
    """Warnings where arms have another network than scratch: their differences may be those of networks.

    Args:
        cells: Fine-tunings of a task that are done.
        results: Their results; older ones do not tell their network.
    """
    found: dict[tuple[str, str], Any] = {}
    for cell in cells:
        if network := results.head(cell).get("network"):
            found[cell.keys["encoder"], cell.keys["arm"]] = network
    lines = []
    for (encoder, arm), network in found.items():
        scratch = found.get((encoder, "scratch"), network)
        if network != scratch:
            where = f"{cells[0].keys['task']}, {encoder}, {arm}"
            lines.append(
                f"**Warning**: {where}: its network, {network}, is not that of scratch, {scratch}.\n"
            )
    return lines

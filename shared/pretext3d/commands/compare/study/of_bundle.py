"""The scores of one bundle in a study, for its model card: of those tasks whose cells are all measured."""

from pathlib import Path
from typing import Any

from pretext3d.commands.compare.report import amount, with_p
from pretext3d.commands.compare.study.definition import read_study
from pretext3d.commands.compare.study.scores import SCORES, read_scores
from pretext3d.publishing.hub import BundleResult

__all__ = ["bundle_results"]


def bundle_results(file: Path, bundle: str) -> list[BundleResult]:
    """The scores of every fine-tuned arm that a bundle pre-trains, from scores.csv of a study.

    Another method that the bundle pre-trains, as Models Genesis, is an arm of its own, named in the setting.
    A task counts once all of its cells with an encoder are there: before, no p-value is final.

    Args:
        file: Path of the study.
        bundle: Name of the bundle.

    Returns:
        One per task, encoder, arm and number of labelled subjects; [] where the study has no scores yet.

    Raises:
        UserError: not a study, or not its scores.
    """
    study = read_study(file, "")
    if not (study.results_dir / SCORES).is_file():
        return []
    scores = read_scores(study.results_dir / SCORES)
    found = []
    for row in scores.itertuples():
        if row.bundle != bundle or row.reader or row.missing or row.task not in study.tasks:
            continue
        number = int(row.labelled)
        fractions = {} if row.fraction != row.fraction else {number: row.fraction}
        labelled = f"{amount(number, fractions)} labelled subject{'s' * (number != 1)}"
        named = ", ".join([row.encoder, *([row.arm] if row.arm != bundle else []), labelled])
        title = study.tasks[row.task].kind.title
        differences = [difference(row, f"to_{control}") for control in ("scratch", "scratch_long")]
        found.append(BundleResult(study.name, row.task, named, row.metric, title, row.score, *differences))
    return found


def difference(row: Any, name: str) -> str:
    """A difference with its interval and its p-value; '' where it was not measured."""
    return with_p(*(getattr(row, f"{name}{end}") for end in ("", "_low", "_high", "_p")))

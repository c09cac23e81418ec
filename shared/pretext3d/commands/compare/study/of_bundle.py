"""The scores of one bundle in a study, for its model card: of those tasks whose cells are all measured."""

from pathlib import Path

from pretext3d.commands.compare.report import amount
from pretext3d.commands.compare.study.cells import Cells
from pretext3d.commands.compare.study.choice import planned_cells, read_plan
from pretext3d.commands.compare.study.definition import read_study
from pretext3d.commands.compare.study.report import difference_text, parts_of, tables_of
from pretext3d.commands.compare.study.results import Results
from pretext3d.publishing.hub import BundleResult

__all__ = ["bundle_results"]

RANDOM = "scratch"


def bundle_results(file: Path, bundle: str) -> list[BundleResult]:
    """The scores of every arm that a bundle pre-trains, from the committed results of a study.

    A task counts once all of its cells with an encoder are there: before, no p-value is final.

    Args:
        file: Path of the study.
        bundle: Name of the bundle.

    Returns:
        One per task, encoder, arm and number of labelled subjects; [] where the study has no plan yet.

    Raises:
        UserError: not a study, or a result of other settings.
    """
    study = read_study(file, "")
    results = Results(study.results_dir)
    plan = study.results_dir / "plan.yaml"
    if not plan.is_file():
        return []
    planned = planned_cells(Cells(study, Path()), read_plan(plan, study))
    arms = {arm.name for arm in study.arms.values() if arm.bundle == bundle}
    found = []
    for part in parts_of(study, planned, results):
        if part.missing or not len(part.rows) or RANDOM not in part.controls:
            continue
        kind, table = part.task.kind, tables_of(part)[RANDOM]
        for number, arm in table.index:
            if arm in arms:
                labelled = f"{amount(int(number), part.fractions)} labelled subject{'s' * (number != 1)}"
                named = [part.encoder, *([arm] if arm != bundle else []), labelled]
                row = table.loc[(number, arm)]
                found.append(
                    BundleResult(
                        study.name, part.task.name, kind.name, ", ".join(named), kind.score, kind.title,
                        float(row[kind.score]), int(row["cells"]), difference_text(table, int(number), arm),
                    )
                )  # fmt: skip
    return found

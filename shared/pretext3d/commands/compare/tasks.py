"""What a comparison measures: segmentation by Dice, classification by balanced accuracy.

Each task has a score per case, by which arms are paired, and metrics per cell: one arm with one number of
labels, seed and, in a cross-validation, fold.

Foreground Dice of a case: the mean over its foreground classes (those that the label or the prediction has);
1 of a case where both are empty, so that what another arm finds there costs it. Of a cell: the mean over its
cases. The score of a classified case is 1 or 0 for right and wrong; its mean
within each class, averaged over the classes, is the cell's balanced accuracy.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["CLASSIFICATION", "SEGMENTATION", "TASKS", "Task", "case_subjects", "keys_of"]

CELL = ("arm", "num_labelled", "seed", "fold")  # what identifies a cell; fold in a cross-validation only
SEGMENTED = ["dice", "iou", "hd95_mm", "surface_distance_mm"]
OVERLAPS = ("dice", "iou", "nsd")  # measures that are 1 where all is right


def keys_of(table: "pd.DataFrame") -> list[str]:
    """The columns of a table that identify its cells."""
    return [key for key in CELL if key in table]


def case_subjects(results: "pd.DataFrame") -> dict[str, str]:
    """The subject of each case: the first that any of its lines names, otherwise the case itself."""
    known: dict[str, str] = {}
    if "subject" in results:
        named = results[["case", "subject"]].dropna().drop_duplicates("case")
        known = dict(zip(named["case"], named["subject"], strict=True))
    return {case: known.get(case, case) for case in results["case"].unique()}


class Task(ABC):
    """What differs between the tasks.

    Attributes:
        name: Name of the task, segmentation or classification.
        files: Names of the two configurations, training and evaluation.
        table: Path of the evaluation's table in a cell's folder.
        score: Column of the score in `per_case` and `per_cell`.
        title: Name of the score in texts; `axis` on the axes of figures.
        curve: Column of metrics.csv that has the score of a validation.
        columns: Columns of results.csv; others of a cell's table follow.
        metrics: Further columns of `per_cell` that the summary shows, with their title, their digits and
            whether their spread is shown.
    """

    name: str
    files: tuple[str, str]
    table: str
    score: str
    title: str
    axis: str
    curve: str
    columns: tuple[str, ...]
    metrics: ClassVar[Mapping[str, tuple[str, int, bool]]]

    @abstractmethod
    def per_case(self, results: "pd.DataFrame") -> "pd.DataFrame":
        """One line per cell and case: the score, `subject`, `stratum` where scores are weighted by it."""

    @abstractmethod
    def per_cell(self, results: "pd.DataFrame") -> "pd.DataFrame":
        """One line per cell: its keys, the score and the metrics."""

    def read(self, folder: Path) -> "pd.DataFrame":
        """The table of a cell's evaluation."""
        import pandas as pd

        return pd.read_csv(folder / self.table, dtype={"case": str, "class": str, "subject": str})

    def without(self, results: "pd.DataFrame", subjects: Sequence[str]) -> "pd.DataFrame":
        """The lines of all but some subjects."""
        return results[~results["case"].map(case_subjects(results)).isin(subjects)]

    def cell_score(self, folder: Path) -> float:
        """The score of one cell."""
        return self.score_of(self.read(folder))

    def score_of(self, table: "pd.DataFrame") -> float:
        """The score of one cell, from its table."""
        cell = table.assign(arm="", num_labelled=0, seed=0)
        return float(self.per_cell(cell)[self.score].iloc[0])


class Segmentation(Task):
    """Dice, mIoU, HD95 per case and class."""

    name = "segmentation"
    files = ("finetune.yaml", "evaluate.yaml")
    table = "evaluation.csv"
    score, title, axis = "dice", "Dice", "foreground Dice of held-out cases"
    curve = "val_mean_dice"
    columns = ("arm", "num_labelled", "seed", "case", "subject", "class", *SEGMENTED)
    metrics: ClassVar[Mapping[str, tuple[str, int, bool]]] = {
        "iou": ("mIoU", 3, False),
        "nsd": ("NSD", 3, True),
        "hd95_mm": ("HD95, mm", 2, True),
    }

    def per_case(self, results: "pd.DataFrame") -> "pd.DataFrame":
        """One line per cell and case: dice and metrics (means over classes), pairs, no_distance, subject.

        `pairs` counts the classes that label or prediction has, `no_distance` those that only one has. Where
        there is none, the overlaps are 1 and distances unknown.
        """
        table = results.assign(
            pairs=results["dice"].notna(), no_distance=results["dice"].notna() & results["hd95_mm"].isna()
        )
        groups = table.groupby([*keys_of(results), "case"], sort=False)
        means = groups[self.measures(results)].mean()
        cases = means.join(groups[["pairs", "no_distance"]].sum()).reset_index()
        overlaps = [name for name in OVERLAPS if name in cases]
        cases.loc[cases["pairs"] == 0, overlaps] = 1.0
        return cases.assign(subject=cases["case"].map(case_subjects(results)))

    def per_cell(self, results: "pd.DataFrame") -> "pd.DataFrame":
        """Means over the cases; sums of pairs and no_distance."""
        groups = self.per_case(results).groupby(keys_of(results), sort=False)
        sums = groups[["pairs", "no_distance"]].sum()
        return groups[self.measures(results)].mean().join(sums).reset_index()

    def measures(self, results: "pd.DataFrame") -> list[str]:
        """The columns that are averaged: the score, and the metrics that the table has."""
        return [self.score, *(name for name in self.metrics if name in results)]


class Classification(Task):
    """Balanced accuracy, accuracy, AUC and, of grades, quadratic weighted kappa."""

    name = "classification"
    files = ("finetune_classification.yaml", "evaluate_classification.yaml")
    table = "evaluation/classification.csv"
    score, title, axis = "balanced_accuracy", "balanced accuracy", "balanced accuracy of held-out cases"
    curve = "balanced_accuracy"
    columns = ("arm", "num_labelled", "seed", "case", "subject", "class", "predicted")
    metrics: ClassVar[Mapping[str, tuple[str, int, bool]]] = {
        "accuracy": ("accuracy", 3, True),
        "auc": ("AUC", 3, True),
        "quadratic_weighted_kappa": ("weighted kappa", 3, True),
    }

    def read(self, folder: Path) -> "pd.DataFrame":
        """The table of a cell's evaluation, with the kappa of its summary, where it has one."""
        import pandas as pd

        text = {"case": str, "class": str, "subject": str, "predicted": str}
        table = pd.read_csv(folder / self.table, dtype=text)
        summary = pd.read_csv(folder / "evaluation" / "classification_summary.csv").set_index("metric")
        return table.assign(
            **{name: value for name, value in summary["value"].items() if name in self.metrics}
        )

    def per_case(self, results: "pd.DataFrame") -> "pd.DataFrame":
        """One line per cell and case: balanced_accuracy, 1 or 0 for right or wrong, stratum (the class)."""
        cases = results[[*keys_of(results), "case", "class"]].rename(columns={"class": "stratum"})
        right = (results["class"] == results["predicted"]).astype(float)
        return cases.assign(balanced_accuracy=right, subject=cases["case"].map(case_subjects(results)))

    def per_cell(self, results: "pd.DataFrame") -> "pd.DataFrame":
        """Balanced accuracy, and the metrics that the evaluation wrote."""
        keys = keys_of(results)
        cases = self.per_case(results)
        recall = cases.groupby([*keys, "stratum"], sort=False)["balanced_accuracy"].mean()
        found = recall.groupby(level=keys, sort=False).mean().to_frame()
        others = results.groupby(keys, sort=False)[[n for n in self.metrics if n in results]].first()
        return found.join(others).reset_index()

    def without(self, results: "pd.DataFrame", subjects: Sequence[str]) -> "pd.DataFrame":
        """The lines of all but some subjects, without the metrics of all cases that the evaluation wrote."""
        return super().without(results, subjects).drop(columns=list(self.metrics), errors="ignore")


SEGMENTATION, CLASSIFICATION = Segmentation(), Classification()
TASKS: dict[str, Task] = {task.name: task for task in (SEGMENTATION, CLASSIFICATION)}

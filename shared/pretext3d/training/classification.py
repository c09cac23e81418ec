"""Classification of complete cases: table per case, metrics, confusion matrix.

A case is a volume, an image or a single slice. The slices of a volume are one case: its probabilities are the
mean over its slices.
"""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import ignite.distributed as idist
import numpy as np
import pandas as pd
import torch
from ignite.engine import Engine, Events
from monai.metrics import compute_roc_auc

from pretext3d.checking import one_of
from pretext3d.data.subjects import person_name, volume_of
from pretext3d.files import replacing
from pretext3d.training.processes import gathered

__all__ = ["ClassMetrics", "class_metrics"]

logger = logging.getLogger(__name__)

KAPPA = "quadratic_weighted_kappa"


def class_metrics(probabilities: np.ndarray, labels: np.ndarray, ordered: bool = False) -> dict[str, float]:
    """Compute the metrics of n cases and c classes.

    accuracy: fraction of cases whose most probable class is the true one. balanced_accuracy: its mean over
    the classes that occur. auc: area under the ROC curve of each class against the rest, mean over the
    classes that occur (of two classes both have the same); NaN where only one does.
    quadratic_weighted_kappa, of ordered classes: 1 - sum_ij (i - j)^2 o_ij / sum_ij (i - j)^2 e_ij for
    counts o_ij of class i predicted as j, and e_ij as many with the same margins and i, j independent; -1 to
    1, 0 for predictions that do not depend on the class; NaN where all cases have one class, and are
    predicted as it.
    Source: Cohen 1968, Weighted kappa, Psychological Bulletin 70(4).

    Args:
        probabilities: Array (n, c), rows sum to 1.
        labels: Class numbers (n,), integers from 0.
        ordered: Whether the classes are grades; the distance of two is that of their numbers.

    Examples:
        >>> class_metrics(np.array([[0.9, 0.1], [0.4, 0.6], [0.7, 0.3], [0.2, 0.8]]), np.array([0, 0, 1, 1]))
        {'accuracy': 0.5, 'balanced_accuracy': 0.5, 'auc': 0.75}
        >>> class_metrics(np.eye(3)[[0, 1, 2, 1]], np.array([0, 1, 2, 2]), ordered=True)[KAPPA]
        0.8
    """
    from torchmetrics.functional.classification import multiclass_accuracy, multiclass_cohen_kappa

    pred, label = torch.from_numpy(probabilities).double(), torch.from_numpy(labels).long()
    count = pred.shape[1]
    occurs = torch.bincount(label, minlength=count) > 0
    recall = multiclass_accuracy(pred, label, count, average=None)[occurs].double()
    found = {
        "accuracy": float((pred.argmax(1) == label).double().mean()),
        "balanced_accuracy": float(recall.mean()),
        "auc": float("nan"),
    }
    if int(occurs.sum()) > 1:
        one_hot = torch.nn.functional.one_hot(label, count)
        found["auc"] = float(compute_roc_auc(pred[:, occurs], one_hot[:, occurs], average="macro"))
    if ordered:
        kappa = multiclass_cohen_kappa(pred, label, count, weights="quadratic")
        found[KAPPA] = round(float(kappa), 6)  # computed in float32
    return found


def remarks(metrics: Mapping[str, float], labels: np.ndarray, class_names: Sequence[str]) -> dict[str, str]:
    """What limits each metric: classes without a case, or why it is not a number.

    Args:
        metrics: Metrics of some cases, see `class_metrics`.
        labels: Class numbers of the cases.
        class_names: Names of all classes.

    Examples:
        >>> remarks({"balanced_accuracy": 0.5, "auc": 0.7}, np.array([0, 2]), ["a", "b", "c"])["auc"]
        'mean over 2 of 3 classes: no case is of class b'
    """
    missing = [name for number, name in enumerate(class_names) if not (labels == number).any()]
    share = f"mean over {len(class_names) - len(missing)} of {len(class_names)} classes: no case is of class "
    found = dict.fromkeys(metrics, "")
    for name, value in metrics.items():
        if np.isnan(value):
            found[name] = f"not defined: all cases are of class {class_names[int(labels[0])]}"
        elif missing and name in ("balanced_accuracy", "auc"):
            found[name] = share + ", ".join(missing)
    return found


class ClassMetrics:
    """Handler of an evaluator whose output holds logits `pred` (c,) and a class number `label` for each case.

    After each validation it sets accuracy, balanced_accuracy, auc and, of ordered classes,
    quadratic_weighted_kappa in `engine.state.metrics`, and writes `classification.csv` (case, subject where
    known, class, predicted, one column of probabilities per class), `classification_summary.csv` (metric,
    value, cases, remark: what it leaves out, or why it is not defined) and `confusion_matrix.csv` (rows: true
    classes; columns: predicted ones). As an evaluator's key metric it takes the name of one of these metrics.

    Args:
        output_dir: Folder for the files.
        class_names: Names of all classes.
        cases: Cases that are validated: their subjects, and the volumes of slices (see `slices.slice_cases`).
        ordered: Whether the classes are grades, in ascending order.
    """

    def __init__(
        self,
        output_dir: str,
        class_names: Sequence[str],
        cases: Sequence[Mapping[str, Any]] = (),
        ordered: bool = False,
    ) -> None:
        self.output_dir, self.class_names = Path(output_dir), [str(name) for name in class_names]
        self.ordered, self.reported = ordered, False
        self.volumes = {str(case["id"]): volume_of(case) for case in cases}
        named = [case for case in cases if "subject" in case]
        self.subjects = {volume_of(case): person_name(dict(case)) for case in named}
        self.batches: list[list[tuple[str, torch.Tensor, int]]] = []  # case, logits and class

    def attach(self, engine: Engine, name: str = "") -> None:
        """Register with the evaluator; `name` is that of its key metric, '' where it is another one."""
        known = ["accuracy", "balanced_accuracy", "auc", *([KAPPA] if self.ordered else [])]
        if name:
            one_of("key_metric", name, known)
        engine.add_event_handler(Events.STARTED, self.start)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.add_cases)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self.write)

    def start(self, engine: Engine) -> None:
        """Discard all cases."""
        self.batches = []

    def add_cases(self, engine: Engine) -> None:
        """Add the cases of one batch."""
        self.batches.append([])
        for output, case in zip(engine.state.output, engine.state.batch, strict=True):
            logits = torch.as_tensor(output["pred"]).detach().cpu().float()
            name = self.volumes.get(str(case["id"]), str(case["id"]))
            self.batches[-1].append((name, logits, int(output["label"])))

    def write(self, engine: Engine) -> None:
        """Compute the metrics and write the tables."""
        samples = [sample for batch in gathered(self.batches) for sample in batch]
        each = pd.DataFrame(torch.stack([logits for _, logits, _ in samples]).softmax(-1).double().numpy())
        # over the slices of each volume
        means = each.groupby(np.asarray([name for name, _, _ in samples], object), sort=False).mean()
        probabilities, cases = means.to_numpy(copy=True), means.index.tolist()
        classes = {name: label for name, _, label in samples}
        labels = np.asarray([classes[case] for case in cases])
        metrics = class_metrics(probabilities, labels, self.ordered)
        engine.state.metrics.update(metrics)
        if idist.get_rank() > 0:
            return
        limits = remarks(metrics, labels, self.class_names)
        self._write_tables(cases, labels, probabilities, metrics, limits)
        text = ", ".join(f"{name} {value:.3f}" for name, value in metrics.items())
        logger.info("classification of %d cases: %s", len(labels), text)
        if any(limits.values()) and not self.reported:
            grouped = {limit: [n for n in limits if limits[n] == limit] for limit in limits.values() if limit}
            for limit, names in grouped.items():
                logger.warning("%s: %s", ", ".join(names), limit)
            self.reported = True  # it is the same in every validation of a run

    def _write_tables(
        self,
        cases: Sequence[str],
        labels: np.ndarray,
        probabilities: np.ndarray,
        metrics: Mapping[str, float],
        limits: Mapping[str, str],
    ) -> None:
        names = pd.Categorical.from_codes(labels, categories=self.class_names)
        found = pd.Categorical.from_codes(probabilities.argmax(1), categories=self.class_names)
        who = {"subject": [self.subjects.get(case) for case in cases]} if self.subjects else {}
        table: dict[str, Any] = {"case": cases, **who, "class": names, "predicted": found}
        table |= {f"p_{name}": probabilities[:, c] for c, name in enumerate(self.class_names)}
        matrix = pd.crosstab(names, found, rownames=["class"], colnames=["predicted"], dropna=False)
        rows = [
            {"metric": name, "value": value, "cases": len(labels), "remark": limits[name]}
            for name, value in metrics.items()
        ]
        self.output_dir.mkdir(parents=True, exist_ok=True)
        for name, frame, index in (
            ("classification", pd.DataFrame(table), False),
            ("classification_summary", pd.DataFrame(rows), False),
            ("confusion_matrix", matrix, True),
        ):
            with replacing(self.output_dir / f"{name}.csv") as draft:
                frame.to_csv(draft, index=index, float_format="%.5g")
        logger.debug("confusion matrix, rows are true classes\n%s", matrix)

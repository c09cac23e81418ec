"""Classification of complete cases: table per case, accuracy, area under the ROC curve, confusion matrix.

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

from pretext3d.data.subjects import volume_of
from pretext3d.files import replacing
from pretext3d.training.processes import gathered

__all__ = ["ClassMetrics", "class_metrics"]

logger = logging.getLogger(__name__)


def class_metrics(probabilities: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Compute the metrics of n cases and c classes.

    accuracy: fraction of cases whose most probable class is the true one. balanced_accuracy: its mean over
    the classes that occur. auc: area under the ROC curve of each class against the rest, mean over the
    classes that occur and are not all cases; NaN where there is none.

    Args:
        probabilities: Array (n, c), rows sum to 1.
        labels: Class numbers (n,), integers from 0.

    Examples:
        >>> class_metrics(np.array([[0.9, 0.1], [0.4, 0.6], [0.7, 0.3], [0.2, 0.8]]), np.array([0, 0, 1, 1]))
        {'accuracy': 0.5, 'balanced_accuracy': 0.5, 'auc': 0.75}
    """
    right = probabilities.argmax(axis=1) == labels
    classes = np.unique(labels)
    aucs = [
        compute_roc_auc(torch.from_numpy(probabilities[:, c]), torch.from_numpy(labels == c).float())
        for c in classes
        if (labels != c).any()
    ]
    return {
        "accuracy": float(right.mean()),
        "balanced_accuracy": float(np.mean([right[labels == c].mean() for c in classes])),
        "auc": float(np.mean(aucs)) if aucs else float("nan"),
    }


class ClassMetrics:
    """Handler of an evaluator whose output holds logits `pred` (c,) and a class number `label` for each case.

    After each validation it sets accuracy, balanced_accuracy and auc in `engine.state.metrics` and writes
    `classification.csv` (case, class, predicted, one column of probabilities per class) and
    `confusion_matrix.csv` (rows: true classes; columns: predicted ones).

    Args:
        output_dir: Folder for the two files.
        class_names: Names of all classes.
        cases: Cases that are validated, where slices of volumes are among them (see `slices.slice_cases`).
    """

    def __init__(
        self, output_dir: str, class_names: Sequence[str], cases: Sequence[Mapping[str, Any]] = ()
    ) -> None:
        self.output_dir, self.class_names = Path(output_dir), [str(name) for name in class_names]
        self.volumes = {str(case["id"]): volume_of(case) for case in cases}
        self.batches: list[list[tuple[str, torch.Tensor, int]]] = []  # case, logits and class

    def attach(self, engine: Engine) -> None:
        """Register with the evaluator."""
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
        """Compute the metrics and write both tables."""
        samples = [sample for batch in gathered(self.batches) for sample in batch]
        each = pd.DataFrame(torch.stack([logits for _, logits, _ in samples]).softmax(-1).double().numpy())
        # over the slices of each volume
        means = each.groupby(np.asarray([name for name, _, _ in samples], object), sort=False).mean()
        probabilities, cases = means.to_numpy(copy=True), means.index.tolist()
        classes = {name: label for name, _, label in samples}
        labels = np.asarray([classes[case] for case in cases])
        engine.state.metrics.update(class_metrics(probabilities, labels))
        if idist.get_rank() > 0:
            return
        names = pd.Categorical.from_codes(labels, categories=self.class_names)
        found = pd.Categorical.from_codes(probabilities.argmax(1), categories=self.class_names)
        table: dict[str, Any] = {"case": cases, "class": names, "predicted": found}
        table |= {f"p_{name}": probabilities[:, c] for c, name in enumerate(self.class_names)}
        matrix = pd.crosstab(names, found, rownames=["class"], colnames=["predicted"], dropna=False)
        self.output_dir.mkdir(parents=True, exist_ok=True)
        for name, frame, index in (
            ("classification", pd.DataFrame(table), False),
            ("confusion_matrix", matrix, True),
        ):
            with replacing(self.output_dir / f"{name}.csv") as draft:
                frame.to_csv(draft, index=index, float_format="%.5g")
        figures = {name: engine.state.metrics[name] for name in ("accuracy", "balanced_accuracy", "auc")}
        text = ", ".join(f"{name} {value:.3f}" for name, value in figures.items())
        logger.info("classification of %d cases: %s", len(labels), text)
        logger.debug("confusion matrix, rows are true classes\n%s", matrix)

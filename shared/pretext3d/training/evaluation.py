"""Segmentation quality per case and class, in the label's own grid and in millimetres."""

import logging
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from ignite.engine import Engine, Events
from monai.metrics import (
    compute_average_surface_distance,
    compute_dice,
    compute_hausdorff_distance,
    compute_iou,
)
from monai.networks.utils import one_hot

from pretext3d.annotations import Shaped, Tensor
from pretext3d.errors import UserError
from pretext3d.files import replacing

__all__ = ["CaseMetrics", "check_classes"]

logger = logging.getLogger(__name__)


def case_metrics(
    pred: Shaped[Tensor, "1 *size"],
    label: Shaped[Tensor, "1 *size"],
    num_classes: int,
    spacing: Sequence[float],
) -> dict[int, dict[str, float]]:
    """Metrics of one case, a volume or a plane, for the classes 1 to num_classes - 1.

    Dice; iou, intersection over union (its mean is mIoU); hd95_mm, the 95th percentile of the symmetric
    Hausdorff distance; surface_distance_mm, the symmetric average surface distance. A class that
    neither volume has is NaN in all four; one that only one volume has has Dice and iou 0, distances NaN.

    Args:
        pred: Class indices.
        label: Class indices on the same grid.
        num_classes: Number of classes, background included.
        spacing: Size of a voxel in mm along each axis of that grid.

    Examples:
        >>> case_metrics(torch.tensor([[[0, 1, 1]]]), torch.tensor([[[0, 0, 1]]]), 2, (1.0, 1.0))[1]["iou"]
        0.5
    """
    a = one_hot(torch.as_tensor(pred)[None].long(), num_classes)
    b = one_hot(torch.as_tensor(label)[None].long(), num_classes)
    dice = compute_dice(a, b, include_background=False)[0]
    iou = compute_iou(a, b, include_background=False)[0]
    rows = {}
    for c in range(1, num_classes):
        rows[c] = {"dice": float(dice[c - 1]), "iou": float(iou[c - 1])}
        rows[c] |= {"hd95_mm": np.nan, "surface_distance_mm": np.nan}
        if a[0, c].any() and b[0, c].any():
            # only the box around both, with a margin: the distances are the same
            where = torch.nonzero(a[0, c] + b[0, c])
            low, high = where.amin(0).sub(1).clamp(min=0), where.amax(0) + 2
            box = (slice(None), slice(None), *(slice(int(s), int(e)) for s, e in zip(low, high, strict=True)))
            pair = {"y_pred": a[:, c : c + 1][box], "y": b[:, c : c + 1][box], "include_background": True}
            pair["spacing"] = [float(s) for s in spacing]
            with warnings.catch_warnings():  # MONAI passes one of its own deprecated arguments
                warnings.filterwarnings("ignore", message=".*always_return_as_numpy")
                rows[c]["hd95_mm"] = float(compute_hausdorff_distance(percentile=95, **pair))
                rows[c]["surface_distance_mm"] = float(
                    compute_average_surface_distance(symmetric=True, **pair)
                )
        elif a[0, c].any() != b[0, c].any():
            rows[c] |= {"dice": 0.0, "iou": 0.0}
    return rows


def check_classes(cases: Mapping[str, Any], record: Mapping[str, Any]) -> None:
    """Make sure that the classes of the cases are those that a network was trained on.

    Args:
        cases: What `prepare_cases` returns.
        record: Record of the checkpoint: method, num_classes, class_names.

    Raises:
        UserError: a classification of other classes; labels of more classes than the network has.
    """
    found, expected = list(cases["class_names"]), list(record["class_names"])
    if record["method"] == "classification" and found != expected:
        raise UserError(
            f"class_file: found the classes {', '.join(found)}, expected those of the training: "
            f"{', '.join(expected)}"
        )
    if cases["num_classes"] > record["num_classes"]:
        raise UserError(
            f"labels: found {cases['num_classes']} classes, background included, expected at most "
            f"{record['num_classes']}, those of the training: {', '.join(expected)}"
        )


class CaseMetrics:
    """Handler of an evaluator whose output holds class indices `pred` and `label` on the label's grid.

    Writes `evaluation.csv` (case, subject where known, class, dice, iou, hd95_mm,
    surface_distance_mm), one line per case and class, and `evaluation_summary.csv`, one line per class and
    one for the mean over cases of each case's mean; logs the summary, and puts the mean Dice and distances of
    the foreground in `engine.state.metrics`.

    Args:
        output_dir: Folder for the two files.
        class_names: Names of all classes, the background first.
    """

    def __init__(self, output_dir: str, class_names: Sequence[str]) -> None:
        self.output_dir, self.class_names = Path(output_dir), [str(name) for name in class_names]
        self.rows: list[dict[str, Any]] = []

    def attach(self, engine: Engine) -> None:
        """Register with the evaluator."""
        engine.add_event_handler(Events.STARTED, lambda _: self.rows.clear())
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.add_cases)
        engine.add_event_handler(Events.COMPLETED, self.write)

    def add_cases(self, engine: Engine) -> None:
        """Compute the metrics of one batch's cases."""
        batch = engine.state.batch
        for output, case, person in zip(engine.state.output, _case_ids(batch), _subjects(batch), strict=True):
            pred, label = output["pred"], output["label"]
            if pred.shape != label.shape:
                raise UserError(
                    f"case {case}: prediction of shape {list(pred.shape)}, label {list(label.shape)}"
                )
            spacing = label.affine[:3, : label.ndim - 1].norm(dim=0).tolist()
            metrics = case_metrics(pred.as_tensor(), label.as_tensor(), len(self.class_names), spacing)
            who = {"case": case, **person}
            self.rows += [{**who, "class": self.class_names[c], **row} for c, row in metrics.items()]

    def write(self, engine: Engine) -> None:
        """Write both tables."""
        table = pd.DataFrame(self.rows)
        columns = ["dice", "iou", "hd95_mm", "surface_distance_mm"]
        classes = table.groupby("class", sort=False)
        summary = classes[columns].mean().join(classes[columns].std().add_suffix("_std"))
        summary["cases"] = classes["dice"].count()
        missing = table["hd95_mm"].isna() & table["dice"].notna()
        summary["no_distance"] = missing.groupby(table["class"], sort=False).sum()
        summary = summary.astype(float)  # the counts, too: their mean is a row like the others
        cases = table.groupby("case")[columns].mean()  # of each case's classes
        summary.loc["foreground mean", columns] = cases.mean()
        for name in columns:
            summary.loc["foreground mean", f"{name}_std"] = cases[name].std()
        summary.loc["foreground mean", "cases"] = len(cases)
        self.output_dir.mkdir(parents=True, exist_ok=True)
        for name, frame, index in (("evaluation", table, False), ("evaluation_summary", summary, True)):
            with replacing(self.output_dir / f"{name}.csv") as draft:
                frame.to_csv(draft, index=index, float_format="%.5g")
        for name in columns:
            engine.state.metrics[f"mean_{name}"] = float(summary.loc["foreground mean", name])
        logger.info(
            "evaluation of %d cases\n%s", table["case"].nunique(), summary.to_string(float_format="%.3f")
        )


def _case_ids(batch: Any) -> list[str]:
    """Ids of a batch, which MONAI's evaluator decollates to a list of cases."""
    return [item["id"] for item in batch] if isinstance(batch, list) else list(batch["id"])


def _subjects(batch: Any) -> list[dict[str, str]]:
    """The subject of each case of a batch, {} where unknown."""
    if isinstance(batch, list):
        return [{"subject": str(item["subject"])} if "subject" in item else {} for item in batch]
    known = batch.get("subject")
    return [{} for _ in batch["id"]] if known is None else [{"subject": str(name)} for name in known]

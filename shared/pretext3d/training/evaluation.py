"""Segmentation quality per case and class, in the label's own grid and in millimetres.

A case is a volume, an image or a single slice. Slices that were taken from a volume are put together, as at
inference, and the volume is measured once: a mean counts volumes and subjects, never slices.
"""

import logging
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from ignite.engine import Engine, Events
from monai.data import MetaTensor
from monai.metrics import (
    compute_average_surface_distance,
    compute_dice,
    compute_hausdorff_distance,
    compute_iou,
)
from monai.networks.utils import one_hot

from pretext3d.annotations import Shaped, Tensor
from pretext3d.data.slices import VolumeAssembler
from pretext3d.data.subjects import person_name, volume_of
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
    surface_distance_mm), one line per case and class, and `evaluation_summary.csv`: one line per class, the
    mean over each subject's cases and then over the subjects; and one for the foreground, from each case's
    mean over its classes. A case without a subject counts as one. Logs the summary, and puts the foreground's
    means in `engine.state.metrics`.

    Slices of a volume (see `slices.slice_cases`) are put together in RAS order; the case is the volume. Of
    every n-th slice, the volume is that of these slices alone: voxels are n slices thick, so distances
    across the slices are multiples of n times their spacing. Slices that inference leaves at 0 because their
    image is constant are 0 here, too.

    Args:
        output_dir: Folder for the two files.
        class_names: Names of all classes, the background first.
    """

    def __init__(self, output_dir: str, class_names: Sequence[str]) -> None:
        self.output_dir, self.class_names = Path(output_dir), [str(name) for name in class_names]
        self.rows: list[dict[str, Any]] = []
        self.pairs: tuple[VolumeAssembler, VolumeAssembler] = VolumeAssembler(), VolumeAssembler()

    def attach(self, engine: Engine) -> None:
        """Register with the evaluator."""
        engine.add_event_handler(Events.STARTED, self.start)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.add_cases)
        engine.add_event_handler(Events.COMPLETED, self.write)

    def start(self, engine: Engine) -> None:
        """Discard all cases."""
        self.rows.clear()
        self.pairs = VolumeAssembler(), VolumeAssembler()

    def add_cases(self, engine: Engine) -> None:
        """Compute the metrics of one batch's cases, and of the volumes whose last slice is among them."""
        for output, case in zip(engine.state.output, _cases(engine.state.batch), strict=True):
            pred, label = output["pred"], output["label"]
            if pred.shape != label.shape:
                raise UserError(
                    f"case {case['id']}: prediction of shape {list(pred.shape)}, label {list(label.shape)}"
                )
            spacing = label.affine[:3, : label.ndim - 1].norm(dim=0).tolist()
            if "volume" not in case:
                self._add(case, pred.as_tensor(), label.as_tensor(), spacing)
                continue
            planes = torch.zeros_like(pred) if case.get("constant") else pred, label
            whole = [
                assembler.add(volume_of(case), case, MetaTensor(plane, meta=dict(label.meta)))
                for assembler, plane in zip(self.pairs, planes, strict=True)
            ]
            if whole[0] is not None and whole[1] is not None:
                axis, every = int(case["slice_axis"]), int(case["slice_every"])
                taken = (None, *(slice(None, None, every if world == axis else 1) for world in range(3)))
                spacing.insert(axis, float(label.affine[:3, 2].norm()) * every)
                volumes = [torch.from_numpy(volume[taken]) for volume in whole if volume is not None]
                self._add(case, volumes[0], volumes[1], spacing)

    def _add(self, case: Mapping[str, Any], pred: Tensor, label: Tensor, spacing: Sequence[float]) -> None:
        """Add the rows of one case."""
        who = {"case": volume_of(case), **({"subject": person_name(dict(case))} if "subject" in case else {})}
        metrics = case_metrics(pred, label, len(self.class_names), spacing)
        self.rows += [{**who, "class": self.class_names[c], **row} for c, row in metrics.items()]

    def write(self, engine: Engine) -> None:
        """Write both tables."""
        incomplete = {name: len(found) for name, (_, found) in self.pairs[0].unfinished.items()}
        if incomplete:
            name, found = next(iter(incomplete.items()))
            raise UserError(
                f"evaluation: found {found} slices of {name}, and {len(incomplete)} such volumes in all; "
                "expected all slices of each volume in one process"
            )
        table = pd.DataFrame(self.rows)
        people = subjects_of(table)
        columns = ["dice", "iou", "hd95_mm", "surface_distance_mm"]
        known = table["dice"].notna()
        per_subject = table.groupby(["class", people], sort=False)[columns].mean()
        classes = per_subject.groupby("class", sort=False)
        summary = classes.mean().join(classes.std().add_suffix("_std"))
        summary["cases"] = known.groupby(table["class"], sort=False).sum()
        summary["subjects"] = classes["dice"].count()
        summary["no_distance"] = (table["hd95_mm"].isna() & known).groupby(table["class"], sort=False).sum()
        summary = summary.astype(float)  # the counts, too: their mean is a row like the others
        cases = table.groupby([people, "case"], sort=False)[columns].mean()  # of each case's classes
        means = cases.groupby(level=0).mean()  # of each subject's cases
        summary.loc["foreground mean", columns] = means.mean()
        for name in columns:
            summary.loc["foreground mean", f"{name}_std"] = means[name].std()
        summary.loc["foreground mean", ["cases", "subjects"]] = len(cases), len(means)
        self.output_dir.mkdir(parents=True, exist_ok=True)
        for name, frame, index in (("evaluation", table, False), ("evaluation_summary", summary, True)):
            with replacing(self.output_dir / f"{name}.csv") as draft:
                frame.to_csv(draft, index=index, float_format="%.5g")
        for name in columns:
            engine.state.metrics[f"mean_{name}"] = float(summary.loc["foreground mean", name])
        of = f" of {len(means)} subjects" if len(means) < len(cases) else ""
        logger.info("evaluation of %d cases%s\n%s", len(cases), of, summary.to_string(float_format="%.3f"))


def subjects_of(table: pd.DataFrame) -> pd.Series:
    """The subject of each line of an evaluation's table; the case where none is known.

    Examples:
        >>> subjects_of(pd.DataFrame({"case": ["a", "b"], "subject": ["anna", None]})).tolist()
        ['anna', 'b']
    """
    named = table["subject"] if "subject" in table else pd.Series(index=table.index, dtype=object)
    people: pd.Series = named.where(named.notna(), table["case"])
    return people.rename("subject")


def _cases(batch: Any) -> list[Mapping[str, Any]]:
    """The cases of a batch, which MONAI's evaluator decollates to a list."""
    if isinstance(batch, list):
        return batch
    keys = [key for key in ("id", "subject", "subject_scope", "source_name") if key in batch]
    return [{key: batch[key][n] for key in keys} for n in range(len(batch["id"]))]

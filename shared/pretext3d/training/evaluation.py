"""Segmentation quality per case and class, in the label's own grid and in millimetres.

A case is a volume, an image or a single slice. Slices that were taken from a volume are put together, as at
inference, and the volume is measured once: a mean counts volumes and subjects, never slices.
"""

import logging
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

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
    compute_surface_dice,
)

from pretext3d.annotations import Bool, Shaped, Tensor
from pretext3d.checking import number
from pretext3d.data.labels import LabelMap
from pretext3d.data.regions import check_sets
from pretext3d.data.slices import VolumeAssembler
from pretext3d.data.subjects import person_name, volume_of
from pretext3d.errors import UserError
from pretext3d.files import replacing
from pretext3d.ops.masks import class_masks

__all__ = ["CaseMetrics", "check_classes"]

logger = logging.getLogger(__name__)

METRICS = ("dice", "iou", "nsd", "hd95_mm", "surface_distance_mm")
COUNTS = ("cases", "subjects", "no_distance")  # of a summary
OF_ONE = {"dice": 0.0, "iou": 0.0, "nsd": 0.0}  # where only one of prediction and label has a set
WIDTH = 100  # columns of a table in the log
TOLERANCE_MM = 2.0  # of nsd: about as far apart as the outlines of an organ by two people
Name = TypeVar("Name")


def case_metrics(
    pred: Shaped[Tensor, "1 *size"],
    label: Shaped[Tensor, "1 *size"],
    members: Mapping[Name, Sequence[int]],
    spacing: Sequence[float],
    tolerance_mm: float = TOLERANCE_MM,
) -> dict[Name, dict[str, float]]:
    """Metrics of one case, a volume or a plane, for sets of classes: single ones, or regions.

    Dice; iou, intersection over union (its mean is mIoU); nsd, the normalised surface Dice, (n_p + n_l) /
    (N_p + N_l), where of the N_p voxels of the prediction's surface n_p are at most `tolerance_mm` from the
    label's, and n_l of N_l the other way round; hd95_mm, the 95th percentile of the symmetric Hausdorff
    distance; surface_distance_mm, the symmetric average surface distance. A set that neither volume has is
    NaN in all five; one that only one volume has has Dice, iou and nsd 0, distances NaN. Memory does not grow
    with the number of sets.

    Source of nsd: Nikolov et al., J Med Internet Res 2021 (23:e26151), who take the tolerance of an organ
    from the disagreement of experts. Deviates: surfaces are counted in voxels, as MONAI's are by default and
    those of the other distances, and not in mm2.

    Args:
        pred: Class indices.
        label: Class indices on the same grid.
        members: Classes of each set, by its name.
        spacing: Size of a voxel in mm along each axis of that grid.
        tolerance_mm: Distance of surfaces that counts as none. Below the length of a voxel along some axis,
            only surface voxels at the same place count along it.

    Examples:
        >>> pred, label = torch.tensor([[[0, 1, 2]]]), torch.tensor([[[0, 0, 1]]])
        >>> rows = case_metrics(pred, label, {"liver": [1], "both": [1, 2]}, (1.0, 1.0))
        >>> rows["liver"]["iou"], rows["both"]["iou"]
        (0.0, 0.5)
    """
    rows = {}
    for name, classes in members.items():
        masks = [class_masks(one, [classes], channel=0)[0] for one in (pred, label)]
        rows[name] = mask_metrics(masks[0], masks[1], spacing, tolerance_mm)
    return rows


def mask_metrics(
    pred: Bool[Tensor, "*size"],
    label: Bool[Tensor, "*size"],
    spacing: Sequence[float],
    tolerance_mm: float = TOLERANCE_MM,
) -> dict[str, float]:
    """Metrics of one mask, see `case_metrics`."""
    row = dict.fromkeys(METRICS, np.nan)
    either, both = pred | label, bool(pred.any()) and bool(label.any())
    if not both:
        return row | (OF_ONE if either.any() else {})
    box: list[slice] = []  # around both, with a margin: the metrics are the same
    for axis in range(either.ndim):
        others = [other for other in range(either.ndim) if other != axis]
        used = torch.nonzero(either.sum(dim=others)) if others else torch.nonzero(either)
        box.append(slice(max(int(used.min()) - 1, 0), int(used.max()) + 2))
    pair = {"y_pred": pred[tuple(box)][None, None].float(), "y": label[tuple(box)][None, None].float()}
    row["dice"] = float(compute_dice(**pair, include_background=True))
    row["iou"] = float(compute_iou(**pair, include_background=True))
    distance = {**pair, "include_background": True, "spacing": [float(s) for s in spacing]}
    with warnings.catch_warnings():  # MONAI passes one of its own deprecated arguments
        warnings.filterwarnings("ignore", message=".*always_return_as_numpy")
        row["nsd"] = float(compute_surface_dice(class_thresholds=[tolerance_mm], **distance))
        row["hd95_mm"] = float(compute_hausdorff_distance(percentile=95, **distance))
        row["surface_distance_mm"] = float(compute_average_surface_distance(symmetric=True, **distance))
    return row


def check_classes(cases: Mapping[str, Any], record: Mapping[str, Any]) -> None:
    """Make sure that the classes of the cases are those that a network was trained on.

    Args:
        cases: What `prepare_cases` returns.
        record: Record of the checkpoint: method, num_classes, class_names.

    Raises:
        UserError: a classification of other classes; the same classes in another order; labels of more
            classes than the network has.
    """
    found, expected = list(cases["class_names"]), list(record["class_names"])
    if record["method"] == "classification" and found != expected:
        raise UserError(
            f"class_file: found the classes {', '.join(found)}, expected those of the training: "
            f"{', '.join(expected)}"
        )
    if found != expected and sorted(found) == sorted(expected):
        raise UserError(
            f"labels: found the classes {', '.join(found)}, expected them in the order of the training: "
            f"{', '.join(expected)}"
        )
    if cases["num_classes"] > record["num_classes"]:
        raise UserError(
            f"labels: found {cases['num_classes']} classes, background included, expected at most "
            f"{record['num_classes']}, those of the training: {', '.join(expected)}"
        )


class CaseMetrics:
    """Handler of an evaluator whose output holds class indices `pred` and `label` on the label's grid.

    Writes `evaluation.csv` (case, subject where known, class, label_values, dice, iou, nsd, hd95_mm,
    surface_distance_mm), one line per case and class, or region of a network that has learned regions, and
    `evaluation_summary.csv`: one line per class, the mean over each subject's cases and then over the
    subjects; and one for the foreground, from each case's mean over its classes. A case without a subject
    counts as one. Logs the summary, and puts the foreground's means in `engine.state.metrics`.

    Regions of a network that has learned classes are measured besides, by pooling these classes, in
    `evaluation_regions.csv` and `evaluation_regions_summary.csv`.

    Slices of a volume (see `slices.slice_cases`) are put together in RAS order; the case is the volume. Of
    every n-th slice, the volume is that of these slices alone: voxels are n slices thick, so distances
    across the slices are multiples of n times their spacing. Slices that inference leaves at 0 because their
    image is constant are 0 here, too.

    Args:
        output_dir: Folder of the files.
        class_names: Names of all classes, the background first; or of the regions.
        labels: Label map of the network, in plain form; None = the classes are the label values.
        regions: Sets of label values that are measured besides; None or {} = none.
        tolerance_mm: Tolerance of `nsd`, 0 or more.

    Raises:
        UserError: regions with values that no class has, or of a network of one class; another tolerance.
    """

    def __init__(
        self,
        output_dir: str,
        class_names: Sequence[str],
        labels: Mapping[str, Any] | None = None,
        regions: Mapping[str, Sequence[int]] | None = None,
        tolerance_mm: Any = TOLERANCE_MM,
    ) -> None:
        self.output_dir = Path(output_dir)
        self.tolerance_mm = number("tolerance_mm", tolerance_mm, low=0)
        found = LabelMap(tuple(range(len(class_names)))) if labels is None else LabelMap.of(labels)
        each = zip(map(str, class_names), found.members(), strict=True)
        self.tables = {"evaluation": {name: classes for name, classes in each if classes != [0]}}
        if regions and dict(regions) != {name: list(one) for name, one in found.regions.items()}:
            check_sets(regions, () if found.merged else found.values)
            index = {value: number for number, value in enumerate(found.values)}
            pooled = {str(name): [index[v] for v in values] for name, values in regions.items()}
            self.tables["evaluation_regions"] = pooled
        self.labels = found
        self.rows: dict[str, list[dict[str, Any]]] = {name: [] for name in self.tables}
        self.pairs: tuple[VolumeAssembler, VolumeAssembler] = VolumeAssembler(), VolumeAssembler()

    def attach(self, engine: Engine) -> None:
        """Register with the evaluator."""
        engine.add_event_handler(Events.STARTED, self.start)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.add_cases)
        engine.add_event_handler(Events.COMPLETED, self.write)

    def start(self, engine: Engine) -> None:
        """Discard all cases."""
        self.rows = {name: [] for name in self.tables}
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
        for table, members in self.tables.items():
            for name, row in case_metrics(pred, label, members, spacing, self.tolerance_mm).items():
                described = self.labels.described(members[name])
                self.rows[table].append({**who, "class": name, "label_values": described, **row})

    def write(self, engine: Engine) -> None:
        """Write the tables."""
        incomplete = {name: len(found) for name, (_, found) in self.pairs[0].unfinished.items()}
        if incomplete:
            name, found = next(iter(incomplete.items()))
            raise UserError(
                f"evaluation: found {found} slices of {name}, and {len(incomplete)} such volumes in all; "
                "expected all slices of each volume in one process"
            )
        for table in reversed(self.tables):
            means = self._write_table(table)
        engine.state.metrics.update({f"mean_{name}": float(means[name]) for name in METRICS})

    def _write_table(self, file: str) -> pd.Series:
        """Write a table and its summary; the means over the foreground, or over the regions."""
        table = pd.DataFrame(self.rows[file])
        people, columns = subjects_of(table), list(METRICS)
        last = "region mean" if self.labels.regions or file != "evaluation" else "foreground mean"
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
        summary.loc[last, columns] = means.mean()
        for name in columns:
            summary.loc[last, f"{name}_std"] = means[name].std()
        lost = int(summary["no_distance"].sum())
        summary.loc[last, list(COUNTS)] = len(cases), len(means), lost
        self.output_dir.mkdir(parents=True, exist_ok=True)
        for name, frame, index in ((file, table, False), (f"{file}_summary", summary, True)):
            with replacing(self.output_dir / f"{name}.csv") as draft:
                frame.to_csv(draft, index=index, float_format="%.5g")
        of = f" of {len(means)} subjects" if len(means) < len(cases) else ""
        text = table_text(summary)
        if lost:
            text += f"\ndistances leave out the {lost} of {known.sum()} pairs of which only one has the class"
        logger.info("%s of %d cases%s\n%s", file.replace("_", " of "), len(cases), of, text)
        foreground: pd.Series = summary.loc[last]
        return foreground


def table_text(summary: pd.DataFrame) -> str:
    """A summary as text of at most `WIDTH` columns, which a terminal does not wrap.

    The mean and the standard deviation over the subjects share a column. Subjects have one where they are not
    the cases. Names of classes that do not fit are cut; the CSV file has them, and `no_distance`.

    Args:
        summary: Table with METRICS, their standard deviations and COUNTS, one line per class.

    Examples:
        >>> one = dict.fromkeys([*METRICS, *(f"{name}_std" for name in METRICS)], 0.25)
        >>> print(table_text(pd.DataFrame([{**one, "cases": 2, "subjects": 2}], index=["liver"])))
              cases         dice          iou          nsd    hd95_mm surface_mm
        liver     2  0.250±0.250  0.250±0.250  0.250±0.250  0.25±0.25  0.25±0.25
    """
    columns = ("cases", "subjects") if (summary["subjects"] != summary["cases"]).any() else ("cases",)
    shown = {name: [f"{count:.0f}" for count in summary[name]] for name in columns}
    for name in METRICS:
        pairs = zip(summary[name], summary[f"{name}_std"], strict=True)
        title, digits = name.replace("surface_distance", "surface"), 2 if name.endswith("_mm") else 3
        shown[title] = [_spread(*pair, digits) for pair in pairs]
    table = pd.DataFrame(shown, index=pd.Index([str(name) for name in summary.index]))
    over = len(table.to_string().partition("\n")[0]) - WIDTH
    longest = max(map(len, table.index)) - max(over, 0)
    table.index = pd.Index([n if len(n) <= longest else f"{n[: longest - 1]}…" for n in table.index])
    return table.to_string()


def _spread(mean: float, std: float, digits: int) -> str:
    """A mean and a standard deviation, without digits from 100 on; `-` where there is none."""
    if np.isnan(mean):
        return "-"
    digits = 0 if max(mean, np.nan_to_num(std)) >= 100 else digits
    return f"{mean:.{digits}f}" + ("" if np.isnan(std) else f"±{std:.{digits}f}")


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

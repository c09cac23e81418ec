"""From a folder to lists of cases: the single call that a bundle's configuration makes."""

import logging
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from pretext3d.data.cases import find_cases
from pretext3d.data.checks import as_channels, check_cases, of_any_size, report_bad
from pretext3d.data.classes import are_ordered, classified_cases
from pretext3d.data.datalists import declared_labels
from pretext3d.data.dataset import default_cache_dir
from pretext3d.data.declared import (
    NOTHING_DECLARED,
    allowed_values,
    choose_labels,
    declared_or_named,
    warn_missing,
)
from pretext3d.data.frames import chosen_frames, with_frames
from pretext3d.data.labels import LabelMap
from pretext3d.data.outliers import resampled, without_outliers
from pretext3d.data.slices import check_slices, slice_cases
from pretext3d.data.spacing import choose_pixdim
from pretext3d.data.splits import labelled_subset, split_cases
from pretext3d.data.subjects import by_subject, subject_count, warn_ungrouped
from pretext3d.errors import UserError

__all__ = ["inference_cases", "prepare_cases"]

logger = logging.getLogger(__name__)

Case = dict[str, Any]

WITHOUT_LABELS = "without labels take an arm that reads none, and no fraction of labelled cases"


def prepare_cases(
    dataset_dir: str | Sequence[str] | None,
    datalist: str = "",
    purpose: str = "pretraining",
    channels: int | Sequence[int] | None = None,
    pixdim: str | int | float | Sequence[int | float] | Mapping[str, int | float] | None = "fit",
    roi_size: Sequence[int] | int | None = None,
    val_fraction: int | float = 0.2,
    fold: int | None = None,
    label_fraction: int | float = 1.0,
    num_labelled: int = 0,
    seed: int = 0,
    split_seed: int = 0,
    skip_bad: bool = False,
    num_classes: int = 0,
    class_file: str = "",
    cache_dir: str = "",
    subjects: str = "",
    modalities: Sequence[str] | str | None = None,
    test_fraction: int | float = 0,
    spatial_dims: int = 3,
    slices: Mapping[str, int] | None = None,
    regions: Mapping[Any, Any] | None = None,
    regions_class_order: Any = None,
    merge_foreground: bool = False,
    labels: Mapping[str, Any] | None = None,
    frames: str | int | Sequence[int] | None = None,
    ordered_classes: Sequence[str | int] | bool | None = None,
) -> dict[str, Any]:
    """Find the cases, hold some out, leave out or refuse bad ones, determine channels, spacing and classes.

    The split depends on the subjects of all cases found, good or bad, labelled or not: with the same folders,
    `subjects`, `split_seed`, `val_fraction`, `test_fraction` and `fold`, pre-training never sees a case that
    fine-tuning holds out. Fractions and numbers of labels count subjects (see `subjects`).

    Args:
        dataset_dir: Folder or folders (see `find_cases`); '' = the embedded phantom, made once under
            `cache_dir`.
        datalist: Path of a dataset.json; '' = the folder's own; none = every volume in the folder.
        purpose: Purpose of the run: pretraining (images; bad cases are left out with a warning), guided
            (pre-training that reads labels: cases whose label is bad or missing are also left out),
            finetuning (labelled cases; a bad one is an error unless `skip_bad`) or classification (the same
            for cases with a class).
        channels: Indices of the channels to use; None = all.
        pixdim: Spacing to resample to, mm (see `choose_pixdim`).
        roi_size: Size of the crop, voxels; needed by pixdim: fit and fit_each.
        val_fraction: Part held out of the subjects that are not in the test set, in [0, 1).
        fold: Part held out (see `split_cases`); None = the seeded split.
        label_fraction: Part of the good labelled training subjects that is used, in (0, 1].
        num_labelled: Number of these subjects, each with all its volumes; 0 = by `label_fraction`.
        seed: Seed of the choice of labelled subjects.
        split_seed: Seed of the split.
        skip_bad: Leave out bad cases in fine-tuning.
        num_classes: Number of classes, background included; 0 = as in dataset.json or the label files (see
            `choose_labels`).
        class_file: Path of the cases' classes for classification (see `classified_cases`).
        cache_dir: Folder for verdicts, links and the phantom; '' = `default_cache_dir()`.
        subjects: Path of a CSV file with the columns id and subject; '' = the subjects of the datalist or of
            BIDS names, else each case is one.
        modalities: BIDS suffixes that become the channels of one case per session (see `find_cases`).
        test_fraction: Part of the subjects that neither train nor validate, in [0, 1); the same ones for
            every purpose, `val_fraction` and `fold`.
        spatial_dims: Number of spatial axes: 3 for volumes, 2 for pictures, single slices and slices of
            volumes.
        slices: Slices to take from volumes in 2D: {axis: 0, 1 or 2 (x, y, z), every: n}, every n-th one.
            They are chosen after the split and after the choice of labelled cases, so that all slices of a
            volume stay together. None: a volume is a bad case (the phantom's give their axial slices).
        regions: Sets of label values that fine-tuning learns instead of classes; None = as dataset.json says.
        regions_class_order: Label value with which each region is painted (see `regions`).
        merge_foreground: Learn all label values above 0 as one class.
        labels: Label map of a trained network, which is kept; None = that of the data.
        frames: Use of a fourth axis: first, mean, a list of indices, or channels (see
            `reader.select_frames`). None: an axis that the file calls time is a bad case, unless dataset.json
            declares several channels.
        ordered_classes: Classes of a classification in ascending order (see `classes.are_ordered`).

    Returns:
        train, val, test: lists of cases. channels: number. pixdim: [x, y, z] mm, in 2D those of the plane's
        two axes, or [] for no resampling. frames: use of a fourth axis that was made, or None.
        num_classes (the network's outputs), class_names and labels (a `LabelMap` in plain form): 0, [] and {}
        where no labels are read. ordered: whether the classes of a classification are. bad: lists [id,
        reason].

    Raises:
        UserError: Names the key or file, what was found and what was expected.
    """
    purposes = ("pretraining", "guided", "finetuning", "classification")
    if purpose not in purposes:
        raise UserError(f"purpose: found {purpose!r}, expected one of {', '.join(purposes)}")
    segmenting, labelled = purpose in ("guided", "finetuning"), purpose != "pretraining"
    skip_bad = skip_bad or purpose == "guided"
    used = as_channels(channels)
    cache = cache_dir or default_cache_dir()
    taken = check_slices(default_slices(dataset_dir, spatial_dims, slices), spatial_dims)
    dataset_dir = dataset_dir or embedded_phantom(cache)
    cache = str(Path(cache).expanduser())
    found = find_cases(
        dataset_dir,
        datalist,
        require_label=purpose == "finetuning",
        cache_dir=cache,
        spatial_dims=spatial_dims,
        subjects=subjects,
        modalities=modalities,
    )
    warn_ungrouped(found, class_file)
    split = split_cases(found, val_fraction, split_seed, fold, test_fraction)
    class_names: list[str] = []
    if purpose == "classification":
        found, class_names = classified_cases(found, class_file, ordered_classes)
    declared = declared_labels(dataset_dir, datalist) if segmenting else NOTHING_DECLARED
    known = LabelMap.of(labels) if labels else None
    allowed = allowed_values(declared, known)
    chosen = chosen_frames(frames, dataset_dir, datalist)
    checked = check_cases(
        found, used, cache, segmenting, allowed, spatial_dims=spatial_dims, slices=taken, frames=chosen
    )
    checked, used_frames = with_frames(checked, frames, chosen)
    choose = partial(choose_pixdim, pixdim, roi_size=roi_size, spatial_dims=spatial_dims)
    checked = without_outliers(checked, choose, [case["id"] for case in split.train])
    report_bad(checked, len(found), "left out" if skip_bad or not labelled else "bad")
    if labelled and checked.bad and not skip_bad:
        raise UserError(
            f"{len(checked.bad)} of {len(found)} labelled cases are bad ({listing(checked.bad)}); "
            "fix them, or leave them out with skip_bad: True"
        )
    parts = [{c["id"] for c in part} for part in split]
    train, val, test = ([c for c in checked.good if c["id"] in part] for part in parts)
    if (
        len(checked.good) < 2
        or not train
        or (val_fraction > 0 and not val)
        or (test_fraction > 0 and not test)
    ):
        kinds = zip(("training", "held-out", "test"), split, (train, val, test), strict=True)
        emptied = [(kind, part) for kind, part, left in kinds if part and not left]
        reasons = "".join(f"; all {len(part)} {kind} cases are bad" for kind, part in emptied)
        lost = {case["id"] for _, part in emptied for case in part}
        bad = [(case, reason) for case, reason in checked.bad if not lost or case["id"] in lost]
        reasons += f" ({listing(bad)})" if bad else ""
        reasons += f"; {WITHOUT_LABELS}" if purpose == "guided" else ""
        people, tests = len(by_subject(found)), f" and {len(test)} to test on" if test_fraction else ""
        of = "" if people == len(found) else f" of {people} subject{'s' * (people != 1)}"
        raise UserError(
            f"dataset_dir: {len(found)} cases{of} found in {dataset_dir}, with {len(train)} good ones to "
            f"train on and {len(val)} held out{tests}; expected at least one of each{reasons}"
        )
    if segmenting and all(checked.values[c["id"]] == [0] for c in train):
        raise UserError(
            f"dataset_dir: every voxel of the labels of all {len(train)} training cases is 0; expected some "
            "foreground"
        )
    spacing = choose([checked.shapes[c["id"]] for c in train], [checked.spacings[c["id"]] for c in train])
    learned: LabelMap | None = None
    if segmenting:
        present = {value for values in checked.values.values() for value in values}
        sets = regions if purpose == "finetuning" else {}, regions_class_order, merge_foreground
        declared = declared_or_named(declared, checked.names, present)
        learned, class_names = choose_labels(declared, present, num_classes, *sets, known)
    bare = [c["id"] for c in train if "landmark" not in c and "landmark_mask" not in c]
    if 0 < len(bare) < len(train):
        logger.warning(
            "landmark: %d of %d training cases have none (%s%s): their volume's centre is used instead",
            len(bare), len(train), ", ".join(bare[:3]), ", ..." if len(bare) > 3 else "",
        )  # fmt: skip
    available = train
    if labelled:
        stratified = purpose == "classification"
        train = labelled_subset(train, label_fraction, num_labelled, seed, stratified)
    if learned:
        warn_missing(learned, class_names, [checked.values[c["id"]] for c in train])
    logger.info(
        "%s: %s%s to train on, %s held out, %s to test on, %d bad; %d channel(s), spacing %s",
        purpose,
        subject_count(train, unit=True),
        f" of {subject_count(available)}" if len(train) < len(available) else "",
        subject_count(val),
        subject_count(test),
        len(checked.bad),
        checked.channels,
        "x".join(f"{s:g}" for s in spacing) + " mm" if spacing else "native",
    )
    train = slice_cases(train, taken, used, cache, frames=chosen)
    measured = purpose == "finetuning"
    val, test = (
        slice_cases(part, taken, used, cache, keep_labelled=measured, frames=chosen) for part in (val, test)
    )
    return {
        "train": train,
        "val": val,
        "test": test,
        "channels": checked.channels,
        "pixdim": spacing,
        "frames": used_frames,
        "num_classes": len(class_names),
        "class_names": class_names,
        "labels": learned.plain() if learned else {},
        "ordered": purpose == "classification" and are_ordered(class_names, ordered_classes),
        "bad": [[case["id"], reason] for case, reason in checked.bad],
    }


def inference_cases(
    dataset_dir: str | Sequence[str] | None,
    datalist: str = "none",
    channels: int | Sequence[int] | None = None,
    cache_dir: str = "",
    modalities: Sequence[str] | str | None = None,
    spatial_dims: int = 3,
    slices: Mapping[str, int] | None = None,
    frames: str | int | Sequence[int] | None = None,
    pixdim: Sequence[int | float] = (),
    in_channels: int | None = None,
) -> dict[str, Any]:
    """Every good volume of a folder, for a trained network; bad ones are left out with a warning.

    Args:
        dataset_dir: Folder or folders, as in `prepare_cases`.
        datalist: Datalist as in `prepare_cases`; none, the folder's own volumes, suits a folder of new scans.
        channels: Indices of the channels to use; None = all.
        cache_dir: Folder for verdicts, links and the phantom; '' = `default_cache_dir()`.
        spatial_dims: Number of spatial axes, as in `prepare_cases`.
        slices: Slices as in `prepare_cases`. Slices that are not taken, including constant ones, stay 0 in
            the volume that is assembled from the others.
        modalities: BIDS suffixes that become the channels of one case per session (see `find_cases`).
        frames: Use of a fourth axis, as in `prepare_cases`.
        pixdim: Spacing that the volumes are resampled to, mm; () = none.
        in_channels: Number of channels of the network; None: that of most cases.

    Returns:
        cases: list, each with `result_name`, a unique file name for its result; slices have the name of their
        volume, and `slice_count`, the number of its slices. channels: number. bad: lists [id, reason].

    Raises:
        UserError: If there is no good case.
    """
    cache, used = cache_dir or default_cache_dir(), as_channels(channels)
    taken = check_slices(default_slices(dataset_dir, spatial_dims, slices), spatial_dims)
    dataset_dir = dataset_dir or embedded_phantom(cache)
    cache = str(Path(cache).expanduser())
    found = find_cases(
        dataset_dir, datalist, cache_dir=cache, spatial_dims=spatial_dims, modalities=modalities
    )
    chosen = chosen_frames(frames, dataset_dir, datalist)
    checked = check_cases(
        found, used, cache, spatial_dims=spatial_dims, slices=taken, frames=chosen, in_channels=in_channels
    )
    checked, _ = with_frames(checked, frames, chosen)
    checked = resampled(checked, pixdim)
    report_bad(checked, len(found), "left out")
    if not checked.good:
        raise UserError(
            f"dataset_dir: no good case among {len(found)} in {dataset_dir} ({listing(checked.bad)})"
        )
    logger.info("inference: %d cases, %d bad", len(checked.good), len(checked.bad))
    bad = [[case["id"], reason] for case, reason in checked.bad]
    cases = slice_cases(with_result_names(checked.good), taken, used, cache, frames=chosen)
    return {"cases": cases, "channels": checked.channels, "bad": bad}


def default_slices(
    dataset_dir: str | Sequence[str] | None, spatial_dims: int, slices: Mapping[str, int] | None
) -> Mapping[str, int] | None:
    """The slices as given; by default, in 2D, the axial ones of the embedded phantom, which has volumes."""
    return {"axis": 2, "every": 1} if not dataset_dir and spatial_dims == 2 and slices is None else slices


def with_result_names(cases: Sequence[Case]) -> list[Case]:
    """The cases with `result_name`: the id with _ for /, and _2, _3, ... after a name that is taken."""
    taken: set[str] = set()
    named = []
    for case in cases:
        plain = name = case["id"].replace("/", "_")
        number = 1
        while name.casefold() in taken:  # some file systems ignore case
            number += 1
            name = f"{plain}_{number}"
        taken.add(name.casefold())
        named.append({**case, "result_name": name})
    return named


def embedded_phantom(cache: str) -> str:
    """The folder of the embedded phantom, made at its first use."""
    from pretext3d.phantom.phantom import write_phantom

    folder = str(write_phantom(Path(cache).expanduser() / "phantom"))
    logger.info("dataset_dir is not set: the embedded phantom in %s is used", folder)
    return folder


def listing(bad: Sequence[tuple[Case, str]], most: int = 5) -> str:
    """Bad cases by reason, in one line: the first reasons, and the first cases of each.

    `checks.report_bad` has logged each case in a line of its own before: the rest is there.
    """
    names: dict[str, list[str]] = {}
    for case, reason in bad:
        names.setdefault(of_any_size(reason), []).append(case["id"])
    parts = [
        f"{', '.join(ids[:3])}{f' and {len(ids) - 3} more' if len(ids) > 3 else ''}: {reason}"
        for reason, ids in names.items()
    ]
    left = sum(len(ids) for ids in [*names.values()][most:])
    more = [f"and {left} more, see the log above"] if left else []
    return "; ".join(parts[:most] + more)

"""From a folder to lists of cases: the one call that a bundle's configuration makes."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pretext3d.checking import is_number
from pretext3d.data.cases import find_cases
from pretext3d.data.checks import CheckResult, as_channels, check_cases
from pretext3d.data.classes import classified_cases
from pretext3d.data.datalists import label_names
from pretext3d.data.dataset import default_cache_dir
from pretext3d.data.splits import labelled_subset, split_cases
from pretext3d.errors import UserError

__all__ = ["choose_pixdim", "inference_cases", "prepare_cases"]

logger = logging.getLogger(__name__)

Case = dict[str, Any]

CROPS_PER_VOLUME_LENGTH = 1.5  # with pixdim: fit, a volume is about so many crops long


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
    label_hint: str = "",
) -> dict[str, Any]:
    """Find the cases, hold some out, leave out or refuse bad ones, settle channels, spacing and classes.

    The split rests on the names of all cases found, good or bad, labelled or not: with the same folders,
    `split_seed`, `val_fraction` and `fold`, pre-training never sees a case that fine-tuning holds out.

    Args:
        dataset_dir: a folder or several (see `find_cases`); '' = the embedded phantom, made once under
            `cache_dir`.
        datalist: a dataset.json; '' = the folder's own; none = every volume in the folder.
        purpose: pretraining (images, bad cases left out with a warning), guided (pre-training that reads
            labels: cases whose label is bad or missing are left out, too), finetuning (labelled cases, a bad
            one is an error unless `skip_bad`) or classification (the same for cases with a class).
        channels: indices of the channels to use; None = all.
        pixdim: the spacing to resample to, mm (see `choose_pixdim`).
        roi_size: the crop, voxels; needed by pixdim: fit and fit_each.
        val_fraction: of the cases held out, in [0, 1).
        fold: the part held out (see `split_cases`); None = the seeded split.
        label_fraction: of the good labelled training cases used where labels are, in (0, 1].
        num_labelled: so many of them; 0 = by `label_fraction`.
        seed: of the choice of labelled cases.
        split_seed: of the split.
        skip_bad: leave out bad cases in fine-tuning.
        num_classes: background included; 0 = as many as dataset.json or the label files name.
        class_file: the cases' classes for classification (see `classified_cases`).
        cache_dir: for verdicts, links and the phantom; '' = `default_cache_dir()`.
        label_hint: what to do without labels, told where guided pre-training finds too few of them.

    Returns:
        train, val: lists of cases. channels: number. pixdim: [x, y, z] mm, or [] for no resampling.
        num_classes (background included) and class_names: 0 and [] where nothing names them. bad: lists [id,
        reason].

    Raises:
        UserError: naming the key or file, what was found and what was expected.
    """
    purposes = ("pretraining", "guided", "finetuning", "classification")
    if purpose not in purposes:
        raise UserError(f"purpose: found {purpose!r}, expected one of {', '.join(purposes)}")
    segmenting, labelled = purpose in ("guided", "finetuning"), purpose != "pretraining"
    skip_bad = skip_bad or purpose == "guided"
    used = as_channels(channels)
    cache = cache_dir or default_cache_dir()
    dataset_dir = dataset_dir or embedded_phantom(cache)
    cache = str(Path(cache).expanduser())
    found = find_cases(dataset_dir, datalist, require_label=purpose == "finetuning", cache_dir=cache)
    held = {c["id"] for c in split_cases(found, val_fraction, split_seed, fold)[1]}
    class_names: list[str] = []
    if purpose == "classification":
        found, class_names = classified_cases(found, class_file)
    names = label_names(dataset_dir, datalist) if segmenting else {}
    checked = check_cases(found, used, cache, require_label=segmenting, max_label=max(names, default=0))
    report_bad(checked, len(found), "left out" if skip_bad or not labelled else "bad")
    if labelled and checked.bad and not skip_bad:
        raise UserError(
            f"{len(checked.bad)} of {len(found)} labelled cases are bad ({listing(checked)}); "
            "mend them, or leave them out by skip_bad: True"
        )
    train = [c for c in checked.good if c["id"] not in held]
    val = [c for c in checked.good if c["id"] in held]
    bad = f" ({listing(checked)})" if checked.bad else ""
    if len(checked.good) < 2 or not train or (val_fraction > 0 and not val):
        bad += f"; {label_hint}" if purpose == "guided" and label_hint else ""
        raise UserError(
            f"dataset_dir: {len(found)} cases found in {dataset_dir}, of them {len(train)} good ones to "
            f"train on and {len(val)} held out; expected at least one of each{bad}"
        )
    if segmenting and all(checked.values[c["id"]] == [0] for c in train):
        raise UserError(
            f"dataset_dir: every voxel of the labels of all {len(train)} training cases is 0; expected some "
            "foreground"
        )
    spacing = choose_pixdim(
        pixdim,
        [checked.shapes[c["id"]] for c in train],
        [checked.spacings[c["id"]] for c in train],
        roi_size,
    )
    count, class_names = (len(class_names), class_names) if class_names else classes(names, checked)
    if num_classes and segmenting:
        if num_classes < count:
            raise UserError(
                f"num_classes: found {num_classes}, expected {count} or more: {class_names}, or 0 for these"
            )
        class_names += [f"label {value}" for value in range(count, num_classes)]
        count = num_classes
    bare = [c["id"] for c in train if "landmark" not in c and "landmark_mask" not in c]
    if 0 < len(bare) < len(train):
        logger.warning(
            "landmark: %d of %d training cases have none (%s%s): their volume's centre is taken instead",
            len(bare), len(train), ", ".join(bare[:3]), ", ..." if len(bare) > 3 else "",
        )  # fmt: skip
    available = len(train)
    if labelled:
        train = labelled_subset(train, label_fraction, num_labelled, seed)
    logger.info(
        "%s: %d cases to train on%s, %d held out, %d bad; %d channel(s), spacing %s",
        purpose,
        len(train),
        f" of {available}" if len(train) < available else "",
        len(val),
        len(checked.bad),
        checked.channels,
        "x".join(f"{s:g}" for s in spacing) + " mm" if spacing else "as it is",
    )
    return {
        "train": train,
        "val": val,
        "channels": checked.channels,
        "pixdim": spacing,
        "num_classes": count,
        "class_names": class_names,
        "bad": [[case["id"], reason] for case, reason in checked.bad],
    }


def inference_cases(
    dataset_dir: str | Sequence[str] | None,
    datalist: str = "none",
    channels: int | Sequence[int] | None = None,
    cache_dir: str = "",
) -> dict[str, Any]:
    """Every good volume of a folder, for a trained network; bad ones are left out with a warning.

    Args:
        dataset_dir: as in `prepare_cases`.
        datalist: as in `prepare_cases`; none, the folder's own volumes, is what a folder of new scans needs.
        channels: indices of the channels to use; None = all.
        cache_dir: for verdicts, links and the phantom; '' = `default_cache_dir()`.

    Returns:
        cases: list, each with `result_name`, a file name of its own for what is made of it. channels: number.
        bad: lists [id, reason].

    Raises:
        UserError: no good volume.
    """
    cache = cache_dir or default_cache_dir()
    dataset_dir = dataset_dir or embedded_phantom(cache)
    cache = str(Path(cache).expanduser())
    found = find_cases(dataset_dir, datalist, cache_dir=cache)
    checked = check_cases(found, as_channels(channels), cache)
    report_bad(checked, len(found), "left out")
    if not checked.good:
        raise UserError(
            f"dataset_dir: no good volume among {len(found)} in {dataset_dir} ({listing(checked)})"
        )
    logger.info("inference: %d volumes, %d bad", len(checked.good), len(checked.bad))
    bad = [[case["id"], reason] for case, reason in checked.bad]
    return {"cases": with_result_names(checked.good), "channels": checked.channels, "bad": bad}


def with_result_names(cases: Sequence[Case]) -> list[Case]:
    """The cases with `result_name`: the id with _ for /, and _2, _3, ... behind one that is taken."""
    taken: set[str] = set()
    named = []
    for case in cases:
        plain = name = case["id"].replace("/", "_")
        number = 1
        while name.casefold() in taken:  # some disks take no notice of upper and lower case
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


def report_bad(checked: CheckResult, total: int, verb: str) -> None:
    """Log one line a bad volume, and one with their number."""
    for case, reason in checked.bad:
        logger.warning("%s: %s: %s", verb, case["id"], reason)
    if checked.bad:
        logger.warning("%s: %d of %d volumes", verb, len(checked.bad), total)


def listing(checked: CheckResult, most: int = 8) -> str:
    """The bad cases by reason, in one line: the first reasons, and of each the first cases."""
    names: dict[str, list[str]] = {}
    for case, reason in checked.bad:
        names.setdefault(reason, []).append(case["id"])
    parts = [
        f"{', '.join(ids[:3])}{f' and {len(ids) - 3} more' if len(ids) > 3 else ''}: {reason}"
        for reason, ids in names.items()
    ]
    more = [f"{len(parts) - most} more reasons"] if len(parts) > most else []
    return "; ".join(parts[:most] + more)


def classes(names: dict[int, str], checked: CheckResult) -> tuple[int, list[str]]:
    """Number of classes and their names: as dataset.json declares them, else as the label files hold them."""
    if not names and not checked.values:
        return 0, []
    largest = max(names) if names else max(v[-1] for v in checked.values.values())
    if largest < 1:
        raise UserError(f"labels: dataset.json declares {names}, expected at least one value above 0")
    return largest + 1, [names.get(i, "background" if i == 0 else f"label {i}") for i in range(largest + 1)]


def choose_pixdim(
    pixdim: str | int | float | Sequence[int | float] | Mapping[str, int | float] | None,
    shapes: Sequence[Sequence[int]],
    spacings: Sequence[Sequence[float]],
    roi_size: Sequence[int] | int | None = None,
) -> list[float]:
    """The spacing (mm along x y z) that volumes are resampled to.

    - one number or three: these;
    - native (or None): [], no resampling;
    - median: along each axis the median over the cases;
    - {fit: n}: one number for all axes, max(m, e / (n r)), rounded to 2 decimals: m is the median over the
      cases of their finest spacing, e the geometric mean over the axes of the median extent (mm), r that of
      `roi_size` (voxels). So a volume is about n crops long, and never finer than most volumes are;
    - fit: the same with n = 1.5;
    - {fit_each: n}: a number for each axis a, max(m, e_a / (n r_a)), rounded to 2 decimals, where e_a is the
      median extent and r_a the `roi_size` along it. So a volume is about n crops long along every axis.

    Args:
        pixdim: what is wanted.
        shapes: of each case, voxels along x y z.
        spacings: of each case, mm along x y z.
        roi_size: the crop, voxels.

    Raises:
        UserError: for anything else.
    """
    expected = "expected 'fit', {fit: 1.5}, {fit_each: 1.5}, 'median', 'native', one or three numbers in mm"
    if pixdim is None or pixdim == "native":
        return []
    crops, each_axis = CROPS_PER_VOLUME_LENGTH, False
    if isinstance(pixdim, Mapping):
        name, crops = next(iter(pixdim.items()), ("", 0))
        if len(pixdim) != 1 or name not in ("fit", "fit_each") or not (is_number(crops) and crops > 0):
            raise UserError(f"pixdim: found {dict(pixdim)}, {expected}")
        pixdim, each_axis = "fit", name == "fit_each"
    if isinstance(pixdim, str) and pixdim not in ("fit", "median"):
        raise UserError(f"pixdim: found {pixdim!r}, {expected}")
    if not isinstance(pixdim, str):
        given = [pixdim] * 3 if isinstance(pixdim, int | float) else list(pixdim)
        numbers = all(is_number(p) and p > 0 for p in given)
        if given and (len(given) != 3 or not numbers):
            raise UserError(f"pixdim: found {pixdim!r}, {expected}")
        return [float(p) for p in given]
    spacing = np.asarray(spacings, dtype=float)
    if pixdim == "median":
        return [round(float(s), 4) for s in np.median(spacing, axis=0)]
    crop = np.ravel(np.asarray(roi_size if roi_size is not None else [], dtype=float))
    if crop.size not in (1, 3) or not (crop > 0).all():
        raise UserError(
            f"roi_size: found {roi_size!r}, pixdim: fit needs one or three positive numbers of voxels"
        )
    extent, finest = np.median(np.asarray(shapes, dtype=float) * spacing, axis=0), spacing.min(axis=1)
    if not each_axis:
        extent, crop = (np.full(3, np.exp(np.log(lengths).mean())) for lengths in (extent, crop))
    return [round(float(value), 2) for value in np.maximum(np.median(finest), extent / (crops * crop))]

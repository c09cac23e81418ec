"""The end of a run: what each kind of training has written, and the command that continues from it."""

import os
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pretext3d
from pretext3d.data.splits import SPLIT
from pretext3d.training.arguments import LABELLED, typed
from pretext3d.training.workflow import built, bundle_root, setting

__all__ = [
    "DEVICE_PROFILES", "FILES", "OF_DATA", "WROTE", "data_keys", "fine_tuning", "judging",
    "run_command", "suggestion",
]  # fmt: skip

SHIPPED = Path(pretext3d.__file__).resolve().parent / "bundles"  # those of a wheel

# What a training writes, by the step that follows it: file names or patterns, each with a remark.
WROTE = {
    "finetune": (
        "checkpoints/best.pt (weights for fine-tuning)",
        "metrics.csv (one line per epoch)",
        "pictures",
        "config.yaml",
        "log.txt",
    ),
    "evaluate": (
        "checkpoints/best.pt (best on the held-out cases)",
        "checkpoints/final.pt (last step)",
        "metrics.csv (one line per epoch)",
        "config.yaml",
        "log.txt",
    ),
    "evaluate_classification": (
        "checkpoints/best.pt (best on the held-out cases)",
        "checkpoints/final.pt (last step)",
        "metrics.csv (one line per epoch)",
        "classification.csv (one line per held-out case)",
        "classification_summary.csv",
        "confusion_matrix.csv",
        "config.yaml",
        "log.txt",
    ),
}

# The configuration files of a step, and the key that takes this run's folder.
FILES = {
    "finetune": (("finetune.yaml",), "pretrained"),
    "finetune_classification": (("finetune_classification.yaml",), "pretrained"),
    "evaluate": (("finetune.yaml", "evaluate.yaml"), "output_dir"),
    "evaluate_classification": (
        ("finetune_classification.yaml", "evaluate_classification.yaml"),
        "output_dir",
    ),
}

DEVICE_PROFILES = (None, "paper", "laptop")  # that a machine has by default; others are named again

# What decides on the cases, what is read of each and who is held out, with defaults: fine-tuning has to have
# the same.
SAME_CASES = {
    "spatial_dims": 3, "slices": None, "channels": None, "modalities": None, "frames": None, "subjects": "",
    **SPLIT,
}  # fmt: skip

OF_DATA = ("dataset_dir", "datalist", "profile", *SAME_CASES)  # the keys that `fine_tuning` reads


def run_command(bundle: Path, files: Sequence[str]) -> str:
    """The command that runs configurations of a bundle; one that is part of the package is named.

    Args:
        bundle: Folder of the bundle.
        files: Names of files in its `configs`.

    Examples:
        >>> run_command(SHIPPED / "rotation", ["finetune.yaml"])
        'pretext3d run --bundle rotation --config_file finetune.yaml'
        >>> run_command(Path("mine"), ["finetune.yaml"])
        'python -m monai.bundle run --config_file mine/configs/finetune.yaml'
    """
    command, names = f"pretext3d run --bundle {bundle.name}", list(files)
    if bundle.parent != SHIPPED:
        command = "python -m monai.bundle run"
        names = [f"{os.path.relpath(bundle)}/configs/{name}" for name in files]
    listed = names[0] if len(names) == 1 else '"[{}]"'.format(", ".join(map(repr, names)))
    return f"{command} --config_file {listed}"


def judging(step: str) -> list[str]:
    """The command that says whether a pre-training has learned; none where there is nothing to judge.

    Args:
        step: Key of WROTE.
    """
    installed = not (SHIPPED.parents[1] / "configs").is_dir()  # else the package of an unzipped bundle
    run = shlex.quote(str(setting("output_dir", "")))
    return [f"pretext3d doctor {run}"] if step == "finetune" and installed else []


def suggestion(step: str) -> str:
    """The command of a step that continues from this run, with the same data.

    After a pre-training it is the fine-tuning that its cases allow: see `fitting`.

    Args:
        step: Key of WROTE.
    """
    run = shlex.quote(str(setting("output_dir", "")))
    if step == "finetune":
        found = built("cases") or {}
        cases = [case for part in ("train", "val") for case in found.get(part, ())]
        probed = str((setting("probe") or {}).get("class_file") or "")
        step, keys = fine_tuning(cases, {name: setting(name) for name in OF_DATA}, probed)
    else:
        names = ("profile", "dataset_dir", "datalist", "subjects", "class_file")
        keys = {name: setting(name) for name in names if setting(name)}
        if setting("profile") in DEVICE_PROFILES:
            keys.pop("profile", None)
    files, key = FILES[step]
    return f"{run_command(Path(bundle_root()), files)} --{key} {run}{typed(keys)}"


def fine_tuning(
    cases: Sequence[Mapping[str, Any]], settings: Mapping[str, Any], class_file: str = ""
) -> tuple[str, dict[str, Any]]:
    """The fine-tuning that suits the cases of a pre-training: see `fitting`; on them where they have labels.

    Args:
        cases: Cases of the pre-training.
        settings: Keys of its configuration; dataset_dir is '' on the phantom, and missing or None where the
            folder is not known, as of generated volumes.
        class_file: File of the classes that its probe has; '' = none.

    Returns:
        A key of FILES, and the keys of its configuration but for the weights; a folder that the user has to
        name is LABELLED.

    Examples:
        >>> fine_tuning([{"image": "a.nii", "label": "b.nii"}], {"dataset_dir": "hearts", "split_seed": 3})
        ('finetune', {'dataset_dir': 'hearts', 'split_seed': 3})
        >>> fine_tuning([{"image": "a.nii"}], {"dataset_dir": "heads"})
        ('finetune', {'dataset_dir': 'LABELLED_FOLDER'})
    """
    class_file, step = fitting(cases, settings.get("spatial_dims") or 3, class_file)
    data = {name: settings[name] for name in ("dataset_dir", "datalist") if settings.get(name)}
    on_phantom = settings.get("dataset_dir") == ""
    suits = step != "finetune" or any("label" in case for case in cases)
    if not on_phantom and not (suits and "dataset_dir" in data):
        data = {"dataset_dir": LABELLED}
    return step, data_keys(data, settings, class_file)


def data_keys(data: Mapping[str, Any], settings: Mapping[str, Any], class_file: str) -> dict[str, Any]:
    """The keys of a fine-tuning that has the cases held out, and the profile, of a pre-training.

    Args:
        data: Keys of the labelled data.
        settings: Keys of the pre-training's configuration, among them those of SAME_CASES.
        class_file: File of the classes; '' = none.
    """
    keys = {**data, **({"class_file": class_file} if class_file else {})}
    if settings.get("profile") not in DEVICE_PROFILES:
        keys["profile"] = settings["profile"]
    same = {name: settings.get(name) for name in SAME_CASES}
    return keys | {name: value for name, value in same.items() if value not in (None, SAME_CASES[name])}


def fitting(cases: Sequence[Mapping[str, Any]], spatial_dims: int, class_file: str) -> tuple[str, str]:
    """The file of classes and the fine-tuning that suit the cases of a pre-training.

    Classification where the probe has a file of classes, or cases have classes and no labels, or where they
    are images, neither with labels nor with classes: these seldom get masks. Otherwise segmentation.

    Args:
        cases: Cases of the pre-training.
        spatial_dims: Number of its spatial axes.
        class_file: File of the classes that its probe has; '' = none.

    Returns:
        Path of the classes (CLASSES.csv where the user has to write one, '' where none is needed), and a key
        of FILES.
    """
    if class_file:
        return class_file, "finetune_classification"
    if not cases or any("label" in case for case in cases):
        return "", "finetune"
    if any("class" in case for case in cases):
        return "", "finetune_classification"
    if spatial_dims == 2 and not any("slice" in case for case in cases):
        return "CLASSES.csv", "finetune_classification"
    return "", "finetune"

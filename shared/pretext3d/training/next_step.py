"""The end of a run: what each kind of training has written, and the command that continues from it."""

import os
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pretext3d
from pretext3d.training.arguments import typed
from pretext3d.training.workflow import built, bundle_root, setting

__all__ = [
    "DEVICE_PROFILES", "FILES", "LABELLED", "SAME_CASES", "WROTE", "fitting", "judging", "run_command",
    "suggestion",
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

LABELLED = "LABELLED_FOLDER"  # in place of a folder that is not known

# What decides on the cases and on who is held out, and the defaults: fine-tuning has to have the same.
SAME_CASES = {
    "spatial_dims": 3, "slices": None, "subjects": "", "val_fraction": 0.2, "test_fraction": 0.0,
    "fold": None, "split_seed": 0,
}  # fmt: skip


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
    labelled = False
    class_file = ""
    if step == "finetune":
        found = built("cases") or {}
        cases = [case for part in ("train", "val") for case in found.get(part, ())]
        labelled = any("label" in case for case in cases)
        probed = str((setting("probe") or {}).get("class_file") or "")
        class_file, step = fitting(cases, setting("spatial_dims", 3), probed)
    names, key = FILES[step]
    command = (
        f"{run_command(Path(bundle_root()), names)} --{key} {shlex.quote(str(setting('output_dir', '')))}"
    )
    if key == "output_dir":
        given = _given("dataset_dir", "datalist", "subjects", "class_file")
    elif step == "finetune":
        on_phantom = setting("dataset_dir") == ""  # None: nothing was read, as of generated volumes
        given = _given("dataset_dir", "datalist") if labelled else {}
        command += "" if on_phantom or labelled else f" --dataset_dir {LABELLED}"
        given |= _same_cases()
    else:
        given = _given("dataset_dir", "datalist") | ({"class_file": class_file} if class_file else {})
        given |= _same_cases()
    if setting("profile") not in DEVICE_PROFILES:
        given = {"profile": setting("profile"), **given}
    return command + typed(given)


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


def _given(*names: str) -> dict[str, Any]:
    """The values of these keys of the running configuration, where they have one."""
    return {name: setting(name) for name in names if setting(name)}


def _same_cases() -> dict[str, Any]:
    """The values of SAME_CASES that are not the defaults."""
    values = {name: setting(name, default) for name, default in SAME_CASES.items()}
    return {name: value for name, value in values.items() if value != SAME_CASES[name]}

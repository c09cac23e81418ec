"""The keys of configurations that a study file may set, and the overrides of a run from its layers."""

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pretext3d.checking import closest_hint
from pretext3d.commands.bundles import bundles_at_hand
from pretext3d.commands.compare.arms import RESERVED, SHARED
from pretext3d.commands.parser import top_key
from pretext3d.errors import UserError

if TYPE_CHECKING:
    from pretext3d.commands.compare.study.arms import StudyArm
    from pretext3d.commands.compare.study.definition import Study, StudyTask

__all__ = [
    "INHERITED", "STAGES", "TASK_DATA", "Layer", "check_keys", "finetuning", "finetuning_files", "known_keys",
    "pretraining", "steps_of",
]  # fmt: skip

Layer = Mapping[str, Any]  # overrides by key
STAGES = ("pretrain", "finetune")  # of overrides: of train.yaml, and of finetune.yaml or its classification
SPLIT_DATA = (
    "dataset_dir",
    "datalist",
    "subjects",
    "spatial_dims",
    "val_fraction",
    "test_fraction",
    "split_seed",
)
TASK_DATA = (*SPLIT_DATA, "class_file")  # keys of a task's own section
# what a task's overrides say of its images, which pre-training reads in the same way
INHERITED = frozenset({"channels", "modalities", "slices", "frames", "normalisation"})
OF_MACHINE = frozenset({"output_dir", "ckpt_dir", "resume", "bundle_root", "cache_dir"})


@cache
def known_keys(bundle: str, file: str) -> frozenset[str]:
    """The keys of a bundle's configuration."""
    import yaml

    folder = bundles_at_hand()[bundle]
    return frozenset(yaml.safe_load((folder / "configs" / file).read_text()))


def finetuning_files(study: "Study") -> dict[str, str]:
    """The configuration of the fine-tuning of each task."""
    return {name: task.kind.files[0] for name, task in study.tasks.items()}


def generates(bundle: str) -> bool:
    """Whether a bundle pre-trains on volumes that it generates, without any data."""
    return "datalist" not in known_keys(bundle, "train.yaml")


def pretraining(study: "Study", task: "StudyTask", encoder: str, arm: "StudyArm") -> dict[str, Any]:
    """The overrides of the pre-training of an arm for a task; paths as in the study file.

    Data and split are those of the task, or of its `pretrain` where that names a data set of its own.
    """
    data = {key: task.data[key] for key in SPLIT_DATA if key in task.data}
    if "dataset_dir" in task.pretrain:
        data = {"spatial_dims": task.data["spatial_dims"]}
    layers = (study.shared["pretrain"], data, task.pretrain, study.encoders[encoder]["pretrain"])
    found = merged(*layers, *arm.layers("pretrain", task.name, encoder))
    known = known_keys(arm.bundle, "train.yaml")
    without = {"dataset_dir"} if generates(arm.bundle) else set()
    return {key: value for key, value in found.items() if top_key(key) in known - without}


def finetuning(study: "Study", task: "StudyTask", encoder: str, arm: "StudyArm") -> dict[str, Any]:
    """The overrides of the fine-tuning of an arm, without the grid, labels and seed; paths as in the file."""
    layers = (study.shared["finetune"], task.data, task.overrides, study.encoders[encoder]["finetune"])
    found = merged(*layers, *arm.layers("finetune", task.name, encoder))
    known = known_keys(study.bundle, task.kind.files[0])
    return {key: value for key, value in found.items() if top_key(key) in known}


def merged(*layers: Layer) -> dict[str, Any]:
    """Overrides in one, later layers take precedence; an override of a key replaces those of its parts."""
    found: dict[str, Any] = {}
    for layer in layers:
        complete = {key for key in layer if key == top_key(key)}
        found = {key: value for key, value in found.items() if key in layer or top_key(key) not in complete}
        found |= layer
    return found


def steps_of(overrides: Layer) -> int:
    """The optimiser steps that overrides ask for: max_steps, or max_epochs of steps_per_epoch; 0 = unknown.

    Examples:
        >>> steps_of({"max_epochs": 3, "steps_per_epoch": 50}), steps_of({"max_epochs": 3})
        (150, 0)
    """
    if overrides.get("max_steps"):
        return int(overrides["max_steps"])
    return int(overrides.get("max_epochs") or 0) * int(overrides.get("steps_per_epoch") or 0)


def check_keys(study: "Study") -> None:
    """Check that every key is one of a configuration, and that it is not one that the study sets itself.

    A key of the study, of an encoder or of an arm's fine-tuning has to be in one of the configurations
    that it is for, and is left out of others: a classification has no `decoder`.

    Raises:
        UserError: names the file, the key and the closest one.
    """
    files = finetuning_files(study)
    tuned = {name: known_keys(study.bundle, file) for name, file in files.items()}
    trained = {a.name: known_keys(a.bundle, "train.yaml") for a in study.arms.values() if a.bundle}
    tuning, training = (frozenset().union(*each.values()) for each in (tuned, trained))
    named = frozenset({"learning_rate", *(["recipe"] if study.recipes != ("",) else [])})
    own_tuning = RESERVED | OF_MACHINE | set(TASK_DATA) | named | {"fold"}
    own_training = OF_MACHINE | {"pretrained", "fold"}
    data = frozenset(SPLIT_DATA)

    def check(place: str, layer: Layer, known: frozenset[str], own: frozenset[str] | set[str]) -> None:
        for key in layer:
            top = top_key(key)
            if top in own:
                if top in SHARED and top not in own_tuning:
                    why = "the study sets itself, for all arms; expected it in finetune, encoders or tasks"
                else:
                    why = "the study sets itself, from its tasks, arms, rates and seeds; expected another one"
                raise UserError(f"{study.file}: {place}::{key}: found a key that {why}")
            if top not in known:
                hint = closest_hint(top, known - own)
                raise UserError(f"{study.file}: {place}::{key}: no such key in the configuration{hint}")

    check("finetune", study.shared["finetune"], tuning, own_tuning)
    if study.shared["pretrain"] and not training:
        raise UserError(f"{study.file}: pretrain: found without an arm that has a bundle, which pre-trains")
    check("pretrain", study.shared["pretrain"], training, own_training | data)
    for name, encoder in study.encoders.items():
        check(f"encoders::{name}", encoder["finetune"], tuning, own_tuning)
        if training:
            check(f"encoders::{name}", encoder["pretrain"], training, own_training | data)
    for name, task in study.tasks.items():
        check(f"tasks::{name}::overrides", task.overrides, tuned[name], own_tuning)
        check(f"tasks::{name}::pretrain", task.pretrain, training | INHERITED, own_training)
        check(f"tasks::{name}", task.evaluation, known_keys(study.bundle, task.kind.files[1]), frozenset())
    for name, arm in study.arms.items():
        for place, layers in {"": arm.overrides, **arm.by_task}.items():
            where = f"arms::{name}" + (f"::by_task::{place}" if place else "")
            check(f"{where}::finetune", layers.get("finetune", {}), tuning, own_tuning | SHARED)
            pretrain = layers.get("pretrain", {})
            check(f"{where}::pretrain", pretrain, trained.get(name, frozenset()), own_training | data)
    check_profiles(study)
    if "recipe" in named and "recipe" not in tuning:
        raise UserError(f"{study.file}: recipes: {Path(next(iter(files.values()))).name} has no key recipe")


def check_profiles(study: "Study") -> None:
    """Refuse a study whose profile would be the machine's: paper where there is a GPU, laptop elsewhere.

    Raises:
        UserError: names the stage, the encoder and the arm without a profile.
    """
    for task in study.tasks.values():
        for encoder in task.encoders:
            for arm in study.arms_of(task.name, encoder):
                stages = {"finetune": finetuning(study, task, encoder, arm)}
                stages |= {"pretrain": pretraining(study, task, encoder, arm)} if arm.bundle else {}
                for stage, overrides in stages.items():
                    if not isinstance(overrides.get("profile"), str):
                        raise UserError(
                            f"{study.file}: {stage}::profile: found none for {arm.name} with {encoder} in "
                            f"{task.name}, expected one, as laptop: the default depends on the machine"
                        )

"""The arms of a comparison, and overrides, as they are typed; nothing heavy is imported."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from pretext3d.checking import closest_hint
from pretext3d.commands.parser import top_key
from pretext3d.errors import UserError
from pretext3d.training.arguments import read_value

__all__ = [
    "BUILT_IN", "INTENSITIES", "OF_WEIGHTS", "RESERVED", "SHARED", "check_overrides", "read_arms",
    "read_settings",
]  # fmt: skip

BUILT_IN = ("scratch", "restart")
INTENSITIES = "intensities"  # in tables of probes, the arm without a network
RESERVED = {
    "pretrained", "keep_head", "num_labelled", "label_fraction", "seed", "subset_seed", "output_dir",
    "ckpt_dir", "val_interval", "resume", "weights",
}  # fmt: skip
# what all arms have in common: data, labels, length, samples in a step
SHARED = {
    "max_epochs", "max_steps", "steps_per_epoch", "batch_size", "crops_per_volume", "dataset_dir", "datalist",
    "class_file", "ordered_classes", "subjects", "val_fraction", "test_fraction", "fold", "split_seed",
    "skip_bad", "num_classes", "regions", "regions_class_order", "merge_foreground", "profile", "profiles",
    "cases", "length",
}  # fmt: skip
OF_WEIGHTS = {"spatial_dims", "slices", "encoder", "channels", "modalities", "network_def"}
OPTIONS = (
    "task", "arms", "set", "label_fractions", "seeds", "monte_carlo", "folds", "validate_every", "jobs",
    "threads", "bundle", "report_only",
)  # fmt: skip


def check_overrides(given: Mapping[str, Any], known: Mapping[str, Any], file: str = "finetune.yaml") -> None:
    """Refuse overrides that the comparison itself sets, or that the configuration does not have."""
    for key in given:
        top = top_key(key)
        if top in RESERVED:
            raise UserError(
                f"--{key}: the comparison sets this itself, from --arms, --num_labelled and --seeds"
            )
        if top not in known:
            hint = closest_hint(top, [*known, *OPTIONS], "; did you mean --{}?")
            raise UserError(f"--{key}: no such option, and no such key in {file}{hint}")


def read_arms(words: Sequence[str]) -> dict[str, str]:
    """The arms by name, with the path behind `=` or ''; scratch first where restart needs it."""
    paths: dict[str, str] = {}
    for word in words:
        name, equals, path = word.partition("=")
        if not equals and name not in BUILT_IN:
            raise UserError(f"--arms: found {word}, expected scratch, restart or NAME=PATH of a trained run")
        if equals and not path:
            raise UserError(f"--arms: found {word}, expected the path of a trained run after =")
        if equals and (name in BUILT_IN or not re.fullmatch(r"[A-Za-z0-9][\w.+-]*", name)):
            raise UserError(f"--arms: found {word}, expected another NAME: letters, digits, _ . + -")
        if name in paths:
            raise UserError(f"--arms: found {name} twice, expected different names")
        paths[name] = path
    if "restart" in paths and "scratch" not in paths:
        paths = {"scratch": "", **paths}  # what restart starts from
    return paths


def read_settings(
    words: Sequence[Sequence[str]], known: Mapping[str, Any], file: str = "finetune.yaml"
) -> dict[str, dict[str, Any]]:
    """The overrides of single arms, by their names.

    Args:
        words: Triples of an arm, a key and a value, as typed behind --set.
        known: Keys of the configuration.
        file: Name of the configuration, for messages.

    Raises:
        UserError: an unknown key; one that all arms share; a key twice.

    Examples:
        >>> read_settings([["flat", "spatial_dims", "2"]], {"spatial_dims": 3})
        {'flat': {'spatial_dims': 2}}
    """
    found: dict[str, dict[str, Any]] = {}
    for arm, key, text in words:
        key = key.removeprefix("--")
        if top_key(key) in SHARED:
            raise UserError(
                f"--set {arm} {key}: all arms have the same data, labels and number of epochs, steps and "
                f"samples in a step; expected --{key} for all of them, or another key"
            )
        check_overrides({key: text}, known, file)
        if key in found.setdefault(arm, {}):
            raise UserError(f"--set {arm} {key}: found twice, expected one value")
        found[arm][key] = read_value(key, text)
    return found

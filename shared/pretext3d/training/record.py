"""The record in a checkpoint: what rebuilds the network and the preprocessing, and the training data.

Plain values only, so that it loads with `weights_only=True`.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from pretext3d.checking import brief
from pretext3d.data.fingerprints import fingerprints
from pretext3d.data.labels import LabelMap
from pretext3d.data.splits import SPLIT
from pretext3d.errors import UserError
from pretext3d.training.precision import use_bfloat16
from pretext3d.training.workflow import built, bundle_root, has_setting, setting

__all__ = [
    "check_data_given",
    "labelled_record",
    "output_layer",
    "pretraining_record",
    "running_output_layer",
    "split_settings",
]


def pretraining_record(
    method: str,
    train: Sequence[Mapping[str, Any]] | None = None,
    unnamed: str = "phantom",
    **more: Any,
) -> dict[str, Any]:
    """What fine-tuning needs to know about a pre-training, from the keys of the running configuration.

    They are network_def (with the submodule `backbone`), cases (what `prepare_cases` found), dataset_dir,
    channels, modalities, slices, frames, normalisation, seed and those that select the held-out cases.

    Args:
        method: Name of the method.
        train: Training cases; None = those in `cases`.
        unnamed: Name of the data where there is no dataset_dir.
        more: Further entries of the record.

    Returns:
        method, backbone (see `Backbone.record`), channels (their number), channel_indices, pixdim (mm),
        seed, precision (bf16 or fp32, of the steps), normalisation, modalities, slices and frames where
        given, split (val_fraction, test_fraction, fold and split_seed, where they are not the defaults),
        `more`, and data: the folder's name, never its path, and a fingerprint of each training case.
    """
    trained = list(setting("cases")["train"] if train is None else train)
    data = {"name": data_name(setting("dataset_dir"), unnamed), "train": distinct(trained)}
    other = {key: value for key, value in split_settings().items() if value != SPLIT[key]}
    return {"method": method, **_common(), **({"split": other} if other else {}), **more, "data": data}


def labelled_record(
    task: str,
    train: Sequence[Mapping[str, Any]] | None = None,
    pretrained: str | None = None,
    unnamed: str = "phantom",
    **more: Any,
) -> dict[str, Any]:
    """What evaluation, inference and a further training need to know about a training with labels.

    Besides the keys of `pretraining_record`, it reads crop_size and those that select the held-out cases.
    The keys in_channels, spacing, classes, class_names and labels, where present, take precedence over
    `cases`: a bundle that receives its cases from another program has no `cases`.

    Args:
        task: Name of the task, segmentation or classification; the method, for a pre-training that reads
            labels.
        train: Training cases; None = the training's data set.
        pretrained: Source of the initial weights; None = the last part of the key `pretrained`.
        unnamed: Name of the data where there is no dataset_dir.
        more: Further entries of the record.

    Returns:
        The entries of `pretraining_record`, and bundle, roi_size, num_classes, class_names, labels (a
        `LabelMap` in plain form) where the classes are not the label values themselves, split (test_fraction
        where it is not 0), freeze_encoder_epochs where it is not 0, recipe where it is not plain,
        ordered_classes where given, and in data `pretrained`.
    """
    record = {
        "method": task,
        "bundle": Path(setting("bundle_root", bundle_root())).resolve().name,
        **_common(),
        "roi_size": list(setting("crop_size")),
        "num_classes": _found("classes", "num_classes"),
        "class_names": list(_found("class_names", "class_names")),
        **_label_map(),
        "split": {key: setting(key) for key in ("val_fraction", "split_seed", "fold")},
        **more,
    }
    if setting("test_fraction"):
        record["split"]["test_fraction"] = setting("test_fraction")
        record["split"]["val"] = distinct(setting("validate#dataset#data"))  # they choose best.pt
    if setting("freeze_encoder_epochs"):
        record["freeze_encoder_epochs"] = setting("freeze_encoder_epochs")
    if has_setting("chosen_recipe") and setting("chosen_recipe").changes:
        record["recipe"] = setting("chosen_recipe").changes
    if has_setting("ordered_classes") and setting("ordered_classes") is not None:
        record["ordered_classes"] = setting("ordered_classes")
    trained: Sequence[Any] = setting("train#dataset#data") if train is None else train
    record["data"] = {
        "name": data_name(setting("dataset_dir"), unnamed),
        "train": distinct(trained),
    }
    if pretrained is not None or has_setting("pretrained"):
        named = str(setting("pretrained") or "") if pretrained is None else pretrained
        record["data"]["pretrained"] = Path(named.rstrip("/")).name
    return record


def check_data_given(dataset_dir: str | Sequence[str] | None, record: Mapping[str, Any]) -> None:
    """Refuse to measure a network on the embedded phantom where it was trained on other data.

    Args:
        dataset_dir: Folder or folders as given; '' = none, the embedded phantom.
        record: Record of the checkpoint.

    Raises:
        UserError: no folder, of a network that was trained on one; names that one.
    """
    name = (record.get("data") or {}).get("name", "phantom")
    if not dataset_dir and name != "phantom":
        raise UserError(
            f"dataset_dir: found none, but the network was trained on the folder {name}; expected "
            "--dataset_dir with that one, or with other cases of the same classes"
        )


def split_settings() -> dict[str, Any]:
    """The keys of the running configuration that choose who is held out; {} without one."""
    return {key: setting(key) for key in SPLIT if has_setting(key)}


def output_layer(decoder: str, found: Mapping[str, Any]) -> tuple[str, ...]:
    """What identifies the output layer of a segmentation: its decoder, classes or regions, and label values.

    Args:
        decoder: Name of the decoder.
        found: Record of a checkpoint, or what `prepare_cases` returns: class_names and labels.

    Examples:
        >>> output_layer("", {"class_names": ["background", "vessel"], "labels": {"values": [0, 255]}})
        ('', 'background', 'vessel', "{'values': [0, 255]}")
    """
    labels = LabelMap.of(found["labels"]) if found.get("labels") else None
    described = () if labels is None or labels.is_identity else (str(labels.plain()),)
    return (decoder, *map(str, found.get("class_names", ())), *described)


def running_output_layer(decoder: str) -> tuple[str, ...] | None:
    """`output_layer` of the running configuration; None where it has no classes."""
    if not (has_setting("class_names") or has_setting("cases")):
        return None
    return output_layer(decoder, {name: _found(name, name) for name in ("class_names", "labels")})


def check_output_layer(file: Path, record: Mapping[str, Any], here: Sequence[str] | None) -> None:
    """Refuse to keep an output layer whose outputs mean something else here.

    Args:
        file: Path of the checkpoint, for the message.
        record: Its record; one that names no classes is not checked.
        here: See `running_output_layer`.

    Raises:
        UserError: another decoder, other classes or regions, or other label values of them.
    """
    there = output_layer(str(record.get("decoder") or ""), record)
    if here is not None and record.get("class_names") and there != tuple(here):
        raise UserError(
            f"{file}: its head cannot be kept: its outputs are {brief(list(there[1:]))} of decoder "
            f"{there[0]!r}, expected {brief(list(here[1:]))} of decoder {here[0]!r}, those of this run"
        )


def _common() -> dict[str, Any]:
    """The entries that every record has."""
    backbone = getattr(setting("network_def").backbone, "record", {})
    given = {key: setting(key) for key in ("normalisation", "modalities", "slices")}
    channels = _found("in_channels", "channels")  # builds the cases, unless a bundle states their channels
    found = built("cases") or {}
    scans = has_setting("spacing") or has_setting("cases")  # else the images are generated
    given["frames"] = found.get("frames") or (setting("frames") if has_setting("frames") else None)
    return {
        "backbone": backbone,
        "channels": channels,
        "channel_indices": setting("channels"),
        "pixdim": list(_found("spacing", "pixdim")) if scans else [],
        "seed": setting("seed"),
        **_precision(),
        **{key: value for key, value in given.items() if value is not None},
    }


def _precision() -> dict[str, str]:
    """The entry `precision`: bf16 or fp32, which `auto` leaves to the device."""
    if not has_setting("precision"):
        return {}
    device = torch.device(setting("device", "cpu"))
    return {"precision": "bf16" if use_bfloat16(setting("precision"), device) else "fp32"}


def _label_map() -> dict[str, Any]:
    """The entry `labels`: the label map, where classes are not the label values 0, 1, 2, ... themselves."""
    labels = _found("labels", "labels")
    return {"labels": dict(labels)} if labels and not LabelMap.of(labels).is_identity else {}


def _found(key: str, name: str) -> Any:
    """The configuration's key, or what its `cases` found under that name."""
    return setting(key) if has_setting(key) else setting("cases")[name]


def distinct(cases: Sequence[Any]) -> list[str]:
    """The fingerprints of some cases, one per volume or image."""
    return list(dict.fromkeys(fingerprints(list(cases))))


def data_name(dataset_dir: str | Sequence[str] | None, unnamed: str = "phantom") -> str:
    """The last part of a data set's path, of several ones with `+` between; `unnamed` without one.

    Examples:
        >>> data_name("scans/heads/"), data_name("")
        ('heads', 'phantom')
        >>> data_name(["scans/heads", "scans/brains"])
        'heads+brains'
    """
    folders = [dataset_dir] if isinstance(dataset_dir, str) or not dataset_dir else dataset_dir
    return "+".join(Path(str(folder or unnamed).rstrip("/")).name for folder in folders)

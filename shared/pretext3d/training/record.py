"""The record in a checkpoint: what rebuilds the network and the preprocessing, and what was trained on.

Plain values only, so that it loads with `weights_only=True`.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pretext3d.data.splits import fingerprints
from pretext3d.training.workflow import bundle_root, running_workflow, setting

__all__ = ["labelled_record", "pretraining_record"]


def pretraining_record(
    method: str, train: Sequence[Mapping[str, Any]] | None = None, **more: Any
) -> dict[str, Any]:
    """What fine-tuning needs to know of a pre-training, from the keys of the running configuration.

    They are network_def (with the submodule `backbone`), cases (what `prepare_cases` found), dataset_dir,
    channels, modalities, slices, normalisation and seed.

    Args:
        method: Name of the method.
        train: Cases that were trained on; None = those of `cases`.
        more: Further entries of the record.

    Returns:
        method, backbone (see `Backbone.record`), channels (their number), channel_indices, modalities, slices
        (None for volumes), pixdim (mm), normalisation, seed, `more`, and data: the folder's name, never its
        path, and a fingerprint of each training case.
    """
    trained = list(setting("cases")["train"] if train is None else train)
    data = {"name": data_name(setting("dataset_dir")), "train": fingerprints(trained)}
    return {"method": method, **_common(), **more, "data": data}


def labelled_record(
    task: str,
    train: Sequence[Mapping[str, Any]] | None = None,
    pretrained: str | None = None,
    unnamed: str = "phantom",
    **more: Any,
) -> dict[str, Any]:
    """What evaluation, inference and a further training need to know of a training with labels.

    It reads, beside the keys of `pretraining_record`, crop_size and those that decide on the held-out cases.
    The keys in_channels, spacing, classes and class_names, where there are any, come before what `cases`
    found: a bundle that others give their cases to has no `cases`.

    Args:
        task: segmentation or classification; the method, for a pre-training that reads labels.
        train: Cases that were trained on; None = the training's data set.
        pretrained: Where the first weights come from; None = the last part of the key `pretrained`.
        unnamed: Name of the data where there is no dataset_dir.
        more: Further entries of the record.

    Returns:
        The entries of `pretraining_record`, and bundle, roi_size, num_classes, class_names, split,
        freeze_encoder_epochs, and `pretrained` in data.
    """
    record = {
        "method": task,
        "bundle": Path(bundle_root()).resolve().name,
        **_common(),
        "roi_size": list(setting("crop_size")),
        "num_classes": _found("classes", "num_classes"),
        "class_names": list(_found("class_names", "class_names")),
        "split": {key: setting(key) for key in ("val_fraction", "test_fraction", "split_seed", "fold")},
        "freeze_encoder_epochs": setting("freeze_encoder_epochs", 0),
        **more,
    }
    trained: Sequence[Any] = setting("train#dataset#data") if train is None else train
    named = str(setting("pretrained") or "") if pretrained is None else pretrained
    record["data"] = {
        "name": data_name(setting("dataset_dir"), unnamed),
        "train": fingerprints(list(trained)),
        "pretrained": Path(named.rstrip("/")).name,
    }
    return record


def _common() -> dict[str, Any]:
    """The entries that every record has."""
    backbone = getattr(setting("network_def").backbone, "record", {})
    return {
        "backbone": backbone,
        "channels": _found("in_channels", "channels"),
        "channel_indices": setting("channels"),
        "modalities": setting("modalities"),
        "slices": setting("slices") if backbone.get("spatial_dims") == 2 else None,
        "pixdim": list(_found("spacing", "pixdim")),
        "normalisation": setting("normalisation"),
        "seed": setting("seed"),
    }


def _found(key: str, name: str) -> Any:
    """The configuration's key, or what its `cases` found under that name."""
    workflow = running_workflow()
    return setting(key) if workflow is not None and key in workflow.parser else setting("cases")[name]


def data_name(dataset_dir: str | Sequence[str] | None, unnamed: str = "phantom") -> str:
    """The last part of a data set's path; `unnamed` without one.

    Examples:
        >>> data_name("scans/heads/"), data_name("")
        ('heads', 'phantom')
    """
    return Path(str(dataset_dir or unnamed).rstrip("/")).name

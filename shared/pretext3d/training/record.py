"""The record in a checkpoint: what rebuilds the network and the preprocessing, and what was trained on.

Plain values only, so that it loads with `weights_only=True`.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pretext3d.data.splits import fingerprints
from pretext3d.training.workflow import bundle_root, setting

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
    cases, backbone = setting("cases"), getattr(setting("network_def").backbone, "record", {})
    trained = list(cases["train"] if train is None else train)
    return {
        "method": method,
        "backbone": backbone,
        "channels": cases["channels"],
        "channel_indices": setting("channels"),
        "modalities": setting("modalities"),
        "slices": setting("slices") if backbone.get("spatial_dims") == 2 else None,
        "pixdim": cases["pixdim"],
        "normalisation": setting("normalisation"),
        "seed": setting("seed"),
        **more,
        "data": {"name": data_name(setting("dataset_dir")), "train": fingerprints(trained)},
    }


def labelled_record(
    task: str, train: Sequence[Mapping[str, Any]] | None = None, **more: Any
) -> dict[str, Any]:
    """What evaluation, inference and a further training need to know of a training with labels.

    It reads, beside the keys of `pretraining_record`, crop_size and pretrained.

    Args:
        task: segmentation or classification; the method, for a pre-training that reads labels.
        train: Cases that were trained on; None = those of `cases`.
        more: Further entries of the record.

    Returns:
        The entries of `pretraining_record`, and bundle, roi_size, num_classes, class_names, split, and in
        data the last part of `pretrained`, where the configuration has that key.
    """
    cases = setting("cases")
    record = pretraining_record(
        task,
        train=train,
        bundle=Path(bundle_root()).resolve().name,
        roi_size=list(setting("crop_size")),
        num_classes=cases["num_classes"],
        class_names=cases["class_names"],
        split=cases["split"],
        **more,
    )
    pretrained = setting("pretrained")
    if pretrained is not None:
        record["data"]["pretrained"] = Path(str(pretrained).rstrip("/")).name
    return record


def data_name(dataset_dir: str | Sequence[str] | None) -> str:
    """The last part of a data set's path; `phantom` without one.

    Examples:
        >>> data_name("scans/heads/"), data_name("")
        ('heads', 'phantom')
    """
    return Path(str(dataset_dir or "phantom").rstrip("/")).name

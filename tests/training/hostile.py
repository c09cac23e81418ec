"""Checkpoints that nobody should have to trust: a valid one, and seeded changes of its record and its zip."""

import random
import zipfile
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from pretext3d.networks.factory import build_backbone
from pretext3d.networks.segmentation import SegmentationNet
from pretext3d.training.checkpoint_io import save_checkpoint

# values that MONAI would evaluate, import or follow, and values that no entry of a record can have
CODE = (
    "$__import__('os').system('true')", "$import antigravity", "@network_def", "%config.yaml", "@##x",
    {"_target_": "os.system", "command": "true"}, ["$1 / 0"], "antigravity.x",
)  # fmt: skip
WRONG = (-1, 2.5, True, float("nan"), float("inf"), 10**30, b"x", [[[]]], {"a": {}}, torch.ones(1), "\x1b[2J")


def valid_content() -> dict[str, Any]:
    """What a fine-tuning of three classes writes, with every entry of a record."""
    backbone = build_backbone("unet", 1, (16, 16, 24))
    backbone.record["options"] = {"channels": [16, 32, 64]}
    record = {
        "method": "segmentation", "arm": "roi-grid", "bundle": "rubiks_cube", "backbone": backbone.record,
        "decoder": "", "channels": 1, "channel_indices": [0], "modalities": ["T1w"], "slices": None,
        "pixdim": [2.0, 2.0, 3.0], "normalisation": {"window": [-100, 300]}, "seed": 7,
        "roi_size": [16, 16, 24], "num_classes": 3, "class_names": ["background", "grey", "white"],
        "labels": {"values": [0, 1, 255]},
        "split": {
            "val_fraction": 0.2, "test_fraction": 0.1, "split_seed": 0, "fold": None, "val": ["0" * 16],
        },
        "freeze_encoder_epochs": 0,
        "data": {"name": "scans", "train": ["f" * 16], "pretrained": "vp"},
    }  # fmt: skip
    network = SegmentationNet(backbone, 3)
    content = {"record": record, "network": network.state_dict(), "epoch": 1}
    return {**content, "best_metric": 0.5, "best_epoch": 1}


def places(record: dict[str, Any]) -> list[tuple[str, ...]]:
    """The path of every entry of a record that has one value."""
    found: list[tuple[str, ...]] = []
    for key, value in record.items():
        if isinstance(value, dict) and key in ("backbone", "split", "data"):
            found += [(key, *path) for path in places(value)]
        else:
            found.append((key,))
    return found


def hostile_records(seed: int = 0, per_place: int = 4) -> Iterator[tuple[str, dict[str, Any]]]:
    """Records with one wrong value each, and the name of the entry that has it."""
    draw, valid = random.Random(seed), valid_content()["record"]
    texts = {"bundle", "data.name", "data.pretrained"}  # names of folders: any text, and read as text alone
    for path in places(valid):
        name = ".".join(path)
        values = [value for value in (*CODE, *WRONG) if name not in texts or not isinstance(value, str)]
        if name in ("backbone.encoder", "method", "arm"):  # a class's name is refused where it is imported
            values.remove("antigravity.x")
        if name == "split.split_seed":
            values.remove(-1)
        for value in draw.sample(values, per_place):
            record = deepcopy(valid)
            node = record
            for key in path[:-1]:
                node = node[key]
            node[path[-1]] = value
            yield name, record


def compressed(path: Path, megabytes: int = 64) -> Path:
    """A checkpoint whose zip is small because its members are compressed."""
    content = {"record": {}, "network": {"weight": torch.zeros(megabytes * 2**18)}}
    save_checkpoint(path.with_suffix(".stored"), content)
    with (
        zipfile.ZipFile(path.with_suffix(".stored")) as source,
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as target,
    ):
        for member in source.infolist():
            target.writestr(member.filename, source.read(member))
    path.with_suffix(".stored").unlink()
    return path


def overlapping(path: Path, copies: int = 50) -> Path:
    """A checkpoint whose zip lists one member many times: together they are larger than the file."""
    save_checkpoint(path, {"record": {}, "network": {"weight": torch.zeros(2**14)}})
    with zipfile.ZipFile(path, "a") as archive:
        large = max(archive.infolist(), key=lambda member: member.file_size)
        for _ in range(copies):
            archive.filelist.append(large)
        archive._didModify = True  # type: ignore[attr-defined]  # the list is written when it closes
    return path

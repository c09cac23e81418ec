"""What a finetune.yaml leaves behind, and the bundle that is promoted from it, without training."""

from pathlib import Path
from typing import Any

import yaml
from pretext3d.commands.promote import options
from pretext3d.networks.factory import build_backbone
from pretext3d.networks.segmentation import SegmentationNet
from pretext3d.training.checkpoint_io import save_checkpoint

from tests.labelled import CLASSES

ROOT = Path(__file__).resolve().parents[1]
LICENCE = ["--licence", "CC BY 4.0"]


def finished_run(
    folder: Path, bundle: str = "rubiks_cube", encoder: str = "unet", decoder: str = "", **record: Any
) -> Path:
    """What a finetune.yaml leaves behind, without training: three classes, one epoch of four steps."""
    backbone = build_backbone(encoder, 1, (16, 16, 24))
    network = SegmentationNet(backbone, record.get("num_classes", len(CLASSES)), decoder)
    content = {
        "record": {
            "method": "segmentation", "bundle": bundle, "backbone": backbone.record,
            "channels": 1, "channel_indices": None, "pixdim": [2.0, 2.0, 3.0],
            "split": {"val_fraction": 0.2, "split_seed": 0, "fold": None},
            "normalisation": {"window": [-100, 300]}, "seed": 7, "roi_size": [16, 16, 24], "decoder": decoder,
            "num_classes": 3, "class_names": CLASSES,
            "data": {"name": "scans", "train": ["0123456789abcdef"], "pretrained": "vp"}, **record,
        },
        "network": network.state_dict(), "epoch": 1, "best_metric": 0.5, "best_epoch": 1,
    }  # fmt: skip
    save_checkpoint(folder / "checkpoints" / "final.pt", content)
    (folder / "metrics.csv").write_text("epoch,step,val_mean_dice\n1,4,0.5\n")
    config = yaml.safe_load((ROOT / "bundles" / bundle / "configs" / "finetune.yaml").read_text())
    config |= {"profile": "laptop", "dataset_dir": str(folder), "output_dir": str(folder)}
    config |= {"normalisation": {"window": [-100, 300]}, "batch_size": 3, "num_labelled": 2}
    config["optimizer"]["lr"] = 0.25
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    return folder


def promoted(folder: Path) -> Path:
    """The bundle `two_sides` of a finished run."""
    run = finished_run(folder / "run")
    words = ["--name", "two_sides", "--labels", "Left", "Right", *LICENCE, "--output_dir", str(folder)]
    options.main([str(run), *words])
    return folder / "two_sides"

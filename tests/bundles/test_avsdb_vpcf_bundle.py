"""AVS-DB's second target and its transformer profile, through the real command line."""

from pathlib import Path

import pytest
import torch
from pretext3d.__main__ import main

from tests.bundles.command import BUNDLES, FINETUNE, TINY, fail, history, succeed

pytestmark = pytest.mark.slow

BUNDLE = "avsdb"
VPCF = {**TINY, "target": "vpcf", "val_items": 4}


def weights(folder: Path) -> dict:
    return torch.load(folder / "checkpoints" / "final.pt", weights_only=True)


@pytest.fixture(scope="module")
def fractals(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("vpcf") / "run"
    succeed("train", bundle=BUNDLE, output_dir=folder, **VPCF)
    return folder


def test_a_run_measures_the_accuracy_and_draws(fractals: Path) -> None:
    rows = history(fractals)
    assert {"train_loss", "val_loss", "fractal_accuracy"} <= set(rows[-1])
    assert 0 <= float(rows[-1]["fractal_accuracy"]) <= 1
    assert float(rows[-1]["chance"]) == pytest.approx(1 / 10)
    assert "foreground_dice" not in rows[-1]
    assert len(list((fractals / "pictures").glob("*.png"))) == 4  # two items, two epochs
    content = weights(fractals)
    assert content["record"]["method"] == "vpcf"
    assert content["record"]["backbone"]["untrained"] == ["up", "merge"]
    assert content["network"]["head.weight"].shape == (10, 64)  # classes, channels of the coarsest map


def test_its_encoder_is_transferred(fractals: Path, tmp_path: Path) -> None:
    keys = {**FINETUNE, "max_epochs": 1, "num_labelled": 2}
    output = succeed("finetune", bundle=BUNDLE, pretrained=fractals, output_dir=tmp_path / "run", **keys)
    line = next(line for line in output.splitlines() if line.startswith("matched"))
    assert "backbone.down" in line
    assert "backbone.up" not in line
    assert "head" not in line


def test_a_stopped_run_continues_with_the_same_losses(fractals: Path, tmp_path: Path) -> None:
    keys = {**VPCF, "output_dir": tmp_path / "run"}
    succeed("train", bundle=BUNDLE, **{**keys, "max_epochs": 1, "lr_scheduler::steps": 6})
    succeed("train", bundle=BUNDLE, resume=True, **{**keys, "lr_scheduler::steps": 6})
    whole = tmp_path / "whole"
    succeed("train", bundle=BUNDLE, **{**keys, "output_dir": whole, "lr_scheduler::steps": 6})
    losses = [[row["train_loss"] for row in history(folder)] for folder in (tmp_path / "run", whole)]
    assert losses[0] == losses[1]


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({"target": "vpfc"}, ["target", "'vpfc'", "shapes, vpcf"]),
        ({"fractals::num_classes": 1}, ["fractals::num_classes", "1"]),
        ({"fractals::min_variance": 2}, ["fractals::min_variance", "2"]),
        ({"fractals::box": "[0.5, 1.5]"}, ["fractals::box", "1.5"]),
    ],
)
def test_mistakes_get_one_clear_message(tmp_path: Path, keys: dict, expected: list[str]) -> None:
    fail("train", *expected, bundle=BUNDLE, output_dir=tmp_path / "run", **{**VPCF, **keys})


def test_in_2d_and_in_a_preview(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    keys = {**VPCF, "spatial_dims": 2, "max_epochs": 1, "encoder": "vit_tiny"}
    succeed("train", bundle=BUNDLE, output_dir=tmp_path / "run", **keys)
    assert weights(tmp_path / "run")["record"]["backbone"]["spatial_dims"] == 2
    words = ["preview", "--bundle", str(BUNDLES / BUNDLE), "--num", "1", "--target", "vpcf"]
    picture = tmp_path / "fractal.png"
    assert main([*words, "--profile", "laptop", "--output_file", str(picture)]) == 0
    assert picture.stat().st_size > 1000


# ------------------------------------------------------------------------------------- laptop_transformer
def test_the_transformer_profile_from_shapes_to_an_evaluation(tmp_path: Path) -> None:
    """Patches of pre-training stay those of fine-tuning, whose crops have another size."""
    keys = {"profile": "laptop_transformer", "num_workers": 0, "steps_per_epoch": 2, "max_epochs": 1}
    tuned = {**keys, "pixdim": 8, "roi_size": "[48,32,32]"}
    first, second = tmp_path / "shapes", tmp_path / "tuned"
    small = {**keys, "batch_size": 2, "roi_size": "[32,32,16]"}
    succeed("train", bundle=BUNDLE, output_dir=first, val_items=2, **small)
    assert weights(first)["record"]["backbone"]["encoder"] == "vit_tiny"
    steps = weights(first)["record"]["backbone"]["options"]["steps"]
    output = succeed(
        "finetune", bundle=BUNDLE, pretrained=first, output_dir=second, num_labelled=2, batch_size=2,
        **tuned,
    )  # fmt: skip
    assert "adapted: backbone.vit.patch_embedding.position_embeddings" in output
    backbone = weights(second)["record"]["backbone"]
    assert backbone["options"]["steps"] == steps
    assert backbone["roi_size"] == [48, 32, 32]
    succeed(["finetune", "evaluate"], bundle=BUNDLE, output_dir=second, **tuned)
    assert (second / "evaluation.csv").is_file()

"""The VectorPOSE bundle through the real command line, on the phantom."""

import shutil
import sqlite3
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.bundles.command import FINETUNE, PAPER_STEP, TINY, fail, history, succeed

pytestmark = pytest.mark.slow

BUNDLE = "vectorpose"


def test_run_writes_what_it_says(trained: Path) -> None:
    names = {p.name for p in trained.iterdir()}
    assert {"config.yaml", "log.txt", "metrics.csv", "checkpoints", "pictures"} <= names
    assert {p.name for p in (trained / "checkpoints").iterdir()} == {
        "epoch_0001.pt", "epoch_0002.pt", "best.pt", "final.pt"
    }  # fmt: skip
    rows = history(trained)
    assert [row["epoch"] for row in rows] == ["1", "2"]
    for name in (
        "vector_error_mm",
        "angular_error_degrees",
        "scale_error_percent",
        "voxel_l1",
        "boundary_l1",
    ):
        assert np.isfinite(float(rows[-1][name]))


def test_finished_run_is_not_overwritten(trained: Path) -> None:
    fail("train", "--resume True", output_dir=trained, **TINY)


def test_truncated_checkpoint_falls_back(trained: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(trained, tmp_path / "copy")
    newest = copy / "checkpoints" / "epoch_0002.pt"
    newest.write_bytes(newest.read_bytes()[: newest.stat().st_size // 2])
    output = succeed("train", output_dir=copy, resume=True, **TINY)
    assert "epoch_0002.pt" in output
    assert [row["epoch"] for row in history(copy)] == ["1", "2"]


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({"max_epoch": 3}, ["max_epoch", "--max_epochs"]),
        ({"optimizer__learning_rate": 3}, ["optimizer::learning_rate", "optimizer::lr"]),
        ({"batch_size": 0}, ["batch_size", "0"]),
        ({"encoder": "unnet"}, ["unnet", "unet"]),
        ({"roi_size": 18, "encoder": "unet4"}, ["roi_size", "18"]),
        ({"roi_size": "[16,16]"}, ["roi_size", "[16, 16]"]),
        ({"normalisation": "{'window': [9, 1]}"}, ["normalisation", "ascending"]),
        ({"dataset_dir": "does/not/exist"}, ["does/not/exist"]),
        ({"profile": "lapdog"}, ["profile", "lapdog", "laptop"]),
        ({"channels": "[4]"}, ["channels"]),
        ({"noising": "loud"}, ["loud"]),
        ({"precision": "int4"}, ["precision", "int4"]),
        ({"boundary": "false"}, ["boundary", "True or False"]),
        ({"boundary_weight": -3}, ["boundary_weight", "-3"]),
        ({"val_crops": 0}, ["val_crops", "0"]),
    ],
)
def test_mistakes_get_one_clear_message(tmp_path: Path, keys: dict, expected: list[str]) -> None:
    fail("train", *expected, output_dir=tmp_path / "run", **{**TINY, **keys})


def test_empty_folder_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    fail("train", "empty", output_dir=tmp_path / "run", dataset_dir=tmp_path / "empty", **TINY)


def test_checkpoint_of_another_architecture_is_refused(trained: Path, tmp_path: Path) -> None:
    keys = {**FINETUNE, "encoder": "resnet10", "roi_size": 32}
    fail("finetune", "resnet10", "unet", output_dir=tmp_path / "run", pretrained=trained, **keys)


def test_foreign_checkpoint_is_refused(tmp_path: Path) -> None:
    torch.save({"weights": torch.zeros(3)}, tmp_path / "other.pt")
    fail("finetune", "other.pt", output_dir=tmp_path / "run", pretrained=tmp_path / "other.pt", **FINETUNE)


def test_paper_profile_takes_a_step_on_cpu(tmp_path: Path) -> None:
    succeed("train", output_dir=tmp_path / "run", **{**PAPER_STEP, "roi_size": 64})
    record = torch.load(tmp_path / "run" / "checkpoints" / "final.pt", weights_only=True)["record"]
    assert record["backbone"]["encoder"] == "resnet50"


@pytest.mark.real_data
def test_wild_volumes_train_and_the_bad_ones_are_listed(real_data: Path, tmp_path: Path) -> None:
    output = succeed(
        "train", dataset_dir=real_data / "wild" / "imagesTr", output_dir=tmp_path / "run", channels="[0]",
        **{**TINY, "max_epochs": 1},
    )  # fmt: skip
    for name, reason in (
        ("spine_tsnr_NaN", "NaN"),
        ("spine_mtr_minusInf", "inf"),
        ("spine_venc_2d_plus_dir", "slice"),
    ):
        assert any(name in line and reason in line for line in output.splitlines()), name


def test_tracking_by_mlflow(tmp_path: Path) -> None:
    succeed("train", output_dir=tmp_path / "run", tracking="mlflow", **{**TINY, "max_epochs": 1})
    with sqlite3.connect(tmp_path / "run" / "mlruns.db") as store:
        names = {name for (name,) in store.execute("select key from latest_metrics")}
        params = dict(store.execute("select key, value from params"))
    assert {"train_loss", "val_loss", "vector_error_mm", "relative_vector_error"} <= names
    assert params["profile"] == "laptop"
    assert params["batch_size"] == "2"
    assert params["record.backbone.encoder"] == "unet"
    assert len(list((tmp_path / "run" / "mlruns").rglob("pictures/epoch_0001_*.png"))) == 2

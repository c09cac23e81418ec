"""The VectorPOSE bundle through the real command line, on the phantom."""

import csv
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.bundle import ConfigWorkflow

from tests.bundles.command import BUNDLE, ROOT, TINY, arguments, environment, fail, succeed

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of 2 epochs of 3 steps."""
    folder = tmp_path_factory.mktemp("trained") / "run"
    succeed("train", output_dir=folder, **TINY)
    return folder


@pytest.fixture(scope="module")
def finetuned(trained: Path) -> Path:
    folder = trained.parent / "finetuned"
    output = succeed(
        "finetune", output_dir=folder, pretrained=trained, num_labelled=3, val_fraction=0.1, **FINETUNE
    )
    assert "matched" in output
    return folder


FINETUNE = {key: value for key, value in TINY.items() if key != "encoder"}


def history(folder: Path) -> list[dict[str, str]]:
    with (folder / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


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


def test_checkpoint_is_plain_and_tells_what_it_is(trained: Path) -> None:
    content = torch.load(trained / "checkpoints" / "best.pt", weights_only=True)
    assert content["record"]["method"] == "vectorpose"
    assert content["record"]["backbone"]["encoder"] == "unet"
    assert any(key.startswith("backbone.") for key in content["network"])


def test_finished_run_is_not_overwritten(trained: Path) -> None:
    fail("train", "--resume True", output_dir=trained, **TINY)


def test_killed_and_resumed_equals_never_killed(tmp_path: Path) -> None:
    keys = {**TINY, "max_epochs": 4, "steps_per_epoch": 6, "num_workers": 1}
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    succeed("train", output_dir=whole, **keys)
    process = subprocess.Popen(
        [sys.executable, *arguments("train", output_dir=killed, **keys)],
        cwd=ROOT, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    deadline = time.monotonic() + 240
    while not (killed / "checkpoints" / "epoch_0002.pt").exists() and time.monotonic() < deadline:
        assert process.poll() is None, "the run ended before it could be killed"
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (killed / "checkpoints" / "final.pt").exists()
    succeed("train", output_dir=killed, resume=True, **keys)
    a = torch.load(whole / "checkpoints" / "final.pt", weights_only=True)["network"]
    b = torch.load(killed / "checkpoints" / "final.pt", weights_only=True)["network"]
    assert a.keys() == b.keys()
    for name in a:
        assert torch.equal(a[name], b[name]), name
    assert [r["train_loss"] for r in history(whole)] == [r["train_loss"] for r in history(killed)]
    assert [r["val_loss"] for r in history(whole)] == [r["val_loss"] for r in history(killed)]


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


def test_finetune_then_evaluate(finetuned: Path) -> None:
    succeed(["finetune", "evaluate"], output_dir=finetuned, val_fraction=0.1, **FINETUNE)
    with (finetuned / "evaluation.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {"case", "class", "dice", "hd95_mm", "surface_distance_mm"} <= set(rows[0])
    assert all(0 <= float(row["dice"]) <= 1 for row in rows)


def test_inference_keeps_the_geometry(finetuned: Path, tmp_path: Path) -> None:
    scans = tmp_path / "scans"
    scans.mkdir()
    affine = np.array([[-2.0, 0.3, 0, 9], [0.3, 2.0, 0, 1], [0, 0, 5.0, 4], [0, 0, 0, 1]])  # oblique, not RAS
    volume = np.random.default_rng(0).random((30, 28, 21)).astype(np.float32)
    nib.save(nib.Nifti1Image(volume, affine), scans / "a.nii.gz")
    succeed("inference", dataset_dir=scans, pretrained=finetuned, output_dir=tmp_path / "out")
    result = nib.load(tmp_path / "out" / "a_seg.nii.gz")
    assert result.shape == volume.shape
    np.testing.assert_allclose(result.affine, affine, atol=1e-4)
    assert result.get_data_dtype() == np.uint8


def test_from_another_folder_and_from_inside(tmp_path: Path) -> None:
    keys = {**TINY, "max_epochs": 1}
    succeed("train", cwd=tmp_path, output_dir="here", **keys)
    assert (tmp_path / "here" / "checkpoints" / "final.pt").exists()
    succeed("./configs/train.yaml", cwd=BUNDLE, output_dir=tmp_path / "inside", **keys)


def test_config_workflow_has_every_property(finetuned: Path, tmp_path: Path) -> None:
    for name, kind in (("train", "train"), ("finetune", "train"), ("inference", "infer")):
        keys = {"pretrained": str(finetuned)} if name == "inference" else {"profile": "laptop"}
        workflow = ConfigWorkflow(
            config_file=str(BUNDLE / "configs" / f"{name}.yaml"),
            workflow_type=kind,
            logging_file=False,
            output_dir=str(tmp_path / name),
            **keys,
        )
        workflow.initialize()
        assert not workflow.check_properties(), name


def test_two_processes(tmp_path: Path) -> None:
    config = arguments(
        ["train", "multi_gpu_train"], output_dir=tmp_path / "run", device="cpu", **{**TINY, "max_epochs": 1}
    )
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--nproc_per_node",
        "2",
        "--standalone",
        *config,
    ]
    done = subprocess.run(
        command, cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]
    content = torch.load(tmp_path / "run" / "checkpoints" / "final.pt", weights_only=True)
    assert not any(key.startswith("module.") for key in content["network"])


def test_paper_profile_takes_a_step_on_cpu(tmp_path: Path) -> None:
    keys = {
        "profile": "paper",
        "batch_size": 1,
        "max_epochs": 1,
        "steps_per_epoch": 1,
        "val_crops": 1,
        "num_workers": 0,
    }
    succeed("train", output_dir=tmp_path / "run", timeout=600, val_fraction=0.05, **keys)
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
    assert {"train_loss", "val_loss", "vector_error_mm", "relative_vector_error"} <= names

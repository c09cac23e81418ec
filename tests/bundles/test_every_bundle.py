"""What every bundle promises, through the real command line, on the phantom.

What differs between bundles is tested with each of them: its training, its transfer to a fine-tuning, its
properties, and that several processes get a gradient for every parameter. What is common to all, since they
have it from the same template, is tested with one that trains a decoder and one that does not.
"""

import csv
import signal
import subprocess
import sys
import time
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.bundle import ConfigWorkflow
from pretext3d.training.checkpoint_io import load_checkpoint, save_checkpoint
from pretext3d.training.precision import use_bfloat16
from pretext3d.training.pretrained import load_segmentation

from tests.bundles.command import BUNDLES, FINETUNE, QUICK, ROOT, arguments, environment, history, succeed
from tests.bundles.conftest import trained_once

pytestmark = pytest.mark.slow

NAMES = sorted(path.parents[1].name for path in BUNDLES.glob("*/configs/train.yaml"))
WITH_DECODER = ("avsdb", "supervoxel_inpainting", "vectorpose")
COMMON = ("relative_patch_location", "supervoxel_inpainting")  # encoder alone, encoder and decoder
common = pytest.mark.parametrize("bundle", COMMON, indirect=True, scope="module")


@pytest.fixture(scope="module", params=NAMES)
def bundle(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def trained(bundle: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained_once(bundle, tmp_path_factory)


@pytest.fixture(scope="module")
def finetuned(bundle: str, trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fine-tuning from it, to which the encoder is transferred and, where it was trained, the decoder."""
    folder = tmp_path_factory.mktemp("finetuned") / "run"
    output = succeed(
        "finetune",
        bundle=bundle,
        output_dir=folder,
        pretrained=trained,
        num_labelled=3,
        val_fraction=0.1,
        **FINETUNE,
    )
    lines = output.splitlines()
    matched, new = (next(x for x in lines if x.startswith(word)) for word in ("matched", "new "))
    assert "backbone.down" in matched
    record = torch.load(trained / "checkpoints" / "final.pt", weights_only=True)["record"]
    alone = "untrained" in record["backbone"]
    assert alone == (bundle not in WITH_DECODER)
    assert ("backbone.up" in new, "backbone.up" in matched) == (alone, not alone)
    return folder


def test_checkpoint_is_plain_and_tells_what_it_is(bundle: str, trained: Path) -> None:
    content = torch.load(trained / "checkpoints" / "best.pt", weights_only=True)
    assert content["record"]["method"] == bundle
    assert content["record"]["backbone"]["encoder"] == "unet"
    auto = use_bfloat16("auto", torch.device("cpu"))
    assert content["record"]["precision"] == ("bf16" if auto else "fp32")
    assert any(key.startswith("backbone.") for key in content["network"])


# avsdb: items that are generated, and not those of a folder
@pytest.mark.parametrize("bundle", [*COMMON, "avsdb"], indirect=True, scope="module")
def test_killed_and_resumed_equals_never_killed(bundle: str, tmp_path: Path) -> None:
    keys = {**QUICK, "max_epochs": 4, "steps_per_epoch": 6, "num_workers": 1}
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    succeed("train", bundle=bundle, output_dir=whole, **keys)
    process = subprocess.Popen(
        [sys.executable, *arguments("train", bundle=bundle, output_dir=killed, **keys)],
        cwd=ROOT, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    deadline = time.monotonic() + 240
    while not (killed / "checkpoints" / "epoch_0002.pt").exists() and time.monotonic() < deadline:
        assert process.poll() is None, "the run ended before it could be killed"
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (killed / "checkpoints" / "final.pt").exists()
    succeed("train", bundle=bundle, output_dir=killed, resume=True, **keys)
    a = torch.load(whole / "checkpoints" / "final.pt", weights_only=True)["network"]
    b = torch.load(killed / "checkpoints" / "final.pt", weights_only=True)["network"]
    assert a.keys() == b.keys()
    for name in a:
        assert torch.equal(a[name], b[name]), name
    assert [r["train_loss"] for r in history(whole)] == [r["train_loss"] for r in history(killed)]
    assert [r["val_loss"] for r in history(whole)] == [r["val_loss"] for r in history(killed)]


@common
def test_finetune_then_evaluate(bundle: str, finetuned: Path) -> None:
    # held-out cases and channels are the training's, whose keys need not be typed again
    keys = {key: value for key, value in FINETUNE.items() if key not in ("val_fraction", "channels")}
    succeed(["finetune", "evaluate"], bundle=bundle, output_dir=finetuned, **keys)
    with (finetuned / "evaluation.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {"case", "class", "dice", "iou", "hd95_mm", "surface_distance_mm"} <= set(rows[0])
    assert all(0 <= float(row["dice"]) <= 1 for row in rows)


@common
def test_inference_keeps_the_geometry(bundle: str, finetuned: Path, tmp_path: Path) -> None:
    scans = tmp_path / "scans"
    scans.mkdir()
    affine = np.array([[-2.0, 0.3, 0, 9], [0.3, 2.0, 0, 1], [0, 0, 5.0, 4], [0, 0, 0, 1]])  # oblique, not RAS
    i, j, k = np.meshgrid(*[np.linspace(0, 1, n) for n in (30, 28, 21)], indexing="ij")
    volume = np.where(i + 0.5 * j + 0.2 * k < 0.8, 0.0, np.sin(6 * i) + k).astype(np.float32)
    nib.save(nib.Nifti1Image(volume, affine), scans / "a.nii.gz")
    turned = np.diag([-1.0, 1.0, 1.0, 1.0])  # the same voxels in the same places, stored from right to left
    turned[0, 3] = volume.shape[0] - 1
    nib.save(nib.Nifti1Image(volume[::-1], affine @ turned), scans / "b.nii.gz")
    content = load_checkpoint(finetuned / "checkpoints" / "final.pt")
    # the trained head finds one class everywhere: a random one, around the mean of what it reads
    backbone = load_segmentation(str(finetuned)).backbone.eval()
    with torch.no_grad():
        mean = backbone(torch.from_numpy(volume)[None, None, 4:20, 4:20, 4:20]).mean((0, 2, 3, 4))
    head = torch.randn(content["network"]["head.weight"].shape, generator=torch.Generator().manual_seed(0))
    content["network"] |= {"head.weight": head, "head.bias": -head.flatten(1) @ mean}
    save_checkpoint(tmp_path / "final.pt", content)
    keys = {"dataset_dir": scans, "pretrained": tmp_path / "final.pt", "output_dir": tmp_path / "out"}
    succeed("inference", bundle=bundle, **keys)
    result, other = (nib.load(tmp_path / "out" / f"{name}_seg.nii.gz") for name in "ab")
    classes = np.asarray(result.dataobj)
    agreement = [
        np.mean(classes == np.asarray(other.dataobj)[step]) for step in (slice(None, None, -1), slice(None))
    ]
    assert agreement[0] > 0.99
    assert agreement[1] < 0.9
    assert result.shape == volume.shape
    np.testing.assert_allclose(result.affine, affine, atol=1e-4)
    assert result.get_data_dtype() == np.uint8


@pytest.mark.parametrize("bundle", COMMON[:1])
def test_from_another_folder_and_from_inside(bundle: str, tmp_path: Path) -> None:
    keys = {**QUICK, "max_epochs": 1}
    succeed("train", bundle=bundle, cwd=tmp_path, output_dir="here", **keys)
    assert (tmp_path / "here" / "checkpoints" / "final.pt").exists()
    succeed("./configs/train.yaml", cwd=BUNDLES / bundle, output_dir=tmp_path / "inside", **keys)


def test_config_workflow_has_every_property(bundle: str, finetuned: Path, tmp_path: Path) -> None:
    for name, kind in (("train", "train"), ("finetune", "train"), ("inference", "infer")):
        keys = {"pretrained": str(finetuned)} if name == "inference" else {"profile": "laptop"}
        workflow = ConfigWorkflow(
            config_file=str(BUNDLES / bundle / "configs" / f"{name}.yaml"),
            workflow_type=kind,
            logging_file=False,
            output_dir=str(tmp_path / name),
            **keys,
        )
        workflow.initialize()
        assert not workflow.check_properties(), name


def test_two_processes(bundle: str, tmp_path: Path) -> None:
    """Without torchrun, which `test_several_processes` starts."""
    keys = {**QUICK, "max_epochs": 1, "output_dir": tmp_path / "run", "device": "cpu"}
    succeed(["train", "multi_gpu_train"], bundle=bundle, processes=2, **keys)
    content = torch.load(tmp_path / "run" / "checkpoints" / "final.pt", weights_only=True)
    assert not any(key.startswith("module.") for key in content["network"])

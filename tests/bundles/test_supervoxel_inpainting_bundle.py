"""What is supervoxel in-painting's own, through the real command line, on the phantom."""

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
import yaml

from tests.bundles.command import BUNDLES, FINETUNE, TINY, fail, history, succeed

pytestmark = pytest.mark.slow

BUNDLE = "supervoxel_inpainting"
ONE = {**TINY, "max_epochs": 1, "steps_per_epoch": 2, "val_crops": 1}
METRICS = (
    "masked_mse",
    "tile_fill_mse",
    "mean_fill_mse",
    "relative_masked_error",
    "mse",
    "masked_psnr_db",
    "masked_ssim",
)


def record_of(folder: Path, file: str = "final.pt") -> dict:
    content = torch.load(folder / "checkpoints" / file, weights_only=True)
    return dict(content["record"])


def test_augmentation_is_of_the_training_alone_and_not_the_papers() -> None:
    config = yaml.safe_load((BUNDLES / BUNDLE / "configs" / "train.yaml").read_text())
    assert "@train#augment" in config["train"]["preprocessing"]["inpainting"]
    assert "augment" not in config["validate"]["preprocessing"]["inpainting"]
    paper, laptop = config["profiles"]["paper"], config["profiles"]["laptop"]
    assert (paper["augment_prob"], paper["flip_axes"], paper["region_weight"]) == (0, [], 0)
    assert laptop["augment_prob"] > 0


@pytest.mark.parametrize("arm", ["noroi-supervoxel", "roi-grid"])
def test_arms_that_hide_regions(arm: str, tmp_path: Path) -> None:
    output = succeed("train", bundle=BUNDLE, arm=arm, output_dir=tmp_path / "run", **ONE)
    assert ("guided: 19 subjects" if arm.startswith("roi") else "pretraining: 19 subjects") in output
    assert all(np.isfinite(float(history(tmp_path / "run")[0][name])) for name in METRICS)
    assert record_of(tmp_path / "run")["arm"] == arm
    assert len(list((tmp_path / "run" / "pictures").glob("*.png"))) == 2
    if arm == "roi-grid":
        keys = {**ONE, "max_epochs": 2, "arm": "noroi-grid"}
        fail("train", "arm is 'roi-grid'", bundle=BUNDLE, output_dir=tmp_path / "run", resume=True, **keys)


def test_restart_is_a_segmentation_that_fine_tuning_goes_on_with(tmp_path: Path) -> None:
    succeed("train", bundle=BUNDLE, arm="restart-unet", output_dir=tmp_path / "run", num_labelled=4, **ONE)
    record = record_of(tmp_path / "run")
    assert (record["method"], record["num_classes"]) == ("segmentation", 8)
    assert len(record["data"]["train"]) == 4
    keys = {**FINETUNE, "max_epochs": 1, "num_labelled": 4}
    output = succeed(
        "finetune", bundle=BUNDLE, pretrained=tmp_path / "run", keep_head=True, output_dir=tmp_path / "more",
        **keys,
    )  # fmt: skip
    matched = next(line for line in output.splitlines() if line.startswith("matched"))
    assert "head 2" in matched
    assert record_of(tmp_path / "more")["data"]["train"] == record["data"]["train"]  # the same four cases


def test_vanilla_hands_over_the_initial_weights(tmp_path: Path) -> None:
    output = succeed("train", bundle=BUNDLE, arm="vanilla-unet", output_dir=tmp_path / "run", **ONE)
    assert "no step is made" in output
    assert "checkpoints/final.pt (initial weights)" in output
    assert "best.pt" not in output
    assert [p.name for p in (tmp_path / "run" / "checkpoints").iterdir()] == ["final.pt"]
    network = torch.load(tmp_path / "run" / "checkpoints" / "final.pt", weights_only=True)["network"]
    counts = {int(value) for name, value in network.items() if name.endswith("num_batches_tracked")}
    assert counts == {0}  # no batch has been seen
    again = succeed(
        "train", bundle=BUNDLE, arm="vanilla-unet", output_dir=tmp_path / "run", resume=True, **ONE
    )
    assert "holds initial weights, which is all of this run" in again
    keys = {**FINETUNE, "max_epochs": 1, "num_labelled": 3}
    output = succeed(
        "finetune", bundle=BUNDLE, pretrained=tmp_path / "run", output_dir=tmp_path / "fine", **keys
    )
    assert "100.0% of the backbone" in output


@pytest.fixture
def scans(tmp_path: Path) -> Path:
    """Six heads of two channels: four labelled, of which one has an empty label; two without a label."""
    rng = np.random.default_rng(0)
    i, j, k = np.meshgrid(*(np.linspace(-1, 1, n) for n in (28, 32, 24)), indexing="ij")
    listed = []
    for n in range(6):
        place = rng.uniform(-0.3, 0.3, 3)
        lesion = (i - place[0]) ** 2 + (j - place[1]) ** 2 + (k - place[2]) ** 2 < 0.15
        head = (i**2 + j**2 + k**2 < 0.8).astype(np.float32)
        image = np.stack([head + 0.5 * lesion, head - 0.3 * lesion], -1) + 0.02 * rng.standard_normal(
            (28, 32, 24, 2)
        )
        item = {"image": f"imagesTr/case{n}.nii.gz"}
        if n < 4:
            item["label"] = f"labelsTr/case{n}.nii.gz"
        for key, array in (
            ("image", image.astype(np.float32)),
            ("label", (lesion * (n > 0)).astype(np.uint8)),
        ):
            if key in item:
                path = tmp_path / "scans" / item[key]
                path.parent.mkdir(parents=True, exist_ok=True)
                nib.save(nib.Nifti1Image(array, np.diag([3.0, 3.0, 4.0, 1.0])), path)
        listed.append(item)
    (tmp_path / "scans" / "dataset.json").write_text(
        json.dumps({"labels": {"0": "background", "1": "lesion"}, "training": listed})
    )
    return tmp_path / "scans"


def test_cases_that_cannot_guide_are_named(scans: Path, tmp_path: Path) -> None:
    keys = {**ONE, "dataset_dir": scans, "roi_size": "[16,16,12]"}
    output = succeed("train", bundle=BUNDLE, output_dir=tmp_path / "roi", **keys)
    for line in ("case0: no foreground", "case4: no label", "case5: no label", "guided: 3 subjects"):
        assert line in output, line
    output = succeed("train", bundle=BUNDLE, arm="noroi-supervoxel", output_dir=tmp_path / "noroi", **keys)
    assert "left out" not in output
    fail(
        "train", "none of 3 training cases can be used", "no region of 1000000 voxels or more", bundle=BUNDLE,
        min_region_voxels=1000000, output_dir=tmp_path / "none", **keys,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({"arm": "roi-supervoxels"}, ["arm", "roi-supervoxels", "roi-supervoxel", "vanilla-unet"]),
        ({"slic_backend": "opencv"}, ["backend", "opencv", "torch"]),
        ({"draw__channel": 7}, ["draw::channel", "7"]),
    ],
)
def test_mistakes_get_one_clear_message(tmp_path: Path, keys: dict, expected: list[str]) -> None:
    fail("train", *expected, bundle=BUNDLE, output_dir=tmp_path / "run", **{**ONE, **keys})


def test_paper_profile_takes_a_step_on_cpu(tmp_path: Path) -> None:
    keys = {**ONE, "profile": "paper", "batch_size": 1, "steps_per_epoch": 1, "roi_size": "[40,48,32]"}
    keys |= {"pictures": 0, "probe": None}
    succeed("train", bundle=BUNDLE, output_dir=tmp_path / "run", val_fraction=0.05, **keys)
    record = record_of(tmp_path / "run")
    assert record["backbone"]["encoder"] == "unet"
    assert record["pixdim"] == [4.0, 4.0, 4.0]

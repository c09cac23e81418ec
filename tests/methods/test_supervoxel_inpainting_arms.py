"""The arms of supervoxel in-painting: what follows from each, its transforms, the one without a step."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from ignite.engine import Engine
from monai.bundle import ConfigParser
from monai.data import MetaTensor
from monai.transforms import Compose
from pretext3d.data.dataset import describe
from pretext3d.errors import UserError
from pretext3d.methods.supervoxel_inpainting.arms import (
    ARMS,
    Untrained,
    choose_arm,
    loading,
    preprocessing,
)
from pretext3d.methods.supervoxel_inpainting.pretext import SupervoxelInpaintingNet
from pretext3d.networks.factory import build_backbone
from pretext3d.training.checkpoint_io import load_checkpoint

from tools.bundles.sync import TEMPLATE

NORMALISATION = {"percentiles": [0.5, 99.5]}
LABELS = {"values": [0, 1]}


def test_the_six_arms_of_the_paper() -> None:
    """Section 3.2: task, regions, of the foreground, untrained."""
    found = {name: tuple(choose_arm(name)[key] for key in arm._fields) for name, arm in ARMS.items()}
    assert found == {
        "roi-supervoxel": ("inpainting", "supervoxels", True, False),
        "noroi-supervoxel": ("inpainting", "supervoxels", False, False),
        "roi-grid": ("inpainting", "cuboids", True, False),
        "noroi-grid": ("inpainting", "cuboids", False, False),
        "restart-unet": ("segmentation", "cuboids", True, False),
        "vanilla-unet": ("inpainting", "cuboids", False, True),
    }


@pytest.mark.parametrize("part", [{}, {"label_fraction": 0.5}, {"num_labelled": 4}])
def test_what_follows_from_an_arm(part: dict) -> None:
    """Labels are read where regions come from them, or where only a part of the labelled cases is used."""
    follows = ("labelled", "purpose", "recorded_as", "target_keys", "segmenting", "supervoxels")

    def of(arm: str) -> tuple:
        chosen = choose_arm(arm, **part)
        return tuple(chosen[key] for key in follows)

    targets, ours = ["clean", "mask", "inside"], "supervoxel_inpainting"
    read = bool(part)
    assert of("roi-supervoxel") == (True, "guided", ours, targets, False, True)
    assert of("noroi-grid") == (read, "guided" if read else "pretraining", ours, targets, False, False)
    assert of("restart-unet") == (True, "guided", "segmentation", ["label"], True, False)


def test_an_arm_that_is_not_there() -> None:
    with pytest.raises(
        UserError, match="arm: found 'roi-supervoxels', expected one of roi-supervoxel, noroi"
    ):
        choose_arm("roi-supervoxels")


@pytest.mark.parametrize(("labelled", "pixdim"), [(True, [2.0, 2.0, 2.0]), (False, [])])
def test_a_case_is_loaded_alike(labelled: bool, pixdim: list[float]) -> None:
    steps = loading(labelled, LABELS, NORMALISATION, channels=None, pixdim=pixdim)
    names = [type(step).__name__ for step in steps]
    of_labels = ["OnImageGridd", "LabelToClassd"]
    between = [name for name in (*of_labels, "Spacingd") if name in names]
    assert between == ([*of_labels, "Spacingd"] if labelled else [])
    assert names[0] == "LoadCased"
    assert names[-1] == "CastToTyped"
    assert [step.keys for step in steps if "image" in step.keys][-1] == ("image", "label")[: 1 + labelled]
    describe(steps)  # they may stand in the cached part of a pipeline


@pytest.mark.parametrize("pixdim", [[2.0, 2.0, 3.0], []])
def test_loading_is_the_template_s(pixdim: list[float]) -> None:
    """With a label that of finetune.yaml, without one that of a pre-training, to the last argument."""
    keys = {"spatial_dims": 3, "frames": None, "channels": [0], "normalisation": NORMALISATION}
    given = (keys["channels"], pixdim, keys["spatial_dims"], keys["frames"])

    def written(name: str, entry: str, last: str, **more: object) -> list[object]:
        steps = ConfigParser(ConfigParser.load_config_file(TEMPLATE / "configs" / name))[entry]
        count = 1 + next(i for i, step in enumerate(steps) if step["_target_"].endswith(last))
        parser = ConfigParser({"load": steps[:count], **keys, **more})
        return list(parser.get_parsed_content("load"))

    labelled = written("finetune.yaml", "load", "CastToTyped", labels=LABELS, spacing=pixdim)
    assert describe(loading(True, LABELS, NORMALISATION, *given)) == describe(labelled)
    entry = "train::preprocessing::transforms"
    plain = written("train.yaml", entry, "ScaleToUnitd", cases={"pixdim": pixdim})
    own = loading(False, None, NORMALISATION, *given)
    assert type(own.pop()).__name__ == "CastToTyped"  # to float32, which these transforms give
    assert describe(own) == describe(plain)


def test_a_segmentation_has_crops_of_image_and_label() -> None:
    def unused(data: dict) -> dict:
        raise AssertionError

    pipeline = preprocessing([], [unused], "segmentation", (4, 4, 4)).set_random_state(seed=0)
    assert isinstance(pipeline, Compose)
    label = torch.zeros(1, 6, 7, 3)
    label[0, 2, 3, 1] = 1
    affine = torch.from_numpy(np.diag([1.0, 2.0, 3.0, 1.0]))
    case = {"image": MetaTensor(torch.rand(2, 6, 7, 3), affine=affine), "label": label, "id": "a"}
    crops = pipeline(case)
    assert [set(crop) for crop in crops] == [{"image", "label"}]
    assert [crop["image"].shape for crop in crops] == [(2, 4, 4, 4)]


def test_an_inpainting_keeps_what_the_loss_and_the_picture_need() -> None:
    def hide(data: dict) -> dict:
        return dict.fromkeys(("image", "clean", "mask", "inside", "crop_start", "crop_size", "draw", "id"), 0)

    assert "id" not in preprocessing([], [hide])({})
    assert len(preprocessing([], [hide])({})) == 6


def test_untrained_makes_no_step(tmp_path: Path) -> None:
    net = SupervoxelInpaintingNet(build_backbone("unet", 1, (8, 8, 8)))
    steps: list[int] = []
    engine = Engine(lambda _, batch: steps.append(batch))
    Untrained(str(tmp_path / "checkpoints"), net, {"method": "supervoxel_inpainting"}).attach(engine)
    engine.run([1, 2], max_epochs=3)
    assert steps == []
    content = load_checkpoint(tmp_path / "checkpoints" / "final.pt")
    assert content["epoch"] == 0
    assert math.isclose(float(content["network"]["head.bias"]), float(net.head.bias.detach()))

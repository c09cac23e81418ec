"""What is AVS-DB's own, through the real command line: no data at all."""

from pathlib import Path

import pytest
import torch

from tests.bundles.command import FINETUNE, PAPER_STEP, TINY, fail, history, succeed

pytestmark = pytest.mark.slow

BUNDLE = "avsdb"
SMALL = {**TINY, "val_items": 4}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("avsdb") / "run"
    succeed("train", bundle=BUNDLE, output_dir=folder, class_dice=True, **SMALL)
    return folder


def test_a_run_measures_every_class_and_draws(trained: Path) -> None:
    rows = history(trained)
    names = {"foreground_dice", "class_dice", "class_accuracy", "most_frequent_class"}
    assert names | {"dice_ellipse_prism", "dice_triangle_prism"} <= set(rows[-1])
    assert all(0 <= float(rows[-1][name]) <= 1 for name in names)
    assert len(list((trained / "pictures").glob("*.png"))) == 4
    record = torch.load(trained / "checkpoints" / "final.pt", weights_only=True)["record"]
    assert record["data"] == {"name": "generated shapes", "train": []}
    assert "normalisation" not in record


@pytest.mark.parametrize("transfer", ["all", "encoder"])
def test_encoder_and_decoder_or_the_encoder_are_transferred(
    trained: Path, tmp_path: Path, transfer: str
) -> None:
    keys = {**FINETUNE, "max_epochs": 1, "num_labelled": 3, "val_fraction": 0.1}
    keys |= {"pretrained": trained, "transfer": transfer, "normalisation": "{'window': [0, 1]}"}
    output = succeed("finetune", bundle=BUNDLE, output_dir=tmp_path / "run", **keys)
    matched = next(line for line in output.splitlines() if line.startswith("matched"))
    assert "backbone" in matched
    assert "head" not in matched
    assert ("decoder" in matched or "backbone.up" in matched) == (transfer == "all"), matched
    assert "same tissue looks different" not in output  # shapes have no window to differ from


def test_a_table_s_arms(tmp_path: Path) -> None:
    """Table 1: 4 cross-sections and 4 rules, without overlap; 17 outputs."""
    keys = {**SMALL, "max_epochs": 1, "xy_classes": 4, "z_classes": 4, "max_overlap": None}
    succeed("train", bundle=BUNDLE, output_dir=tmp_path / "run", **keys)
    network = torch.load(tmp_path / "run" / "checkpoints" / "final.pt", weights_only=True)["network"]
    assert network["head.weight"].shape[0] == 17


def test_in_2d(tmp_path: Path) -> None:
    keys = {**SMALL, "spatial_dims": 2, "max_epochs": 1, "render": "textured", "xy_classes": 8}
    succeed("train", bundle=BUNDLE, output_dir=tmp_path / "run", **keys)
    network = torch.load(tmp_path / "run" / "checkpoints" / "final.pt", weights_only=True)["network"]
    assert network["head.weight"].shape[0] == 9


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({"dataset_dir": "scans"}, ["dataset_dir: found 'scans'", "no folder; give it to finetune.yaml"]),
        ({"xy_classes": 0}, ["xy_classes", "0"]),
        ({"z_classes": "['pyramid']"}, ["z_classes", "pyramid"]),
        ({"xy_classes": 80, "z_classes": 4}, ["xy_classes", "255"]),
        ({"max_overlap": 1.5}, ["max_overlap", "1.5", "(0, 1]"]),
        ({"sizes": "{'box':[30,100]}"}, ["box", "larger than the volume"]),
        ({"roi_size": "[16,16,4]"}, ["roi_size", "4"]),
        ({"render": "solid"}, ["render", "solid"]),
        ({"cross_entropy": "no"}, ["cross_entropy: found 'no', expected True or False"]),
        ({"val_items": 0}, ["val_items: found 0", "an integer from 1"]),
        ({"steps_per_epoch": None}, ["steps_per_epoch: found None", "an integer from 1"]),
    ],
)
def test_mistakes_get_one_clear_message(tmp_path: Path, keys: dict, expected: list[str]) -> None:
    fail("train", *expected, bundle=BUNDLE, output_dir=tmp_path / "run", **{**SMALL, **keys})


def test_paper_profile_takes_a_step_on_cpu(tmp_path: Path) -> None:
    keys = {key: value for key, value in PAPER_STEP.items() if not key.startswith("val_")}
    keys |= {"val_items": 1, "roi_size": 64, "pictures": 0}
    succeed("train", bundle=BUNDLE, output_dir=tmp_path / "run", **keys)
    content = torch.load(tmp_path / "run" / "checkpoints" / "final.pt", weights_only=True)
    assert content["record"]["backbone"]["encoder"] == "swin_unetr"
    assert content["network"]["head.weight"].shape[0] == 17

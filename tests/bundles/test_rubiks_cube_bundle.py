"""What is Rubik's cube recovery's own, through the real command line, on the phantom."""

import csv
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.bundles.command import FINETUNE, PAPER_STEP, QUICK, TINY, fail, history, succeed

pytestmark = pytest.mark.slow

BUNDLE = "rubiks_cube"


def test_a_run_measures_both_tasks(trained: Path) -> None:
    rows = history(trained)
    assert all(0 <= float(rows[-1][name]) <= 1 for name in ("ordering_accuracy", "orientation_accuracy"))
    assert len(list((trained / "pictures").glob("*.png"))) == 4  # two held-out puzzles, two epochs


def test_the_encoder_alone_is_handed_over(trained: Path, tmp_path: Path) -> None:
    """By a recipe, whose parts the log names."""
    keys = {**FINETUNE, "max_epochs": 1, "num_labelled": 3, "val_fraction": 0.1}
    keys |= {"recipe": "sawtooth", "steps_per_epoch": 10}
    output = succeed(
        "finetune", bundle=BUNDLE, pretrained=trained, output_dir=tmp_path / "run", decoder="duc", **keys
    )
    assert "recipe sawtooth: " in output
    assert re.search(r"\d+ convolutions before a norm rescaled, by 0\.\d\d to ", output)
    assert "encoder frozen up to step 1: " in output
    assert "encoder released: trained from step 2 on" in output
    lines = output.splitlines()
    matched, new = (next(x for x in lines if x.startswith(word)) for word in ("matched", "new "))
    assert "backbone.down" in matched
    assert "backbone.up" not in matched
    assert "backbone.up" in new
    assert "normalisation {'mean_maximum': [-1, 1]}" in output
    record = torch.load(tmp_path / "run" / "checkpoints" / "final.pt", weights_only=True)["record"]
    assert record["decoder"] == "duc"
    succeed(["finetune", "evaluate"], bundle=BUNDLE, output_dir=tmp_path / "run", **keys)
    assert (tmp_path / "run" / "evaluation.csv").is_file()


def test_the_papers_heads_in_the_laptop_profile(tmp_path: Path) -> None:
    keys = {**QUICK, "orientation": "independent", "cube_features": 0, "head_hidden": 0}
    succeed("train", bundle=BUNDLE, output_dir=tmp_path / "run", rotation_reduction="sum", **keys)
    last = history(tmp_path / "run")[-1]
    assert all(0 <= float(last[name]) <= 1 for name in ("ordering_accuracy", "orientation_accuracy"))
    # chance: (log 100 + 16 log 2) / 2 = 7.8, where the mean gives (log 100 + log 2) / 2 = 2.6
    assert 5 < float(last["val_loss"]) < 12


def test_another_grid_without_turns(tmp_path: Path) -> None:
    keys = {
        **QUICK,
        "grid": "[1,2,3]",
        "roi_size": "[9,8,5]",
        "gap": "[0,1,2]",
        "num_permutations": 12,
        "rotate": False,
    }
    succeed("train", bundle=BUNDLE, output_dir=tmp_path / "run", **keys)
    assert "orientation_accuracy" not in history(tmp_path / "run")[-1]
    network = torch.load(tmp_path / "run" / "checkpoints" / "final.pt", weights_only=True)["network"]
    assert network["permutations"].shape == (12, 6)


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({"grid": "[2,2]"}, ["grid", "[2, 2]", "three"]),
        ({"gap": 2.5}, ["gap", "2.5"]),
        ({"orientation": "guess"}, ["orientation", "guess", "given_order"]),
        ({"rotation_reduction": "average"}, ["rotation_reduction", "average", "sum"]),
        ({"rotate_prob": 7}, ["rotate_prob", "7"]),
        ({"rotation_axes": "[0,3]"}, ["axes", "[0, 3]"]),
    ],
)
def test_mistakes_get_one_clear_message(tmp_path: Path, keys: dict, expected: list[str]) -> None:
    fail("train", *expected, bundle=BUNDLE, output_dir=tmp_path / "run", **{**TINY, **keys})


def test_paper_profile_takes_a_step_on_cpu(tmp_path: Path) -> None:
    keys = {**PAPER_STEP, "roi_size": 32}  # of the paper's 64: the phantom is no larger
    succeed("train", bundle=BUNDLE, output_dir=tmp_path / "run", **keys)
    record = torch.load(tmp_path / "run" / "checkpoints" / "final.pt", weights_only=True)["record"]
    assert record["backbone"]["encoder"] == "vgg"
    network = torch.load(tmp_path / "run" / "checkpoints" / "final.pt", weights_only=True)["network"]
    joined = 8 * 512 * 2**3  # cubes, channels of the deepest map, its pooled size
    heads = {name: list(tensor.shape) for name, tensor in network.items() if "_head." in name}
    assert heads == {
        "ordering_head.1.weight": [100, joined], "ordering_head.1.bias": [100],
        "orientation_head.1.weight": [16, joined], "orientation_head.1.bias": [16],
    }  # fmt: skip


def test_classification(trained: Path, tmp_path: Path) -> None:
    keys = {key: value for key, value in FINETUNE.items() if key != "roi_size"}
    lines = ["id,class", *(f"phantom_{i:03d},{'odd' if i % 2 else 'even'}" for i in range(24))]
    (tmp_path / "classes.csv").write_text("\n".join(lines))
    output = succeed(
        "finetune_classification", bundle=BUNDLE, pretrained=trained, class_file=tmp_path / "classes.csv",
        output_dir=tmp_path / "run", roi_size=24, **keys,
    )  # fmt: skip
    assert "backbone.down" in output
    last = history(tmp_path / "run")[-1]
    assert 0 <= float(last["accuracy"]) <= 1
    assert np.isfinite(float(last["auc"]))
    with (tmp_path / "run" / "classification.csv").open(newline="") as file:
        assert {"case", "class", "predicted", "p_even", "p_odd"} == set(next(csv.DictReader(file)))

"""What is contrastive predictive coding's own, through the real command line, on the phantom."""

from pathlib import Path

import pytest
import torch

from tests.bundles.command import PAPER_STEP, QUICK, TINY, fail, history, succeed

pytestmark = pytest.mark.slow

BUNDLE = "cpc"


def test_a_run_measures_accuracy_and_collapse(trained: Path) -> None:
    last = history(trained)[-1]
    assert float(last["chance"]) == pytest.approx(1 / 64)
    for name in ("accuracy", "accuracy_step_1", "accuracy_step_2"):
        assert 0 <= float(last[name]) <= 1
    assert all(float(last[name]) >= 0 for name in ("feature_std", "effective_rank"))
    assert len(list((trained / "pictures").glob("*.png"))) == 4  # two held-out volumes, two epochs


@pytest.mark.parametrize(
    "keys",
    [
        {"context": "masked_conv", "loss_form": "pairwise", "grid": "[2,1,3]", "overlap": "[4,0,8]"},
        {"negatives": "batch", "spatial_dims": 2, "slices": "{'axis':2,'every':16}", "row_axis": 0},
    ],
)
def test_options(tmp_path: Path, keys: dict[str, object]) -> None:
    short = {**QUICK, "max_epochs": 1, "val_crops": 1, "pictures": 1}
    succeed("train", bundle=BUNDLE, output_dir=tmp_path / "run", **short, **keys)
    assert len(list((tmp_path / "run" / "pictures").glob("*.png"))) == 1


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({"grid": 6}, ["grid: [6, 6, 6] patches of roi_size [16, 16, 16]", "[56, 56, 56]", "[48, 48, 48]"]),
        ({"overlap": 16}, ["overlap: found [16, 16, 16]", "roi_size [16, 16, 16]"]),
        ({"steps_ahead": 4}, ["steps_ahead: found 4 with 4 rows"]),
        ({"negatives": "batch", "batch_size": 1}, ["batch_size: found 1 with negatives: batch"]),
        ({"context": "lstm"}, ["context: found 'lstm'", "gru, masked_conv"]),
        ({"roi_size": 12, "encoder": "segresnet"}, ["roi_size: found [12, 12, 12]", "multiples of 8"]),
    ],
)
def test_mistakes_get_one_clear_message(tmp_path: Path, keys: dict, expected: list[str]) -> None:
    fail("train", *expected, bundle=BUNDLE, output_dir=tmp_path / "run", **{**TINY, **keys})


def test_a_run_that_collapses_says_so(tmp_path: Path) -> None:
    """At the schedule's peak, weight decay times learning rate is 1: all weights become about 0.

    One held-out volume is enough, as its 64 patches should differ.
    """
    keys = {**QUICK, "learning_rate": 0.001, "optimizer__weight_decay": 1000, "val_fraction": 0.05}
    output = succeed("train", bundle=BUNDLE, output_dir=tmp_path / "run", **keys)
    assert "the features are the same for every sample" in output
    assert "a longer --lr_scheduler::warmup, --negatives batch;" in " ".join(output.split())
    last = history(tmp_path / "run")[-1]
    assert float(last["feature_std"]) < 0.01
    assert float(last["accuracy"]) < 0.1


def test_paper_profile_takes_a_step_on_cpu(tmp_path: Path) -> None:
    keys = {**PAPER_STEP, "body_size": 96, "grid": 3}  # 27 of the paper's 64 patches
    succeed("train", bundle=BUNDLE, output_dir=tmp_path / "run", **keys)
    content = torch.load(tmp_path / "run" / "checkpoints" / "final.pt", weights_only=True)
    assert content["record"]["backbone"]["encoder"] == "taleb_unet"
    shapes = {name: list(tensor.shape) for name, tensor in content["network"].items()}
    assert shapes["code.weight"] == [1024, 256]
    assert shapes["ahead.1.weight"] == [1024, 256]
    assert shapes["context.cell.weight_hh"] == [3 * 256, 256]

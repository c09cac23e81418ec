"""What is jigsaw's own, through the real command line, on the phantom."""

from pathlib import Path

import pytest
import torch

from tests.bundles.command import PAPER_STEP, QUICK, TINY, fail, history, succeed

pytestmark = pytest.mark.slow

BUNDLE = "jigsaw"


def test_a_run_measures_the_permutation(trained: Path) -> None:
    last = history(trained)[-1]
    assert 0 <= float(last["permutation_accuracy"]) <= 1
    assert 3 < float(last["val_loss"]) < 7  # a guess: log 100 = 4.6
    assert len(list((trained / "pictures").glob("*.png"))) == 4  # two held-out puzzles, two epochs
    network = torch.load(trained / "checkpoints" / "final.pt", weights_only=True)["network"]
    assert network["permutations"].shape == (100, 27)


def test_n_p_and_distance_are_keys(tmp_path: Path) -> None:
    keys = {**QUICK, "max_epochs": 1, "grid": 2, "num_permutations": 50, "min_distance": 7, "jitter": 0}
    keys["patch_normalisation"] = True
    succeed("train", bundle=BUNDLE, output_dir=tmp_path / "run", **keys)
    network = torch.load(tmp_path / "run" / "checkpoints" / "final.pt", weights_only=True)["network"]
    assert network["permutations"].shape == (50, 8)


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({"grid": 0}, ["grid", "0"]),
        ({"grid": 4}, ["grid", "[4, 4, 4]", "need [80, 80, 80] voxels", "body_size of"]),
        ({"gap": 20}, ["grid", "gap [20, 20, 20]", "body_size of"]),
        ({"grid": 2, "spatial_dims": 2}, ["num_permutations", "100", "2 to 24", "4 cells"]),
        ({"num_permutations": 1}, ["num_permutations", "found 1", "2 to 20000 permutations of 27 cells"]),
        ({"puzzles": 101}, ["puzzles", "101", "1 to 100"]),
        ({"grid": 2, "num_permutations": 40321}, ["num_permutations", "40321", "8 cells"]),
        ({"min_distance": 27}, ["min_distance", "27", "only 26 apart"]),
        ({"jitter": 9}, ["jitter", "[9, 9, 9]", "gap"]),
        ({"body_size": "[60,60]"}, ["body_size", "[60, 60]"]),
        ({"head_units": 64}, ["head_units", "64"]),
        ({"batch_size": 1, "puzzles": 1}, ["batch_size", "1", "2 or more"]),
    ],
)
def test_mistakes_get_one_clear_message(tmp_path: Path, keys: dict[str, object], expected: list[str]) -> None:
    fail("train", *expected, bundle=BUNDLE, output_dir=tmp_path / "run", **{**TINY, **keys})


def test_paper_profile_takes_a_step_on_cpu(tmp_path: Path) -> None:
    succeed("train", bundle=BUNDLE, output_dir=tmp_path / "run", **{**PAPER_STEP, "batch_size": 2})
    content = torch.load(tmp_path / "run" / "checkpoints" / "final.pt", weights_only=True)
    assert content["record"]["backbone"]["encoder"] == "taleb_unet"
    assert content["record"]["backbone"]["roi_size"] == [39, 39, 39]
    weights = [t for name, t in content["network"].items() if name.startswith("head.") and t.ndim == 2]
    assert [tuple(weight.shape) for weight in weights] == [(2048, 27 * 256), (1024, 2048), (100, 1024)]

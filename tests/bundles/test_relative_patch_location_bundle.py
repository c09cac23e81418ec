"""What is relative patch location's own, through the real command line, on the phantom."""

from pathlib import Path

import pytest
import torch

from tests.bundles.command import PAPER_STEP, QUICK, TINY, fail, history, succeed

pytestmark = pytest.mark.slow

BUNDLE = "relative_patch_location"


def test_a_run_measures_the_location(trained: Path) -> None:
    assert 0 <= float(history(trained)[-1]["location_accuracy"]) <= 1
    assert len(list((trained / "pictures").glob("*.png"))) == 4  # two held-out samples, two epochs


def test_another_grid_against_shortcuts(tmp_path: Path) -> None:
    """3 x 5 x 1 cells have 14 locations; a body of 40 x 60 x 20; 9 x 8 x 5 voxels of a patch."""
    keys = {
        **QUICK, "grid": "[3,5,1]", "body_size": "[40,60,20]", "roi_size": "[9,8,5]", "gap": "[0,1,2]",
        "jitter": "[0,1,1]", "queries": 3, "patch_brightness": 0.2, "patch_contrast": 0.3,
    }  # fmt: skip
    succeed("train", bundle=BUNDLE, output_dir=tmp_path / "run", **keys)
    network = torch.load(tmp_path / "run" / "checkpoints" / "final.pt", weights_only=True)["network"]
    weights = [tensor for name, tensor in network.items() if name.startswith("head.") and tensor.ndim == 2]
    assert len(weights[-1]) == 14


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({"grid": 2}, ["grid: found [2, 2, 2]", "odd"]),
        ({"queries": 27}, ["queries: found 27", "from 1 to 26"]),
        ({"body_size": 40}, ["[3, 3, 3]", "[60, 60, 60]", "[40, 40, 40]"]),
        ({"patch_colour": "drop"}, ["patch_colour: found 'drop' with images of 1 channel"]),
        ({"patch_contrast": 2}, ["patch_contrast: found 2"]),
    ],
)
def test_mistakes_get_one_clear_message(tmp_path: Path, keys: dict[str, object], expected: list[str]) -> None:
    fail("train", *expected, bundle=BUNDLE, output_dir=tmp_path / "run", **{**TINY, **keys})


def test_paper_profile_takes_a_step_on_cpu(tmp_path: Path) -> None:
    succeed("train", bundle=BUNDLE, output_dir=tmp_path / "run", **{**PAPER_STEP, "batch_size": 2})
    content = torch.load(tmp_path / "run" / "checkpoints" / "final.pt", weights_only=True)
    assert content["record"]["backbone"]["encoder"] == "taleb_unet"
    assert content["record"]["backbone"]["roi_size"] == [39, 39, 39]
    sizes = [list(t.shape) for n, t in content["network"].items() if n.startswith("head.") and t.ndim == 2]
    assert sizes == [[2048, 2 * 256], [1024, 2048], [26, 1024]]

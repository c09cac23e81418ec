"""What is rotation prediction's own, through the real command line, on the phantom."""

from pathlib import Path

import pytest
import torch

from tests.bundles.command import FINETUNE, PAPER_STEP, QUICK, TINY, fail, history, succeed

pytestmark = pytest.mark.slow

BUNDLE = "rotation"


@pytest.fixture(scope="module", params=["taleb_unet", "unet4"])
def trained(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """A run of each encoder: its name and folder."""
    folder = tmp_path_factory.mktemp(request.param) / "run"
    keys = {**TINY, "encoder": request.param, "class_accuracies": True}
    succeed("train", bundle=BUNDLE, output_dir=folder, **keys)
    return request.param, folder


def matched(output: str, encoder: str) -> None:
    """The transfer brought over every level of the encoder, and nothing of the decoder or the head."""
    line = next(line for line in output.splitlines() if line.startswith("matched"))
    levels = {"taleb_unet": 5, "unet4": 4}[encoder]
    assert all(f"backbone.down.{level}." in output for level in range(levels)) or "backbone.down" in line
    assert "backbone.up" not in line
    assert "head" not in line


def test_a_run_measures_every_rotation(trained: tuple[str, Path]) -> None:
    encoder, folder = trained
    rows = history(folder)
    names = ["rotation_accuracy", "accuracy_up_to_half_turns", "accuracy_0"]
    names += [f"accuracy_axis{axis}_{degrees}" for axis in range(3) for degrees in (90, 180, 270)]
    assert set(names) <= set(rows[-1])
    assert all(0 <= float(rows[-1][name]) <= 1 for name in names[:2])
    assert len(list((folder / "pictures").glob("*.png"))) == 4  # two held-out bodies, two epochs
    record = torch.load(folder / "checkpoints" / "final.pt", weights_only=True)["record"]
    assert record["backbone"]["encoder"] == encoder
    assert record["backbone"]["untrained"] == ["up", "merge"]


def test_the_encoder_alone_is_transferred_to_a_segmentation(
    trained: tuple[str, Path], tmp_path: Path
) -> None:
    encoder, folder = trained
    keys = {**FINETUNE, "max_epochs": 1, "num_labelled": 3, "val_fraction": 0.1}
    output = succeed("finetune", bundle=BUNDLE, pretrained=folder, output_dir=tmp_path / "run", **keys)
    matched(output, encoder)
    check_encoder(folder, tmp_path / "run", encoder)


def test_the_encoder_alone_is_transferred_to_a_classification(
    trained: tuple[str, Path], tmp_path: Path
) -> None:
    encoder, folder = trained
    lines = ["id,class", *(f"phantom_{i:03d},{'odd' if i % 2 else 'even'}" for i in range(24))]
    (tmp_path / "classes.csv").write_text("\n".join(lines))
    keys = {**FINETUNE, "max_epochs": 1, "class_file": tmp_path / "classes.csv"}
    output = succeed(
        "finetune_classification", bundle=BUNDLE, pretrained=folder, output_dir=tmp_path / "run", **keys
    )
    matched(output, encoder)
    check_encoder(folder, tmp_path / "run", encoder)


def check_encoder(folder: Path, finetuned: Path, encoder: str) -> None:
    """A fine-tuned network has the encoder of its pre-training, changed by a few steps, not by chance."""
    before, after = (
        torch.load(path / "checkpoints" / "final.pt", weights_only=True) for path in (folder, finetuned)
    )
    assert after["record"]["backbone"]["encoder"] == encoder
    names = [n for n in before["network"] if n.startswith("backbone.down") and n.endswith(".0.weight")]
    assert len(names) == {"taleb_unet": 5, "unet4": 4}[encoder]
    for name in names:
        pair = torch.stack([content["network"][name].flatten() for content in (before, after)])
        assert torch.corrcoef(pair)[0, 1] > 0.9, name  # of two random initialisations: near 0


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({"roi_size": "[16,16,24]"}, ["roi_size", "[16, 16, 24]", "equal edges along axes"]),
        ({"versions": 11}, ["versions", "11", "1 to 10"]),
        ({"rotation_axes": "[0,3]"}, ["rotation_axes", "[0, 3]"]),
        ({"spatial_dims": 2, "rotation_axes": "[0]", "slices": "{'axis':2,'every':16}"}, ["axes", "[0]"]),
        ({"body_size": 8}, ["body_size", "[8, 8, 8]", "[16, 16, 16]"]),
        ({"body_size": "[8,8]"}, ["body_size", "[8, 8]"]),
        ({"body_threshold": 1.5}, ["body_threshold", "1.5"]),
        ({"head_units": "[0]"}, ["head_units", "0"]),
        ({"head_dropout": 1}, ["head_dropout", "1"]),
        ({"pool_size": 0}, ["pool_size", "0"]),
    ],
)
def test_mistakes_get_one_clear_message(tmp_path: Path, keys: dict, expected: list[str]) -> None:
    fail("train", *expected, bundle=BUNDLE, output_dir=tmp_path / "run", **{**TINY, **keys})


def test_flat_crops_of_the_body_about_one_axis(tmp_path: Path) -> None:
    """Four rotations about the vertical axis, of random crops of a larger body."""
    keys = {**QUICK, "max_epochs": 1, "rotation_axes": "[2]", "roi_size": "[16,16,8]", "body_size": 24}
    succeed("train", bundle=BUNDLE, output_dir=tmp_path / "run", distinct_versions=False, **keys)
    network = torch.load(tmp_path / "run" / "checkpoints" / "final.pt", weights_only=True)["network"]
    assert network["head.4.weight"].shape[0] == 4


def test_paper_profile_takes_a_step_on_cpu(tmp_path: Path) -> None:
    succeed("train", bundle=BUNDLE, output_dir=tmp_path / "run", **{**PAPER_STEP, "roi_size": 32})
    content = torch.load(tmp_path / "run" / "checkpoints" / "final.pt", weights_only=True)
    assert content["record"]["backbone"]["encoder"] == "taleb_unet"
    heads = [
        list(t.shape) for name, t in content["network"].items() if name.startswith("head.") and t.ndim > 1
    ]
    assert heads == [[2048, 256], [1024, 2048], [10, 1024]]

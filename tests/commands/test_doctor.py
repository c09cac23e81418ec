"""What the doctor says of made-up runs, and the one command that it suggests."""

import argparse
import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from ignite.engine import Engine
from pretext3d.__main__ import main
from pretext3d.commands.doctor import anatomy, doctor
from pretext3d.commands.doctor.findings import LONGER, SLOWER, beyond_air, fits, learning
from pretext3d.data.spacing import choose_pixdim
from pretext3d.networks.factory import build_backbone
from pretext3d.training import probe
from pretext3d.training.checkpoint_io import save_checkpoint
from pretext3d.training.run_folder import close_folder, open_folder
from torch import nn

from tests.labelled import save


def epochs(**columns: Any) -> pd.DataFrame:
    """A table of epochs; the loss falls quickly and then stays."""
    count = len(next(iter(columns.values())))
    losses = {"train_loss": [1.0] * count, "val_loss": [2.0, *[1.0] * (count - 1)]}
    return pd.DataFrame({"epoch": range(1, count + 1), **losses, **columns})


@pytest.mark.parametrize(
    ("columns", "state", "text"),
    [
        # (0.28 - 0.1) / (1 - 0.1) = 0.2 of the way
        (
            {"rotation_accuracy": [0.1, 0.28], "chance": [0.1, 0.1]},
            "good",
            "learned: rotation_accuracy is 0.28",
        ),
        # (0.18 - 0.1) / 0.9 = 0.089
        (
            {"rotation_accuracy": [0.5, 0.18], "chance": [0.1, 0.1]},
            "wrong",
            "not learned: rotation_accuracy is",
        ),
        ({"retrieval_accuracy": [0.9], "retrieval_chance": [0.02]}, "good", "without learning 0.02"),
        ({"ordering_accuracy": [0.01], "ordering_chance": [0.01]}, "wrong", "without learning 0.01"),
        ({"class_accuracy": [0.4], "most_frequent_class": [0.276]}, "good", "without learning 0.276"),
        ({"accuracy": [0.4, np.nan], "chance": [0.1, np.nan]}, "good", "accuracy is 0.4 in epoch 1,"),
        ({"relative_vector_error": [1.1, 0.6]}, "good", "relative_vector_error is 0.6 in epoch 2, without"),
        ({"relative_vector_error": [1.1, 0.95]}, "wrong", "not learned: relative_vector_error is 0.95"),
        ({"vector_error_mm": [9.0, 5.0]}, "note", "no figure with its chance or baseline"),
        ({"orientation_accuracy": [0.6], "accuracy_axis0_90": [0.2]}, "note", "no figure with its chance"),
    ],
)
def test_figures_against_what_needs_no_learning(columns: dict[str, Any], state: str, text: str) -> None:
    found = learning(epochs(**columns))[0]
    assert found.state == state
    assert text in found.text
    assert found.again == (LONGER if state == "wrong" else "")


@pytest.mark.parametrize(
    ("reached", "state"),
    [(0.64, "good"), (0.62, "wrong"), (0.3, "wrong")],  # 0.6 without anatomy: 0.6 + 0.1 * 0.4 is the least
)
def test_a_figure_against_air_and_intensities(reached: float, state: str) -> None:
    found = beyond_air(epochs(accuracy=[0.1, reached]), "accuracy", 0.6, "a linear model: 60.0 %")
    assert (found.state, found.again) == (state, LONGER if state == "wrong" else "")
    assert f"accuracy is {reached} in epoch 2; without anatomy, from air and mean inten" in found.text
    unmeasured = beyond_air(epochs(accuracy=[np.nan]), "accuracy", 0.6, "a linear model: 60.0 %")
    assert (unmeasured.state, unmeasured.text[:25]) == ("note", "accuracy was not measured")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:parsing config_file:UserWarning")
def test_the_baseline_of_a_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """On the run's own cases, here the phantom's; a method without one says so."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)  # the laptop profile
    monkeypatch.setattr(anatomy, "SAMPLES", {"train": 60, "validate": 20})
    threads = torch.get_num_threads()
    run = made_up(tmp_path / "run", epochs(rotation_accuracy=[0.2, 1.0], chance=[0.1, 0.1]))
    try:
        assert main(["doctor", str(run), "--baseline"]) == 0
    finally:
        torch.set_num_threads(threads)
    said = capsys.readouterr().out
    assert "  good   beyond air and intensities: rotation_accuracy is 1 in epoch 2; without anatomy" in said
    assert "answers out of 10" in said
    assert sorted(path.name for path in run.iterdir()) == ["checkpoints", "log.txt", "metrics.csv"]
    other = made_up(tmp_path / "other", epochs(relative_vector_error=[1.0, 0.5]), method="vectorpose")
    assert main(["doctor", str(other), "--baseline"]) == 0
    assert "  note   vectorpose: no baseline without anatomy" in capsys.readouterr().out


def test_the_probe_against_the_initial_weights() -> None:
    table = epochs(probe_dice=[np.nan, 0.2, np.nan, 0.15])
    first, second = learning(table, {"probe_dice": 0.1})[1:3]
    assert (first.state, first.text) == (
        "good", "probe_dice of the frozen features is 0.15 in epoch 4, with the initial weights 0.1"
    )  # fmt: skip
    assert (second.state, second.text) == (
        "note",
        "probe_dice was 0.2 in epoch 2: later epochs did not help it",
    )
    worse = learning(table, {"probe_dice": 0.15})[1]
    assert (worse.state, worse.text[-9:]) == ("note", ": no gain")


def test_a_collapse_is_wrong_and_asks_for_a_lower_rate() -> None:
    found = learning(epochs(feature_std=[0.5, 0.001, 0.001], effective_rank=[9.0, 1.0, 1.0]))
    wrong = [one for one in found if one.state == "wrong"]
    assert len(wrong) == 1
    assert "collapse" in wrong[0].text
    assert wrong[0].again == SLOWER
    spreading = learning(epochs(feature_std=[0.001, 0.007], effective_rank=[2.0, 2.0]))
    assert [one.state for one in spreading if "features" in one.text] == ["note"]
    line = learning(epochs(feature_std=[0.2, 0.5, 0.9], effective_rank=[1.02, 1.02, 1.03]))
    assert [one.again for one in line if "dimensional collapse" in one.text] == [SLOWER]
    well = learning(epochs(feature_std=[0.001, 0.7], effective_rank=[1.0, 9.0]))
    assert "features differ: feature_std 0.7, effective_rank 9" in [one.text for one in well]


@pytest.mark.parametrize(
    ("losses", "text"),
    [
        ([9.0, 5.0, 3.0, 2.0], "val_loss still fell in the last quarter, from 3 to 2: a longer run may gain"),
        ([9.0, 5.0, 2.0, 1.97], "val_loss was lowest in epoch 4: that epoch is best.pt"),  # 1.5 %
        ([9.0, 2.0, 3.0, 4.0], "val_loss was lowest in epoch 2: that epoch is best.pt"),
    ],
)
def test_the_length_of_a_run(losses: list[float], text: str) -> None:
    assert learning(epochs(val_loss=losses))[-1].text == text


def test_a_loss_that_is_no_number() -> None:
    (found,) = learning(epochs(train_loss=[1.0, np.nan], accuracy=[0.5, 0.5], chance=[0.1, 0.1]))
    assert (found.state, found.again) == ("wrong", SLOWER)


RECORD: dict[str, Any] = {"channels": 1, "pixdim": [1.0, 1.0, 2.0]}


@pytest.mark.parametrize(
    ("record", "given", "states", "keys"),
    [
        (RECORD, (1, [1.0, 1.2, 2.0]), ["good", "good", "good"], {}),
        (RECORD, (1, [1.0, 1.0, 5.0]), ["good", "note", "good"], {"pixdim": "pretrained"}),
        (RECORD, (1, []), ["good", "note", "good"], {"pixdim": "pretrained"}),
        ({"channels": 1, "pixdim": []}, (1, [1.0, 1.0, 5.0]), ["good", "note", "good"], {}),
        (RECORD, (3, [1.0, 1.0, 2.0]), ["wrong", "good", "good"], {}),
        (
            {**RECORD, "channel_indices": [1]},
            (3, [1.0, 1.0, 2.0]),
            ["wrong", "good", "good"],
            {"channels": [1]},
        ),
        (
            {**RECORD, "normalisation": {"window": [-100, 300]}},
            (1, [1.0, 1.0, 2.0], 0.6),
            ["good", "good", "good"],
            {"normalisation": {"window": [-100, 300]}},
        ),
        (
            {**RECORD, "normalisation": {"window": [-100, 300]}},
            (1, [1.0, 1.0, 2.0], 0.05),
            ["good", "good", "wrong"],
            {},
        ),
    ],
)
def test_labelled_images(
    record: dict[str, Any], given: tuple[Any, ...], states: list[str], keys: dict[str, Any]
) -> None:
    found = fits(record, *given)
    assert [one.state for one in found] == states
    assert {key: value for one in found for key, value in one.keys.items()} == keys


# --------------------------------------------------------------------------------------------- the command
def made_up(folder: Path, table: pd.DataFrame, name: str = "scans", **record: Any) -> Path:
    """A run with a table, a log and a checkpoint."""
    network = nn.Module()
    torch.manual_seed(0)
    network.backbone = build_backbone("unet", 1, [16, 16, 16])
    content = {"method": "rotation", "channels": 1, "pixdim": [2.0, 3.0, 2.0], **record}
    content |= {"backbone": network.backbone.record, "data": {"name": name, "train": ["a" * 32] * 3}}
    (folder / "checkpoints").mkdir(parents=True)
    for weights in ("best", "final"):
        save_checkpoint(
            folder / "checkpoints" / f"{weights}.pt", {"network": network.state_dict(), "record": content}
        )
    table.assign(learning_rate=0.003).to_csv(folder / "metrics.csv", index=False)
    write_log(folder, {"probe_knn_accuracy": 0.25})
    return folder


def write_log(folder: Path, *starts: dict[str, float]) -> None:
    """The log of a run with the lines of its probe, by the handlers that a training has."""
    logger = logging.getLogger(probe.__name__)
    level = logger.level
    open_folder(folder)
    logger.setLevel(logging.INFO)
    for figures in starts:
        made = probe.Probe({}, SimpleNamespace(add_event_handler=lambda *_: None))
        made.choose = lambda *_, figures=figures: SimpleNamespace(measure=lambda: figures)  # type: ignore[method-assign]
        trainer = Engine(lambda *_: None)
        made.attach(trainer)
        trainer.run([0], max_epochs=1)
    logger.setLevel(level)
    close_folder(folder)


def test_the_probe_of_the_initial_weights_is_read_from_the_log(tmp_path: Path) -> None:
    assert doctor.probe_before(tmp_path) == {}
    write_log(tmp_path, {"probe_dice": 0.123456})
    assert doctor.probe_before(tmp_path) == {"probe_dice": 0.1235}
    write_log(tmp_path, {"probe_dice": 0.25, "probe_knn_accuracy": float("nan")})  # repeated
    assert doctor.probe_before(tmp_path) == {"probe_dice": 0.25}


def test_a_good_run_leads_to_a_fine_tuning(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = epochs(rotation_accuracy=[0.2, 0.8], chance=[0.1, 0.1], probe_knn_accuracy=[0.3, 0.4])
    run = made_up(tmp_path / "run", table)
    assert main(["doctor", str(run), "--strict"]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0] == f"{run}: rotation, 2 epochs, trained on 3 cases of 'scans'"
    assert "with the initial weights 0.25" in said[2]
    assert said[-1] == (
        "  python -m monai.bundle run --config_file bundles/rotation/configs/finetune.yaml "
        f"--pretrained {run} --dataset_dir LABELLED_FOLDER"
    )


def test_a_run_at_chance_is_to_be_continued(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = made_up(tmp_path / "run", epochs(rotation_accuracy=[0.1, 0.1], chance=[0.1, 0.1]))
    (run / "config.yaml").write_text("dataset_dir: ../my scans\nmax_epochs: 2\n")
    assert main(["doctor", str(run)]) == 0
    said = capsys.readouterr().out
    assert "  wrong  not learned: rotation_accuracy is 0.1 in epoch 2, without learning 0.1" in said
    assert said.splitlines()[-1] == (
        "  python -m monai.bundle run --config_file bundles/rotation/configs/train.yaml "
        f"--dataset_dir '../my scans' --max_epochs 4 --output_dir {run} --resume True"
    )
    assert main(["doctor", str(run), "--strict"]) == 1


def test_a_short_run_at_chance_is_no_fault_and_to_be_continued(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = epochs(rotation_accuracy=[0.1, 0.1], chance=[0.1, 0.1], step=[11, 22])
    run = made_up(tmp_path / "run", table)
    assert main(["doctor", str(run), "--strict"]) == 0
    said = capsys.readouterr().out
    assert (
        "  note   too early to tell: rotation_accuracy is 0.1 in epoch 2, without learning 0.1; 22 steps"
        in said
    )
    assert said.splitlines()[-1].endswith(
        f"train.yaml --output_dir {run} --resume True --max_epochs 10"
    )  # 110 steps


def test_a_run_on_the_phantom_is_fine_tuned_on_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = made_up(tmp_path / "run", epochs(rotation_accuracy=[0.2, 0.8], chance=[0.1, 0.1]), name="phantom")
    main(["doctor", str(run)])
    assert capsys.readouterr().out.splitlines()[-1].endswith(f"configs/finetune.yaml --pretrained {run}")


def test_a_collapsed_run_is_to_be_repeated_elsewhere(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = epochs(
        rotation_accuracy=[0.9, 0.9], chance=[0.1, 0.1], feature_std=[0.0] * 2, effective_rank=[0.0] * 2
    )
    run = made_up(tmp_path / "run", table)
    optimizer = {"param_groups": [{"lr": 0.0, "initial_lr": 0.03}]}  # at the end of its schedule
    save_checkpoint(
        run / "checkpoints" / "epoch_0002.pt", {"record": {}, "network": {}, "optimizer": optimizer}
    )
    main(["doctor", str(run)])
    typed = capsys.readouterr().out.splitlines()[-1]
    assert typed.endswith(f"train.yaml --output_dir {run}_slower --learning_rate 0.01")  # 0.03 / 3


def test_one_validation_is_no_proof_of_a_collapse() -> None:
    once = learning(epochs(feature_std=[0.5, 0.0], effective_rank=[9.0, 1.0]))
    assert [one.state for one in once if "collapse" in one.text] == ["note"]
    first = learning(epochs(feature_std=[0.003], effective_rank=[36.0]))
    assert [one.state for one in first if "collapse" in one.text] == ["note"]


def test_labelled_data_of_another_spacing_and_their_classes(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setenv("PRETEXT3D_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder = tmp_path / "scans"
    for number in range(4):  # voxels of 2 x 3 x 2 mm, axes i j k = y x z
        values = np.random.default_rng(number).normal(0, 1, (9, 10, 8)).astype(np.float32)
        save(values, folder / f"p{number // 2}_{('left', 'right')[number % 2]}.nii.gz")
    table = epochs(rotation_accuracy=[0.2, 0.8], chance=[0.1, 0.1])
    run = made_up(tmp_path / "run", table, pixdim=[3.0, 2.0, 1.0], normalisation={"window": [-100, 0]})
    words = ["doctor", str(run), "--dataset_dir", str(folder), "--class_file", "classes.csv"]
    assert main(words) == 0
    assert "subjects" not in caplog.text  # their names look like pairs, but nothing is split
    said = capsys.readouterr().out
    assert "  good   channels: 1, as in pre-training" in said
    # a classification's {fit_each: 0.9}: of images far shorter than a crop, their finest spacing
    spacing = "the fine-tuning has 2x2x2 mm, trained at 3x2x1 mm: other along x, z; --pixdim pretrained"
    assert f"  note   spacing: {spacing} takes that one" in said
    assert "% of the voxels are within the weights' window, -100 to 0" in said
    typed = said.splitlines()[-1]
    assert "finetune_classification.yaml" in typed
    keys = "--pixdim pretrained --normalisation \"{'window': [-100, 0]}\""
    assert typed.endswith(f"--class_file classes.csv {keys}")


@pytest.mark.parametrize(
    ("method", "trained", "state"),
    [
        # its fine-tuning has `fit`, as its training: 10 x 3, 9 x 2 and 8 x 2 mm are far shorter than 1.5
        # crops, so the spacing is the finest of a case, 2 mm along all axes, where the files have 3 x 2 x 2
        ("supervoxel_inpainting", [2.0, 2.0, 2.0], "good   spacing: the fine-tuning has 2x2x2 mm"),
        ("supervoxel_inpainting", [3.0, 2.0, 2.0], "note   spacing: the fine-tuning has 2x2x2 mm"),
        ("vpcf", [3.0, 2.0, 2.0], "good   spacing: the fine-tuning has 3x2x2 mm"),  # avsdb: median
        ("vectorpose", [2.0, 2.0, 2.0], "note   spacing: the fine-tuning has 3x2x2 mm"),  # median after fit
    ],
)
def test_spacing_is_that_of_the_fine_tuning_and_no_fault(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    method: str,
    trained: list[float],
    state: str,
) -> None:
    monkeypatch.setenv("PRETEXT3D_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)  # the laptop profile
    for number in range(3):
        values = np.random.default_rng(number).normal(0, 1, (9, 10, 8)).astype(np.float32)
        save(values, tmp_path / "scans" / f"p{number}.nii.gz")
    table = epochs(rotation_accuracy=[0.2, 0.8], chance=[0.1, 0.1])
    run = made_up(tmp_path / "run", table, method=method, pixdim=trained)
    assert main(["doctor", str(run), "--dataset_dir", str(tmp_path / "scans"), "--strict"]) == 0
    said = capsys.readouterr().out
    assert f"  {state}, trained at" in said
    assert said.endswith(" --pixdim pretrained\n") == state.startswith("note")


def test_every_profile_of_a_fine_tuning_has_a_grid() -> None:
    files = sorted((Path(__file__).parents[2] / "bundles").glob("*/configs/finetune*.yaml"))
    assert len(files) == 18
    for file in files:
        for dims in (2, 3):
            for profile in (None, "laptop_transformer", "other"):
                grid = doctor.grid_of(file, profile, dims)
                assert len(grid["roi_size"]) == dims
                choose_pixdim(grid["pixdim"], [[50] * dims], [[1.0] * dims], grid["roi_size"], dims)
    assert doctor.grid_of(Path("nowhere.yaml"), None, 3) == {"pixdim": "median"}


def test_what_is_no_pre_training(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", str(tmp_path)]) == 1
    assert "has no metrics.csv; expected the output_dir of a training run" in capsys.readouterr().err
    assert main(["doctor", str(tmp_path / "nowhere")]) == 1
    assert "nowhere: does not exist; expected the output_dir" in capsys.readouterr().err
    run = made_up(tmp_path / "run", epochs(val_mean_dice=[0.1, 0.5]), method="segmentation")
    assert main(["doctor", str(run)]) == 1
    assert "found a segmentation, expected a pre-training run" in capsys.readouterr().err


def test_a_network_of_two_axes_is_for_images(tmp_path: Path) -> None:
    options = argparse.Namespace(dataset_dir="", class_file="")
    record = {"method": "rotation", "backbone": {"spatial_dims": 2}}
    typed = doctor.next_command(tmp_path, record, [], options, epochs(accuracy=[1.0]))
    assert "finetune_classification.yaml" in typed
    assert "--class_file CLASSES.csv" in typed
    of_slices = doctor.next_command(
        tmp_path, {**record, "slices": {"axis": 2}}, [], options, epochs(accuracy=[1.0])
    )
    assert "configs/finetune.yaml" in of_slices

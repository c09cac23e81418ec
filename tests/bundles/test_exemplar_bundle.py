"""What is exemplar networks' own, through the real command line, on the phantom."""

from pathlib import Path

import pytest
import torch

from tests.benchmarks.laptop import laptop_parser
from tests.bundles.command import PAPER_STEP, QUICK, TINY, fail, history, succeed

pytestmark = pytest.mark.slow

BUNDLE = "exemplar"


def final(folder: Path) -> dict:
    return dict(torch.load(folder / "checkpoints" / "final.pt", weights_only=True))


def test_a_run_measures_retrieval_and_collapse(trained: Path) -> None:
    last = history(trained)[-1]
    assert 0 <= float(last["retrieval_accuracy"]) <= 1
    assert float(last["retrieval_chance"]) == pytest.approx(1 / 5)  # held-out bodies
    assert float(last["feature_std"]) > 0
    assert float(last["effective_rank"]) > 1
    assert len(list((trained / "pictures").glob("*.png"))) == 4  # two held-out cases, two epochs


def test_negatives_from_the_whole_data_set_survive_a_resume(tmp_path: Path) -> None:
    """Two epochs at once, or four steps and then the rest: the same memory and the same weights."""
    keys = {**QUICK, "negatives": "dataset", "memory_size": 8, "objective": "triplet"}
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    keys |= {"lr_scheduler__final_lr_factor": 1.0, "lr_scheduler__warmup": 0.0}
    succeed("train", bundle=BUNDLE, output_dir=whole, **{**keys, "max_epochs": 2})
    succeed("train", bundle=BUNDLE, output_dir=parts, **{**keys, "max_epochs": 2, "max_steps": 4})
    succeed("train", bundle=BUNDLE, output_dir=parts, resume=True, **{**keys, "max_epochs": 2})
    one, two = final(whole)["network"], final(parts)["network"]
    assert (one["memory.subjects"] >= 0).sum() == 8
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_two_processes_remember_the_anchors_of_both(tmp_path: Path) -> None:
    """One epoch of 3 steps of 2 anchors in each of two processes: 12, of which one process has 6."""
    keys = {**QUICK, "negatives": "dataset", "memory_size": 12, "device": "cpu"}
    keys |= {"max_epochs": 1, "steps_per_epoch": 6}
    run = {"bundle": BUNDLE, "output_dir": tmp_path / "run", "processes": 2}
    succeed(["train", "multi_gpu_train"], **run, **keys)
    network = final(tmp_path / "run")["network"]
    assert (network["memory.subjects"] >= 0).sum() == 12
    assert (network["memory.embeddings"].norm(dim=1) > 0).all()
    assert len(history(tmp_path / "run")) == 1


def test_in_2d_on_slices_of_which_neighbours_are_no_negatives(tmp_path: Path) -> None:
    keys = {**QUICK, "spatial_dims": 2, "batch_size": 4, "objective": "triplet", "views__anchor": "image"}
    of_slices = {"spatial_dims": 2, "slices": {"axis": 2, "every": 4}}
    keys |= {"slices": "{'axis':2,'every':4}"}
    succeed("train", bundle=BUNDLE, output_dir=tmp_path / "run", **keys)
    last = history(tmp_path / "run")[-1]
    assert float(last["retrieval_chance"]) < 1 / 50  # each slice is a case
    assert float(last["val_loss"]) > 0  # every batch had negatives
    parser = laptop_parser(BUNDLE, **of_slices, output_dir=str(tmp_path / "read"))
    slices = parser.get_parsed_content("validate#dataset")
    codes = {(case["volume"], int(slices[index]["subject_code"])) for index, case in enumerate(slices.data)}
    assert len(codes) == len({volume for volume, _ in codes}) == 5  # held-out bodies


def test_a_run_that_collapses_says_so(tmp_path: Path) -> None:
    """At the schedule's peak, weight decay times learning rate is 1: all weights become about 0."""
    keys = {**QUICK, "objective": "triplet", "learning_rate": 0.001, "optimizer__weight_decay": 1000}
    output = succeed("train", bundle=BUNDLE, output_dir=tmp_path / "run", **keys)
    assert "the features are the same for every sample" in output
    last = history(tmp_path / "run")[-1]
    assert float(last["feature_std"]) < 0.01
    assert float(last["val_loss"]) == pytest.approx(1.0, abs=0.02)  # the margin


def test_paper_profile_takes_a_step_on_cpu(tmp_path: Path) -> None:
    keys = {**PAPER_STEP, "roi_size": 32, "batch_size": 2}
    succeed("train", bundle=BUNDLE, output_dir=tmp_path / "run", **keys)
    content = final(tmp_path / "run")
    assert content["record"]["backbone"]["encoder"] == "taleb_unet"
    heads = {name: list(tensor.shape) for name, tensor in content["network"].items() if "head." in name}
    assert heads["head.0.weight"] == [2048, 256]
    assert heads["head.4.weight"] == [1024, 2048]


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        (
            {"val_fraction": 0.95},
            ["of one subject, after the held-out ones", "expected two training subjects", "--val_fraction"],
        ),
        ({"batch_size": 1}, ["batch_size", "negatives: batch"]),
        ({"negatives": "nowhere"}, ["negatives", "nowhere", "dataset"]),
        ({"objective": "quadruplet"}, ["objective", "quadruplet", "triplet"]),
        ({"views__anchor": "both"}, ["anchor", "both"]),
        ({"views__flip_prob": 7}, ["flip_prob", "7"]),
        ({"views__flip_axes": "[7]"}, ["flip_axes: found [7], expected a list of axes out of 0, 1, 2"]),
        ({"views__zoom_range": "[2,1]"}, ["views::zoom_range: found [2, 1]"]),
        ({"margin": -1}, ["margin", "-1"]),
        ({"temperature": 0}, ["temperature", "0"]),
        ({"body_size": 40}, ["body_size"]),  # it is roi_size, which the record has
    ],
)
def test_mistakes_get_one_clear_message(tmp_path: Path, keys: dict, expected: list[str]) -> None:
    fail("train", *expected, bundle=BUNDLE, output_dir=tmp_path / "run", **{**TINY, **keys})

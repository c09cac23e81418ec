"""Cross-validations and fractions of the labels: who is held out, how many are labelled, what is refused."""

import csv
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from pretext3d.__main__ import main
from pretext3d.commands.compare import plan
from pretext3d.commands.compare.cells import Arm, Cell, CellRunner
from pretext3d.commands.compare.folder import fold_table, folds_of
from pretext3d.data.splits import split_cases
from pretext3d.data.subjects import set_subjects
from pretext3d.errors import UserError

CASES = [
    {"id": f"p{p}{side}", "name": f"p{p}{side}", "subject": f"p{p}", "class": p % 2, "source": "/eyes"}
    for p in range(6)
    for side in ("left", "right")
]


def test_folds_are_the_ones_that_their_file_gives(tmp_path: Path) -> None:
    """The file, by the key `subjects`, holds out in a run what the comparison measures."""
    folds = folds_of({"train": CASES[:8], "val": CASES[8:], "test": []}, 3, seed=0)
    held = [{case["subject"] for case in found["val"]} for found in folds.values()]
    assert sorted(subject for each in held for subject in each) == [f"p{p}" for p in range(6)]
    for found in folds.values():  # one subject of each class, with both eyes
        assert [case["class"] for case in found["val"]].count(0) == 2
        assert len(found["train"]) == 8
    (tmp_path / "folds.csv").write_text(fold_table(folds))
    listed = set_subjects(
        [{k: v for k, v in case.items() if k != "subject"} for case in CASES], str(tmp_path / "folds.csv")
    )
    for k, found in folds.items():
        split = split_cases(listed, fold=k)
        assert [case["id"] for case in split.val] == [case["id"] for case in found["val"]]
        assert [case["id"] for case in split.train] == [case["id"] for case in found["train"]]


def test_the_file_lists_volumes_once() -> None:
    slices = [{**CASES[n], "id": f"v{n}/slice{s}", "volume": f"v{n}"} for n in (0, 2) for s in (1, 2)]
    text = fold_table({0: {"val": slices[:2]}, 1: {"val": slices[2:]}})
    assert text == "id,subject,fold\nv0,p0,0\nv2,p1,1\n"


def test_fractions_are_numbers_of_subjects() -> None:
    assert plan.numbers_of([0.05, 0.1, 0.29, 1.0], [100]) == {5: 0.05, 10: 0.1, 29: 0.29, 100: 1.0}
    assert plan.numbers_of([0.01], [8]) == {1: 0.01}
    with pytest.raises(UserError, match=r"--label_fractions: found 0\.05 and 0\.1, both 1 of 8 subjects"):
        plan.numbers_of([0.05, 0.1], [8, 9])


def test_the_fraction_1_is_all_subjects_of_each_fold(tmp_path: Path) -> None:
    """7 subjects in 3 folds train on 4, 5 and 5; half is of the smallest set in each fold."""
    people = [{"id": f"p{n}", "subject": f"p{n}"} for n in range(7)]
    folds = folds_of({"train": people, "val": [], "test": []}, 3, seed=0)
    pools = {fold: len(found["train"]) for fold, found in folds.items()}
    assert sorted(pools.values()) == [4, 5, 5]
    runner = CellRunner(tmp_path, tmp_path, {}, {}, {}, pools=pools)
    numbers = plan.numbers_of([0.5, 1.0], pools.values())
    assert numbers == {2: 0.5, 5: 1.0}
    for number, expected in ((2, dict.fromkeys(pools, 2)), (5, pools)):
        jobs = {fold: runner.job(Cell(Arm("scratch"), number, 0, fold)) for fold in pools}
        for part in ("finetune", "evaluate"):
            assert {fold: job[part]["num_labelled"] for fold, job in jobs.items()} == expected


@pytest.mark.slow
@pytest.mark.usefixtures("forked_cells")
def test_a_cross_validation_of_graded_pictures(tmp_path: Path) -> None:
    """Six subjects of three grades, the brighter the higher: two folds, one arm, curves; then a report."""
    generator = np.random.default_rng(0)
    (tmp_path / "images").mkdir()
    with (tmp_path / "classes.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "class", "subject"])
        for p in range(6):
            for side in ("left", "right"):
                pixels = generator.integers(0, 40, (40, 40)) + 80 * (p % 3)
                Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / "images" / f"p{p}_{side}.png")
                writer.writerow([f"p{p}_{side}", p % 3, f"p{p}"])
    words = ["--task=classification", "--spatial_dims=2", "--dataset_dir", str(tmp_path / "images")]
    words += ["--class_file", str(tmp_path / "classes.csv"), "--subjects", str(tmp_path / "classes.csv")]
    words += [
        "--profile=laptop",
        "--max_epochs=2",
        "--steps_per_epoch=2",
        "--roi_size=[32,32]",
        "--num_workers=0",
    ]
    words += ["--batch_size=4", "--folds=2", "--label_fractions", "1.0", "--validate_every=1", "--threads=1"]
    words = ["compare", "--output_dir", str(tmp_path / "out"), *words]
    assert main(words) == 0
    results = pd.read_csv(tmp_path / "out" / "results.csv")
    assert len(results) == 12  # each picture is held out once
    assert sorted(results["case"].unique()) == sorted(results["case"])
    assert (results.groupby("subject")["fold"].nunique() == 1).all()
    assert set(results.groupby("fold")["class"].nunique()) == {3}
    assert "quadratic_weighted_kappa" in results
    summary = (tmp_path / "out" / "summary.md").read_text()
    assert "| labelled | arm | fold 0 | fold 1 | balanced accuracy | 95 % |" in summary
    assert "weighted kappa" in summary
    assert "## Speed of convergence" in summary
    assert len(pd.read_csv(tmp_path / "out" / "convergence.csv")) == 4
    for name in ("label_efficiency.png", "convergence.png"):
        assert (tmp_path / "out" / name).read_bytes()[:4] == b"\x89PNG"
    assert main(words) == 0  # all is done already

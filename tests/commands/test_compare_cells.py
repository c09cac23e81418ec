"""The two bundle runs of a cell: what every arm shares, and what is its own."""

from pathlib import Path

from pretext3d.commands.compare import cells
from pretext3d.commands.compare.cells import Arm, Cell
from pretext3d.commands.compare.tasks import CLASSIFICATION

SCRATCH, RESTART, VP = Arm("scratch"), Arm("restart"), Arm("vp", "runs/vp/checkpoints/best.pt", "d1")
COMMON = {"dataset_dir": "data", "max_epochs": 10}


def test_job_has_the_same_budget_and_subset_for_every_arm(tmp_path: Path) -> None:
    tuning = {"max_epochs": 10, "encoder": "unet4"}
    runner = cells.CellRunner(tmp_path, Path("b/configs"), COMMON, tuning, {"dataset_dir": "data"})
    jobs = {arm.name: runner.job(Cell(arm, 4, 2)) for arm in (SCRATCH, RESTART, VP)}
    own = {"pretrained", "keep_head", "output_dir"}
    shared = [{k: v for k, v in job["finetune"].items() if k not in own} for job in jobs.values()]
    assert shared[0] == shared[1] == shared[2]
    assert shared[0]["subset_seed"] == shared[0]["seed"] == 2
    assert shared[0]["val_interval"] > shared[0]["max_epochs"]
    assert "pretrained" not in jobs["scratch"]["finetune"]
    assert jobs["vp"]["finetune"]["pretrained"] == VP.pretrained
    restart = jobs["restart"]["finetune"]
    assert restart["pretrained"] == str(tmp_path / "scratch_n004_seed2" / "checkpoints" / "final.pt")
    assert restart["keep_head"] is True
    assert "keep_head" not in jobs["vp"]["finetune"]
    assert "keep_head" not in jobs["scratch"]["finetune"]
    assert all(job["evaluate"]["weights"] == "final" for job in jobs.values())
    # broken off after an epoch: goes on from there
    (tmp_path / "vp_n004_seed2" / "checkpoints").mkdir(parents=True)
    (tmp_path / "vp_n004_seed2" / "checkpoints" / "epoch_0001.pt").touch()
    assert runner.job(Cell(VP, 4, 2))["finetune"]["resume"] is True
    assert "resume" not in jobs["vp"]["finetune"]


def test_an_arm_keeps_the_output_layer_of_this_segmentation_alone(tmp_path: Path) -> None:
    """restart's is; of other weights only that of a segmentation with the same decoder and classes."""
    here = ("", "background", "liver")
    arms = {
        "same": Arm("same", "a.pt", "d1", here),
        "classes": Arm("classes", "a.pt", "d1", ("", "background", "spleen")),
        "decoder": Arm("decoder", "a.pt", "d1", ("duc", "background", "liver")),
        "vp": VP,
        "restart": RESTART,
        "scratch": SCRATCH,
    }
    runner = cells.CellRunner(tmp_path, tmp_path, COMMON, {}, {}, head=here)
    kept = {name for name, arm in arms.items() if runner.job(Cell(arm, 4, 0))["finetune"].get("keep_head")}
    assert kept == {"same", "restart"}
    # one that was done before, from a new output layer, is not taken for the same
    assert runner.settings(Cell(arms["same"], 4, 0))["keep_head"] is True
    assert "keep_head" not in runner.settings(Cell(VP, 4, 0))


def test_each_seed_of_a_monte_carlo_comparison_splits_anew(tmp_path: Path) -> None:
    for monte_carlo in (False, True):
        runner = cells.CellRunner(tmp_path, tmp_path, {}, {"batch_size": 2}, {}, monte_carlo=monte_carlo)
        job = runner.job(Cell(SCRATCH, 4, 7))
        for part in ("finetune", "evaluate"):  # the cases that are held out are the ones that are measured
            assert job[part].get("split_seed") == (7 if monte_carlo else None)


def test_a_fold_holds_out_the_cases_that_the_file_lists(tmp_path: Path) -> None:
    runner = cells.CellRunner(tmp_path, tmp_path, {}, {"subjects": "mine.csv"}, {}, subjects="folds.csv")
    cell = Cell(SCRATCH, 4, 7, 2)
    assert (cell.name, cell.title) == ("scratch_n004_seed7_fold2", "scratch, 4 labelled, seed 7, fold 2")
    assert Cell(RESTART, 4, 7, 2).needs == cell.name
    job = runner.job(cell)
    for part in ("finetune", "evaluate"):
        assert (job[part]["fold"], job[part]["subjects"]) == (2, "folds.csv")
    assert runner.settings(cell)["fold"] == 2
    assert "fold" not in runner.settings(Cell(SCRATCH, 4, 7))


def test_an_arm_s_own_keys(tmp_path: Path) -> None:
    """The evaluation takes what the checkpoint records, spatial_dims and slices, from there."""
    flat = Arm(
        "flat", "flat.pt", "d2", overrides={"spatial_dims": 2, "precision": "fp32", "encoder": "unet4"}
    )
    runner = cells.CellRunner(
        tmp_path, tmp_path, COMMON, {"encoder": "unet"}, {"encoder": "unet"}, replaced={"spatial_dims"}
    )
    job = runner.job(Cell(flat, 4, 0))
    assert [job["finetune"][key] for key in ("spatial_dims", "precision", "encoder")] == [2, "fp32", "unet4"]
    assert [job["evaluate"].get(key) for key in ("spatial_dims", "precision", "encoder")] == [
        None,
        "fp32",
        "unet4",
    ]
    assert runner.settings(Cell(flat, 4, 0))["overrides"] == flat.overrides
    assert runner.job(Cell(SCRATCH, 4, 0))["finetune"]["encoder"] == "unet"


def test_an_arm_with_another_decoder_has_a_new_output_layer(tmp_path: Path) -> None:
    runner = cells.CellRunner(tmp_path, tmp_path, COMMON, {}, {})
    for own, kept in (({}, True), ({"learning_rate": 1e-4}, True), ({"transfer": "encoder"}, False)):
        job = runner.job(Cell(Arm("restart", overrides=own), 4, 0))
        assert job["finetune"].get("keep_head", False) is kept


def test_a_classification_has_its_own_files_and_no_output_layer_to_keep(tmp_path: Path) -> None:
    runner = cells.CellRunner(tmp_path, tmp_path, COMMON, {}, {}, task=CLASSIFICATION, validate_every=3)
    job = runner.job(Cell(RESTART, 4, 0))
    assert job["finetune"]["config_file"] == str(tmp_path / "finetune_classification.yaml")
    assert job["evaluate"]["config_file"][1] == str(tmp_path / "evaluate_classification.yaml")
    assert job["finetune"]["val_interval"] == 3
    assert "keep_head" not in job["finetune"]
    assert job["evaluate"]["weights"] == "final"  # no validation chooses

"""The two bundle runs of a cell: what every arm shares, and what is its own."""

from pathlib import Path

from pretext3d.commands.compare import cells
from pretext3d.commands.compare.cells import Arm, Cell

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

"""A study with a fake runner: its cells, what each stage runs, resume, what it refuses; one real study."""

import hashlib
import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from pretext3d.__main__ import main
from pretext3d.commands.compare.study import runner
from pretext3d.commands.compare.study import study as studies
from pretext3d.commands.compare.study.cells import screening_cells
from pretext3d.commands.compare.study.choice import planned_cells
from pretext3d.commands.compare.study.plans import read_plan, read_plans
from pretext3d.commands.compare.study.report import write_report
from pretext3d.commands.compare.study.results import Results
from pretext3d.errors import UserError

from tests.commands.study_runs import FakeRunner, builder
from tests.commands.test_study_reading import content, written

EXAMPLE = Path(__file__).parents[2] / "docs" / "studies" / "phantom.yaml"
LONGER = {"profile": "laptop", "max_steps": 12}


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    return builder(tmp_path, monkeypatch)


def test_the_stages_and_what_each_runs(study: Any, tmp_path: Path) -> None:
    run = study()
    assert run("pretraining") == 0
    assert run.runner.ran == ["pretraining/organs/cnn/vp", "pretraining/organs/cnn/cube"]
    run = study()
    assert run("screening") == 0
    # four arms at two rates, with one label and seed
    assert len(run.runner.ran) == 8
    assert "screening/organs/cnn/vp_n001_seed0_lr0.003" in run.runner.ran
    plan = read_plan(run.study, ("organs", "cnn"))
    chosen = {arm: choice.point.rate for arm, choice in plan.choices.items()}
    assert chosen == {"scratch": 0.001, "scratch_long": 0.003, "vp": 0.003, "cube": 0.003}
    # the best one besides scratch and scratch_long is vp: two label counts, two seeds of three arms
    planned = [cell.name for cell in planned_cells(run.cells, read_plans(run.study))]
    assert len(planned) == 12
    assert not any("cube" in name for name in planned)
    run = study()
    assert run() == 0
    assert sorted(run.runner.ran) == sorted(planned)
    again = study()
    assert again() == 0
    assert again.runner.ran == []


def test_the_runs_of_the_cells(study: Any, tmp_path: Path) -> None:
    """Screening measures validation subjects; scratch_long has the steps of both stages."""
    run = study(screening={"max_steps": 6}, validate_every=2)
    run("pretraining")
    cells = {cell.name: cell for cell in screening_cells(run.cells)}
    cell = cells["screening/organs/cnn/vp_n001_seed0_lr0.001"]
    job = run.runner.job(cell)
    assert job["evaluate"]["measured"] == "val"
    assert job["evaluate"]["weights"] == "final"
    tuned = job["finetune"]
    assert (tuned["max_steps"], tuned["learning_rate"], tuned["resume"]) == (6, 0.001, True)
    assert tuned["pretrained"] == str(tmp_path / "runs/cells/pretraining/organs/cnn/vp")
    assert (tuned["test_fraction"], tuned["num_labelled"], tuned["subset_seed"]) == (0.2, 1, 0)
    assert tuned["val_interval"] > 1000
    assert cell.needs == "pretraining/organs/cnn/vp"
    long = cells["screening/organs/cnn/scratch_long_n001_seed0_lr0.001"]
    assert run.runner.job(long)["finetune"]["max_steps"] == 26
    assert "pretrained" not in run.runner.job(long)["finetune"]
    first = run.cells.of_place["organs", "cnn", "vp"]
    trained = run.runner.job(first)["pretrain"]
    assert (trained["test_fraction"], trained["val_fraction"], trained["encoder"]) == (0.2, 0.2, "unet4")
    assert "evaluate" not in run.runner.job(first)
    run("screening")
    confirmed = study(screening={"max_steps": 6}, validate_every=2)
    confirmed()
    done = json.loads(
        (tmp_path / "runs/cells/confirmation/organs/cnn/vp_n002_seed1/settings.json").read_text()
    )
    assert (done["evaluate"]["measured"], done["finetune"]["val_interval"]) == ("test", 2)
    assert (done["finetune"]["max_steps"], done["finetune"]["learning_rate"]) == (10, 0.003)


def test_a_recipe_s_ramp_alone_is_a_point_for_random_weights(study: Any) -> None:
    """From scratch nothing of `slow` applies, and of `sawtooth` and `warmup` their ramp."""
    finetune = {"profile": "laptop", "max_steps": 10, "recipes": {"slow": {"backbone_factor": 0.1}}}
    run = study(recipes=["plain", "slow", "sawtooth", "warmup"], finetune=finetune)
    found: dict[str, list[str]] = {}
    for cell in screening_cells(run.cells):
        if cell.keys["rate"] == 0.001:
            found.setdefault(cell.keys["arm"], []).append(cell.keys["recipe"])
    every = ["plain", "slow", "sawtooth", "warmup"]
    random = ["plain", "sawtooth"]
    assert found == {"scratch": random, "scratch_long": random, "vp": every, "cube": every}


def test_a_recipe_that_there_is_not_is_refused_before_anything_runs(study: Any) -> None:
    run = study(recipes=["plain", "sawtoth"])
    with pytest.raises(UserError, match=r"tiny\.yaml: recipe: found 'sawtoth', expected one of auto, plain"):
        run("screening")
    assert run.runner.ran == []


def test_a_task_may_be_tested_on_other_data(study: Any, tmp_path: Path) -> None:
    """On all of them, whatever was labelled; screening still measures validation subjects of its own data."""
    own = {
        "num_labelled": [1],
        "dataset_dir": "here",
        "subjects": "here.csv",
        "overrides": {"channels": [1, 0]},
    }
    run = study(tasks={"organs": {**own, "test": {"dataset_dir": "there", "channels": [0, 1]}}})
    run()
    screened = run.runner.job(screening_cells(run.cells)[0])["evaluate"]
    assert (screened["measured"], screened["dataset_dir"]) == ("val", str(tmp_path / "here"))
    cell = tmp_path / "runs/cells/confirmation/organs/cnn/vp_n001_seed1/settings.json"
    job = json.loads(cell.read_text())
    assert job["finetune"]["dataset_dir"] == str(tmp_path / "here")
    tested = job["evaluate"]
    assert (tested["measured"], tested["dataset_dir"]) == ("all", str(tmp_path / "there"))
    assert (tested["channels"], tested["subjects"], "num_labelled" in tested) == ([0, 1], "", False)
    assert job["settings"]["tested"] == {"dataset_dir": "there", "channels": [0, 1], "subjects": ""}
    with pytest.raises(
        UserError, match="tasks::organs::test::channels: not found, expected that of these data"
    ):
        study(tasks={"organs": {**own, "test": {"dataset_dir": "there"}}})


def test_tasks_on_the_same_data_share_a_pre_training(study: Any) -> None:
    tasks = {
        "organs": {"num_labelled": [1], "dataset_dir": "heads"},
        "groups": {"num_labelled": [4], "dataset_dir": "heads", "task": "classification"},
        "other": {"num_labelled": [1], "dataset_dir": "heads", "split_seed": 1},
    }
    run = study(tasks=tasks)
    assert {cell.name for cell in run.cells.pretrainings.values()} == {
        f"pretraining/{task}/cnn/{arm}" for task in ("organs", "other") for arm in ("vp", "cube")
    }
    assert run.cells.of_place["groups", "cnn", "vp"].name == "pretraining/organs/cnn/vp"


def test_a_study_runs_task_by_task_with_a_plan_each(study: Any, tmp_path: Path) -> None:
    tasks = {
        "organs": {"num_labelled": [1, 2], "dataset_dir": "heads"},
        "other": {"num_labelled": [1], "dataset_dir": "heads", "split_seed": 1},
    }
    first = study(tasks=tasks, only=["other"])
    assert first() == 0
    assert all("/other/" in name for name in first.runner.ran)
    assert list(read_plans(first.study)) == [("other", "cnn")]
    report = (tmp_path / "docs/studies/tiny/RESULTS.md").read_text()
    assert "1 of 2 tasks with an encoder; not measured yet: organs, cnn." in report
    assert "no verdict before" not in report
    (tmp_path / "docs/studies/tiny/confirmation/other/cnn/vp_n001_seed1.csv").unlink()
    text = write_report(
        first.study, first.cells, read_plans(first.study), Results(first.results.folder)
    ).read_text()
    assert "- other, cnn: no verdict before all cells are measured, and no p-value is final: 5 of 6." in text
    assert "(figures/overview.png)" in text
    (tmp_path / "docs/studies/tiny/confirmation/other/cnn/vp_n001_seed0.csv").unlink()
    text = write_report(
        first.study, first.cells, read_plans(first.study), Results(first.results.folder)
    ).read_text()
    assert "(figures/overview.png)" not in text  # nothing but random weights
    plan = tmp_path / "docs/studies/tiny/plan/other/cnn.yaml"
    chosen = plan.read_bytes()
    second = study(tasks=tasks)
    assert second("pretraining") == 0
    assert second.runner.ran == ["pretraining/organs/cnn/vp", "pretraining/organs/cnn/cube"]
    assert second() == 0
    assert all("/organs/" in name for name in second.runner.ran)
    assert plan.read_bytes() == chosen
    assert list(read_plans(second.study)) == [("organs", "cnn"), ("other", "cnn")]  # as in the study
    assert "not measured yet" not in (tmp_path / "docs/studies/tiny/RESULTS.md").read_text()


def test_a_study_runs_one_encoder_of_a_task(study: Any, tmp_path: Path) -> None:
    encoders = {"cnn": {"encoder": "unet4"}, "other": {"encoder": "unet"}}
    run = study(encoders=encoders, only=["organs/other"])
    assert run() == 0
    assert all("/organs/other/" in name for name in run.runner.ran)
    assert list(read_plans(run.study)) == [("organs", "other")]
    with pytest.raises(UserError, match="--tasks organs/: found 'vit', expected an encoder of organs"):
        study(encoders=encoders, only=["organs/vit"])


def test_arms_of_confirmation_by_task_and_encoder(study: Any) -> None:
    confirmation = {"by_task": {"organs": {"cnn": ["cube"]}}}
    run = study(confirmation=confirmation)
    run("screening")
    assert set(run.plans()["organs", "cnn"].arms) == {"scratch", "scratch_long", "cube"}
    with pytest.raises(UserError, match=r"by_task::organs::cnn: found 'cub', .*did you mean cube"):
        study(confirmation={"by_task": {"organs": {"cnn": ["cub"]}}})


def test_another_machine_goes_on_from_the_results(
    study: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the folders of the runs nothing is done again, not even a pre-training; one more seed is.

    The version and the digests in a result are those of when the cell was started.
    """
    study()()
    away = study(runs="elsewhere")
    assert away() == 0
    assert away.runner.ran == []
    file = tmp_path / "docs/studies/tiny/confirmation/organs/cnn/vp_n002_seed1.csv"
    before = file.read_text()
    file.unlink()
    away = study(runs="elsewhere")
    assert away() == 0
    assert away.runner.ran == ["pretraining/organs/cnn/vp", "confirmation/organs/cnn/vp_n002_seed1"]
    seconds = re.compile(r'"seconds": [\d.]+')
    assert seconds.sub("", file.read_text()) == seconds.sub("", before)
    head = json.loads(before.partition("\n")[0][2:])
    trained = head["pretraining"]
    assert trained["weights"] == hashlib.sha256(b"weights").hexdigest()
    assert len({trained["configuration"], head["configuration"]}) == 2
    # where the folder of the run is still there, its result is written again
    file.unlink()
    monkeypatch.setattr(runner, "__version__", "99")
    home = study()
    assert home() == 0
    assert home.runner.ran == []
    assert json.loads(file.read_text().partition("\n")[0][2:])["version"] == head["version"] != "99"


def test_other_settings_are_refused_by_name(study: Any, tmp_path: Path) -> None:
    study()("screening")
    with pytest.raises(
        UserError, match=r"lr0.001.csv: was measured with other settings: overrides::max_steps"
    ):
        study(finetune=LONGER)("screening")
    for file in (tmp_path / "docs/studies/tiny/screening").rglob("*.csv"):
        file.unlink()
    with pytest.raises(UserError, match=r"seed0_lr0.001: was run with other settings: .* 10 there, 12 now"):
        study(finetune=LONGER)("screening")
    assert study(runs="new", finetune=LONGER)("screening") == 0


def test_a_pre_training_with_other_settings_is_other_weights(study: Any) -> None:
    study()("screening")
    with pytest.raises(UserError, match=r"was measured with other settings: (overrides::|pretrained)"):
        study(runs="new", pretrain={"profile": "laptop", "max_steps": 40})("screening")


def test_a_failed_cell_ends_its_stage(
    study: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """There is no choice without all scores; the same command tries the cell again."""
    monkeypatch.setattr(FakeRunner, "fails", "pretraining/organs/cnn/vp")
    run = study()
    assert run() == 1
    assert not (tmp_path / "docs/studies/tiny/plan").exists()
    out = capsys.readouterr()
    assert "error: no such volume" in out.out
    assert "not run: pretraining/organs/cnn/vp failed, whose weights it starts from" in out.out
    assert "3 cells failed: " in out.err
    monkeypatch.setattr(FakeRunner, "fails", "")
    again = study()
    assert again("screening") == 0
    assert len(again.runner.ran) == 3


def test_more_labels_than_subjects_are_refused_before_anything_runs(study: Any) -> None:
    run = study(tasks={"organs": {"num_labelled": [1, 41]}})
    with pytest.raises(
        UserError, match="tasks::organs::num_labelled: found 41, expected at most 40: the lab"
    ):
        run()
    assert run.runner.ran == []
    run = study(tasks={"organs": {"label_fractions": [0.05, 0.06]}})
    with pytest.raises(UserError, match=r"label_fractions: found .0.05, 0.06., which are .2, 2. of 40 sub"):
        run()


def test_weights_of_a_file_are_known_by_their_content(
    study: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # paths of weights are from the working folder, not from that of the data
    (tmp_path / "w.pt").write_bytes(b"weights")
    arms = {"vp": {"pretrained": "w.pt"}}
    more = {"arms": arms, "always": ["scratch"], "pretrain": {}}
    run = study(**more)
    cell = screening_cells(run.cells)[-1]
    assert cell.settings["pretrained"] == hashlib.sha256(b"weights").hexdigest()[:16]
    assert run.runner.job(cell)["finetune"]["pretrained"] == str(tmp_path / "w.pt")
    (tmp_path / "w.pt").write_bytes(b"others")
    assert screening_cells(study(**more).cells)[-1].digest != cell.digest
    with pytest.raises(UserError, match=r"arms::vp::pretrained: .*none.pt: not found"):
        screening_cells(study(**{**more, "arms": {"vp": {"pretrained": "none.pt"}}}).cells)


def test_the_length_of_scratch_long_has_to_be_known(study: Any) -> None:
    with pytest.raises(
        UserError, match="as_long_as: the steps of vp are not known; expected max_steps in pret"
    ):
        screening_cells(study(pretrain={"profile": "laptop"}).cells)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--study none.yaml", "none.yaml: cannot be read"),
        ("--study none.yaml --arms scratch vp=x", "--arms: found with --study; expected it in none.yaml"),
        ("--study none.yaml --max_epochs 3", "--max_epochs: found with --study; expected it in none.yaml"),
        ("--stage screening", "--stage: found without --study"),
        ("--accept_plan", "--accept_plan: found without --study"),
        ("--study none.yaml --jobs 0", "--jobs, --threads: found 0, 0"),
        ("--engine_options {partition: gpu}", "--engine_options: found without --engine submitit"),
    ],
)
def test_mistakes_on_the_command_line(words: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", *words.split(maxsplit=1 if "{" in words else -1)]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert re.search(message, error)


@pytest.mark.parametrize(
    ("words", "folder"), [([], "runs/tiny"), (["--output_dir", "runs/compare"], "runs/compare")]
)
def test_the_folder_of_the_runs(
    words: list[str],
    folder: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def lock(path: Path) -> None:
        raise UserError(f"locks {path}")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(studies, "lock", lock)
    assert main(["compare", "--study", str(written(tmp_path, content())), *words]) == 2
    assert f"locks {tmp_path / folder}\n" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.usefixtures("forked_cells")
def test_the_study_of_the_phantom(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The example of the docs, shorter: screening, then all of it."""
    example = yaml.safe_load(EXAMPLE.read_text())
    example |= {"rates": [0.003], "seeds": [0], "validate_every": 1, "screening": {"max_steps": 2}}
    example |= {"results_dir": str(tmp_path / "results"), "always": ["scratch"]}
    del example["arms"]["scratch_long"]
    example["pretrain"] |= {"max_steps": 2, "steps_per_epoch": 2, "roi_size": [16, 16, 16]}
    example["finetune"] |= {"max_steps": 2, "steps_per_epoch": 1, "pixdim": 8}
    example["tasks"]["organs"]["num_labelled"] = [1]
    words = ["compare", "--study", str(written(tmp_path, example)), "--output_dir", str(tmp_path / "runs")]
    words += ["--jobs", "2"]
    assert main([*words, "--stage", "screening"]) == 0
    # a pre-training, and screening of two arms
    assert "3 cells, 0 of them done already" in capsys.readouterr().out
    assert main(words) == 0
    assert "2 cells, 2 of them done already" in capsys.readouterr().out
    results = tmp_path / "results"
    screened = next((results / "screening").rglob("vectorpose*.csv")).read_text().partition("\n")[2]
    confirmed = next((results / "confirmation").rglob("vectorpose*.csv"))
    # validation subjects choose, test subjects are measured
    names = [{line.split(",")[0] for line in text.splitlines()[1:]} for text in (screened, "")]
    head, _, table = confirmed.read_text().partition("\n")
    names[1] = {line.split(",")[0] for line in table.splitlines()[1:]}
    assert all(names)
    assert not names[0] & names[1]
    assert [step for _, step, _ in json.loads(head[2:])["curve"]] == [1, 2]
    log = (tmp_path / "runs/cells/confirmation/organs/cnn/vectorpose_n001_seed0/output.log").read_text()
    assert "100.0% of the backbone's parameters" in log
    assert list((tmp_path / "runs/cells").rglob("epoch_*.pt")) == []
    text = (results / "RESULTS.md").read_text()
    assert "2 of 2 cells." in text
    assert "| arm | Dice, 1 | to scratch |" in text

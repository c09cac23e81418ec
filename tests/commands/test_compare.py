"""The compare command: the numbers of its tables, what it skips, resumes, refuses, and a real comparison."""

import json
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from pretext3d.__main__ import main
from pretext3d.commands.compare import cells, compare, plan, report
from pretext3d.commands.compare.cells import Arm, Cell
from pretext3d.commands.compare.running import run_cells
from pretext3d.commands.compare.tasks import SEGMENTATION
from pretext3d.commands.parser import read_overrides
from pretext3d.errors import UserError

from tests.bundles.command import call

SCRATCH, RESTART, VP = Arm("scratch"), Arm("restart"), Arm("vp", "runs/vp/checkpoints/best.pt", "d1")
COMMON = {"dataset_dir": "data", "max_epochs": 10}


def table(dice: dict[str, float], hd95: float = 2.0) -> pd.DataFrame:
    """An evaluation.csv: `{"a/left": 0.5}` is case a, class left; a Dice of 0 has no distance."""
    rows = [[*key.split("/"), d, d / (2 - d), np.nan if d == 0 else hd95, 1.0] for key, d in dice.items()]
    return pd.DataFrame(rows, columns=["case", "class", "dice", "iou", "hd95_mm", "surface_distance_mm"])


class FakeRunner(cells.CellRunner):
    """Instead of training: a Dice that is a function of the cell; notes which cells ran."""

    def __init__(self, folder: Path, common: dict[str, Any] = COMMON, fails: str = "") -> None:
        super().__init__(folder, Path("configs"), common, {"max_epochs": 10}, {}, descriptors=())
        self.fails, self.ran = fails, []

    def _run(self, command: Any, log: Any) -> int:
        folder = Path(command[-1])
        self.ran.append(folder.name)
        if folder.name == self.fails:
            log.write("working: 50%|###\rpreparing\nerror: no such weights\n")
            log.flush()
            return 1
        bonus = {"scratch": 0.0, "restart": 0.01, "vp": 0.05}[folder.name.split("_")[0]]
        table({"a/left": 0.5 + bonus, "b/left": 0.7 + bonus}).to_csv(folder / "evaluation.csv", index=False)
        return 0


def run(runner: Any, output_dir: Path, todo: list[Cell], jobs: int = 1) -> list[str]:
    return compare.run_all(todo, runner, output_dir, jobs)


# ------------------------------------------------------------------------------------------------ numbers
def test_mean_of_a_case_is_over_classes_and_counts_missing_distances() -> None:
    # case a: left 0.8 at 2 mm, right missed (Dice 0, no distance): Dice 0.4, HD95 2. case b: right in neither
    results = table({"a/left": 0.8, "a/right": 0.0, "b/left": 0.6, "b/right": np.nan})
    results.loc[3, "hd95_mm"] = np.nan
    cases = SEGMENTATION.per_case(results.assign(arm="scratch", num_labelled=4, seed=0)).set_index("case")
    assert cases["dice"].to_dict() == {"a": 0.4, "b": 0.6}
    assert cases["hd95_mm"].to_dict() == {"a": 2.0, "b": 2.0}
    assert cases["pairs"].to_dict() == {"a": 2, "b": 1}
    assert cases["no_distance"].to_dict() == {"a": 1, "b": 0}


def test_bootstrap_of_equal_differences_has_no_width() -> None:
    mean, low, high = report.bootstrap(np.full((3, 5), 0.25))
    np.testing.assert_allclose([mean, low, high], 0.25, atol=1e-12)


def test_bootstrap_of_two_seeds_by_hand() -> None:
    # seeds of differences 0 and 1, equal in all cases. Drawing two seeds gives the mean 0 (1 in 4), 0.5
    # (2 in 4) or 1 (1 in 4): the 95 % interval is [0, 1], that at 40 % (quantiles 0.3 and 0.7) is [0.5, 0.5].
    pairs = np.array([[0.0, 0.0, 0.0], [1.0, 1.0, 1.0]])
    assert report.bootstrap(pairs) == (0.5, 0.0, 1.0)
    assert report.bootstrap(pairs, level=0.4) == (0.5, 0.5, 0.5)
    # two seeds with one case each: the same draws of seeds decide, whatever is drawn of their one case
    own = np.array([[0.0, np.nan], [np.nan, 1.0]])
    assert report.bootstrap(own, nested=True) == (0.5, 0.0, 1.0)
    assert report.bootstrap(own, nested=True, level=0.4) == (0.5, 0.5, 0.5)


def test_bootstrap_over_cases_of_one_seed_has_the_width_of_theory() -> None:
    # 400 cases of values 0 and 1 in equal parts: standard error sqrt(0.25 / 400) = 0.025, 1.96 of it 0.049
    mean, low, high = report.bootstrap(np.tile([0.0, 1.0], 200)[None])
    assert mean == 0.5
    np.testing.assert_allclose([low, high], [0.451, 0.549], atol=0.003)  # 10,000 draws; steps of 1 / 400


def test_bootstrap_is_seeded_and_leaves_missing_pairs_out() -> None:
    pairs = np.random.default_rng(1).normal(size=(3, 8))
    assert report.bootstrap(pairs) == report.bootstrap(pairs)
    holed = pairs.copy()
    holed[1, 2] = np.nan
    assert report.bootstrap(holed)[0] == pytest.approx(np.nanmean(holed))


def test_difference_is_paired_by_seed_and_case() -> None:
    # scratch a 0.5, b 0.9; vp a 0.6, b 0.9: differences 0.1 and 0. Seed 1 has no scratch, case c no vp.
    tables = [
        table({"a/x": 0.5, "b/x": 0.9, "c/x": 0.1}).assign(arm="scratch", num_labelled=4, seed=0),
        table({"a/x": 0.6, "b/x": 0.9}).assign(arm="vp", num_labelled=4, seed=0),
        table({"a/x": 1.0}).assign(arm="vp", num_labelled=4, seed=1),
    ]
    cases = SEGMENTATION.per_case(pd.concat(tables))
    pair = report.paired_difference(cases, "vp", "scratch", 4)
    assert pair is not None
    assert pair["mean"] == pytest.approx(0.05)
    assert (pair["seeds"], pair["cases"]) == (1, 2)
    assert pair["low"] == pytest.approx(0.0)
    assert pair["high"] == pytest.approx(0.1)
    assert report.paired_difference(cases, "vp", "scratch", 12) is None


def test_the_interval_draws_subjects_with_all_their_volumes() -> None:
    # a and b of anna gain 0.1, c and d of ben nothing: drawn are both volumes of anna or none, as in
    # test_bootstrap_of_two_seeds_by_hand
    gain = {"a/x": 0.6, "b/x": 0.6, "c/x": 0.5, "d/x": 0.5}
    people = {"a": "anna", "b": "anna", "c": "ben", "d": "ben"}
    tables = [
        table(dict.fromkeys(gain, 0.5)).assign(arm="scratch", num_labelled=4, seed=0),  # not known here
        table(gain).assign(arm="vp", num_labelled=4, seed=0),
    ]
    tables[1]["subject"] = tables[1]["case"].map(people)
    cases = SEGMENTATION.per_case(pd.concat(tables))
    assert cases.set_index("case")["subject"].to_dict() == people
    pair = report.paired_difference(cases, "vp", "scratch", 4)
    assert pair is not None
    assert (pair["cases"], pair["subjects"]) == (4, 2)
    assert [pair["mean"], pair["low"], pair["high"]] == pytest.approx([0.05, 0.0, 0.1])
    text = report.summary_text(pd.concat(tables), ["scratch", "vp"], COMMON)
    assert "2 cells, 4 held-out cases of 2 subjects." in text
    assert "draws of seeds and of subjects" in text


def test_summary_by_hand() -> None:
    tables = [  # scratch: seeds 0.6 and 0.8, mean 0.7, standard deviation 0.1414; vp: 0.9 and 0.9
        table({"a/x": 0.6}).assign(arm="scratch", num_labelled=4, seed=0),
        table({"a/x": 0.8}).assign(arm="scratch", num_labelled=4, seed=1),
        table({"a/x": 0.9}).assign(arm="vp", num_labelled=4, seed=0),
        table({"a/x": 0.9}).assign(arm="vp", num_labelled=4, seed=1),
        table({"a/x": 0.0}).assign(arm="vp", num_labelled=12, seed=0),
    ]
    text = report.summary_text(pd.concat(tables), ["scratch", "vp"], COMMON, planned=6, warnings=["beware"])
    assert "5 of 6 cells, 1 held-out cases" in text
    assert "dataset_dir data, max_epochs 10" in text
    assert "**Warning**: beware" in text
    rows = [line for line in text.splitlines() if line.startswith("|")][2:]
    assert rows == [
        # iou: (0.6 / 1.4 + 0.8 / 1.2) / 2 = 0.548, 0.9 / 1.1 = 0.818
        "| 4 | scratch | 0.700 ± 0.141 | 0.548 | 2.00 ± 0.00 | 0 of 2 |  |  | 2 |",
        # one subject: whatever its sign, the mean is as far from 0
        "| 4 | vp | 0.900 ± 0.000 | 0.818 | 2.00 ± 0.00 | 0 of 2 | +0.200 [+0.100, +0.300] | 1.000 | 2 |",
        "| 12 | vp | 0.000 | 0.000 | none | 1 of 1 |  |  | 1 |",
    ]


def test_p_values_are_corrected_for_the_arms_with_as_many_labels() -> None:
    """vp and twin gain .1, .2, .3, .4 of four subjects (2 of 16 patterns), roi -.1, .2, .3, -.4 (all)."""
    gains = {"scratch": [0, 0, 0, 0], "vp": [1, 2, 3, 4], "twin": [1, 2, 3, 4], "roi": [-1, 2, 3, -4]}
    tables = [
        table({f"c{n}/x": 0.5 + gain / 10 for n, gain in enumerate(each)}).assign(
            arm=arm, num_labelled=number, seed=0
        )
        for arm, each in gains.items()
        for number in (4, 12)
        if (arm, number) not in (("twin", 12), ("roi", 12))
    ]
    found = report.summarise(pd.concat(tables), [*gains]).set_index(["num_labelled", "arm"])["difference_p"]
    # with 4 labels 3 x 0.125, with 12 labels there is one arm
    assert found[4].dropna().to_dict() == pytest.approx({"vp": 0.375, "twin": 0.375, "roi": 1.0})
    assert found[12].dropna().to_dict() == pytest.approx({"vp": 0.125})


# -------------------------------------------------------------------------------------------------- cells
def test_cells_run_once_and_the_report_is_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    todo = [Cell(arm, 4, seed) for seed in (0, 1) for arm in (RESTART, SCRATCH, VP)]
    first = FakeRunner(tmp_path / "cells")
    assert run(first, tmp_path, todo) == []
    assert sorted(first.ran) == sorted(cell.name for cell in todo)
    # restart comes first in the list, but waits for the weights of its scratch cell
    assert first.ran.index("scratch_n004_seed0") < first.ran.index("restart_n004_seed0")
    out = capsys.readouterr().out
    assert "[6/6]" in out
    assert "vp, 4 labelled, seed 1: Dice 0.650" in out
    summary = (tmp_path / "summary.md").read_text()
    assert "+0.050 [+0.050, +0.050]" in summary
    results = pd.read_csv(tmp_path / "results.csv")
    assert list(results.columns) == list(SEGMENTATION.columns)
    assert len(results) == 12
    assert (tmp_path / "label_efficiency.png").read_bytes()[:4] == b"\x89PNG"

    (tmp_path / "cells" / "vp_n004_seed1" / "done.json").unlink()  # broken off
    again = FakeRunner(tmp_path / "cells")
    assert run(again, tmp_path, [*todo, Cell(VP, 12, 0)], jobs=2) == []
    assert sorted(again.ran) == ["vp_n004_seed1", "vp_n012_seed0"]


def test_other_settings_are_refused_by_name(tmp_path: Path) -> None:
    run(FakeRunner(tmp_path / "cells"), tmp_path, [Cell(VP, 4, 0)])
    longer = {**COMMON, "max_epochs": 20}
    with pytest.raises(UserError, match="max_epochs: 10 there, 20 now"):
        FakeRunner(tmp_path / "cells", longer).is_done(Cell(VP, 4, 0))
    with pytest.raises(UserError, match=r"vp_n004_seed0: was run with other settings: .*10 there, 20 now"):
        compare.check_earlier(tmp_path, longer)
    compare.check_earlier(tmp_path, COMMON)
    retrained = Cell(Arm("vp", VP.pretrained, "d2"), 4, 0)
    with pytest.raises(UserError, match="pretrained: d1 there, d2 now"):
        FakeRunner(tmp_path / "cells").is_done(retrained)
    assert FakeRunner(tmp_path / "cells").is_done(Cell(Arm("vp", "moved.pt", "d1"), 4, 0))


def test_a_failed_cell_shows_its_log_and_the_others_go_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    todo = [Cell(arm, 4, 0) for arm in (SCRATCH, RESTART, VP)]
    failed = run(FakeRunner(tmp_path / "cells", fails="scratch_n004_seed0"), tmp_path, todo)
    assert sorted(failed) == ["restart_n004_seed0", "scratch_n004_seed0"]
    out = capsys.readouterr().out
    assert "FAILED: exit code 1" in out
    assert "error: no such weights" in out
    assert "50%|" not in out
    assert "restart, 4 labelled, seed 0: FAILED: not run: scratch_n004_seed0 failed" in out
    assert compare.ending(tmp_path, failed) == 1
    assert set(pd.read_csv(tmp_path / "results.csv")["arm"]) == {"vp"}
    assert run(FakeRunner(tmp_path / "cells"), tmp_path, todo) == []


def test_the_encoder_is_the_profile_s_in_2d(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """That of the row laptop_2d, not of laptop; cases are counted as volumes, not as slices."""
    found = {
        part: [{"id": f"{part}/slice{i}", "volume": part, "subject": part, "image": part} for i in range(3)]
        for part in ("train", "val")
    }
    found |= {"test": [], "class_names": ["background", "liver"]}
    started = []

    def resolve(config: Path, given: dict[str, Any], keys: list[str]) -> dict[str, Any]:
        return {**plan.resolved(config, given, [key for key in keys if key != "cases"]), "cases": found}

    monkeypatch.setattr(compare, "resolved", resolve)
    monkeypatch.setattr(compare, "run_all", lambda cells, runner, *_: started.append(runner) or [])
    words = ["--spatial_dims", "2", "--profile", "laptop", "--profiles::laptop_2d::encoder", "resnet10"]
    words += ["--num_labelled", "1", "--output_dir", str(tmp_path)]
    assert main(["compare", *words]) == 0
    assert started[0].tuning["encoder"] == "resnet10"
    assert started[0].head == ("", "background", "liver")
    saved = json.loads((tmp_path / "comparison.json").read_text())
    assert (saved["held_out"]["0"], saved["labelled_pool"]["0"]) == (["val"], ["train"])


def test_several_data_sets_are_a_list(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Their paths are absolute, and reach the cells as typed: a `$` begins no expression."""
    given: list[dict[str, Any]] = []

    def resolve(config: Path, overrides: dict[str, Any], keys: list[str]) -> dict[str, Any]:
        given.append(overrides)
        raise UserError("no further")

    monkeypatch.setattr(compare, "resolved", resolve)
    monkeypatch.chdir(tmp_path)
    for name in ("HEADS", "$x"):
        (tmp_path / name).mkdir()
    for typed in ("['HEADS','$x']", "HEADS", ""):
        main(["compare", "--dataset_dir", typed, "--output_dir", "out"])
    expected = [[f"{tmp_path}/HEADS", f"{tmp_path}/$x"], f"{tmp_path}/HEADS", ""]
    assert [each["dataset_dir"] for each in given] == expected


def test_cells_run_side_by_side() -> None:
    together = threading.Barrier(2, timeout=30)  # breaks, and both cells fail, unless two run at once

    class Meeting:
        def __call__(self, cell: Cell) -> float:
            together.wait()
            return 0.5

    todo = [Cell(SCRATCH, 4, 0), Cell(VP, 4, 0)]
    assert run_cells(todo, set(), Meeting(), 2, lambda *_: None) == []


def test_stopping_ends_the_processes(tmp_path: Path) -> None:
    class Sleeper(cells.CellRunner):
        def _run(self, command: Any, log: Any) -> int:
            return super()._run([sys.executable, "-c", "import time; time.sleep(600)"], log)

    runner = Sleeper(tmp_path / "cells", Path("configs"), COMMON, {}, {})
    stopped: list[BaseException] = []

    def work() -> None:
        try:
            runner(Cell(VP, 4, 0))
        except RuntimeError as error:
            stopped.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    until = time.monotonic() + 30
    while not runner.processes and time.monotonic() < until:
        pass
    process = next(iter(runner.processes))
    runner.stop()
    thread.join(30)
    assert process.returncode == -signal.SIGTERM
    assert str(stopped[0]) == "stopped"
    assert not (tmp_path / "cells" / "vp_n004_seed0" / "done.json").exists()
    with pytest.raises(RuntimeError, match="stopped"):  # and starts no other
        runner(Cell(VP, 12, 0))


def test_ctrl_c_stops_the_runner() -> None:
    class Interrupted:
        calls = 0

        def __call__(self, cell: Cell) -> float:
            return 0.5

        def stop(self) -> None:
            self.calls += 1

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    runner = Interrupted()
    with pytest.raises(KeyboardInterrupt):
        run_cells([Cell(VP, 4, 0), Cell(VP, 4, 1)], set(), runner, 1, interrupt)
    assert runner.calls == 1


def test_report_refuses_cells_of_different_budgets(tmp_path: Path) -> None:
    run(FakeRunner(tmp_path / "cells"), tmp_path, [Cell(VP, 4, 0)])
    other = FakeRunner(tmp_path / "cells", {**COMMON, "max_epochs": 20})
    other(Cell(SCRATCH, 4, 0))
    with pytest.raises(UserError, match=r"different settings: max_epochs"):
        report.write_report(tmp_path)


# -------------------------------------------------------------------------------------------- command line
def test_overrides_are_read_as_the_bundle_reads_them() -> None:
    words = ["--max_epochs", "3", "--optimizer::lr=0.01", "--datalist", "none", "--channels", "[0,1]"]
    words += ["--skip_bad", "True"]
    read = read_overrides(words)
    expected = {"max_epochs": 3, "optimizer::lr": 0.01, "datalist": "none", "channels": [0, 1]}
    assert read == {**expected, "skip_bad": True}
    for words, message in ((["5"], "5: not expected"), (["--resume"], "--resume: has no value")):
        with pytest.raises(UserError, match=message):
            read_overrides(words)


def test_a_folder_in_use_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("fcntl")
    with compare.lock(tmp_path) as descriptors:
        assert len(descriptors) == 1
        with pytest.raises(UserError, match="is running there"), compare.lock(tmp_path):
            pass
    with compare.lock(tmp_path):
        pass


@pytest.mark.slow
def test_a_comparison_on_the_phantom(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Two arms, one from the other's weights, through the real command lines; then again."""
    tiny = ["--max_epochs=1", "--steps_per_epoch=2", "--roi_size=[32,32,32]", "--num_workers=0", "--pixdim=8"]
    tiny.append("--val_fraction=0.1")
    arms = ["--arms", "scratch", "restart", "--num_labelled", "2", "--seeds", "0", "--threads", "1"]
    tiny.append("--profile=laptop")
    again = ["compare", "--output_dir", str(tmp_path / "out"), *arms, *tiny]
    first = call("pretext3d", *again)
    assert first.returncode == 0, first.stdout + first.stderr
    results = pd.read_csv(tmp_path / "out" / "results.csv")
    assert set(results["arm"]) == {"scratch", "restart"}
    held_out = json.loads((tmp_path / "out" / "comparison.json").read_text())["held_out"]["0"]
    assert sorted(results["case"].astype(str).unique()) == held_out
    log = (tmp_path / "out" / "cells" / "restart_n002_seed0" / "output.log").read_text()
    assert "scratch_n002_seed0/checkpoints/final.pt" in log
    assert "100.0% of the backbone's parameters" in log

    assert main(again) == 0
    assert "2 cells, 2 of them done already" in capsys.readouterr().out
    assert main([*again, "--num_labelled", "999"]) == 2
    assert "--num_labelled: found 999, expected at most" in capsys.readouterr().err
    assert main([*again, "--batch_size", "1"]) == 2
    assert "batch_size: 2 there, 1 now" in capsys.readouterr().err

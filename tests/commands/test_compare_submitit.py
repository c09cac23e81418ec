"""Cells as submitit's jobs: their order, failures, options, requeue; a comparison on its local executor."""

import json
import os
import pickle
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from pretext3d.__main__ import main
from pretext3d.commands.compare import submitting
from pretext3d.commands.compare.cells import Arm, Cell
from pretext3d.commands.compare.processes import ProcessRunner, resumable
from pretext3d.commands.compare.submitting import FolderTask, read_engine_options, submitit_engine
from pretext3d.errors import UserError

from tests.commands.test_compare import FakeRunner

submitit = pytest.importorskip("submitit")
# submitit's debug executor leaves the files of its log open
OPEN_LOGS = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
SCRATCH, RESTART, VP = Arm("scratch"), Arm("restart"), Arm("vp", "runs/vp/checkpoints/best.pt", "d1")


class HereRunner(ProcessRunner):
    """In the task, which the debug executor runs in this process: the fake runner's training."""

    fails = ""

    def _run(self, command: Any, log: Any) -> int:
        return FakeRunner._run(self, command, log)  # type: ignore[arg-type]


@pytest.fixture
def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    HereRunner.ran = []
    monkeypatch.setattr(submitting, "ProcessRunner", HereRunner)
    monkeypatch.setattr(HereRunner, "fails", "")
    monkeypatch.setenv("PYTHONPATH", os.environ.get("PYTHONPATH", ""))
    return submitit_engine(tmp_path / "submitit", {"cluster": "debug"})


@OPEN_LOGS
def test_the_cells_are_those_of_jobs(tmp_path: Path, engine: Any) -> None:
    """restart waits for its scratch cell; done.json and scores are the same as without a cluster."""
    todo = [Cell(arm, 4, seed) for seed in (0, 1) for arm in (RESTART, SCRATCH, VP)]
    told: list[tuple[str, float | None]] = []
    runner = FakeRunner(tmp_path / "cells")
    failed = engine(
        todo, set(), runner, 2, lambda cell, score, problem, seconds: told.append((cell.name, score))
    )
    assert failed == []
    assert HereRunner.ran.index("scratch_n004_seed0") < HereRunner.ran.index("restart_n004_seed0")
    assert dict(told)["vp_n004_seed1"] == pytest.approx(0.65)
    assert all(runner.is_done(cell) for cell in todo)
    assert list((tmp_path / "cells").rglob("submitted.json")) == []
    job = json.loads((tmp_path / "cells" / "vp_n004_seed0" / "settings.json").read_text())
    assert job["finetune"]["resume"] is True  # it may be requeued
    assert "resume" not in job["evaluate"]


@OPEN_LOGS
def test_a_cell_whose_result_cannot_be_read_has_failed(tmp_path: Path, engine: Any) -> None:
    class Unreadable(FakeRunner):
        def finish(self, cell: Cell, seconds: float) -> float:
            raise OSError("evaluation.csv: cannot be read")

    problems: dict[str, tuple[float | None, str]] = {}

    def finished(cell: Cell, score: float | None, problem: str, seconds: float) -> None:
        problems[cell.name] = score, problem

    assert engine([Cell(VP, 4, 0)], set(), Unreadable(tmp_path / "cells"), 1, finished) == ["vp_n004_seed0"]
    assert problems == {"vp_n004_seed0": (None, "evaluation.csv: cannot be read")}


@OPEN_LOGS
@pytest.mark.parametrize("jobs", [1, 2])
def test_a_cell_whose_weights_cannot_be_read_stops_no_other(tmp_path: Path, engine: Any, jobs: int) -> None:
    """But for one that needs it, which is named."""

    class Unreadable(FakeRunner):
        def job(self, cell: Cell) -> dict[str, Any]:
            if cell.arm is SCRATCH:
                raise OSError("data.json: cannot be read")
            return super().job(cell)

    problems: dict[str, str] = {}
    todo = [Cell(arm, 4, 0) for arm in (SCRATCH, VP, RESTART)]
    runner = Unreadable(tmp_path / "cells")
    failed = engine(
        todo, set(), runner, jobs, lambda cell, score, text, _: problems.update({cell.name: text})
    )
    assert sorted(failed) == ["restart_n004_seed0", "scratch_n004_seed0"]
    assert problems["scratch_n004_seed0"] == "data.json: cannot be read"
    assert problems["vp_n004_seed0"] == ""
    assert problems["restart_n004_seed0"].startswith("not run: scratch_n004_seed0 failed")


@OPEN_LOGS
def test_a_failed_task_and_those_that_need_it(tmp_path: Path, engine: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(HereRunner, "fails", "scratch_n004_seed0")
    problems: dict[str, str] = {}
    todo = [Cell(arm, 4, 0) for arm in (SCRATCH, RESTART, VP)]
    runner = FakeRunner(tmp_path / "cells")
    failed = engine(todo, set(), runner, 1, lambda cell, score, text, _: problems.update({cell.name: text}))
    assert sorted(failed) == ["restart_n004_seed0", "scratch_n004_seed0"]
    assert "error: no such weights" in problems["scratch_n004_seed0"]
    assert problems["restart_n004_seed0"].startswith("not run: scratch_n004_seed0 failed")
    assert problems["vp_n004_seed0"] == ""


def test_a_preempted_task_ends_its_process_and_is_requeued() -> None:
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
    task = FolderTask(threads=2)
    task.runner = ProcessRunner(2)
    task.runner.processes.add(process)
    again = task.checkpoint("cells/vp")
    assert process.wait(30) == -signal.SIGTERM
    assert isinstance(again.function, FolderTask)
    assert (again.function.threads, again.args, again.function.runner) == (2, ("cells/vp",), None)


def test_a_preempted_process_that_does_not_end_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    code = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(1, flush=True)"
    command = [sys.executable, "-c", f"{code}; time.sleep(600)"]
    monkeypatch.setattr(submitting, "PATIENCE", 0.3)
    with subprocess.Popen(command, start_new_session=True, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.readline()
        task = FolderTask(1)
        task.runner = ProcessRunner(1)
        task.runner.processes.add(process)
        task.checkpoint("cells/vp")
        assert process.wait(30) == -signal.SIGKILL
    assert submitting.has_ended(process.pid, 0.0)  # no child any more


def test_tasks_of_an_earlier_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One that runs, or has a result, is not submitted again; one that failed is."""
    cells = [Cell(VP, 4, seed) for seed in range(4)]
    runner = FakeRunner(tmp_path / "cells")
    monkeypatch.setattr(submitit.SlurmJob, "_results_timeout_s", 0)  # for a result on a slow file system
    states = {"31_0": "RUNNING", "31_1": "FAILED", "31_2": "COMPLETED"}
    for cell, job_id in zip(cells, states, strict=False):
        runner.folder(cell).mkdir(parents=True)
        task = {"job_id": job_id, "cluster": "slurm"}
        (runner.folder(cell) / "submitted.json").write_text(json.dumps(task))
    result = submitit.SlurmJob(tmp_path, "31_2").paths.result_pickle
    result.parent.mkdir(parents=True, exist_ok=True)
    result.write_bytes(pickle.dumps(("success", (12.0, ""))))
    lines = "".join(f"{job_id}|{state}|\\n" for job_id, state in states.items())
    (tmp_path / "sacct").write_text(f"#!/bin/sh\nprintf 'JobID|State|\\n{lines}'\n")
    (tmp_path / "sacct").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    found = submitting.attached(tmp_path, "slurm", runner, cells)
    assert [(job.job_id, cell.seed) for job, cell in found] == [("31_0", 0), ("31_2", 2)]
    assert submitting.result_of(found[1][0]) == (12.0, "")
    assert not (runner.folder(cells[1]) / "submitted.json").exists()
    assert "2 tasks of an earlier command" in capsys.readouterr().out
    with pytest.raises(UserError, match=r"submitted.json: found task 31_0 of cluster slurm, expected local"):
        submitting.attached(tmp_path, "local", runner, cells)
    for cell, job_id in zip(cells, (os.getpid(), 2**22 + 1), strict=False):
        task = {"job_id": str(job_id), "cluster": "local"}
        (runner.folder(cell) / "submitted.json").write_text(json.dumps(task))
    with pytest.raises(UserError, match=f"found task {os.getpid()} of cluster local, which still runs"):
        submitting.attached(tmp_path, "local", runner, cells[:2])
    assert submitting.attached(tmp_path, "local", runner, cells[1:2]) == []


def test_a_task_reports_what_is_wrong(tmp_path: Path) -> None:
    assert FolderTask(1)(str(tmp_path))[1].startswith("[Errno 2] No such file")
    assert resumable({"settings": {}, "pretrain": {"seed": 1}}) == {
        "settings": {},
        "pretrain": {"seed": 1, "resume": True},
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[1", "--engine_options: found .* expected .key: value"),
        ("gpu", "--engine_options: found 'gpu', expected"),
        ("{1: 2}", "--engine_options: found .1: 2., expected"),
        ("{cluster: pbs}", "--engine_options: cluster: found 'pbs', expected one of slurm, local, debug"),
    ],
)
def test_options_that_are_none(text: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        read_engine_options(text)


def test_what_submitit_refuses_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match=r'--engine_options: Could not detect "srun"'):
        submitting.executor_of(tmp_path, {}, 1)
    with pytest.raises(UserError, match="--engine_options: Unknown argument 'colour' for executor 'local'"):
        submitting.executor_of(tmp_path, {"cluster": "local", "colour": 1}, 1)
    with pytest.raises(UserError, match='--engine_options: Parameter "timeout_min" expected type'):
        submitting.executor_of(tmp_path, {"cluster": "local", "timeout_min": "long"}, 1)
    monkeypatch.setitem(sys.modules, "submitit", None)
    with pytest.raises(UserError, match=r"--engine: found submitit, which needs .*pip install submitit"):
        submitting.executor_of(tmp_path, {}, 1)


def test_an_array_on_slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in for sbatch: one array of the ready cells, `--jobs` at once, the user's partition."""
    tools = tmp_path / "bin"
    tools.mkdir()
    for name, answer in (("srun", ""), ("sbatch", "Submitted batch job 12"), ("sacct", ""), ("scancel", "")):
        (tools / name).write_text(f'#!/bin/sh\ncp "$1" {tmp_path}/{name}.txt 2>/dev/null\necho "{answer}"\n')
        (tools / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}:/usr/bin:/bin")
    executor = submitting.executor_of(tmp_path / "logs", {"partition": "gpu", "timeout_min": 90}, 3)
    jobs = executor.map_array(FolderTask(1), ["a", "b", "c", "d"])
    assert [job.job_id for job in jobs] == [f"12_{n}" for n in range(4)]
    script = (tmp_path / "sbatch.txt").read_text()
    for line in ("--array=0-3%3", "--partition=gpu", "--time=90", "--job-name=pretext3d"):
        assert f"#SBATCH {line}" in script
    assert re.search("#SBATCH --signal=USR2@", script)


@pytest.mark.slow
@pytest.mark.usefixtures("forked_cells")  # those with --jobs
def test_a_comparison_on_the_local_executor(tmp_path: Path) -> None:
    """The same table as with --jobs."""
    words = ["compare", "--max_epochs=1", "--steps_per_epoch=1", "--roi_size=[32,32,32]", "--num_workers=0"]
    words += ["--profile=laptop", "--num_labelled", "1", "--seeds", "0", "--threads", "1", "--pixdim=8"]
    words += ["--val_fraction=0.1", "--output_dir"]
    engine = ["--engine", "submitit", "--engine_options", "{cluster: local}"]
    tables = []
    for name, more in (("submitted", engine), ("here", [])):
        assert main([*words, str(tmp_path / name), *more]) == 0
        tables.append(pd.read_csv(tmp_path / name / "results.csv"))
    pd.testing.assert_frame_equal(*tables)

"""The folder of a run: one run at a time, and nothing of a run that wrote nothing."""

import errno
import json
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from pretext3d import files
from pretext3d.errors import UserError
from pretext3d.training import run_folder
from pretext3d.training.run_folder import LOCK, close_folder, open_folder


@pytest.fixture(autouse=True)
def _released() -> Iterator[None]:
    yield
    for folder in list(run_folder._open):
        close_folder(folder)


def everything(folder: Path) -> dict[str, str]:
    return {str(p.relative_to(folder)): p.read_text() for p in sorted(folder.rglob("*")) if p.is_file()}


def opened(folder: Path, name: str = "config.yaml") -> None:
    open_folder(folder, [folder / "checkpoints", folder], "train.yaml", written={name: Path.touch})


# A run in another process: it holds the folder, says so, and lasts until its input ends. Its child stands for
# a worker of a data loader, which has all of its parent's open files.
HOLDER = """
import os, sys, time
from pretext3d.training.run_folder import open_folder
open_folder(sys.argv[1], [sys.argv[1] + "/checkpoints", sys.argv[1]], "train.yaml, more.yaml")
if os.fork() == 0:
    time.sleep(60)
    os._exit(0)
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-c", HOLDER, str(tmp_path / "run")]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "start_new_session": True}
    with subprocess.Popen(command, **pipes) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
        os.killpg(process.pid, signal.SIGKILL)


def test_a_second_run_is_told_who_is_writing(tmp_path: Path, holder: subprocess.Popen[str]) -> None:
    folder = tmp_path / "run"
    before = everything(folder)
    for _ in range(2):  # the lock stays after an attempt
        with pytest.raises(UserError) as caught:
            opened(folder)
        message = str(caught.value)
        assert message.startswith(
            f"{folder}/checkpoints: another run is writing into it: train.yaml, more.yaml, since 20"
        )
        assert f", process {holder.pid} on " in message
        assert message.endswith("; wait for its end, or use another --output_dir")
    with pytest.raises(UserError, match=f"^{folder}: another run is writing into it"):
        open_folder(folder, [tmp_path / "elsewhere", folder])
    assert everything(folder) == before
    assert not (tmp_path / "elsewhere").exists()


def test_a_killed_run_holds_nothing(tmp_path: Path, holder: subprocess.Popen[str]) -> None:
    holder.kill()
    holder.wait()
    assert (tmp_path / "run" / LOCK).exists()  # left by it, and held no longer, though its child lives
    opened(tmp_path / "run")
    assert json.loads((tmp_path / "run" / LOCK).read_text())["process"] == os.getpid()


def test_an_ended_run_leaves_its_files_and_no_lock(tmp_path: Path) -> None:
    opened(tmp_path)
    logging.getLogger("pretext3d").warning("one")
    close_folder(tmp_path)
    logging.getLogger("pretext3d").warning("two")
    assert list(everything(tmp_path)) == ["config.yaml", "log.txt"]
    assert (tmp_path / "log.txt").read_text().endswith("WARNING pretext3d: one\n")


def test_the_same_process_may_begin_again(tmp_path: Path) -> None:
    opened(tmp_path)
    opened(tmp_path)
    with pytest.raises(UserError, match="another run"):  # as two clients of a federation in one process
        open_folder(tmp_path / "other", [tmp_path / "checkpoints"])


def test_a_run_that_wrote_nothing_leaves_nothing(tmp_path: Path) -> None:
    opened(tmp_path / "a" / "run")
    run_folder._abandon()
    assert list(tmp_path.iterdir()) == []


def test_a_run_that_wrote_something_keeps_it(tmp_path: Path) -> None:
    opened(tmp_path / "run")
    (tmp_path / "run" / "case_seg.nii.gz").touch()
    run_folder._abandon()
    assert list(everything(tmp_path / "run")) == ["case_seg.nii.gz", "config.yaml", "log.txt"]
    opened(tmp_path / "run", "evaluate_config.yaml")
    (tmp_path / "run" / "case_seg.nii.gz").write_text("again")  # an earlier result is replaced
    os.utime(tmp_path / "run" / "case_seg.nii.gz", (0, 0))
    run_folder._abandon()
    assert (tmp_path / "run" / "evaluate_config.yaml").exists()


def test_an_earlier_run_is_as_it_was(tmp_path: Path) -> None:
    """An evaluation that fails at once: the earlier evaluation's configuration is not lost."""
    for name in ("evaluate_config.yaml", "evaluation.csv"):
        (tmp_path / name).write_text("earlier")
    files_of = {"evaluate_config.yaml": lambda path: path.write_text("new"), "other.yaml": Path.touch}
    open_folder(tmp_path, written=files_of)
    assert (tmp_path / "evaluate_config.yaml").read_text() == "new"
    run_folder._abandon()
    assert everything(tmp_path) == {"evaluate_config.yaml": "earlier", "evaluation.csv": "earlier"}


def test_a_check_that_fails_leaves_nothing(tmp_path: Path) -> None:
    def check() -> None:
        assert (tmp_path / "run" / LOCK).exists()
        raise UserError("holds a run")

    with pytest.raises(UserError, match="holds a run"):
        open_folder(tmp_path / "run", [tmp_path / "run"], check=check)
    assert list(tmp_path.iterdir()) == []


def test_a_drive_without_locks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def no_locks(self: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(files.filelock.FileLock, "acquire", no_locks)
    open_folder(tmp_path, [tmp_path])
    expected = f"{tmp_path}: this drive has no locks, a second run in it would not be noticed"
    assert caplog.messages == [expected]


def test_a_full_disk_is_said_once_by_the_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(text: str) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    opened(tmp_path)
    log = run_folder._open[tmp_path.resolve()].log
    assert log is not None
    monkeypatch.setattr(log.stream, "write", full)
    logging.getLogger("pretext3d").warning("one")
    logging.getLogger("pretext3d").warning("two")
    expected = f"{tmp_path}/log.txt cannot be written: [Errno 28] No space left on device\n"
    assert capsys.readouterr().err == expected

"""Tests of arrays kept on disk: once for all processes, whatever happens to one of them."""

import errno
import fcntl
import logging
import os
import subprocess
import sys

import numpy as np
import pytest
from pretext3d.data import disk_cache
from pretext3d.data.disk_cache import kept_array
from pretext3d.errors import UserError
from pretext3d.files import MAX_DRAFT_AGE

# `work` notes that it runs, then holds until both processes are there
PROCESS = """
import sys, time, os
from pathlib import Path
import numpy as np
from pretext3d.data.disk_cache import kept_array
folder, name = Path(sys.argv[1]), sys.argv[2]
def work():
    with (folder / "log").open("a") as log:
        log.write(name + "\\n")
    if name == "killed":
        os.kill(os.getpid(), 9)
    end = time.monotonic() + 30
    while not ((folder / "a").exists() and (folder / "b").exists()) and time.monotonic() < end:
        pass
    return np.arange(200_000)
(folder / name).touch()
assert kept_array(folder / "kept" / "x.npz", work).sum() == 199_999 * 100_000
"""


def start(folder, name: str) -> subprocess.Popen:
    return subprocess.Popen([sys.executable, "-c", PROCESS, str(folder), name])


def names(folder) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def never() -> np.ndarray:
    raise AssertionError("computed again")


@pytest.mark.parametrize(("largest", "dtype"), [(255, np.uint8), (256, np.uint16), (70_000, np.uint32)])
def test_second_call_reads_the_smallest_type(tmp_path, largest, dtype):
    path = tmp_path / "a" / "x.npz"
    first = kept_array(path, lambda: np.array([[0, largest]]))
    second = kept_array(path, never)
    assert first.dtype == second.dtype == dtype
    assert second.tolist() == first.tolist() == [[0, largest]]
    assert names(path.parent) == ["x.npz"]  # neither lock nor draft


def test_other_numbers_are_kept_as_they_are(tmp_path):
    for n, array in enumerate((np.array([-1, 2]), np.array([0.5]), np.zeros(0, np.int64))):
        kept_array(tmp_path / f"{n}.npz", lambda: array)  # noqa: B023  called at once
        result = kept_array(tmp_path / f"{n}.npz", never)
        assert result.dtype == array.dtype
        assert result.tolist() == array.tolist()


def test_two_processes_do_the_work_once(tmp_path):
    processes = [start(tmp_path, name) for name in "ab"]
    assert [process.wait(60) for process in processes] == [0, 0]
    assert len((tmp_path / "log").read_text().split()) == 1
    assert names(tmp_path / "kept") == ["x.npz"]


def test_killed_process_leaves_the_work_to_the_next(tmp_path):
    assert start(tmp_path, "killed").wait(60) == -9
    assert kept_array(tmp_path / "kept" / "x.npz", lambda: np.ones(3)).tolist() == [1, 1, 1]
    assert names(tmp_path / "kept") == ["x.npz"]


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.99])
def test_truncated_file_is_computed_anew(tmp_path, caplog, share):
    path = tmp_path / "x.npz"
    array = np.random.RandomState(0).randint(0, 255, 5_000)
    kept_array(path, lambda: array)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with caplog.at_level(logging.WARNING):
        assert (kept_array(path, lambda: array) == array).all()
    assert "x.npz is damaged and computed again" in caplog.text
    assert (kept_array(path, never) == array).all()


def test_changed_byte_is_noticed(tmp_path):
    path = tmp_path / "x.npz"
    array = np.random.RandomState(0).randint(0, 255, 5_000)
    kept_array(path, lambda: array)
    content = bytearray(path.read_bytes())
    content[2_000] ^= 1
    path.write_bytes(content)
    assert (kept_array(path, lambda: array) == array).all()


def test_failed_work_leaves_nothing(tmp_path):
    with pytest.raises(AssertionError, match="computed again"):
        kept_array(tmp_path / "x.npz", never)
    assert names(tmp_path) == []


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS])
def test_without_locks_it_works_as_well(tmp_path, monkeypatch, number):
    def no_locks(descriptor: int, how: int) -> None:
        raise OSError(number, "no locks on this drive")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    assert kept_array(tmp_path / "x.npz", lambda: np.ones(2)).tolist() == [1, 1]
    assert disk_cache.kept_array(tmp_path / "x.npz", never).tolist() == [1, 1]


def test_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"cache_dir: .*file.* cannot be written"):
        kept_array(tmp_path / "file" / "x.npz", lambda: np.ones(2))


def test_a_failure_of_the_work_is_not_the_folders(tmp_path):
    def work() -> np.ndarray:
        raise FileNotFoundError("atlas.nii")

    with pytest.raises(FileNotFoundError, match="atlas"):
        kept_array(tmp_path / "x.npz", work)
    assert names(tmp_path) == []


def test_old_drafts_of_killed_writers_are_removed(tmp_path):
    for name, age in (("a.0.tmp", 2 * MAX_DRAFT_AGE), ("b.0.tmp", 0)):
        (tmp_path / name).touch()
        then = (tmp_path / name).stat().st_mtime - age
        os.utime(tmp_path / name, (then, then))
    kept_array(tmp_path / "x.npz", lambda: np.ones(2))
    assert names(tmp_path) == ["b.0.tmp", "x.npz"]  # the other one may be being written

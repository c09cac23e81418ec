"""Tests of files and folders that are complete or not there."""

import errno
import hashlib
import os
from pathlib import Path

import filelock
import pytest
from pretext3d.files import (
    MAX_DRAFT_AGE,
    discard_folder,
    draft_folder,
    locked,
    new_folder,
    remove_old_drafts,
    replacing,
    sha256_of,
    write_whole,
)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("sync", [False, True])
def test_the_old_content_stays_until_the_block_ends(tmp_path: Path, sync: bool) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")
    with replacing(path, sync=sync) as draft:
        draft.write_text("new")
        assert draft.parent == path.parent  # a rename within one file system
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert names(tmp_path) == ["a.txt"]


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
def test_an_error_leaves_the_old_file_and_no_draft(tmp_path: Path, error: type[BaseException]) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")

    def fail() -> None:
        with replacing(path) as draft:
            draft.write_text("half")
            raise error

    with pytest.raises(error):
        fail()
    assert path.read_text() == "old"
    assert names(tmp_path) == ["a.txt"]


def test_two_writers_of_one_file_do_not_share_a_draft(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    with replacing(path) as first, replacing(path) as second:
        first.write_text("first")
        second.write_text("second")
    assert path.read_text() == "first"  # the outer block ends last
    assert names(tmp_path) == ["a.txt"]


def test_content_and_name_are_synced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced = []
    monkeypatch.setattr(os, "fsync", lambda number: synced.append(os.fstat(number).st_ino))
    for sync in (False, True):
        with replacing(tmp_path / "a.txt", sync=sync) as draft:
            draft.write_text("new")
    folder = [tmp_path.stat().st_ino] if os.name == "posix" else []
    assert synced == [(tmp_path / "a.txt").stat().st_ino, *folder]


@pytest.mark.parametrize("content", [b"\x00\xff", "µ\n"])
def test_bytes_and_text_as_utf_8(tmp_path: Path, content: bytes | str) -> None:
    write_whole(tmp_path / "a", content)
    assert (tmp_path / "a").read_bytes() == (content if isinstance(content, bytes) else b"\xc2\xb5\n")


def test_missing_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        write_whole(tmp_path / "none" / "a", b"")


def test_a_full_disk_is_named_by_the_target(tmp_path: Path) -> None:
    """A failed write has no name of its own, and the draft's would say nothing."""
    for error in (OSError(errno.ENOSPC, "full"), OSError(errno.ENOSPC, "full", "other")):
        with pytest.raises(OSError, match="full") as caught, replacing(tmp_path / "a"):
            raise error
        assert caught.value.filename == (error.filename if error.filename == "other" else str(tmp_path / "a"))
    with pytest.raises(FileNotFoundError) as caught, replacing(tmp_path / "none" / "a") as draft:
        draft.touch()
    assert caught.value.filename == str(tmp_path / "none" / "a")


def test_a_folder_in_use_is_discarded(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    discard_folder(tmp_path / "a")
    assert names(tmp_path) == []
    discard_folder(tmp_path / "a")  # another process was faster


def test_draft_folder_is_gone_unless_renamed(tmp_path: Path) -> None:
    with draft_folder(tmp_path / "x" / "a") as draft:
        (draft / "file").touch()
    assert names(tmp_path / "x") == []
    with draft_folder(tmp_path / "x" / "a") as draft:
        draft.rename(tmp_path / "x" / "a")
    assert names(tmp_path / "x") == ["a"]


def test_the_first_folder_wins(tmp_path: Path) -> None:
    path = tmp_path / "a"
    with new_folder(path) as slow:
        (slow / "slow").touch()
        with new_folder(path) as fast:
            (fast / "fast").touch()
    assert names(tmp_path) == ["a"]
    assert names(path) == ["fast"]


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="disk full"), new_folder(tmp_path / "a"):
        raise OSError("disk full")
    assert names(tmp_path) == []


def test_a_draft_that_cannot_be_made_is_an_error_also_where_the_folder_exists(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "disk full")

    (tmp_path / "a").mkdir()
    monkeypatch.setattr(Path, "mkdir", refused)
    with pytest.raises(OSError, match="disk full"), new_folder(tmp_path / "a"):
        pytest.fail("there is no draft")


def test_old_drafts_are_removed(tmp_path: Path) -> None:
    for name, age in ((".a.0.tmp", 2 * MAX_DRAFT_AGE), (".b.0.tmp", 0.0), ("c", 2 * MAX_DRAFT_AGE)):
        (tmp_path / name).mkdir()
        then = (tmp_path / name).stat().st_mtime - age
        os.utime(tmp_path / name, (then, then))
    remove_old_drafts(tmp_path, "*.tmp")
    assert names(tmp_path) == [".b.0.tmp", "c"]


def test_a_lock_keeps_others_out_and_leaves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "a.lock"
    with locked(path), pytest.raises(filelock.Timeout), locked(path, wait=False):
        pass
    assert names(tmp_path) == []
    with locked(path, wait=False):
        assert names(tmp_path) == ["a.lock"]


def test_a_lock_file_that_cannot_be_opened(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="file"), locked(tmp_path / "file" / "a.lock"):
        pass


def test_digest(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    assert sha256_of(tmp_path / "a") == hashlib.sha256(b"abc").hexdigest()

"""Files and folders that are complete or not there: written under a draft's name, then renamed.

A draft is in the folder of its target, under the hidden name `.<target>.<hexadecimal>.tmp`, so that the
rename stays within one file system and several processes may write the same target: the last one wins. A
process that is killed leaves its draft, which `remove_old_drafts` finds.
"""

import contextlib
import errno
import hashlib
import logging
import os
import shutil
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import filelock

__all__ = [
    "discard_folder",
    "draft_folder",
    "locked",
    "new_folder",
    "remove_old_drafts",
    "replacing",
    "sha256_of",
    "write_whole",
]

logger = logging.getLogger(__name__)

# errors of a file system without locks, such as some network drives
NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP}
RETRY_LOCK = 0.2  # seconds; after which a lock file that its holder has just removed is tried again
MAX_DRAFT_AGE = 86400.0  # seconds after which a draft is taken to be left by a killed process


def _draft_of(path: Path) -> Path:
    return path.with_name(f".{path.name}.{uuid.uuid4().hex[:12]}.tmp")


def _reach_disk(path: Path) -> None:
    """Wait until a file's content, or a folder's names, have reached the disk; Windows keeps names itself."""
    if os.name != "posix" and path.is_dir():
        return
    descriptor = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def replacing(path: Path, sync: bool = False) -> Iterator[Path]:
    """The path of a draft that takes the name `path` when the block ends; after an error it is removed.

    Args:
        path: Target; its folder exists. An earlier file stays until the rename.
        sync: Wait until the content and the new name have reached the disk, so that a power failure does not
            leave an empty file.

    Raises:
        OSError: the draft cannot be written or renamed; names `path`.

    Examples:
        >>> from tempfile import mkdtemp
        >>> path = Path(mkdtemp()) / "a.txt"
        >>> with replacing(path) as draft:
        ...     size = draft.write_text("one")
        >>> path.read_text(), len(list(path.parent.iterdir()))
        ('one', 1)
    """
    draft = _draft_of(path)
    try:
        yield draft
        if sync:
            _reach_disk(draft)
        draft.replace(path)
        if sync:  # the folder stores the name
            _reach_disk(path.parent)
    except OSError as error:
        if error.errno is not None and error.filename in (None, str(draft)):  # that of a write has no name
            error.filename = str(path)
        raise
    finally:
        with contextlib.suppress(OSError):
            draft.unlink(missing_ok=True)


def write_whole(path: Path, content: bytes | str) -> None:
    """Write a file, text as UTF-8: the name refers to the old content or the complete new one.

    Raises:
        OSError: the file cannot be written; an earlier one is unchanged.
    """
    with replacing(path) as draft:
        draft.write_bytes(content.encode() if isinstance(content, str) else content)


@contextlib.contextmanager
def draft_folder(path: Path) -> Iterator[Path]:
    """A new, empty folder next to `path`, removed at the end of the block unless it was renamed in it.

    Raises:
        OSError: the folder cannot be created.
    """
    draft = _draft_of(path)
    try:
        draft.mkdir(parents=True)
        yield draft
    finally:
        shutil.rmtree(draft, ignore_errors=True)


@contextlib.contextmanager
def new_folder(path: Path, sync: bool = False) -> Iterator[Path]:
    """A draft of a folder, which takes the name `path` at the end of the block.

    For folders whose name determines their content: where another process was first, its folder stays, and
    errors here are ignored.

    Args:
        path: Target; its parents are created if they do not exist.
        sync: Wait until the files and their names have reached the disk, so that a power failure does not
            leave empty files.

    Raises:
        OSError: the draft cannot be made; or it cannot be written, and no other process has written `path`.

    Examples:
        >>> from tempfile import mkdtemp
        >>> path = Path(mkdtemp()) / "entry"
        >>> for content in ("first", "second"):
        ...     with new_folder(path) as draft:
        ...         size = (draft / "a.txt").write_text(content)
        >>> (path / "a.txt").read_text()
        'first'
    """
    made = False
    try:
        with draft_folder(path) as draft:
            made = True
            yield draft
            for part in [*draft.iterdir(), draft] if sync else []:
                _reach_disk(part)
            draft.rename(path)
            if sync:
                _reach_disk(path.parent)
    except OSError:
        if not (made and path.is_dir()):
            raise


@contextlib.contextmanager
def locked(path: Path, wait: bool = True) -> Iterator[bool]:
    """Hold the lock file `path`, removed at the end; the system releases it if the process dies.

    Gives True; False where the file system has no locks.

    On a file system without locks the block runs without one: it has to be correct, if not efficient, when
    two processes run it.

    Args:
        path: Lock file; its folder is created if it does not exist.
        wait: Whether to wait for another process that holds it.

    Raises:
        filelock.Timeout: another process holds it, and `wait` is False.
        OSError: the file cannot be opened.
    """
    lock = filelock.FileLock(path, timeout=-1 if wait else RETRY_LOCK, mode=0o666, fallback_to_soft=False)
    held = True
    try:
        lock.acquire()
    except filelock.Timeout:
        raise
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
        held = False
        logger.debug("no locks in %s", path.parent)
    try:
        yield held
    finally:
        with contextlib.suppress(OSError):  # Windows does not remove an open file
            path.unlink(missing_ok=True)
        lock.release()


def discard_folder(path: Path) -> None:
    """Remove a folder that other processes may read or replace meanwhile: its name is free at once.

    Files that another process has mapped into its memory stay readable there.
    """
    draft = _draft_of(path)
    with contextlib.suppress(OSError):  # another process was faster
        path.rename(draft)
        shutil.rmtree(draft, ignore_errors=True)


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file, 64 hexadecimal digits.

    Raises:
        OSError: the file cannot be read.

    Examples:
        >>> sha256_of(Path(os.devnull))[:16]  # of no bytes
        'e3b0c44298fc1c14'
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def remove_old_drafts(folder: Path, pattern: str) -> None:
    """Remove drafts that match `pattern` and that killed processes left more than a day ago."""
    for draft in folder.glob(pattern):
        with contextlib.suppress(OSError):
            if time.time() - draft.stat().st_mtime > MAX_DRAFT_AGE:
                shutil.rmtree(draft, ignore_errors=True) if draft.is_dir() else draft.unlink()

"""The folder of a run: held by one run at a time, with log and configuration; gone if nothing was written.

`open_folder` is called at the start of a run, `close_folder` at its end. A run that ends before it has
written a result, because of a mistake for example, leaves no folder, or the folder as it found it.
"""

import atexit
import contextlib
import json
import logging
import os
import socket
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import filelock

from pretext3d.errors import UserError, one_line
from pretext3d.files import locked

__all__ = ["close_folder", "open_folder"]

logger = logging.getLogger(__name__)

LOCK = ".run.lock"
LOG = "log.txt"


class _RunLog(logging.FileHandler):
    """The log file of one run; its own class distinguishes it from other handlers."""

    failed = False

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's name
        """Report a full disk once, instead of a traceback per line."""
        if not self.failed:
            self.failed = True
            sys.stderr.write(f"{self.baseFilename} cannot be written: {sys.exc_info()[1]}\n")


class _Folder:
    """What one run holds of its folder, and how the folder was before."""

    def __init__(self, path: Path) -> None:
        self.path, self.process = path, os.getpid()
        self.locks = contextlib.ExitStack()
        self.log: _RunLog | None = None
        self.made: list[Path] = []  # folders, outermost first
        self.before: dict[Path, bytes | None] = {}  # content of what the start has written, None = no file
        self.entries: dict[str, int] = {}

    def make(self, folder: Path) -> None:
        """Create a folder and its parents."""
        missing = [one for one in [*reversed(folder.parents), folder] if not one.exists()]
        folder.mkdir(parents=True, exist_ok=True)
        self.made += missing

    def hold(self, folder: Path, configuration: str) -> None:
        """Lock a folder until the end of the run.

        Raises:
            UserError: another run holds it.
        """
        path = folder / LOCK
        try:
            held = self.locks.enter_context(locked(path, wait=False))
        except filelock.Timeout:
            raise UserError(
                f"{folder}: another run is writing into it{_holder(path)}; wait for its end, or use another "
                "--output_dir"
            ) from None
        if not held:
            logger.warning("%s: this drive has no locks, a second run in it would not be noticed", folder)
            return
        holder = {"host": socket.gethostname(), "process": os.getpid(), "configuration": configuration}
        path.write_text(json.dumps({**holder, "started": time.strftime("%Y-%m-%d %H:%M:%S")}))

    def open_log(self) -> None:
        """Add the log file to the root logger's handlers."""
        self.log = _RunLog(self.path / LOG)
        self.log.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
        logging.getLogger().addHandler(self.log)

    def remember(self, names: Sequence[str]) -> None:
        """Keep the content of files that the start is about to write; the log is continued, and kept."""
        for path in (self.path / name for name in names):
            if path.name != LOG or not path.exists():
                self.before[path] = path.read_bytes() if path.exists() else None

    def others(self) -> dict[str, int]:
        """Everything in the folder that the start has not written, with the time of its last change."""
        own = {LOCK, LOG, *(path.name for path in self.before)}
        return {p.name: p.lstat().st_mtime_ns for p in self.path.iterdir() if p.name not in own}

    def close(self, ended: bool) -> None:
        """Close the log and release the folder; where a run has not ended and has written nothing, undo."""
        if self.process != os.getpid():  # a fork of it
            return
        if self.log is not None:
            logging.getLogger().removeHandler(self.log)
            self.log.close()
        with contextlib.suppress(OSError):
            if not ended and self.others() == self.entries:
                for path, content in self.before.items():
                    path.unlink(missing_ok=True) if content is None else path.write_bytes(content)
        self.locks.close()
        for folder in reversed(self.made):
            with contextlib.suppress(OSError):  # not empty
                folder.rmdir()


_open: dict[Path, _Folder] = {}  # of this process' runs, by output_dir


def open_folder(
    output_dir: str | Path,
    held: Sequence[str | Path] = (),
    configuration: str = "",
    check: Callable[[], None] = lambda: None,
    written: Mapping[str, Callable[[Path], None]] | None = None,
) -> None:
    """Create the folder of a run, hold it against other runs, write its first files and open its log.

    What this process still holds from an earlier run in `output_dir` that did not reach its end is released
    first. The system releases what a process holds when it dies: its run can be resumed at once.

    Args:
        output_dir: Folder of the run, created if it does not exist.
        held: Folders that no other run may write into while this one lasts; created if they do not exist.
        configuration: What is run, shown to a second run.
        check: Function that is called once the folders are held, before anything is written.
        written: Functions that write the first files, by file name.

    Raises:
        UserError: another run holds one of the folders, or one cannot be written; everything is then as it
            was before, also after an error of `check`.
    """
    close_folder(output_dir)
    folder, names = _Folder(Path(output_dir)), dict(written or {})
    try:
        with _blaming(output_dir):
            for one in dict.fromkeys(map(Path, held)):
                folder.make(one)
                folder.hold(one, configuration)
        check()
        with _blaming(output_dir):
            folder.make(folder.path)
            folder.remember([LOG, *names])
            folder.entries = folder.others()
            folder.open_log()
            for name, write in names.items():
                write(folder.path / name)
    except BaseException:
        folder.close(ended=False)
        raise
    _open[folder.path.resolve()] = folder
    atexit.unregister(_abandon)
    atexit.register(_abandon)


def close_folder(output_dir: str | Path) -> None:
    """Close the log of a run and release its folder; nothing where it is not open."""
    folder = _open.pop(Path(output_dir).resolve(), None)
    if folder is not None:
        folder.close(ended=True)


def _abandon() -> None:
    while _open:
        _open.popitem()[1].close(ended=False)


@contextlib.contextmanager
def _blaming(output_dir: str | Path) -> Iterator[None]:
    """Name the output folder in the error where a file in it cannot be written."""
    try:
        yield
    except OSError as error:
        raise UserError(f"output_dir: {output_dir} cannot be written: {error}") from error


def _holder(path: Path) -> str:
    """What a lock file says of the run that holds it."""
    try:
        found = json.loads(path.read_text())
        text = "{configuration}, since {started}, process {process} on {host}".format(**found)
    except (OSError, ValueError, TypeError, KeyError):  # a drive that lets nobody else read a locked file
        return ""
    return f": {one_line(text)}"

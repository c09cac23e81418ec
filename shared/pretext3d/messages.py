"""What a program shows holds printable characters only, whatever names of files and servers contain.

`printable` is the one place that decides on characters. Every way to the terminal passes it: a `UserError`,
the program's last line (`errors`), the log (`plain_log`), a command's output (`say`), tables, progress bars.
"""

import logging
import os
import sys
import traceback
import unicodedata
import warnings
from typing import Any, TextIO

__all__ = ["flush_output", "plain_log", "printable", "say"]

# categories of characters that no message shows: control, format, surrogates, private use, unassigned, line
# and paragraph separators
UNPRINTABLE = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}


def printable(text: str) -> str:
    r"""Text without what a terminal acts on: control, format and unassigned characters, lone surrogates.

    Names of files, headers of servers and values of checkpoints can hold escape sequences that move the
    cursor or rewrite earlier lines. Line feeds and tabs stay, a carriage return becomes a line feed.

    Examples:
        >>> printable("scan\x1b[2J\x9b1m\u202e.nii\tok")
        'scan[2J1m.nii\tok'
    """
    if text.isascii() and text.isprintable():
        return text
    kept = text.replace("\r\n", "\n").replace("\r", "\n")
    return "".join(c for c in kept if c in "\n\t" or unicodedata.category(c) not in UNPRINTABLE)


def say(text: str, error: bool = False, flush: bool = False) -> None:
    """Print a command's line; to standard error with `error`. That `head` has read enough is no error."""
    stream = sys.stderr if error else sys.stdout
    try:
        print(printable(text), file=stream, flush=flush)
    except BrokenPipeError:
        _silence(stream)


def flush_output() -> None:
    """Write what was printed, before the program ends. That `head` has read enough is no error."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        _silence(sys.stdout)


def _silence(stream: TextIO) -> None:
    """Drop what is still written to a stream that nobody reads."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


class _PlainRecord(logging.LogRecord):
    """A log record whose message and traceback are printable."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if isinstance(self.exc_info, tuple) and self.exc_info[1] is not None:
            self.exc_text = printable("".join(traceback.format_exception(*self.exc_info))).rstrip()

    def getMessage(self) -> str:  # noqa: N802  logging's name
        """The message with its arguments."""
        return printable(super().getMessage())


def plain_log() -> None:
    """Let every line of this program's log, and every warning, show printable characters only."""
    if logging.getLogRecordFactory() is logging.LogRecord:  # an enclosing program keeps its own
        logging.setLogRecordFactory(_PlainRecord)
    if not hasattr(warnings.formatwarning, "printable"):
        before = warnings.formatwarning

        def formatted(*args: Any, **kwargs: Any) -> str:
            return printable(before(*args, **kwargs))

        formatted.printable = True  # type: ignore[attr-defined]
        warnings.formatwarning = formatted

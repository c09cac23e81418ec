"""The one exception for a user's mistake, and how a run shows it: one message, no stack trace."""

import re
import sys
from collections.abc import Iterator
from types import TracebackType

__all__ = ["UserError", "install_excepthook"]


class UserError(ValueError):
    """A mistake in a file, key or argument that the user can mend.

    The message names the file or key, what was found and what was expected.
    """


# torch raises a worker's exception again in the main process, with the whole traceback there as its message
_IN_WORKER = re.compile(r"^(?:[\w.]+\.)?UserError: (.+?)(?=\n\n|\Z)", re.MULTILINE | re.DOTALL)


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """An exception, its cause, that one's cause, and so on."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def find_user_error(error: BaseException | None) -> UserError | None:
    """The outermost `UserError` in the chain of causes of an exception, or None.

    MONAI's parser and transforms wrap each error in a chain of `RuntimeError`; the user's mistake is
    inside. One that comes out of a `DataLoader`'s worker is given with its own message alone.
    """
    for each in _chain(error):
        text = str(each)
        in_worker = text.startswith("Caught ") and "\nOriginal Traceback" in text
        mistake = _IN_WORKER.search(text) if in_worker else None
        if mistake is not None:
            return UserError(mistake[1].strip())
        if isinstance(each, UserError):
            return each
    return None


class _Hook:
    """A `sys.excepthook` that shows a user's mistake as one message, an interruption as one line."""

    def __init__(self) -> None:
        self.previous = sys.excepthook
        self.interrupted = ""

    def __call__(self, kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        mistake = find_user_error(error)
        sys.stdout.flush()
        if isinstance(error, KeyboardInterrupt):
            sys.stderr.write(f"\n{self.interrupted}\n")
        elif mistake is not None:
            sys.stderr.write(f"\nerror: {mistake}\n")
        else:
            self.previous(kind, error, trace)


def install_excepthook(interrupted: str = "stopped") -> None:
    """Let an uncaught `UserError`, also a wrapped one, end the program with its message alone, exit code 1.

    Ctrl-C ends it with one line, too; the exit code is then that of the signal, 130 in a shell.

    Args:
        interrupted: what is said after Ctrl-C; a second call changes it.
    """
    hook = sys.excepthook if isinstance(sys.excepthook, _Hook) else _Hook()
    hook.interrupted = interrupted
    sys.excepthook = hook

"""The one exception for a user's mistake, and how a run shows it: one message, no stack trace."""

import sys
from types import TracebackType

__all__ = ["UserError", "install_excepthook"]


class UserError(ValueError):
    """A mistake in a file, key or argument that the user can mend.

    The message names the file or key, what was found and what was expected.
    """


def find_user_error(error: BaseException | None) -> UserError | None:
    """The deepest `UserError` in the chain of causes of an exception, or None.

    MONAI's configuration parser wraps each error in a chain of `RuntimeError`; the user's mistake is at its end.
    """
    found = None
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        if isinstance(error, UserError):
            found = error
        error = error.__cause__ or error.__context__
    return found


def install_excepthook() -> None:
    """Make an uncaught `UserError`, also one wrapped by MONAI, end the program with its message alone (exit code 1)."""
    previous = sys.excepthook
    if getattr(previous, "shows_user_errors", False):
        return

    def hook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        mistake = find_user_error(error)
        if mistake is None:
            previous(kind, error, trace)
        else:
            sys.stdout.flush()
            sys.stderr.write(f"\nerror: {mistake}\n")

    hook.shows_user_errors = True  # type: ignore[attr-defined]
    sys.excepthook = hook

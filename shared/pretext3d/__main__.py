"""The command line `pretext3d NAME ...`, also `python -m pretext3d NAME ...`.

A command's module is imported only when the command is called, so that help is printed at once. Each has
`make_parser()`, and `main(words)`, which returns the exit code.
"""

import importlib
import sys
from collections.abc import Sequence

from pretext3d.checking import closest_hint
from pretext3d.commands import COMMANDS
from pretext3d.errors import as_error, find_user_error, install_excepthook
from pretext3d.messages import flush_output, say
from pretext3d.training.arguments import at_home
from pretext3d.version import __version__

__all__ = ["COMMANDS", "main"]


def usage() -> str:
    """The text that `pretext3d --help` prints."""
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {command.summary}" for name, command in COMMANDS.items()]
    return "\n".join(
        [
            "usage: pretext3d COMMAND ...",
            "",
            "commands:",
            *lines,
            "",
            "pretext3d COMMAND --help      options and examples of a command",
            "pretext3d --version           version of the package",
            "",
            "pretext3d run takes the words of: python -m monai.bundle run --config_file .../train.yaml",
        ]
    )


def main(words: Sequence[str] | None = None) -> int:
    """Run a command.

    Args:
        words: Arguments after `pretext3d`; None = this process's.

    Returns:
        Exit code: 0, that of the command, or 2 for an unknown command.
    """
    name, *rest = map(at_home, (sys.argv[1:] if words is None else words) or ["--help"])
    try:
        if name in ("-h", "--help"):
            say(usage())
            return 0
        if name == "--version":
            say(f"pretext3d {__version__}")
            return 0
        return run(name, rest)
    finally:
        flush_output()


def run(name: str, words: Sequence[str]) -> int:
    """The exit code of a command.

    Args:
        name: Its name.
        words: Its arguments.
    """
    command = COMMANDS.get(name)
    if command is None:
        known = f"{', '.join(COMMANDS)}{closest_hint(name, COMMANDS)}"
        print(as_error(f"{name}: no such command, expected one of {known}"), file=sys.stderr)
        return 2
    install_excepthook(command.stopped)
    try:
        code: int = importlib.import_module(f"pretext3d.commands.{command.module}").main(words)
    except Exception as error:  # MONAI wraps a user's mistake
        mistake = find_user_error(error)
        if mistake is None:
            raise
        print(as_error(mistake), file=sys.stderr)
        return command.mistake
    return code


if __name__ == "__main__":
    sys.exit(main())

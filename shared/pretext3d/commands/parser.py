"""What the commands' command lines have in common: their parser, and overrides of a configuration."""

import argparse
import re
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from pretext3d.checking import closest_hint
from pretext3d.deprecation import current_keys
from pretext3d.errors import UserError
from pretext3d.training.arguments import read_value

__all__ = ["CommandParser", "command_parser", "mistyped", "option_names", "read_overrides", "top_key"]


class CommandParser(argparse.ArgumentParser):
    """An argument parser whose mistakes name the options that were probably meant."""

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As argparse does; the words are kept for `error`."""
        self._words = list(sys.argv[1:] if args is None else args)
        return super().parse_known_args(args, namespace)

    def error(self, message: str) -> NoReturn:
        """End with the usage and the message, exit code 2."""
        super().error(message + mistyped(getattr(self, "_words", ()), option_names(self)))


def option_names(parser: argparse.ArgumentParser) -> list[str]:
    """The options of a parser, without `--`."""
    return [name[2:] for name in parser._option_string_actions if name.startswith("--")]


def mistyped(words: Sequence[str], names: Sequence[str]) -> str:
    """For a message: the options among some words that do not exist and are like one that does; else ''.

    Args:
        words: Words of a command line.
        names: Options that exist, without `--`.

    Examples:
        >>> mistyped(["--cuont", "3", "--seed=2"], ["count", "seed"])
        '; found --cuont: did you mean --count?'
    """
    typed = [word.partition("=")[0][2:] for word in words if word.startswith("--")]
    return "".join(
        closest_hint(name, names, f"; found --{name}: did you mean --{{}}?")
        for name in dict.fromkeys(typed)
        if name not in names
    )


def command_parser(name: str, description: str | None, examples: str) -> argparse.ArgumentParser:
    """A parser for `pretext3d NAME`: no abbreviated options, texts unchanged; see `CommandParser`.

    Args:
        name: Name of the command.
        description: Description, the module's docstring.
        examples: Text at the end of the help.
    """
    return CommandParser(
        prog=f"pretext3d {name}",
        description=description,
        epilog=examples,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )


def read_overrides(words: Sequence[str], flags: bool = False) -> dict[str, Any]:
    """`--key value` and `--key=value` as a run of a bundle reads them; text keys stay as typed.

    Args:
        words: Remaining words of a command line.
        flags: Whether a key without a value is True.

    Raises:
        UserError: A word that belongs to no key, or a key without a value where `flags` is False.

    Examples:
        >>> read_overrides(["--max_epochs", "3", "--roi_size=[32,32,16]", "--cache_dir", "2024"])
        {'max_epochs': 3, 'roi_size': [32, 32, 16], 'cache_dir': '2024'}
    """
    found: dict[str, Any] = {}
    rest = list(words)
    while rest:
        word = rest.pop(0)
        key, equals, value = word.removeprefix("--").partition("=")
        if not word.startswith("--") or not key:
            raise UserError(f"{word}: not expected here; overrides are typed --key value")
        bare = not equals and (not rest or rest[0].startswith("--"))
        if bare and not flags:
            raise UserError(f"--{key}: has no value; booleans are typed --{key} True")
        if not equals:
            value = "True" if bare else rest.pop(0)
        found[key] = read_value(key, value)
    return current_keys(found)


def top_key(key: str) -> str:
    """The top-level key of an override.

    Examples:
        >>> top_key("optimizer::lr")
        'optimizer'
    """
    return re.split(r"::|#", key.lstrip("+"))[0]

"""The page of every command of `pretext3d` with its options, read from the commands' own parsers."""

import argparse
import importlib
import warnings

from pretext3d.__main__ import COMMANDS

from tools.site.tables import cell, code, table

__all__ = ["commands_page", "option_rows"]


def commands_page() -> str:
    """The page of all commands."""
    parts = ["# Commands\n", "`pretext3d COMMAND`, also as `python -m pretext3d COMMAND`.\n"]
    for name, command in COMMANDS.items():
        with warnings.catch_warnings():  # of the packages that it imports
            warnings.simplefilter("ignore")
            module = importlib.import_module(f"pretext3d.commands.{command.module}")
        parser = module.make_parser()
        parts += [f"## pretext3d {name}\n", f"{parser.description or command.summary}\n"]
        parts.append(table(["option", "default", "meaning"], option_rows(parser)))
        parts += [f"```text\n{parser.epilog.strip()}\n```\n"] if parser.epilog else []
    return "\n".join(parts)


def option_rows(parser: argparse.ArgumentParser) -> list[list[str]]:
    """A line of a table per option: name with its value, default, help.

    Args:
        parser: Parser of a command.

    Examples:
        >>> parser = argparse.ArgumentParser()
        >>> _ = parser.add_argument("--num", type=int, default=8, help="of scans; default: %(default)s")
        >>> option_rows(parser)
        [['`--num NUM`', '`8`', 'of scans']]
    """
    formatter = argparse.HelpFormatter("")
    rows = []
    for action in parser._actions:
        if isinstance(action, argparse._HelpAction) or action.help == argparse.SUPPRESS:
            continue
        named = action.dest.upper() if action.option_strings else action.dest
        metavar = formatter._metavar_formatter(action, named)(1)[0]
        value = "" if action.nargs == 0 else formatter._format_args(action, metavar)
        name = " ".join([*action.option_strings[-1:], value]).strip()
        none = action.default in (None, argparse.SUPPRESS, False) or action.default == []
        default = "required" if action.required else "" if none else code(plain(action.default))
        text = formatter._expand_help(action) if action.help else ""
        for said in (f"; default: {action.default}", f"default: {action.default}") if default else ():
            text = text.replace(said, "")  # it has a column
        rows.append([code(name), default, cell(text)])
    return rows


def plain(value: object) -> str:
    """A default as it is typed."""
    return " ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)

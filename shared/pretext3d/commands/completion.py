"""A script that completes the commands, their options, and the keys of the bundles in your shell.

It is text that the shell reads once; completing starts no Python. Make it again after an update.
"""

import argparse
import importlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from pretext3d.commands import COMMANDS
from pretext3d.commands.bundles import bundles_at_hand
from pretext3d.commands.parser import command_parser, option_names
from pretext3d.messages import say
from pretext3d.training.arguments import FOLDER_KEYS

__all__ = ["complete_parser"]

SHELLS = ("bash", "zsh", "fish")
EXAMPLES = """examples:
  mkdir -p ~/.local/share/bash-completion/completions
  pretext3d completion bash > ~/.local/share/bash-completion/completions/pretext3d
  pretext3d completion zsh > "${fpath[1]}/_pretext3d"
  pretext3d completion fish > ~/.config/fish/completions/pretext3d.fish
"""
# the configuration files whose keys a command takes
TAKES = {
    "run": ("train", "finetune", "finetune_classification", "evaluate", "inference"),
    "preview": ("train",),
    "compare": ("finetune", "finetune_classification"),
    "probe": ("finetune_classification",),
}
FILES = frozenset({"config_file", "meta_file", "logging_file", "args_file", "study", "output_file"})
FOLDERS = frozenset({"source", "data_root", "checkpoint", "run", "runs"})
TABLES = frozenset({"class_file", "datalist", "subjects"})  # files among the keys that name folders or files
BUNDLES = frozenset({"bundle", "copy"})


def keys_of(configs: Mapping[str, Any]) -> list[str]:
    """The keys of a configuration that are typed: plain values, and values of the profile.

    Examples:
        >>> keys_of({"seed": 0, "roi_size": "$@settings['roi_size']", "loss": {"_target_": "L"}, "run": []})
        ['seed', 'roi_size']
    """
    return [
        key for key, value in configs.items() if key != "is_not_rank0" and not isinstance(value, dict | list)
    ]


def read_configs(bundles: Iterable[Path]) -> dict[str, list[dict[str, Any]]]:
    """The contents of the configurations in TAKES, by name without ending; not every bundle has each."""
    found: dict[str, list[dict[str, Any]]] = {}
    for name in dict.fromkeys(name for names in TAKES.values() for name in names):
        files = (folder / "configs" / f"{name}.yaml" for folder in bundles)
        found[name] = [yaml.safe_load(file.read_text(encoding="utf-8")) for file in files if file.is_file()]
    return found


def profiles_of(configs: Iterable[Mapping[str, Any]]) -> list[str]:
    """The names of all profiles that can be chosen: `..._2d` adds to one.

    Examples:
        >>> profiles_of([{"profiles": {"laptop": {}, "laptop_2d": {}}}, {"profiles": {"paper": {}}}])
        ['laptop', 'paper']
    """
    names = dict.fromkeys(name for config in configs for name in config["profiles"])
    return [name for name in names if not name.endswith("_2d")]


def complete_parser() -> argparse.ArgumentParser:
    """A parser of the complete command line, with what completes each option; it is for no other use."""
    parser = argparse.ArgumentParser(prog="pretext3d")
    parser.add_argument("--version", action="store_true", help="version of the package")
    commands = parser.add_subparsers()
    bundles = bundles_at_hand()
    configs = read_configs(bundles.values())
    profiles = profiles_of(configs["train"])
    for name, command in COMMANDS.items():
        own = importlib.import_module(f"pretext3d.commands.{command.module}").make_parser()
        keys = dict.fromkeys(
            key for file in TAKES.get(name, ()) for content in configs[file] for key in keys_of(content)
        )
        for key in sorted(keys.keys() - {*option_names(own)}):
            own.add_argument(f"--{key}")
        for action in own._actions:
            complete(action, list(bundles), profiles)
        commands.add_parser(name, parents=[own], add_help=False, help=command.summary, description="")
    return parser


def complete(action: argparse.Action, bundles: Sequence[str], profiles: Sequence[str]) -> None:
    """Say what completes the value of an option."""
    import shtab

    if action.dest == "profile":
        action.choices = profiles
    elif action.dest in BUNDLES:
        action.choices = bundles
    elif action.dest in FILES | TABLES:
        action.complete = shtab.FILE  # type: ignore[attr-defined]
    elif action.dest in FOLDERS | FOLDER_KEYS:
        action.complete = shtab.DIRECTORY  # type: ignore[attr-defined]


def make_parser() -> argparse.ArgumentParser:
    """The command's options."""
    parser = command_parser("completion", __doc__, EXAMPLES)
    parser.add_argument("shell", choices=SHELLS, help="the shell that reads the script")
    return parser


def main(words: Sequence[str]) -> int:
    """The command: print the script."""
    import shtab

    shell = make_parser().parse_args(words).shell
    say(shtab.complete(complete_parser(), shell))
    return 0

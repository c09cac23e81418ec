"""What a user has typed, checked before heavy imports: folders and files exist, keys are known."""

import argparse
from collections.abc import Iterable, Mapping
from typing import Any

from pretext3d.checking import closest_hint
from pretext3d.commands.parser import option_names, top_key
from pretext3d.data.paths import existing_folder, existing_table
from pretext3d.errors import UserError
from pretext3d.training.arguments import forgotten_value
from pretext3d.training.checkpoint_files import resolve_pretrained

__all__ = ["check_paths", "known_key", "unknown_key"]

TABLES = {"class_file": "class", "subjects": "subject"}  # keys of CSV files, with the column of each


def check_paths(given: Mapping[str, Any]) -> None:
    """Refuse a data set's folder, a CSV file or weights that do not exist.

    Args:
        given: Values as typed, by key; other keys than these are passed over.

    Raises:
        UserError: names the key and the path; a key whose value was forgotten.
    """
    for key in ("dataset_dir", "pretrained", *TABLES):
        if given.get(key) in ("True", "False"):
            raise forgotten_value(key, given[key])
    folders = given.get("dataset_dir") or []
    for folder in [folders] if isinstance(folders, str) else folders:
        existing_folder(folder)
    for key, column in TABLES.items():
        if given.get(key):
            existing_table(key, str(given[key]), column)
    if given.get("pretrained"):
        resolve_pretrained(given["pretrained"])


def known_key(key: str, keys: Iterable[str], parser: argparse.ArgumentParser, file: str) -> None:
    """Refuse an override of a key that a configuration does not have.

    Args:
        key: Key as typed.
        keys: Top-level keys of the configuration.
        parser: Parser of the command, whose options may have been meant.
        file: Name of the configuration, for messages.

    Raises:
        UserError: names the closest key or option.
    """
    known = [*keys]
    if top_key(key) not in known:
        raise unknown_key(key, known, parser, file)


def unknown_key(key: str, keys: Iterable[str], parser: argparse.ArgumentParser, file: str) -> UserError:
    """The error of a key that a configuration does not have; it names the closest key or option.

    Args:
        key: Key as typed.
        keys: Top-level keys of the configuration.
        parser: Parser of the command, whose options may have been meant.
        file: Name of the configuration.
    """
    names = [*option_names(parser), *keys]
    mistyped = key if top_key(key) in names else top_key(key)
    hint = closest_hint(mistyped, names, "; did you mean --{}?")
    return UserError(f"--{key}: no such option, and no such key in {file}{hint}")

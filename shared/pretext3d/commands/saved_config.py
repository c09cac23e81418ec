"""The config.yaml that a run has saved, read as data: what a command takes over from it runs no code.

A run's folder may come from someone else, and MONAI executes what a configuration says: expressions,
components by name, macros that read other files. Of a saved configuration a command therefore takes plain
values alone, each at its place in the bundle's own file. Whatever is not plain there has to be the same as in
the bundle's file, which the user has chosen.
"""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from pretext3d.errors import UserError, one_line
from pretext3d.literals import is_constant, is_literal

__all__ = [
    "Settings", "as_saved", "completed_profiles", "encoders_in", "of_this_machine", "read_config",
    "settings_of",
]  # fmt: skip

MAX_BYTES = 2**22
MAX_VALUES = 100_000
# the component whose further arguments are values alone, whatever their names
ENTRIES = "pretext3d.training.session.profile_entries"


class Settings(NamedTuple):
    """What a saved configuration has otherwise than the bundle's file.

    Attributes:
        plain: Values by their paths, as `optimizer::lr`.
        other: Values that are not plain, or have no place in the bundle's file, by their paths.
    """

    plain: dict[str, Any]
    other: dict[str, Any]


def read_config(path: Path) -> dict[str, Any]:
    """A saved configuration.

    Raises:
        UserError: not a YAML mapping, too large, or with values that refer to each other many times over.
    """
    expected = "expected the config.yaml that a run has saved"
    try:
        if path.stat().st_size > MAX_BYTES:
            raise UserError(f"{path}: found {path.stat().st_size:,} bytes, {expected}")
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except UserError:
        raise
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise UserError(f"{path}: cannot be read: {one_line(error)}; {expected}") from error
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise UserError(f"{path}: found {type(content).__name__}, {expected}: entries by name")
    for count, _ in enumerate(_values(content)):
        if count > MAX_VALUES:
            raise UserError(f"{path}: found more than {MAX_VALUES:,} values, {expected}")
    saved: dict[str, Any] = as_saved(content)
    return saved


def _values(content: Any) -> Iterator[Any]:
    """Every value of nested containers; one that several places refer to is counted at each."""
    waiting = [content]
    while waiting:
        value = waiting.pop()
        yield value
        if isinstance(value, dict):
            waiting += value.values()
        elif isinstance(value, list):
            waiting += value


def as_saved(value: Any) -> Any:
    """A configuration in the form that a run saves: `@train::dataset` for `@train#dataset`.

    Examples:
        >>> as_saved(["@train#dataset", 4])
        ['@train::dataset', 4]
    """
    if isinstance(value, dict):
        return {key: as_saved(v) for key, v in value.items()}
    if isinstance(value, list):
        return [as_saved(v) for v in value]
    return re.sub(r"(?<=\w)#(?=\w)", "::", value) if isinstance(value, str) else value


def of_this_machine(value: Any) -> bool:
    """Whether a setting holds a path that other machines do not have."""
    if isinstance(value, dict | list):
        return any(of_this_machine(v) for v in (value.values() if isinstance(value, dict) else value))
    return isinstance(value, str) and Path(value).expanduser().is_absolute()


def settings_of(config: Any, own: Any, path: str = "") -> Settings:
    """Compare a saved configuration, or a part of it, with the bundle's own.

    Args:
        config: Saved configuration.
        own: Content of the bundle's file, as `as_saved` gives it.
        path: Path of the part.

    Examples:
        >>> settings_of({"lr": 0.1, "loss": {"_target_": "a.B"}}, {"lr": 0.2, "loss": {"_target_": "c.D"}})
        Settings(plain={'lr': 0.1}, other={'loss': {'_target_': 'a.B'}})
        >>> settings_of({"dataset_dir": "$'$HOME'"}, {"dataset_dir": ""})
        Settings(plain={'dataset_dir': "$'$HOME'"}, other={})
    """
    if config == own and type(config) is type(own):
        return Settings({}, {})
    is_value = is_literal(config) or is_constant(config)
    if path and is_value and (config is None or not _has_component(own)):
        return Settings({path: config}, {})
    if isinstance(config, Mapping) and isinstance(own, Mapping):
        same = config.get("_target_") == own.get("_target_") and set(own) <= set(config)
        keys = list(config)
    else:
        same = isinstance(config, list) and isinstance(own, list) and len(config) == len(own)
        keys = list(range(len(config))) if same else []
    if not same:
        return Settings({}, {path: config})
    found = Settings({}, {})
    for key in keys:
        place = f"{path}::{key}" if path else str(key)
        if isinstance(own, Mapping) and key not in own:
            is_entry = own.get("_target_") == ENTRIES and not key.startswith("_") and is_literal(config[key])
            (found.plain if is_entry else found.other)[place] = config[key]
            continue
        inner = settings_of(config[key], own[key], place)
        found.plain.update(inner.plain)
        found.other.update(inner.other)
    return found


def completed_profiles(saved: Any, own: Any) -> tuple[Any, list[str]]:
    """The profiles of a saved configuration, with the settings that the bundle's own have besides.

    A run of an earlier version has saved a table without the keys that were added since.

    Args:
        saved: Table of the saved configuration.
        own: Table of the bundle's file.

    Returns:
        The table, and the names of the settings that came from the bundle.

    Examples:
        >>> completed_profiles({"laptop": {"lr": 1}}, {"laptop": {"lr": 2, "new": 3}, "paper": {}})
        ({'laptop': {'lr': 1, 'new': 3}, 'paper': {}}, ['new'])
    """
    if not isinstance(saved, Mapping) or not isinstance(own, Mapping):
        return saved, []
    both = {name: row for name, row in own.items() if isinstance(saved.get(name), Mapping)}
    added = {key: None for name, row in both.items() for key in row if key not in saved[name]}
    return {**own, **saved, **{name: {**row, **saved[name]} for name, row in both.items()}}, list(added)


def encoders_in(plain: Any) -> Iterator[str]:
    """Every value of an entry `encoder`, the one text of a configuration that names code to import.

    Examples:
        >>> list(encoders_in({"profiles": {"laptop": {"encoder": "unet"}}, "backbone::encoder": "mine.Net"}))
        ['unet', 'mine.Net']
    """
    for key, value in plain.items():
        if str(key).rpartition("::")[2] == "encoder" and isinstance(value, str) and value:
            yield value
        elif isinstance(value, Mapping):
            yield from encoders_in(value)


def _has_component(value: Any) -> bool:
    if isinstance(value, Mapping):
        return "_target_" in value or any(map(_has_component, value.values()))
    return isinstance(value, list) and any(map(_has_component, value))

"""Reading a study file: plain YAML, and sections whose every key is known and checked."""

import os
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from pretext3d.checking import brief, closest_hint
from pretext3d.errors import UserError, one_line
from pretext3d.literals import check_literal

__all__ = ["Section", "read_yaml", "real_path"]

T = TypeVar("T")
VARIABLE = re.compile(r"\$\{(\w+)\}")


def read_yaml(file: Path) -> Any:
    """The content of a YAML file: plain data; a key that is there twice is refused.

    Raises:
        UserError: names the file and, where it is not YAML, the line.
    """
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    try:
        return YAML(typ="safe", pure=True).load(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{file}: cannot be read ({error.strerror}), expected a YAML file") from error
    except (YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{file}: found {one_line(error)}, expected YAML of plain data") from error


def real_path(text: str, root: Path, where: str) -> str:
    """A path of a study file as a path of this machine; '' stays ''.

    `${NAME}` is the environment variable NAME, `~` the home folder; a relative path is in `root`.

    Raises:
        UserError: an environment variable that is not set.

    Examples:
        >>> real_path("heart", Path("scans"), "study.yaml: dataset_dir")
        'scans/heart'
    """

    def value(found: re.Match[str]) -> str:
        if found[1] not in os.environ:
            raise UserError(f"{where}: found ${{{found[1]}}}, expected an environment variable that is set")
        return os.environ[found[1]]

    return str(root / Path(VARIABLE.sub(value, text)).expanduser()) if text else ""


class Section:
    """A mapping of a study file, whose keys are taken one by one.

    Args:
        file: Path of the file, for messages.
        path: Keys that lead to the mapping, as `tasks::heart`; '' = the complete file.
        value: Value that was found there.
        known: Keys that it may have; None = names that the user chooses, or keys of configurations.

    Raises:
        UserError: not a mapping, or a key that is not known.
    """

    def __init__(self, file: Path, path: str, value: Any, known: Iterable[str] | None = None) -> None:
        self.file, self.path = file, path
        if not isinstance(value, Mapping):
            raise UserError(f"{self.where()}: found {brief(value)}, expected keys with values")
        self.values: dict[str, Any] = dict(value)
        names = None if known is None else list(known)
        for key in self.values:
            if names is not None and key not in names:
                hint = closest_hint(key, names)
                raise UserError(f"{self.where(key)}: no such key{hint}; expected {', '.join(names)}")
            if not isinstance(key, str):
                raise UserError(f"{self.where(key)}: found {key!r}, expected a key that is text")

    def where(self, key: object = "") -> str:
        """The file and a key of this section, for a message."""
        path = "::".join(str(part) for part in (self.path, key) if part != "")
        return f"{self.file}: {path}" if path else str(self.file)

    def __contains__(self, key: str) -> bool:
        return key in self.values

    def section(self, key: str, known: Iterable[str] | None = None) -> "Section":
        """The section under a key; an empty one where the key is missing or has no value."""
        path = f"{self.path}::{key}" if self.path else key
        value = self.values.get(key)
        return Section(self.file, path, {} if value is None else value, known)

    def value(self, key: str, check: Callable[[str, Any], T], default: Any = None) -> T:
        """The value of a key, checked by one of `pretext3d.checking`'s functions; a missing one is `default`.

        The default is checked as well, so None as a default is a key that has to be there.
        """
        return check(self.where(key), self.values.get(key, default))

    def text(self, key: str, default: str | None = None) -> str:
        """A text that MONAI's configurations do not change, or a path."""
        found = self.values.get(key, default)
        if not isinstance(found, str):
            raise UserError(f"{self.where(key)}: found {brief(found)}, expected text")
        return found

    def listed(self, key: str, check: Callable[[str, Any], T], default: list[T] | None = None) -> list[T]:
        """A list of different values, at least one."""
        found = self.values.get(key, default)
        if not isinstance(found, list) or not found:
            raise UserError(f"{self.where(key)}: found {brief(found)}, expected a list of values")
        values = [check(self.where(key), each) for each in found]
        if len(set(values)) < len(values):
            raise UserError(f"{self.where(key)}: found {brief(found)}, expected different values")
        return values

    def literal(self) -> dict[str, Any]:
        """All values, each plain data that MONAI does not evaluate.

        Raises:
            UserError: an expression, a reference or a component.
        """
        for key, value in self.values.items():
            for part in re.split(r"::|#", str(key)):
                check_literal({part: value}, self.where(key))
        return self.values

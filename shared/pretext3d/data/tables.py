"""Facts about cases from a CSV file: one column of case names, one of values."""

import csv
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pretext3d.checking import brief
from pretext3d.data.paths import existing_table
from pretext3d.data.volumes import strip_extension
from pretext3d.errors import UserError

__all__ = ["has_column", "match_cases", "read_column"]

logger = logging.getLogger(__name__)

Case = dict[str, Any]

HEADINGS = ("id", "case", "name", "image")  # headings of the column of cases; the first one found is used
MAX_FIELD = 4096  # characters of a name or value: as many as a path has at most


def read_column(key: str, path: str, column: str) -> dict[str, str]:
    """The values of one column of a CSV file by the name of the case.

    A case is identified by its name, or by that of its image file, with or without the extension.

    Args:
        key: Name of the configuration key that holds the path, for messages.
        path: Path of the CSV file.
        column: Heading of the values.

    Raises:
        UserError: If there is no such file or column, a line lacks a case or a value, or a case has two
            values.
    """
    try:
        with existing_table(key, path, column).open(newline="", encoding="utf-8-sig") as stream:
            rows = csv.DictReader(stream)
            headings, lines = rows.fieldnames or (), list(rows)
    except (UnicodeDecodeError, csv.Error, OSError) as error:
        raise UserError(f"{key}: {path} cannot be read as CSV ({error}); expected UTF-8 text") from None
    heading = next((name for name in HEADINGS if name in headings), "")
    if not heading or column not in headings:
        raise UserError(
            f"{path}: found the columns {brief(list(headings))}, expected '{column}' and one of "
            f"{', '.join(HEADINGS)}"
        )
    values: dict[str, str] = {}
    for number, row in enumerate(lines, start=2):
        name, value = (row[heading] or "").strip(), (row[column] or "").strip()
        longest = max(len(name), len(value))
        if longest > MAX_FIELD:
            raise UserError(
                f"{path}: line {number}: found a field of {longest} characters, expected at most {MAX_FIELD}"
            )
        if not name or not value:
            raise UserError(
                f"{path}: line {number}: found case {brief(name)} and {column} {brief(value)}, expected both"
            )
        name = strip_extension(Path(name).name) if heading == "image" else strip_extension(name)
        if values.setdefault(name, value) != value:
            raise UserError(
                f"{path}: line {number}: case {brief(name)} has {column} {brief(value)} here, "
                f"{brief(values[name])} above"
            )
    return values


def has_column(path: str, column: str) -> bool:
    """Whether a CSV file, of which `read_column` has read another column, has this one."""
    with Path(path).expanduser().open(newline="", encoding="utf-8-sig") as stream:
        return column in (csv.DictReader(stream).fieldnames or ())


def match_cases(cases: Sequence[Case], values: Mapping[str, str], path: str) -> dict[str, str]:
    """The values by case id: the value for a case's `id`, else the one for its `name`.

    Args:
        cases: Cases with `id` and `name`.
        values: Values by name, from `read_column`.
        path: Path of the file of the values, for the message.

    Raises:
        UserError: Some name is of no case, while some case has no value: it may go by another name. Where
            every case has its value, the other names are those of a larger data set: a warning.

    Examples:
        >>> match_cases([{"id": "a/x", "name": "x"}, {"id": "y", "name": "y"}], {"x": "old"}, "ages.csv")
        {'a/x': 'old'}
    """
    found: dict[str, str] = {}
    used: set[str] = set()
    for case in cases:
        names = [name for name in (case["id"], case["name"]) if name in values]
        used.update(names)
        if names:
            found[case["id"]] = values[names[0]]
    missing = sorted(set(values) - used)
    if not missing:
        return found
    text = f"{path}: {len(missing)} of {len(values)} cases are not in dataset_dir, e.g. {brief(missing[0])}"
    if not found or len(found) < len(cases):  # maybe the same cases by other names
        examples = ", ".join(repr(case["name"]) for case in cases[:3])
        raise UserError(f"{text}; expected names such as {examples} ...")
    logger.warning("%s; every case that is there has a line, so the others are not needed", text)
    return found

"""Classes of whole cases, for classification: from a CSV file, or from the datalist's entries."""

import csv
import logging
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pretext3d.data.volumes import strip_extension
from pretext3d.errors import UserError

__all__ = ["classified_cases"]

logger = logging.getLogger(__name__)

Case = dict[str, Any]

NAMES = ("id", "case", "name", "image")  # headings of the CSV's column of cases


def classified_cases(cases: Sequence[Case], class_file: str = "") -> tuple[list[Case], list[str]]:
    """The cases that have a class, each with its number under `class`, and the classes' names in that order.

    Names are sorted as numbers where all of them are whole numbers, else as text.

    Args:
        cases: as `find_cases` gives them; the field `class` of a datalist's entry, text or number, is its
            class.
        class_file: a CSV with a column `class` and one of id, case, name, image (a case's name, or its
            file's, with or without the extension); '' = the datalist's classes.

    Raises:
        UserError: no such file or column; a case listed twice with different classes; a line whose case is
            not found; fewer than two classes.
    """
    given = read_classes(class_file) if class_file else {}
    found: list[tuple[Case, str]] = []
    used: set[str] = set()
    for case in cases:
        names = [key for key in (case["id"], case["name"]) if key in given]
        used.update(names)
        if names:
            found.append((case, given[names[0]]))
        elif not class_file and "class" in case:
            found.append((case, str(case["class"])))
    missing = sorted(set(given) - used)
    if missing:
        raise UserError(
            f"{class_file}: {len(missing)} of {len(given)} cases are not in dataset_dir, as {missing[0]!r}; "
            f"there are {', '.join(repr(case['name']) for case in cases[:3])} ..."
        )
    classes = {name for _, name in found}
    whole = all(re.fullmatch(r"-?[0-9]+", name) for name in classes)
    ordered = sorted(classes, key=lambda name: (int(name) if whole else 0, name))
    if len(ordered) < 2:
        source = class_file or "the datalist's field 'class' (or a CSV under class_file)"
        raise UserError(
            f"class_file: found {len(found)} cases of {len(ordered)} classes in {source}, expected two"
        )
    if len(found) < len(cases):
        logger.info("%d of %d cases have no class and are left out", len(cases) - len(found), len(cases))
    return [{**case, "class": ordered.index(name)} for case, name in found], ordered


def read_classes(path: str) -> dict[str, str]:
    """Class of each case by its name, from a CSV file."""
    file = Path(path).expanduser()
    if not file.is_file():
        raise UserError(f"class_file: {path} not found; expected a CSV file with the columns id and class")
    with file.open(newline="", encoding="utf-8-sig") as stream:
        rows = csv.DictReader(stream)
        heading = next((name for name in NAMES if name in (rows.fieldnames or ())), "")
        if not heading or "class" not in (rows.fieldnames or ()):
            raise UserError(
                f"{path}: found the columns {rows.fieldnames}, expected 'class' and one of {', '.join(NAMES)}"
            )
        classes: dict[str, str] = {}
        for number, row in enumerate(rows, start=2):
            name, value = (row[heading] or "").strip(), (row["class"] or "").strip()
            if not name or not value:
                raise UserError(
                    f"{path}: line {number}: found case {name!r} and class {value!r}, expected both"
                )
            name = strip_extension(Path(name).name) if heading == "image" else strip_extension(name)
            if classes.setdefault(name, value) != value:
                raise UserError(
                    f"{path}: line {number}: case {name!r} has class {value!r} here, {classes[name]!r} above"
                )
    return classes

"""Classes of complete cases, for classification: from a CSV file, or from the datalist's entries."""

import logging
import re
from collections.abc import Sequence
from typing import Any

from pretext3d.data.tables import match_cases, read_column
from pretext3d.errors import UserError

__all__ = ["classified_cases"]

logger = logging.getLogger(__name__)

Case = dict[str, Any]


def classified_cases(cases: Sequence[Case], class_file: str = "") -> tuple[list[Case], list[str]]:
    """The cases that have a class, each with its number under `class`, and the classes' names in that order.

    Names are sorted as numbers where all are integers, else as text.

    Args:
        cases: Cases from `find_cases`; the field `class` of a datalist's entry, text or number, is its class.
        class_file: Path of a CSV file with a column `class` and one of id, case, name, image (the name of a
            case or of its file, with or without the extension); '' = the datalist's classes.

    Raises:
        UserError: If there is no such file or column, a case is listed twice with different classes, a line
            names an unknown case, or there are fewer than two classes.

    Examples:
        >>> cases, names = classified_cases([{"id": "a", "class": "sick"}, {"id": "b", "class": "healthy"}])
        >>> [case["class"] for case in cases], names
        ([1, 0], ['healthy', 'sick'])
    """
    given: dict[str, str] = {}
    if class_file:
        given = match_cases(cases, read_column("class_file", class_file, "class"), class_file)
    found: list[tuple[Case, str]] = []
    for case in cases:
        if case["id"] in given:
            found.append((case, given[case["id"]]))
        elif not class_file and "class" in case:
            found.append((case, str(case["class"])))
    classes = {name for _, name in found}
    whole = all(re.fullmatch(r"-?[0-9]+", name) for name in classes)
    ordered = sorted(classes, key=lambda name: (int(name) if whole else 0, name))
    if len(ordered) < 2:
        source = class_file or "the datalist's field 'class' (or a CSV under class_file)"
        raise UserError(
            f"class_file: found {len(found)} cases of {len(ordered)} classes in {source}, expected 2 or more"
        )
    if len(found) < len(cases):
        logger.info("%d of %d cases have no class and are left out", len(cases) - len(found), len(cases))
    return [{**case, "class": ordered.index(name)} for case, name in found], ordered

"""Classes of complete cases, for classification: from a CSV file, or from the datalist's entries."""

import logging
import re
from collections.abc import Collection, Iterable, Sequence
from typing import Any

from pretext3d.checking import brief, is_integer
from pretext3d.data.tables import match_cases, read_column
from pretext3d.errors import UserError

__all__ = ["are_ordered", "classified_cases"]

logger = logging.getLogger(__name__)

Case = dict[str, Any]


def classified_cases(
    cases: Sequence[Case], class_file: str = "", ordered_classes: Sequence[str | int] | bool | None = None
) -> tuple[list[Case], list[str]]:
    """The cases that have a class, each with its number under `class`, and the classes' names in that order.

    Names are in the order of `ordered_classes`; else sorted as numbers where all are integers, else as text.

    Args:
        cases: Cases from `find_cases`; the field `class` of a datalist's entry, text or number, is its class.
        class_file: Path of a CSV file with a column `class` and one of id, case, name, image (the name of a
            case or of its file, with or without the extension); '' = the datalist's classes.
        ordered_classes: Names of all classes in ascending order; None or False = sorted (see `are_ordered`).

    Raises:
        UserError: If there is no such file or column, a case is listed twice with different classes, a line
            names an unknown case, there are fewer than two classes, or `ordered_classes` has other ones.

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
    whole = are_numbers(classes)
    ordered = sorted(classes, key=lambda name: (int(name) if whole else 0, name))
    given_order = check_order(ordered_classes)
    if len(ordered) < 2:
        source = class_file or "the datalist's field 'class' (or a CSV under class_file)"
        raise UserError(
            f"class_file: found {len(found)} cases of {len(ordered)} classes in {source}, expected 2 or more"
        )
    if given_order and sorted(given_order) != sorted(ordered):
        raise UserError(
            f"ordered_classes: found {', '.join(given_order)}, expected each class of the cases once: "
            f"{', '.join(ordered)}"
        )
    ordered = given_order or ordered
    if len(found) < len(cases):
        report_unclassified(cases, {case["id"] for case, _ in found}, class_file)
    return [{**case, "class": ordered.index(name)} for case, name in found], ordered


def report_unclassified(cases: Sequence[Case], classified: Collection[str], class_file: str) -> None:
    """Warn of the cases without a class, by id; and that a file replaces the classes of a datalist."""
    without = [case for case in cases if case["id"] not in classified]
    more = f" and {len(without) - 3} more" if len(without) > 3 else ""
    listed = sum("class" in case for case in without)
    replaced = f"; the datalist has a class for {listed} of them, which the file replaces" if listed else ""
    logger.warning(
        "%d of %d cases have no class%s and are left out: %s%s%s",
        len(without), len(cases), f" in {class_file}" if class_file else "",
        ", ".join(case["id"] for case in without[:3]), more, replaced,
    )  # fmt: skip


def are_numbers(names: Iterable[str]) -> bool:
    """Whether all names are integers."""
    return all(re.fullmatch(r"-?[0-9]+", name) for name in names)


def are_ordered(
    class_names: Sequence[str], ordered_classes: Sequence[str | int] | bool | None = None
) -> bool:
    """Whether classes are grades of one scale, for which the distance of two classes has a meaning.

    Args:
        class_names: Names of all classes.
        ordered_classes: Names in ascending order; False = not ordered; None = ordered if all names are
            integers and there are three or more.

    Examples:
        >>> are_ordered(["0", "1", "2"]), are_ordered(["0", "1", "2"], False), are_ordered(["cat", "dog"])
        (True, False, False)
        >>> are_ordered(["none", "mild", "severe"], ["none", "mild", "severe"])
        True
    """
    return bool(check_order(ordered_classes)) or (
        ordered_classes is None and len(class_names) > 2 and are_numbers(class_names)
    )


def check_order(ordered_classes: Any) -> list[str]:
    """The names in ascending order; [] for None and False.

    Raises:
        UserError: anything but None, False or a list of two or more names.
    """
    if ordered_classes is None or ordered_classes is False:
        return []
    listed = isinstance(ordered_classes, list | tuple) and len(ordered_classes) > 1
    if not listed or not all(isinstance(name, str) or is_integer(name) for name in ordered_classes):
        raise UserError(
            f"ordered_classes: found {brief(ordered_classes)}, expected the classes in ascending order, as "
            "[none, mild, severe], False, or null: ordered where all are integers"
        )
    return [str(name) for name in ordered_classes]

"""Checks of a study file's values; each takes the place of a value, for its message, and the value."""

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from pretext3d.checking import closest_hint, integer, number
from pretext3d.commands.bundles import bundles_at_hand
from pretext3d.errors import UserError
from pretext3d.literals import check_literal

__all__ = [
    "above_zero", "bundle_name", "dims", "file_name", "fraction", "from_zero", "known_in", "known_name",
    "positive", "score", "share", "text",
]  # fmt: skip

NAME = re.compile(r"[A-Za-z0-9][\w.+-]*")
MOST = 30  # names that a message lists


def known_name(where: str, name: Any, names: Mapping[str, Any] | Sequence[str], what: str) -> str:
    """A name that is known.

    Raises:
        UserError: another one; with the closest that is.
    """
    if name not in names:
        hint, listed = closest_hint(name, names), f": {', '.join(names)}" if len(names) <= MOST else ""
        raise UserError(f"{where}: found {name!r}, expected {what}{listed}{hint}")
    return str(name)


def file_name(where: str, value: Any) -> str:
    """A name that can be a part of file names: of a study, a task, an encoder or an arm."""
    if not isinstance(value, str) or not NAME.fullmatch(value):
        raise UserError(f"{where}: found {value!r}, expected a name of letters, digits and _ . + -")
    return value


def known_in(what: str, names: Sequence[str] | Mapping[str, Any]) -> Any:
    """A check of names that a study file defines, see `known_name`."""
    return lambda where, name: known_name(where, name, names, f"{what} of this study")


def bundle_name(where: str, value: Any) -> str:
    """The name of a bundle at hand."""
    return known_name(where, value, bundles_at_hand(), "a bundle")


def text(where: str, value: Any) -> str:
    """A text that MONAI does not evaluate, as the name of a recipe."""
    if not isinstance(value, str):
        raise UserError(f"{where}: found {value!r}, expected text")
    return str(check_literal(value, where))


def from_zero(where: str, value: Any) -> int:
    """A seed, or a number of things."""
    return integer(where, value, minimum=0)


def positive(where: str, value: Any) -> int:
    """A number of things, at least one."""
    return integer(where, value, minimum=1)


def dims(where: str, value: Any) -> int:
    """A number of spatial axes."""
    return integer(where, value, 2, 3)


def above_zero(where: str, value: Any) -> float:
    """A learning rate, or a distance in mm."""
    return number(where, value, low=0, low_open=True)


def share(where: str, value: Any) -> float:
    """A fraction of the labels."""
    return number(where, value, 0, 1, low_open=True)


def score(where: str, value: Any) -> float:
    """A score of screening; NaN, of a cell without one, too."""
    return math.nan if isinstance(value, float) and math.isnan(value) else number(where, value)


def fraction(where: str, value: Any) -> float:
    """A fraction of the subjects that is held out; some must be."""
    return number(where, value, 0, 1, low_open=True, high_open=True)

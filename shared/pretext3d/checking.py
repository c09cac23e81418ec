"""Checks of single values: the message names the key, what was found and what was expected."""

import difflib
import math
import numbers
import reprlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeGuard

from pretext3d.errors import UserError

__all__ = [
    "WORDS", "boolean", "brief", "closest_hint", "integer", "is_integer", "is_number", "named_entries",
    "number", "one_of", "ordered_pair", "per_axis",
]  # fmt: skip


WORDS = {2: "two", 3: "three"}  # numbers of axes

_BRIEF = reprlib.Repr()
_BRIEF.maxlevel, _BRIEF.maxdict, _BRIEF.maxlist = 3, 6, 8
_BRIEF.maxstring = _BRIEF.maxlong = _BRIEF.maxother = 80


def brief(value: Any) -> str:
    """A value for a message, cut where it is long or deeply nested.

    Examples:
        >>> brief([1, "a"]), brief([[[[1]]]]), len(brief("x" * 1000))
        ("[1, 'a']", '[[[[...]]]]', 80)
    """
    return " ".join(_BRIEF.repr(value).split())  # a tensor takes several lines


def is_integer(value: Any) -> TypeGuard[int]:
    """Whether a value is an integer of Python or NumPy; True and False are not.

    Examples:
        >>> is_integer(3), is_integer(3.0), is_integer(True)
        (True, False, False)
    """
    return isinstance(value, numbers.Integral) and not isinstance(value, bool)


def is_number(value: Any) -> TypeGuard[float]:
    """Whether a value is a finite integer or float of Python or NumPy; True and False are not.

    Examples:
        >>> is_number(0.5), is_number(math.inf), is_number("1")
        (True, False, False)
    """
    real = isinstance(value, numbers.Real) and not isinstance(value, bool)
    return real and bool(-math.inf < value < math.inf)


def boolean(key: str, value: Any) -> bool:
    """The value as a bool: a text such as "no", which is true in a condition, is neither.

    Args:
        key: Name of the value in the message.
        value: What the user gave.

    Raises:
        UserError: neither True nor False.

    Examples:
        >>> boolean("cross_entropy", False)
        False
        >>> boolean("cross_entropy", "no")
        Traceback (most recent call last):
        pretext3d.errors.UserError: cross_entropy: found 'no', expected True or False
    """
    if not isinstance(value, bool):
        raise UserError(f"{key}: found {value!r}, expected True or False")
    return value


def integer(
    key: str, value: Any, minimum: int | None = None, maximum: int | None = None, expected: str = ""
) -> int:
    """The value as an int.

    Args:
        key: Name of the value in the message.
        value: What the user gave.
        minimum: Smallest value that is valid; None = any.
        maximum: Largest value that is valid; None = any. Needs a minimum.
        expected: Words for the message; '' = those that follow from the limits.

    Raises:
        UserError: not an integer, or outside the limits.

    Examples:
        >>> integer("batch_size", 4, minimum=1)
        4
        >>> integer("batch_size", True, minimum=1)
        Traceback (most recent call last):
        pretext3d.errors.UserError: batch_size: found True, expected an integer of 1 or more
    """
    above = minimum is None or (is_integer(value) and value >= minimum)
    below = maximum is None or (is_integer(value) and value <= maximum)
    if not (is_integer(value) and above and below):
        range_ = "" if minimum is None else f" of {minimum} or more"
        range_ = f" from {minimum} to {maximum}" if maximum is not None else range_
        raise UserError(f"{key}: found {value!r}, expected {expected or f'an integer{range_}'}")
    return int(value)


def per_axis(
    key: str, value: Any, axes: int = 3, minimum: int = 1, single: bool = True, expected: str = ""
) -> tuple[int, ...]:
    """One integer, or one per axis, as one per axis; also of arrays and tensors.

    Args:
        key: Name of the value in the message.
        value: What the user gave.
        axes: Number of axes.
        minimum: Smallest number that is valid.
        single: Whether one number stands for all axes.
        expected: Words for the message; '' = those that follow from the limits.

    Raises:
        UserError: anything else; names the key.

    Examples:
        >>> per_axis("grid", 2), per_axis("gap", [3, 0], axes=2, minimum=0)
        ((2, 2, 2), (3, 0))
    """
    plain = value.tolist() if hasattr(value, "tolist") else value
    given = list(plain) if isinstance(plain, Sequence) and not isinstance(plain, str) else [plain]
    given = [n.item() if hasattr(n, "item") else n for n in given]
    if single and not isinstance(plain, Sequence):
        given *= axes
    if len(given) != axes or not all(is_integer(n) and n >= minimum for n in given):
        count = f"{'one or ' if single else ''}{WORDS.get(axes, axes)}"
        expected = expected or f"{count} integers of {minimum} or more"
        raise UserError(f"{key}: found {plain!r}, expected {expected}")
    return tuple(given)


def ordered_pair(
    key: str, value: Any, low_open: bool = False, most: float = math.inf, expected: str = ""
) -> tuple[float, float]:
    """Two numbers from 0 to `most`, the second not below the first.

    Args:
        key: Name of the value in the message.
        value: What the user gave.
        low_open: 0 itself is not valid.
        most: Largest number that is valid.
        expected: Words for the message; '' = those that follow from the limits.

    Raises:
        UserError: anything else; names the key.

    Examples:
        >>> ordered_pair("zoom_range", [0.5, 2], low_open=True)
        (0.5, 2.0)
    """
    pair = list(value) if isinstance(value, Sequence) and not isinstance(value, str) else []
    valid = len(pair) == 2 and all(map(is_number, pair)) and 0 <= pair[0] <= pair[1] <= most
    if not valid or (low_open and pair[0] == 0):
        least = "above 0" if low_open else "of 0 or more"
        upto = "" if math.isinf(most) else f" and {most:g} or less"
        expected = expected or f"two numbers {least}{upto}, the smaller one first"
        raise UserError(f"{key}: found {brief(value)}, expected {expected}")
    return float(pair[0]), float(pair[1])


def named_entries(key: str, value: Any, example: str) -> dict[str, Any]:
    """Entries by name, as a dictionary of its own; None = no entries.

    Args:
        key: Name of the value in the message.
        value: What the user gave.
        example: Entries as a user writes them.

    Raises:
        UserError: anything else; names the key.

    Examples:
        >>> named_entries("sizes", {"box": [30, 60]}, "{box: [30, 60]}")
        {'box': [30, 60]}
    """
    entries = {} if value is None else value
    if not isinstance(entries, Mapping) or not all(isinstance(name, str) for name in entries):
        raise UserError(f"{key}: found {brief(value)}, expected entries by name, as {example}")
    return dict(entries)


def number(
    key: str,
    value: Any,
    low: float = -math.inf,
    high: float = math.inf,
    low_open: bool = False,
    high_open: bool = False,
    expected: str = "",
) -> float:
    """The value as a float.

    Args:
        key: Name of the value in the message.
        value: What the user gave.
        low: Lower end of the interval.
        high: Upper end of the interval.
        low_open: The lower end itself is not valid.
        high_open: The upper end itself is not valid.
        expected: Words for the message; '' = those that follow from the interval.

    Raises:
        UserError: not a finite number, or outside the interval.

    Examples:
        >>> number("learning_rate", 1, low=0, low_open=True)
        1.0
        >>> number("val_fraction", 1.0, 0, 1, high_open=True)
        Traceback (most recent call last):
        pretext3d.errors.UserError: val_fraction: found 1.0, expected a number in [0, 1)
    """
    inside = is_number(value) and low <= value <= high
    if not inside or (low_open and value == low) or (high_open and value == high):
        raise UserError(
            f"{key}: found {value!r}, expected {expected or _interval(low, high, low_open, high_open)}"
        )
    return float(value)


def _interval(low: float, high: float, low_open: bool, high_open: bool) -> str:
    if math.isinf(low) and math.isinf(high):
        return "a number"
    if math.isinf(high):
        return f"a number above {low:g}" if low_open else f"a number of {low:g} or more"
    if math.isinf(low):
        return f"a number below {high:g}" if high_open else f"a number of {high:g} or less"
    return f"a number in {'(' if low_open else '['}{low:g}, {high:g}{')' if high_open else ']'}"


def one_of(key: str, value: Any, words: Iterable[str]) -> str:
    """The value, if it is one of the words.

    Args:
        key: Name of the value in the message.
        value: What the user gave.
        words: All valid values.

    Raises:
        UserError: another value.

    Examples:
        >>> one_of("reduction", "mean", ("sum", "mean"))
        'mean'
        >>> one_of("reduction", "max", ("sum", "mean"))
        Traceback (most recent call last):
        pretext3d.errors.UserError: reduction: found 'max', expected one of sum, mean
    """
    known = list(words)
    if not isinstance(value, str) or value not in known:
        raise UserError(f"{key}: found {value!r}, expected one of {', '.join(known)}")
    return value


def closest_hint(name: object, names: Iterable[str], template: str = "; did you mean {}?") -> str:
    """The name nearest in spelling, inserted into `template`; '' where none is close.

    Examples:
        >>> closest_hint("max_epoch", ["max_epochs", "seed"], "; did you mean --{}?")
        '; did you mean --max_epochs?'
        >>> closest_hint("x", ["max_epochs"])
        ''
    """
    near = difflib.get_close_matches(str(name), list(names), n=1)
    return template.format(near[0]) if near else ""

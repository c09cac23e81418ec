"""Values of DICOM elements as plain tuples, fast: equal values of different files are converted once.

pydicom converts an element when it is asked for. The slices of a stack share almost all values that a header
search needs, so the conversion is kept by the stored bytes.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from pretext3d.data.faults import GEOMETRY, UNREADABLE, BadFileError

__all__ = ["first_item", "integer", "needed", "numbers", "plain", "text", "values"]

NO_GEOMETRY = "no geometry"


@lru_cache
def tag_of(keyword: str) -> Any:
    """The tag of an element's keyword."""
    from pydicom.tag import Tag

    return Tag(keyword)


@lru_cache(maxsize=2**14)
def converted(raw: tuple[Any, ...]) -> tuple[Any, ...]:
    """The values of an element as stored: tag, type, length, bytes, implicit type, little endian."""
    from pydicom.dataelem import RawDataElement, convert_raw_data_element

    tag, kind, length, content, implicit, little = raw
    element = RawDataElement(tag, kind, length, content, 0, implicit, little, True)
    return listed(convert_raw_data_element(element).value)


def listed(value: Any) -> tuple[Any, ...]:
    """One value or several as a tuple; () for an empty one."""
    if value is None or value == "":
        return ()
    return tuple(value) if hasattr(value, "__iter__") and not isinstance(value, str | bytes) else (value,)


def values(data: Any, keyword: str) -> tuple[Any, ...]:
    """The values of an element, items of a sequence included; () where it is missing or empty.

    Args:
        data: pydicom data set; None has no elements.
        keyword: Keyword of the element.
    """
    if data is None:
        return ()
    tag = tag_of(keyword)
    if tag not in data.keys():  # noqa: SIM118  a data set's own `in` is slower
        return ()
    element = data.get_item(tag)
    if getattr(element, "is_raw", False) and isinstance(element.value, bytes):
        return converted((tag, element.VR, element.length, element.value, element[5], element[6]))
    return listed(data[tag].value)


def numbers(data: Any, keyword: str, count: int) -> tuple[float, ...]:
    """The numbers of an element; () where it is missing.

    Raises:
        BadFileError: For another number of values, or values that are not finite numbers.
    """
    try:
        found = tuple(float(value) for value in values(data, keyword))
    except (TypeError, ValueError) as error:
        raise BadFileError(GEOMETRY, f"{keyword} is not a number") from error
    if found and (len(found) != count or not np.isfinite(found).all()):
        raise BadFileError(GEOMETRY, f"{keyword} is {text(found)}, expected {count} numbers")
    return found


def needed(data: Any, keyword: str, count: int) -> tuple[float, ...]:
    """The numbers of an element.

    Raises:
        BadFileError: If they are missing or invalid.
    """
    found = numbers(data, keyword, count)
    if not found:
        raise BadFileError(NO_GEOMETRY, f"{keyword} is missing")
    return found


def integer(data: Any, keyword: str, otherwise: int = 0) -> int:
    """An integer, 1 or more.

    Raises:
        BadFileError: If it is missing without a default, or below 1.
    """
    found = (*values(data, keyword), otherwise)[0]
    if int(found) < 1:
        raise BadFileError(UNREADABLE, f"{keyword} is {'missing' if found is otherwise else found}")
    return int(found)


def plain(data: Any, keyword: str) -> Any:
    """An element's value as text, a number, a tuple of them, or None."""
    found = tuple(
        v if isinstance(v, int) else float(v) if isinstance(v, float) else str(v)
        for v in values(data, keyword)
    )
    return (found[0] if len(found) == 1 else found) if found else None


def first_item(keyword: str, *places: Any) -> Any:
    """The first item of a sequence in the first data set that has it; None."""
    return next((found[0] for found in (values(place, keyword) for place in places) if found), None)


def text(found: Sequence[float]) -> str:
    """Numbers for people.

    Examples:
        >>> text((0.5, 3))
        '0.5, 3'
    """
    return ", ".join(f"{n:g}" for n in found)

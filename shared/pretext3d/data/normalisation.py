"""How intensities are scaled: the key `normalisation` of a configuration and of a record."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from pretext3d.checking import is_number
from pretext3d.errors import UserError

__all__ = ["Normalisation", "check_normalisation"]

EXPECTED = "expected {percentiles: [0.5, 99.5]}, {window: [low, high]} or {mean_maximum: [-1, 1]}, ascending"


class Normalisation(NamedTuple):
    """Kind (percentiles, window or mean_maximum), and the two values that become the ends of the range."""

    kind: str
    low: float
    high: float


def check_normalisation(value: Any, key: str = "normalisation") -> Normalisation:
    """A normalisation, from its mapping with one entry.

    Args:
        value: {"percentiles": [low, high]} with 0 <= low < high <= 100, {"window": [low, high]} with
            low < high, or {"mean_maximum": [-1, 1]}.
        key: Name of the value in the message.

    Raises:
        UserError: for anything else.

    Examples:
        >>> check_normalisation({"window": [-175, 250]})
        Normalisation(kind='window', low=-175.0, high=250.0)
    """
    kind, limits = next(iter(value.items())) if isinstance(value, Mapping) and len(value) == 1 else ("", ())
    pair = list(limits) if isinstance(limits, Sequence) and not isinstance(limits, str | bytes) else []
    ascending = len(pair) == 2 and all(is_number(v) and abs(v) < 1e30 for v in pair) and pair[0] < pair[1]
    valid = {
        "percentiles": ascending and pair[0] >= 0 and pair[1] <= 100,
        "window": ascending,
        "mean_maximum": pair == [-1, 1],
    }
    if not isinstance(kind, str) or not valid.get(kind, False):
        raise UserError(f"{key}: found {value!r}, {EXPECTED}")
    return Normalisation(kind, float(pair[0]), float(pair[1]))

"""Tests of the checks of single values: what passes, and the message for what does not."""

import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pretext3d.checking import boolean, closest_hint, integer, is_integer, is_number, number, one_of, per_axis
from pretext3d.errors import UserError

NO_NUMBERS = [None, True, "1", [1], 1j, math.nan, math.inf, -math.inf, np.float32("nan"), np.bool_(True)]


@pytest.mark.parametrize("value", [2, np.int64(2), np.uint8(2)])
def test_whole_numbers_of_python_and_numpy(value: Any) -> None:
    assert is_integer(value)
    result = integer("n", value, minimum=2, maximum=2)
    assert result == 2
    assert type(result) is int


@pytest.mark.parametrize("value", [2, 2.0, np.float32(2), np.int8(2), Fraction(2)])
def test_numbers_of_python_and_numpy(value: Any) -> None:
    assert is_number(value)
    result = number("x", value, 2, 2)
    assert result == 2
    assert type(result) is float


@pytest.mark.parametrize("value", NO_NUMBERS)
def test_what_is_no_number(value: Any) -> None:
    assert not is_integer(value)
    assert not is_number(value)
    with pytest.raises(UserError, match=r"^n: found .*, expected an integer$"):
        integer("n", value)
    with pytest.raises(UserError, match=r"^x: found .*, expected a number$"):
        number("x", value)


def test_a_float_is_no_whole_number() -> None:
    with pytest.raises(UserError, match=r"^n: found 2.0, expected an integer of 1 or more$"):
        integer("n", 2.0, minimum=1)


@pytest.mark.parametrize(
    ("limits", "words"),
    [
        ({"minimum": 3}, "an integer of 3 or more"),
        ({"minimum": 3, "maximum": 9}, "an integer from 3 to 9"),
        ({"minimum": 3, "expected": "a multiple of 3"}, "a multiple of 3"),
    ],
)
def test_words_for_whole_numbers(limits: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError) as caught:
        integer("n", 2, **limits)
    assert str(caught.value) == f"n: found 2, expected {words}"


@pytest.mark.parametrize(
    ("limits", "words"),
    [
        ({"low": 0}, "a number of 0 or more"),
        ({"low": 0, "low_open": True}, "a number above 0"),
        ({"high": -2}, "a number of -2 or less"),
        ({"high": -1, "high_open": True}, "a number below -1"),
        ({"low": 0, "high": 1}, "a number in [0, 1]"),
        ({"low": 0, "high": 1, "low_open": True}, "a number in (0, 1]"),
        ({"low": 0, "high": 0.5, "high_open": True}, "a number in [0, 0.5)"),
        ({"low": 0, "expected": "a volume"}, "a volume"),
    ],
)
def test_words_for_numbers(limits: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError) as caught:
        number("x", -1, **limits)
    assert str(caught.value) == f"x: found -1, expected {words}"


@given(st.integers(), st.integers(), st.integers())
def test_whole_numbers_between_limits_pass_and_no_others(value: int, low: int, high: int) -> None:
    if low <= value <= high:
        assert integer("n", value, low, high) == value
    else:
        with pytest.raises(UserError):
            integer("n", value, low, high)


@given(st.sampled_from([0.0, 0.5, 1.0]), st.booleans(), st.booleans())
def test_open_ends_are_left_out(value: float, low_open: bool, high_open: bool) -> None:
    if (value == 0 and low_open) or (value == 1 and high_open):
        with pytest.raises(UserError):
            number("x", value, 0, 1, low_open, high_open)
    else:
        assert number("x", value, 0, 1, low_open, high_open) == value


def test_hint() -> None:
    assert closest_hint("sed", ["seed", "size"]) == "; did you mean seed?"
    assert closest_hint("sed", {"seed": 1}, " (did you mean {!r}?)") == " (did you mean 'seed'?)"
    assert closest_hint("zebra", ["seed"]) == ""
    assert closest_hint(None, []) == ""


@pytest.mark.parametrize("value", [0, [1, 2], 1.5, True, [2, 2, 0], "2", None])
def test_sizes_that_make_no_grid(value):
    with pytest.raises(UserError, match=r"grid: found .*, expected one or three integers"):
        per_axis("grid", value)


def test_one_number_stands_for_three():
    assert per_axis("gap", 4, minimum=0) == (4, 4, 4)
    assert per_axis("gap", [0, 1, 2], minimum=0) == (0, 1, 2)


@pytest.mark.parametrize("value", [[1, 2, 3], [1], 0])
def test_sizes_that_make_no_grid_of_tiles(value):
    with pytest.raises(UserError, match=r"grid: found .*, expected one or two integers of 1 or more"):
        per_axis("grid", value, axes=2)


def test_numbers_of_an_array_are_one_per_axis() -> None:
    assert per_axis("roi_size", np.array([8, 16, 24])) == (8, 16, 24)
    assert per_axis("roi_size", np.int64(8), axes=2) == (8, 8)
    with pytest.raises(UserError, match=r"roi_size: found 8, expected three integers of 1 or more"):
        per_axis("roi_size", 8, single=False)


@pytest.mark.parametrize("value", ["max", "", None, ["sum"], {"sum": 1}, 0])
def test_what_is_none_of_the_words(value: Any) -> None:
    assert one_of("reduction", "sum", {"sum": 1, "mean": 2}) == "sum"
    with pytest.raises(UserError) as found:
        one_of("reduction", value, ("sum", "mean"))
    assert str(found.value) == f"reduction: found {value!r}, expected one of sum, mean"


@pytest.mark.parametrize("value", [True, False])
def test_flags(value: Any) -> None:
    assert boolean("flag", value) is bool(value)


@pytest.mark.parametrize("value", ["no", "False", "", 0, 1, None, [], 0.0])
def test_what_is_no_flag(value: Any) -> None:
    with pytest.raises(UserError, match=r"^flag: found .*, expected True or False$"):
        boolean("flag", value)

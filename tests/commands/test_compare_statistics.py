"""The pigeonhole bootstrap of seeds and subjects: by hand, and its laws."""

import numpy as np
import pytest
from pretext3d.commands.compare.statistics import bootstrap
from pretext3d.errors import UserError

PAIRS = np.random.default_rng(1).normal(size=(3, 8))
HOLED = np.where(np.random.default_rng(2).random((3, 8)) < 0.3, np.nan, PAIRS)


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("pairs", [PAIRS, HOLED], ids=["all", "some"])
def test_subjects_of_one_volume_are_drawn_as_cases_are(pairs, nested) -> None:
    own = [f"subject {n}" for n in (3, 1, 7, 2, 0, 4, 6, 5)]
    assert bootstrap(pairs, nested, subjects=own) == bootstrap(pairs, nested)


@pytest.mark.parametrize("nested", [False, True])
def test_equal_volumes_of_a_subject_give_the_interval_of_one_each(nested) -> None:
    # every case twice, as left and right: no more is known than of one of the two
    twice = np.repeat(HOLED, 2, axis=1)
    one = bootstrap(HOLED, nested)
    assert bootstrap(twice, nested, subjects=[f"s{n // 2}" for n in range(16)]) == pytest.approx(one)
    low, high = bootstrap(twice, nested)[1:]
    assert high - low < one[2] - one[1]  # as if they were independent


def test_two_subjects_by_hand() -> None:
    # drawn are anna twice (1 in 4), ben twice (1 in 4) or both (2 in 4): means 1, 0 and 2/3
    pairs, people = np.array([[1.0, 1.0, 0.0]]), ["anna", "anna", "ben"]
    for nested in (False, True):
        assert bootstrap(pairs, nested, subjects=people) == pytest.approx((2 / 3, 0.0, 1.0))
        assert bootstrap(pairs, nested, level=0.4, subjects=people) == pytest.approx((2 / 3, 2 / 3, 2 / 3))


def test_a_subject_for_each_case() -> None:
    with pytest.raises(UserError, match="subjects: found 2, expected one for each of the 8 cases"):
        bootstrap(PAIRS, subjects=["a", "b"])


def test_two_classes_by_hand() -> None:
    """Two of class a right, one of class b wrong: balanced accuracy (1 + 0) / 2.

    Drawn three times of three: none of b in 8 of 27 (1, over the classes that are drawn), none of a in 1 of
    27 (0), both in 18 of 27 (1/2).
    """
    pairs, classes = np.array([[1.0, 1.0, 0.0]]), ["a", "a", "b"]
    for nested in (False, True):
        assert bootstrap(pairs, nested, strata=classes) == (0.5, 0.0, 1.0)
        assert bootstrap(pairs, nested, level=0.2, strata=classes) == (0.5, 0.5, 0.5)
    assert bootstrap(pairs)[0] == pytest.approx(2 / 3)
    with pytest.raises(UserError, match="strata: found 1, expected one for each of the 8 cases"):
        bootstrap(PAIRS, strata=["a"])


@pytest.mark.parametrize("nested", [False, True])
def test_one_stratum_is_none(nested) -> None:
    assert bootstrap(HOLED, nested, strata=["a"] * 8) == bootstrap(HOLED, nested)

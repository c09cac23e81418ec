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

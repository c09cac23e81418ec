"""The pigeonhole bootstrap, the sign-flip test and Holm's correction: by hand, and their laws."""

import numpy as np
import pytest
from pretext3d.commands.compare.statistics import bootstrap, holm, sign_flip_test
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


# ------------------------------------------------------------------------------------------------ p-values
def test_all_sign_patterns_by_hand() -> None:
    """Sums of +-1 +-2 +-4 are at least 5 (-5) away for 5, 7 and their opposites: 4 of 8 patterns."""
    assert sign_flip_test(np.array([[-1.0, 2.0, 4.0]])) == 4 / 8
    assert sign_flip_test(np.array([[1.0, 2.0, 4.0]])) == 2 / 8
    assert sign_flip_test(np.array([[0.0, 0.0, 0.0]])) == 1.0
    assert sign_flip_test(np.full((3, 8), np.nan)) == 1.0


def test_seeds_and_volumes_of_a_subject_change_their_sign_together() -> None:
    """Whatever the number of seeds and volumes: of three subjects 2 of 8 patterns are the least."""
    seeds = np.array([[1.0, 2.0, 4.0], [1.0, 2.0, 4.0]])
    assert sign_flip_test(seeds) == 2 / 8
    volumes = np.repeat(seeds, 2, axis=1)
    assert sign_flip_test(volumes, subjects=["a", "a", "b", "b", "c", "c"]) == 2 / 8
    # one by one, six volumes of 1, 1, 2, 2, 4, 4 have 2 of 64
    assert sign_flip_test(volumes) == 2 / 64


def test_strata_weigh_the_same_however_many_cases_they_have() -> None:
    """Of a two cases of 1, 1, of b one of -1: sums 1/2, 1/2, -1 (each divided by 2), 0 as found: always."""
    assert sign_flip_test(np.array([[1.0, 1.0, -1.0]]), strata=["a", "a", "b"]) == 1.0
    # of b +1: found 1; of 8 sums of 1/4, 1/4, 1/2 two are 1 or -1
    assert sign_flip_test(np.array([[1.0, 1.0, 1.0]]), strata=["a", "a", "b"]) == 2 / 8
    with pytest.raises(UserError, match="strata: found 1, expected one for each of the 8 cases"):
        sign_flip_test(PAIRS, strata=["a"])


def test_the_test_is_of_the_mean_that_the_bootstrap_gives() -> None:
    """Also where pairs are missing and strata differ in size: no pattern is farther than all signs equal."""
    kinds = ["a", "b", "a", "a", "b", "a", "a", "b"]
    positive = np.abs(HOLED)
    there = (~np.isnan(HOLED)).any(axis=0).sum()
    assert sign_flip_test(positive, strata=kinds) == pytest.approx(2 / 2**there)
    assert bootstrap(positive, strata=kinds)[0] > 0


def test_draws_replace_patterns_where_there_are_many() -> None:
    """30 subjects, equal differences: no draw is as large, p = 2 x 1 / (1 + draws)."""
    pairs = np.ones((1, 30))
    assert sign_flip_test(pairs, draws=999) == pytest.approx(2 / 1000)
    mixed = np.random.default_rng(0).normal(size=(3, 30))
    assert sign_flip_test(mixed) == sign_flip_test(mixed)
    # against all 2^12 patterns: 10,000 draws have a standard error of at most 0.005
    few = mixed[:, :12]
    assert sign_flip_test(few, draws=4095) == pytest.approx(sign_flip_test(few, draws=4096), abs=0.03)


def test_holm_by_hand() -> None:
    """4 x .01, 3 x .02, 2 x .03 (below .06, so .06) and 1 x .2."""
    assert holm([0.2, 0.03, 0.01, 0.02]) == pytest.approx([0.2, 0.06, 0.04, 0.06])
    assert holm([0.6, 0.7]) == [1.0, 1.0]
    assert holm([]) == []
    found = holm([0.02, np.nan, 0.01])
    assert found[0] == found[2] == pytest.approx(0.02)
    assert np.isnan(found[1])

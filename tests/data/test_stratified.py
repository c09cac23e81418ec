"""Folds and labelled subsets that have the classes in their proportions, by subject."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pretext3d.data.splits import assigned_folds, labelled_subset
from pretext3d.data.subjects import person_of
from pretext3d.errors import UserError

counts = st.lists(st.integers(1, 12), min_size=1, max_size=4)


def people(numbers: list[int], volumes: int = 2) -> list[dict]:
    """`numbers[c]` subjects of class c, each with some volumes."""
    return [
        {"id": f"c{c}p{p}v{v}", "name": f"c{c}p{p}v{v}", "subject": f"c{c}p{p}", "class": c}
        for c, number in enumerate(numbers)
        for p in range(number)
        for v in range(volumes)
    ]


@given(counts, st.integers(2, 5), st.integers(0, 3))
def test_folds_divide_subjects_and_classes_evenly(numbers: list[int], folds: int, seed: int) -> None:
    cases = people(numbers)
    if sum(numbers) < folds:
        with pytest.raises(UserError, match=f"folds: found {folds}, expected 2 to {sum(numbers)}"):
            assigned_folds(cases, folds, seed)
        return
    fold = assigned_folds(cases, folds, seed)
    assert len(fold) == sum(numbers)  # a subject is in one fold, with all its volumes
    sizes = Counter(fold.values())
    assert set(sizes) == set(range(folds))
    assert max(sizes.values()) - min(sizes.values()) <= 1
    for c in range(len(numbers)):
        each = Counter(
            fold[person_of(case)] for case in cases if case["class"] == c and case["id"][-1] == "0"
        )
        assert max(each.values()) - min(each[k] for k in range(folds)) <= 1
    assert fold == assigned_folds(cases[::-1], folds, seed)


def test_folds_depend_on_the_seed() -> None:
    cases = people([20])
    assert assigned_folds(cases, 5, 0) != assigned_folds(cases, 5, 1)


@given(counts, st.integers(0, 3))
def test_stratified_subsets_are_nested_and_proportional(numbers: list[int], seed: int) -> None:
    """Of the first n subjects, N_c n / N are of class c, to one."""
    cases, total = people(numbers), sum(numbers)
    before: set[str] = set()
    for n in range(1, total + 1):
        chosen = labelled_subset(cases, num_labelled=n, seed=seed, stratified=True)
        ids = {case["id"] for case in chosen}
        assert before < ids
        before = ids
        found = Counter(case["class"] for case in chosen)
        for c, number in enumerate(numbers):
            assert abs(found[c] / 2 - number * n / total) <= 1


def test_equal_classes_come_in_turn() -> None:
    """Of 5 classes of 14 subjects, as in the heart data, any 5 k subjects have k of each class."""
    cases = people([14] * 5)
    for n in (5, 10, 35):
        chosen = labelled_subset(cases, num_labelled=n, stratified=True)
        assert set(Counter(case["class"] for case in chosen).values()) == {2 * n // 5}

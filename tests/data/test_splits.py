"""Tests of the splits: laws over names, orders and unions of data sets."""

import itertools
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pretext3d.data.splits import check_unseen, fingerprints, labelled_subset, rank, split_cases
from pretext3d.errors import UserError

NAMES = st.lists(st.text("abcdefgh", min_size=1, max_size=5), min_size=2, max_size=12, unique=True)


def cases_of(names, source="s", labelled=()):
    cases = [{"id": f"{source}/{n}", "name": n, "source": source, "image": n} for n in names]
    return [{**c, "label": "l"} if c["name"] in labelled else c for c in cases]


def ids(cases):
    return {c["id"] for c in cases}


def test_rank_is_the_same_everywhere():
    # sha256("0:a"), worked out by coreutils' sha256sum: splits must not change between versions or machines
    assert rank(0, "a").startswith("9df3c5fab8ef8fe7")


@given(NAMES, st.integers(0, 3), st.randoms(use_true_random=False))
def test_split_does_not_depend_on_order(names, seed, random):
    shuffled = list(names)
    random.shuffle(shuffled)
    train, val = split_cases(cases_of(names), 0.3, seed)
    train_too, val_too = split_cases(cases_of(shuffled), 0.3, seed)
    assert ids(train) == ids(train_too)
    assert ids(val) == ids(val_too)
    assert [c["name"] for c in train] == [
        n for n in names if f"s/{n}" in ids(train)
    ]  # the order given is kept


@given(NAMES, st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.9]))
def test_split_parts_all_cases_and_counts(names, fraction):
    train, val = split_cases(cases_of(names), fraction, 0)
    assert ids(train) | ids(val) == ids(cases_of(names))
    assert not ids(train) & ids(val)
    n = len(names)
    expected = 0 if fraction == 0 else min(max(int(n * fraction + 0.5), 1), n - 1)
    assert len(val) == expected


def test_seeds_differ():
    names = [f"case{i}" for i in range(20)]
    assert ids(split_cases(cases_of(names), 0.2, 0)[1]) != ids(split_cases(cases_of(names), 0.2, 1)[1])


@given(NAMES, st.data())
def test_labelled_cases_are_held_out_alike_with_and_without_the_unlabelled(names, data):
    labelled = data.draw(st.lists(st.sampled_from(names), min_size=2, unique=True))
    everything = cases_of(names, labelled=labelled)
    only = [c for c in everything if "label" in c]
    held = ids(split_cases(everything, 0.3, 5)[1])
    assert ids(split_cases(only, 0.3, 5)[1]) == held & ids(only)


@given(NAMES, NAMES)
def test_split_of_a_union_is_the_union_of_the_splits(first, second):
    a, b = cases_of(first, "a"), cases_of(second, "b")
    union = split_cases(a + b, 0.3, 2)[1]
    assert ids(union) == ids(split_cases(a, 0.3, 2)[1]) | ids(split_cases(b, 0.3, 2)[1])


def test_subjects_stay_together():
    cases = [
        {"id": f"{s}{side}", "subject": s, "image": "x"} for s in "abcdefgh" for side in ("left", "right")
    ]
    train, val = split_cases(cases, 0.25, 0)
    assert len(val) == 4  # two of eight subjects
    assert not {c["subject"] for c in train} & {c["subject"] for c in val}


def test_repeated_entries_stay_together():
    cases = [{"id": f"{n}#{k}", "name": n, "image": n} for k in range(3) for n in "abcd"]
    train, val = split_cases(cases, 0.25, 0)
    assert len(val) == 3
    assert not {c["name"] for c in train} & {c["name"] for c in val}


def test_listed_folds_are_used():
    cases = [{"id": str(i), "image": "x", "fold": i % 3} for i in range(9)]
    train, val = split_cases(cases, 0.2, 0, fold=1)
    assert ids(val) == {"1", "4", "7"}
    assert len(train) == 6
    with pytest.raises(UserError, match=r"fold: found 3, expected one of the datalist's folds \[0, 1, 2\]"):
        split_cases(cases, 0.2, 0, fold=3)
    with pytest.raises(UserError, match=r"gives no fold for 1 cases \(x"):
        split_cases([*cases, {"id": "x", "image": "x"}], 0.2, 0, fold=1)


def test_folds_without_a_datalist_part_the_cases():
    cases = cases_of([f"case{i}" for i in range(11)])
    parts = [ids(split_cases(cases, 0.25, 0, fold=k)[1]) for k in range(4)]
    assert set.union(*parts) == ids(cases)
    assert sum(map(len, parts)) == 11
    with pytest.raises(UserError, match="fold: found 4, expected 0 to 3"):
        split_cases(cases, 0.25, 0, fold=4)


def test_listed_validation_is_held_out():
    cases = cases_of("abcdef")
    cases[2]["split"] = "validation"
    assert ids(split_cases(cases, 0.5, 0)[1]) == {"s/c"}


@given(NAMES, st.integers(0, 3))
def test_labelled_subsets_are_nested(names, seed):
    cases = cases_of(names)
    subsets = [labelled_subset(cases, num_labelled=n, seed=seed) for n in range(1, len(names) + 1)]
    for smaller, larger in itertools.pairwise(subsets):
        assert larger[: len(smaller)] == smaller
    assert ids(labelled_subset(cases[::-1], num_labelled=2, seed=seed)) == ids(subsets[1])


def test_label_fraction_is_floored_and_at_least_one():
    cases = cases_of([f"case{i}" for i in range(10)])
    assert [len(labelled_subset(cases, f)) for f in (0.01, 0.1, 0.19, 0.3, 0.7, 1.0)] == [1, 1, 1, 3, 7, 10]


@pytest.mark.parametrize("fraction", [0.0, -0.1, 1.5])
def test_label_fraction_out_of_range(fraction):
    with pytest.raises(UserError, match=r"label_fraction: found .*, expected a number in \(0, 1\]"):
        labelled_subset(cases_of("abc"), fraction)


def test_num_labelled_out_of_range():
    with pytest.raises(UserError, match="num_labelled: found 4, expected at most 3"):
        labelled_subset(cases_of("abc"), num_labelled=4)
    with pytest.raises(UserError, match="num_labelled: found -1"):
        labelled_subset(cases_of("abc"), num_labelled=-1)
    with pytest.raises(UserError, match="expected one of them"):
        labelled_subset(cases_of("abc"), 0.5, num_labelled=2)


def test_val_fraction_out_of_range():
    with pytest.raises(UserError, match=r"val_fraction: found 1.0, expected a number in \[0, 1\)"):
        split_cases(cases_of("abc"), 1.0)


def test_a_held_out_case_that_was_trained_on_is_found_also_as_a_copy(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cases = []
    for n in range(3):
        path = tmp_path / f"case{n}.nii.gz"
        path.write_bytes(bytes(n + 1))
        cases.append({"id": f"case{n}", "image": str(path)})
    record = {"data": {"train": fingerprints(cases[:2])}}
    check_unseen(cases[2:], record)
    check_unseen(cases, {})  # from scratch
    copy = tmp_path / "elsewhere" / "another_name.nii.gz"
    copy.parent.mkdir()
    copy.write_bytes(bytes(1))
    with pytest.raises(UserError, match=r"1 of 2 held-out cases were trained on \(copy\)"):
        check_unseen([{"id": "copy", "image": str(copy)}, cases[2]], record)
    check_unseen(cases, record, refuse=False)
    assert "2 of 3" in caplog.text


def test_no_held_out_case_is_nothing_to_measure():
    with pytest.raises(UserError, match="val_fraction: no case is held out"):
        check_unseen([], {})
    check_unseen([], {}, refuse=False)


def test_slices_may_have_other_names_in_another_order(tmp_path):
    for name, contents in (
        ("a", {"1": b"x", "2": b"yy"}),
        ("b", {"9": b"x", "3": b"yy"}),
        ("c", {"1": b"x"}),
    ):
        for slice_name, content in contents.items():
            (tmp_path / name).mkdir(exist_ok=True)
            (tmp_path / name / slice_name).write_bytes(content)
    (tmp_path / "a" / "reports").mkdir()
    (tmp_path / "a" / ".hidden").write_bytes(b"z")
    one, same, other = fingerprints([{"id": name, "image": str(tmp_path / name)} for name in "abc"])
    assert one == same != other


def test_cases_of_one_name_and_size_have_fingerprints_of_their_own(tmp_path):
    # 1 MB of zeros but for one block in the middle, as uncompressed volumes in air have them
    images = []
    for subject in ("s01", "s02"):
        content = bytearray(2**20)
        content[2**19 : 2**19 + 2**15] = subject.encode() * (2**15 // 3) + b"  "
        image = tmp_path / subject / "t1.nii"
        image.parent.mkdir()
        image.write_bytes(content)
        images.append(str(image))
    one, other = fingerprints([{"id": image, "image": image} for image in images])
    assert one != other
    assert fingerprints([{"id": "both", "image": images}]) != fingerprints(
        [{"id": "x", "image": images[::-1]}]
    )

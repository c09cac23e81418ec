"""Tests of the splits: laws over names, orders and unions of data sets."""

import itertools
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pretext3d.data.fingerprints import fingerprints
from pretext3d.data.splits import check_unseen, evaluation_cases, labelled_subset, rank, split_cases
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
    train, val, _ = split_cases(cases_of(names), 0.3, seed)
    train_too, val_too, _ = split_cases(cases_of(shuffled), 0.3, seed)
    assert ids(train) == ids(train_too)
    assert ids(val) == ids(val_too)
    assert [c["name"] for c in train] == [
        n for n in names if f"s/{n}" in ids(train)
    ]  # the order given is kept


@given(NAMES, st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.9]))
def test_split_parts_all_cases_and_counts(names, fraction):
    train, val, _ = split_cases(cases_of(names), fraction, 0)
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
    train, val, _ = split_cases(cases, 0.25, 0)
    assert len(val) == 4  # two of eight subjects
    assert not {c["subject"] for c in train} & {c["subject"] for c in val}


def visits(people, per_person, source="s"):
    return [
        {"id": f"{source}/{p}_{v}", "name": f"{p}_{v}", "subject": p, "source": source, "image": "x"}
        for p in people
        for v in range(per_person)
    ]


def people(cases):
    return {c["subject"] for c in cases}


@given(NAMES, st.sampled_from([0.1, 0.3, 0.5]), st.sampled_from([0.0, 0.2, 0.5]), st.integers(1, 3))
def test_no_subject_is_on_two_sides(names, val_fraction, test_fraction, per_person):
    cases = visits(names, per_person)
    split = split_cases(cases, val_fraction, 1, test_fraction=test_fraction)
    assert sum(map(len, split)) == len(cases)
    parts = [people(part) for part in split]
    assert sum(map(len, parts)) == len(names)
    assert all(c["subject"] in part for part, found in zip(parts, split, strict=True) for c in found)
    # so many of them as if each had one volume
    assert parts == [
        people(part) for part in split_cases(visits(names, 1), val_fraction, 1, None, test_fraction)
    ]


@given(NAMES, st.integers(0, 3))
def test_without_a_test_fraction_nothing_changes(names, seed):
    train, val, test = split_cases(cases_of(names), 0.3, seed, test_fraction=0)
    assert (train, val) == split_cases(cases_of(names), 0.3, seed)[:2]
    assert test == []


def test_the_test_set_is_the_last_of_the_ranking_whatever_the_rest():
    cases = cases_of([f"case{i}" for i in range(10)])
    ranked = sorted(cases, key=lambda c: rank(3, c["name"]))
    split = split_cases(cases, 0.25, 3, test_fraction=0.2)
    assert ids(split.test) == ids(ranked[8:])
    assert ids(split.val) == ids(ranked[:2])  # a quarter of the other eight
    folds = [split_cases(cases, 0.25, 3, fold=k, test_fraction=0.2) for k in range(4)]
    assert all(ids(fold.test) == ids(split.test) for fold in folds)
    assert set.union(*(ids(fold.val) for fold in folds)) == ids(ranked[:8])
    assert sum(len(fold.val) for fold in folds) == 8
    assert ids(split_cases(cases, 0.5, 3, test_fraction=0.2).test) == ids(split.test)


@given(NAMES, st.sampled_from([0.1, 0.3, 0.5]), st.sampled_from([0.1, 0.3, 0.5]), st.integers(0, 3))
def test_a_test_set_holds_nobody_whom_runs_without_one_held_out(names, val_fraction, test_fraction, seed):
    cases = cases_of(names)
    before = split_cases(cases, val_fraction, seed)
    after = split_cases(cases, val_fraction, seed, test_fraction=test_fraction)
    if len(before.val) + len(after.test) <= len(names):
        assert not ids(before.val) & ids(after.test)
        assert ids(after.val) <= ids(before.val)


@given(NAMES, st.data())
def test_labelled_cases_are_tested_alike_with_and_without_the_unlabelled(names, data):
    labelled = data.draw(st.lists(st.sampled_from(names), min_size=2, unique=True))
    everything = cases_of(names, labelled=labelled)
    only = [c for c in everything if "label" in c]
    both = split_cases(everything, 0.3, 5, test_fraction=0.4), split_cases(only, 0.3, 5, test_fraction=0.4)
    assert ids(both[1].test) == ids(both[0].test) & ids(only)
    assert ids(both[1].val) == ids(both[0].val) & ids(only)


def test_listed_folds_and_validation_are_of_the_rest():
    cases = [{"id": f"{i:02d}", "image": "x", "fold": i % 3, "split": "training"} for i in range(12)]
    split = split_cases(cases, 0.2, 0, fold=1, test_fraction=0.25)
    assert len(split.test) == 3
    assert ids(split.val) == {f"{i:02d}" for i in (1, 4, 7, 10)} - ids(split.test)
    cases[5]["split"] = "validation"
    seeded = split_cases(cases, 0.2, 0, test_fraction=0.25)
    assert ids(seeded.test) == ids(split.test)
    assert ids(seeded.val) == {"05"} - ids(seeded.test)


def test_a_csv_keeps_a_subject_together_over_data_sets():
    names = [f"p{i}" for i in range(10)]
    both = visits(names, 1, "first") + visits(names, 1, "second")
    apart = split_cases(both, 0.2, 0, test_fraction=0.2)
    # the same name in two data sets is two people; each data set holds out the same two by its ranking
    assert len(apart.val) == len(apart.test) == 4
    cases = [{**c, "subject_scope": ""} for c in both[:10] + both[12:]]  # the second lacks p0 and p1
    for split in (split_cases(cases, 0.2, s, test_fraction=0.2) for s in range(8)):
        assert not people(split.train) & people(split.val)
        assert not people(split.test) & people([*split.train, *split.val])


def test_a_datalist_that_parts_a_subject_is_warned_of(caplog):
    cases = visits("abc", 2)
    for number, case in enumerate(cases):
        case["fold"] = number % 2
    split = split_cases(cases, 0.2, 0, fold=0)
    assert len(split.val) == 3  # what the datalist says is done
    assert "separate the volumes of 3 subject(s) (a, b, c)" in caplog.text
    caplog.clear()
    split_cases(visits("abc", 2), 0.3, 0)
    assert not caplog.records


def test_evaluation_takes_the_test_set_where_there_is_one():
    cases = cases_of("abc")
    assert evaluation_cases({"val": cases[:1], "test": cases[1:]}) == cases[1:]
    assert (
        evaluation_cases({"val": cases[:1], "test": []}) == evaluation_cases({"val": cases[:1]}) == cases[:1]
    )


def test_evaluation_takes_the_validation_cases_where_they_are_asked_for():
    cases = cases_of("abc")
    assert evaluation_cases({"val": cases[:1], "test": cases[1:]}, "val") == cases[:1]
    with pytest.raises(UserError, match="measured: found 'train', expected one of test, val, all"):
        evaluation_cases({"val": cases[:1], "test": []}, "train")


def test_evaluation_takes_all_cases_of_data_from_elsewhere():
    cases = cases_of("abcd")
    assert evaluation_cases({"train": cases[2:], "val": cases[1:2], "test": cases[:1]}, "all") == cases
    assert evaluation_cases({"train": cases[1:], "val": cases[:1]}, "all") == cases
    slices = [{**case, "slice": 3} for case in cases]
    with pytest.raises(UserError, match="found 'all' with slices of volumes"):
        evaluation_cases({"train": slices[1:], "val": slices[:1]}, "all")


def test_repeated_entries_stay_together():
    cases = [{"id": f"{n}#{k}", "name": n, "image": n} for k in range(3) for n in "abcd"]
    train, val, _ = split_cases(cases, 0.25, 0)
    assert len(val) == 3
    assert not {c["name"] for c in train} & {c["name"] for c in val}


def test_listed_folds_are_used():
    cases = [{"id": str(i), "image": "x", "fold": i % 3} for i in range(9)]
    train, val, _ = split_cases(cases, 0.2, 0, fold=1)
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


@given(NAMES, st.integers(1, 3), st.integers(0, 3))
def test_labels_are_counted_by_subject(names, per_person, seed):
    cases = visits(names, per_person)
    for number in range(1, len(names) + 1):
        chosen = labelled_subset(cases, num_labelled=number, seed=seed)
        assert len(people(chosen)) == number
        assert len(chosen) == number * per_person
    half = labelled_subset(cases, 0.5, seed=seed)
    assert len(people(half)) == max(1, len(names) // 2)
    assert half == labelled_subset(cases, num_labelled=max(1, len(names) // 2), seed=seed)


@given(NAMES, st.integers(0, 3))
def test_subjects_of_one_volume_are_ranked_as_their_volumes(names, seed):
    # rank(seed, "label:" + name), as before there were subjects
    cases = cases_of(names)
    named = [{**c, "subject": f"person {i}"} for i, c in enumerate(cases)]
    ranked = sorted(cases, key=lambda c: rank(seed, f"label:{c['name']}"))
    assert [c["id"] for c in labelled_subset(cases, seed=seed)] == [c["id"] for c in ranked]
    assert [c["id"] for c in labelled_subset(named, seed=seed)] == [c["id"] for c in ranked]


def test_subjects_of_two_data_sets_are_different_people():
    cases = visits("abc", 2, "one") + visits("abc", 2, "two")
    assert len(labelled_subset(cases, num_labelled=6)) == 12
    with pytest.raises(
        UserError, match="num_labelled: found 7, expected at most 6, the labelled training subj"
    ):
        labelled_subset(cases, num_labelled=7)


@pytest.mark.parametrize("fraction", [0.0, -0.1, 1.5])
def test_label_fraction_out_of_range(fraction):
    with pytest.raises(UserError, match=r"label_fraction: found .*, expected a number in \(0, 1\]"):
        labelled_subset(cases_of("abc"), fraction)


def test_num_labelled_out_of_range():
    with pytest.raises(UserError, match="num_labelled: found 4, expected at most 3"):
        labelled_subset(cases_of("abc"), num_labelled=4)
    with pytest.raises(UserError, match="num_labelled: found -1"):
        labelled_subset(cases_of("abc"), num_labelled=-1)
    with pytest.raises(UserError, match="expected only one"):
        labelled_subset(cases_of("abc"), 0.5, num_labelled=2)


def test_val_fraction_out_of_range():
    with pytest.raises(UserError, match=r"val_fraction: found 1.0, expected a number in \[0, 1\)"):
        split_cases(cases_of("abc"), 1.0)
    with pytest.raises(UserError, match=r"test_fraction: found 1, expected a number in \[0, 1\)"):
        split_cases(cases_of("abc"), 0.2, test_fraction=1)


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


def test_cases_that_chose_the_weights_judge_nothing(tmp_path: Path) -> None:
    """Where there is a test set, the record has the validation's fingerprints."""
    cases = []
    for name in "ab":
        (tmp_path / name).write_bytes(name.encode() * 9)
        cases.append({"id": name, "image": str(tmp_path / name)})
    record = {"data": {"train": []}, "split": {"val": fingerprints(cases[:1])}}
    check_unseen(cases[1:], record)
    with pytest.raises(UserError, match=r"1 of 2 held-out cases chose the weights .* \(a\): give the same"):
        check_unseen(cases, record)
    check_unseen(cases, record, chosen=False)  # the last weights, which no validation chose


def test_slices_of_a_volume_share_their_fingerprint(tmp_path: Path) -> None:
    (tmp_path / "a.nii").write_bytes(b"voxels")
    cases = [{"id": f"a/slice{k}", "image": str(tmp_path / "a.nii"), "slice": k} for k in range(3)]
    assert len(set(fingerprints(cases))) == 1
    assert len(fingerprints(cases)) == 3


def test_the_data_file_that_a_header_names_is_part_of_the_fingerprint(tmp_path):
    header = "NDims = 3\nDimSize = 2 2 2\nElementType = MET_UCHAR\nElementDataFile = {}.raw\n"
    for folder, value in (("one", 1), ("other", 2), ("copy", 1)):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "a.mhd").write_text(header.format("a"))
        (tmp_path / folder / "a.raw").write_bytes(bytes([value] * 8))
    cases = [{"id": n, "image": str(tmp_path / n / "a.mhd")} for n in ("one", "other", "copy")]
    one, other, copy = fingerprints(cases)
    assert one == copy != other

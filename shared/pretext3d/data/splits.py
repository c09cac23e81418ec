"""Which cases train and which are held out: a function of their names and a seed, never of their order.

Everything counts subjects: a subject's volumes are all on the same side (see `subjects`). Subjects are ranked
by a hash of (seed, name); the first are held out for validation, the last are the test set, where there is
one. So a test set that is set apart later holds nobody whom earlier runs of the same seed held out for
validation, as long as the two fractions are not over 1 together. Each data set is ranked separately and,
within it, the labelled and the unlabelled subjects. So the held-out labelled cases are the same when a
network is pre-trained on all cases and fine-tuned on the labelled ones, and when several data sets are
pre-trained together.
"""

import hashlib
import logging
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from pretext3d.checking import integer, is_integer, number, one_of
from pretext3d.data.fingerprints import among, trained_on
from pretext3d.data.subjects import IN_NO_FOLD, by_subject, person_of, subject_of, volume_of
from pretext3d.errors import UserError

__all__ = [
    "SPLIT", "Split", "assigned_folds", "check_unseen", "evaluation_cases", "labelled_subset", "other_split",
    "part_of", "split_cases",
]  # fmt: skip

logger = logging.getLogger(__name__)

Case = dict[str, Any]

# the keys that choose who is held out, and their defaults; a record leaves defaults out
SPLIT: dict[str, Any] = {"val_fraction": 0.2, "test_fraction": 0.0, "fold": None, "split_seed": 0}


class Split(NamedTuple):
    """The cases to train on, to validate with and to test on, each in the order given."""

    train: list[Case]
    val: list[Case]
    test: list[Case]


def rank(seed: int, name: str) -> str:
    """A pseudo-random number (hexadecimal) for a name: the same on every machine."""
    return hashlib.sha256(f"{seed}:{name}".encode()).hexdigest()


def split_cases(
    cases: Sequence[Case],
    val_fraction: int | float = 0.2,
    seed: int = 0,
    fold: int | None = None,
    test_fraction: int | float = 0,
) -> Split:
    """Split cases into training, validation and test, each in the order given, by subject.

    Each data set (`source`) is split separately. The test set is chosen first: the last round(n *
    test_fraction) in the ranking of n labelled and likewise of n unlabelled subjects, at least 1 where n > 1
    and test_fraction > 0; it is the same for every fold. The validation set is chosen from the rest. Without
    a fold: the entries that the datalist calls validation, if there are any; else the first
    round(n * val_fraction) of n subjects, at least 1 likewise. With a fold: the cases with that `fold` in the
    datalist; where no case has one, part `fold` of the round(1 / val_fraction) parts of the same ranking.

    Args:
        cases: Cases with `id`, and, as far as known, `name`, `source`, `label`, `fold`, `split`, `subject`.
        val_fraction: Part held out of the subjects that are not in the test set, in [0, 1).
        seed: Seed of the ranking.
        fold: Part held out; None for the seeded split.
        test_fraction: Part of all subjects that are the test set, in [0, 1).

    Raises:
        UserError: For a fraction out of range, or a fold that does not exist.
    """
    number("val_fraction", val_fraction, 0, 1, high_open=True)
    number("test_fraction", test_fraction, 0, 1, high_open=True)
    if fold is not None and not is_integer(fold):
        raise UserError(f"fold: found {fold!r}, expected an integer, or null for the seeded split")
    sources: dict[str, list[Case]] = defaultdict(list)
    for case in cases:
        sources[case.get("source", "")].append(case)
    tested: set[str] = set()
    for members in sources.values():
        tested |= ranked_split(members, test_fraction, seed, from_end=True)
    tested = with_namesakes(cases, tested)
    listed: set[str] = set()
    ranked: set[str] = set()
    for members in sources.values():
        rest = [c for c in members if c["id"] not in tested]
        if fold is not None and any("fold" in c for c in rest):
            listed |= listed_fold(rest, fold)
        elif fold is None and any(c.get("split") == "validation" for c in rest):
            listed |= {c["id"] for c in rest if c.get("split") == "validation"}
        else:
            ranked |= ranked_split(rest, val_fraction, seed, fold)
    held = (with_namesakes(cases, ranked) | listed) - tested
    aside = held | tested
    split = Split(
        [c for c in cases if c["id"] not in aside],
        [c for c in cases if c["id"] in held],
        [c for c in cases if c["id"] in tested],
    )
    warn_divided(split)
    return split


def with_namesakes(cases: Sequence[Case], ids: set[str]) -> set[str]:
    """The ids, plus those of the same subjects in other data sets, where a CSV file identifies subjects."""
    people = {person_of(c) for c in cases if c["id"] in ids}
    return ids | {c["id"] for c in cases if person_of(c) in people and c.get("subject_scope") == ""}


def warn_divided(split: Split) -> None:
    """One warning where the folds or the validation list of a datalist separate a subject's volumes."""
    held = {person_of(case) for case in split.val}
    divided = list(dict.fromkeys(subject_of(c) for c in split.train if person_of(c) in held))
    if divided:
        logger.warning(
            "datalist: its folds or its validation list separate the volumes of %d subject(s) (%s%s): some "
            "train, others are held out; expected all volumes of a subject on the same side",
            len(divided), ", ".join(divided[:3]), ", ..." if len(divided) > 3 else "",
        )  # fmt: skip


def listed_fold(cases: Sequence[Case], fold: int) -> set[str]:
    """The ids of the cases with the given `fold` in the datalist."""
    without = [c["id"] for c in cases if "fold" not in c]
    if without:
        raise UserError(
            f"fold: found {fold}, but the datalist gives no fold for {len(without)} cases ({without[0]} ...)"
        )
    folds = sorted({c["fold"] for c in cases} - {IN_NO_FOLD})
    if fold not in folds:
        raise UserError(f"fold: found {fold}, expected one of the datalist's folds {folds}")
    return {c["id"] for c in cases if c["fold"] == fold}


def ranked_split(
    cases: Sequence[Case],
    fraction: int | float,
    seed: int,
    fold: int | None = None,
    from_end: bool = False,
) -> set[str]:
    """The ids held out of one data set by the ranking: its first subjects, a fold, or its last subjects."""
    parts = round(1 / fraction) if fraction > 0 else 0
    if fold is not None and not 0 <= fold < parts:
        raise UserError(
            f"fold: found {fold}, expected 0 to {max(parts, 1) - 1}: the datalist gives none, and "
            f"val_fraction {fraction:g} makes {parts}"
        )
    labelled = {subject_of(c) for c in cases if "label" in c}
    members: dict[bool, dict[str, list[str]]] = {True: defaultdict(list), False: defaultdict(list)}
    for case in cases:
        members[subject_of(case) in labelled][subject_of(case)].append(case["id"])
    held: set[str] = set()
    for groups in members.values():
        ranked = sorted(groups, key=lambda name: (rank(seed, name), name), reverse=from_end)
        count = max(int(len(ranked) * fraction + 0.5), 1 if fraction > 0 else 0)
        chosen = ranked[: max(min(count, len(ranked) - 1), 0)] if fold is None else ranked[fold::parts]
        held.update(i for group in chosen for i in groups[group])
    return held


def part_of(total: int, fraction: float) -> int:
    """The number of subjects that a fraction of them is: rounded down, at least one.

    Examples:
        >>> part_of(30, 0.1), part_of(29, 0.1), part_of(3, 0.1)
        (3, 2, 1)
    """
    return max(1, math.floor(total * fraction + 1e-9))


def labelled_subset(
    cases: Sequence[Case],
    label_fraction: int | float = 1.0,
    num_labelled: int = 0,
    seed: int = 0,
    stratified: bool = False,
) -> list[Case]:
    """The labelled cases that a fine-tuning may see: nested, a smaller set is part of every larger one.

    The n subjects are ranked by a hash of (seed, name), where name is the first name of a subject's cases in
    alphabetical order; the first max(1, floor(n * label_fraction)) are taken, or the first `num_labelled`
    where that is not 0, each with all its volumes.

    Args:
        cases: Labelled training cases.
        label_fraction: Part of the subjects, in (0, 1].
        num_labelled: Number of subjects; 0 = by `label_fraction`.
        seed: Seed of the ranking.
        stratified: Whether every number of subjects has the classes (`class` of a case) in their proportions,
            as far as it can: the i-th of the n ranked subjects of a class takes the place (i + 1/2) / n.

    Returns:
        The cases in the order of the ranking, those of one subject as given.

    Raises:
        UserError: For a fraction outside of (0, 1], or more subjects than there are.
    """
    number("label_fraction", label_fraction, 0, 1, low_open=True)
    integer("num_labelled", num_labelled, minimum=0, expected="0 (all) or a number of subjects")
    groups = list(by_subject(cases).values())
    if num_labelled > len(groups):
        raise UserError(
            f"num_labelled: found {num_labelled}, expected at most {len(groups)}, the labelled training "
            "subjects"
        )
    if num_labelled and label_fraction != 1:
        raise UserError(
            f"num_labelled: found {num_labelled} and label_fraction {label_fraction}; expected only one"
        )
    count = num_labelled or part_of(len(groups), label_fraction)
    groups.sort(key=lambda group: label_rank(group, seed))
    if stratified:
        groups = in_proportion(groups)
    return [case for group in groups[:count] for case in group]


def in_proportion(groups: Sequence[list[Case]]) -> list[list[Case]]:
    """Subjects, each with its cases, in an order whose every beginning has the classes in proportion.

    Examples:
        >>> ranked = [[{"class": number}] for number in (0, 0, 0, 0, 1, 1)]
        >>> [group[0]["class"] for group in in_proportion(ranked)]
        [0, 1, 0, 0, 1, 0]
    """
    strata: dict[tuple[Any, ...], list[list[Case]]] = defaultdict(list)
    for group in groups:
        strata[classes_of(group)].append(group)
    places = [
        ((i + 0.5) / len(members), n, group)
        for n, members in enumerate(strata.values())
        for i, group in enumerate(members)
    ]
    return [group for _, _, group in sorted(places, key=lambda place: place[:2])]


def classes_of(group: Sequence[Case]) -> tuple[Any, ...]:
    """The different classes of a subject's cases, sorted; () without any."""
    return tuple(sorted({case["class"] for case in group if "class" in case}))


def assigned_folds(cases: Sequence[Case], folds: int, seed: int = 0) -> dict[tuple[str, str], int]:
    """The fold of each subject (see `person_of`): subjects of every class are spread evenly over the folds.

    Subjects are sorted by their classes and, among those of the same ones, by a hash of (seed, name); then
    the i-th is in fold i modulo `folds`. So folds differ by one subject at most, also of each class.

    Args:
        cases: Cases; those of a classification have a `class`.
        folds: Number of folds, from 2 to that of the subjects.
        seed: Seed of the ranking.

    Raises:
        UserError: Fewer than two folds, or more than there are subjects.
    """
    groups = by_subject(cases)
    if not is_integer(folds) or not 2 <= folds <= len(groups):
        raise UserError(f"folds: found {folds}, expected 2 to {len(groups)}, the labelled subjects")
    ranked = sorted(groups, key=lambda who: (classes_of(groups[who]), rank(seed, who[1]), who))
    return {who: place % folds for place, who in enumerate(ranked)}


def label_rank(group: Sequence[Case], seed: int) -> tuple[str, str]:
    """Sort key of a subject among those whose labels may be used: a hash, and an id to break ties."""
    name = min(str(case.get("name", case["id"])) for case in group)
    return rank(seed, f"label:{name}"), min(case["id"] for case in group)


def evaluation_cases(cases: Mapping[str, Any], part: str = "test") -> list[Case]:
    """The cases that a trained network is measured on: the test set where there is one, else validation.

    Args:
        cases: What `prepare_cases` returns.
        part: Key `measured`: test; val for the validation cases although there is a test set; or all, for
            data that the training had nothing of, such as another hospital's.

    Raises:
        UserError: another part; or all of slices, of which those that train are not complete volumes.

    Examples:
        >>> evaluation_cases({"val": [{"id": "a"}], "test": []})
        [{'id': 'a'}]
    """
    one_of("measured", part, ("test", "val", "all"))
    if part != "all":
        return list((part == "test" and cases.get("test")) or cases["val"])
    found = [*cases["train"], *cases["val"], *(cases.get("test") or [])]
    if any("slice" in case for case in found):
        raise UserError(
            "measured: found 'all' with slices of volumes, of which the training ones are not complete; "
            "expected test or val, or images that are files of their own"
        )
    return sorted(found, key=lambda case: str(case["id"]))


def other_split(record: Mapping[str, Any], split: Mapping[str, Any]) -> str:
    """The keys of the split that a checkpoint's training had otherwise, with both values; '' for none.

    Args:
        record: Record of the checkpoint.
        split: Values of the keys here; a key that is missing is not compared.

    Examples:
        >>> other_split({"split": {"test_fraction": 0.2}}, {"test_fraction": 0.0, "split_seed": 0})
        'test_fraction 0.2 there, 0.0 here'
    """
    there = {**SPLIT, **(record.get("split") or {})}
    differ = [key for key in SPLIT if key in split and split[key] != there[key]]
    return ", ".join(f"{key} {there[key]} there, {split[key]} here" for key in differ)


def check_unseen(
    cases: Sequence[Case],
    record: Mapping[str, Any],
    refuse: bool = True,
    split: Mapping[str, Any] | None = None,
    what: str = "held-out",
    chosen: bool = True,
) -> None:
    """Make sure that a checkpoint was not trained on the cases that evaluate it, nor chosen by them.

    Args:
        cases: Held-out cases.
        record: Record of the checkpoint; {} = from scratch.
        refuse: Whether to raise an error; False: only warn.
        split: Values of the keys that hold the cases out, to name those that the training had otherwise.
        what: Name of the cases in messages.
        chosen: Whether cases that chose best.pt count as seen; not so where the last weights are measured on
            purpose on the validation cases, see `evaluation_cases`.

    Raises:
        UserError: With `refuse`, if a held-out case was trained on, or there is no held-out case.
    """
    if refuse and not cases:
        raise UserError(
            "val_fraction: no case is held out, so there is nothing to measure; give --val_fraction above 0, "
            "and cases that the network has not seen"
        )
    faults = {
        "were trained on": trained_on(cases, record),
        "chose the weights (best.pt)": among(cases, (record.get("split") or {}).get("val")) if chosen else [],
    }
    differ = other_split(record, split or {})
    for seen, ids in faults.items():
        if not ids:
            continue
        count = len({volume_of(case) for case in cases})
        message = (
            f"{len(ids)} of {count} {what} cases {seen} ({', '.join(ids[:4])}"
            f"{', ...' if len(ids) > 4 else ''}){f', with {differ}' if differ else ''}: give the same "
            "val_fraction, test_fraction, split_seed, fold and subjects as in that training"
        )
        if refuse:
            raise UserError(message)
        logger.warning("%s", message)

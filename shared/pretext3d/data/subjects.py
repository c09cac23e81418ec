"""The subject of a volume. Splits, label counts and intervals count subjects: volumes of one are similar.

The subject of a case is its field `subject`, from the datalist's entry, a CSV file (key `subjects`) or a BIDS
name; else its name within its data set. Subjects of two data sets are distinct, except where a CSV file
identifies them: its subjects are the same in all data sets (`subject_scope` '').
"""

import hashlib
import itertools
import logging
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from pretext3d.checking import brief
from pretext3d.data.bids import bids_name
from pretext3d.data.tables import has_column, match_cases, read_column
from pretext3d.errors import UserError

__all__ = [
    "IN_NO_FOLD", "by_subject", "case_code", "interleaved", "person_name", "set_subjects", "similar_names",
    "subject_code", "subject_count", "subject_of", "volume_of", "warn_ungrouped",
]  # fmt: skip

logger = logging.getLogger(__name__)

Case = dict[str, Any]

IN_NO_FOLD = -1  # the fold of a case that a file of folds does not list: it is never held out

WORDS = {  # parts of names that distinguish volumes of one subject
    "t1", "t2", "t1w", "t2w", "t1c", "t1ce", "t1gd", "t1post", "t1n", "t2f", "t2s", "t2star", "pd", "pdw",
    "flair", "swi", "dwi", "adc", "mra", "tof", "bold", "asl", "fa", "md", "ct", "cta", "cbct", "mr", "mri",
    "pet", "spect", "gd", "art", "arterial", "ven", "venous", "portal", "delayed", "native", "contrast",
    "ed", "es", "systole", "diastole", "insp", "exp", "inspiration", "expiration", "left", "right", "l",
    "r", "lh", "rh", "lt", "rt", "os", "od", "ap", "pa", "lat", "cc", "mlo", "pre", "post", "before",
    "after", "baseline", "bl", "followup", "fu", "preop", "postop", "initial", "recurrence",
}  # fmt: skip
NUMBERED = re.compile(r"(?:visit|frame|phase|timepoint|tp|ses|session|run|echo|rep|week|month|year|day|v)\d+")


def subject_of(case: Case) -> str:
    """The unit that is held out: the field `subject`, else the name within the data set, else the id.

    Examples:
        >>> subject_of({"id": "a/x_left", "name": "x_left", "subject": "x"})
        'x'
    """
    return str(case.get("subject", case.get("name", case["id"])))


def volume_of(case: Mapping[str, Any]) -> str:
    """The id of the volume that a slice was taken from; of any other case its own id.

    Examples:
        >>> volume_of({"id": "a/slice012", "volume": "a"}), volume_of({"id": "eye_3"})
        ('a', 'eye_3')
    """
    return str(case.get("volume", case["id"]))


def person_of(case: Case) -> tuple[str, str]:
    """The scope of the subject's name (its data set, or '' = everywhere) and the subject."""
    return str(case.get("subject_scope", case.get("source", ""))), subject_of(case)


def person_name(case: Case) -> str:
    """The subject's name in tables: distinct for distinct subjects of one run, and without a path.

    With several data sets it begins with the data set's `source_name`, unless a CSV file identifies the
    subject in all of them.

    Examples:
        >>> person_name({"id": "a", "subject": "p01", "source_name": "heart", "source": "/scans/heart"})
        'heart/p01'
        >>> person_name({"id": "a", "subject": "p01", "source_name": "heart", "subject_scope": ""})
        'p01'
    """
    everywhere = "source_name" not in case or case.get("subject_scope") == ""
    return subject_of(case) if everywhere else f"{case['source_name']}/{subject_of(case)}"


def subject_code(case: Case) -> int:
    """A number from 0 to 2^32 - 1 for the subject of a case: the same in every process and run.

    For batches, where losses and metrics compare subjects, and for an exemplar's memory, which a run keeps
    when it is resumed, wherever its data are then. It is part of a hash of `person_name`: of 1,000 subjects,
    two have the same number with a probability of 1 in 10,000.

    Examples:
        >>> left, right = ({"id": f"x_{side}", "subject": "x"} for side in ("left", "right"))
        >>> subject_code(left) == subject_code(right), subject_code(left) == subject_code({"id": "y"})
        (True, False)
    """
    return _code(person_name(case))


def case_code(case: Case) -> int:
    """A number from 0 to 2^32 - 1 for a case, by its id; see `subject_code`."""
    return _code(str(case["id"]))


def _code(name: object) -> int:
    return int.from_bytes(hashlib.sha256(repr(name).encode()).digest()[:4], "little")


def interleaved(cases: Iterable[Case]) -> list[Case]:
    """The cases with subjects in turn: the first case of each, then the second of each that has one, ...

    Neighbours in a batch are then of different subjects, where the slices of a volume follow each other.

    Examples:
        >>> [c["id"] for c in interleaved({"id": i, "subject": i[0]} for i in ("a1", "a2", "a3", "b1"))]
        ['a1', 'b1', 'a2', 'a3']
    """
    rounds = itertools.zip_longest(*by_subject(cases).values())
    return [case for one in rounds for case in one if case is not None]


def by_subject(cases: Iterable[Case]) -> dict[tuple[str, str], list[Case]]:
    """The cases of each subject, in the order given."""
    groups: dict[tuple[str, str], list[Case]] = defaultdict(list)
    for case in cases:
        groups[person_of(case)].append(case)
    return dict(groups)


def subject_count(cases: Sequence[Case], unit: bool = False) -> str:
    """Number of subjects, and of volumes where that differs.

    Args:
        cases: Cases; the slices of a volume count as one.
        unit: Whether to name the unit that is counted.

    Examples:
        >>> heart = [{"id": f"p{i}_{phase}", "subject": f"p{i}"} for i in range(4) for phase in ("ed", "es")]
        >>> subject_count(heart), subject_count(heart, unit=True), subject_count([{"id": "a"}], unit=True)
        ('4 (8)', '4 subjects (8 volumes)', '1 subject')
    """
    people, volumes = len(by_subject(cases)), len({volume_of(case) for case in cases})
    words = (f" subject{'s' * (people != 1)}", f" volume{'s' * (volumes != 1)}") if unit else ("", "")
    return f"{people}{words[0]}" + (f" ({volumes}{words[1]})" if volumes != people else "")


def set_subjects(cases: Sequence[Case], path: str) -> list[Case]:
    """The cases with the subjects of a CSV file; a case without a line keeps its subject.

    Where the file has a column `fold`, it gives the folds, which the key `fold` holds out, in place of those
    of the datalist. All cases of a subject are in its fold, and cases of subjects without one are always
    trained on.

    Args:
        cases: Cases from `find_cases`.
        path: Path of a CSV file with a column `subject` and one of id, case, name, image: the name of a case
            or of its file, with or without the extension.

    Raises:
        UserError: If there is no such file or column, a case has two subjects, a line names an unknown case,
            or a fold is not an integer from 0 or not that of all cases of its subject.
    """
    given = match_cases(cases, read_column("subjects", path, "subject"), path)
    people = [given.get(case["id"], subject_of(case)) for case in cases]
    listed = set(given.values())
    found = [
        {**case, "subject": person, **({"subject_scope": ""} if person in listed else {})}
        for case, person in zip(cases, people, strict=True)
    ]
    return set_folds(found, path) if has_column(path, "fold") else found


def set_folds(cases: Sequence[Case], path: str) -> list[Case]:
    """The cases with the folds of a CSV file, see `set_subjects`."""
    given = match_cases(cases, read_column("subjects", path, "fold"), path)
    folds: dict[tuple[str, str], int] = {}
    for case in cases:
        text = given.get(case["id"], "")
        if text and not re.fullmatch("[0-9]{1,4}", text):
            raise UserError(
                f"{path}: case {case['id']}: found fold {brief(text)}, expected an integer from 0"
            )
        if text and folds.setdefault(person_of(case), int(text)) != int(text):
            raise UserError(
                f"{path}: subject {subject_of(case)}: found the folds {folds[person_of(case)]} and {text}, "
                "expected all cases of a subject in one"
            )
    return [{**case, "fold": folds.get(person_of(case), IN_NO_FOLD)} for case in cases]


def similar_names(names: Sequence[str]) -> dict[str, list[str]]:
    """Names that look like several volumes of one subject, by their common part.

    Names are compared part by part (letters and digits; anything else separates):
    - BIDS names of one subject;
    - names that differ only by words of modality, phase, side or time (t1, ed, left, pre ...);
    - names that differ only by a numbered visit, frame or phase, where the rest has a digit;
    - names that differ only in their last part, where the rest has a digit, and there are fewer different
      last parts than subjects: p01_1, p01_2, p02_1, p02_2, p03_1, p03_2.
    Numbers that count the subjects themselves (hippocampus_001, scan_0000) do not match any rule.

    Args:
        names: Names of cases.

    Returns:
        Groups of two or more names, by a name for the subject; {} if there are none.

    Examples:
        >>> similar_names(["patient001_ed", "patient001_es", "patient002_ed"])
        {'patient001': ['patient001_ed', 'patient001_es']}
        >>> similar_names(["hippocampus_001", "hippocampus_002"])
        {}
    """
    groups: dict[str, list[str]] = {}
    rest = list(dict.fromkeys(names))
    for key in (bids_subject, without_words_and_visits, without_words, without_last):
        found = grouped(rest, key)
        endings = {split_name(name)[-1] for members in found.values() for name in members}
        if key is not without_last or len(endings) < len(found):
            groups |= found
            rest = [name for name in rest if name not in {n for members in found.values() for n in members}]
    return groups


def bids_subject(name: str) -> str:
    """The subject of a BIDS name, else ''."""
    parsed = bids_name(name)
    return parsed.subject if parsed else ""


def without_words(name: str) -> str:
    """A name without words of modality, phase, side and time."""
    return "_".join(p for p in split_name(name) if p.lower() not in WORDS)


def without_words_and_visits(name: str) -> str:
    """A name without these words and numbered visits; '' where nothing with a digit is left."""
    rest = without_words(name).split("_")
    return with_digit([p for p in rest if not NUMBERED.fullmatch(p.lower())])


def without_last(name: str) -> str:
    """A name without its last part; '' where nothing with a digit is left."""
    return with_digit(split_name(name)[:-1])


def split_name(name: str) -> list[str]:
    """The parts of a name: runs of letters and digits."""
    return re.findall(r"[^\W_]+", name)


def with_digit(parts: Sequence[str]) -> str:
    """The parts joined, or '' where no part has a digit."""
    joined = "_".join(parts)
    return joined if re.search(r"\d", joined) else ""


def grouped(names: Sequence[str], key: Callable[[str], str]) -> dict[str, list[str]]:
    """Names grouped by their common part: the groups of two or more."""
    groups: dict[str, list[str]] = defaultdict(list)
    for name in names:
        common = key(name)
        if common:
            groups[common].append(name)
    return {common: members for common, members in groups.items() if len(members) > 1}


def warn_ungrouped(cases: Sequence[Case], class_file: str = "") -> None:
    """One warning where several cases are of one subject, it seems, and no subjects are given.

    They are where the file of the classes has a column `subject` that says so, or where their names do.

    Args:
        cases: All cases.
        class_file: Path of a CSV file with the classes of the cases; '' = none.
    """
    if class_file and not any("subject" in case for case in cases):
        try:
            people = match_cases(cases, read_column("class_file", class_file, "subject"), class_file)
        except UserError:  # no such column; what else is wrong with the file, the reader of the classes says
            people = {}
        shared = sum(count for count in Counter(people.values()).values() if count > 1)
        if shared:
            logger.warning(
                "subjects: %d of %d cases share a subject in the column subject of %s, but each counts as a "
                "subject of its own in the split; to keep them together, give --subjects %s",
                shared, len(cases), class_file, class_file,
            )  # fmt: skip
            return
    sources: dict[str, list[Case]] = defaultdict(list)
    for case in cases:
        sources[case.get("source", "")].append(case)
    unknown = [members for members in sources.values() if not any("subject" in case for case in members)]
    groups = [group for m in unknown for group in similar_names([case["name"] for case in m]).items()]
    if groups:
        subject, members = groups[0]
        logger.warning(
            "subjects: %d of %d cases look by their names like several of one subject (%s%s), but each "
            "counts as a subject of its own in the split; to keep them together, give --subjects FILE.csv "
            "with the columns id,subject and lines as %s,%s",
            sum(len(names) for _, names in groups), len(cases), ", ".join(members[:3]),
            ", ..." if len(members) > 3 or len(groups) > 1 else "", members[0], subject,
        )  # fmt: skip

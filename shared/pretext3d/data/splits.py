"""Which cases train and which are held out: a function of their names and a seed, never of their order.

Cases are ranked by a hash of (seed, name), and the first of them are held out. Ranks are taken within each
data set and, in it, within the labelled and the unlabelled cases apart. So the held-out labelled cases are
the same when a network is pre-trained on all cases and fine-tuned on the labelled ones, and when several data
sets are pre-trained together.
"""

import hashlib
import logging
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pretext3d.checking import is_whole, number, whole_number
from pretext3d.errors import UserError

__all__ = ["check_unseen", "fingerprints", "labelled_subset", "split_cases", "trained_on"]

logger = logging.getLogger(__name__)

Case = dict[str, Any]

BLOCKS, BLOCK_BYTES = 64, 4096  # of a case's files, which its fingerprint rests on


def group_name(case: Case) -> str:
    """What is held out as one: the datalist's `subject`, else the name within the data set, else the id."""
    return str(case.get("subject", case.get("name", case["id"])))


def rank(seed: int, name: str) -> str:
    """A pseudo-random number (hexadecimal) for a name: the same on every machine."""
    return hashlib.sha256(f"{seed}:{name}".encode()).hexdigest()


def split_cases(
    cases: Sequence[Case], val_fraction: int | float = 0.2, seed: int = 0, fold: int | None = None
) -> tuple[list[Case], list[Case]]:
    """Split cases into training and validation, both in the order given.

    Each data set (`source`) is split by itself. Without a fold: the entries that its datalist calls
    validation, if there are any; else, of its labelled and of its unlabelled groups, round(n * val_fraction)
    of n, at least 1 where n > 1 and val_fraction > 0. With a fold: the cases whose `fold` in the datalist it
    is; where none has one, part `fold` of the round(1 / val_fraction) parts of the same ranking. A group is a
    case, or the cases of one `subject`.

    Args:
        cases: with `id`, and, as far as known, `name`, `source`, `label`, `fold`, `split`, `subject`.
        val_fraction: of the groups held out, in [0, 1).
        seed: of the ranking.
        fold: the part held out; None for the seeded split.

    Raises:
        UserError: for a fraction out of range, or a fold that is not there.
    """
    number("val_fraction", val_fraction, 0, 1, high_open=True)
    if fold is not None and not is_whole(fold):
        raise UserError(f"fold: found {fold!r}, expected a whole number, or null for the seeded split")
    sources: dict[str, list[Case]] = defaultdict(list)
    for case in cases:
        sources[case.get("source", "")].append(case)
    held: set[str] = set()
    for members in sources.values():
        if fold is not None and any("fold" in c for c in members):
            held |= listed_fold(members, fold)
        elif fold is None and any(c.get("split") == "validation" for c in members):
            held |= {c["id"] for c in members if c.get("split") == "validation"}
        else:
            held |= ranked_split(members, val_fraction, seed, fold)
    return [c for c in cases if c["id"] not in held], [c for c in cases if c["id"] in held]


def listed_fold(cases: Sequence[Case], fold: int) -> set[str]:
    """The ids whose `fold` in the datalist it is."""
    without = [c["id"] for c in cases if "fold" not in c]
    if without:
        raise UserError(
            f"fold: found {fold}, but the datalist gives no fold for {len(without)} cases ({without[0]} ...)"
        )
    folds = sorted({c["fold"] for c in cases})
    if fold not in folds:
        raise UserError(f"fold: found {fold}, expected one of the datalist's folds {folds}")
    return {c["id"] for c in cases if c["fold"] == fold}


def ranked_split(cases: Sequence[Case], val_fraction: int | float, seed: int, fold: int | None) -> set[str]:
    """The ids held out of one data set by the ranking."""
    parts = round(1 / val_fraction) if val_fraction > 0 else 0
    if fold is not None and not 0 <= fold < parts:
        raise UserError(
            f"fold: found {fold}, expected 0 to {max(parts, 1) - 1}: the datalist gives none, and "
            f"val_fraction {val_fraction:g} makes {parts}"
        )
    labelled = {group_name(c) for c in cases if "label" in c}
    members: dict[bool, dict[str, list[str]]] = {True: defaultdict(list), False: defaultdict(list)}
    for case in cases:
        members[group_name(case) in labelled][group_name(case)].append(case["id"])
    held: set[str] = set()
    for groups in members.values():
        ranked = sorted(groups, key=lambda name: (rank(seed, name), name))
        count = max(int(len(ranked) * val_fraction + 0.5), 1 if val_fraction > 0 else 0)
        chosen = ranked[: max(min(count, len(ranked) - 1), 0)] if fold is None else ranked[fold::parts]
        held.update(i for group in chosen for i in groups[group])
    return held


def labelled_subset(
    cases: Sequence[Case], label_fraction: int | float = 1.0, num_labelled: int = 0, seed: int = 0
) -> list[Case]:
    """The labelled cases that a fine-tuning may see: nested, so that fewer labels are always some of more.

    n cases are ranked by a hash of (seed, name); the first max(1, floor(n * label_fraction)) are given, or
    the first `num_labelled` where that is not 0, in the order of the ranking.

    Raises:
        UserError: for a fraction outside of (0, 1], or more cases asked for than there are.
    """
    number("label_fraction", label_fraction, 0, 1, low_open=True)
    whole_number("num_labelled", num_labelled, minimum=0, expected="0 (all) or a number of cases")
    if num_labelled > len(cases):
        raise UserError(
            f"num_labelled: found {num_labelled}, expected at most {len(cases)}, the labelled training cases"
        )
    if num_labelled and label_fraction != 1:
        raise UserError(
            f"num_labelled: found {num_labelled} beside label_fraction {label_fraction}; expected one of them"
        )
    count = num_labelled or max(1, math.floor(len(cases) * label_fraction + 1e-9))
    ranked = sorted(cases, key=lambda c: (rank(seed, f"label:{c.get('name', c['id'])}"), c["id"]))
    return ranked[:count]


def fingerprints(cases: Sequence[Case]) -> list[str]:
    """One text a case, the same for a copy of its images elsewhere, under whatever name.

    A hash of the sizes of the image files and of 64 blocks of 4 KB spread evenly over them. Checkpoints keep
    these of the cases they were trained on: a path would tell of the machine it was on.
    """
    return [_fingerprint(case) for case in cases]


def _fingerprint(case: Case) -> str:
    images = [Path(path) for path in ([case["image"]] if isinstance(case["image"], str) else case["image"])]
    digest = hashlib.sha256()
    for image in images:
        series = image.is_dir()  # of DICOM: slices in whatever order their names are
        found = image.iterdir() if series else [image]
        files = [file for file in found if file.is_file() and not (series and file.name.startswith("."))]
        blocks = max(2, BLOCKS // max(1, len(files)))
        for part in sorted(_blocks_digest(file, blocks) for file in files):
            digest.update(part)
    return digest.hexdigest()[:16]


def _blocks_digest(path: Path, blocks: int) -> bytes:
    """SHA-256 of a file's size and of so many blocks of it; of all of it where it is no longer than these."""
    size = path.stat().st_size
    digest = hashlib.sha256(size.to_bytes(8, "little"))
    with path.open("rb") as file:
        if size <= blocks * BLOCK_BYTES:
            digest.update(file.read())
            return digest.digest()
        for n in range(blocks):
            file.seek((size - BLOCK_BYTES) * n // (blocks - 1))
            digest.update(file.read(BLOCK_BYTES))
    return digest.digest()


def trained_on(cases: Sequence[Case], record: Mapping[str, Any]) -> list[str]:
    """The ids of those cases that a checkpoint, by its record, was trained on."""
    trained = set((record.get("data") or {}).get("train") or [])
    return [case["id"] for case in cases if trained and _fingerprint(case) in trained]


def check_unseen(cases: Sequence[Case], record: Mapping[str, Any], refuse: bool = True) -> None:
    """Make sure that a checkpoint was not trained on cases that are to judge it.

    Args:
        cases: the held-out cases.
        record: the checkpoint's; {} = from scratch.
        refuse: raise; False: only warn.

    Raises:
        UserError: with `refuse`, where a held-out case was trained on, or there is none.
    """
    if refuse and not cases:
        raise UserError(
            "val_fraction: no case is held out, so there is nothing to measure; give --val_fraction above 0, "
            "and cases that the network has not seen"
        )
    seen = trained_on(cases, record)
    if seen:
        message = (
            f"{len(seen)} of {len(cases)} held-out cases were trained on ({', '.join(seen[:4])}"
            f"{', ...' if len(seen) > 4 else ''}): give the same val_fraction, split_seed and fold as in "
            "that training"
        )
        if refuse:
            raise UserError(message)
        logger.warning("%s", message)

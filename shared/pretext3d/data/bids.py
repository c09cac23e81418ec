"""Names of the Brain Imaging Data Structure: the subject, session and modality of a volume.

A name is `sub-<label>[_ses-<label>][_<key>-<value>...][_<suffix>]`; files are at
`sub-<label>[/ses-<label>]/anat/<name>.nii.gz`; labels are in folders `derivatives`, with the suffix dseg.
Source: Gorgolewski et al. 2016, The brain imaging data structure, Scientific Data 3:160044, and
bids-specification.readthedocs.io, Common principles, and Derivatives: Imaging (dseg, space, desc ...).
"""

import logging
import os
import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pretext3d.data.reader import EXTENSIONS
from pretext3d.data.volumes import strip_extension
from pretext3d.errors import UserError

__all__ = ["BidsName", "attach_labels", "bids_name", "check_modalities", "is_aside", "join_modalities"]

logger = logging.getLogger(__name__)

Case = dict[str, Any]

NAME = re.compile(
    r"(sub-[A-Za-z0-9+]+)(?:_(ses-[A-Za-z0-9+]+))?((?:_[A-Za-z]+-[A-Za-z0-9+]+)*)(?:_([A-Za-z0-9]+))?"
)
ASIDE = {"derivatives", "sourcedata"}  # what was derived from the images, and what they were made from
LABEL = "dseg"
OWN_ENTITIES = {"space", "res", "den", "label", "desc", "seg", "atlas"}  # describe a label, not its image


class BidsName(NamedTuple):
    """The parts of a file name.

    Attributes:
        subject: Subject, for example "sub-01".
        session: Session, for example "ses-2"; '' where the name has none.
        entities: Remaining pairs in their order, for example ("acq-mprage", "run-1").
        suffix: Kind of image, for example "T1w"; '' where the name has none.
    """

    subject: str
    session: str
    entities: tuple[str, ...]
    suffix: str

    def value(self, entity: str) -> str:
        """The value of an entity; '' where the name has none."""
        return next((e.partition("-")[2] for e in self.entities if e.partition("-")[0] == entity), "")


def bids_name(path: str | Path) -> BidsName | None:
    """The parts of a file's name; None where it is not a BIDS name.

    Examples:
        >>> bids_name("raw/sub-01/ses-2/anat/sub-01_ses-2_acq-fast_T1w.nii.gz")
        BidsName(subject='sub-01', session='ses-2', entities=('acq-fast',), suffix='T1w')
        >>> bids_name("hippocampus_001.nii.gz") is None
        True
    """
    match = NAME.fullmatch(strip_extension(Path(path).name))
    if match is None:
        return None
    return BidsName(match[1], match[2] or "", tuple(match[3].split("_")[1:]), match[4] or "")


def is_aside(name: str, folders: Sequence[str], files: Sequence[str]) -> bool:
    """Whether a folder holds a BIDS data set's derivatives or sourcedata rather than its images.

    Args:
        name: Name of the folder.
        folders: Names of all folders in the same place.
        files: Names of all files in the same place.

    Examples:
        >>> is_aside("derivatives", ["derivatives", "sub-01"], [])
        True
        >>> is_aside("derivatives", ["derivatives", "finance"], [])
        False
    """
    if name.lower() not in ASIDE:
        return False
    return (
        "dataset_description.json" in files
        or "rawdata" in folders
        or any(folder.startswith("sub-") for folder in folders)
    )


def check_modalities(modalities: Any) -> list[str]:
    """The BIDS suffixes that become the channels of a case; [] = each file is a separate case.

    Raises:
        UserError: For anything other than distinct suffixes.

    Examples:
        >>> check_modalities("T1w"), check_modalities(["T1w", "FLAIR"]), check_modalities(None)
        (['T1w'], ['T1w', 'FLAIR'], [])
    """
    if modalities is None or modalities == "":
        return []
    found = [modalities] if isinstance(modalities, str) else list(modalities)
    plain = all(isinstance(m, str) and re.fullmatch("[A-Za-z0-9]+", m) for m in found)
    if not plain or len(set(found)) < len(found):
        raise UserError(
            f"modalities: found {modalities!r}, expected distinct BIDS suffixes such as [T1w, FLAIR], or null"
        )
    return found


def session_place(path: Path, name: BidsName) -> Path:
    """The folder of a volume's session, or of its subject; the file's own folder where neither exists."""
    wanted = name.session or name.subject
    return next((p for p in path.parents if p.name == wanted), path.parent)


def join_modalities(cases: Sequence[Case], modalities: Sequence[str], folder: Path) -> list[Case]:
    """One case per session, with the modalities as channels in their order.

    Where a session has several files of one modality (several runs, for example), the file with the fewest
    entities is used; among equals, the first by name. A session that lacks a modality becomes a case with
    the field `missing`, which lists the modalities that it lacks and which the check of volumes reports. The
    split is therefore the same for every choice of modalities.

    Args:
        cases: Cases of one file each, with `path`; those without a BIDS name are left out.
        modalities: BIDS suffixes.
        folder: Folder that was searched, for messages.

    Raises:
        UserError: If no session has all modalities.
    """
    sessions: dict[tuple[str, str, str], list[tuple[BidsName, Case]]] = defaultdict(list)
    for case in cases:
        name = bids_name(case["path"])
        if name is not None and name.suffix and isinstance(case["image"], str):
            place = str(session_place(Path(case["path"]), name))
            sessions[place, name.subject, name.session].append((name, case))
    joined: list[Case] = []
    several: list[str] = []
    for (place, subject, session), members in sorted(sessions.items()):
        ordered = sorted(members, key=lambda pair: (len(pair[0].entities), pair[1]["path"]))
        files = {m: [case["image"] for name, case in ordered if name.suffix == m] for m in modalities}
        several += [f"{subject} {session} {m}".replace("  ", " ") for m in modalities if len(files[m]) > 1]
        images = [files[m][0] for m in modalities if files[m]] or [case["image"] for _, case in ordered]
        stem = str(Path(place, f"{subject}_{session}" if session else subject))
        joined.append({"image": images if len(images) > 1 else images[0], "path": stem})
        missing = [m for m in modalities if not files[m]]
        joined[-1].update({"missing": missing} if missing else {})
    if not joined or all("missing" in case for case in joined):
        kinds = Counter(name.suffix for members in sessions.values() for name, _ in members)
        there = ", ".join(f"{kind} ({count})" for kind, count in sorted(kinds.items())) or "no BIDS names"
        raise UserError(
            f"modalities: none of the {len(joined)} sessions in {folder} has all of "
            f"{', '.join(modalities)}; found {there}; expected names as sub-01_ses-1_{modalities[0]}.nii.gz"
        )
    if several:
        logger.warning(
            "modalities: %d session(s) have several files of one (%s%s): the first with the fewest entities "
            "is taken", len(several), ", ".join(several[:3]), ", ..." if len(several) > 3 else "",
        )  # fmt: skip
    return joined


def attach_labels(cases: Sequence[Case], labels: Sequence[Path], folder: Path) -> None:
    """Give each case without a label the label of its session, where there is one.

    A label belongs to an image of the same subject and session whose entities include the label's (except
    entities that only derivatives have). An image with a `space` needs a label with the same `space`; any
    other image needs a label with no `space`, with `space-orig`, or with the image's suffix as its space
    (`space-T1w`). Where several labels qualify, the one that shares the most entities with the image is used
    (the label of its run), then the one with the fewest entities, then the first by name.

    Args:
        cases: Cases with `image` and `path`; changed in place.
        labels: Files, which may include labels.
        folder: Folder that was searched; it contains both images and labels.
    """
    known: dict[tuple[str, str], list[tuple[BidsName, Path]]] = defaultdict(list)
    for path in labels:
        name = bids_name(path)
        if name is not None and name.suffix == LABEL and path.name.lower().endswith(EXTENSIONS):
            known[name.subject, name.session].append((name, path))
    several: list[str] = []
    for case in cases:
        if "label" in case:
            continue
        images = [case["image"]] if isinstance(case["image"], str) else case["image"]
        named = [(bids_name(image), Path(image)) for image in images]
        own = [(name, image) for name, image in named if name is not None]
        found = [
            (len(source_entities(label)), label, path)
            for label, path in (known.get((own[0][0].subject, own[0][0].session), []) if own else [])
            if any(path.is_relative_to(data_set(i, n, folder)) and belongs(label, n) for n, i in own)
        ]
        found.sort(key=lambda each: (-each[0], len(each[1].entities), str(each[2])))
        if found:
            case["label"] = os.path.normpath(found[0][2])
        if len(found) > 1 and found[0][0] == found[1][0]:
            several.append(f"{Path(case['path']).name}: {found[0][2].name}")
    if several:
        logger.warning(
            "labels: %d case(s) have several %s files (%s%s): the first with the fewest entities is taken",
            len(several), LABEL, ", ".join(several[:2]), ", ..." if len(several) > 2 else "",
        )  # fmt: skip


def data_set(image: Path, name: BidsName, folder: Path) -> Path:
    """The root folder of the BIDS data set that contains an image; its labels are somewhere below."""
    subject = next((p for p in image.parents if p.name == name.subject), None)
    if subject is None or not subject.parent.is_relative_to(folder):
        return folder
    root = subject.parent
    return root.parent if root.name == "rawdata" and root != folder else root


def belongs(label: BidsName, image: BidsName) -> bool:
    """Whether a label of the same subject and session is on the grid of an image (see `attach_labels`)."""
    space = image.value("space")
    fits = label.value("space") in ((space,) if space else ("", "orig", image.suffix))
    return fits and source_entities(label) <= set(image.entities)


def source_entities(label: BidsName) -> set[str]:
    """The entities of a label that come from the image it was made from."""
    return {e for e in label.entities if e.partition("-")[0] not in OWN_ENTITIES}

"""Datalists: the dataset.json of MSD and nnU-Net, and any list of cases in MONAI's format."""

import json
import logging
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from pretext3d.checking import brief, is_integer, is_number
from pretext3d.data.declared import NOTHING_DECLARED, DeclaredLabels, read_labels
from pretext3d.data.paths import existing_folder
from pretext3d.errors import UserError

__all__ = ["declared_labels", "find_datalist", "is_resource_fork", "listed_cases", "read_json"]

logger = logging.getLogger(__name__)

Case = dict[str, Any]

PATH_KEYS = ("image", "label", "landmark_mask")


def find_datalist(folder: Path, datalist: str, alone: bool) -> Path | None:
    """The datalist of a folder; None where there is none or none is requested."""
    if str(datalist).lower() == "none":
        return None
    if not datalist:
        default = folder / "dataset.json"
        return default if default.is_file() else None
    given = Path(datalist).expanduser()
    if not given.is_absolute() and (folder / given).is_file():
        return folder / given
    if not given.is_file():
        raise UserError(
            f"datalist: {datalist} not found, also not in {folder}; expected a JSON file, '' or none"
        )
    if not alone:
        raise UserError(
            f"datalist: one file {datalist} for several folders; expected a file name found in each folder"
        )
    return given


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file of UTF-8 text, with or without a byte-order mark."""
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except RecursionError:
        raise UserError(f"{path}: cannot be read as JSON: lists or objects are nested too deeply") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: cannot be read as JSON: {error}; expected UTF-8 text") from None
    except (ValueError, OSError) as error:
        raise UserError(f"{path}: cannot be read as JSON: {error}") from None
    if not isinstance(content, dict):
        raise UserError(
            f"{path}: found a {type(content).__name__}, expected an object with the key 'training'"
        )
    return content


def listed_cases(datalist: Path, content: dict[str, Any], folder: Path) -> list[Case]:
    """The entries of a datalist's `training` and labelled `validation` lists.

    Raises:
        UserError: For a list or an entry of the wrong type; names file, list and index, and key.
    """
    entries: list[tuple[str, Case]] = []
    ignored: set[str] = set()
    for section in ("training", "validation"):
        listed = content.get(section, [])
        if not isinstance(listed, list):
            raise UserError(
                f"{datalist}: '{section}' is a {type(listed).__name__}, expected a list of entries"
            )
        for number, raw in enumerate(listed):
            ignored |= raw.keys() & RESERVED if isinstance(raw, dict) else set()
            entry = checked_entry(
                {"image": raw} if isinstance(raw, str) else raw, f"{datalist}: {section}[{number}]"
            )
            if section == "training" or "label" in entry:
                entries.append((section, entry))
    if not entries:
        raise UserError(f"{datalist}: 'training' is empty, expected a list of entries with 'image'")
    if ignored:
        logger.debug("%s: not read, since cases are given them here: %s", datalist, brief(sorted(ignored)))
    base = datalist.parent
    first = next(iter(paths_of(entries[0][1]["image"])))
    if not is_there(base / first) and is_there(folder / first):
        base = folder
    cases = []
    for section, entry in entries:
        if any(is_resource_fork(Path(p)) for p in paths_of(entry["image"])):
            continue
        for key in PATH_KEYS:
            if key in entry:
                joined = [os.path.normpath(base / p) for p in paths_of(entry[key])]
                entry[key] = joined if isinstance(entry[key], list) else joined[0]
        if section == "validation":
            entry["split"] = "validation"
        cases.append(entry)
    if len(cases) < len(entries):
        left_out = len(entries) - len(cases)
        logger.info("%s: %d entries are macOS metadata (._ files), not images", datalist, left_out)
    if not cases:
        raise UserError(f"{datalist}: 'training' lists only macOS metadata (._ files), expected images")
    return cases


def is_resource_fork(path: Path) -> bool:
    """Whether a file or folder is what macOS adds to archives and foreign disks, not an image.

    Examples:
        >>> is_resource_fork(Path("imagesTr/._a.nii.gz")), is_resource_fork(Path("__MACOSX/a.nii.gz"))
        (True, True)
    """
    return path.name.startswith("._") or "__MACOSX" in path.parts


def paths_of(value: Any) -> list[Any]:
    """One path, or one path per channel, as a list."""
    return value if isinstance(value, list) else [value]


def checked_entry(raw: Any, where: str) -> Case:
    """A datalist's entry without the fields of `RESERVED`; an empty or null field counts as none.

    Args:
        raw: Entry as in the file.
        where: File, list and index of the entry, for messages.

    Raises:
        UserError: For an entry without an image, or with a field of the wrong type.
    """
    if not isinstance(raw, dict) or "image" not in raw:
        found = f"the keys {brief(sorted(raw))}" if isinstance(raw, dict) else brief(raw)
        raise UserError(f"{where}: found {found}, expected an entry with 'image'")
    known = {*RESERVED, *PATH_KEYS}
    entry = {key: value for key, value in raw.items() if key not in known and value not in (None, "")}
    for key in PATH_KEYS:
        given = raw.get(key)
        paths = paths_of(given)
        if given in (None, "") and key != "image":
            continue
        if not paths or not all(is_path(p) for p in paths) or (key != "image" and len(paths) > 1):
            raise UserError(
                f"{where}: '{key}' is {brief(given)}, "
                f"expected a path{' or a list of paths' * (key == 'image')}"
            )
        entry[key] = paths[0] if len(paths) == 1 else paths
    for key, (fits, expected) in FIELDS.items():
        if raw.get(key) not in (None, "") and not fits(raw[key]):
            raise UserError(f"{where}: '{key}' is {brief(raw[key])}, expected {expected}")
    if "subject" in entry:
        entry["subject"] = str(entry["subject"])
    return entry


def is_there(path: Path) -> bool:
    """Whether a file exists; False where the system cannot look it up, as for a name that is too long."""
    try:
        return path.exists()
    except OSError:
        return False


def is_path(value: Any) -> bool:
    """Whether a value is text that the system accepts as the name of a file."""
    try:
        return isinstance(value, str) and value != "" and b"\0" not in os.fsencode(value)
    except UnicodeEncodeError:
        return False


def is_text_or_integer(value: Any) -> bool:
    """Whether a value is a name: text, or an integer."""
    return is_integer(value) or (isinstance(value, str) and value.isprintable())


def is_point(value: Any) -> bool:
    """Whether a value is a list of three finite numbers."""
    return isinstance(value, list) and len(value) == 3 and all(is_number(v) for v in value)


# what cases are given here, and an entry cannot set
RESERVED = frozenset(
    {
        "constant", "draw", "fault", "frames", "id", "missing", "name", "oriented", "path", "result_name",
        "slice_count", "slice_every", "source", "source_name", "split", "subject_scope", "unusable",
        "visit_seed", "volume",
    }
)  # fmt: skip
# what an entry's fields hold: a check, and what it expects
FIELDS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "fold": (is_integer, "an integer"),
    "subject": (is_text_or_integer, "text or an integer"),
    "class": (lambda v: is_text_or_integer(v) or is_number(v) or isinstance(v, bool), "text or a number"),
    "landmark": (is_point, "[x, y, z] in world mm"),
    "slice": (lambda v: is_integer(v) and v >= 0, "an integer from 0"),
    "slice_axis": (lambda v: is_integer(v) and 0 <= v <= 2, "0, 1 or 2"),
}


def declared_labels(dataset_dir: str | Path | Sequence[str | Path], datalist: str = "") -> DeclaredLabels:
    """The label values of a dataset.json: MSD's {"1": name}, nnU-Net's {name: 1} or {name: [1, 2]}.

    Raises:
        UserError: If the declaration has wrong types, a value or name twice, values above 65535 or more than
            255 classes; if two folders declare different labels; if nnU-Net's `ignore` is declared, which is
            not supported.
    """
    folders: Iterable[str | Path] = (
        [dataset_dir] if isinstance(dataset_dir, str | Path) else list(dataset_dir)
    )
    known = NOTHING_DECLARED
    for given in folders:
        listed = find_datalist(existing_folder(given), datalist, alone=True)
        content = read_json(listed) if listed else {}
        if content.get("labels") in (None, {}):
            continue
        found = read_labels(content["labels"], content.get("regions_class_order"), str(listed))
        if known.names and found != known:
            raise UserError(
                f"{listed}: labels {brief(found.names)} {brief(found.regions) if found.regions else ''}"
                f"differ from {brief(known.names)}, which another folder of dataset_dir declares"
            )
        known = found
    return known

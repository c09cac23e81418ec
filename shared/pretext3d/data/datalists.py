"""Datalists: the dataset.json of MSD and nnU-Net, and any list of cases in MONAI's format."""

import json
import logging
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from pretext3d.checking import is_whole
from pretext3d.errors import UserError

__all__ = ["find_datalist", "label_names", "listed_cases", "read_json"]

logger = logging.getLogger(__name__)

Case = dict[str, Any]

PATH_KEYS = ("image", "label", "landmark_mask")


def existing_folder(given: str | Path) -> Path:
    """The folder as a path, or a `UserError` that reports what was found instead."""
    if not isinstance(given, str | Path) or not str(given):
        raise UserError(f"dataset_dir: found {given!r}, expected the path of a folder")
    folder = Path(given).expanduser()
    if folder.is_file():
        raise UserError(
            f"dataset_dir: {given} is a file, expected a folder (a dataset.json goes under datalist)"
        )
    if not folder.is_dir():
        near = next((p for p in folder.absolute().parents if p.is_dir()), Path("/"))
        raise UserError(f"dataset_dir: {given} does not exist (the nearest folder that does is {near})")
    return folder


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
    """A JSON object."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise UserError(f"{path}: cannot be read as JSON: {error}") from None
    if not isinstance(content, dict):
        raise UserError(
            f"{path}: found a {type(content).__name__}, expected an object with the key 'training'"
        )
    return content


def listed_cases(datalist: Path, content: dict[str, Any], folder: Path) -> list[Case]:
    """The entries of a datalist's `training` and labelled `validation` lists."""
    entries: list[tuple[str, Case]] = []
    for section in ("training", "validation"):
        listed = content.get(section, [])
        if not isinstance(listed, list):
            raise UserError(
                f"{datalist}: '{section}' is a {type(listed).__name__}, expected a list of entries"
            )
        for number, raw in enumerate(listed):
            entry = checked_entry(
                {"image": raw} if isinstance(raw, str) else raw, f"{datalist}: {section}[{number}]"
            )
            if section == "training" or "label" in entry:
                entries.append((section, entry))
    if not entries:
        raise UserError(f"{datalist}: 'training' is empty, expected a list of entries with 'image'")
    base = datalist.parent
    first = next(iter(paths_of(entries[0][1]["image"])))
    if not (base / first).exists() and (folder / first).exists():
        base = folder
    cases = []
    for section, entry in entries:
        for key in PATH_KEYS:
            if key in entry:
                joined = [os.path.normpath(base / p) for p in paths_of(entry[key])]
                entry[key] = joined if isinstance(entry[key], list) else joined[0]
        if section == "validation":
            entry["split"] = "validation"
        cases.append(entry)
    return cases


def paths_of(value: Any) -> list[Any]:
    """One path, or one path per channel, as a list."""
    return value if isinstance(value, list) else [value]


def checked_entry(raw: Any, where: str) -> Case:
    """A datalist's entry reduced to plain values; an empty or null label counts as none.

    Raises:
        UserError: For an entry without an image, or with a field of the wrong type.
    """
    if not isinstance(raw, dict) or "image" not in raw:
        found = f"the keys {sorted(raw)}" if isinstance(raw, dict) else repr(raw)
        raise UserError(f"{where}: found {found}, expected an entry with 'image'")
    entry = {k: v for k, v in raw.items() if v is not None and v != "" and is_plain(v)}
    for key in PATH_KEYS:
        paths = paths_of(entry.get(key, "x"))
        if not paths or not all(isinstance(p, str) for p in paths) or (key != "image" and len(paths) > 1):
            raise UserError(
                f"{where}: '{key}' is {raw[key]!r}, expected a path{' or a list of paths' * (key == 'image')}"
            )
        if key in entry and key != "image":
            entry[key] = paths[0]
    if "image" not in entry:
        raise UserError(f"{where}: 'image' is {raw['image']!r}, expected a path or a list of paths")
    if isinstance(entry["image"], list) and len(entry["image"]) == 1:
        entry["image"] = entry["image"][0]
    if "fold" in entry and not is_whole(entry["fold"]):
        raise UserError(f"{where}: 'fold' is {entry['fold']!r}, expected a whole number")
    if "subject" in entry and not isinstance(entry["subject"], str | int):
        raise UserError(f"{where}: 'subject' is {entry['subject']!r}, expected text or a whole number")
    if "subject" in entry:
        entry["subject"] = str(entry["subject"])
    point = entry.get("landmark", [0, 0, 0])
    if not isinstance(point, list) or len(point) != 3 or not all(type(v) in (int, float) for v in point):
        raise UserError(f"{where}: 'landmark' is {point!r}, expected [x, y, z] in world mm")
    return entry


def is_plain(value: Any) -> bool:
    """True for a string, a number, or a list of these."""
    values = value if isinstance(value, list) else [value]
    return all(isinstance(v, str | int | float) for v in values)


def label_names(dataset_dir: str | Path | Sequence[str | Path], datalist: str = "") -> dict[int, str]:
    """The names of label values that a dataset.json declares: MSD's {"1": name}, nnU-Net's {name: 1}.

    Raises:
        UserError: If two folders declare different names, or nnU-Net's `ignore` is declared, which is not
            supported.
    """
    folders: Iterable[str | Path] = (
        [dataset_dir] if isinstance(dataset_dir, str | Path) else list(dataset_dir)
    )
    known: dict[int, str] = {}
    for given in folders:
        listed = find_datalist(existing_folder(given), datalist, alone=True)
        declared = read_json(listed).get("labels") if listed else None
        if not isinstance(declared, dict) or not declared:
            continue
        if "ignore" in declared:
            raise UserError(
                f"{listed}: labels declares 'ignore', which is not supported; expected classes only"
            )
        pairs = [(k, v) if str(k).isdigit() else (v, k) for k, v in declared.items()]
        if not all(str(k).isdigit() for k, _ in pairs):
            logger.warning("%s: labels declares regions; classes are taken from the label files", listed)
            continue
        names = {int(k): str(v) for k, v in pairs}
        if known and names != known:
            raise UserError(
                f"{listed}: labels {names} differ from {known}, which another folder of dataset_dir declares"
            )
        known = names
    return known

"""DICOM series in folders: which files are slices, and one readable path per series."""

import hashlib
import importlib.util
import logging
import shutil
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from pretext3d.files import new_folder

__all__ = ["find_projections", "find_series", "is_dicom"]

logger = logging.getLogger(__name__)

SUFFIXES = (".dcm", ".dicom", ".ima")


def is_dicom(path: Path) -> bool:
    """True for a DICOM file: by its suffix, or, without a meaningful one, by `DICM` at byte 128."""
    suffix = path.suffix.lower()
    if suffix in SUFFIXES:
        return True
    if (suffix and not suffix[1:].isdigit()) or path.name == "DICOMDIR":
        return False
    try:
        with path.open("rb") as file:
            return file.read(132)[128:] == b"DICM"
    except OSError:
        return False


def series_of(path: Path) -> tuple[str, str] | None:
    """(SeriesInstanceUID, SeriesNumber) of a file; ('', '') if unreadable, None if without pixels."""
    import pydicom

    try:
        header = pydicom.dcmread(
            path, stop_before_pixels=True, specific_tags=["SeriesInstanceUID", "SeriesNumber", "Rows"]
        )
        if "Rows" not in header:
            return None
        return str(header.get("SeriesInstanceUID", "")), str(header.get("SeriesNumber", None) or "")
    except Exception:  # a broken file may raise anything: it is reported when its series is read
        return "", ""


def find_series(slices: Sequence[Path], cache_dir: str) -> list[tuple[Path, str]]:
    """One entry per series: (the path it is named after, the path to read).

    Where a folder holds one series and nothing else, the folder is read. A series that shares a folder with
    others, or is spread over several, gets a folder of links under `cache_dir`, because MONAI's readers treat
    a folder as one series. A series of one (multi-frame) file is that file. Without pydicom each folder is
    treated as a series.

    Args:
        slices: DICOM files.
        cache_dir: Folder where folders of links are made.
    """
    if not slices:
        return []
    if importlib.util.find_spec("pydicom") is None:
        logger.info("pydicom is not installed: each folder of DICOM files is treated as one series")
        return [(folder, str(folder)) for folder in dict.fromkeys(p.parent for p in slices)]
    series: dict[str, list[Path]] = defaultdict(list)
    numbers: dict[str, str] = {}
    unreadable: list[Path] = []
    for path in slices:
        known = series_of(path)
        if known is None:
            continue
        if known == ("", ""):
            unreadable.append(path)
        else:
            series[known[0]].append(path)
            numbers[known[0]] = known[1]
    found = []
    for uid, paths in series.items():
        folder = paths[0].parent
        broken = [p for p in unreadable if p.parent == folder]
        others = [p for p in folder.iterdir() if p.is_file() and not p.name.startswith(".")]
        if set(others) == set(paths) | set(broken) and len(others) > 1:
            found.append((folder, str(folder)))
        elif len(paths) == 1:
            found.append((paths[0], str(paths[0])))
        else:
            alone = sum(any(p.parent == folder for p in s) for s in series.values()) == 1
            named = folder if alone else folder / f"series_{numbers[uid] or uid.rsplit('.')[-1]}"
            found.append((named, link_folder(uid, paths, cache_dir)))
    readable = {p.parent for paths in series.values() for p in paths}
    for folder in {p.parent: None for p in unreadable if p.parent not in readable}:
        found.append((folder, str(folder)))
    return found


def find_projections(files: Sequence[Path]) -> dict[Path, str]:
    """Files of series that are not a stack of slices (two chest views), each with a name for its series.

    Such a file has no position in the patient (ImagePositionPatient). The name is the same for all files of a
    series, and does not identify the patient.

    Args:
        files: DICOM files.
    """
    if not files or importlib.util.find_spec("pydicom") is None:
        return {}
    import pydicom

    found = {}
    for path in files:
        tags = ["SeriesInstanceUID", "ImagePositionPatient", "NumberOfFrames", "Rows"]
        try:
            header = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=tags)
        except Exception:  # a broken file may raise anything: it is reported when it is read
            continue
        if "Rows" in header and "ImagePositionPatient" not in header and "NumberOfFrames" not in header:
            series = str(header.get("SeriesInstanceUID", path))
            found[path] = hashlib.sha256(series.encode()).hexdigest()[:12]
    return found


def link_folder(uid: str, paths: Sequence[Path], cache_dir: str) -> str:
    """A folder of links to the slices of one series (copies, where the file system has no links)."""
    ordered = sorted(str(p.resolve()) for p in paths)
    name = hashlib.sha256("\n".join([uid, *ordered]).encode()).hexdigest()[:20]
    target = Path(cache_dir) / "dicom" / name
    if target.is_dir():
        return str(target)
    with new_folder(target) as draft:
        for i, source in enumerate(ordered):
            link = draft / f"{i:05d}.dcm"
            try:
                link.symlink_to(source)
            except OSError:
                shutil.copyfile(source, link)
    return str(target)

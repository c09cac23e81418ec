"""DICOM in folders: one case per stack of slices, and one reason for all that is none.

`find_stacks` reads the headers of all files, `dicom_stacks` decides what is a stack. A stack is read from its
file, from its folder where that holds nothing else, or from a folder of links to its files; each of them
names all files that the volume depends on. `read_stack` applies the same rules to what it finds there.
"""

import filecmp
import hashlib
import json
import logging
import shutil
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pretext3d.data.dicom_files import SUFFIXES, hush, is_dicom
from pretext3d.data.dicom_headers import Frame, Header, read_header
from pretext3d.data.dicom_pixels import read_voxels
from pretext3d.data.dicom_stacks import Stack, grid, shear_of, stacks_of
from pretext3d.data.faults import UNREADABLE, BadFileError
from pretext3d.data.streams import check_size, pointer
from pretext3d.extras import lacking
from pretext3d.files import new_folder
from pretext3d.progress import Bar
from pretext3d.ranks import is_first

__all__ = ["NEEDED", "Found", "find_stacks", "is_dicom", "open_stack", "read_stack"]

logger = logging.getLogger(__name__)

SELECTION = "frames.json"  # in a folder of links: the frames of a multi-frame file that belong to the stack
SHEARED = 1.0  # degrees; stacks that are sheared by more are counted in the log
NAMED_FILES = 3  # files that a reason names; of more, the number

NEEDED = ("pydicom", "pydicom", 3)  # package, its module, and the version that has the decoders


class Found(NamedTuple):
    """A stack of a folder search, or what is none.

    Attributes:
        path: Path that it is named after.
        read: Path to read.
        reason: Why it cannot be used; ''.
        subject: Name that several stacks of one series, or its X-rays, share; ''.
        shear: Angle between the steps from slice to slice and the normal of the slices, degrees.
    """

    path: Path
    read: str
    reason: str = ""
    subject: str = ""
    shear: float = 0.0


def find_stacks(files: Sequence[Path], cache_dir: str, spatial_dims: int = 3) -> list[Found]:
    """The stacks in DICOM files, and for everything else that is an image a reason.

    Files that are no image (dose, contours, segmentations, reports ...) and copies of others are left out,
    with a line that counts them.

    Args:
        files: DICOM files.
        cache_dir: Folder where folders of links are made.
        spatial_dims: Number of spatial axes; in 2D single slices and X-rays are images.
    """
    if not files:
        return []
    reason = lacking(*NEEDED)
    if reason:
        reason = f"{UNREADABLE}: {reason}"
        return [Found(folder, str(folder), reason) for folder in dict.fromkeys(p.parent for p in files)]
    headers = without_others(read_headers([str(path) for path in files]))
    folders = Counter(Path(header.file).parent for header in headers)
    series: dict[str, list[Header]] = defaultdict(list)
    for header in headers:
        series[header.series].append(header)
    owners: dict[Path, set[str]] = defaultdict(set)
    for uid, members in series.items():
        for folder in {Path(member.file).parent for member in members} if uid else ():
            owners[folder].add(uid)
    names = series_names(series, owners)
    found: list[Found] = []
    for uid, members in series.items():
        if uid:
            found += found_in_series(members, names[uid], folders, cache_dir, spatial_dims)
    tilted = [one.shear for one in found if one.shear > SHEARED]
    if tilted:
        detail = "by up to %.0f degrees, as with a tilted gantry; their affines have the shear"
        logger.info("%d DICOM stacks are sheared " + detail, len(tilted), max(tilted))
    return found + unreadable(series.get("", []), set(owners))


def read_headers(files: Sequence[str]) -> list[Header]:
    """The headers of files, in their order, with a progress bar where it takes long."""
    hush()
    pool: dict[object, object] = {}
    headers = []
    hidden = not is_first()
    for file in Bar(files, desc="reading DICOM headers", unit="file", disable=hidden, delay=2, leave=False):
        try:
            header = read_header(file, pool)
        except OSError as error:
            header = Header(file, problem=UNREADABLE, detail=error.strerror or "it cannot be read")
        hint = pointer(file) if header.problem == UNREADABLE else ""
        headers.append(header._replace(detail=hint) if hint else header)
    return headers


def without_others(headers: Sequence[Header]) -> list[Header]:
    """The headers of images; others and copies are counted in one line each."""
    kinds = Counter(header.kind for header in headers if header.kind)
    if kinds:
        counts = ", ".join(f"{number} {kind}" for kind, number in sorted(kinds.items()))
        logger.info("%d DICOM files are no images and are left out: %s", sum(kinds.values()), counts)
    known: dict[tuple[object, ...], str] = {}
    kept, copies = [], 0
    for header in headers:
        if header.kind:
            continue
        key = (header.instance, header.series, *(frame[1:] for frame in header.frames))
        first = known.setdefault(key, header.file) if header.instance and header.frames else header.file
        if first != header.file and filecmp.cmp(first, header.file, shallow=False):
            copies += 1
        else:
            kept.append(header)
    if copies:
        logger.info("%d DICOM files are copies of others and are left out", copies)
    return kept


def series_names(series: dict[str, list[Header]], owners: dict[Path, set[str]]) -> dict[str, Path]:
    """The path that each series is named after: its folder; beside others, a part of it by SeriesNumber.

    Args:
        series: Files of each series; '' = unreadable ones.
        owners: Series that have files in each folder.
    """
    names = {}
    for uid, members in series.items():
        folder = Path(members[0].file).parent
        if not uid:
            continue
        if len(owners[folder]) > 1:
            stated = uid.split("\n")[0]
            last = "0" if stated == str(folder) else stated.rsplit(".", 1)[-1]
            folder = folder / f"series_{members[0].number or last}"
        names[uid] = folder
    counts = Counter(names.values())
    return {
        uid: name if counts[name] == 1 else name.with_name(f"{name.name}_{person_of(uid)[:6]}")
        for uid, name in names.items()
    }


def person_of(uid: str) -> str:
    """A name for the subject of a series, 12 hexadecimal digits."""
    return hashlib.sha256(uid.encode(errors="surrogateescape")).hexdigest()[:12]


def found_in_series(
    members: Sequence[Header], base: Path, folders: Counter[Path], cache_dir: str, spatial_dims: int
) -> list[Found]:
    """What one series gives.

    Args:
        members: Files of the series.
        base: Path that it is named after.
        folders: Number of images in each folder.
        cache_dir: Folder where folders of links are made.
        spatial_dims: Number of spatial axes.
    """
    uid = members[0].series
    if len(members) == 1:
        base = Path(members[0].file)
    person = person_of(uid)
    views = [m for m in members if m.projection and spatial_dims == 2]
    found = [Found(Path(view.file), view.file, "", person) for view in views]
    faults: dict[str, list[Header]] = defaultdict(list)
    for member in members:
        if member.problem and member not in views:
            faults[f"{member.problem}: {member.detail}"].append(member)
    frames = [frame for member in members for frame in member.frames]
    stacks = stacks_of(frames, spatial_dims) if frames else []
    good = [stack for stack in stacks if not stack.problem]
    for stack in stacks:
        label = "" if good == [stack] or stacks == [stack] else stack.label
        subject = person if len(good) > 1 else ""
        read = stack.frames[0].file if stack.problem else path_of(stack, uid, members, folders, cache_dir)
        shear = 0.0 if stack.problem else shear_of(stack.affine)
        found.append(Found(labelled(base, label), read, stack.reason, subject, shear))
    for number, (reason, faulty) in enumerate(faults.items(), 1):
        label = f"other_{number}" if len(faults) > 1 or stacks or views else ""
        where = "" if len(members) == 1 else f" ({names_of(faulty)})"
        found.append(Found(labelled(base, label), faulty[0].file, reason + where))
    return found


def labelled(base: Path, label: str) -> Path:
    """A name for one of several stacks: p1/ct_time_2 in the folder p1/ct, p1/scan_time_2 in p1/scan.dcm."""
    if not label:
        return base
    name = base.stem if base.suffix.lower() in SUFFIXES else base.name
    return base.with_name(f"{name}_{label}") if name else base / label


def names_of(headers: Sequence[Header]) -> str:
    """The names of a few files, or their number."""
    names = [Path(header.file).name for header in headers]
    more = f" and {len(names) - NAMED_FILES} more" if len(names) > NAMED_FILES else ""
    return ", ".join(names[:NAMED_FILES]) + more


def unreadable(headers: Sequence[Header], readable: set[Path]) -> list[Found]:
    """One entry for the files of each folder that cannot be read."""
    places: dict[Path, list[Header]] = defaultdict(list)
    for header in headers:
        places[Path(header.file).parent].append(header)
    found = []
    for folder, broken in places.items():
        name = labelled(folder, "unreadable" if folder in readable else "")
        reason = f"{broken[0].problem}: {broken[0].detail} ({names_of(broken)})"
        found.append(Found(name, str(folder), reason))
    return found


def path_of(stack: Stack, uid: str, members: Sequence[Header], folders: Counter[Path], cache_dir: str) -> str:
    """The path from which a stack is read: its file, its folder, or a folder of links."""
    files = list(dict.fromkeys(frame.file for frame in stack.frames))
    counts = {member.file: len(member.frames) for member in members}
    complete = sum(counts[file] for file in files) == len(stack.frames)
    if complete and len(files) == 1:
        return files[0]
    folder = Path(files[0]).parent
    if complete and folders[folder] == len(files):
        others = {str(p) for p in folder.iterdir() if p.is_file() and not p.name.startswith(".")}
        if others == set(files):
            return str(folder)
    return link_folder(uid, stack.frames, complete, cache_dir)


def link_folder(uid: str, frames: Sequence[Frame], complete: bool, cache_dir: str) -> str:
    """A folder of links to the files of one stack (copies, where the file system has no links).

    Args:
        uid: UID of the series.
        frames: Frames of the stack.
        complete: Whether these are all frames of their files.
        cache_dir: Folder where folders of links are made.
    """
    chosen: dict[str, list[int]] = defaultdict(list)
    for frame in frames:
        chosen[str(Path(frame.file).resolve())].append(frame.number)
    ordered = sorted(chosen)
    links = [f"{i:05d}.dcm" for i in range(len(ordered))]
    selection = {} if complete else {link: sorted(chosen[p]) for link, p in zip(links, ordered, strict=True)}
    content = "\n".join([uid, *ordered, *([json.dumps(selection)] if selection else [])])
    target = Path(cache_dir) / "dicom" / hashlib.sha256(content.encode()).hexdigest()[:20]
    if target.is_dir():
        return str(target)
    with new_folder(target) as draft:
        for link, source in zip(links, ordered, strict=True):
            try:
                (draft / link).symlink_to(source)
            except OSError:
                shutil.copyfile(source, draft / link)
        if selection:
            (draft / SELECTION).write_text(json.dumps(selection))
    return str(target)


def open_stack(path: str | Path, spatial_dims: int = 3) -> Stack:
    """The one stack in a DICOM file or folder, from headers alone: `shape`, `channels`, `affine`, `frames`.

    Args:
        path: DICOM file, folder of DICOM files (not searched recursively), or a path that `find_stacks` gave.
        spatial_dims: Number of spatial axes; in 2D an X-ray is an image, 1 mm where no spacing is stated.

    Raises:
        BadFileError: If there is no stack, or more than one.
        OSError: If the path cannot be read.
    """
    place = Path(path)
    files = sorted(p for p in place.iterdir() if is_candidate(p)) if place.is_dir() else [place]
    hush()
    pool: dict[object, object] = {}
    headers = [read_header(str(file), pool) for file in files]
    images = [header for header in headers if not header.kind]
    if not images:
        kinds = sorted({header.kind for header in headers})
        raise BadFileError(UNREADABLE, f"no image{', found ' + ', '.join(kinds) if kinds else ''}")
    if spatial_dims == 2 and len(images) == 1 and images[0].projection:
        frame = images[0].projection
        return Stack((frame,), "", grid([frame]))
    for header in images:
        if header.problem:
            where = f" ({Path(header.file).name})" if len(images) > 1 else ""
            raise BadFileError(header.problem, header.detail + where, header.passing)
    chosen = place / SELECTION
    selection = json.loads(chosen.read_text()) if place.is_dir() and chosen.is_file() else None
    series: dict[str, list[Frame]] = defaultdict(list)
    for header in images:
        kept = None if selection is None else set(selection.get(Path(header.file).name, ()))
        series[header.series] += [f for f in header.frames if kept is None or f.number in kept]
    stacks = [stack for frames in series.values() for stack in stacks_of(frames, spatial_dims)]
    if len(stacks) > 1:
        each = ", ".join("x".join(map(str, stack.shape)) for stack in stacks[:NAMED_FILES])
        more = ", ..." if len(stacks) > NAMED_FILES else ""
        raise BadFileError("several stacks", f"{len(stacks)} groups of slices ({each}{more}), expected one")
    if stacks[0].problem:
        raise BadFileError(stacks[0].problem, stacks[0].detail)
    check_size((*stacks[0].shape, stacks[0].channels), 4, 0, "DICOM")
    return stacks[0]


def is_candidate(path: Path) -> bool:
    """Whether a file of a folder belongs to its stack: visible, and DICOM."""
    return not path.name.startswith(".") and path.is_file() and is_dicom(path)


def read_stack(
    path: str | Path | Stack, spatial_dims: int = 3
) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """The voxels and the grid of the one stack in a DICOM file or folder.

    Args:
        path: DICOM file or folder (see `open_stack`), or an opened stack.
        spatial_dims: Number of spatial axes.

    Returns:
        Voxels (i, j, k), i along the rows, j along the columns, k along the normal, or in colour
        (i, j, k, 3), as measured values (see `dicom_pixels`); and the affine (4, 4), their indices to world
        mm in RAS.

    Raises:
        BadFileError: If there is no stack, more than one, or its voxels cannot be decoded.
        OSError: If a file cannot be read.
    """
    stack = path if isinstance(path, Stack) else open_stack(path, spatial_dims)
    voxels = read_voxels(stack.frames)
    return (voxels if stack.channels > 1 else voxels[..., 0]), stack.affine

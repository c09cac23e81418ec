"""Facts about one image file, found without training on it: geometry from its header, faults from voxels.

Everything is read by `reader`, so that a verdict is about the data that a pipeline will see. Verdicts are
kept on disk, one small JSON per file, under a name made of the paths, sizes and times of change of all files
of the volume, and written atomically: concurrent runs may share them. An error of the machine is no verdict.

In 2D a file is a picture (see `images`), a single slice, or a volume of which slices are taken. Their facts
always have three axes, so that one comparison of shapes and geometry serves all: a picture has the shape
[columns, rows, 1] and the axes LPS.
"""

import errno
import hashlib
import json
import os
import warnings
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from pretext3d.data.dataset import file_stamp
from pretext3d.data.faults import (
    EMPTY,
    INF,
    MISSING,
    NAN,
    SINGLE_ROW,
    SINGLE_SLICE,
    UNREADABLE,
    BadFileError,
)
from pretext3d.data.images import JPEG, PICTURES, is_picture, transparency
from pretext3d.data.labels import whole_values
from pretext3d.data.reader import EXTENSIONS, Frames, is_dicom_path, lacking_package, open_scan, select_frames
from pretext3d.data.scan import Header
from pretext3d.data.streams import pointer
from pretext3d.files import write_whole

__all__ = ["VerdictCache", "VolumeFacts", "examine", "strip_extension"]

FORMAT = 5  # version of the verdicts on disk: a change here recomputes every verdict


@dataclass(frozen=True)
class VolumeFacts:
    """The geometry of one file and what is wrong with it.

    Attributes:
        problem: Fixed name of the reason; '' for none found yet.
        detail: What was found, for the message.
        shape: Voxels along i j k.
        spacing: Spacing in mm along i j k.
        axes: World directions of i j k, as in "LPS".
        channels: Number of channels, 1 for a 3D file.
        states: Pair [NaN | inf | empty | '', detail] for each channel; empty where the voxels were not read.
        values: Values in a label, ascending.
        flat: Indices (in RAS order) of the constant slices of a volume in 2D, for each world axis x y z and
            each channel.
        affine: Affine (4, 4), voxel indices to world mm, RAS.
        note: Choice that the reader made between contradicting statements of the header; ''.
        time: What the file calls its fourth axis, where it says time.
        names: Pairs [value, name] of a label whose file names its values.
        passing: The problem is one of the machine, such as a lack of memory or a missing decoder, and may be
            gone next time.
    """

    problem: str = ""
    detail: str = ""
    shape: list[int] = field(default_factory=list)
    spacing: list[float] = field(default_factory=list)
    axes: str = ""
    channels: int = 0
    states: list[list[str]] = field(default_factory=list)
    values: list[int] = field(default_factory=list)
    flat: list[list[list[int]]] = field(default_factory=list)
    affine: list[list[float]] = field(default_factory=list)
    note: str = ""
    time: str = ""
    names: list[list[Any]] = field(default_factory=list)
    passing: bool = False

    def along_world(self) -> tuple[list[int], list[float]]:
        """Shape (voxels) and spacing (mm) along the world axes x y z, as after reorientation to RAS."""
        order = world_order(self.axes)
        return [self.shape[i] for i in order], [self.spacing[i] for i in order]


def world_order(axes: str) -> list[int]:
    """Which of i j k runs along x, y and z.

    Examples:
        >>> world_order("PSR")
        [2, 0, 1]
    """
    return [next(i for i, code in enumerate(axes) if code in pair) for pair in ("RL", "AP", "SI")]


def strip_extension(path: str) -> str:
    """A file's path without the extension of a volume or picture; other names are kept in full.

    Examples:
        >>> strip_extension("a/b.nii.gz"), strip_extension("eye.jpg"), strip_extension("series.1")
        ('a/b', 'eye', 'series.1')
    """
    lower = path.lower()
    return next((path[: -len(e)] for e in (*EXTENSIONS, *PICTURES) if lower.endswith(e)), path)


def extensions(spatial_dims: int) -> tuple[str, ...]:
    """The extensions of files that hold one image: volumes, and in 2D pictures too."""
    return EXTENSIONS if spatial_dims == 3 else (*EXTENSIONS, *PICTURES)


def header_facts(header: Header, spatial_dims: int = 3) -> VolumeFacts:
    """The facts of a file's header."""
    shape = list(header.shape)
    if shape.count(1) > 3 - spatial_dims:
        problem = SINGLE_SLICE if spatial_dims == 3 else SINGLE_ROW
        size = "x".join(map(str, shape[: max(header.stored_dims, 2)]))
        return VolumeFacts(problem, f"shape {size}", shape, channels=header.channels)
    return VolumeFacts(
        shape=shape,
        spacing=np.linalg.norm(header.affine[:3, :3], axis=0).tolist(),
        axes="".join(str(code) for code in nib.aff2axcodes(header.affine)),
        channels=header.channels,
        affine=header.affine.tolist(),
        note=header.note,
        time=header.time,
        names=[[value, name] for value, name in header.names.items()],
    )


def channel_states(array: np.ndarray, slope: float = 1.0, intercept: float = 0.0) -> list[list[str]]:
    """The fault of each channel (the 4th axis), by its minimum and maximum, without a full-size copy."""
    limit = float(np.finfo(np.float32).max)
    states = []
    for c in range(array.shape[3] if array.ndim == 4 else 1):
        channel = array[..., c] if array.ndim == 4 else array
        with np.errstate(all="ignore"):
            ends = [float(channel.min()) * slope + intercept, float(channel.max()) * slope + intercept]
        if any(np.isnan(e) for e in ends):
            count = int(np.isnan(channel).sum())
            states.append([NAN, f"{count} of {channel.size} voxels"])
        elif any(abs(e) > limit for e in ends):
            count = int(np.count_nonzero(np.abs(channel * slope + intercept) > limit))
            states.append([INF, f"{count} of {channel.size} voxels"])
        elif ends[0] == ends[1]:
            states.append([EMPTY, f"every voxel is {ends[0]:g}"])
        else:
            states.append(["", ""])
    return states


def flat_slices(array: np.ndarray, axes: str) -> list[list[list[int]]]:
    """The indices of the constant slices along x, y and z, for each channel, in RAS order.

    Args:
        array: Voxels (i j k) or (i j k c), as stored.
        axes: World directions of i j k, as in "LPS".
    """
    array = array if array.ndim == 4 else array[..., None]
    found: list[list[list[int]]] = []
    for i in world_order(axes):
        others = tuple(axis for axis in range(3) if axis != i)
        same = array.min(axis=others) == array.max(axis=others)  # slice, channel
        same = same[::-1] if axes[i] in "LPI" else same
        found.append([np.flatnonzero(channel).tolist() for channel in same.T])
    return found


def label_values(array: np.ndarray, slope: float, intercept: float) -> tuple[list[int], str]:
    """The values in a label, ascending, and what else was found, or ''."""
    array = array[..., 0] if array.ndim == 4 else array
    if (slope, intercept) != (1.0, 0.0):
        array = array * slope + intercept
    whole, fault = whole_values(array)
    found: list[int] = np.flatnonzero(np.bincount(whole.ravel())).tolist()
    return found, fault


def examine(path: str, kind: str, spatial_dims: int = 3, frames: Frames = None) -> VolumeFacts:
    """The facts of one file.

    Args:
        path: Path of a file, or of a folder of DICOM slices.
        kind: One of header (voxels are not read if the format allows), image and label.
        spatial_dims: Number of spatial axes, 3 or 2.
        frames: Use of a fourth axis of an image, see `reader.select_frames`.
    """
    if is_picture(path) and spatial_dims == 3:
        return VolumeFacts(SINGLE_SLICE, "a picture, which spatial_dims: 2 reads")
    lacks = lacking_package(path)
    if lacks:
        return VolumeFacts(UNREADABLE, lacks, passing=True)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return _examined(path, kind, spatial_dims, frames)
    except BadFileError as error:
        return VolumeFacts(error.problem, error.detail, passing=error.passing)
    except MemoryError:
        return VolumeFacts(UNREADABLE, "not enough memory", passing=True)
    except OSError as error:
        return VolumeFacts(UNREADABLE, str(error.strerror or error), passing=True)


def _examined(path: str, kind: str, spatial_dims: int, frames: Frames) -> VolumeFacts:
    """As `examine`.

    Raises:
        BadFileError: If the file's content cannot be used.
        OSError: If the file cannot be read now.
    """
    if kind == "label" and path.lower().endswith(JPEG):
        facts = header_facts(
            open_scan(path, spatial_dims=spatial_dims).header, spatial_dims
        )  # a label that JPEG has changed
        fault = "a JPEG, which changes them; expected PNG, TIFF or NIfTI"
        return facts if facts.problem else replace(facts, channels=1, states=[["values", fault]])
    scan = open_scan(path, kind == "label", spatial_dims)
    facts = header_facts(scan.header, spatial_dims)
    if facts.problem:
        return facts
    if kind != "label":
        scan = select_frames(scan, frames)
        facts = replace(facts, channels=scan.header.channels)
    if kind == "header":
        return facts
    array = scan.voxels()
    facts = replace(facts, channels=int(array.shape[3]))
    if kind == "label":
        values, fault = label_values(array, scan.slope, scan.intercept)
        read: dict[str, Any] = {"values": values, "states": [["values", fault]]}
    else:
        read = {"states": channel_states(array, scan.slope, scan.intercept)}
        read |= {"note": transparency(path)} if is_picture(path) else {}
    if spatial_dims == 2 and 1 not in facts.shape:
        read["flat"] = flat_slices(array, facts.axes)
    return replace(facts, **read)


class VerdictCache:
    """Facts of files, kept in memory by path and on disk by path, size and time of change.

    Args:
        folder: Folder for the verdicts on disk; '' = in memory only.
        spatial_dims: Number of spatial axes: 3 for volumes; 2 for pictures, single slices and volumes of
            which slices are taken.
        frames: Use of a fourth axis of images, see `reader.select_frames`.
    """

    def __init__(self, folder: str = "", spatial_dims: int = 3, frames: Frames = None) -> None:
        self.folder = Path(folder) if folder else None
        self.spatial_dims, self.frames = spatial_dims, frames
        self.seen: dict[tuple[str, str], VolumeFacts] = {}

    def facts(self, path: str, kind: str) -> VolumeFacts:
        """The facts of one file: `kind` is header, image or label."""
        key = (path, kind)
        if key not in self.seen:
            self.seen[key] = self._facts(path, kind)
        return self.seen[key]

    def _facts(self, path: str, kind: str) -> VolumeFacts:
        fault = odd_name(path)
        if fault:
            return VolumeFacts(UNREADABLE, fault)
        try:
            stamp = file_stamp(path)
        except FileNotFoundError:
            hint = pointer(path)
            return VolumeFacts(UNREADABLE, hint) if hint else VolumeFacts(MISSING, path)
        except OSError as error:
            return VolumeFacts(UNREADABLE, f"{error.strerror}: {path}")
        if self.folder is None or (kind == "header" and not is_dicom_path(path)):
            return examine(path, kind, self.spatial_dims, self.frames)  # a header is as fast as a verdict
        kind = "image" if kind == "header" else kind
        key = [FORMAT, kind, stamp, self.spatial_dims, self.frames]
        name = hashlib.sha256(json.dumps(key).encode()).hexdigest()
        verdict = self.folder / name[:2] / f"{name}.json"
        try:
            return VolumeFacts(**json.loads(verdict.read_text()))
        except (OSError, ValueError, TypeError):
            facts = examine(path, kind, self.spatial_dims, self.frames)
        if not facts.passing:
            write_atomically(verdict, json.dumps(asdict(facts)))
        return facts


def odd_name(path: str) -> str:
    r"""Why a path cannot be that of a case: not UTF-8, a NUL in it, or a link that leads to itself; ''.

    Examples:
        >>> odd_name("caf\udce9.nii"), odd_name("scan.nii")
        ('its name is not UTF-8; expected another name', '')
    """
    if "\0" in path:
        return "a NUL in its name; expected another name"
    try:
        path.encode()
    except UnicodeEncodeError:
        return "its name is not UTF-8; expected another name"
    try:
        os.stat(path)  # noqa: PTH116  of a link, what it leads to
    except OSError as error:
        return "a link that leads to itself" if error.errno == errno.ELOOP else ""
    return ""


def write_atomically(target: Path, text: str) -> None:
    """Write a small file completely or not at all; a full or read-only disk is not an error."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        write_whole(target, text)
    except OSError:
        return

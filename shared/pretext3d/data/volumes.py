"""Facts about one volume file, found without training on it: geometry from its header, faults from voxels.

NIfTI files are read by nibabel, header first; other formats are read completely, by the readers that MONAI's
`LoadImage` chooses, so that a verdict is about the data that a pipeline will see. Verdicts are kept on disk,
one small JSON per file, under a name made of the file's path, size and time of change, and written
atomically: concurrent runs may share them.

In 2D a file is a picture (see `images`), a single slice, or a volume of which slices are taken. Their facts
always have three axes, so that one comparison of shapes and geometry serves all: a picture has the shape
[columns, rows, 1] and the axes LPS.
"""

import hashlib
import importlib.util
import json
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from monai.data.utils import correct_nifti_header_if_necessary, to_affine_nd
from monai.transforms import LoadImage

from pretext3d.data.dataset import file_stamp
from pretext3d.data.images import JPEG, PICTURES, is_picture, picture_header, read_label_picture, read_picture
from pretext3d.files import write_whole

__all__ = ["EXTENSIONS", "VerdictCache", "VolumeFacts", "examine", "strip_extension"]

EXTENSIONS = (".nii.gz", ".nii", ".nrrd", ".mha", ".mhd")  # single-file volumes; DICOM series are folders

MISSING = "missing file"
UNREADABLE = "unreadable"
DIMENSIONS = "wrong number of dimensions"
SINGLE_SLICE = "single slice"
SINGLE_ROW = "single row"
GEOMETRY = "bad geometry"
NAN = "NaN"
INF = "inf"
EMPTY = "empty"

FORMAT = 2  # version of the verdicts on disk: a change here recomputes every verdict


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


def is_nifti(path: str) -> bool:
    """True for a NIfTI file, by its name."""
    return path.lower().endswith((".nii", ".nii.gz"))


def missing_package(path: str) -> str:
    """The names of packages one of which the file needs; '' where one is installed."""
    if is_nifti(path):
        return ""
    if is_picture(path):
        return "" if importlib.util.find_spec("PIL") else "pillow"
    lower = path.lower()
    needs = {"nrrd": "pynrrd", "itk": "itk"} if lower.endswith(".nrrd") else {"itk": "itk"}
    if not lower.endswith(EXTENSIONS):
        needs = {"pydicom": "pydicom", "itk": "itk"}
    return "" if any(importlib.util.find_spec(name) for name in needs) else " or ".join(needs.values())


def geometry_facts(
    array_shape: Sequence[int], affine: np.ndarray, channels: int, spatial_dims: int = 3
) -> VolumeFacts:
    """The facts of a spatial shape (i j k; in 2D also i j) and an affine (4x4, mm)."""
    shape = [int(n) for n in array_shape]
    if spatial_dims == 2:
        shape += [1] * (3 - len(shape))
    if len(shape) < 3 or shape.count(1) > 3 - spatial_dims:
        problem = SINGLE_SLICE if spatial_dims == 3 else SINGLE_ROW
        return VolumeFacts(problem, f"shape {'x'.join(map(str, shape))}", shape, channels=channels)
    if 0 in shape:
        return VolumeFacts(UNREADABLE, f"no voxels, shape {'x'.join(map(str, shape))}", shape)
    spacing = np.linalg.norm(affine[:3, :3], axis=0).tolist()
    regular = np.isfinite(affine).all() and abs(np.linalg.det(affine[:3, :3])) > 1e-9
    if not regular:
        return VolumeFacts(
            GEOMETRY, f"spacing {spacing} mm, or axes that are not a basis", shape, channels=channels
        )
    axes = "".join(str(code) for code in nib.aff2axcodes(affine))
    return VolumeFacts("", "", shape, spacing, axes, channels)


def open_nifti(path: str, spatial_dims: int = 3) -> tuple[Any, VolumeFacts]:
    """A NIfTI image with its voxels unread, and its header's facts."""
    image = correct_nifti_header_if_necessary(nib.load(path))
    dtype = image.get_data_dtype()
    if dtype.fields or dtype.kind == "c":
        return image, VolumeFacts(UNREADABLE, f"voxels of type {dtype}, expected one real number per voxel")
    shape = image.shape
    if len(shape) > 4 or len(shape) < 1:
        return image, VolumeFacts(DIMENSIONS, f"{len(shape)}D, expected 3D, or 4D with channels last")
    channels = int(shape[3]) if len(shape) == 4 else 1
    return image, geometry_facts(shape[:3], image.affine, channels, spatial_dims)


@lru_cache(maxsize=1)
def loader() -> LoadImage:
    """MONAI's loader with the reader chosen by the file, channels first."""
    return LoadImage(image_only=True, ensure_channel_first=True)


def open_picture(path: str, kind: str) -> tuple[np.ndarray, VolumeFacts]:
    """A picture (i j 1 c), not decoded if `kind` is header, and its facts."""
    header = picture_header(path)
    facts = VolumeFacts("", "", [header.width, header.height, 1], [1.0] * 3, "LPS", header.channels)
    if header.pages > 1:
        return np.empty(0), VolumeFacts(DIMENSIONS, f"{header.pages} pages, expected one picture per file")
    if min(facts.shape[:2]) < 2:
        return np.empty(0), VolumeFacts(SINGLE_ROW, f"shape {header.width}x{header.height}", facts.shape)
    if kind == "label" and path.lower().endswith(JPEG):
        fault = "a JPEG, which changes them; expected PNG, TIFF or NIfTI"
        return np.empty(0), VolumeFacts(**{**asdict(facts), "channels": 1, "states": [["values", fault]]})
    if kind == "header":
        return np.empty(0), facts
    array = read_label_picture(path) if kind == "label" else read_picture(path)
    return array[:, :, None], VolumeFacts(**{**asdict(facts), "channels": array.shape[-1]})


def open_other(path: str, spatial_dims: int = 3) -> tuple[np.ndarray, VolumeFacts]:
    """The voxels (i j k, or i j k c) of any other volume, and its geometry's facts."""
    image = loader()(path)
    affine = np.asarray(image.affine, dtype=float)
    array = np.moveaxis(image.numpy(), 0, -1)
    if spatial_dims == 2 and array.ndim == 3:
        array, affine = array[:, :, None], to_affine_nd(3, affine)
    if array.ndim > 4:
        return array, VolumeFacts(DIMENSIONS, f"{array.ndim - 1}D, expected 3D, or 4D with channels")
    if affine.shape != (4, 4) and array.ndim == 4:
        return array, VolumeFacts(GEOMETRY, f"affine of shape {affine.shape}")
    return array, geometry_facts(array.shape[:-1], affine, int(array.shape[-1]), spatial_dims)


def raw_voxels(image: Any) -> tuple[np.ndarray, float, float]:
    """Voxels of a NIfTI image as stored, slope and intercept: value = stored * slope + intercept."""
    proxy = image.dataobj
    return np.asanyarray(proxy.get_unscaled()), float(proxy.slope), float(proxy.inter)


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
    if (slope, intercept) != (1.0, 0.0) or array.dtype.kind == "f":
        array = array * slope + intercept
        if not np.isfinite(array).all():
            return [], "NaN or inf"
        rounded = np.rint(array)
        if np.abs(rounded - array).max() > 1e-4:
            return [], f"{float(array[rounded != array].flat[0]):g}, expected whole numbers"
        array = rounded
    low, high = int(array.min()), int(array.max())
    if low < 0 or high > 65535:
        return [], f"values {low} to {high}, expected 0 to 65535"
    found: list[int] = np.flatnonzero(np.bincount(array.ravel().astype(np.int64))).tolist()
    return found, ""


def examine(path: str, kind: str, spatial_dims: int = 3) -> VolumeFacts:
    """The facts of one file: `kind` is header (voxels are not read if the format allows), image or label."""
    if is_picture(path) and spatial_dims == 3:
        return VolumeFacts(SINGLE_SLICE, "a picture, which spatial_dims: 2 reads")
    needs = missing_package(path)
    if needs:
        return VolumeFacts(UNREADABLE, f"needs the package {needs}, which is not installed")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            slope, intercept = 1.0, 0.0
            if is_nifti(path):
                opened, facts = open_nifti(path, spatial_dims)
                if facts.problem or kind == "header":
                    return facts
                array, slope, intercept = raw_voxels(opened)
            else:
                other = is_picture(path)
                array, facts = open_picture(path, kind) if other else open_other(path, spatial_dims)
                if facts.problem or not array.size:
                    return facts
            if kind == "label":
                values, fault = label_values(array, slope, intercept)
                read: dict[str, Any] = {"values": values, "states": [["values", fault]]}
            else:
                read = {"states": channel_states(array, slope, intercept)}
            if spatial_dims == 2 and 1 not in facts.shape:
                read["flat"] = flat_slices(array, facts.axes)
            return VolumeFacts(**{**asdict(facts), **read})
    except Exception as error:  # a broken file may raise anything: here it becomes a verdict
        text = " ".join(str(error).split())
        return VolumeFacts(UNREADABLE, f"{type(error).__name__}: {text[:160]}")


class VerdictCache:
    """Facts of files, kept in memory by path and on disk by path, size and time of change.

    Args:
        folder: Folder for the verdicts on disk; '' = in memory only.
        spatial_dims: Number of spatial axes: 3 for volumes; 2 for pictures, single slices and volumes of
            which slices are taken.
    """

    def __init__(self, folder: str = "", spatial_dims: int = 3) -> None:
        self.folder = Path(folder) if folder else None
        self.spatial_dims = spatial_dims
        self.seen: dict[tuple[str, str], VolumeFacts] = {}

    def facts(self, path: str, kind: str) -> VolumeFacts:
        """The facts of one file: `kind` is header, image or label."""
        key = (path, kind)
        if key not in self.seen:
            self.seen[key] = self._facts(path, kind)
        return self.seen[key]

    def _facts(self, path: str, kind: str) -> VolumeFacts:
        try:
            stamp = file_stamp(path)
        except FileNotFoundError:
            return VolumeFacts(MISSING, path)
        except OSError as error:
            return VolumeFacts(UNREADABLE, f"{error.strerror}: {path}")
        needs_voxels = kind != "header" or not (is_nifti(path) or is_picture(path))
        if self.folder is None or not needs_voxels:  # reading such a header is faster than reading a verdict
            return examine(path, kind, self.spatial_dims)
        kind = "image" if kind == "header" else kind
        key = [FORMAT, kind, stamp] if self.spatial_dims == 3 else [FORMAT, kind, stamp, self.spatial_dims]
        name = hashlib.sha256(json.dumps(key).encode()).hexdigest()
        verdict = self.folder / name[:2] / f"{name}.json"
        try:
            return VolumeFacts(**json.loads(verdict.read_text()))
        except (OSError, ValueError, TypeError):
            facts = examine(path, kind, self.spatial_dims)
        if "needs the package" not in facts.detail:
            write_atomically(verdict, json.dumps(asdict(facts)))
        return facts


def write_atomically(target: Path, text: str) -> None:
    """Write a small file completely or not at all; a full or read-only disk is not an error."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        write_whole(target, text)
    except OSError:
        return

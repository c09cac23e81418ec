"""The one reader of image files, of every format and for every pipeline.

The checks of files and the loading of cases both read here, so that what is checked is what is used. A volume
is its voxels, its affine in mm, and its channels; nothing else of a file's metadata is kept. Geometry that a
file does not state is an error, never a default.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from monai.data import MetaTensor
from nibabel.volumeutils import apply_read_scaling
from numpy.typing import NDArray

from pretext3d.checking import is_integer
from pretext3d.data import metaimage, nrrd
from pretext3d.data.dicom import NEEDED, is_dicom, open_stack
from pretext3d.data.dicom_pixels import read_voxels
from pretext3d.data.faults import DIMENSIONS, MISSING, SINGLE_ROW, TIME, UNREADABLE, BadFileError
from pretext3d.data.images import PICTURES, is_picture, picture_header, read_label_picture, read_picture
from pretext3d.data.nifti import nifti_pair, open_nifti
from pretext3d.data.scan import Header, Scan
from pretext3d.data.streams import pointer
from pretext3d.errors import UserError
from pretext3d.extras import lacking

__all__ = [
    "EXTENSIONS", "PICTURE_AFFINE", "Frames", "Volume", "check_frames", "files_of_volume", "is_dicom_path",
    "lacking_package", "load_volume", "open_scan", "read_volume", "select_frames",
]  # fmt: skip

# extensions of files that hold a volume; a DICOM stack may be a folder
EXTENSIONS = (".nii.gz", ".nii", ".nrrd", ".nhdr", ".mha", ".mhd")
PAIRS = (".hdr", ".img", ".hdr.gz", ".img.gz")  # NIfTI in two files, where a datalist names one
PICTURE_AFFINE = np.diag([-1.0, -1.0, 1.0, 1.0])  # columns to the patient's left, rows to the back, 1 mm

Frames = str | list[int] | None


class Volume(NamedTuple):
    """A volume in memory.

    Attributes:
        array: Voxels (i, j, k, c), float32; a channel is contiguous in memory.
        affine: Affine (4, 4), voxel indices to world mm, axes right, anterior, superior.
        header: Content of the file's header.
    """

    array: NDArray[np.float32]
    affine: NDArray[np.float64]
    header: Header


def check_frames(frames: Any) -> Frames:
    """The use of a fourth axis: first, mean, channels, a list of indices, or None.

    Raises:
        UserError: For anything else.

    Examples:
        >>> check_frames("mean"), check_frames(3), check_frames(None)
        ('mean', [3], None)
    """
    if frames is None or (isinstance(frames, str) and frames in ("first", "mean", "channels")):
        return frames
    listed = [frames] if is_integer(frames) else frames
    if isinstance(listed, Sequence) and not isinstance(listed, str) and listed:
        found = list(listed)
        if all(is_integer(n) and n >= 0 for n in found) and len(set(found)) == len(found):
            return found
    raise UserError(
        f"frames: found {frames!r}, expected first, mean, channels, distinct indices from 0, or null"
    )


def select_frames(scan: Scan, frames: Frames) -> Scan:
    """A scan whose fourth axis holds channels, as `frames` says; one without a fourth axis is unchanged.

    Args:
        scan: Opened file.
        frames: Use of a fourth axis: first (one channel, the first time point), mean (one channel, the mean
            over time), a list of indices (these time points as channels), channels (all of them). None: what
            the file says; an axis of time is then an error.

    Raises:
        BadFileError: For an axis of time without `frames`, or an index beyond it.
    """
    header, count = scan.header, scan.header.channels
    if header.time and frames is None:
        raise BadFileError(
            TIME,
            f"{header.time}, not channels; frames: first, mean, a list of indices, or channels uses them",
        )
    if count == 1 or frames is None or frames == "channels":
        return scan
    if frames == "mean":
        slope, intercept = scan.slope, scan.intercept

        def averaged() -> NDArray[Any]:
            stored = scan.voxels()
            total = np.zeros(stored.shape[:3])
            for c in range(count):
                total += _scaled(stored[..., c], slope, intercept)
            return (total / count)[..., None]

        return Scan(_with_channels(header, 1), averaged)
    chosen = [0] if isinstance(frames, str) else frames
    if max(chosen) >= count:
        raise BadFileError(TIME, f"{header.time or f'{count} frames'}, but frames names index {max(chosen)}")

    def some() -> NDArray[Any]:
        return scan.voxels()[..., chosen]

    return Scan(_with_channels(header, len(chosen)), some, scan.slope, scan.intercept)


def _with_channels(header: Header, channels: int) -> Header:
    return Header(
        header.shape, channels, header.affine, header.stored_dims, header.time, header.note, header.names
    )


def open_scan(path: str, is_label: bool = False, spatial_dims: int = 3) -> Scan:
    """An image file or folder of DICOM slices, its voxels unread where the format allows.

    Args:
        path: Path of a NIfTI, NRRD or MetaImage file, a picture, a DICOM file, or a folder of DICOM slices.
        is_label: Read a picture as class numbers.
        spatial_dims: Number of spatial axes; in 2D a DICOM file without a position, an X-ray, is an image.

    Raises:
        BadFileError: If its content cannot be used.
        OSError: If it cannot be opened, which says nothing about its content.
    """
    with _plain_faults():
        hint = pointer(path)
        if hint:
            raise BadFileError(UNREADABLE, hint)
        found = Path(path)
        if not found.exists():
            raise BadFileError(MISSING, path)
        lower = path.lower()
        if found.is_dir() and lower.endswith((*EXTENSIONS, *PAIRS)):
            raise BadFileError(UNREADABLE, "a folder, expected a file")
        if lower.endswith((".nii", ".nii.gz", *PAIRS)):
            scan = open_nifti(path)
        elif lower.endswith((".nrrd", ".nhdr")):
            scan = nrrd.open_nrrd(path)
        elif lower.endswith((".mha", ".mhd")):
            scan = metaimage.open_metaimage(path)
        elif is_picture(path):
            scan = _open_picture(path, is_label)
        else:
            scan = open_dicom(path, spatial_dims)
    return scan._replace(voxels=partial(_read_plainly, scan))


def _read_plainly(scan: Scan) -> NDArray[Any]:
    with _plain_faults():
        return scan.voxels()


@contextmanager
def _plain_faults() -> Iterator[None]:
    """Report whatever a damaged file makes a library raise as one clause of ours.

    Errors of the machine (no memory, a lost network drive) say nothing about the file and stay what they are.
    """
    try:
        yield
    except (BadFileError, MemoryError):
        raise
    except OSError as error:
        if error.errno is not None:
            raise
        raise BadFileError(UNREADABLE, _clause(error)) from None
    except Exception as error:
        raise BadFileError(UNREADABLE, _clause(error)) from None


def _clause(error: BaseException) -> str:
    """The first clause of a library's error, without paths of its sources or addresses of its objects."""
    text = " ".join(str(error).split())
    if not text or "0x" in text or ".cxx" in text or "object has no attribute" in text or len(text) > 160:
        return "its content cannot be read"
    return text


def _open_picture(path: str, is_label: bool) -> Scan:
    header = picture_header(path)
    size = f"{header.width}x{header.height}"
    if header.pages > 1:
        raise BadFileError(DIMENSIONS, f"{header.pages} pages, expected one picture per file")
    if min(header.width, header.height) < 2:
        raise BadFileError(SINGLE_ROW, f"shape {size}")
    reading = read_label_picture if is_label else read_picture
    facts = Header((header.width, header.height, 1), header.channels, PICTURE_AFFINE.copy(), 2)
    return Scan(facts, lambda: reading(path)[:, :, None])


def open_dicom(path: str, spatial_dims: int = 3) -> Scan:
    """A DICOM file or a folder of slices.

    Raises:
        BadFileError: If it cannot be read.
    """
    if not Path(path).is_dir() and not is_dicom(Path(path)):
        known = " ".join((*EXTENSIONS, *PICTURES))
        raise BadFileError(UNREADABLE, f"no format that is read; expected {known}, or DICOM")
    stack = open_stack(path, spatial_dims)
    return Scan(Header(stack.shape, stack.channels, stack.affine), lambda: read_voxels(stack.frames))


def _scaled(stored: NDArray[Any], slope: float, intercept: float) -> NDArray[Any]:
    """Value = stored * slope + intercept, in float64 as nibabel computes it."""
    if (slope, intercept) == (1.0, 0.0):
        return stored
    scaled: NDArray[Any] = apply_read_scaling(stored, np.float64(slope), np.float64(intercept))
    return scaled


def read_volume(path: str, frames: Frames = None, is_label: bool = False, spatial_dims: int = 3) -> Volume:
    """The voxels of one file, its affine and its channels.

    Args:
        path: Path of a file or a folder, see `open_scan`.
        frames: Use of a fourth axis of time, see `select_frames`.
        is_label: Read a picture as class numbers.
        spatial_dims: Number of spatial axes, see `open_scan`.

    Raises:
        UserError: If the file cannot be used; names it.
        OSError: If it cannot be opened.
    """
    try:
        scan = select_frames(open_scan(path, is_label, spatial_dims), frames)
        stored = scan.voxels()
    except BadFileError as error:
        raise UserError(f"{path}: {error}") from None
    array = np.empty((stored.shape[3], *stored.shape[:3]), np.float32)
    for c in range(stored.shape[3]):
        array[c] = _scaled(stored[..., c], scan.slope, scan.intercept)
    return Volume(np.moveaxis(array, 0, -1), scan.header.affine, scan.header)


def load_volume(paths: str | Sequence[str], frames: Frames = None) -> MetaTensor:
    """A volume (c, i, j, k), float32, from one file, or from one file per channel.

    Its meta data are `affine` (4, 4), `filename_or_obj` (the first file), `space`, and what MONAI's own
    transforms read: `original_affine`, `spatial_shape`, `original_channel_dim`.

    Raises:
        UserError: If a file cannot be used, or the files' shapes differ.
    """
    files = [str(paths)] if isinstance(paths, str | Path) else [str(path) for path in paths]
    volumes = [read_volume(path, frames) for path in files]
    first = volumes[0]
    for path, volume in zip(files, volumes, strict=True):
        if volume.array.shape[:3] != first.array.shape[:3]:
            found, expected = (list(v.array.shape[:3]) for v in (volume, first))
            raise UserError(f"{path}: found shape {found}, expected {expected}, that of {files[0]}")
    parts = [np.moveaxis(volume.array, -1, 0) for volume in volumes]
    array = parts[0] if len(parts) == 1 else np.concatenate(parts)
    meta = {
        "filename_or_obj": files[0],
        "space": "RAS",
        "original_affine": torch.from_numpy(first.affine.copy()),
        "spatial_shape": np.asarray(array.shape[1:]),
        "original_channel_dim": 0,
    }
    return MetaTensor(torch.from_numpy(array), affine=torch.from_numpy(first.affine), meta=meta)


def files_of_volume(path: str) -> list[str]:
    """All files of one volume: the file itself, those that its header names, or a folder's.

    A header that cannot be read names none.

    Examples:
        >>> files_of_volume("a.nii.gz")
        ['a.nii.gz']
    """
    lower = path.lower()
    try:
        if lower.endswith(PAIRS):
            return list(nifti_pair(path))
        if lower.endswith((".nrrd", ".nhdr")):
            return [path, *nrrd.named_files(path)]
        if lower.endswith((".mha", ".mhd")):
            return [path, *metaimage.named_files(path)]
        if Path(path).is_dir():
            return [str(found) for found in sorted(Path(path).iterdir())]
    except (BadFileError, OSError):
        pass
    return [path]


def is_dicom_path(path: str) -> bool:
    """True for whatever is not known as another format by its name: DICOM files and folders."""
    return not (path.lower().endswith((*EXTENSIONS, *PAIRS)) or is_picture(path))


def lacking_package(path: str) -> str:
    """The clause of a message where a package that the file needs is missing or too old; '' = none is."""
    lower = path.lower()
    if lower.endswith((".nii", ".nii.gz", ".mha", ".mhd", *PAIRS)):
        return ""
    if is_picture(path):
        return lacking("pillow", "PIL")
    if lower.endswith((".nrrd", ".nhdr")):
        return lacking("pynrrd", "nrrd")
    return lacking(*NEEDED)

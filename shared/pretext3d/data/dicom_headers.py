"""DICOM headers as plain values: what a file is, and where each of its frames lies.

A file is an image or something else (a dose grid, contours, a report: see `kind_of`). An image has frames: a
file of a classic series one, a multi-frame file (Enhanced CT and MR) one per item of its functional groups.
Headers are read without the voxels; what is kept per frame is small, so that 100,000 files fit in memory.

Source: DICOM PS3.3 C.7.6.2 (image plane), C.7.6.16 (functional groups).
"""

import os
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from pretext3d.data.dicom_elements import (
    NO_GEOMETRY,
    first_item,
    integer,
    needed,
    numbers,
    plain,
    tag_of,
    text,
    values,
)
from pretext3d.data.dicom_files import kind_of, missing_decoder, open_dataset
from pretext3d.data.faults import GEOMETRY, UNREADABLE, BadFileError

__all__ = ["CLOCKS", "MARKS", "Frame", "Header", "Plane", "read_header"]

MOSAIC = "mosaic"

UNIT_ERROR = 0.01  # of the length of a direction, and of the cosine between row and column

# What tells apart slices at one position: name, element of a classic file, element of a functional group. The
# order is that in which they are tried.
MARKS = (
    ("time", "TemporalPositionIdentifier", "FrameContentSequence.TemporalPositionIndex"),
    ("echo", "EchoNumbers", ""),
    ("echo", "EchoTime", "MREchoSequence.EffectiveEchoTime"),
    ("acquisition", "AcquisitionNumber", "FrameContentSequence.FrameAcquisitionNumber"),
    ("phase", "TriggerTime", "CardiacSynchronizationSequence.NominalCardiacTriggerDelayTime"),
    ("b_value", "DiffusionBValue", "MRDiffusionSequence.DiffusionBValue"),
    (
        "direction",
        "DiffusionGradientOrientation",
        "MRDiffusionSequence.DiffusionGradientDirectionSequence.DiffusionGradientOrientation",
    ),
    ("kernel", "ConvolutionKernel", "CTReconstructionSequence.ConvolutionKernel"),
    ("type", "ImageType", "MRImageFrameTypeSequence.FrameType"),
    ("inversion", "InversionTime", "MRModifierSequence.InversionTimes"),
    ("flip_angle", "FlipAngle", "MRTimingAndRelatedParametersSequence.FlipAngle"),
    ("time", "AcquisitionTime", "FrameContentSequence.FrameAcquisitionDateTime"),
)
CLOCKS = ("TriggerTime", "AcquisitionTime")  # of these, the order at one position may tell apart, too

PLACE = {  # functional group: its element and the number of its values
    "PixelMeasuresSequence": ("PixelSpacing", 2),
    "PlaneOrientationSequence": ("ImageOrientationPatient", 6),
    "PlanePositionSequence": ("ImagePositionPatient", 3),
}

# A series is of one patient, study and frame of reference, also where two have the same SeriesInstanceUID.
SERIES = ("SeriesInstanceUID", "PatientID", "StudyInstanceUID", "FrameOfReferenceUID")

TAGS = [
    "SOPClassUID", "SOPInstanceUID", *SERIES, "SeriesNumber", "Modality", "AcquisitionDate",
    "Rows", "Columns", "SamplesPerPixel", "PhotometricInterpretation", "NumberOfFrames", "BitsAllocated",
    "PixelSpacing", "ImagerPixelSpacing", "SliceThickness", "ImageOrientationPatient", "ImagePositionPatient",
    "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence",
    *(classic for _, classic, _ in MARKS),
]  # fmt: skip


class Plane(NamedTuple):
    """What the slices of one stack share; one object serves all of them.

    Attributes:
        rows: Number of rows, along j.
        columns: Number of columns, along i.
        channels: Values per pixel: 1, or 3 for colour.
        photometric: Photometric interpretation.
        spacing: Distance in mm of neighbouring rows, and of neighbouring columns.
        orientation: Directions of i (from column to column) and of j in the patient's axes (left, posterior,
            superior), six cosines.
        thickness: Thickness of a slice in mm, 1 where it is not stated.
        scout: Whether the file calls itself a localizer.
    """

    rows: int
    columns: int
    channels: int
    photometric: str
    spacing: tuple[float, ...]
    orientation: tuple[float, ...]
    thickness: float
    scout: bool


class Frame(NamedTuple):
    """One slice.

    Attributes:
        file: Path of its file.
        number: Number of the frame in its file, from 0.
        plane: Size, spacing and orientation.
        position: Centre of its first voxel in mm, in the patient's axes (left, posterior, superior).
        marks: Values of `MARKS`, then the indices of the dimensions of a multi-frame file.
    """

    file: str
    number: int
    plane: Plane
    position: tuple[float, ...]
    marks: tuple[Any, ...]


class Header(NamedTuple):
    """One file.

    Attributes:
        file: Path.
        series: SeriesInstanceUID (the folder where it is not stated), PatientID, StudyInstanceUID and
            FrameOfReferenceUID, a line each; '' for an unreadable file.
        number: SeriesNumber; ''.
        instance: SOPInstanceUID; ''.
        kind: What it is if no image: RTDOSE, SEG ...; ''.
        problem: Fixed name of a fault; ''.
        detail: What was found.
        passing: The fault is one of the machine, such as a missing decoder.
        frames: Frames of an image without a fault.
        projection: The frame of an image without a position in the patient (an X-ray), placed like a picture.
    """

    file: str
    series: str = ""
    number: str = ""
    instance: str = ""
    kind: str = ""
    problem: str = ""
    detail: str = ""
    passing: bool = False
    frames: tuple[Frame, ...] = ()
    projection: Frame | None = None


def read_header(file: str, pool: dict[Any, Any]) -> Header:
    """What a file is, and where its frames lie; a fault becomes part of the answer.

    Args:
        file: Path.
        pool: Values that were read before; equal ones are kept once.

    Raises:
        OSError: If the file cannot be read, which says nothing about its content.
        MemoryError: If memory is short.
    """
    header = Header(file)
    try:
        with Path(file).open("rb") as opened:
            data = open_dataset(opened, stop_before_pixels=True, specific_tags=[tag_of(tag) for tag in TAGS])
            left = os.fstat(opened.fileno()).st_size - opened.tell()
        uid, *others, number, instance = (
            str(plain(data, key) or "") for key in (*SERIES, "SeriesNumber", "SOPInstanceUID")
        )
        series = "\n".join([uid or str(Path(file).parent), *others])
        header = Header(file, pool.setdefault(series, series), pool.setdefault(number, number), instance)
        kind = kind_of(data)
        if kind:
            return header._replace(kind=kind)
        check_pixels(data, left - (8 if data.original_encoding[0] else 12))  # the head of the voxels' element
        if not (values(data, "ImagePositionPatient") or values(data, "SharedFunctionalGroupsSequence")):
            return without_position(header, data)
        frames = (
            frame._replace(marks=pool.setdefault(frame.marks, frame.marks)) for frame in frames_of(file, data)
        )
        return header._replace(frames=tuple(frames))
    except BadFileError as error:
        return header._replace(problem=error.problem, detail=error.detail, passing=error.passing)
    except MemoryError:
        raise
    except OSError as error:
        if error.errno is not None:
            raise
        return header._replace(problem=UNREADABLE, detail="its header is damaged")
    except Exception:  # a broken file may raise anything
        return header._replace(problem=UNREADABLE, detail="its header is damaged")


def check_pixels(data: Any, left: int) -> None:
    """Make sure that the voxels can be there and be decoded.

    Args:
        data: Header.
        left: Number of the file's bytes that can be voxels.

    Raises:
        BadFileError: If the file is too short for them, or a decoder is missing.
    """
    syntax = data.file_meta.TransferSyntaxUID
    fault = missing_decoder(syntax)
    if fault:
        raise BadFileError(UNREADABLE, fault, passing=True)
    if "MOSAIC" in values(data, "ImageType"):
        detail = "the slices of a volume as tiles of one picture (Siemens); dcm2niix converts such series"
        raise BadFileError(MOSAIC, detail)
    if not syntax.is_compressed and not syntax.is_deflated:
        halved = values(data, "PhotometricInterpretation") == ("YBR_FULL_422",)
        samples = 2 if halved else integer(data, "SamplesPerPixel", 1)
        count = (
            integer(data, "Rows") * integer(data, "Columns") * samples * integer(data, "NumberOfFrames", 1)
        )
        expected = count * integer(data, "BitsAllocated") // 8
        if left < expected:
            detail = f"cut short: {max(left, 0)} bytes of voxels, expected {expected} by the header"
            raise BadFileError(UNREADABLE, detail)


def without_position(header: Header, data: Any) -> Header:
    """The header of an image that does not state where it lies: a single one may be a picture in 2D."""
    count = integer(data, "NumberOfFrames", 1)
    if count > 1:
        detail = f"a multi-frame file of {count} frames that does not state where they lie"
        return header._replace(problem=NO_GEOMETRY, detail=detail)
    detail = "no position in the patient (an X-ray or a screen capture); spatial_dims: 2 reads it"
    spacing = numbers(data, "PixelSpacing", 2) or numbers(data, "ImagerPixelSpacing", 2) or (1.0, 1.0)
    plane = plane_of(data, spacing, (1.0, 0.0, 0.0, 0.0, 1.0, 0.0), data)
    frame = Frame(header.file, 0, plane, (0.0, 0.0, 0.0), ())
    return header._replace(problem=NO_GEOMETRY, detail=detail, projection=frame)


def frames_of(file: str, data: Any) -> Iterator[Frame]:
    """The frames of an image that states where they lie.

    Raises:
        BadFileError: If an element is missing or invalid.
    """
    count = integer(data, "NumberOfFrames", 1)
    shared = first_item("SharedFunctionalGroupsSequence", data)
    groups = values(data, "PerFrameFunctionalGroupsSequence")
    if shared is None and not groups:
        if count > 1:
            detail = f"a multi-frame file of {count} frames that states the position of the first alone"
            raise BadFileError(NO_GEOMETRY, detail)
        spacing, orientation, position = (needed(data, key, n) for key, n in PLACE.values())
        marks = tuple(mark_of(data, classic) for _, classic, _ in MARKS)
        yield Frame(file, 0, plane_of(data, spacing, orientation, data), position, marks)
        return
    if len(groups or [None]) != count:
        raise BadFileError(NO_GEOMETRY, f"{count} frames, but the positions of {len(groups)}")
    for number, group in enumerate(groups or [None]):
        spacing, orientation, position = (
            needed(first_item(name, group, shared), key, n) for name, (key, n) in PLACE.items()
        )
        own = [group_mark(path, group, shared) for _, _, path in MARKS]
        marks = tuple(
            mark_of(data, classic) if mark is None else mark
            for mark, (_, classic, _) in zip(own, MARKS, strict=True)
        )
        indices = values(first_item("FrameContentSequence", group, shared), "DimensionIndexValues")
        measures = first_item("PixelMeasuresSequence", group, shared)
        plane = plane_of(data, spacing, orientation, measures)
        yield Frame(file, number, plane, position, (*marks, *indices))


def plane_of(data: Any, spacing: tuple[float, ...], orientation: tuple[float, ...], measures: Any) -> Plane:
    """Size, spacing and orientation of a frame.

    Args:
        data: Header.
        spacing: Distance in mm of neighbouring rows, and of neighbouring columns.
        orientation: Six direction cosines.
        measures: Data set that states the thickness of the slice.

    Raises:
        BadFileError: For a spacing that is not positive, or directions that are not perpendicular units.
    """
    photometric = str(plain(data, "PhotometricInterpretation") or "MONOCHROME2")
    channels = 3 if photometric == "PALETTE COLOR" else integer(data, "SamplesPerPixel", 1)
    thickness = numbers(measures, "SliceThickness", 1) or (1.0,)
    scout = "LOCALIZER" in values(data, "ImageType")
    size = integer(data, "Rows"), integer(data, "Columns")
    return checked(
        Plane(*size, channels, photometric, spacing, orientation, max(thickness[0], 0.0) or 1.0, scout)
    )


@lru_cache(maxsize=2**12)
def checked(plane: Plane) -> Plane:
    """The plane, the same object for equal ones.

    Raises:
        BadFileError: See `plane_of`.
    """
    rows, columns = np.reshape(plane.orientation, (2, 3))
    lengths = np.linalg.norm([rows, columns], axis=1)
    if min(plane.spacing) <= 0:
        raise BadFileError(GEOMETRY, f"PixelSpacing is {text(plane.spacing)} mm")
    if np.abs(lengths - 1).max() > UNIT_ERROR or abs(rows @ columns) > UNIT_ERROR:
        detail = f"ImageOrientationPatient is {text(plane.orientation)}, not two perpendicular unit vectors"
        raise BadFileError(GEOMETRY, detail)
    return plane


def mark_of(data: Any, keyword: str) -> Any:
    """The value of one of `MARKS`; a time of day follows its date."""
    found = plain(data, keyword)
    if keyword == "AcquisitionTime" and found is not None:
        return f"{plain(data, 'AcquisitionDate') or ''}{found}"
    return found


def group_mark(path: str, group: Any, shared: Any) -> Any:
    """The value of a functional group's element, written as sequence.element; None."""
    if not path:
        return None
    *sequences, keyword = path.split(".")
    item = first_item(sequences[0], group, shared)
    for name in sequences[1:]:
        item = first_item(name, item)
    return plain(item, keyword)

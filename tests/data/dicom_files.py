"""Small DICOM files with one number per voxel, and the place where each voxel truly is."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, CTImageStorage, EnhancedMRImageStorage, ExplicitVRLittleEndian, generate_uid

AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
CORONAL = (1.0, 0.0, 0.0, 0.0, 0.0, -1.0)


@dataclass(frozen=True)
class Slice:
    """One slice: its place, and the numbers of its voxels, `first` and the following, row by row."""

    position: tuple[float, ...]
    first: int = 0
    orientation: tuple[float, ...] = AXIAL
    spacing: tuple[float, float] = (2.0, 3.0)
    shape: tuple[int, int] = (4, 5)
    elements: dict[str, Any] = field(default_factory=dict)

    def stored(self) -> np.ndarray:
        return (self.first + np.arange(self.shape[0] * self.shape[1], dtype=np.int16)).reshape(self.shape)

    def places(self) -> np.ndarray:
        """The true place (rows * columns, 3) of each voxel, world mm in RAS."""
        row, column = np.reshape(self.orientation, (2, 3))
        j, i = np.indices(self.shape).reshape(2, -1, 1)
        lps = np.asarray(self.position) + row * self.spacing[1] * i + column * self.spacing[0] * j
        return lps * (-1, -1, 1)


def stack(
    count: int,
    step: Sequence[float] = (0.0, 0.0, 4.0),
    start: Sequence[float] = (10.0, -20.0, 30.0),
    first: int = 0,
    **settings: Any,
) -> list[Slice]:
    """Slices that follow each other by `step` (mm), their voxels numbered on."""
    slices = [Slice(tuple(float(x) for x in start), first, **settings)]
    size = slices[0].shape[0] * slices[0].shape[1]
    points = [np.asarray(start, dtype=float) + k * np.asarray(step) for k in range(count)]
    return [
        replace(slices[0], position=tuple(p.tolist()), first=first + k * size) for k, p in enumerate(points)
    ]


def data_of(series: str = "1.2.3", number: int = 7, sop_class: UID = CTImageStorage) -> Dataset:
    """A data set with its identifiers and no pixels."""
    data = Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.SOPClassUID = data.file_meta.MediaStorageSOPClassUID = sop_class
    data.SOPInstanceUID = data.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    data.StudyInstanceUID, data.SeriesInstanceUID, data.SeriesNumber = "1.2", series, number
    return data


def set_pixels(data: Dataset, array: np.ndarray) -> Dataset:
    """The data set with 16-bit signed pixels, rows and columns the last two axes."""
    data.Rows, data.Columns = array.shape[-2:]
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
    data.BitsAllocated = data.BitsStored = 16
    data.HighBit, data.PixelRepresentation = 15, 1
    if array.ndim == 3:
        data.NumberOfFrames = len(array)
    data.PixelData = array.astype("<i2").tobytes()
    return data


def write(path: Path, one: Slice, bare: bool = False, **identifiers: Any) -> Path:
    """Write one slice; `bare`: without preamble and file meta information."""
    data = set_pixels(data_of(**identifiers), one.stored())
    data.PixelSpacing, data.SliceThickness = list(one.spacing), 1.0
    data.ImageOrientationPatient, data.ImagePositionPatient = list(one.orientation), list(one.position)
    for key, value in one.elements.items():
        setattr(data, key, value)
    path.parent.mkdir(parents=True, exist_ok=True)
    if bare:
        del data.file_meta
        data.save_as(path, implicit_vr=True, little_endian=True)
    else:
        data.save_as(path, enforce_file_format=True)
    return path


def write_all(folder: Path, slices: Sequence[Slice], **identifiers: Any) -> list[Path]:
    """Write slices into one folder, a file each."""
    return [write(folder / f"{n:03d}.dcm", one, **identifiers) for n, one in enumerate(slices)]


def item(**elements: Any) -> Dataset:
    """An item of a sequence."""
    data = Dataset()
    for key, value in elements.items():
        setattr(data, key, value)
    return data


def write_enhanced(
    path: Path, slices: Sequence[Slice], marks: Sequence[Dataset] = (), **identifiers: Any
) -> Path:
    """Write slices of one shape and spacing as the frames of one file, with their positions."""
    data = data_of(sop_class=EnhancedMRImageStorage, **identifiers)
    set_pixels(data, np.stack([one.stored() for one in slices]))
    measures = item(PixelSpacing=list(slices[0].spacing), SliceThickness=1.0)
    data.SharedFunctionalGroupsSequence = [item(PixelMeasuresSequence=[measures])]
    groups = []
    for number, one in enumerate(slices):
        group = item(
            PlanePositionSequence=[item(ImagePositionPatient=list(one.position))],
            PlaneOrientationSequence=[item(ImageOrientationPatient=list(one.orientation))],
        )
        if marks:
            group.FrameContentSequence = [marks[number]]
        groups.append(group)
    data.PerFrameFunctionalGroupsSequence = groups
    path.parent.mkdir(parents=True, exist_ok=True)
    data.save_as(path, enforce_file_format=True)
    return path


def write_other(path: Path, sop_class: UID, modality: str, series: str = "1.2.3") -> Path:
    """Write a file that is no image."""
    data = data_of(series=series, sop_class=sop_class)
    data.Modality = modality
    path.parent.mkdir(parents=True, exist_ok=True)
    data.save_as(path, enforce_file_format=True)
    return path


def off(voxels: np.ndarray, affine: np.ndarray, slices: Sequence[Slice]) -> float:
    """Largest distance, in voxels along an axis, between where voxels are loaded and where they truly are.

    Args:
        voxels: Loaded voxels (i, j, k), the numbers of the slices' voxels.
        affine: Affine (4, 4), RAS.
        slices: Slices that are expected, each voxel once.
    """
    numbers = np.concatenate([one.stored().ravel() for one in slices])
    places = np.concatenate([one.places() for one in slices])
    order = np.argsort(numbers)
    loaded = np.argsort(voxels.ravel())
    assert np.array_equal(voxels.ravel()[loaded], numbers[order]), "other voxels than those of the slices"
    found = np.indices(voxels.shape).reshape(3, -1)[:, loaded]
    expected = np.linalg.solve(affine[:3, :3], places[order].T - affine[:3, 3:])
    return float(np.abs(found - expected).max())

"""Small volumes on disk, of every format and with every fault that the tests of the data package need."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

Writer = Callable[..., str]


def voxels(shape: Sequence[int], seed: int = 0) -> np.ndarray:
    return np.random.RandomState(seed).randint(1, 200, size=shape).astype(np.int16)


def blob(shape: Sequence[int], value: int = 1) -> np.ndarray:
    label = np.zeros(shape, dtype=np.uint8)
    label[1:3, 1:3, 1:3] = value
    return label


@pytest.fixture
def volume(tmp_path: Path) -> Writer:
    """Write a NIfTI file below tmp_path and return its path: `volume("a/b.nii.gz", array, spacing, axes)`."""

    def write(
        name: str,
        array: Any = None,
        spacing: Sequence[float] = (1.0, 2.0, 3.0),
        axes: str = "RAS",
        shape: Sequence[int] = (5, 6, 7),
    ) -> str:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        array = voxels(shape) if array is None else array
        affine = np.zeros((4, 4))
        for i, code in enumerate(axes):
            world = next(w for w, pair in enumerate(("LR", "PA", "IS")) if code in pair)
            affine[world, i] = spacing[i] * (1 if code in "RAS" else -1)
        affine[:, 3] = (11, -7, 5, 1)
        nib.save(nib.Nifti1Image(array, affine), path)
        return str(path)

    return write


@pytest.fixture
def label(volume: Writer) -> Writer:
    """Write a label of one cube: `label("labelsTr/a.nii.gz", value=2)`."""

    def write(name: str, value: int = 1, shape: Sequence[int] = (5, 6, 7), **kwargs: Any) -> str:
        return volume(name, blob(shape, value), **kwargs)

    return write


@pytest.fixture
def msd(tmp_path: Path, volume: Writer, label: Writer) -> Writer:
    """A folder of ten cases whose labels hold 0 and 2; `labels` is dataset.json's."""

    def make(labels: dict[str, Any] | None = None) -> str:
        names = [f"case{i}" for i in range(10)]
        for name in names:
            volume(f"msd/imagesTr/{name}.nii.gz"), label(f"msd/labelsTr/{name}.nii.gz", 2)
        training = [{"image": f"imagesTr/{n}.nii.gz", "label": f"labelsTr/{n}.nii.gz"} for n in names]
        content = {"training": training, **({"labels": labels} if labels else {})}
        (tmp_path / "msd/dataset.json").write_text(json.dumps(content))
        return str(tmp_path / "msd")

    return make


@pytest.fixture
def dicom(tmp_path: Path) -> Callable[..., Path]:
    """Write a series of CT slices, rows 2, columns 3 and slices 4 mm apart: `dicom("patient/series")`."""
    pydicom = pytest.importorskip("pydicom")
    from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

    def write(
        folder: str, uid: str = "", slices: int = 4, suffix: str = ".dcm", start: int = 0, number: int = 1
    ) -> Path:
        target = tmp_path / folder
        target.mkdir(parents=True, exist_ok=True)
        uid = uid or generate_uid(entropy_srcs=[folder, str(start)])
        for i in range(slices):
            data = pydicom.Dataset()
            data.file_meta = pydicom.dataset.FileMetaDataset()
            data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
            data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID = CTImageStorage
            data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID = generate_uid()
            data.SeriesInstanceUID, data.StudyInstanceUID, data.SeriesNumber = uid, "1.2.3", number
            data.PatientID, data.Modality, data.InstanceNumber = "p", "CT", i + 1
            data.Rows, data.Columns = 5, 6  # row spacing 2, column spacing 3: j and i
            data.PixelSpacing, data.SliceThickness = [2.0, 3.0], 4.0
            data.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
            data.ImagePositionPatient = [0, 0, 4.0 * i]
            data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
            data.BitsAllocated = data.BitsStored = 16
            data.HighBit, data.PixelRepresentation = 15, 1
            data.RescaleSlope, data.RescaleIntercept = 1, 0
            data.PixelData = voxels((5, 6), seed=i).tobytes()
            data.save_as(target / f"{start + i:03d}{suffix}", enforce_file_format=True)
        return target

    return write


@pytest.fixture
def cases(tmp_path: Path) -> list[dict]:
    """Three volumes of random numbers on disk."""
    made = []
    for n in range(3):
        volume = np.random.default_rng(n).random((5, 6, 7), dtype=np.float32) + n
        path = tmp_path / f"case{n}.nii.gz"
        nib.save(nib.Nifti1Image(volume, np.diag([1.0, 2.0, 3.0, 1.0])), path)
        made.append({"id": f"case{n}", "image": str(path)})
    return made

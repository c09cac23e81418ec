"""A small labelled data set that a network learns in seconds: the classes are how bright the voxels are."""

import json
from collections.abc import Sequence
from pathlib import Path

import nibabel as nib
import numpy as np

CLASSES = ["background", "grey", "white"]
# axes neither in order nor along the patient's: voxels of 2 x 3 x 2 mm
AFFINE = np.array([[0, -3.0, 0, 40], [2.0, 0, 0, -9], [0, 0, -2.0, 7], [0, 0, 0, 1]])


def volume(seed: int, shape: tuple[int, int, int] = (26, 18, 22)) -> tuple[np.ndarray, np.ndarray]:
    """An image, noise around 0, 1 and 2, and its label with two boxes, each in another half along i."""
    random = np.random.default_rng(seed)
    label = np.zeros(shape, np.uint8)
    i, j, k = (random.integers(1, 5, 2) for _ in range(3))
    half = shape[0] // 2
    label[i[0] : half - 1, j[0] : j[0] + 9, k[0] : k[0] + 11] = 1
    label[half + i[1] - 1 : -2, j[1] : j[1] + 10, k[1] : k[1] + 12] = 2
    return (label + random.normal(0, 0.15, shape)).astype(np.float32), label


def save(array: np.ndarray, file: Path, affine: np.ndarray = AFFINE) -> Path:
    """Write a NIfTI file."""
    file.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(array, affine), file)
    return file


def write_labelled(folder: Path, cases: int = 4, classes: Sequence[str] = CLASSES) -> Path:
    """The data set in the layout of the Decathlon; it may declare more classes than it has."""
    training = []
    for case in range(cases):
        entry = {"image": f"imagesTr/case_{case}.nii.gz", "label": f"labelsTr/case_{case}.nii.gz"}
        for array, name in zip(volume(case), entry.values(), strict=True):
            save(array, folder / name)
        training.append(entry)
    labels = {str(value): name for value, name in enumerate(classes)}
    content = {"labels": labels, "modality": {"0": "MR"}, "training": training}
    (folder / "dataset.json").write_text(json.dumps(content))
    return folder

"""The embedded phantom: procedurally generated, labelled 3D bodies, to run on without any download.

Each case is a torso from the neck to the pelvis (anatomy.py) with organs at consistent places, as a
T1-weighted gradient-echo MR scan after contrast agent would show it. Subjects differ in size, pose, fat,
the positions, sizes and shapes of their organs, receiver gain and bias field; noise is Rician. A case is a
function of (seed, index) alone.
"""

import gzip
import json
import logging
import shutil
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from pretext3d.annotations import Float, Shaped
from pretext3d.checking import integer
from pretext3d.errors import UserError
from pretext3d.files import draft_folder, sha256_of
from pretext3d.phantom.anatomy import LABELS, paint_torso
from pretext3d.phantom.canvas import FIELD_OF_VIEW, Array, Canvas, smooth_field
from pretext3d.progress import Bar

__all__ = ["phantom_affine", "phantom_volume", "write_phantom"]

VERSION = 1  # increase it when the same seed gives other bytes: older folders are then not reused
SIZE = (80, 64, 80)
log = logging.getLogger(__name__)


def phantom_volume(
    seed: int, index: int, size: Sequence[int] = SIZE, spacing: Sequence[float] | None = None
) -> tuple[Float[np.ndarray, "i j k"], Shaped[np.ndarray, "i j k"]]:
    """One subject, a function of its arguments alone.

    The magnitude image of a complex signal with Gaussian noise in both parts (so the noise is Rician):
    round(sqrt((g b s + n1)^2 + n2^2)) for tissues s, bias field b, gain g, and normal n1 and n2.

    Args:
        seed: Seed of the set of subjects.
        index: Index of the subject, from 0.
        size: Voxels along i, j, k of the nominal volume; a subject's differs by up to 8 % along each axis.
        spacing: Spacing in mm along i, j, k; by default `size` spans 320 x 256 x 320 mm, a torso with a
            margin of air (4 mm at the default size). A smaller field of view cuts the body off, and organs
            may be missing.

    Returns:
        The image (float32, integers from 0 to 4000; air near 0, fat near 900) and the label (uint8, index
        into `anatomy.LABELS`). Axes i j k run to the subject's right, front and head, see `phantom_affine`.

    Raises:
        UserError: If an argument is out of its range.
    """
    size, mm = check_grid(seed, index, size, spacing)
    shape = subject_size(seed, index, size)
    rng = random_state(seed, index, 1)
    build, tall = rng.uniform(0.93, 1.03), rng.uniform(0.94, 1.04)
    stretch = (build * rng.uniform(0.97, 1.03), build * rng.uniform(0.97, 1.03), tall)
    canvas = Canvas.of_subject(rng, shape, mm, stretch)
    paint_torso(canvas, rng)

    rng = random_state(seed, index, 2)
    gain, noise = rng.uniform(0.8, 1.2), rng.uniform(14, 30)
    centres = [(np.arange(n) - (n - 1) / 2) * step for n, step in zip(shape, mm, strict=True)]
    bias = 1 + np.float32(0.16) * smooth_field(rng, centres, 130.0).clip(-2.2, 2.2)
    real = canvas.image * bias * np.float32(gain) + noisy(rng, shape, noise)
    image = np.sqrt(real * real + noisy(rng, shape, noise) ** 2)
    return np.clip(np.rint(image), 0, 4000).astype(np.float32), canvas.label


def phantom_affine(
    seed: int, index: int, size: Sequence[int] = SIZE, spacing: Sequence[float] | None = None
) -> Float[np.ndarray, "4 4"]:
    """The affine from voxels to world mm (RAS+): axis-aligned, the origin within 8 mm of the middle."""
    size, mm = check_grid(seed, index, size, spacing)
    affine = np.diag([*mm, 1.0])
    middle = (np.array(subject_size(seed, index, size)) - 1) / 2
    affine[:3, 3] = np.round(random_state(seed, index, 3).uniform(-8, 8, 3) - middle * mm, 1)
    return affine


def write_phantom(
    root: Path | str,
    num_cases: int = 24,
    seed: int = 0,
    size: Sequence[int] = SIZE,
    spacing: Sequence[float] | None = None,
    progress: bool = True,
) -> Path:
    """Write the phantom as a Medical Segmentation Decathlon folder, or reuse an existing one.

    The folder is in `root`, and its name states its parameters. It appears complete or not at all (written
    under another name, then renamed), so that several processes may request it at once. A folder whose files
    do not match its checksums (`SHA256SUMS`) is written again. The files of a case have the same bytes for
    any number of cases.

    Args:
        root: Folder that holds phantoms, made if missing (a cache folder, for example).
        num_cases: Number of subjects.
        seed: Seed of the set of subjects; another seed gives other subjects.
        size: Voxels of the nominal volume, see `phantom_volume`.
        spacing: Spacing in mm, see `phantom_volume`.
        progress: Show a progress bar while writing.

    Returns:
        The folder: dataset.json, imagesTr/*.nii.gz (int16), labelsTr/*.nii.gz (uint8).

    Raises:
        UserError: If an argument is out of its range, or `root` cannot be written.
    """
    integer("num_cases of the phantom", num_cases, minimum=1, maximum=9999)
    size, mm = check_grid(seed, 0, size, spacing)
    grid = "x".join(map(str, size)) + "_" + "x".join(f"{step:g}" for step in mm) + "mm"
    folder = Path(root).expanduser() / f"phantom_v{VERSION}_seed{seed}_n{num_cases}_{grid}"
    files = 2 * num_cases + 1
    if is_complete(folder, files):
        log.debug("phantom: reused %s", folder)
        return folder
    try:
        with draft_folder(folder) as draft:
            for part in ("imagesTr", "labelsTr"):
                (draft / part).mkdir()
            for index in Bar(range(num_cases), desc="making the phantom", unit="case", disable=not progress):
                write_case(draft, seed, index, size, mm)
            (draft / "dataset.json").write_text(
                json.dumps(describe(num_cases, seed, size, mm), indent=2) + "\n", "utf-8"
            )
            sums = [
                f"{sha256_of(path)}  {path.relative_to(draft).as_posix()}\n"
                for path in sorted(draft.rglob("*.*"))
            ]
            (draft / "SHA256SUMS").write_text("".join(sums), "utf-8")
            put_in_place(draft, folder, files)
    except OSError as error:
        raise UserError(f"the phantom cannot be written to {root}: {error.strerror or error}") from error
    log.info("phantom: wrote %d cases to %s", num_cases, folder)
    return folder


def check_grid(
    seed: int, index: int, size: Sequence[int], spacing: Sequence[float] | None
) -> tuple[tuple[int, ...], tuple[float, ...]]:
    """The size and spacing as tuples, or a `UserError` that names the fault."""
    for name, number in (("seed", seed), ("index", index)):
        integer(f"{name} of the phantom", number, minimum=0)
    if len(size) != 3 or any(int(n) != n or n < 16 for n in size):
        raise UserError(f"size of the phantom: found {list(size)}, expected three integers from 16 (voxels)")
    mm = (
        [extent / n for extent, n in zip(FIELD_OF_VIEW, size, strict=True)]
        if spacing is None
        else list(spacing)
    )
    if len(mm) != 3 or not all(step > 0 for step in mm):
        raise UserError(f"spacing of the phantom: found {mm}, expected three numbers above 0 (mm)")
    return tuple(int(n) for n in size), tuple(float(step) for step in mm)


def random_state(seed: int, index: int, purpose: int) -> np.random.RandomState:
    """The random state of one subject for one purpose, independent of all others."""
    return np.random.RandomState(np.random.MT19937(np.random.SeedSequence([seed, index, purpose])))


def subject_size(seed: int, index: int, size: Sequence[int]) -> tuple[int, ...]:
    """Shape of the subject's volume in voxels: within 8 % of the nominal size."""
    factors = random_state(seed, index, 0).uniform((0.96, 1.0, 0.95), (1.06, 1.08, 1.05))
    return tuple(round(n * factor) for n, factor in zip(size, factors, strict=True))


def noisy(rng: np.random.RandomState, shape: Sequence[int], deviation: float) -> Array:
    """Normal noise in float32."""
    return rng.standard_normal(tuple(shape)).astype(np.float32) * np.float32(deviation)


def write_case(folder: Path, seed: int, index: int, size: Sequence[int], mm: Sequence[float]) -> None:
    """Write the image and label of one subject."""
    image, label = phantom_volume(seed, index, size, mm)
    affine = phantom_affine(seed, index, size, mm)
    for part, values in (("imagesTr", image.astype(np.int16)), ("labelsTr", label)):
        write_nifti(folder / part / f"{case_name(index)}.nii.gz", values, affine)


def case_name(index: int) -> str:
    """The name of a case.

    Examples:
        >>> case_name(7)
        'phantom_007'
    """
    return f"phantom_{index:03d}"


def write_nifti(path: Path, values: NDArray[Any], affine: NDArray[np.float64]) -> None:
    """Write a .nii.gz without time or name in its gzip header: equal volumes give equal files."""
    nifti = nib.Nifti1Image(values, affine)
    nifti.header.set_xyzt_units("mm")
    nifti.set_sform(affine, code="scanner")
    nifti.set_qform(affine, code="scanner")
    with path.open("wb") as raw, gzip.GzipFile("", "wb", 4, raw, mtime=0) as packed:
        packed.write(nifti.to_bytes())


def describe(num_cases: int, seed: int, size: Sequence[int], mm: Sequence[float]) -> dict[str, Any]:
    """The contents of dataset.json."""
    names = [case_name(index) for index in range(num_cases)]
    return {
        "name": "Pretext3D phantom",
        "description": "Procedurally made torsos with labelled organs, in the contrast of a T1-weighted MR "
        "scan after contrast agent. No patient data.",
        "reference": "pretext3d.phantom.phantom",
        "licence": "CC0-1.0 (made by a program from random numbers; no person was scanned)",
        "release": f"{VERSION}.0",
        "tensorImageSize": "3D",
        "modality": {"0": "MR"},
        "labels": {str(value): name for value, name in enumerate(LABELS)},
        "numTraining": num_cases,
        "numTest": 0,
        "training": [{"image": f"./imagesTr/{n}.nii.gz", "label": f"./labelsTr/{n}.nii.gz"} for n in names],
        "test": [],
        "phantom": {"version": VERSION, "seed": seed, "size": list(size), "spacing": list(mm)},
    }


def is_complete(folder: Path, files: int) -> bool:
    """Whether the folder's list of checksums has `files` entries, and each file exists, unchanged."""
    try:
        lines = [line.split("  ", 1) for line in (folder / "SHA256SUMS").read_text("utf-8").splitlines()]
        return len(lines) == files and all(sha256_of(folder / name) == found for found, name in lines)
    except (OSError, ValueError):
        return False


def put_in_place(draft: Path, folder: Path, files: int) -> None:
    """Rename the finished draft to its final name; a complete folder by another process is kept."""
    for _ in range(10):
        try:
            draft.replace(folder)
            return
        except OSError:
            if is_complete(folder, files):
                return
            if not folder.exists():
                raise
        # the existing folder is damaged: move it out of the way, under a name that no other process uses
        damaged = folder.with_name(f".{folder.name}.{uuid.uuid4().hex}.damaged")
        try:
            folder.replace(damaged)
        except FileNotFoundError:
            continue
        shutil.rmtree(damaged, ignore_errors=True)
    raise OSError(f"{folder} is repeatedly replaced by other programs")

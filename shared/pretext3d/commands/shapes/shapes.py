"""The volumes of `pretext3d shapes`: written when they are asked for, complete or not there."""

import contextlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import filelock
import numpy as np
from torch.utils.data import DataLoader, Dataset

from pretext3d.checking import integer, number
from pretext3d.data.generated import GeneratedItems
from pretext3d.errors import UserError
from pretext3d.files import locked, replacing, write_whole
from pretext3d.methods.avsdb.volumes import ShapeVolumes
from pretext3d.phantom.phantom import write_nifti
from pretext3d.progress import Bar
from pretext3d.version import __version__

SETTINGS = "settings.json"  # in the folder of a set: what its volumes depend on
PARTS = {"image": ("imagesTr", "_0000"), "label": ("labelsTr", "")}  # folder and suffix, nnU-Net's


def file_of(folder: Path, key: int, kind: str) -> Path:
    """The file of a volume's image or label.

    Examples:
        >>> file_of(Path("shapes"), 7, "image").as_posix()
        'shapes/imagesTr/shapes_00007_0000.nii.gz'
    """
    part, suffix = PARTS[kind]
    return folder / part / f"shapes_{key:05d}{suffix}.nii.gz"


class WrittenVolumes(Dataset[int]):
    """Volumes that are written when they are asked for: item n writes that of keys[n].

    An item is the number of shapes that found no position in its volume. The image is written before the
    label, each under its name only when it is complete: a volume with a label is complete.

    Args:
        items: Generated volumes.
        keys: Numbers of the volumes.
        folder: Folder of the set.
        pixdim: Spacing in mm, one number per axis.
    """

    def __init__(
        self, items: GeneratedItems, keys: Sequence[int], folder: Path, pixdim: Sequence[float]
    ) -> None:
        self.items, self.keys, self.folder = items, keys, folder
        self.affine = np.diag([*(*pixdim, 1.0)[:3], 1.0])

    def __len__(self) -> int:
        return len(self.keys)

    def __getitem__(self, index: int) -> int:
        key = self.keys[index]
        sample = self.items[key]
        for kind in PARTS:
            array = sample[kind][0].numpy()
            path = file_of(self.folder, key, kind)
            try:
                with replacing(path) as draft:
                    write_nifti(draft, array.reshape((*array.shape, 1)[:3]), self.affine)
            except OSError as error:
                raise UserError(
                    f"{path}: cannot be written: {error.strerror}; the same command continues from there"
                ) from error
        return int(sample["dropped"])


def write_shapes(
    output_dir: str | Path,
    count: int,
    seed: int = 0,
    pixdim: Sequence[float] = (1.0,),
    num_workers: int = 0,
    **options: Any,
) -> tuple[int, int]:
    """Write the volumes 0 to count - 1 of a seed, those that are not there yet, and dataset.json.

    Args:
        output_dir: Folder of the set, new, empty, or one that was written with the same settings.
        count: Number of volumes.
        seed: Seed of the volumes.
        pixdim: Spacing in mm that the files state, one number or one per axis. It does not change the shapes.
        num_workers: Number of processes that write; 0 = this one.
        options: Arguments of `ShapeVolumes`.

    Returns:
        Number of volumes written now, and of the shapes in them that found no position.

    Raises:
        UserError: Invalid arguments; a folder with other files, other settings or more volumes; another
            process that writes to it; a disk that cannot be written.
    """
    integer("count", count, minimum=1)
    integer("seed", seed, minimum=0)
    integer("num_workers", num_workers, minimum=0)
    generate = ShapeVolumes(**options)
    given = list(pixdim) * (generate.spatial_dims if len(pixdim) == 1 else 1)
    if len(given) != generate.spatial_dims:
        raise UserError(
            f"pixdim: found {list(pixdim)}, expected one number or {generate.spatial_dims}, in mm"
        )
    spacing = [number("pixdim", value, low=0, low_open=True) for value in given]
    named = {"rendering" if key == "changes" else key: value for key, value in options.items()}
    settings = {"pretext3d": __version__, "seed": seed, "pixdim": spacing, **named}
    folder = Path(output_dir)
    with opened(folder, settings, count):
        missing = [key for key in range(count) if not file_of(folder, key, "label").is_file()]
        volumes = WrittenVolumes(GeneratedItems(generate, count, seed=seed), missing, folder, spacing)
        dropped = write_volumes(volumes, count, num_workers)
        content = describe(count, generate.class_names, settings)
        write_whole(folder / "dataset.json", json.dumps(content, indent=2) + "\n")
    return len(missing), dropped


@contextlib.contextmanager
def opened(folder: Path, settings: Mapping[str, Any], count: int) -> Iterator[None]:
    """Hold the folder of a set, with its sub-folders and its settings.

    Raises:
        UserError: See `write_shapes`.
    """
    plain = json.loads(json.dumps(settings))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with locked(folder / ".lock", wait=False):
            check_folder(folder, plain, count)
            for name, _ in PARTS.values():
                (folder / name).mkdir(exist_ok=True)
                for draft in (folder / name).glob(".*.tmp"):  # of a process that was killed: we hold the lock
                    draft.unlink()
            write_whole(folder / SETTINGS, json.dumps(plain, indent=2) + "\n")
            yield
    except filelock.Timeout as error:
        raise UserError(
            f"output_dir: found {folder} in use by another process, expected a folder of this one alone"
        ) from error
    except OSError as error:
        raise UserError(
            f"output_dir: {error.filename or folder}: cannot be written: {error.strerror}"
        ) from error


def check_folder(folder: Path, settings: Mapping[str, Any], count: int) -> None:
    """Refuse a folder of other files, of other settings, or of more volumes than `count`."""
    if not (folder / SETTINGS).is_file():
        others = sorted(path.name for path in folder.iterdir() if path.name != ".lock")
        if others:
            raise UserError(
                f"output_dir: found {others[0]} in {folder}, expected a new or an empty folder, or one with "
                f"the {SETTINGS} of this command"
            )
        return
    try:
        found = json.loads((folder / SETTINGS).read_text(encoding="utf-8"))
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise UserError(f"{folder / SETTINGS}: is damaged; expected that of this command: use another folder")
    for key in dict.fromkeys([*settings, *found]):
        if found.get(key) != settings.get(key):
            raise UserError(
                f"{key}: found {settings.get(key)!r}, expected {found.get(key)!r}, with which the volumes in "
                f"{folder} were written; give another --output_dir"
            )
    names = [path.name for path in (folder / PARTS["label"][0]).glob("shapes_*.nii.gz")]
    written = max((int(name[7:-7]) + 1 for name in names if name[7:-7].isdecimal()), default=0)
    if written > count:
        raise UserError(f"count: found {count}, expected {written} or more: {folder} has that many volumes")


def write_volumes(volumes: WrittenVolumes, count: int, num_workers: int) -> int:
    """Write them all, with a progress bar; returns how many shapes found no position."""
    workers = min(num_workers, len(volumes))
    loader: DataLoader[int] = DataLoader(volumes, batch_size=None, num_workers=workers)
    done = count - len(volumes)
    dropped = 0
    with Bar(total=count, initial=done, desc="writing shapes", unit="volume") as bar:
        for number_dropped in loader:
            dropped += int(number_dropped)
            bar.update()
    return dropped


def describe(count: int, class_names: Sequence[str], settings: Mapping[str, Any]) -> dict[str, Any]:
    """The content of dataset.json: nnU-Net's keys, and MSD's list of cases."""
    files = [[file_of(Path(), key, kind).as_posix() for kind in PARTS] for key in range(count)]
    return {
        "name": "AVS-DB shapes",
        "description": "Automatically generated volumetric shapes; no patient data.",
        "reference": "Tadokoro et al., CVPRW 2023",
        "licence": "CC0-1.0 (made by a program from random numbers)",
        "tensorImageSize": f"{len(settings['pixdim'])}D",
        "channel_names": {"0": "shapes"},
        "labels": {name: value for value, name in enumerate(class_names)},
        "file_ending": ".nii.gz",
        "numTraining": count,
        "numTest": 0,
        "training": [{"image": f"./{image}", "label": f"./{label}"} for image, label in files],
        "test": [],
        "shapes": dict(settings),
    }

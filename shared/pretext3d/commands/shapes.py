"""Write the volumes of AVS-DB's shapes as files, for a training with nnU-Net, MONAI or anything else.

The folder has NIfTI files under nnU-Net's names and one dataset.json that nnU-Net v2, MONAI's
`load_decathlon_datalist` and Pretext3D read. Volume number n of a seed is the one that a pre-training
with the same settings generates for it: files and training differ in nothing.

A stopped run continues with the same command; a larger --count adds volumes.
"""

import argparse
import contextlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import filelock
import numpy as np
import torch
import yaml
from torch.utils.data import DataLoader, Dataset

from pretext3d.checking import integer, number
from pretext3d.commands.parser import command_parser
from pretext3d.data.generated import GeneratedItems
from pretext3d.errors import UserError
from pretext3d.files import locked, replacing, write_whole
from pretext3d.messages import say
from pretext3d.methods.avsdb.rendering import RENDERINGS
from pretext3d.methods.avsdb.volumes import ShapeVolumes
from pretext3d.phantom.phantom import write_nifti
from pretext3d.progress import Bar
from pretext3d.version import __version__

SETTINGS = "settings.json"  # in the folder of a set: what its volumes depend on
PARTS = {"image": ("imagesTr", "_0000"), "label": ("labelsTr", "")}  # folder and suffix, nnU-Net's
EXAMPLES = """
examples
  pretext3d shapes --count 5000 --output_dir Dataset501_Shapes
  pretext3d shapes --count 32 --output_dir shapes --roi_size 64 64 8 --pixdim 2.5 2.5 10 --render textured
  pretext3d shapes --count 32 --output_dir images --spatial_dims 2 --roi_size 128 128 --xy_classes ellipse 3 4
"""


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


def classes(values: Sequence[str]) -> int | list[int | str]:
    """A number of classes, or a list of names and numbers of vertices.

    Examples:
        >>> classes(["8"]), classes(["ellipse", "5"])
        (8, ['ellipse', 5])
    """
    read: list[int | str] = [int(value) if value.isdecimal() else value for value in values]
    return read[0] if len(read) == 1 and isinstance(read[0], int) else read


def overlap(value: str) -> float | None:
    """A part of a shape's volume, or None for `none`."""
    return None if value.lower() == "none" else float(value)


def settings_of(text: str) -> dict[str, Any]:
    """Settings in YAML's or JSON's form, as "{box: [30, 60]}".

    Examples:
        >>> settings_of("{box: [30, 60], min_radius: 10}")
        {'box': [30, 60], 'min_radius': 10}
    """
    try:
        found = yaml.safe_load(text)
    except yaml.YAMLError:
        found = None
    if not isinstance(found, dict) or not all(isinstance(key, str) for key in found):
        raise argparse.ArgumentTypeError(
            f"found {text!r}, expected entries in braces, as '{{box: [30, 60]}}'"
        )
    return found


def make_parser() -> argparse.ArgumentParser:
    """The command's options."""
    parser = command_parser("shapes", __doc__, EXAMPLES)
    add = parser.add_argument
    add("--count", type=int, required=True, help="number of volumes")
    add("--output_dir", required=True, help="folder of the set; nnU-Net expects a name as Dataset501_Shapes")
    add("--seed", type=int, default=0, help="default: %(default)s")
    add("--spatial_dims", type=int, default=3, help="2 = images of the cross-sections; default: %(default)s")
    add("--roi_size", type=int, nargs="+", help="voxels, one number or one per axis; default: 96, in 2D 128")
    add(
        "--pixdim",
        type=float,
        nargs="+",
        default=[1.0],
        help="spacing in mm that the files state; default: 1",
    )
    add("--xy_classes", nargs="+", default=["8"], help="cross-sections, a number or names; default: 8")
    add("--z_classes", nargs="+", help="rules along z, a number or names; default: 2, in 2D none")
    add("--num_shapes", type=int, nargs="+", default=[20], help="per volume, one or a range; default: 20")
    add("--max_overlap", type=overlap, default=0.7, help="part of a shape, or none; default: %(default)s")
    add("--tries", type=int, default=100, help="positions before a shape is dropped; default: %(default)s")
    add("--sizes", type=settings_of, default={}, help="what differs from ShapeSizes, as '{box: [30, 60]}'")
    add("--render", default="outline", help=f"{', '.join(RENDERINGS)}; default: %(default)s")
    add(
        "--rendering", type=settings_of, default={}, help="what differs from --render, as '{noise: [0, 0.1]}'"
    )
    add("--num_workers", type=int, default=os.cpu_count() or 1, help="processes; default: %(default)s")
    return parser


def main(given: Sequence[str]) -> int:
    """The command: write, report the folder and what is in it."""
    known = vars(make_parser().parse_args(given))
    known["xy_classes"] = classes(known["xy_classes"])
    if known["z_classes"] is None:
        known["z_classes"] = 2 if known["spatial_dims"] == 3 else None
    else:
        known["z_classes"] = classes(known["z_classes"])
    known["num_shapes"] = known["num_shapes"][0] if len(known["num_shapes"]) == 1 else known["num_shapes"]
    if known["roi_size"] is None:
        known["roi_size"] = [96, 96, 96] if known["spatial_dims"] == 3 else [128, 128]
    elif len(known["roi_size"]) == 1:
        known["roi_size"] = known["roi_size"] * (2 if known["spatial_dims"] == 2 else 3)
    known["changes"] = known.pop("rendering")
    torch.set_num_threads(1)  # of each process
    written, dropped = write_shapes(**known)
    without = f"; {dropped} shapes of these found no position" if dropped else ""
    say(f"{known['output_dir']}: {known['count']} volumes, {written} written now{without}")
    return 0

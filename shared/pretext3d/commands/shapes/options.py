"""Write the volumes of AVS-DB's shapes as files, for a training with nnU-Net, MONAI or anything else.

The folder has NIfTI files under nnU-Net's names and one dataset.json that nnU-Net v2, MONAI's
`load_decathlon_datalist` and Pretext3D read. Volume number n of a seed is the one that a pre-training
with the same settings generates for it: files and training differ in nothing.

A stopped run continues with the same command; a larger --count adds volumes.
"""

import argparse
import os
from collections.abc import Sequence
from typing import Any

import yaml

from pretext3d.checking import integer, one_of
from pretext3d.commands.parser import command_parser
from pretext3d.messages import say

RENDERINGS = ("outline", "filled", "textured")  # those of methods/avsdb/rendering.py
# those of paper_2d: a plane is full sooner
ROI_2D, SIZES_2D = [192, 192], {"box": [15, 48], "min_radius": 7.5}
EXAMPLES = """
examples
  pretext3d shapes --count 5000 --output_dir Dataset501_Shapes
  pretext3d shapes --count 32 --output_dir shapes --roi_size 64 64 16 --pixdim 2.5 2.5 5 --render textured
  pretext3d shapes --count 32 --output_dir images --spatial_dims 2 --roi_size 128 128 --xy_classes ellipse 3 4
"""


def classes(values: Sequence[str]) -> int | list[int | str]:
    """A number of classes, or a list of names and numbers of vertices.

    Examples:
        >>> classes(["8"]), classes(["ellipse", "5"])
        (8, ['ellipse', 5])
    """
    read: list[int | str] = [int(value) if value.isdecimal() else value for value in values]
    return read[0] if len(read) == 1 and isinstance(read[0], int) else read


def overlap(value: str) -> float | None:
    """A part of a shape's volume, or None for `none` or `null`."""
    return None if value.lower() in ("none", "null") else float(value)


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
    add("--roi_size", type=int, nargs="+", help="voxels, one number or one per axis; default: 96, in 2D 192")
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
    add(
        "--sizes",
        type=settings_of,
        default={},
        help="what differs from profile paper, as '{box: [30, 60]}'",
    )
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
        known["roi_size"] = [96, 96, 96] if known["spatial_dims"] == 3 else ROI_2D
    elif len(known["roi_size"]) == 1:
        known["roi_size"] = known["roi_size"] * (2 if known["spatial_dims"] == 2 else 3)
    if known["spatial_dims"] == 2:
        known["sizes"] = {**SIZES_2D, **known["sizes"]}
    known["changes"] = known.pop("rendering")
    for name, low in (("count", 1), ("seed", 0), ("num_workers", 0)):
        integer(name, known[name], minimum=low)
    one_of("render", known["render"], RENDERINGS)
    import torch

    from pretext3d.commands.shapes.shapes import write_shapes

    torch.set_num_threads(1)  # of each process
    written, dropped = write_shapes(**known)
    without = f"; {dropped} shapes of these found no position" if dropped else ""
    say(f"{known['output_dir']}: {known['count']} volumes, {written} written now{without}")
    return 0

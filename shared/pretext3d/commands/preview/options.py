"""Pictures of what a bundle's network sees of your scans and must predict, before or after training.

One PNG per scan, for any bundle of this repository and any folder of volumes that its train.yaml takes. The
volumes are checked as before a training, and bad ones are listed with the reason. Every other --key value
overrides a key of train.yaml.
"""

import argparse
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from pretext3d.commands.bundles import named_bundle
from pretext3d.commands.parser import command_parser, read_overrides
from pretext3d.commands.paths import check_paths, known_key
from pretext3d.errors import UserError
from pretext3d.training.arguments import read_value
from pretext3d.training.checkpoint_files import resolve_pretrained

__all__ = ["make_parser", "parse_arguments"]

EXAMPLES = """examples:
  pretext3d preview --bundle vectorpose
  pretext3d preview --bundle vectorpose --dataset_dir ../data/heads --num 20
  pretext3d preview --bundle vectorpose --dataset_dir ../data/heads --output_file heads.png
  pretext3d preview --bundle vectorpose --dataset_dir ../data/heads --roi_size 48 --seed 3
  pretext3d preview --bundle vectorpose --checkpoint runs/vectorpose
  pretext3d preview --bundle vectorpose --checkpoint bundles/vectorpose --spatial_dims 2
"""


def make_parser() -> argparse.ArgumentParser:
    """The command's own options; other words are overrides."""
    parser = command_parser("preview", __doc__, EXAMPLES)
    add = parser.add_argument
    add("--bundle", required=True, help="folder or name of the bundle, e.g. vectorpose")
    add(
        "--dataset_dir",
        help="folder of volumes or images; default: that of the checkpoint's run, or the embedded phantom",
    )
    add("--output_dir", default="previews", help="folder for the pictures; default: %(default)s")
    add("--output_file", help="one sheet with all pictures, a .png file, instead of a folder of them")
    add(
        "--num",
        type=int,
        default=8,
        help="number of scans, 0 = all; default: %(default)s, spread over the data set",
    )
    add("--seed", type=int, help="other crops of the same scans; default: the bundle's")
    add("--profile", help="a profile of the bundle, e.g. laptop")
    add("--checkpoint", help="a run, a checkpoint or a bundle: also draw its network's prediction")
    return parser


def parse_arguments(words: Sequence[str]) -> tuple[argparse.Namespace, dict[str, Any]]:
    """The command's own options, and the overrides of train.yaml."""
    known, rest = make_parser().parse_known_args(words)
    own = {name: getattr(known, name) for name in ("dataset_dir", "seed", "profile")}
    given = {
        name: read_value(name, value) if isinstance(value, str) else value
        for name, value in own.items()
        if value is not None
    }
    return known, {**given, **read_overrides(rest, flags=True)}


def check_arguments(known: argparse.Namespace, overrides: dict[str, Any]) -> Path | None:
    """Check what is known before the configuration is read; the file of `--checkpoint`, if given.

    Raises:
        UserError: a bad option, an unknown key, or a folder or a file that does not exist.
    """
    if known.num < 0:
        raise UserError(f"num: found {known.num}, expected the number of scans, 0 for all")
    if known.output_file and not known.output_file.lower().endswith(".png"):
        raise UserError(f"output_file: found {known.output_file}, expected a name that ends in .png")
    file = named_bundle(known.bundle) / "configs" / "train.yaml"
    keys = yaml.safe_load(file.read_text()) if file.is_file() else overrides  # `Preview` reports none
    for key in overrides:
        known_key(key, keys, make_parser(), file.name)
    check_paths(overrides)
    if not known.checkpoint:
        return None
    axes = overrides.get("spatial_dims", 0)
    return resolve_pretrained(known.checkpoint, key="checkpoint", spatial_dims=axes)


def main(words: Sequence[str]) -> int:
    """The command."""
    known, overrides = parse_arguments(words)
    weights = check_arguments(known, overrides)
    from pretext3d.commands.preview.preview import preview

    logging.getLogger("pretext3d.data.prepare").setLevel(logging.ERROR)  # bad volumes are listed at the end
    logging.basicConfig(format="%(message)s")
    logging.getLogger("pretext3d.data.cases").setLevel(logging.INFO)  # volumes that a datalist skips
    preview(known, overrides, weights)
    return 0

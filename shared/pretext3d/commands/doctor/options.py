"""Whether a pre-training run has learned, and whether labelled data fit its weights: sentences, a next step.

It reads metrics.csv, log.txt and config.yaml of the run and the record of its checkpoint, and trains nothing.
With --baseline, a linear model answers the run's task from air and mean intensities alone.
With a folder of labelled data it also checks its images and, where the weights have a window of intensities,
reads a few of them.
"""

import argparse
import logging
from collections.abc import Sequence
from pathlib import Path

from pretext3d.commands.curves import history_file
from pretext3d.commands.parser import command_parser
from pretext3d.commands.paths import check_paths
from pretext3d.training.arguments import read_value
from pretext3d.training.checkpoint_files import resolve_pretrained

EXAMPLES = """
examples
  pretext3d doctor runs/vp
  pretext3d doctor runs/vp --dataset_dir ../data/heart
  pretext3d doctor runs/rotation --baseline
  pretext3d doctor runs/rotation --dataset_dir ../data/eyes --class_file ../data/eyes.csv --strict
"""


def make_parser() -> argparse.ArgumentParser:
    """The command's options."""
    parser = command_parser("doctor", __doc__, EXAMPLES)
    add = parser.add_argument
    add("run", help="folder of a pre-training run")
    add("--dataset_dir", default="", help="labelled images that its weights are meant for")
    add("--class_file", default="", help="their classes; default: a segmentation is suggested")
    add(
        "--baseline", action="store_true", help="also measure what air and mean intensities reach in its task"
    )
    add("--strict", action="store_true", help="exit code 1 where something is wrong")
    return parser


def main(words: Sequence[str]) -> int:
    """The command."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s")
    options = make_parser().parse_args(words)
    history_file(Path(options.run))
    resolve_pretrained(options.run, key="run")
    check_paths({"dataset_dir": read_value("dataset_dir", options.dataset_dir)})
    from pretext3d.commands.doctor.doctor import doctor

    return doctor(options)

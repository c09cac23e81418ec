"""What frozen features know, per run: a linear probe and nearest neighbours on labelled cases.

The encoder of each run reads every case once, as a fine-tuning would see it, and is not trained. A logistic
regression and the nearest neighbours read its pooled features. Cases, held-out cases and labelled subsets
are those of finetune_classification.yaml with the same keys. The row `intensities` has no network: the mean
and the standard deviation of each channel, which show what the scanner or the camera alone gives away.
"""

import argparse
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from pretext3d.checking import integer, one_of
from pretext3d.commands.bundles import find_bundle
from pretext3d.commands.compare.arms import INTENSITIES
from pretext3d.commands.parser import command_parser, read_overrides, top_key
from pretext3d.commands.paths import check_paths, known_key
from pretext3d.errors import UserError
from pretext3d.training.arguments import read_value
from pretext3d.training.checkpoint_files import resolve_pretrained

__all__ = [
    "FILE", "Request", "Source", "check_keys", "check_options", "checked", "make_parser", "network_of",
    "read_sources",
]  # fmt: skip

FILE = "finetune_classification.yaml"
SET_HERE = {  # keys of that file, and the option that gives each
    "pretrained": "the runs", "num_labelled": "--num_labelled", "label_fraction": "--label_fractions",
    "seed": "--seeds", "subset_seed": "--seeds", "encoder": "--encoder", "output_dir": "--output_dir",
}  # fmt: skip
EXAMPLES = """
runs
  PATH or NAME=PATH   a pre-trained run, bundle or checkpoint; the name is the folder's, or yours
  scratch             random initial weights, one network per seed

examples
  pretext3d probe runs/rotation runs/exemplar scratch --spatial_dims 2 --dataset_dir ../data/eyes \\
      --class_file ../data/eyes.csv --subjects ../data/eyes.csv --label_fractions 0.05 0.1 0.25 1
  pretext3d probe vp=runs/vp --dataset_dir ../data/heads --class_file classes.csv --num_labelled 10 40

Any other --key value is an override of finetune_classification.yaml: --val_fraction 0.3, --test_fraction 0.2,
--pixdim pretrained ... With the values of a fine-tuning the held-out cases are the same ones.
"""


class Source(NamedTuple):
    """Weights to probe.

    Attributes:
        name: Name in the tables.
        path: Run, bundle or checkpoint; '' = random weights.
    """

    name: str
    path: str


class Request(NamedTuple):
    """What is probed, and on which cases.

    Attributes:
        sources: Weights.
        config: Path of the bundle's FILE.
        given: Overrides of its keys.
        spatial_dims: Number of spatial axes of the cases.
    """

    sources: list[Source]
    config: Path
    given: dict[str, Any]
    spatial_dims: int


def read_sources(words: Sequence[str]) -> list[Source]:
    """The weights that the command line names.

    Raises:
        UserError: a name that is used twice, or for the baseline.

    Examples:
        >>> read_sources(["scratch", "runs/rotation/", "vp=runs/a"])[1:]
        [Source(name='rotation', path='runs/rotation/'), Source(name='vp', path='runs/a')]
    """
    found: list[Source] = []
    for word in words:
        name, equals, path = word.partition("=")
        if word == "scratch":
            source = Source(word, "")
        else:
            source = Source(name, path) if equals else Source(Path(word.rstrip("/")).name, word)
        taken = [*(one.name for one in found), INTENSITIES]
        if source.name in taken or not source.name or (equals and not path):
            raise UserError(f"{word}: found as a run, expected PATH or NAME=PATH with a name of its own")
        found.append(source)
    return found


def check_keys(given: Mapping[str, Any], known: Mapping[str, Any]) -> None:
    """Refuse overrides that options of this command set, and those that the file, FILE, does not have."""
    for key in given:
        top = top_key(key)
        if top in SET_HERE:
            raise UserError(f"--{key}: found as an override, expected it from {SET_HERE[top]}")
        known_key(key, known, make_parser(), FILE)


def check_options(options: argparse.Namespace) -> None:
    """Check what argparse does not."""
    if options.num_labelled and options.label_fractions:
        raise UserError("--label_fractions: found with --num_labelled, expected one of them")
    options.label_fractions = options.label_fractions or ([] if options.num_labelled else [1.0])
    if not all(0 < value <= 1 for value in options.label_fractions):
        raise UserError(
            f"--label_fractions: found {options.label_fractions}, expected numbers above 0, up to 1"
        )
    for name, low in (("num_labelled", 1), ("seeds", 0)):
        values = getattr(options, name)
        if values and (min(values) < low or len(set(values)) < len(values)):
            raise UserError(f"--{name}: found {values}, expected different integers from {low}")
    integer("--neighbours", options.neighbours, minimum=1)
    one_of("--measured", options.measured, ("test", "val"))


def checked(options: argparse.Namespace, words: Sequence[str]) -> Request:
    """What the command line asks for, checked as far as no case and no weights have to be read.

    Args:
        options: All options.
        words: Further words, the overrides.

    Raises:
        UserError: a bad option, an unknown key, or a folder or a file that does not exist.
    """
    check_options(options)
    sources, output = read_sources(options.runs), Path(options.output_dir) / "probe.csv"
    if output.exists():
        raise UserError(f"--output_dir: found {output}, expected a folder without one")
    config = find_bundle(options.bundle) / "configs" / FILE
    if not config.is_file():
        raise UserError(f"--bundle: {config.parents[1]} has no configs/{FILE}; expected a bundle's folder")
    given = read_overrides(words)
    known = yaml.safe_load(config.read_text())
    check_keys(given, known)
    dataset_dir = read_value("dataset_dir", options.dataset_dir)
    given = {"dataset_dir": dataset_dir, "class_file": options.class_file, **given}
    check_paths(given)
    for source in sources:
        if source.path:
            resolve_pretrained(source.path)
    return Request(sources, config, given, given.get("spatial_dims", known["spatial_dims"]))


def network_of(sources: Sequence[Source], given: str, axes: int) -> dict[str, Any]:
    """The keys of random weights' network: the given encoder, or the runs' with its options. Reads no case.

    Args:
        sources: Weights to probe.
        given: Encoder of random weights on the command line; '' = none.
        axes: Number of spatial axes of the cases.

    Returns:
        `encoder`, '' = the profile's, and where there are any `network_def::options`.

    Raises:
        UserError: random weights with runs of several networks, or weights of another number of axes.
    """
    from pretext3d.training.pretrained import check_spatial_dims, read_pretrained

    found: list[tuple[str, Mapping[str, Any]]] = []
    for source in sources:
        if source.path:
            weights = read_pretrained(source.path)
            check_spatial_dims(weights.file, weights.record, axes)
            network = weights.record["backbone"]["encoder"], weights.record["backbone"].get("options") or {}
            found += [network] if network not in found else []
    fitting = [network for network in found if given in ("", network[0])]
    if len(fitting) != 1 and (given or not found):
        return {"encoder": given}
    if len(fitting) > 1 and any(not one.path for one in sources):
        listed = ", ".join(f"{encoder} {dict(options) or ''}".strip() for encoder, options in found)
        raise UserError(f"scratch: found runs of the networks {listed}, expected --encoder NAME")
    encoder, options = fitting[0]
    return {"encoder": encoder, **({"network_def::options": dict(options)} if options else {})}


def make_parser() -> argparse.ArgumentParser:
    """The command's options; other words are overrides."""
    parser = command_parser("probe", __doc__, EXAMPLES)
    add, default = parser.add_argument, "default: %(default)s"
    add("runs", nargs="+", metavar="RUN", help="runs to probe, and scratch; see below")
    add("--dataset_dir", default="", help="cases with classes; default: the embedded phantom")
    add("--class_file", default="", help="a CSV file with the columns id and class; default: the datalist's")
    add("--num_labelled", nargs="+", type=int, metavar="N", help="labelled subjects")
    add(
        "--label_fractions",
        nargs="+",
        type=float,
        default=[],
        metavar="F",
        help="fractions of the training subjects instead; default: 1",
    )
    add("--seeds", nargs="+", type=int, default=[0, 1, 2], help="of labelled subsets and random weights")
    add("--neighbours", type=int, default=5, help="nearest neighbours; " + default)
    add("--measured", default="test", help="test, where there is a test set, or val; " + default)
    add("--encoder", default="", help="encoder of random weights; default: the runs', else the profile's")
    add(
        "--bundle",
        default="",
        help="folder or name of the bundle that has the configuration; default: vectorpose",
    )
    add("--output_dir", default="runs/probe", help="new folder; " + default)
    return parser


def main(words: Sequence[str]) -> int:
    """The command."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s")
    parser = make_parser()
    options, rest = parser.parse_known_args(words)
    if words[0].startswith("-"):  # argparse would take the value of an override for a run
        parser.error("expected the runs before the options")
    request = checked(options, rest)
    from pretext3d.commands.probe.probe import probe

    return probe(options, request)

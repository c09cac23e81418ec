"""A fine-tuned run becomes a bundle that can be deployed: segment, evaluate, train on, serve by MONAI Label.

The bundle holds the run's settings as constants in its configuration, its weights as a plain state dict in
models/model.pt, their provenance in docs/README.md and models/provenance.json, and the package itself:
a program that has MONAI needs nothing else. run.py reads the run, configs.py writes the YAML, text.py the
metadata and the model card.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from pretext3d.commands.bundles import find_bundle
from pretext3d.commands.parser import command_parser
from pretext3d.errors import UserError
from pretext3d.literals import check_literal
from pretext3d.publishing.archive import check_name, check_version
from pretext3d.training.checkpoint_files import resolve_pretrained

__all__ = ["files_of_run", "make_parser"]

EXAMPLES = """examples:
  pretext3d promote runs/vp_8 --name spleen_ct --labels spleen --licence "CC BY-SA 4.0"
  pretext3d promote runs/vp_8 --name hippocampus_mr --labels anterior posterior \\
      --licence "ours, not to be passed on" --version 0.2.0
"""
# words in a bundle's name from which MONAI Label infers another task
OTHER_TASKS = ("deepedit", "deepgrow", "detection", "classification")


def check_arguments(options: argparse.Namespace) -> None:
    """Check what is known before the run is read.

    Raises:
        UserError: a bad name or version, no licence, labels twice, a folder that exists.
    """
    name, labels = check_name(options.name, "--name"), options.labels
    for task in OTHER_TASKS:
        if task in name.lower():
            raise UserError(
                f"--name: found {name!r}, expected one without {task!r}: MONAI Label would take it for that"
            )
    check_version(options.version, "--version")
    if not options.licence.strip():
        raise UserError("--licence: found nothing, expected that of the data that the run was trained on")
    lower = [label.strip().lower() for label in labels]
    if len({*lower, "background", ""}) != len(labels) + 2:
        raise UserError(f"--labels: found {labels}, expected different names, without background")
    check_literal(labels, "--labels")
    check_literal(options.licence, "--licence")
    check_literal(options.data, "--data")
    if (options.output_dir / name).exists():
        raise UserError(f"--output_dir: found {options.output_dir / name} already, expected no such folder")


def files_of_run(folder: Path, weights: str) -> tuple[Path, Path]:
    """The configuration and the checkpoint of a finished run.

    Args:
        folder: Folder output_dir of the run.
        weights: Checkpoint to take, `final` or `best`.

    Raises:
        UserError: not a run, or one that has not reached its end.
    """
    saved = folder / "config.yaml"
    if not saved.is_file():
        raise UserError(f"run: {folder}: found no config.yaml, expected the output_dir of a finetune.yaml")
    checkpoint = folder / "checkpoints" / f"{weights}.pt"
    if not checkpoint.is_file():
        found = resolve_pretrained(folder).name if (folder / "checkpoints").is_dir() else "nothing"
        raise UserError(
            f"run: {folder}: found {found}, expected a finished run with checkpoints/{weights}.pt"
        )
    return saved, checkpoint


def make_parser() -> argparse.ArgumentParser:
    """The command's options."""
    parser = command_parser("promote", __doc__, EXAMPLES)
    add = parser.add_argument
    add("run", type=Path, help="the output_dir of a finetune.yaml of any bundle")
    add("--name", required=True, help="name of the bundle and its folder, e.g. spleen_ct")
    add(
        "--labels",
        nargs="+",
        default=[],
        metavar="LABEL",
        help="names of the classes 1, 2, ... in order; default: those of the run's datalist",
    )
    add(
        "--licence",
        required=True,
        help="licence of the training data: the weights inherit its terms",
    )
    add("--data", default="", help="name of the training data; default: that of its folder")
    add("--output_dir", type=Path, default=Path("bundles_out"), help="default: %(default)s")
    add("--version", default="0.1.0", help="default: %(default)s")
    add(
        "--weights",
        choices=("final", "best"),
        default="final",
        help="the last step's, which evaluate.yaml measures, or the best validation's; default: %(default)s",
    )
    add(
        "--trust_config",
        action="store_true",
        help="take over expressions and components of the run's config.yaml, too, which the new bundle "
        "executes: only of a run that you have configured yourself",
    )
    add(
        "--bundle",
        default="",
        help="folder or name of the bundle whose finetune.yaml ran; default: the one at hand with that name",
    )
    return parser


def main(words: Sequence[str]) -> int:
    """The command."""
    options = make_parser().parse_args(words)
    check_arguments(options)
    files_of_run(options.run, options.weights)
    if options.bundle:
        find_bundle(options.bundle)
    from pretext3d.commands.promote.promote import promote_run

    return promote_run(options)

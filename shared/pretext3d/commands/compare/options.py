"""The command line of a comparison, checked before anything heavy is imported."""

import argparse
import logging
from collections.abc import Callable, Sequence
from pathlib import Path

import yaml

from pretext3d.commands.bundles import find_bundle
from pretext3d.commands.compare.arms import check_overrides, read_arms
from pretext3d.commands.compare.running import run_cells
from pretext3d.commands.compare.study.reading import read_yaml
from pretext3d.commands.compare.tasks import TASKS
from pretext3d.commands.parser import command_parser, read_overrides
from pretext3d.commands.paths import check_paths
from pretext3d.errors import UserError
from pretext3d.training.arguments import read_value
from pretext3d.training.checkpoint_files import resolve_pretrained

__all__ = ["STAGES", "check_options", "check_study_options", "engine_of", "make_parser"]

STAGES = ("pretraining", "screening", "report")  # of a study
OF_STUDY = frozenset({"stage", "tasks", "data_root", "accept_plan"})
WITH_STUDY = frozenset({"study", "output_dir", "jobs", "threads", "report_only", "engine", "engine_options"})

EXAMPLES = """
arms
  scratch        random initial weights
  restart        trained twice: starts from the finished scratch cell with the same labels and seed
  NAME=PATH      a pre-trained run, bundle or checkpoint; NAME is yours. {num_labelled}, {seed} and {fold}
                 in PATH stand for the cell's: NAME='runs/roi_n{num_labelled}_seed{seed}', one pre-training
                 per cell
  NAME=scratch   random initial weights again, for an arm with keys of its own
  --set NAME KEY VALUE gives one arm a key of its own, as the network on slices below
The backbone of an arm is transferred, and its output layer where it is one of this segmentation (the same
classes and decoder): that of restart, or of any such fine-tuned run. Pre-training has none; a new one starts.

examples
  pretext3d compare --dataset_dir ../data/hippocampus --arms scratch restart vectorpose=runs/vp \\
      --num_labelled 4 12 --seeds 0 1 2 --output_dir runs/compare --jobs 2
  the same command again continues where it was stopped; more arms, numbers or seeds add to what is there
  pretext3d compare --report_only --output_dir runs/compare
  pretext3d compare --dataset_dir ../data/hippocampus --arms scratch vectorpose=runs/vp --validate_every 2 \\
      --label_fractions 0.05 0.1 0.25 0.5 1.0 --output_dir runs/efficiency
  pretext3d compare --dataset_dir ../data/hippocampus --arms scratch vp=runs/vp flat=runs/vp_2d \\
      --set flat spatial_dims 2 --set flat slices "{'axis':2,'every':1}" --output_dir runs/flat
  pretext3d compare --task classification --dataset_dir ../data/eyes --class_file ../data/eyes.csv \\
      --spatial_dims 2 --arms scratch cube=runs/eyes --folds 5 --label_fractions 1.0 --output_dir runs/folds

a study: tasks, arms, encoders, label counts and budgets from one file
  pretext3d compare --study docs/studies/main.yaml --data_root DATA --output_dir runs/study --jobs 2

Any other --key value is an override of finetune.yaml (of a classification finetune_classification.yaml), the
same for every arm: --max_epochs 20
--steps_per_epoch 50 --batch_size 4 --val_fraction 0.275 --learning_rate 0.0005 ... Pre-train with the same
val_fraction, so that no held-out case has been seen.
"""


def make_parser() -> argparse.ArgumentParser:
    """The command's own options; other words are overrides."""
    parser = command_parser(
        "compare",
        "Compare pre-trained weights with training from scratch: tables, plots, CSV of all cases.",
        EXAMPLES,
    )
    add, default = parser.add_argument, "default: %(default)s"
    add(
        "--dataset_dir",
        default="",
        help="labelled cases, a folder or \"['A','B']\"; default: the embedded phantom",
    )
    add("--arms", nargs="+", default=["scratch"], metavar="ARM", help="see below; default: scratch")
    add("--task", choices=[*TASKS], default="segmentation", help=default)
    add(
        "--set",
        nargs=3,
        action="append",
        default=[],
        metavar=("ARM", "KEY", "VALUE"),
        help="an override for one arm",
    )
    add("--num_labelled", nargs="+", type=int, metavar="N", help="labelled subjects; default: 4")
    add(
        "--label_fractions",
        nargs="+",
        type=float,
        default=[],
        metavar="F",
        help="fractions of the labelled subjects of the smallest training set instead; 1 = all of each",
    )
    add("--seeds", nargs="+", type=int, metavar="SEED", help="default: 0 1 2; with --folds 0")
    add(
        "--monte_carlo",
        action="store_true",
        help="each seed holds out other cases (split_seed = seed); default: the same for all seeds",
    )
    add(
        "--folds",
        type=int,
        default=0,
        help="cross-validation: every subject is held out once, subjects of each class spread evenly",
    )
    add(
        "--validate_every",
        type=int,
        default=0,
        metavar="EPOCHS",
        help="also measure the held-out cases during training, for curves; default: 0, never",
    )
    add("--output_dir", help="default: runs/compare; of a study runs/NAME")
    add(
        "--bundle",
        default="",
        help="folder or name of the bundle whose finetune.yaml runs; default: vectorpose",
    )
    add(
        "--encoder",
        default="",
        help="encoder of all arms; default: the pre-trained arms', otherwise the profile's",
    )
    add("--jobs", type=int, default=1, help="number of cells that run at the same time; " + default)
    add(
        "--threads",
        type=int,
        default=0,
        help="threads per cell; default: OMP_NUM_THREADS, otherwise the cores divided by --jobs",
    )
    add("--report_only", action="store_true", help="only write the tables and the plot of what is done")
    add(
        "--engine",
        choices=["processes", "submitit"],
        default="processes",
        help="submitit: on a cluster, see docs/scale.md",
    )
    add(
        "--engine_options",
        default="",
        metavar="YAML",
        help="of submitit, as {partition: gpu, timeout_min: 240}",
    )
    of_study = parser.add_argument_group("studies")
    add = of_study.add_argument
    add(
        "--study",
        default="",
        metavar="FILE",
        help="run a study, see docs/compare.md; its file has the options above",
    )
    add("--stage", choices=[*STAGES], default=STAGES[-1], help="run up to this stage; default: to the end")
    add(
        "--tasks",
        nargs="+",
        default=[],
        metavar="TASK",
        help="run only these: a task, or TASK/ENCODER; default: all",
    )
    add("--data_root", default="", help="folder of the study's relative data paths")
    add("--accept_plan", action="store_true", help="follow the plans although screening chooses otherwise")
    return parser


def check_study_options(options: argparse.Namespace, words: Sequence[str]) -> None:
    """Refuse options that a study's file has, and options of a study without one.

    Args:
        options: All options.
        words: Further words of the command line.
    """
    parser = make_parser()
    given = [name for name in vars(options) if getattr(options, name) != parser.get_default(name)]
    if not options.study:
        for name in OF_STUDY & set(given):
            raise UserError(f"--{name}: found without --study, which it is for")
        return
    wrong = [name for name in given if name not in OF_STUDY | WITH_STUDY]
    wrong += [word.removeprefix("--").partition("=")[0] for word in words if word.startswith("--")]
    if wrong or words:
        name = f"--{wrong[0]}" if wrong else words[0]
        raise UserError(f"{name}: found with --study; expected it in {options.study}")
    if options.jobs < 1 or options.threads < 0:
        raise UserError(
            f"--jobs, --threads: found {options.jobs}, {options.threads}, expected 1 and 0 or more"
        )


def engine_of(options: argparse.Namespace, output_dir: Path) -> Callable[..., list[str]]:
    """What runs the cells, with the arguments of `running.run_cells`.

    Args:
        options: All options.
        output_dir: Folder of the comparison.
    """
    if options.engine == "processes":
        if options.engine_options:
            raise UserError("--engine_options: found without --engine submitit, which it is for")
        return run_cells
    from pretext3d.commands.compare.submitting import read_engine_options, submitit_engine

    return submitit_engine(output_dir / "submitit", read_engine_options(options.engine_options))


def check_options(options: argparse.Namespace) -> None:
    """Check what argparse does not."""
    if options.num_labelled and options.label_fractions:
        raise UserError("--label_fractions: found with --num_labelled; expected one of them")
    fractions = options.label_fractions
    if any(not 0 < value <= 1 for value in fractions) or len(set(fractions)) < len(fractions):
        raise UserError(f"--label_fractions: found {fractions}, expected different numbers above 0, up to 1")
    options.num_labelled = options.num_labelled or [4]
    options.seeds = options.seeds if options.seeds is not None else [0] if options.folds else [0, 1, 2]
    for name, low in (("num_labelled", 1), ("seeds", 0)):
        values = getattr(options, name)
        if min(values) < low or len(set(values)) < len(values):
            raise UserError(f"--{name}: found {values}, expected different integers from {low}")
    if options.folds and (options.monte_carlo or options.folds < 2):
        found = f"{options.folds}{' with --monte_carlo' * options.monte_carlo}"
        raise UserError(f"--folds: found {found}, expected 2 or more, or --monte_carlo instead")
    for name, low in (("jobs", 1), ("threads", 0), ("validate_every", 0)):
        if getattr(options, name) < low:
            raise UserError(f"--{name}: found {getattr(options, name)}, expected {low} or more")


def check_files(options: argparse.Namespace, words: Sequence[str]) -> None:
    """Check what the bundle's configuration and the paths decide.

    Args:
        options: All options.
        words: Further words of the command line, the overrides.

    Raises:
        UserError: an unknown key, or a folder or a file that does not exist.
    """
    given = read_overrides(words)
    file = find_bundle(options.bundle) / "configs" / TASKS[options.task].files[0]
    if file.is_file():  # `read_configs` reports the other case
        check_overrides(given, yaml.safe_load(file.read_text()), file.name)
    for name, path in read_arms(options.arms).items():
        if path not in ("", "scratch") and "{" not in path:  # those of a cell are filled in
            try:
                resolve_pretrained(path)
            except UserError as error:
                raise UserError(f"--arms {name}: {error}") from error
    check_paths({**given, "dataset_dir": read_value("dataset_dir", options.dataset_dir)})


def main(words: Sequence[str]) -> int:
    """The command. Exit code 0, or 1 where a cell failed."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s")
    options, rest = make_parser().parse_known_args(words)
    check_study_options(options, rest)
    if options.study:
        read_yaml(Path(options.study))
        from pretext3d.commands.compare.study.study import run_study

        return run_study(options)
    options.output_dir = options.output_dir or "runs/compare"
    if options.report_only:
        read_overrides(rest)
        from pretext3d.commands.compare.compare import report_only

        return report_only(Path(options.output_dir))
    check_options(options)
    check_files(options, rest)
    from pretext3d.commands.compare.compare import compare

    return compare(options, rest)

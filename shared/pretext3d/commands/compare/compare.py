"""Does pre-training help on these data? Arms x numbers of labelled cases x seeds under one budget.

Each cell (arm, number of labelled cases, seed) is a fine-tuning by a bundle's finetune.yaml with the same
steps and the same labelled cases for every arm, then an evaluation of its last weights on the same held-out
cases (the test set where there is one): there is no validation during training, so no choice of weights that
could favour an arm. Numbers of labelled cases count subjects, each with all its volumes.
The rest: plan.py (what is compared), cells.py (running it), report.py (the tables).
"""

import argparse
import json
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pretext3d.commands.bundles import find_bundle
from pretext3d.commands.compare.cells import Cell, CellRunner, difference, read_json, run_cells, write_json
from pretext3d.commands.compare.plan import (
    BUDGET,
    Arms,
    check_overrides,
    leak,
    read_configs,
    resolved,
    top_key,
)
from pretext3d.commands.compare.report import write_report
from pretext3d.commands.parser import command_parser, read_overrides
from pretext3d.data.splits import SPLIT, evaluation_cases
from pretext3d.data.subjects import by_subject, volume_of
from pretext3d.errors import UserError
from pretext3d.messages import printable, say
from pretext3d.ops.checks import check_spatial_dims
from pretext3d.training.arguments import read_value

EXAMPLES = """
arms
  scratch        random initial weights
  restart        trained twice: starts from the finished scratch cell with the same labels and seed
  NAME=PATH      a pre-trained run, bundle or checkpoint; NAME is yours. {num_labelled} and {seed} in PATH
                 stand for the cell's: NAME='runs/roi_n{num_labelled}_seed{seed}', one pre-training per cell
The backbone of an arm is transferred, and its output layer where it is one of this segmentation (the same
classes and decoder): that of restart, or of any such fine-tuned run. Pre-training has none; a new one starts.

examples
  pretext3d compare --dataset_dir ../data/hippocampus --arms scratch restart vectorpose=runs/vp \\
      --num_labelled 4 12 --seeds 0 1 2 --output_dir runs/compare --jobs 2
  the same command again continues where it was stopped; more arms, numbers or seeds add to what is there
  pretext3d compare --report_only --output_dir runs/compare

Any other --key value is an override of finetune.yaml, the same for every arm: --max_epochs 20
--steps_per_epoch 50 --batch_size 4 --val_fraction 0.275 --optimizer::lr 0.0005 ... Pre-train with the same
val_fraction, so that no held-out case has been seen.
"""


def make_parser() -> argparse.ArgumentParser:
    """The command's own options; other words are overrides."""
    parser = command_parser(
        "compare",
        "Compare pre-trained weights with training from scratch: table, plot, CSV of all cases.",
        EXAMPLES,
    )
    add, default = parser.add_argument, "default: %(default)s"
    add(
        "--dataset_dir",
        default="",
        help="labelled cases, a folder or \"['A','B']\"; default: the embedded phantom",
    )
    add("--arms", nargs="+", default=["scratch"], metavar="ARM", help="see below; default: scratch")
    add("--num_labelled", nargs="+", type=int, default=[4], metavar="N", help="labelled subjects; default: 4")
    add("--seeds", nargs="+", type=int, default=[0, 1, 2], metavar="SEED", help="default: 0 1 2")
    add(
        "--monte_carlo",
        action="store_true",
        help="each seed holds out other cases (split_seed = seed); default: the same for all seeds",
    )
    add("--output_dir", default="runs/compare", help=default)
    add(
        "--bundle",
        default="",
        help="folder of the bundle whose finetune.yaml runs; default: vectorpose, or the unzipped bundle",
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
    return parser


def check_options(options: argparse.Namespace) -> None:
    """Check what argparse does not."""
    for name, low in (("num_labelled", 1), ("seeds", 0)):
        values = getattr(options, name)
        if min(values) < low or len(set(values)) < len(values):
            raise UserError(f"--{name}: found {values}, expected different integers from {low}")
    for name, low in (("jobs", 1), ("threads", 0)):
        if getattr(options, name) < low:
            raise UserError(f"--{name}: found {getattr(options, name)}, expected {low} or more")


def save_plan(
    output_dir: Path, arms: Mapping[str, str], warnings: Mapping[str, str], cases: Mapping[int, Any]
) -> None:
    """Add this call's arms, warnings and cases by seed to comparison.json, next to those of earlier calls."""
    file = output_dir / "comparison.json"
    before = read_json(file) if file.exists() else {}
    kept = {name: text for name, text in before.get("warnings", {}).items() if name not in arms}
    content = {
        "arms": {**before.get("arms", {}), **arms},
        "warnings": {**kept, **warnings},
        "held_out": before.get("held_out", {}),
        "labelled_pool": before.get("labelled_pool", {}),
    }
    for seed, found in cases.items():
        content["held_out"][str(seed)] = volumes(evaluation_cases(found))
        content["labelled_pool"][str(seed)] = volumes(found["train"])
    write_json(file, content)


def volumes(cases: Sequence[Mapping[str, Any]]) -> list[str]:
    """The ids of the cases, sorted; of slices those of their volumes."""
    return sorted({volume_of(case) for case in cases})


def check_earlier(output_dir: Path, common: Mapping[str, Any]) -> None:
    """Refuse to mix with cells of another budget or data set, whichever arms they are of."""
    for file in sorted((output_dir / "cells").glob("*/settings.json")):
        lines = difference(read_json(file)["settings"]["common"], common)
        if lines:
            raise UserError(
                f"{file.parent}: was run with other settings: {'; '.join(lines)}. All cells of a table need "
                "the same: use another --output_dir"
            )


@contextmanager
def lock(output_dir: Path) -> Iterator[tuple[int, ...]]:
    """Hold the folder until this program, and every cell that may outlive it, has ended.

    Yields the descriptors that the cells' processes have to keep open for that.
    """
    try:
        import fcntl
    except ImportError:  # no such locks on this system
        yield ()
        return
    with (output_dir / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise UserError(
                f"{output_dir}: a comparison, or a cell that outlived one, is running there"
            ) from error
        yield (file.fileno(),)


def clock(seconds: float) -> str:
    """A time as text.

    Examples:
        >>> clock(42), clock(720), clock(12600)
        ('42 s', '12 min', '3.5 h')
    """
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def run_all(cells: Sequence[Cell], runner: Any, output_dir: Path, jobs: int) -> list[str]:
    """Run what is not done yet, one line per cell, with a new report after each. Names of failed cells."""
    from tqdm import tqdm

    done = {cell.name for cell in cells if runner.is_done(cell)}
    todo = [cell for cell in cells if cell.name not in done]
    tqdm.write(printable(f"{len(cells)} cells, {len(done)} of them done already; in {output_dir}"))
    if done:
        write_report(output_dir, len(cells))
    times: list[float] = []
    ended: list[str] = []

    def finished(cell: Cell, dice: float | None, problem: str, seconds: float) -> None:
        ended.append(cell.name)
        bar.update()
        head = f"[{len(done) + len(ended)}/{len(cells)}] {cell.title}:"
        if dice is None:
            bar.write(printable(f"{head} FAILED: {problem}"))
            return
        times.append(seconds)
        rounds = -(-(len(todo) - len(ended)) // jobs)
        left = f"; about {clock(rounds * sum(times) / len(times))} to go" if rounds else ""
        bar.write(printable(f"{head} Dice {dice:.3f} in {clock(seconds)}{left}"))
        write_report(output_dir, len(cells))

    with tqdm(total=len(todo), unit="cell", disable=None, leave=False) as bar:
        return run_cells(todo, done, runner, jobs, finished)


def compare(options: argparse.Namespace, words: Sequence[str]) -> int:
    """Plan, check, run and report. Returns the exit code."""
    from pretext3d.training.record import output_layer

    check_options(options)
    given = read_overrides(words)
    configs = find_bundle(options.bundle) / "configs"
    finetune, evaluate, digest = read_configs(configs)
    check_overrides(given, finetune)
    if options.monte_carlo and "split_seed" in given:
        raise UserError(
            "--split_seed: found with --monte_carlo, which sets it to each seed; expected one of them"
        )
    spatial_dims = given.get("spatial_dims", finetune.get("spatial_dims", 3))
    check_spatial_dims(spatial_dims)
    arms = Arms(options.arms, options.num_labelled, options.seeds, options.encoder, spatial_dims)
    dataset_dir = read_value("dataset_dir", options.dataset_dir)
    if isinstance(dataset_dir, list):
        given = {"dataset_dir": [str(Path(folder).resolve()) for folder in dataset_dir], **given}
    else:
        given = {"dataset_dir": str(Path(dataset_dir).resolve()) if dataset_dir else "", **given}
    cases: dict[int, Any] = {}
    for seed in options.seeds:
        split = {"split_seed": seed} if options.monte_carlo else {}
        if split or not cases:
            wanted = [*BUDGET, "settings", "decoder", "cases"]
            facts = resolved(configs / "finetune.yaml", {**given, **split, "num_labelled": 0}, wanted)
            cases[seed], settings, decoder = (facts.pop(key) for key in ("cases", "settings", "decoder"))
        cases.setdefault(seed, next(iter(cases.values())))
    measured = {seed: evaluation_cases(found) for seed, found in cases.items()}
    splits = {tuple(volumes(found)) for found in measured.values()}
    if options.monte_carlo and len(splits) < len(cases):
        raise UserError(
            "--monte_carlo: seeds hold out the same cases (the data list or --fold decides); expected a "
            "split by seed"
        )
    most = min(len(by_subject(found["train"])) for found in cases.values())
    held_out = len(volumes(next(iter(measured.values()))))
    if max(options.num_labelled) > most:
        raise UserError(
            f"--num_labelled: found {max(options.num_labelled)}, expected at most {most}: the labelled "
            f"subjects that train, with {held_out} cases held out"
        )
    encoder = arms.encoder or settings["encoder"]
    tuning = {**given, "encoder": encoder}
    facts |= {"split_seed": "each cell's seed"} if options.monte_carlo else {}
    if spatial_dims == 2 or (isinstance(dataset_dir, list) and len(dataset_dir) > 1):
        facts["evaluation"] = "per volume, subjects of each data set"  # other than in earlier versions
    # in JSON's form, so that it can be compared with what is on disk
    common = json.loads(json.dumps({**tuning, **facts, "configuration": digest}, default=str))

    output_dir = Path(options.output_dir).resolve()
    (output_dir / "cells").mkdir(parents=True, exist_ok=True)
    with lock(output_dir) as descriptors:
        check_earlier(output_dir, common)
        # the evaluation takes channels, split, spacing and crop from the checkpoint, not from these
        replaced = {top_key(key) for key in evaluate}
        evaluation = {key: value for key, value in tuning.items() if top_key(key) not in replaced}
        limit = os.environ.get("OMP_NUM_THREADS", "")
        cores = int(limit) if limit.isdigit() and int(limit) else (os.cpu_count() or 1) // options.jobs
        threads = options.threads or max(1, cores)
        runner = CellRunner(
            output_dir / "cells",
            configs,
            common,
            tuning,
            evaluation,
            threads,
            descriptors,
            options.monte_carlo,
            output_layer(decoder, next(iter(cases.values()))),
        )
        cells = [
            Cell(arms.at(name, n, seed), n, seed)
            for seed in options.seeds
            for n in options.num_labelled
            for name in arms.names
        ]
        for cell in cells:
            runner.is_done(cell)  # refuses other settings, before anything runs
        warnings = {}
        for name, weights in arms.weights().items():
            split = {key: given.get(key, finetune.get(key, value)) for key, value in SPLIT.items()}
            texts = [
                leak(
                    arm,
                    measured[seed],
                    {**split, **({"split_seed": seed} if options.monte_carlo else {})},
                    tested=bool(cases[seed]["test"]),
                )
                for arm, seed in weights
            ]
            if any(texts):
                warnings[name] = next(text for text in texts if text)
        for text in warnings.values():
            say(f"warning: {text}", error=True)
        say(
            f"{held_out} held-out cases{' of each seed' * options.monte_carlo}, {most} subjects to choose "
            f"from for labels; encoder {encoder}; cells run {options.jobs} at a time, with {threads} threads "
            "each"
        )
        paths = {
            name: next(a.pretrained for (n, _, _), a in arms.cells.items() if n == name)
            for name in arms.names
        }
        save_plan(output_dir, paths, warnings, cases)
        return ending(output_dir, run_all(cells, runner, output_dir, options.jobs))


def ending(output_dir: Path, failed: Sequence[str]) -> int:
    """Report what was written and what failed. Returns the exit code."""
    if (output_dir / "summary.md").exists():
        first = (output_dir / "summary.md").read_text().partition("| labelled")
        say("\n" + "".join(first[1:]).partition("\n\n")[0] + "\n")
        say(f"wrote summary.md, results.csv and label_efficiency.png in {output_dir}")
    if failed:
        names = ", ".join(failed)
        say(f"{len(failed)} cells failed: {names}; the same command tries them again", error=True)
    return 1 if failed else 0


def main(words: Sequence[str]) -> int:
    """The command. Exit code 0, or 1 where a cell failed."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s")
    options, rest = make_parser().parse_known_args(words)
    if options.report_only:
        read_overrides(rest)
        write_report(Path(options.output_dir))
        return ending(Path(options.output_dir), [])
    return compare(options, rest)

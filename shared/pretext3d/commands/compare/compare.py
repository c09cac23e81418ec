"""Does pre-training help on these data? Arms x numbers of labelled cases x seeds x folds under one budget.

Each cell (arm, number of labelled cases, seed, fold) is a fine-tuning by a bundle's finetune.yaml, or
finetune_classification.yaml, with the same epochs and the same labelled cases for every arm, then an
evaluation of its last weights on the same held-out cases (the test set where there is one): no validation
chooses weights, which could favour an arm. Numbers of labelled cases count subjects, each with all its
volumes. The rest: plan.py (what is compared), folder.py (its files), cells.py (running it), tasks.py and
report.py (the tables).
"""

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

from pretext3d.commands.bundles import find_bundle
from pretext3d.commands.compare.arms import check_overrides, read_settings
from pretext3d.commands.compare.cells import Cell, CellRunner
from pretext3d.commands.compare.folder import (
    check_earlier,
    fold_table,
    folds_of,
    lock,
    save_plan,
    volumes,
)
from pretext3d.commands.compare.options import engine_of
from pretext3d.commands.compare.plan import (
    BUDGET,
    Arms,
    leak,
    numbers_of,
    read_configs,
    resolved,
)
from pretext3d.commands.compare.processes import threads_each
from pretext3d.commands.compare.report import write_report
from pretext3d.commands.compare.running import run_cells, run_rest
from pretext3d.commands.compare.tasks import SEGMENTATION, TASKS, Task
from pretext3d.commands.parser import read_overrides, top_key
from pretext3d.data.splits import SPLIT, evaluation_cases
from pretext3d.data.subjects import by_subject
from pretext3d.errors import UserError
from pretext3d.files import write_whole
from pretext3d.messages import say
from pretext3d.ops.checks import check_spatial_dims
from pretext3d.training.arguments import read_value

PARTS = ("train", "val", "test")  # of the cases


def run_all(
    cells: Sequence[Cell],
    runner: Any,
    output_dir: Path,
    jobs: int,
    task: Task = SEGMENTATION,
    engine: Callable[..., list[str]] = run_cells,
) -> list[str]:
    """Run what is not done yet, one line per cell, with a new report after each. Names of failed cells."""
    done = {cell.name for cell in cells if runner.is_done(cell)}
    if done:
        write_report(output_dir, len(cells))
    return run_rest(
        cells,
        done,
        runner,
        jobs,
        place=str(output_dir),
        result=lambda cell, score: f"{task.title} {score:.3f}",
        after=lambda: write_report(output_dir, len(cells)),
        engine=engine,
    )


def splits(
    options: argparse.Namespace, configs: Path, given: Mapping[str, Any], task: Task
) -> tuple[dict[int, Any], dict[str, Any]]:
    """The cases of each split, by its seed or fold, and the other entries of the resolved configuration.

    Without --monte_carlo and --folds all seeds share one split.

    Raises:
        UserError: splits that are the same, or a test set in a cross-validation.
    """
    wanted = [*BUDGET, "settings", *(["decoder"] if task is SEGMENTATION else []), "cases"]
    cases: dict[int, Any] = {}
    facts: dict[str, Any] = {}
    for seed in options.seeds:
        split = {"split_seed": seed} if options.monte_carlo else {}
        if split or not cases:
            given_here = {**given, **split, "num_labelled": 0}
            facts = resolved(configs / task.files[0], given_here, wanted)
            cases[seed] = facts.pop("cases")
        cases.setdefault(seed, next(iter(cases.values())))
    if options.folds:
        found = next(iter(cases.values()))
        if found["test"]:
            raise UserError(
                f"test_fraction: found {len(volumes(found['test']))} test cases with --folds, which measures "
                "every subject once; expected 0"
            )
        return folds_of(found, options.folds, facts["split_seed"]), facts
    held = {tuple(volumes(evaluation_cases(found))) for found in cases.values()}
    if options.monte_carlo and len(held) < len(cases):
        raise UserError(
            "--monte_carlo: seeds hold out the same cases (the data list or --fold decides); expected a "
            "split by seed"
        )
    return cases, facts


def check_same_cases(
    arms: Arms,
    configs: Path,
    given: Mapping[str, Any],
    task: Task,
    cases: Mapping[str, Any],
    folds: bool = False,
) -> None:
    """Refuse an arm whose own keys, as those of slices, give it other cases than the others have.

    With `folds`, which are assigned afterwards, the cases of all parts together are compared.
    """
    parts = {", ".join(PARTS): PARTS} if folds else {part: (part,) for part in PARTS}
    keys = {"spatial_dims", "slices", "frames", "modalities", "channels", "pixdim", "roi_size"}
    for name, own in arms.overrides.items():
        if not keys & {top_key(key) for key in own}:
            continue
        try:
            files = configs / task.files[0]
            found = resolved(files, {**given, "encoder": "", **own, "num_labelled": 0}, ["cases"])["cases"]
        except UserError as error:
            raise UserError(f"--set {name}: {error}") from error
        for title, names in parts.items():
            there, here = (volumes([case for part in names for case in of[part]]) for of in (cases, found))
            if there != here:
                raise UserError(
                    f"--set {name}: found {len(here)} cases in {title}, {len(set(there) & set(here))} of "
                    f"them among the {len(there)} of the other arms; expected the same cases"
                )


def compare(options: argparse.Namespace, words: Sequence[str]) -> int:
    """Plan, check, run and report. Returns the exit code."""
    from pretext3d.training.record import output_layer

    engine = engine_of(options, Path(options.output_dir).resolve())
    task = TASKS[options.task]
    given = read_overrides(words)
    configs = find_bundle(options.bundle) / "configs"
    finetune, evaluate, digest = read_configs(configs, task)
    check_overrides(given, finetune, task.files[0])
    for option in ("monte_carlo", "folds"):
        key = {"monte_carlo": "split_seed", "folds": "fold"}[option]
        if getattr(options, option) and key in given:
            raise UserError(f"--{key}: found with --{option}, which sets it; expected one of them")
    spatial_dims = given.get("spatial_dims", finetune.get("spatial_dims", 3))
    check_spatial_dims(spatial_dims)
    own = read_settings(options.set, finetune, task.files[0])
    folds: Sequence[int | None] = list(range(options.folds)) or [None]

    def arms_for(numbers: Sequence[int]) -> Arms:
        return Arms(options.arms, numbers, options.seeds, options.encoder, spatial_dims, folds, own)

    arms = arms_for([1] if options.label_fractions else options.num_labelled)
    dataset_dir = read_value("dataset_dir", options.dataset_dir)
    if isinstance(dataset_dir, list):
        given = {"dataset_dir": [str(Path(folder).resolve()) for folder in dataset_dir], **given}
    else:
        given = {"dataset_dir": str(Path(dataset_dir).resolve()) if dataset_dir else "", **given}
    cases, facts = splits(options, configs, given, task)
    settings, decoder = facts.pop("settings"), facts.pop("decoder", "")
    measured = {split: evaluation_cases(found) for split, found in cases.items()}
    pools = {split: len(by_subject(found["train"])) for split, found in cases.items()}
    most = min(pools.values())
    held_out = len(volumes(next(iter(measured.values()))))
    fractions = numbers_of(options.label_fractions, pools.values())
    if fractions:
        options.num_labelled = list(fractions)
        arms = arms_for(options.num_labelled)
    elif max(options.num_labelled) > most:
        raise UserError(
            f"--num_labelled: found {max(options.num_labelled)}, expected at most {most}: the labelled "
            f"subjects that train, with {held_out} cases held out"
        )
    first = {**given, **({"split_seed": options.seeds[0]} if options.monte_carlo else {})}
    of_first = next(iter(cases.values())) if options.folds else cases[options.seeds[0]]
    check_same_cases(arms, configs, first, task, of_first, folds=bool(options.folds))
    encoder = arms.encoder or settings["encoder"]
    tuning = {**given, "encoder": encoder}
    facts |= {"split_seed": "each cell's seed"} if options.monte_carlo else {}
    facts |= {"task": task.name} if task is not SEGMENTATION else {}
    facts |= {"validate_every": options.validate_every} if options.validate_every else {}
    listed = fold_table(cases) if options.folds else ""
    if options.folds:
        facts |= {"folds": options.folds, "folds.csv": sha256(listed.encode()).hexdigest()[:16]}
    several = isinstance(dataset_dir, list) and len(dataset_dir) > 1
    if task is SEGMENTATION and (spatial_dims == 2 or several):
        facts["evaluation"] = "per volume, subjects of each data set"  # other than in earlier versions
    # in JSON's form, so that it can be compared with what is on disk
    common = json.loads(json.dumps({**tuning, **facts, "configuration": digest}, default=str))

    output_dir = Path(options.output_dir).resolve()
    (output_dir / "cells").mkdir(parents=True, exist_ok=True)
    with lock(output_dir) as descriptors:
        check_earlier(output_dir, common)
        if options.folds:
            write_whole(output_dir / "folds.csv", listed)
        # the evaluation takes channels, split, spacing and crop from the checkpoint, not from these
        replaced = {top_key(key) for key in evaluate}
        evaluation = {key: value for key, value in tuning.items() if top_key(key) not in replaced}
        threads = threads_each(options.threads, options.jobs)
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
            task,
            replaced,
            options.validate_every,
            str(output_dir / "folds.csv"),
            pools,
        )
        cells = [
            Cell(arms.at(name, n, seed, fold), n, seed, fold)
            for fold in folds
            for seed in options.seeds
            for n in options.num_labelled
            for name in arms.names
        ]
        for cell in cells:
            runner.is_done(cell)  # refuses other settings, before anything runs
        warnings = {}
        for name, weights in arms.weights().items():
            split = {key: given.get(key, finetune.get(key, value)) for key, value in SPLIT.items()}
            key = "fold" if options.folds else "split_seed" if options.monte_carlo else ""
            texts = [
                leak(
                    arm,
                    measured[one],
                    {**split, **({key: one} if key else {})},
                    tested=bool(cases[one]["test"]),
                )
                for arm, one in weights
            ]
            if any(texts):
                warnings[name] = next(text for text in texts if text)
        for text in warnings.values():
            say(f"warning: {text}", error=True)
        each = f" of each {'fold' if options.folds else 'seed'}" * bool(options.folds or options.monte_carlo)
        say(
            f"{held_out} held-out cases{each}, {most} subjects to choose "
            f"from for labels; encoder {encoder}; cells run {options.jobs} at a time, with {threads} threads "
            "each"
        )
        paths = {
            name: next((a.pretrained for key, a in arms.cells.items() if key[0] == name), "")
            for name in arms.names
        }
        more: dict[str, Any] = {"task": task.name} if task is not SEGMENTATION else {}
        more |= {"fractions": {str(n): f for n, f in fractions.items()}} if fractions else {}
        save_plan(output_dir, paths, warnings, cases, more)
        return ending(output_dir, run_all(cells, runner, output_dir, options.jobs, task, engine))


def ending(output_dir: Path, failed: Sequence[str]) -> int:
    """Report what was written and what failed. Returns the exit code."""
    if (output_dir / "summary.md").exists():
        first = (output_dir / "summary.md").read_text().partition("| labelled")
        say("\n" + "".join(first[1:]).partition("\n\n")[0] + "\n")
        curves = ", convergence.csv, convergence.png" * (output_dir / "convergence.png").exists()
        say(f"wrote summary.md, results.csv{curves} and label_efficiency.png in {output_dir}")
    if failed:
        names = ", ".join(failed)
        say(f"{len(failed)} cells failed: {names}; the same command tries them again", error=True)
    return 1 if failed else 0


def report_only(output_dir: Path) -> int:
    """Write the tables and the plot of what is done. Returns the exit code."""
    write_report(output_dir)
    return ending(output_dir, [])

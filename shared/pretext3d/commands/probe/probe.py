"""The command `probe`: reads the features of every run once, fits the readers, writes tables and figures."""

import argparse
import logging
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import yaml

from pretext3d.commands.bundles import find_bundle
from pretext3d.commands.compare.figures import draw_efficiency
from pretext3d.commands.compare.plan import numbers_of
from pretext3d.commands.compare.probes import INTENSITIES, READERS, probe_table
from pretext3d.commands.compare.tasks import CLASSIFICATION
from pretext3d.commands.parser import read_overrides
from pretext3d.commands.probe.cases import CASE, Cases, per_case
from pretext3d.commands.probe.features import intensity_features, network_features, predictions
from pretext3d.commands.probe.options import (
    FILE,
    Source,
    check_keys,
    check_options,
    encoder_of,
    make_parser,
    read_sources,
)
from pretext3d.errors import UserError
from pretext3d.files import replacing
from pretext3d.messages import say
from pretext3d.training.arguments import read_value


def probe(options: argparse.Namespace, words: Sequence[str]) -> int:
    """Read the features of every run, fit the readers, write the tables. Returns the exit code."""
    check_options(options)
    sources, output_dir = read_sources(options.runs), Path(options.output_dir)
    if (output_dir / "probe.csv").exists():
        raise UserError(f"--output_dir: found {output_dir / 'probe.csv'}, expected a folder without one")
    config = find_bundle(options.bundle) / "configs" / FILE
    if not config.is_file():
        raise UserError(f"--bundle: {config.parents[1]} has no configs/{FILE}; expected a bundle's folder")
    given = read_overrides(words)
    known = yaml.safe_load(config.read_text())
    check_keys(given, known)
    dataset_dir = read_value("dataset_dir", options.dataset_dir)
    given = {"dataset_dir": dataset_dir, "class_file": options.class_file, **given}
    encoder = encoder_of(sources, options.encoder, given.get("spatial_dims", known["spatial_dims"]))
    cases = Cases(config, given, options.measured)
    fractions = numbers_of(options.label_fractions, [cases.pool])
    numbers = list(fractions) or options.num_labelled
    if max(numbers) > cases.pool:
        raise UserError(
            f"--num_labelled: found {max(numbers)}, expected at most {cases.pool}: the subjects that train"
        )
    chosen = {(n, seed): cases.labelled(n, seed) for n in numbers for seed in options.seeds}
    tables: list[pd.DataFrame] = []
    arms = [source.name for source in sources] + [INTENSITIES]
    for source in [*sources, Source(INTENSITIES, "")]:
        say(f"{source.name}: reading {len(cases.groups)} cases", flush=True)
        features = None
        for seed in options.seeds:
            if source.name == INTENSITIES:
                features = intensity_features(cases) if features is None else features
            elif features is None or not source.path:  # random weights: those of each seed
                features = network_features(cases, source, encoder, seed)
            for n in numbers:
                for reader, found, c in predictions(features, cases, chosen[n, seed], options.neighbours):
                    cell = {"arm": source.name, "num_labelled": n, "seed": seed, "reader": reader, "c": c}
                    tables.append(per_case(cases, found).assign(**cell)[[*cell, *CASE]])
    results = pd.concat(tables, ignore_index=True)
    counts = f"{int(cases.held_out.sum())} held-out cases of {len(cases.class_names)} classes"
    lines = [
        f"Balanced accuracy on {counts} (chance {1 / len(cases.class_names):.3f}), by frozen features; mean "
        "± standard deviation over the seeds, p corrected for the arms; *labelled* counts subjects.", "",
        *probe_table(results, arms, fractions),
    ]  # fmt: skip
    output_dir.mkdir(parents=True, exist_ok=True)
    with replacing(output_dir / "probe.md") as draft:
        draft.write_text("\n".join(lines) + "\n")
    with replacing(output_dir / "probe.csv") as draft:
        results.to_csv(draft, index=False, float_format="%.5g")
    for reader in READERS:
        with replacing(output_dir / f"{reader}.png") as draft:
            cells = CLASSIFICATION.per_cell(results[results["reader"] == reader])
            draw_efficiency(cells, arms, draft, CLASSIFICATION, fractions)
    names = ", ".join(f"{reader}.png" for reader in READERS)
    say("\n".join(["", *lines, "", f"wrote probe.csv, probe.md, {names} in {output_dir}"]))
    return 0


def main(words: Sequence[str]) -> int:
    """The command."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s")
    parser = make_parser()
    options, rest = parser.parse_known_args(words)
    if words[0].startswith("-"):  # argparse would take the value of an override for a run
        parser.error("expected the runs before the options")
    return probe(options, rest)

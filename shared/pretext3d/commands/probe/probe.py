"""The command `probe`: reads the features of every run once, fits the readers, writes tables and figures."""

import argparse
from pathlib import Path

import pandas as pd

from pretext3d.commands.compare.arms import INTENSITIES
from pretext3d.commands.compare.figures import draw_efficiency
from pretext3d.commands.compare.plan import numbers_of
from pretext3d.commands.compare.probes import READERS, probe_table
from pretext3d.commands.compare.tasks import CLASSIFICATION
from pretext3d.commands.probe.cases import CASE, Cases, per_case
from pretext3d.commands.probe.features import intensity_features, network_features, predictions
from pretext3d.commands.probe.options import Request, Source, network_of
from pretext3d.errors import UserError
from pretext3d.files import replacing
from pretext3d.messages import say


def probe(options: argparse.Namespace, request: Request) -> int:
    """Read the features of every run, fit the readers, write the tables. Returns the exit code."""
    sources, output_dir = request.sources, Path(options.output_dir)
    network = network_of(sources, options.encoder, request.spatial_dims)
    cases = Cases(request.config, request.given, options.measured)
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
                features = network_features(cases, source, network, seed)
            for n in numbers:
                for reader, found, c in predictions(features, cases, chosen[n, seed], options.neighbours):
                    cell = {"arm": source.name, "num_labelled": n, "seed": seed, "reader": reader, "c": c}
                    tables.append(per_case(cases, found).assign(**cell)[[*cell, *CASE]])
    results = pd.concat(tables, ignore_index=True)
    counts = f"{int(cases.held_out.sum())} held-out cases of {len(cases.class_names)} classes"
    lines = [
        f"Balanced accuracy on {counts} (chance {1 / len(cases.class_names):.3f}), by frozen features; mean "
        "± standard deviation over the seeds, p corrected for all arms and numbers of labels of a reader; "
        "*labelled* counts subjects.", "",
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

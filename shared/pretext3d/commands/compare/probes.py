"""The table of probes of frozen features, of the command `probe` and of a study's report."""

from collections.abc import Mapping, Sequence

import pandas as pd

from pretext3d.commands.compare.report import amount, p_value, signed, summarise
from pretext3d.commands.compare.tasks import CLASSIFICATION
from pretext3d.commands.compare.text import markdown, spread

__all__ = ["BASELINES", "INTENSITIES", "READERS", "probe_table"]

READERS = {"linear": "linear probe", "knn": "nearest neighbours"}
INTENSITIES = "intensities"  # arm without a network
BASELINES = ("scratch", INTENSITIES)  # the first one there is


def probe_table(results: pd.DataFrame, arms: Sequence[str], fractions: Mapping[int, float]) -> list[str]:
    """Balanced accuracies in Markdown, and their paired differences to the first arm of BASELINES.

    Where none of BASELINES is among the arms there are scores without differences.

    Args:
        results: What probe.csv holds.
        arms: Names of the arms, in order.
        fractions: Fraction that a number of labelled subjects is, where fractions were given.
    """
    baseline = next((name for name in BASELINES if name in arms), "")
    header = ["labelled", "arm"]
    for title in READERS.values():
        header += [title, f"difference to {baseline} [95 %]", "p"] if baseline else [title]
    tables = {
        reader: summarise(
            results[results["reader"] == reader], arms, baseline or arms[0], task=CLASSIFICATION
        )
        for reader in READERS
    }
    rows = []
    for both in zip(*(tables[reader].to_dict("records") for reader in READERS), strict=True):
        row = [amount(both[0]["num_labelled"], fractions), both[0]["arm"]]
        for one in both:
            row.append(spread(one["balanced_accuracy"], one["balanced_accuracy_std"], 3))
            if baseline:
                cut = signed(one["difference_mean"], one["difference_low"], one["difference_high"])
                row += [cut, p_value(one["difference_p"])]
        rows.append(row)
    return markdown(header, rows)

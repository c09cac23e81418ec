"""The table of probes of frozen features, of the command `probe` and of a study's report."""

from collections.abc import Mapping, Sequence

import pandas as pd

from pretext3d.commands.compare.arms import INTENSITIES
from pretext3d.commands.compare.report import amount, p_value, signed, summarise
from pretext3d.commands.compare.tasks import CLASSIFICATION
from pretext3d.commands.compare.text import markdown, spread

__all__ = [
    "BASELINES",
    "READERS",
    "baseline_of",
    "probe_lines",
    "probe_table",
    "probe_tables",
]

READERS = {"linear": "linear probe", "knn": "nearest neighbours"}
BASELINES = ("scratch", INTENSITIES)  # the first one there is


def probe_tables(results: pd.DataFrame, arms: Sequence[str]) -> dict[str, pd.DataFrame]:
    """The summary of each reader: balanced accuracies, and paired differences to the arms' `baseline_of`.

    P-values are corrected for all arms and numbers of labels of a reader, see `statistics.holm`.

    Args:
        results: What probe.csv holds.
        arms: Names of the arms, in order.
    """
    baseline = baseline_of(arms) or arms[0]
    return {
        reader: summarise(
            results[results["reader"] == reader], arms, baseline, task=CLASSIFICATION, jointly=True
        )
        for reader in READERS
    }


def baseline_of(arms: Sequence[str]) -> str:
    """The arm that others are compared with; '' where there is none.

    Examples:
        >>> baseline_of(["vp", "intensities", "scratch"]), baseline_of(["vp"])
        ('scratch', '')
    """
    return next((name for name in BASELINES if name in arms), "")


def probe_table(results: pd.DataFrame, arms: Sequence[str], fractions: Mapping[int, float]) -> list[str]:
    """Balanced accuracies in Markdown, and their paired differences to the first arm of BASELINES.

    Where none of BASELINES is among the arms there are scores without differences.

    Args:
        results: What probe.csv holds.
        arms: Names of the arms, in order.
        fractions: Fraction that a number of labelled subjects is, where fractions were given.
    """
    return probe_lines(probe_tables(results, arms), baseline_of(arms), fractions)


def probe_lines(
    tables: Mapping[str, pd.DataFrame], baseline: str, fractions: Mapping[int, float]
) -> list[str]:
    """The lines of `probe_table` from the summaries of `probe_tables`."""
    header = ["labelled", "arm"]
    for title in READERS.values():
        header += [title, f"difference to {baseline} [95 %]", "p"] if baseline else [title]
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

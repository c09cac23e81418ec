"""The words and tables of a comparison's summary."""

from collections.abc import Sequence

import numpy as np

CROSSED = "independent of each other, since the cases are the same for every seed"
NESTED = "each seed's subjects are drawn for it alone, since each seed holds out cases of its own"
FOLDED = (
    "folds in place of seeds, and each fold's subjects for it alone, of scores averaged over the seeds.\n"
    "Folds share training cases, so the interval is rough"
)
SEGMENTED = """Dice: the mean over the foreground classes of a case, then over the held-out cases; mean ±
standard deviation over the {over}. HD95:
the mean over the classes that both label and prediction have; *no distance* counts the (case, class)
pairs that only one of the two has: they have no distance and count 0 in the Dice, so an arm with more of
them looks better in HD95 than it is. A case of which neither has any class counts 1."""
CLASSIFIED = """Balanced accuracy: the fraction of each class's held-out cases that are found as it,
then the mean over the classes; AUC: of each class against the rest, then the mean. Classes that no held-out
case has are left out. Mean ± standard deviation over the {over}."""
NOTES = """A seed sets the first weights, the order of the data and which cases are labelled, the same
ones for every arm; *labelled* counts subjects, each with all its volumes.

Difference: arm - {baseline}, paired by (seed, case); the 95 % interval is a percentile bootstrap of
{draws:,} draws of seeds and of subjects, each with all its cases, with replacement:
{crossing}.
With three seeds or fewer it is rough; with one seed it covers the subjects only. p is that of a sign-flip
test over the subjects, two-sided, a subject's sign the same for all its cases and seeds, corrected for the
number of arms with as many labels by Holm's procedure: with five subjects none is below 0.06.
*restart* is scratch trained twice: what more training gives without any pre-training. An arm starts from the
output layer of its weights where it is one of this segmentation, as that of restart, and from a new one
otherwise."""


def spread(mean: float, std: float, digits: int) -> str:
    """`0.734 ± 0.012`; without the spread where there is only one seed."""
    if np.isnan(mean):
        return "none"
    return f"{mean:.{digits}f}" + ("" if np.isnan(std) else f" ± {std:.{digits}f}")


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """A table in Markdown."""
    return [f"| {' | '.join(line)} |" for line in [header, ["---"] * len(header), *rows]]

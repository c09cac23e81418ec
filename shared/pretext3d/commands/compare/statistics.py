"""The interval of a paired difference: a pigeonhole bootstrap of seeds and subjects.

Every seed is evaluated on the same held-out cases, so seeds and cases are crossed. Volumes of one subject are
alike, so subjects are drawn, each with all its cases, not cases.
Source: Owen 2007, The pigeonhole bootstrap, Annals of Applied Statistics 1(2).
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from pretext3d.errors import UserError

__all__ = ["DRAWS", "LEVEL", "bootstrap"]

DRAWS, LEVEL = 10_000, 0.95


def bootstrap(
    pairs: np.ndarray,
    nested: bool = False,
    draws: int = DRAWS,
    level: float = LEVEL,
    seed: int = 0,
    subjects: Sequence[str] | None = None,
    strata: Sequence[str] | None = None,
) -> tuple[float, float, float]:
    """Mean of a matrix, and the percentile interval of its pigeonhole bootstrap.

    mean = sum_sc u_s v_g(c) d_sc / sum_sc u_s v_g(c) over the entries that are there, with u and v the
    multinomial counts of how often seed s and the subject g(c) of case c are drawn; nested: v_sg are counts
    of each seed's own subjects. Where each case has its own subject, cases are drawn.

    Args:
        pairs: Differences (seeds, cases), NaN where there is no pair.
        nested: Whether each seed has its own cases.
        draws: Number of bootstrap draws.
        level: Level of the interval, 0 to 1.
        seed: Seed of the draws.
        subjects: Subject of each case; None = each case is one.
        strata: Stratum of each case; None = one for all.

    Returns:
        mean, lower and upper bound.

    Raises:
        UserError: another number of subjects, or of strata, than of cases.

    Examples:
        Two subjects of two volumes each, of differences 0 and 1: drawn are 0, 0.5 (twice as often) or 1.

        >>> bootstrap(np.array([[0.0, 0.0, 1.0, 1.0]]), level=0.4, subjects=["a", "a", "b", "b"])
        (0.5, 0.5, 0.5)
    """
    there = ~np.isnan(pairs)
    values = np.where(there, pairs, 0.0)
    random = np.random.default_rng(seed)
    rows, columns = pairs.shape
    for name, found in (("subjects", subjects), ("strata", strata)):
        if found is not None and len(found) != columns:
            raise UserError(f"{name}: found {len(found)}, expected one for each of the {columns} cases")
    # numbers in the order of the cases, so that subjects of one case are drawn as cases are
    group = np.arange(columns) if subjects is None else numbered(subjects)
    kind = np.zeros(columns, dtype=int) if strata is None else numbered(strata)
    members = [kind == k for k in range(int(kind.max()) + 1)]
    u = random.multinomial(rows, np.full(rows, 1 / rows), draws).astype(float)
    weights, sums = np.zeros((2, len(members), draws))
    if nested:
        for s in range(rows):
            if not there[s].any():
                continue
            own = numbered(group[there[s]])  # the subjects of this seed
            count = int(own.max()) + 1
            v = np.zeros((draws, columns))
            v[:, there[s]] = random.multinomial(count, np.full(count, 1 / count), draws)[:, own]
            for k, member in enumerate(members):
                weights[k] += u[:, s] * v[:, member].sum(axis=1)
                sums[k] += u[:, s] * (v[:, member] @ values[s, member])
    else:
        count = int(group.max()) + 1
        v = random.multinomial(count, np.full(count, 1 / count), draws).astype(float)[:, group]
        for k, member in enumerate(members):
            weights[k] = (u @ there[:, member] * v[:, member]).sum(axis=1)
            sums[k] = (u @ values[:, member] * v[:, member]).sum(axis=1)
    drawn = weights > 0
    means = np.divide(sums, weights, out=np.zeros_like(sums), where=drawn)
    some = drawn.any(axis=0)
    low, high = np.quantile(
        means.sum(axis=0)[some] / drawn.sum(axis=0)[some], [(1 - level) / 2, (1 + level) / 2]
    )
    each = [values[:, member].sum() / there[:, member].sum() for member in members if there[:, member].any()]
    return float(np.mean(each)), float(low), float(high)


def numbered(names: Sequence[object] | np.ndarray) -> np.ndarray:
    """Numbers from 0 in place of names, in the order in which these first occur."""
    return pd.factorize(np.asarray(names, dtype=object))[0]

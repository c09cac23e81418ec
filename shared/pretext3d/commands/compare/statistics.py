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

    Returns:
        mean, lower and upper bound.

    Raises:
        UserError: another number of subjects than of cases.

    Examples:
        Two subjects of two volumes each, of differences 0 and 1: drawn are 0, 0.5 (twice as often) or 1.

        >>> bootstrap(np.array([[0.0, 0.0, 1.0, 1.0]]), level=0.4, subjects=["a", "a", "b", "b"])
        (0.5, 0.5, 0.5)
    """
    there = ~np.isnan(pairs)
    values = np.where(there, pairs, 0.0)
    random = np.random.default_rng(seed)
    rows, columns = pairs.shape
    if subjects is not None and len(subjects) != columns:
        raise UserError(f"subjects: found {len(subjects)}, expected one for each of the {columns} cases")
    # numbers in the order of the cases, so that subjects of one case are drawn as cases are
    group = np.arange(columns) if subjects is None else pd.factorize(np.asarray(subjects, dtype=object))[0]
    groups = int(group.max()) + 1
    u = random.multinomial(rows, np.full(rows, 1 / rows), draws).astype(float)
    if nested:
        own = np.zeros((rows, groups), dtype=bool)  # the subjects of each seed
        for s in range(rows):
            own[s, group[there[s]]] = True
        shares = own / np.maximum(1, own.sum(axis=1, keepdims=True))
        drawn = (random.multinomial(int(n.sum()), p, draws) for n, p in zip(own, shares, strict=True))
        v = np.stack(list(drawn), axis=1)[:, :, group] * there
        weights = np.einsum("bs,bsc->b", u, v)
        sums = np.einsum("bs,sc,bsc->b", u, values, v, optimize=True)
    else:
        v = random.multinomial(groups, np.full(groups, 1 / groups), draws).astype(float)[:, group]
        weights = np.einsum("bs,sc,bc->b", u, there.astype(float), v, optimize=True)
        sums = np.einsum("bs,sc,bc->b", u, values, v, optimize=True)
    means = sums[weights > 0] / weights[weights > 0]
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(values.sum() / there.sum()), float(low), float(high)

"""Statistics of a paired difference: its bootstrap interval, a permutation test, and Holm's correction.

Every seed is evaluated on the same held-out cases, so seeds and cases are crossed. Volumes of one subject are
alike, so subjects are drawn, or change their sign, each with all its cases, not cases.
Sources: Owen 2007, The pigeonhole bootstrap, Annals of Applied Statistics 1(2). Fisher 1935, The Design of
Experiments, section 21; Phipson and Smyth 2010, Permutation p-values should never be zero, Statistical
Applications in Genetics and Molecular Biology 9(1). Holm 1979, A simple sequentially rejective multiple test
procedure, Scandinavian Journal of Statistics 6(2).
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from pretext3d.errors import UserError

__all__ = ["DRAWS", "LEVEL", "bootstrap", "holm", "sign_flip_test"]

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
    group, kind = grouped(columns, subjects, strata)
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


def sign_flip_test(
    pairs: np.ndarray,
    draws: int = DRAWS,
    seed: int = 0,
    subjects: Sequence[str] | None = None,
    strata: Sequence[str] | None = None,
) -> float:
    """The p-value of a mean difference, two-sided, from random changes of the subjects' signs.

    The mean of `bootstrap` is a sum over the subjects, sum_g a_g with

        a_g = 1/K sum_k 1/N_k sum of d_sc over all seeds s and the cases c of subject g in stratum k,

    K the number of strata and N_k the number of entries in stratum k. If neither arm is better, a subject's
    differences are as likely to have the other sign: all seeds and cases of a subject change it together. p
    is the part of all 2^G sign patterns of G subjects with |sum_g +-a_g| at least as large as found. Where
    there are more patterns than `draws`, it is twice the smaller one-sided part of so many random patterns,
    (1 + those of the draws) / (1 + draws).

    The weights of all seeds are kept as they are: p speaks of other subjects, not of other seeds.

    Args:
        pairs: Differences (seeds, cases), NaN where there is no pair.
        draws: Number of sign patterns; all of them where there are no more.
        seed: Seed of the draws.
        subjects: Subject of each case; None = each case is one.
        strata: Stratum of each case; None = one for all.

    Raises:
        UserError: another number of subjects, or of strata, than of cases.

    Examples:
        Of the 8 sums +-1 +-2 +-3, two, 6 and -6, are as far from 0 as that of the differences; with one
        subject the sum is always as far.

        >>> sign_flip_test(np.array([[1.0, 2.0, 3.0]])), sign_flip_test(np.array([[1.0], [2.0]]))
        (0.25, 1.0)
    """
    from scipy.stats import permutation_test

    there = ~np.isnan(pairs)
    group, kind = grouped(pairs.shape[1], subjects, strata)
    values = np.where(there, pairs, 0.0).sum(axis=0)
    counts = np.bincount(kind, weights=there.sum(axis=0))[kind]  # entries in each case's stratum
    each = np.divide(values, counts, out=np.zeros_like(values), where=counts > 0)
    sums = np.bincount(group, weights=each)
    sums = sums[np.bincount(group, weights=there.sum(axis=0)) > 0]
    if len(sums) < 2 or not sums.any():
        return 1.0
    found = permutation_test(
        (sums,),
        lambda x, axis: x.sum(axis=axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=draws,
        batch=1000,
        rng=np.random.default_rng(seed),
    )
    return min(1.0, float(found.pvalue))


def holm(values: Sequence[float]) -> list[float]:
    """P-values corrected for their number, by Holm's step-down procedure: the family-wise error stays.

    With p_(1) <= ... <= p_(m): the i-th becomes max over j <= i of min(1, (m - j + 1) p_(j)).

    Args:
        values: P-values in any order; NaN stays and does not count.

    Examples:
        Sorted .01, .03, .04: 3 x .01 = .03, 2 x .03 = .06, and 1 x .04, which must not be below .06.

        >>> holm([0.04, 0.01, 0.03])
        [0.06, 0.03, 0.06]
    """
    p = np.asarray(values, dtype=float)
    order = np.argsort(p)[: int((~np.isnan(p)).sum())]  # NaN is sorted last
    steps = p[order] * np.arange(len(order), 0, -1)
    corrected = p.copy()
    corrected[order] = np.minimum(1.0, np.maximum.accumulate(steps)) if len(order) else steps
    return [float(value) for value in corrected]


def grouped(
    columns: int, subjects: Sequence[str] | None, strata: Sequence[str] | None
) -> tuple[np.ndarray, np.ndarray]:
    """The numbers of each case's subject and stratum, in the order of the cases.

    Raises:
        UserError: another number of subjects, or of strata, than of cases.
    """
    for name, found in (("subjects", subjects), ("strata", strata)):
        if found is not None and len(found) != columns:
            raise UserError(f"{name}: found {len(found)}, expected one for each of the {columns} cases")
    # in the order of the cases, so that subjects of one case are drawn as cases are
    group = np.arange(columns) if subjects is None else numbered(subjects)
    return group, np.zeros(columns, dtype=int) if strata is None else numbered(strata)


def numbered(names: Sequence[object] | np.ndarray) -> np.ndarray:
    """Numbers from 0 in place of names, in the order in which these first occur."""
    return pd.factorize(np.asarray(names, dtype=object))[0]

"""Cases whose spacing cannot be right: far from the others', or of an impossible size once resampled."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from math import prod

import numpy as np

from pretext3d.data.checks import CheckResult
from pretext3d.data.faults import GEOMETRY

__all__ = ["MAX_RATIO", "MAX_RESAMPLED", "resampled", "resampled_fault", "without_outliers"]

MAX_RATIO = 20.0  # a spacing this many times the median of all cases, or a 20th of it, is an error of units
MAX_RESAMPLED = 2**30  # voxels of a case over its channels once resampled: 4 GiB in float32
FEWEST = 3  # cases; of two, neither is the outlier


def resampled_fault(
    shape: Sequence[int], spacing: Sequence[float], pixdim: Sequence[float], channels: int
) -> str:
    """Why a case cannot be resampled: more than `MAX_RESAMPLED` voxels, or fewer than two along an axis; ''.

    Args:
        shape: Voxels along the world axes.
        spacing: Spacing in mm along the same axes.
        pixdim: Spacing to resample to, mm; [] = none.
        channels: Number of channels.

    Examples:
        >>> resampled_fault([20, 20, 20], [100, 100, 100], [1, 1, 1], 1)
        'bad geometry: spacing 100x100x100 mm, at 1x1x1 mm it would be 2000x2000x2000 voxels'
    """
    if not pixdim:
        return ""
    size = [max(1, round(n * s / p)) for n, s, p in zip(shape, spacing, pixdim, strict=True)]
    if prod(size) * channels <= MAX_RESAMPLED and min(size) >= 2:
        return ""
    return f"{GEOMETRY}: spacing {_times(spacing)} mm, {_at(size, pixdim)}"


def without_outliers(
    checked: CheckResult,
    choose: Callable[[list[list[int]], list[list[float]]], list[float]],
    train: Iterable[str] | None = None,
) -> CheckResult:
    """The result of the checks with outliers of spacing among the bad cases, each with the size it would get.

    An outlier has, along an axis, `MAX_RATIO` times the median spacing of the good cases or more, or a 20th
    of it or less; or it cannot be resampled (see `resampled_fault`).

    Args:
        checked: Result of the checks.
        choose: Function of shapes and spacings that gives the spacing to resample to, mm; [] = none.
        train: Ids of the training cases, by which that spacing is chosen; None = all.
    """
    ids = [case["id"] for case in checked.good]
    spacings = np.array([checked.spacings[name] for name in ids])
    faults: dict[str, str] = {}
    median = np.median(spacings, axis=0) if ids else spacings
    if len(ids) >= FEWEST:
        ratio = spacings / median
        apart = np.maximum(ratio, 1 / ratio).max(axis=1)
        faults = {name: "ratio" for name, r in zip(ids, apart, strict=True) if r >= MAX_RATIO * (1 - 1e-6)}
    wanted = set(ids if train is None else train)
    kept = [name for name in ids if name in wanted and name not in faults]
    pixdim = choose([checked.shapes[n] for n in kept], [checked.spacings[n] for n in kept]) if kept else []
    for name in ids:
        shape, spacing = checked.shapes[name], checked.spacings[name]
        if name in faults:
            size = [
                max(1, round(n * s / p)) for n, s, p in zip(shape, spacing, pixdim or spacing, strict=True)
            ]
            result = f", {_at(size, pixdim)}" if pixdim else ""
            faults[name] = (
                f"{GEOMETRY}: spacing {_times(spacing)} mm, the others' is {_times(median)} mm{result}"
            )
        else:
            fault = resampled_fault(shape, spacing, pixdim, checked.channels)
            faults |= {name: fault} if fault else {}
    return moved_to_bad(checked, faults)


def resampled(checked: CheckResult, pixdim: Sequence[int | float]) -> CheckResult:
    """The result of the checks with cases that cannot be resampled to `pixdim` (mm) among the bad ones."""
    ids = [case["id"] for case in checked.good] if pixdim else []
    each = {n: (checked.shapes[n], checked.spacings[n], pixdim, checked.channels) for n in ids}
    return moved_to_bad(checked, {n: f for n, given in each.items() if (f := resampled_fault(*given))})


def moved_to_bad(checked: CheckResult, faults: Mapping[str, str]) -> CheckResult:
    """The result of the checks with some good cases among the bad ones, for the reasons given."""
    if not faults:
        return checked
    return checked._replace(
        good=[case for case in checked.good if case["id"] not in faults],
        bad=checked.bad + [(case, faults[case["id"]]) for case in checked.good if case["id"] in faults],
    )


def _times(numbers: Iterable[float]) -> str:
    return "x".join(f"{number:.3g}" for number in numbers)


def _at(size: Sequence[int], pixdim: Sequence[float]) -> str:
    return f"at {_times(pixdim)} mm it would be {'x'.join(map(str, size))} voxels"

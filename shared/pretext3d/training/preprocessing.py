"""Whether a labelled task prepares its images as pre-training did: intensities and spacing.

Weights see the same tissue in other values, or the same organ in another number of voxels, where it does not.
"""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["check_spacing", "check_window", "differing_axes"]

logger = logging.getLogger(__name__)

MAX_RATIO = 1.3  # of two spacings along an axis that count as alike
AXES = "xyz"


def check_window(file: Path, there: Mapping[str, Any], here: Mapping[str, Any] | None) -> None:
    """Warn where two normalisations differ in their window of intensities, or only one has a window.

    Weights that were not trained on scans have none, and nothing is compared.
    """
    if not there:
        return
    windows = [
        list(np.ravel(one["window"])) if isinstance(one, Mapping) and "window" in one else None
        for one in (there, here or there)
    ]
    if windows[0] != windows[1]:
        logger.warning(
            "%s: trained with normalisation %s, here it is %s: the same tissue looks different; "
            "give the same by --normalisation",
            file, there, here,
        )  # fmt: skip


def differing_axes(there: Sequence[float], here: Sequence[float]) -> str:
    """The axes along which two spacings differ by more than a factor of 1.3; '' where one is not known.

    Args:
        there: Spacing, mm along each axis; empty = as the files have it.
        here: Another one.

    Examples:
        >>> differing_axes([1.0, 1.0, 3.0], [1.3, 0.5, 1.0]), differing_axes([1.0, 1.0, 3.0], [])
        ('yz', '')
    """
    if len(there) != len(here):
        return ""
    pairs = zip(AXES, there, here, strict=False)
    return "".join(axis for axis, a, b in pairs if max(a, b) > MAX_RATIO * min(a, b) * (1 + 1e-6))


def check_spacing(file: Path, there: Sequence[float], here: Sequence[float]) -> None:
    """Warn where the spacing of a labelled task and that of its weights differ, see `differing_axes`.

    Args:
        file: Path of the checkpoint, for the message.
        there: Spacing in its record, mm along each axis; empty = none.
        here: Spacing of the task.
    """
    axes = differing_axes(there, here)
    if axes:
        logger.warning(
            "%s: trained at a spacing of %s mm, here it is %s mm, more than %g times different along %s: "
            "the same structure has another size in voxels; --pixdim pretrained takes that of the weights",
            file, in_mm(there), in_mm(here), MAX_RATIO, ", ".join(axes),
        )  # fmt: skip


def in_mm(spacing: Sequence[float]) -> str:
    """A spacing as text.

    Examples:
        >>> in_mm([1.0, 1.0, 2.5])
        '1x1x2.5'
    """
    return "x".join(f"{value:g}" for value in spacing)

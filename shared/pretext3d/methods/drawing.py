"""What the methods' pictures have in common: colours, and planes shown as radiologists show them.

The patient's right is on the left, and the front on the left of a sagittal plane; letters name the
directions.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from pretext3d.annotations import Shaped, Tensor

__all__ = ["BACK", "FAINT", "LETTERS", "TEXT", "frame", "mark_edges", "numpy", "times"]

BACK, TEXT, FAINT = "#15171c", "#f2f2f2", "#9aa0aa"
LETTERS = (("L", "R"), ("P", "A"), ("I", "S"))  # low and high end of each axis of a volume in RAS order


def numpy(value: Tensor) -> Shaped[np.ndarray, "..."]:
    """Values for matplotlib: float64, on the CPU, without meta data."""
    return np.asarray(torch.as_tensor(value).detach().cpu().double())


def times(values: Sequence[Any] | np.ndarray, digits: int = 2) -> str:
    """`32 x 32 x 20`, with the sign of multiplication."""
    texts = [f"{round(float(v), digits):g}" for v in values]
    return " × ".join(texts)  # noqa: RUF001  the sign that people write between sizes


def frame(axes: Any, low: np.ndarray, high: np.ndarray) -> None:
    """Limits with the first axis from high to low: the patient's right, or front, is on the left."""
    axes.set_xlim(high[0], low[0])
    axes.set_ylim(low[1], high[1])
    axes.set_facecolor("black")
    axes.tick_params(left=False, bottom=False, labelleft=False, labelbottom=False)
    for spine in axes.spines.values():
        spine.set_color(FAINT)
        spine.set_linewidth(0.5)


def mark_edges(axes: Any, letters: Sequence[str]) -> None:
    """The patient's directions at the low and high end across (right, left) and up (bottom, top)."""
    from matplotlib.patheffects import withStroke

    outline = [withStroke(linewidth=2.5, foreground="black")]
    places = (
        (0.985, 0.5, "right", "center"), (0.015, 0.5, "left", "center"),
        (0.5, 0.015, "center", "bottom"), (0.5, 0.985, "center", "top"),
    )  # fmt: skip
    for letter, (x, y, across, up) in zip(letters, places, strict=True):
        axes.text(
            x, y, letter, color=TEXT, size=10, weight="bold", ha=across, va=up, transform=axes.transAxes,
            zorder=7, path_effects=outline,
        )  # fmt: skip

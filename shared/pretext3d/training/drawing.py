"""What the methods' pictures have in common: colours, and planes shown as radiologists show them.

The patient's right is on the left, and the front on the left of a sagittal plane; letters name the
directions. A photograph has no such directions, hence no letters, and is shown in colour if it has three
channels; it is upright, since loading maps its columns to the patient's left and its rows to the back.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from pretext3d.annotations import Float, Shaped, Tensor

__all__ = [
    "BACK", "FAINT", "LETTERS", "TEXT", "View", "channels_shown", "frame", "mark_edges", "middle_planes",
    "numpy", "pixels", "times", "titled_figure",
]  # fmt: skip

BACK, TEXT, FAINT = "#15171c", "#f2f2f2", "#9aa0aa"
LETTERS = (("L", "R"), ("P", "A"), ("I", "S"))  # low and high end of each axis of a volume in RAS order
DIRECTIONS = ("left-right", "front-back", "up-down")
PLANES = ("Sagittal", "Coronal", "Axial")  # by the axis through the plane


class View:
    """The meaning of an item's axes, and how it is shown.

    `dims`: 3 or 2. `oriented`: whether its axes have patient directions: the item's key `oriented`, by
    default True in 3D only. `letters`: the directions at the low and the high end of each axis, in 2D by
    `slice_axis` (2). `directions`: the axes in words. `plane`: name of a 2D item. `colour`: whether
    its three channels are red, green and blue. `unit`: unit of lengths, mm or px.
    """

    def __init__(self, item: Mapping[str, Any]) -> None:
        image = item["image"]
        self.dims = image.ndim - 1
        self.oriented = bool(item.get("oriented", self.dims == 3))
        through = int(item.get("slice_axis", 2))
        axes = [axis for axis in range(3) if self.dims == 3 or axis != through]
        self.letters = [LETTERS[axis] if self.oriented else ("", "") for axis in axes]
        self.directions = [DIRECTIONS[axis] for axis in axes] if self.oriented else ["left-right", "up-down"]
        self.plane = PLANES[through] if self.oriented else "Image"
        self.colour = self.dims == 2 and not self.oriented and len(image) == 3
        self.unit = "mm" if self.oriented else "px"


def pixels(image: Tensor, channel: int = 0, colour: bool = False) -> Float[np.ndarray, "..."]:
    """A slice (c, a, b) for matplotlib: one channel (b, a), or three as colour in [0, 1] (b, a, 3)."""
    return numpy(image).clip(0, 1).transpose(2, 1, 0) if colour else numpy(image[channel]).T


def numpy(value: Tensor) -> Shaped[np.ndarray, "..."]:
    """Values for matplotlib: float64, on the CPU, without meta data."""
    return np.asarray(torch.as_tensor(value).detach().cpu().double())


def times(values: Sequence[Any] | np.ndarray, digits: int = 2) -> str:
    """`32 x 32 x 20`, with the multiplication sign."""
    texts = [f"{round(float(v), digits):g}" for v in values]
    return " × ".join(texts)  # noqa: RUF001  the usual sign between sizes


def middle_planes(image: Shaped[Tensor, "c *space"]) -> list[tuple[Shaped[Tensor, "c a b"], tuple[int, int]]]:
    """The middle plane across each axis, with the axes that it shows; an image is its own.

    Of a volume in RAS order: the sagittal, the coronal, the axial one.

    Examples:
        >>> [(tuple(plane.shape), shown) for plane, shown in middle_planes(torch.zeros(1, 3, 4, 5))]
        [((1, 4, 5), (1, 2)), ((1, 3, 5), (0, 2)), ((1, 3, 4), (0, 1))]
    """
    if image.ndim == 3:
        return [(image, (0, 1))]
    shown = ((1, 2), (0, 2), (0, 1))
    return [(image.select(1 + axis, image.shape[1 + axis] // 2), shown[axis]) for axis in range(3)]


def channels_shown(image: Shaped[Tensor, "c *space"], view: View, channel: int = 0) -> str:
    """What a picture shows of an image with several channels; '' for one with a single channel.

    Examples:
        >>> image = torch.zeros(2, 3, 4, 5)
        >>> channels_shown(image, View({"image": image}))
        'channel 1 of 2 is shown'
    """
    if view.colour:
        return "colours are those of the normalised channels"
    return f"channel {channel + 1} of {len(image)} is shown" if len(image) > 1 else ""


def titled_figure(
    width: float,
    height: float,
    volume: Mapping[str, Any],
    title: str,
    below: float = 0.3,
    subtitle: Sequence[str] = (),
    view: View | None = None,
    channel: int = 0,
) -> Any:
    """A matplotlib `Figure` of so many inches with its first lines.

    Args:
        width: Inches.
        height: Inches.
        volume: Item; its `id` is the title without another one.
        title: First line.
        below: Inches from the upper edge to the middle of the line.
        subtitle: Further lines, of what the picture shows.
        view: How the item is shown; the right end of the first line then says which channels are.
        channel: Index of the channel that is shown, where it is not in colour.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), facecolor=BACK)
    name = title or str(volume.get("id", ""))
    figure.text(0.02, 1 - below / height, name, color=TEXT, size=14, weight="bold", va="center")
    for line, text in enumerate(subtitle):
        down = below + 0.31 + 0.22 * line
        figure.text(0.02, 1 - down / height, text, color=FAINT, size=10.5, va="center")
    if view is not None and (note := channels_shown(volume["image"], view, channel)):
        figure.text(0.98, 1 - below / height, note, color=FAINT, size=10.5, ha="right", va="center")
    return figure


def frame(axes: Any, low: np.ndarray, high: np.ndarray) -> None:
    """Limits with the first axis from high to low: the patient's right, or front, is on the left."""
    axes.set_xlim(high[0], low[0])
    axes.set_ylim(low[1], high[1])
    axes.set_facecolor("black")
    axes.tick_params(left=False, bottom=False, labelleft=False, labelbottom=False)
    for spine in axes.spines.values():
        spine.set_color(FAINT)
        spine.set_linewidth(0.5)


# where the letters are: right, left, bottom, top of a panel; outside, in its corners and above and below it
INSIDE = (
    (0.985, 0.5, "right", "center"), (0.015, 0.5, "left", "center"),
    (0.5, 0.015, "center", "bottom"), (0.5, 0.985, "center", "top"),
)  # fmt: skip
OUTSIDE = (
    (1.0, 1.03, "right", "bottom"), (0.0, 1.03, "left", "bottom"),
    (0.5, -0.03, "center", "top"), (0.5, 1.03, "center", "bottom"),
)  # fmt: skip


def mark_edges(axes: Any, letters: Sequence[str], outside: bool = False) -> None:
    """The patient's directions at the low and high end across (right, left) and up (bottom, top).

    Args:
        axes: Panel.
        letters: Of right, left, bottom and top.
        outside: Whether they are above and below the panel, which has notes of its own.
    """
    for letter, (x, y, across, up) in zip(letters, OUTSIDE if outside else INSIDE, strict=True):
        axes.text(
            x, y, letter, color=TEXT, size=10, weight="bold", ha=across, va=up, transform=axes.transAxes,
            zorder=7, path_effects=outlined(),
        )  # fmt: skip


def outlined() -> list[Any]:
    """Path effects of a text that is legible on dark and on bright tissue: a black outline."""
    from matplotlib.patheffects import withStroke

    return [withStroke(linewidth=2.5, foreground="black")]

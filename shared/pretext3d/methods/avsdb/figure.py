"""A picture of a volume of shapes: image, label and prediction in three planes, and a look from outside.

Those of an image are next to each other.
"""

import colorsys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from pretext3d.annotations import Float, Int, Tensor
from pretext3d.training.drawing import FAINT, TEXT, middle_planes, numpy, times, titled_figure

__all__ = ["draw"]

PANEL, HEAD, FOOT, LEFT = 2.3, 0.95, 0.45, 0.95  # inches: a plane, title, caption, names of the rows
KEY = 1.5  # inches: the legend of an image
PLANES = ("across axis 0", "across axis 1", "across axis 2, the cross-sections")
LISTED = 12  # classes in the legend
VIEW = ((0, 1, 35.0), (1, 2, 25.0))  # axes and degrees that a volume is turned by, for a look from outside


def draw(
    volume: Mapping[str, Any],
    sample: Mapping[str, Any],
    pred: Float[Tensor, "classes *space"] | None = None,
    title: str = "",
    *,
    class_names: Sequence[str],
) -> Any:
    """One item of `ShapeVolumes`, as a matplotlib `Figure`.

    Args:
        volume: Item; its `id` is the title without another one.
        sample: `image` and `label` (1, *space).
        pred: Logits of the network for this sample, without the batch axis.
        title: First line.
        class_names: Names of the classes, background first.
    """
    from matplotlib.patches import Patch

    label = torch.as_tensor(sample["label"]).long()
    rows: dict[str, Tensor] = {"Image": torch.as_tensor(sample["image"]), "Label": label}
    if pred is not None:
        rows["Prediction"] = pred.argmax(0, keepdim=True)
    colours = palette(len(class_names))
    flat = label.ndim == 3
    left, columns, lines = (0.1, len(rows), 1) if flat else (LEFT, 4, len(rows))
    width, height = left + PANEL * columns + KEY * flat, HEAD + PANEL * lines + FOOT
    figure = titled_figure(width, height, volume, title, below=0.3)
    for row, (heading, values) in enumerate(rows.items()):
        bottom = height - HEAD - PANEL * (1 if flat else row + 1)
        panels = [shown(plane[0], colours) for plane, _ in middle_planes(values)]
        if not flat:
            figure.text(0.1 / width, (bottom + PANEL / 2) / height, heading, color=TEXT, size=11, va="center")
            panels += [outside(values[0], colours)] if row else []
        for column, picture in enumerate(panels, start=row if flat else 0):
            place = ((left + PANEL * column) / width, bottom / height)
            axes = figure.add_axes((*place, (PANEL - 0.08) / width, (PANEL - 0.08) / height))
            axes.imshow(picture.swapaxes(0, 1), cmap="gray", vmin=0, vmax=1, origin="lower")
            axes.axis("off")
    for column, heading in enumerate(rows if flat else [*PLANES, "from outside"]):
        across, colour = (left + PANEL * (column + 0.48)) / width, TEXT if flat else FAINT
        size = 11 if flat else 9
        figure.text(across, 1 - 0.75 / height, heading, color=colour, size=size, ha="center", va="center")
    present = [number for number in label.unique().tolist() if number]
    drawn = torch.cat([rows[name].flatten() for name in ("Label", "Prediction") if name in rows]).unique()
    named = present + [number for number in drawn.tolist() if number and number not in present]
    entries = [Patch(color=colours[number], label=class_names[number]) for number in named[:LISTED]]
    if (more := len(named) - LISTED) > 0:
        entries.append(Patch(alpha=0, label=f"and {more} more"))
    text = f"{times(label.shape[1:])}; {len(present)} of {len(class_names) - 1} classes here"
    figure.text(0.1 / width, 0.2 / height, text, color=FAINT, size=9, va="center")
    if entries:
        place = ((left + PANEL * (columns if flat else 3)) / width, (height - HEAD - PANEL) / height)
        axes = figure.add_axes((*place, (KEY if flat else PANEL) / width, PANEL / height))
        axes.axis("off")
        axes.legend(handles=entries, loc="center left", fontsize=7.5, labelcolor=TEXT, frameon=False)
    return figure


def palette(count: int) -> Float[np.ndarray, "n 3"]:
    """Colours of classes, red, green and blue from 0 to 1; black for the background."""
    step = 0.6180339887  # of the colour wheel between two classes: neighbours differ most
    colours = [colorsys.hsv_to_rgb(number * step % 1, 0.65, 1.0) for number in range(1, count)]
    return np.asarray([(0.0, 0.0, 0.0), *colours])


def shown(plane: Tensor, colours: np.ndarray) -> np.ndarray:
    """A plane of an image unchanged, one of classes in their colours."""
    return numpy(plane) if plane.is_floating_point() else colours[np.asarray(plane)]


def outside(label: Int[Tensor, "i j k"], colours: np.ndarray) -> Float[np.ndarray, "a b 3"]:
    """A volume of classes from outside, turned: the nearest shape at each pixel, shaded by its surface."""
    from scipy.ndimage import rotate

    turned = np.pad(np.asarray(label, dtype=np.uint8), 1)
    for first, second, degrees in VIEW:
        turned = rotate(turned, degrees, axes=(first, second), order=0)
    filled = turned > 0
    depth = np.where(filled.any(1), filled.argmax(1), filled.shape[1])
    nearest = np.take_along_axis(turned, np.minimum(depth, filled.shape[1] - 1)[:, None], axis=1)[:, 0]
    slope = np.hypot(*np.gradient(depth.astype(float)))
    light = 0.45 + 0.55 / (1 + 0.25 * np.minimum(slope, 12) ** 1.5)
    return colours[nearest] * light[..., None]

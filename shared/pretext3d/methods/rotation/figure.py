"""A picture of rotation prediction: the body, its rotated versions, and what the network says of each.

A volume is shown by its three middle planes, an image by itself. Versions have no letters of directions,
since the network has to find these.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from pretext3d.annotations import Float, Tensor
from pretext3d.ops.rotations import rotation_classes
from pretext3d.training.drawing import (
    FAINT,
    TEXT,
    View,
    frame,
    mark_edges,
    middle_planes,
    numpy,
    pixels,
    times,
    titled_figure,
)  # fmt: skip
from pretext3d.training.grid_drawing import RIGHT, WRONG

__all__ = ["draw"]

WIDTH, TOP, BOTTOM = 12.0, 1.2, 0.35  # inches: of the figure; of its headings; of its last line
ANSWERS = 0.3  # inches, of the line of answers
SHOWN = 4  # versions
QUANTILES = [0.005, 0.995]  # of the intensities, shown from black to white


def draw(
    volume: Mapping[str, Any],
    sample: Mapping[str, Any],
    pred: Tensor | None = None,
    title: str = "",
    *,
    axes: Sequence[int] | None = None,
) -> Any:
    """The rotated versions of one body, and with `pred` the network's answers, as a matplotlib `Figure`.

    Left the body, upright, with the patient's directions; then the first `SHOWN` versions, each under its
    rotation and, green where it is right, the network's answer with its probability.

    Args:
        volume: Item with `image` (c, *space) in RAS order, its `id`, and the keys of `View`.
        sample: Output of the pipeline: `image` (v, c, *space), `rotation` (v,).
        pred: Logits (v, R) of the network for this sample.
        title: First line.
        axes: Axes of the rotations; None = all.
    """
    view = View(volume)
    rotations = rotation_classes(view.dims, axes)
    names = [rotation_name(axis, turns, view) for axis, turns in rotations]
    versions = sample["image"][:SHOWN]
    columns, rows = 1 + len(versions), len(middle_planes(volume["image"]))
    panel = WIDTH / columns
    height = TOP + (ANSWERS if pred is not None else 0) + rows * panel + BOTTOM
    described = describe(volume, sample, len(rotations))
    figure = titled_figure(WIDTH, height, volume, title, below=0.25, subtitle=[described], view=view)
    low, high = contrast(volume["image"], view.colour)
    for column in range(columns):
        image = volume["image"] if column == 0 else versions[column - 1]
        middle = (column + 0.5) / columns
        said = "the body" if column == 0 else names[int(sample["rotation"][column - 1])]
        figure.text(middle, 1 - 0.95 / height, said, color=TEXT, size=10.5, ha="center", va="center")
        if column and pred is not None:
            text, right = answer(pred[column - 1], int(sample["rotation"][column - 1]), names)
            colour = RIGHT if right else WRONG
            figure.text(middle, 1 - 1.25 / height, text, color=colour, size=10, ha="center", va="center")
        for row, (plane, across) in enumerate(middle_planes(image)):
            bottom = (BOTTOM + (rows - 1 - row) * panel) / height
            box = (column / columns + 0.004, bottom, 1 / columns - 0.008, panel / height - 0.008)
            ax = figure.add_axes(box)
            scaled = (torch.as_tensor(plane)[: len(low)].double().cpu() - low) / (high - low).clamp(min=1e-12)
            extent = (0, plane.shape[1], 0, plane.shape[2])
            ax.imshow(
                pixels(scaled, colour=view.colour), cmap="gray", vmin=0, vmax=1, origin="lower", extent=extent
            )
            frame(ax, np.zeros(2), np.asarray(plane.shape[1:]))
            if column == 0:
                mark_edges(ax, [letter for axis in across for letter in view.letters[axis]])
    text = caption(sample, pred)
    figure.text(0.5, 0.16 / height, text, color=FAINT, size=10.5, ha="center", va="center")
    return figure


def contrast(image: Tensor, colour: bool) -> tuple[Float[Tensor, "c 1 1"], Float[Tensor, "c 1 1"]]:
    """The intensities that become black and white: of the first channel, or of each colour."""
    shown = numpy(image if colour else image[:1])
    low, high = np.quantile(shown.reshape(len(shown), -1), QUANTILES, axis=1)
    return torch.from_numpy(low)[:, None, None], torch.from_numpy(high)[:, None, None]


def rotation_name(axis: int, quarter_turns: int, view: View) -> str:
    """A rotation in words: `upright`, `90° about front-back`, of an image `90°`."""
    if quarter_turns == 0:
        return "upright"
    degrees = f"{90 * quarter_turns}°"
    return degrees if view.dims == 2 else f"{degrees} about {view.directions[axis]}"


def answer(logits: Float[Tensor, "r"], truth: int, names: Sequence[str]) -> tuple[str, bool]:
    """The most probable rotation with its probability, and whether it is the true one.

    Examples:
        >>> answer(torch.tensor([0.0, 0.0, 0.0, 20.0]), 3, ["upright", "90°", "180°", "270°"])
        ('100 %: 270°', True)
    """
    probabilities = logits.detach().float().softmax(-1)
    found = int(probabilities.argmax())
    return f"{100 * float(probabilities[found]):.0f} %: {names[found]}", found == truth


def describe(volume: Mapping[str, Any], sample: Mapping[str, Any], count: int) -> str:
    """Sizes of body and versions, and the number of rotations."""
    body, size = volume["image"].shape[1:], sample["image"].shape[2:]
    unit = "voxels" if len(body) == 3 else "pixels"
    cropped = f", versions of {times(size)}" if tuple(body) != tuple(size) else ""
    planes = "; its three middle planes" if len(body) == 3 else ""
    return f"body resized to {times(body)} {unit}{cropped}{planes}; one of {count} rotations each"


def caption(sample: Mapping[str, Any], pred: Tensor | None) -> str:
    """What is shown of the versions, or how many answers are right."""
    count = len(sample["rotation"])
    left = f" (the first {SHOWN} are shown)" if count > SHOWN else ""
    if pred is None:
        return f"{count} rotated versions of this body in one sample{left}"
    right = int((pred.argmax(-1).cpu() == sample["rotation"].cpu()).sum())
    return f"green or red: the network's answer with its probability; {right} of {count} are right{left}"

"""A picture of VectorPOSE's task: the network's input, what it must predict, and what it predicted.

Planes are shown as radiologists show them: the patient's right on the left, and the front on the left of a
sagittal plane. Letters at the edges name the patient's directions, also where a crop was mirrored or rotated.
A 2D item has one plane: itself.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from pretext3d.annotations import Float, Shaped, Tensor
from pretext3d.methods.vectorpose import pretext as vectorpose
from pretext3d.methods.vectorpose.vectors import ORIGINS
from pretext3d.training.drawing import (
    BACK,
    FAINT,
    TEXT,
    View,
    frame,
    mark_edges,
    numpy,
    pixels,
    times,
    titled_figure,
)

__all__ = ["draw"]

SIZE = {3: (12.0, 8.6), 2: (12.0, 6.6)}  # inches, by dimensions
BOX, TRUE, PREDICTED = "#ffd54a", "#40d8ff", "#ff7a3c"
PLANES = (("Axial", 0, 1, 2), ("Coronal", 0, 2, 1), ("Sagittal", 1, 2, 0))  # across, up, through


def draw(
    volume: Mapping[str, Any],
    sample: Mapping[str, Any],
    pred: tuple[Tensor, Tensor] | None = None,
    title: str = "",
) -> Any:
    """The task of one crop, and with `pred` the network's result, as a matplotlib `Figure`.

    The volume in three planes through the crop's centre, the crop's outline, and, projected onto the planes,
    the vectors from its centre and corners to the landmark; below, the middle slice of the crop along the
    third axis, as the network sees it and as it should reconstruct it. In 2D the image, and the crop next to
    it.

    Args:
        volume: Item with `image` (c, *space) in RAS order, [0, 1], `spacing` (d,), mm, and the keys of
            `View`.
        sample: Output of the pipeline for one crop: `image`, `clean` (c, *roi_size), `boundary` (optional),
            `vectors` (n, d), mm, n from 0, `radius` (1,), mm, `crop_start`, `crop_size` (d,), voxels of the
            volume, and `orientation` (d, d).
        pred: Output of the network for this sample without the batch axis: vector logits (n, d) and
            reconstruction logits (c or 2c, *roi_size).
        title: First line.
    """
    place = Place(volume, sample)
    panels = crop_panels(sample, pred)
    figure = titled_figure(
        *SIZE[place.view.dims], volume, title, below=0.26, subtitle=place.description, view=place.view
    )
    true = place.tips(sample["vectors"])
    tips = [true] + ([place.tips(predicted(sample, pred))] if pred is not None else [])
    low, high = place.field(tips)
    planes = PLANES if place.view.dims == 3 else ((place.view.plane, 0, 1, None),)
    for (name, across, up, through), rectangle in zip(planes, plane_rectangles(high - low), strict=True):
        axes = figure.add_axes(rectangle)
        draw_plane(axes, volume["image"], place, tips, (across, up), through)
        frame(axes, low[[across, up]], high[[across, up]])
        mark_edges(axes, [*place.view.letters[across], *place.view.letters[up]])
        axes.set_title(name, color=TEXT, size=11, pad=5)
    draw_caption(figure, sample, pred, place.view)
    rectangles = crop_rectangles(len(panels), place.view.dims)
    for (name, note, image), rectangle in zip(panels, rectangles, strict=True):
        axes = figure.add_axes(rectangle)
        axes.set_anchor("N")
        draw_slice(axes, image, place)
        axes.set_title(name, color=TEXT, size=11, pad=5)
        axes.text(0.5, -0.07, note, color=FAINT, size=9.5, ha="center", va="top", transform=axes.transAxes)
    return figure


class Place:
    """The position of a crop, in mm from the volume's lower corner, and how it was mirrored or rotated."""

    def __init__(self, volume: Mapping[str, Any], sample: Mapping[str, Any]) -> None:
        self.view = View(volume)
        self.spacing = numpy(volume["spacing"])
        self.shape = np.asarray(volume["image"].shape[1:])
        self.extent = self.shape * self.spacing
        self.start, self.size = numpy(sample["crop_start"]), numpy(sample["crop_size"])
        self.low, self.high = self.start * self.spacing, (self.start + self.size) * self.spacing
        self.orientation = numpy(sample.get("orientation", torch.eye(self.view.dims)))
        roi_size = np.asarray(sample["clean"].shape[1:])
        self.network_mm = np.abs(self.orientation) @ (self.size * self.spacing)
        unit = self.view.unit
        kind, voxels = ("volume", "voxels") if self.view.dims == 3 else ("image", "pixels")
        extent, crop = (f"{times(mm, 0)} {unit}, " for mm in (self.extent, self.high - self.low))
        spacing = f" of {times(self.spacing)} {unit}"
        if not self.view.oriented:  # lengths would be the same numbers, in pixels of the file
            extent = crop = spacing = ""
        self.description = (
            f"{kind}: {extent}{times(self.shape)} {voxels}{spacing}",
            f"crop: {crop}{times(self.size)} {voxels}, resampled to the network's {times(roi_size)}; "
            f"{self.moved()}",
        )

    def moved(self) -> str:
        """The crop's orientation in words."""
        if np.array_equal(np.abs(self.orientation), np.eye(len(self.orientation))):
            signs = zip(self.view.directions, np.diag(self.orientation), strict=True)
            mirrored = [name for name, sign in signs if sign < 0]
            return f"mirrored {' and '.join(mirrored)}" if mirrored else "not mirrored"
        return "rotated" if np.linalg.det(self.orientation) > 0 else "rotated and mirrored"

    def origins(self, count: int) -> Shaped[np.ndarray, "n d"]:
        """Origins of the first `count` vectors, mm."""
        dims = self.view.dims
        unit = np.asarray(ORIGINS[dims][:count], dtype=float).reshape(-1, dims)
        return self.low + unit * (self.high - self.low)

    def tips(self, vectors: Float[Tensor, "n d"]) -> Shaped[np.ndarray, "n d"]:
        """End points in the volume of vectors in the crop's frame, mm: o + M^T v."""
        return self.origins(len(vectors)) + numpy(vectors) @ self.orientation

    def field(self, tips: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """Corners, mm, of the box that holds the volume, the crop and the vectors, with a margin."""
        points = np.concatenate([[self.low, self.high, 0 * self.extent, self.extent], *tips])
        low, high = points.min(axis=0), points.max(axis=0)
        margin = 0.02 * (high - low).max()
        return low - margin, high + margin

    def letters(self, axis: int) -> tuple[str, str]:
        """The patient's directions at the low and the high end of an axis of the crop's frame."""
        source = int(np.abs(self.orientation[axis]).argmax())
        low, high = self.view.letters[source]
        return (low, high) if self.orientation[axis, source] > 0 else (high, low)


def predicted(sample: Mapping[str, Any], pred: tuple[Tensor, Tensor]) -> Float[Tensor, "n d"]:
    """The predicted vectors, mm, in the crop's frame."""
    return vectorpose.predicted_vectors(as_output(sample, pred))[0]


def as_output(sample: Mapping[str, Any], pred: tuple[Tensor, Tensor]) -> dict[str, Any]:
    """A sample and its prediction as a batch of one, the input of the method's errors."""
    keys = [key for key in ("clean", "boundary", "vectors", "radius") if key in sample]
    label = {key: torch.as_tensor(sample[key]).float()[None] for key in keys}
    return {"pred": tuple(part.detach().cpu().float()[None] for part in pred), "label": label}


def crop_panels(
    sample: Mapping[str, Any], pred: tuple[Tensor, Tensor] | None
) -> list[tuple[str, str, Tensor]]:
    """Heading, note and content (c, *roi_size) of each picture of the crop."""
    clean, image = sample["clean"], sample["image"]
    panels = [
        ("The crop" if clean.ndim == 3 else "Middle slice of the crop", "must be reconstructed", clean),
        ("What the network sees", corrupted(image, clean), image),
    ]
    channels = len(clean)
    if pred is not None:
        restored = pred[1][:channels].detach().cpu().float().sigmoid()
        note = f"mean error {mean_change(restored, clean):.3f}"
        panels.append(("The network's reconstruction", note, restored))
    boundary = sample.get("boundary")
    if boundary is not None and (pred is None or len(pred[1]) > channels):
        panels.append(("Boundaries", "must be predicted", boundary))
        if pred is not None:
            edges = pred[1][channels:].detach().cpu().float().sigmoid()
            panels.append(
                ("The network's boundaries", f"mean error {mean_change(edges, boundary):.3f}", edges)
            )
    return panels


def corrupted(image: Tensor, clean: Tensor) -> str:
    """The amount of change in the crop, in words; the corruption leaves some crops unchanged."""
    change = mean_change(image, clean)
    return f"corrupted: mean change {change:.3f}" if change > 0 else "this one was left uncorrupted"


def mean_change(one: Tensor, other: Tensor) -> float:
    """Mean absolute difference of two crops."""
    return float((one - other).abs().mean())


def plane_rectangles(field: np.ndarray) -> list[tuple[float, float, float, float]]:
    """Left, bottom, width and height in the figure: three planes in one scale, or an image."""
    if len(field) == 2:
        return [(0.015, 0.105, 0.43, 0.715)]
    figure_width, figure_height = SIZE[3]
    gap, room, top = 0.3, figure_height * 0.375, figure_height * 0.855  # inches
    widths, heights = (np.array([field[plane[i]] for plane in PLANES]) for i in (1, 2))
    scale = min((figure_width - 2 * gap - 0.5) / widths.sum(), room / heights.max())  # inches per mm
    left = (figure_width - scale * widths.sum() - 2 * gap) / 2
    rectangles = []
    for width, height in zip(scale * widths, scale * heights, strict=True):
        bottom = top - (room + height) / 2
        rectangles.append(
            (left / figure_width, bottom / figure_height, width / figure_width, height / figure_height)
        )
        left += width + gap
    return rectangles


def crop_rectangles(count: int, dims: int) -> list[tuple[float, float, float, float]]:
    """Left, bottom, width and height of the crop's pictures: below the planes, in 2D next to the image."""
    if dims == 3:
        width = 0.96 / max(4, count)
        lefts = [0.5 + width * (column - count / 2) for column in range(count)]
        return [(left + 0.008, 0.055, width - 0.016, 0.275) for left in lefts]
    columns = 2 if count <= 4 else 3
    width, height = 0.54 / columns, 0.405
    return [
        (0.455 + width * (n % columns), 0.525 - height * (n // columns), width - 0.012, height - 0.11)
        for n in range(count)
    ]


def draw_plane(
    axes: Any,
    image: Shaped[Tensor, "c *space"],
    place: Place,
    tips: Sequence[Shaped[np.ndarray, "n d"]],
    plane: tuple[int, int],
    through: int | None,
) -> None:
    """A plane of the volume through the crop's centre, with the crop's outline and the projected vectors."""
    from matplotlib.collections import LineCollection
    from matplotlib.patches import Rectangle

    across, up = pair = list(plane)
    if through is not None:
        middle = np.floor(place.start[through] + place.size[through] / 2)
        image = image.select(through + 1, int(np.clip(middle, 0, place.shape[through] - 1)))
    axes.imshow(
        pixels(image, colour=place.view.colour), cmap="gray", vmin=0, vmax=1, origin="lower",
        interpolation="bilinear", aspect="equal", extent=(0, place.extent[across], 0, place.extent[up]),
    )  # fmt: skip
    width, height = (place.high - place.low)[pair]
    axes.add_patch(
        Rectangle(place.low[pair], width, height, fill=False, edgecolor=BOX, linewidth=1.8, zorder=3)
    )
    for ends, colour, style in zip(tips, (TRUE, PREDICTED), ("-", (0, (4, 2))), strict=False):
        starts = place.origins(len(ends))
        lines = list(np.stack([starts[:, pair], ends[:, pair]], axis=1))
        axes.add_collection(
            LineCollection(lines, colors=colour, linewidths=1.1, linestyles=[style], zorder=4, alpha=0.9),
            autolim=False,
        )
    if len(tips) > 1:
        axes.plot(*tips[1][:, pair].T, "o", color=PREDICTED, markersize=5.5, markeredgecolor=BACK, zorder=6)
    if len(tips[0]):
        axes.plot(*place.origins(len(tips[0]))[:, pair].T, "s", color=TRUE, markersize=3.5, zorder=5)
        # all true vectors end in one point
        axes.plot(*tips[0][0, pair], "*", color=TRUE, markersize=17, markeredgecolor=BACK, zorder=5)


def draw_slice(axes: Any, crop: Shaped[Tensor, "c *roi_size"], place: Place) -> None:
    """A crop, or its middle slice along the third axis, displayed as the image or an axial plane is."""
    across, up = place.network_mm[:2]
    slab = crop if crop.ndim == 3 else crop[..., crop.shape[3] // 2]
    axes.imshow(
        pixels(slab, colour=place.view.colour), cmap="gray", vmin=0, vmax=1, origin="lower",
        interpolation="nearest", aspect="equal", extent=(0, across, 0, up),
    )  # fmt: skip
    frame(axes, np.zeros(2), np.asarray([across, up]))
    mark_edges(axes, [*place.letters(0), *place.letters(1)])


def draw_caption(
    figure: Any, sample: Mapping[str, Any], pred: tuple[Tensor, Tensor] | None, view: View
) -> None:
    """Draw the legend of the colours, with numbers: between the rows, in 2D below the pictures."""
    from matplotlib.lines import Line2D

    lengths = np.linalg.norm(numpy(sample["vectors"]), axis=1)
    handles = [Line2D([], [], color=BOX, linewidth=2, label="the crop")]
    if len(lengths):
        count = "1 vector" if len(lengths) == 1 else f"{len(lengths)} vectors"
        span = f"{lengths.min():.0f} to {lengths.max():.0f} {view.unit}"
        text = f"to predict: {count} to the landmark, {span}{' (projected)' * (view.dims == 3)}"
        handles.append(
            Line2D([], [], color=TRUE, marker="*", markersize=12, markeredgecolor=BACK, label=text)
        )
    if len(lengths) and pred is not None:
        output = as_output(sample, pred)
        error = float(vectorpose.vector_error_mm(output)[0])
        angle = float(vectorpose.angular_error_degrees(output)[0])
        text = f"predicted: {error:.1f} {view.unit} and {angle:.0f}° off on average"
        handles.append(
            Line2D([], [], color=PREDICTED, linestyle=(0, (4, 2)), marker="o", markersize=5.5, label=text)
        )
    height = 0.435 if view.dims == 3 else 0.035
    figure.legend(
        handles=handles, loc="center", bbox_to_anchor=(0.5, height), ncols=len(handles), frameon=False,
        fontsize=10.5, labelcolor=TEXT, handlelength=2.2, columnspacing=2.5,
    )  # fmt: skip

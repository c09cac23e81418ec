"""A picture of VectorPOSE's task: what the network sees of a volume, what it must predict, what it predicted.

Planes are shown as radiologists show them: the patient's right on the left, and the front on the left of a
sagittal plane. Letters at the edges name the patient's directions, whether a crop was mirrored or turned.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from pretext3d.annotations import Float, Shaped, Tensor
from pretext3d.methods.drawing import BACK, FAINT, LETTERS, TEXT, frame, mark_edges, numpy, times
from pretext3d.methods.vectorpose import pretext as vectorpose

__all__ = ["draw"]

SIZE = (12.0, 8.6)  # inches
BOX, TRUE, PREDICTED = "#ffd54a", "#40d8ff", "#ff7a3c"
NAMES = ("left-right", "front-back", "up-down")
PLANES = (("Axial", 0, 1, 2), ("Coronal", 0, 2, 1), ("Sagittal", 1, 2, 0))  # across, up, through


def draw(
    volume: Mapping[str, Any],
    sample: Mapping[str, Any],
    pred: tuple[Tensor, Tensor] | None = None,
    title: str = "",
) -> Any:
    """The task of one crop, and with `pred` how well the network does it, as a matplotlib `Figure`.

    Above: the volume in three planes through the crop's centre, the crop's outline, and, projected onto the
    planes, the vectors from its centre and corners to the landmark. Below: the middle slice of the crop along
    the third axis, as the network sees it and as it should reconstruct it.

    Args:
        volume: `image` (c, i, j, k) in RAS order, [0, 1], and `spacing` (3,), mm.
        sample: what the pipeline gives for one crop: `image`, `clean` (c, a, b, d), `boundary` (optional),
            `vectors` (n, 3), mm, n from 0, `radius` (1,), mm, `crop_start`, `crop_size` (3,), voxels of the
            volume, and `orientation` (3, 3).
        pred: the network's output for this sample without the batch axis: vector logits (n, 3) and
            reconstruction logits (c or 2c, a, b, d).
        title: the first line.
    """
    from matplotlib.figure import Figure

    place = Place(volume, sample)
    panels = crop_panels(sample, pred)
    figure = Figure(figsize=SIZE, facecolor=BACK)
    figure.text(
        0.02, 0.966, title or str(volume.get("id", "")), color=TEXT, size=15, weight="bold", va="center"
    )
    for line, text in enumerate(place.description):
        figure.text(0.02, 0.934 - 0.025 * line, text, color=FAINT, size=10.5, va="center")
    true = place.tips(sample["vectors"])
    tips = [true] + ([place.tips(predicted(sample, pred))] if pred is not None else [])
    low, high = place.field(tips)
    for (name, *plane), rectangle in zip(PLANES, plane_rectangles(high - low), strict=True):
        axes = figure.add_axes(rectangle)
        draw_plane(axes, volume["image"][0], place, tips, plane)
        frame(axes, low[plane[:2]], high[plane[:2]])
        mark_edges(axes, [letter for axis in plane[:2] for letter in LETTERS[axis]])
        axes.set_title(name, color=TEXT, size=11, pad=5)
    draw_caption(figure, sample, pred)
    width = 0.96 / max(4, len(panels))
    for column, (name, note, image) in enumerate(panels):
        left = 0.5 + width * (column - len(panels) / 2)
        axes = figure.add_axes((left + 0.008, 0.055, width - 0.016, 0.275))
        axes.set_anchor("N")
        draw_slice(axes, image, place)
        axes.set_title(name, color=TEXT, size=11, pad=5)
        axes.text(0.5, -0.07, note, color=FAINT, size=9.5, ha="center", va="top", transform=axes.transAxes)
    return figure


class Place:
    """Where a crop lies, in mm from the volume's lower corner, and how it was mirrored or turned."""

    def __init__(self, volume: Mapping[str, Any], sample: Mapping[str, Any]) -> None:
        self.spacing = numpy(volume["spacing"])
        self.shape = np.asarray(volume["image"].shape[1:])
        self.extent = self.shape * self.spacing
        self.start, self.size = numpy(sample["crop_start"]), numpy(sample["crop_size"])
        self.low, self.high = self.start * self.spacing, (self.start + self.size) * self.spacing
        self.orientation = numpy(sample.get("orientation", torch.eye(3)))
        roi_size = np.asarray(sample["clean"].shape[1:])
        self.network_mm = np.abs(self.orientation) @ (self.size * self.spacing)
        channels = volume["image"].shape[0]
        self.description = (
            f"volume: {times(self.extent, 0)} mm, {times(self.shape)} voxels of {times(self.spacing)} mm"
            f"{f'; channel 1 of {channels} is shown' if channels > 1 else ''}",
            f"crop: {times(self.high - self.low, 0)} mm, {times(self.size)} voxels, resampled to the "
            f"network's {times(roi_size)}; {self.moved()}",
        )

    def moved(self) -> str:
        """The crop's orientation in words."""
        if np.array_equal(np.abs(self.orientation), np.eye(3)):
            mirrored = [name for name, sign in zip(NAMES, np.diag(self.orientation), strict=True) if sign < 0]
            return f"mirrored {' and '.join(mirrored)}" if mirrored else "not mirrored"
        return "turned" if np.linalg.det(self.orientation) > 0 else "turned and mirrored"

    def origins(self, count: int) -> Shaped[np.ndarray, "n 3"]:
        """Where the first `count` vectors start, mm."""
        unit = np.asarray(vectorpose.ORIGINS[:count], dtype=float).reshape(-1, 3)
        return self.low + unit * (self.high - self.low)

    def tips(self, vectors: Float[Tensor, "n 3"]) -> Shaped[np.ndarray, "n 3"]:
        """Where vectors of the crop's frame end in the volume, mm: o + M^T v."""
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
        low, high = LETTERS[source]
        return (low, high) if self.orientation[axis, source] > 0 else (high, low)


def predicted(sample: Mapping[str, Any], pred: tuple[Tensor, Tensor]) -> Float[Tensor, "n 3"]:
    """The predicted vectors, mm, in the crop's frame."""
    return vectorpose.predicted_vectors(as_output(sample, pred))[0]


def as_output(sample: Mapping[str, Any], pred: tuple[Tensor, Tensor]) -> dict[str, Any]:
    """A sample and its prediction as a batch of one, which the method's errors take."""
    keys = [key for key in ("clean", "boundary", "vectors", "radius") if key in sample]
    label = {key: torch.as_tensor(sample[key]).float()[None] for key in keys}
    return {"pred": tuple(part.detach().cpu().float()[None] for part in pred), "label": label}


def crop_panels(
    sample: Mapping[str, Any], pred: tuple[Tensor, Tensor] | None
) -> list[tuple[str, str, Tensor]]:
    """Heading, note and first channel (a, b, d) of each picture of the crop."""
    clean, image = sample["clean"], sample["image"]
    panels = [
        ("Middle slice of the crop", "must be reconstructed", clean[0]),
        ("What the network sees", corrupted(image, clean), image[0]),
    ]
    channels = len(clean)
    if pred is not None:
        restored = pred[1][:channels].detach().cpu().float().sigmoid()
        panels.append(
            ("The network's reconstruction", f"mean error {mean_change(restored, clean):.3f}", restored[0])
        )
    boundary = sample.get("boundary")
    if boundary is not None and (pred is None or len(pred[1]) > channels):
        panels.append(("Boundaries", "must be predicted", boundary[0]))
        if pred is not None:
            edges = pred[1][channels:].detach().cpu().float().sigmoid()
            panels.append(
                ("The network's boundaries", f"mean error {mean_change(edges, boundary):.3f}", edges[0])
            )
    return panels


def corrupted(image: Tensor, clean: Tensor) -> str:
    """How much of the crop is changed, in words; the corruption leaves some crops as they are."""
    change = mean_change(image, clean)
    return f"corrupted: mean change {change:.3f}" if change > 0 else "this one was left uncorrupted"


def mean_change(one: Tensor, other: Tensor) -> float:
    """Mean absolute difference of two crops."""
    return float((one - other).abs().mean())


def plane_rectangles(field: np.ndarray) -> list[tuple[float, float, float, float]]:
    """Left, bottom, width and height of the three planes in the figure: all in one scale, side by side."""
    gap, room, top = 0.3, SIZE[1] * 0.375, SIZE[1] * 0.855  # inches
    widths, heights = (np.array([field[plane[i]] for plane in PLANES]) for i in (1, 2))
    scale = min((SIZE[0] - 2 * gap - 0.5) / widths.sum(), room / heights.max())  # inches per mm
    left = (SIZE[0] - scale * widths.sum() - 2 * gap) / 2
    rectangles = []
    for width, height in zip(scale * widths, scale * heights, strict=True):
        bottom = top - (room + height) / 2
        rectangles.append((left / SIZE[0], bottom / SIZE[1], width / SIZE[0], height / SIZE[1]))
        left += width + gap
    return rectangles


def draw_plane(
    axes: Any,
    image: Shaped[Tensor, "i j k"],
    place: Place,
    tips: Sequence[Shaped[np.ndarray, "n 3"]],
    plane: Sequence[int],
) -> None:
    """A plane of the volume through the crop's centre, with the crop's outline and the projected vectors."""
    from matplotlib.collections import LineCollection
    from matplotlib.patches import Rectangle

    across, up, through = plane
    index = int(
        np.clip(np.floor(place.start[through] + place.size[through] / 2), 0, place.shape[through] - 1)
    )
    slab = numpy(image.select(through, index))
    axes.imshow(
        slab.T, cmap="gray", vmin=0, vmax=1, origin="lower", interpolation="bilinear", aspect="equal",
        extent=(0, place.extent[across], 0, place.extent[up]),
    )  # fmt: skip
    pair = [across, up]
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


def draw_slice(axes: Any, crop: Shaped[Tensor, "a b d"], place: Place) -> None:
    """The middle slice of a crop along its third axis, displayed as an axial plane is."""
    across, up, _ = place.network_mm
    axes.imshow(
        numpy(crop[:, :, crop.shape[2] // 2]).T, cmap="gray", vmin=0, vmax=1, origin="lower",
        interpolation="nearest", aspect="equal", extent=(0, across, 0, up),
    )  # fmt: skip
    frame(axes, np.zeros(2), np.asarray([across, up]))
    mark_edges(axes, [*place.letters(0), *place.letters(1)])


def draw_caption(figure: Any, sample: Mapping[str, Any], pred: tuple[Tensor, Tensor] | None) -> None:
    """Between the rows: what the colours mean, with the numbers."""
    from matplotlib.lines import Line2D

    lengths = numpy(sample["vectors"]).reshape(-1, 3)
    lengths = np.linalg.norm(lengths, axis=1)
    handles = [Line2D([], [], color=BOX, linewidth=2, label="the crop")]
    if len(lengths):
        count = "1 vector" if len(lengths) == 1 else f"{len(lengths)} vectors"
        span = f"{lengths.min():.0f} to {lengths.max():.0f} mm"
        text = f"to predict: {count} to the landmark, {span} (projected)"
        handles.append(
            Line2D([], [], color=TRUE, marker="*", markersize=12, markeredgecolor=BACK, label=text)
        )
    if len(lengths) and pred is not None:
        output = as_output(sample, pred)
        error = float(vectorpose.vector_error_mm(output)[0])
        angle = float(vectorpose.angular_error_degrees(output)[0])
        text = f"predicted: {error:.1f} mm and {angle:.0f}° off on average"
        handles.append(
            Line2D([], [], color=PREDICTED, linestyle=(0, (4, 2)), marker="o", markersize=5.5, label=text)
        )
    figure.legend(
        handles=handles, loc="center", bbox_to_anchor=(0.5, 0.435), ncols=len(handles), frameon=False,
        fontsize=10.5, labelcolor=TEXT, handlelength=2.2, columnspacing=2.5,
    )  # fmt: skip

"""A picture of relative patch location: the volume with its patches, the patches, and the network's answer.

Coronal planes, one per layer of the grid from back to front. An image is drawn as one such plane of a volume
that is one voxel thick.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from pretext3d.annotations import Float, Shaped, Tensor
from pretext3d.checking import per_axis
from pretext3d.methods.relative_patch_location.pretext import cells_at, location_count
from pretext3d.training.drawing import FAINT, TEXT, View, frame, mark_edges, numpy, times, titled_figure
from pretext3d.training.grid_drawing import (
    BOX,
    DEPTH,
    RIGHT,
    WRONG,
    Contrast,
    as_volume,
    draw_layer,
    layer_of,
)

__all__ = ["draw"]

WIDTH, HEIGHTS = 12.0, (3.8, 4.6)  # inches; heights without and with an answer
SHOWN = 4  # queries
CENTRE = "C"  # note of the centre's patch
HEADINGS = {3: "The volume, patches outlined", 2: "The image, patches outlined"}
HALF, ROWS = 0.5, ((0.39, 0.28), (0.11, 0.22))  # of the figure: the right half; bottom and height of its rows


def draw(
    volume: Mapping[str, Any],
    sample: Mapping[str, Any],
    pred: Float[Tensor, "k n"] | None = None,
    title: str = "",
    *,
    grid: int | Sequence[int],
) -> Any:
    """The patches of one sample, and with `pred` the network's answer, as a matplotlib `Figure`.

    Left: the volume with the outlines of the centre's patch (C) and of the first four queries. Right: these
    patches as the network gets them; below each query the probabilities of the cells around the centre, layer
    by layer. The true cell has a green frame where it is the most probable one, otherwise it has a yellow
    one, and the most probable one a red one.

    Args:
        volume: Item with `image` (c, *space) in RAS order, its `id`, and the keys of `View`.
        sample: Output of the pipeline: `image` (1 + K, c, *size), `location` (K,) and `starts` (N, d), voxels
            of the volume.
        pred: Logits (K, N - 1) of this sample.
        title: First line.
        grid: Number of cells along each axis.
    """
    view = View(volume)
    image, sample, cells = as_volume(volume["image"], sample, per_axis("grid", grid, view.dims))
    centre = location_count(cells) // 2
    truth = cells_at(torch.as_tensor(sample["location"]), centre)[:SHOWN].tolist()
    shares = [cell_probabilities(row, centre) for row in pred[:SHOWN]] if pred is not None else []
    height, described = HEIGHTS[pred is not None], describe(volume, sample)
    figure = titled_figure(WIDTH, height, volume, title, below=0.24, subtitle=[described], view=view)
    for place, heading in ((0.25, HEADINGS[view.dims]), (0.75, "What the network sees")):
        figure.text(place, 0.785, heading, color=TEXT, size=12, ha="center", va="center")
    show = Contrast(image, view.colour)
    notes = {centre: CENTRE} | {cell: str(number) for number, cell in enumerate(truth, start=1)}
    across, up = view.letters[0], view.letters[-1]
    for layer in range(cells[DEPTH]):
        panel = figure.add_axes(column(0.015, HALF - 0.03, cells[DEPTH], layer, 0.15, 0.55))
        draw_layer(panel, image, sample, cells, layer, show, notes)
        panel.set_anchor("N")
        mark_edges(panel, [*across, *up], outside=True)
    for number in range(1 + len(truth)):
        panel = figure.add_axes(column(HALF, HALF - 0.015, 1 + len(truth), number, *ROWS[0]))
        draw_patch(panel, sample["image"][number], f"query {number}" if number else "centre", show)
    for number, (cell, share) in enumerate(zip(truth, shares, strict=False), start=1):
        left, bottom, width, height = column(HALF, HALF - 0.015, 1 + len(truth), number, *ROWS[1])
        for layer in range(cells[DEPTH]):
            panel = figure.add_axes(column(left, width, cells[DEPTH], layer, bottom, height, 0.002))
            draw_answer(panel, share, cells, layer, cell)
    figure.text(0.5, 0.05, caption(truth, shares), color=FAINT, size=10.5, ha="center", va="center")
    return figure


def column(
    left: float, width: float, count: int, number: int, bottom: float, height: float, space: float = 0.008
) -> tuple[float, float, float, float]:
    """Left, bottom, width and height of one of `count` equal panels in a row, `space` apart.

    Examples:
        >>> column(0.5, 0.5, 2, 1, 0.1, 0.6, space=0.05)
        (0.775, 0.1, 0.2, 0.6)
    """
    each = width / count
    return round(left + number * each + space / 2, 6), bottom, round(each - space, 6), height


def describe(volume: Mapping[str, Any], sample: Mapping[str, Any]) -> str:
    """The parts of the task: volume, cells, patches, queries."""
    shape, size = volume["image"].shape[1:], sample["image"].shape[2:]
    count, queries = len(sample["starts"]), len(sample["location"])
    asked = f"{queries} {'query' if queries == 1 else 'queries'}"
    if len(shape) == 2:
        return f"image: {times(shape)} pixels; {count} cells, patches of {times(size[::2])} pixels, {asked}"
    return (
        f"volume: {times(shape)} voxels; {count} cells, patches of {times(size)} voxels, {asked}; coronal "
        "planes through the layers of the grid, the hindmost first"
    )


def cell_probabilities(logits: Float[Tensor, "n"], centre: int) -> Float[np.ndarray, "m"]:
    """Probabilities of all m = n + 1 cells; NaN at the centre, which is no answer.

    Examples:
        >>> cell_probabilities(torch.zeros(2), centre=1).tolist()
        [0.5, nan, 0.5]
    """
    cells = np.full(len(logits) + 1, np.nan)
    places = cells_at(torch.arange(len(logits)), centre).numpy()
    cells[places] = numpy(logits.detach().float().softmax(0))
    return cells


def draw_patch(panel: Any, patch: Shaped[Tensor, "c i j k"], title: str, show: Contrast) -> None:
    """The middle slice of a patch."""
    width, depth, height = patch.shape[1:]
    show(panel, patch[:, :, depth // 2], (0, width, 0, height))
    frame(panel, np.zeros(2), np.asarray([width, height]))
    panel.set_anchor("N")
    panel.set_title(title, color=TEXT, size=10)


def draw_answer(
    panel: Any, share: Float[np.ndarray, "m"], cells: Sequence[int], layer: int, truth: int
) -> None:
    """The probabilities of the cells in one layer, with frames for the true and the most probable cell."""
    from matplotlib.patches import Rectangle

    numbers = layer_of(cells, layer)
    across, up = numbers.shape
    panel.imshow(share[numbers].T, cmap="gray", vmin=0, vmax=1, origin="lower", extent=(0, across, 0, up))
    answer = int(np.nanargmax(share))
    colours = {truth: RIGHT} if answer == truth else {truth: BOX, answer: WRONG}
    for a, b in np.ndindex(numbers.shape):
        cell = int(numbers[a, b])
        if np.isnan(share[cell]):
            panel.text(a + 0.5, b + 0.5, CENTRE, color=FAINT, size=8, ha="center", va="center")
        if cell in colours:
            panel.add_patch(Rectangle((a, b), 1, 1, fill=False, edgecolor=colours[cell], linewidth=1.6))
    frame(panel, np.zeros(2), np.asarray([across, up]))


def caption(truth: Sequence[int], shares: Sequence[Float[np.ndarray, "m"]]) -> str:
    """The meaning of the marks, or how many of the shown queries are right."""
    if not shares:
        return f"{CENTRE}: the centre's patch; the network says in which cell around it each query is"
    right = sum(int(np.nanargmax(share)) == cell for cell, share in zip(truth, shares, strict=True))
    return (
        f"{right} of {len(truth)} shown queries right; below them the probability of each cell; "
        "green: right, yellow: the true cell, red: the answer"
    )

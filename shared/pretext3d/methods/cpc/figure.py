"""A picture of CPC: a patch with its context, the patches to be recognised, and those the network takes.

Coronal planes, one per layer of the grid from back to front; an image is drawn as one such plane of a volume
that is one voxel thick.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from pretext3d.annotations import Float, Tensor
from pretext3d.methods.cpc.context import in_context
from pretext3d.methods.cpc.patches import PatchGrid
from pretext3d.methods.cpc.pretext import LocationAccuracy, similarities
from pretext3d.training.drawing import FAINT, TEXT, View, frame, mark_edges, numpy, times, titled_figure
from pretext3d.training.grid_drawing import BOX, DEPTH, RIGHT, WRONG, Contrast, as_volume, layer_of, note

__all__ = ["draw"]

PANEL, MARGIN, HEADING = 2.6, 0.15, 0.45  # inches
WIDTH = 9.0  # inches, at least
HEAD, FOOT = 0.85, 0.35  # inches above and below the panels
PATCH, CONTEXT, HERE = "#5a606b", "#5aa9ff", "#ff9f40"
SEAM = 2  # voxels between the patches of a mosaic
SHOWN = 0.1  # smallest probability that is written


def draw(
    volume: Mapping[str, Any],
    sample: Mapping[str, Any],
    pred: tuple[Tensor, Tensor] | None = None,
    title: str = "",
    *,
    patches: PatchGrid,
    context: str = "gru",
    context_radius: int = 2,
) -> Any:
    """One patch's context and predictions, as a matplotlib `Figure`.

    First the volume with the windows that are seen of the patches: orange the patch, blue its context, green
    the patches to be recognised from both, one for each number of rows ahead. With `pred` follow, for each of
    these, the patches with the probabilities that the network gives them; the right one is framed green, and
    red the one that is taken for it.

    Args:
        volume: Item with `image` (c, *space) in RAS order, its `id`, and the keys of `View`.
        sample: Output of the pipeline: `image` (m, c, *size) and `starts` (m, d), voxels of the volume.
        pred: Output of the network for this sample without the batch axis.
        title: First line.
        patches: Geometry of the grid.
        context: Kind of the context network.
        context_radius: Largest half width of the inverted pyramid.
    """
    view = View(volume)
    image, thin, cells = as_volume(volume["image"], sample, patches.grid)
    seen = [edge - less for edge, less in zip(patches.size, patches.jitter, strict=True)]
    seen = seen if view.dims == 3 else [seen[0], 1, seen[1]]
    place = chosen(patches)
    layers, groups = cells[DEPTH], 1 + (patches.steps if pred is not None else 0)
    columns, rows = (groups, 1) if view.dims == 2 else (layers, groups)
    width = max(columns * PANEL + (columns + 1) * MARGIN, WIDTH)
    height = HEAD + rows * (PANEL + HEADING) + FOOT
    described = describe(volume, patches)
    figure = titled_figure(width, height, volume, title, below=0.25, subtitle=[described], view=view)
    show = Contrast(image, view.colour)
    for group in range(groups):
        across, down = (group, 0) if view.dims == 2 else (0, group)
        top = height - HEAD - down * (PANEL + HEADING)
        heading = headings(patches, pred, place, group)
        left = (MARGIN + across * (PANEL + MARGIN)) / width
        figure.text(left, (top - HEADING / 2) / height, heading, color=TEXT, size=10.5, va="center")
        for layer in range(layers):
            x = MARGIN + (across + layer) * (PANEL + MARGIN)
            bottom = top - HEADING - PANEL
            panel = figure.add_axes((x / width, bottom / height, PANEL / width, PANEL / height))
            if group == 0:
                kinds = marked(patches, place, context, context_radius)
                draw_context(panel, image, thin, cells, layer, show, seen, kinds)
                mark_edges(panel, [*view.letters[0], *view.letters[-1]])
            elif pred is not None:
                probability, right = answer(patches, pred, place, group)
                draw_answer(panel, thin, cells, layer, show, probability, right)
    figure.text(0.02, 0.15 / height, caption(patches, pred), color=FAINT, size=10.5, va="center")
    return figure


def describe(volume: Mapping[str, Any], patches: PatchGrid) -> str:
    """The volume and its grid, in one line."""
    unit = "pixels" if len(patches.grid) == 2 else "voxels"
    return (
        f"{times(volume['image'].shape[1:])} {unit}; {times(patches.grid)} patches of {times(patches.size)}, "
        f"overlap {times(patches.overlap)}"
    )


def chosen(patches: PatchGrid) -> tuple[int, ...]:
    """The patch that is drawn: the last row from which all steps ahead are in the grid, in the middle of it.

    Examples:
        >>> chosen(PatchGrid(4, (8, 8), steps=2, spatial_dims=2))
        (1, 2)
    """
    return (patches.shape[0] - 1 - patches.steps, *(count // 2 for count in patches.shape[1:]))


def marked(patches: PatchGrid, place: Sequence[int], context: str, radius: int) -> dict[int, str]:
    """The colour of each cell that is the patch itself, in its context, or to be recognised."""
    seen = in_context(patches.shape, place, radius, context).flatten()
    here = location(patches, place)
    colours = {int(patches.order[n]): CONTEXT for n in seen.nonzero().flatten().tolist()}
    colours |= {cell_ahead(patches, place, step): RIGHT for step in range(1, patches.steps + 1)}
    return colours | {int(patches.order[here]): HERE}


def location(patches: PatchGrid, place: Sequence[int]) -> int:
    """The number of the location at row, then place along each other axis."""
    return int(np.ravel_multi_index(tuple(place), patches.shape))


def cell_ahead(patches: PatchGrid, place: Sequence[int], step: int) -> int:
    """The cell that is `step` rows further down."""
    return int(patches.order[location(patches, (place[0] + step, *place[1:]))])


def answer(
    patches: PatchGrid, pred: tuple[Tensor, Tensor], place: Sequence[int], step: int
) -> tuple[Float[Tensor, "m"], int]:
    """The probability of each cell, and the right cell, of one prediction."""
    target = location(patches, (place[0] + step, *place[1:]))
    query = int(((patches.targets == target) & (patches.step_of == step)).nonzero())
    by_location = similarities(as_batch(pred))[0, query].softmax(0)
    return torch.empty_like(by_location).index_copy(0, patches.order, by_location), int(patches.order[target])


def as_batch(pred: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """The prediction of one sample as a batch of one, on the CPU."""
    codes, predicted = (part.detach().cpu().float()[None] for part in pred)
    return codes, predicted


def headings(patches: PatchGrid, pred: tuple[Tensor, Tensor] | None, place: Sequence[int], group: int) -> str:
    """The line above a group of panels."""
    if group == 0 or pred is None:
        return "Orange: a patch, blue: its context,\ngreen: to be recognised"
    probability, right = answer(patches, pred, place, group)
    ahead = "1 row ahead" if group == 1 else f"{group} rows ahead"
    found = "recognised" if int(probability.argmax()) == right else "not recognised"
    return f"{ahead}: {found},\n{100 * float(probability[right]):.0f} % for the right one"


def caption(patches: PatchGrid, pred: tuple[Tensor, Tensor] | None) -> str:
    """How often all patches of the image are recognised."""
    count = len(patches.order)
    if pred is None:
        return f"{len(patches.targets)} predictions, each of one of {count} patches"
    accuracy = float(LocationAccuracy(patches)({"pred": as_batch(pred)})[0])
    return (
        f"{100 * accuracy:.0f} % of the {len(patches.targets)} predictions of this image are right (chance "
        f"{100 / count:.1f} %); green: the right patch, red: taken for it"
    )


def draw_context(
    panel: Any,
    image: Tensor,
    sample: Mapping[str, Any],
    cells: Sequence[int],
    layer: int,
    show: Contrast,
    seen: Sequence[int],
    colours: Mapping[int, str],
) -> None:
    """The coronal plane through the middle of a layer's windows, with outlines, the marked ones on top."""
    from matplotlib.patches import Rectangle

    numbers = layer_of(cells, layer).ravel()
    starts = numpy(sample["starts"])
    middle = int(np.clip(starts[numbers, DEPTH].mean() + seen[DEPTH] / 2, 0, image.shape[2] - 1))
    show(panel, image[:, :, middle], (0, image.shape[1], 0, image.shape[3]))
    for number in sorted(numbers.tolist(), key=lambda n: n in colours):
        colour = colours.get(number, PATCH)
        width = 1.8 if number in colours else 0.6
        corner = tuple(starts[number][[0, 2]])
        panel.add_patch(Rectangle(corner, seen[0], seen[2], fill=False, edgecolor=colour, linewidth=width))
    frame(panel, np.zeros(2), np.asarray([image.shape[1], image.shape[3]]))


def draw_answer(
    panel: Any,
    sample: Mapping[str, Any],
    cells: Sequence[int],
    layer: int,
    show: Contrast,
    probability: Float[Tensor, "m"],
    right: int,
) -> None:
    """The middle slices of a layer's patches, with the probabilities that they are the right one."""
    from matplotlib.patches import Rectangle

    size = np.asarray(sample["image"].shape[2:])
    pitch, numbers = size[[0, 2]] + SEAM, layer_of(cells, layer)
    found = int(probability.argmax())
    for a, b in np.ndindex(numbers.shape):
        number, corner = int(numbers[a, b]), pitch * (a, b)
        extent = (corner[0], corner[0] + size[0], corner[1], corner[1] + size[2])
        show(panel, sample["image"][number, :, :, size[DEPTH] // 2], extent)
        colour = RIGHT if number == right else WRONG if number == found else PATCH
        width = 2.0 if number in (right, found) else 0.6
        panel.add_patch(
            Rectangle(tuple(corner), size[0], size[2], fill=False, edgecolor=colour, linewidth=width)
        )
        if float(probability[number]) >= SHOWN or number == right:
            text = f"{100 * float(probability[number]):.0f}"
            note(panel, corner, size[[0, 2]].tolist(), text, BOX if colour == PATCH else colour)
    frame(panel, -np.ones(2), pitch * numbers.shape)

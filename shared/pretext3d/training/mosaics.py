"""Pictures of puzzles: a volume with its patches outlined, and the patches arranged in some order."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from pretext3d.annotations import Int, Shaped, Tensor
from pretext3d.checking import per_axis
from pretext3d.training.drawing import FAINT, TEXT, View, frame, mark_edges, times, titled_figure
from pretext3d.training.grid_drawing import DEPTH, Contrast, as_volume, draw_layer, layer_of, note

__all__ = ["Mosaic", "describe_puzzle", "draw_puzzle"]

WIDTH, HEIGHTS = 12.0, {3: (4.6, 3.7), 2: (6.4, 5.6)}  # inches; heights with one mosaic and with two
SEAM = 2  # voxels between the patches of a mosaic


class Mosaic(NamedTuple):
    """Patches (m, c, *size) at the places of a grid, each with a note and the colour of its frame.

    `upright`: whether the patches lie as they do in the volume, so that its directions can be named.
    """

    heading: str
    patches: Shaped[Tensor, "..."]
    notes: Sequence[str]
    colours: Sequence[str]
    upright: bool


def describe_puzzle(volume: Mapping[str, Any], sample: Mapping[str, Any], count: int, patches: str) -> str:
    """The parts of a puzzle: volume, patches, which of `count` permutations.

    Args:
        volume: Item with `image` (c, *space).
        sample: Item with `image` (m, c, *size) and `permutation`.
        count: Number of permutations.
        patches: What they are called, e.g. cubes.
    """
    shape, size = volume["image"].shape[1:], sample["image"].shape[2:]
    cut = f"{len(sample['image'])} {patches} of {times(size)}"
    permutation = f"permutation {int(sample['permutation'])} of {count}"
    if len(shape) == 2:
        return f"image: {times(shape)} pixels; {cut} pixels, {permutation}"
    planes = "coronal planes, the hindmost first"
    return f"volume: {times(shape)} voxels; {cut} voxels, {permutation}; {planes}"


def draw_puzzle(
    volume: Mapping[str, Any],
    starts: Int[Tensor, "m d"],
    mosaics: Sequence[Mosaic],
    *,
    grid: int | Sequence[int],
    heading: str,
    title: str = "",
    subtitle: str = "",
    caption: str = "",
) -> Any:
    """The volume with its patches outlined and numbered, and one or two mosaics, as a matplotlib `Figure`.

    Coronal planes, one per layer of the grid from back to front.

    Args:
        volume: Item with `image` (c, *space) in RAS order, its `id`, and the keys of `View`.
        starts: Lowest voxels of the patches of the cells, in the volume.
        mosaics: The arranged patches, from left to right.
        grid: Number of cells along each axis.
        heading: Line above the volume.
        title: First line; '' = the item's `id`.
        subtitle: Second line.
        caption: Last line.
    """
    view = View(volume)
    height = HEIGHTS[view.dims][len(mosaics) - 1]
    figure = titled_figure(WIDTH, height, volume, title, below=0.24, subtitle=[subtitle], view=view)
    given = per_axis("grid", grid, view.dims)
    image = volume["image"]
    across, up = view.letters[0], view.letters[-1]
    for group, mosaic in enumerate([None, *mosaics]):
        of_mosaic = mosaics[0] if mosaic is None else mosaic
        thick, sample, cells = as_volume(image, {"image": of_mosaic.patches, "starts": starts}, given)
        # patches may have other intensities than the volume
        shown = image if mosaic is None else mosaic.patches.transpose(0, 1)
        show = Contrast(shown, view.colour)
        width = 0.97 / ((1 + len(mosaics)) * cells[DEPTH])
        for layer in range(cells[DEPTH]):
            left = 0.015 + (group * cells[DEPTH] + layer) * width
            panel = figure.add_axes((left + 0.004, 0.11, width - 0.008, 0.6))
            if mosaic is None:
                draw_layer(panel, thick, sample, cells, layer, show)
            else:
                draw_mosaic(panel, sample["image"], mosaic, layer_of(cells, layer), show)
            if mosaic is None or mosaic.upright:
                mark_edges(panel, [*across, *up], outside=True)
        centre = (group + 0.5) / (1 + len(mosaics))
        above = heading if mosaic is None else mosaic.heading
        figure.text(centre, 0.8, above, color=TEXT, size=12, ha="center", va="center")
    figure.text(0.5, 0.05, caption, color=FAINT, size=10.5, ha="center", va="center")
    return figure


def draw_mosaic(
    panel: Any,
    patches: Shaped[Tensor, "m c i j k"],
    mosaic: Mosaic,
    places: Shaped[np.ndarray, "a b"],
    show: Contrast,
) -> None:
    """The middle slices of the patches at one layer's places, with their notes and frames."""
    from matplotlib.patches import Rectangle

    width, depth, height = patches.shape[2:]
    pitch = np.asarray([width + SEAM, height + SEAM])
    for a, b in np.ndindex(places.shape):
        place = int(places[a, b])
        corner, colour = pitch * (a, b), mosaic.colours[place]
        extent = (corner[0], corner[0] + width, corner[1], corner[1] + height)
        show(panel, patches[place, :, :, depth // 2], extent)
        note(panel, corner, (width, height), mosaic.notes[place], colour)
        panel.add_patch(Rectangle(tuple(corner), width, height, fill=False, edgecolor=colour, linewidth=1.6))
    frame(panel, -np.ones(2), pitch * places.shape)

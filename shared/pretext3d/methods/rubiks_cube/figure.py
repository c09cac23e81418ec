"""A picture of Rubik's cube recovery: the volume, the puzzle, and the network's solution.

Coronal planes, one per layer of the grid from back to front, show half rotations about the left-right and
the inferior-superior axis. An image is drawn as one such plane of a volume that is one voxel thick.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from pretext3d.annotations import Int, Shaped, Tensor
from pretext3d.checking import per_axis
from pretext3d.methods.rubiks_cube.pretext import check_axes, solve, turn_probabilities
from pretext3d.training.drawing import BACK, FAINT, TEXT, View, frame, mark_edges, times
from pretext3d.training.grid_drawing import (
    BOX,
    DEPTH,
    RIGHT,
    WRONG,
    Contrast,
    as_volume,
    draw_layer,
    layer_of,
    note,
)

__all__ = ["draw"]

WIDTH, HEIGHTS = 12.0, {3: (4.6, 3.7), 2: (6.4, 5.6)}  # inches; heights without and with a solution
HEADINGS = {3: "The volume, its cubes outlined", 2: "The image, its tiles outlined"}
MARKS = {2: "hv", 1: "r"}  # of a rotated cube, by the number of its rotations
SEAM = 2  # voxels between the cubes of a mosaic


def draw(
    volume: Mapping[str, Any],
    sample: Mapping[str, Any],
    pred: tuple[Tensor, Tensor] | None = None,
    title: str = "",
    *,
    permutations: Int[Tensor, "k m"],
    grid: int | Sequence[int],
    axes: Sequence[int] | None = None,
) -> Any:
    """The puzzle of one volume, and with `pred` the network's solution of it, as a matplotlib `Figure`.

    Left: the volume with the outlines of its cubes. Middle: the cubes as the network gets them, in the order
    of their positions; each is marked with the number of the cell that it comes from, and with its rotation
    axes. Right: the cubes as the network's answer arranges them, framed green where order and rotations are
    right.

    Args:
        volume: Item with `image` (c, *space) in RAS order, its `id`, and the keys of `View`.
        sample: Output of the pipeline: `image` (m, c, *size), `order` (m,), `turned` (m, r), `permutation`
            and `starts` (m, d), voxels of the volume.
        pred: Output of the network for this sample without the batch axis.
        title: First line.
        permutations: Classes (K, m).
        grid: Number of cells along each axis.
        axes: Axes of the half rotations; None = the usual ones.
    """
    from matplotlib.figure import Figure

    view = View(volume)
    image, sample, cells = as_volume(volume["image"], sample, per_axis("grid", grid, view.dims))
    turned_about = (DEPTH,) if view.dims == 2 else check_axes(axes, 3)
    figure = Figure(figsize=(WIDTH, HEIGHTS[view.dims][pred is not None]), facecolor=BACK)
    figure.text(
        0.02, 0.935, title or str(volume.get("id", "")), color=TEXT, size=15, weight="bold", va="center"
    )
    figure.text(0.02, 0.865, describe(volume, sample, len(permutations)), color=FAINT, size=10.5, va="center")
    answer = answered(pred, permutations) if pred is not None else None
    groups = 2 + (answer is not None)
    show = Contrast(image, view.colour)
    across, up = view.letters[0], view.letters[-1]
    for group in range(groups):
        width = 0.97 / (groups * cells[DEPTH])
        for layer in range(cells[DEPTH]):
            left = 0.015 + (group * cells[DEPTH] + layer) * width
            panel = figure.add_axes((left + 0.004, 0.11, width - 0.008, 0.62))
            if group == 0:
                draw_layer(panel, image, sample, cells, layer, show)
            else:
                draw_mosaic(panel, sample, answer if group == 2 else None, cells, layer, turned_about, show)
            mark_edges(panel, [*across, *up] if group != 1 else [""] * 4)
        heading = (HEADINGS[view.dims], "What the network sees", "The network's solution")[group]
        figure.text(
            0.5 / groups + group / groups, 0.775, heading, color=TEXT, size=12, ha="center", va="center"
        )
    figure.text(0.5, 0.05, caption(sample, answer), color=FAINT, size=10.5, ha="center", va="center")
    return figure


def describe(volume: Mapping[str, Any], sample: Mapping[str, Any], count: int) -> str:
    """The parts of the puzzle: volume, cubes, permutation."""
    shape, size = volume["image"].shape[1:], sample["image"].shape[2:]
    permutation = f"permutation {int(sample['permutation'])} of {count}"
    if len(shape) == 2:
        tiles = f"{len(sample['order'])} tiles of {times(size[::2])} pixels"
        return f"image: {times(shape)} pixels; {tiles}, {permutation}"
    return (
        f"volume: {times(shape)} voxels; {len(sample['order'])} cubes of {times(size)} voxels, "
        f"{permutation}; coronal planes through the layers of the grid, the hindmost first"
    )


def answered(pred: tuple[Tensor, Tensor], permutations: Int[Tensor, "k m"]) -> tuple[Tensor, Tensor]:
    """The predicted order (m,) and rotations (m, r) of one puzzle."""
    batch = tuple(part.detach().cpu().float()[None] for part in pred)
    turned = turn_probabilities((batch[0], batch[1]), permutations)[0] > 0.5
    return permutations[int(batch[0][0].argmax())], turned


def draw_mosaic(
    panel: Any,
    sample: Mapping[str, Any],
    answer: tuple[Tensor, Tensor] | None,
    cells: Sequence[int],
    layer: int,
    axes: Sequence[int],
    show: Contrast,
) -> None:
    """The middle slices of the cubes at one layer's positions: as given, or as the answer arranges them."""
    from matplotlib.patches import Rectangle

    cubes, order, turned = sample["image"], sample["order"], sample["turned"]
    where = torch.arange(len(order))  # the position in the puzzle shown at each place of the mosaic
    if answer is not None:
        cubes, where = solve(cubes, *answer, axes), answer[0].argsort()
    width, depth, height = cubes.shape[2:]
    pitch = np.asarray([width + SEAM, height + SEAM])
    numbers = layer_of(cells, layer)
    for a, b in np.ndindex(numbers.shape):
        place = int(numbers[a, b])
        corner = pitch * (a, b)
        extent = (corner[0], corner[0] + width, corner[1], corner[1] + height)
        show(panel, cubes[place, :, :, depth // 2], extent)
        position = int(where[place])
        if answer is None:
            text, colour = str(int(order[place]) + 1) + turn_names(turned[place]), BOX
        else:
            right = int(order[position]) == place and torch.equal(turned[position], answer[1][position])
            text, colour = "", RIGHT if right else WRONG
        note(panel, corner, (width, height), text, colour)
        panel.add_patch(Rectangle(tuple(corner), width, height, fill=False, edgecolor=colour, linewidth=1.6))
    frame(panel, -np.ones(2), pitch * numbers.shape)


def turn_names(turned: Shaped[Tensor, "r"]) -> str:
    """` h`, ` v`, ` hv` or nothing: rotated about the horizontal, the vertical axis; ` r`: in the plane.

    Examples:
        >>> turn_names(torch.tensor([True, True])), turn_names(torch.tensor([True]))
        (' hv', ' r')
    """
    axes = MARKS[len(turned)]
    names = "".join(name for name, there in zip(axes, turned.tolist(), strict=True) if there)
    return f" {names}" if names else ""


def caption(sample: Mapping[str, Any], answer: tuple[Tensor, Tensor] | None) -> str:
    """The meaning of the marks, or how much of the answer is right."""
    if answer is None and sample["turned"].shape[-1] == 1:
        return "number: the cell of a tile; r: rotated by half in the plane"
    if answer is None:
        return "number: the cell of a cube; h, v: rotated by half about the horizontal, the vertical axis"
    ordered = "right" if torch.equal(answer[0], sample["order"]) else "wrong"
    turns, count = int((answer[1] == sample["turned"]).sum()), sample["turned"].numel()
    restored = "cube" if sample["turned"].shape[-1] > 1 else "tile"
    return f"order {ordered}; {turns} of {count} half turns recognised; green: {restored} restored"

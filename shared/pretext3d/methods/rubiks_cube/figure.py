"""A picture of Rubik's cube recovery: the volume, the puzzle, and how the network puts it together.

Coronal planes, one for each layer of the grid from back to front: half turns about the left-right and about
the inferior-superior axis are both seen in them.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from pretext3d.annotations import Int, Shaped, Tensor
from pretext3d.methods.drawing import BACK, FAINT, LETTERS, TEXT, frame, mark_edges, numpy, times
from pretext3d.methods.rubiks_cube.pretext import solve, turn_probabilities
from pretext3d.ops.grids import check_grid

__all__ = ["draw"]

WIDTH, HEIGHTS = 12.0, (4.6, 3.7)  # inches; heights without and with a solution
BOX, RIGHT, WRONG = "#ffd54a", "#5fd38d", "#ff5f57"
SEAM = 2  # voxels between the cubes of a mosaic
NOTE = np.asarray([0.95, 0.93])  # where a cube's note begins, of its size


def draw(
    volume: Mapping[str, Any],
    sample: Mapping[str, Any],
    pred: tuple[Tensor, Tensor] | None = None,
    title: str = "",
    *,
    permutations: Int[Tensor, "k m"],
    grid: int | Sequence[int],
    axes: Sequence[int],
) -> Any:
    """The puzzle of one volume, and with `pred` the network's solution of it, as a matplotlib `Figure`.

    Left: the volume with the outlines of its cubes. Middle: the cubes as the network gets them, in the order
    of their positions; each is marked with the number of the cell that it comes from, and with what it was
    turned about. Right: the cubes as the network's answer arranges them, framed green where order and turns
    are right.

    Args:
        volume: `image` (c, i, j, k) in RAS order, and its `id`.
        sample: what the pipeline gives: `image` (m, c, *size), `order` (m,), `turned` (m, 2), `permutation`
            and `starts` (m, 3), voxels of the volume.
        pred: the network's output for this sample without the batch axis.
        title: the first line.
        permutations: (K, m), the classes.
        grid: cells along each axis.
        axes: of the half turns.
    """
    from matplotlib.figure import Figure

    cells = check_grid("grid", grid)
    figure = Figure(figsize=(WIDTH, HEIGHTS[pred is not None]), facecolor=BACK)
    figure.text(
        0.02, 0.935, title or str(volume.get("id", "")), color=TEXT, size=15, weight="bold", va="center"
    )
    note = (
        f"volume: {times(volume['image'].shape[1:])} voxels; {len(sample['order'])} cubes of "
        f"{times(sample['image'].shape[2:])} voxels, permutation {int(sample['permutation'])} of "
        f"{len(permutations)}; coronal planes through the layers of the grid, the hindmost first"
    )
    figure.text(0.02, 0.865, note, color=FAINT, size=10.5, va="center")
    answer = answered(pred, permutations) if pred is not None else None
    groups = 2 + (answer is not None)
    limits = np.quantile(numpy(volume["image"][0]), [0.005, 0.995])
    for group in range(groups):
        width = 0.97 / (groups * cells[1])
        for layer in range(cells[1]):
            left = 0.015 + (group * cells[1] + layer) * width
            panel = figure.add_axes((left + 0.004, 0.11, width - 0.008, 0.62))
            if group == 0:
                draw_volume(panel, volume["image"][0], sample, cells, layer, limits)
            else:
                draw_mosaic(panel, sample, answer if group == 2 else None, cells, layer, axes, limits)
            mark_edges(panel, [*LETTERS[0], *LETTERS[2]] if group != 1 else [""] * 4)
        heading = ("The volume, its cubes outlined", "What the network sees", "The network's solution")[group]
        figure.text(
            0.5 / groups + group / groups, 0.775, heading, color=TEXT, size=12, ha="center", va="center"
        )
    figure.text(0.5, 0.05, caption(sample, answer), color=FAINT, size=10.5, ha="center", va="center")
    return figure


def answered(pred: tuple[Tensor, Tensor], permutations: Int[Tensor, "k m"]) -> tuple[Tensor, Tensor]:
    """The predicted order (m,) and turns (m, 2) of one puzzle."""
    batch = tuple(part.detach().cpu().float()[None] for part in pred)
    turned = turn_probabilities((batch[0], batch[1]), permutations)[0] > 0.5
    return permutations[int(batch[0][0].argmax())], turned


def layer_of(cells: Sequence[int], layer: int) -> Shaped[np.ndarray, "a b"]:
    """Numbers of the cells in one layer along axis 1, (cells along axis 0, cells along axis 2)."""
    return np.arange(np.prod(cells)).reshape(cells)[:, layer]


def draw_volume(
    panel: Any,
    image: Shaped[Tensor, "i j k"],
    sample: Mapping[str, Any],
    cells: Sequence[int],
    layer: int,
    limits: np.ndarray,
) -> None:
    """The coronal plane through the middle of a layer's cubes, with their outlines and numbers."""
    from matplotlib.patches import Rectangle

    width, depth, height = sample["image"].shape[2:]
    numbers = layer_of(cells, layer)
    starts = numpy(sample["starts"])
    middle = int(np.clip(starts[numbers.ravel(), 1].mean() + depth / 2, 0, image.shape[1] - 1))
    panel.imshow(
        numpy(image[:, middle]).T, cmap="gray", vmin=limits[0], vmax=limits[1], origin="lower",
        extent=(0, image.shape[0], 0, image.shape[2]),
    )  # fmt: skip
    for number in numbers.ravel():
        corner = starts[number][[0, 2]]
        panel.add_patch(Rectangle(tuple(corner), width, height, fill=False, edgecolor=BOX, linewidth=1.4))
        panel.text(*(corner + NOTE * (width, height)), str(number + 1), color=BOX, size=10, va="top")
    low = np.minimum(0, starts.min(0)[[0, 2]])
    high = np.maximum([image.shape[0], image.shape[2]], starts.max(0)[[0, 2]] + (width, height))
    frame(panel, low, high)


def draw_mosaic(
    panel: Any,
    sample: Mapping[str, Any],
    answer: tuple[Tensor, Tensor] | None,
    cells: Sequence[int],
    layer: int,
    axes: Sequence[int],
    limits: np.ndarray,
) -> None:
    """The middle slices of the cubes at one layer's positions: as given, or as the answer arranges them."""
    from matplotlib.patches import Rectangle

    cubes, order, turned = sample["image"], sample["order"], sample["turned"]
    where = torch.arange(len(order))  # the position in the puzzle that each place of the mosaic shows
    if answer is not None:
        cubes, where = solve(cubes, *answer, axes), answer[0].argsort()
    width, depth, height = cubes.shape[2:]
    pitch = np.asarray([width + SEAM, height + SEAM])
    numbers = layer_of(cells, layer)
    for a, b in np.ndindex(numbers.shape):
        place = int(numbers[a, b])
        corner = pitch * (a, b)
        extent = (corner[0], corner[0] + width, corner[1], corner[1] + height)
        panel.imshow(
            numpy(cubes[place, 0, :, depth // 2]).T, cmap="gray", vmin=limits[0], vmax=limits[1],
            origin="lower", extent=extent,
        )  # fmt: skip
        position = int(where[place])
        if answer is None:
            note, colour = str(int(order[place]) + 1) + turn_names(turned[place]), BOX
        else:
            right = int(order[position]) == place and torch.equal(turned[position], answer[1][position])
            note, colour = "", RIGHT if right else WRONG
        panel.text(*(corner + NOTE * (width, height)), note, color=colour, size=10, ha="left", va="top")
        panel.add_patch(Rectangle(tuple(corner), width, height, fill=False, edgecolor=colour, linewidth=1.6))
    frame(panel, -np.ones(2), pitch * numbers.shape)


def turn_names(turned: Shaped[Tensor, "2"]) -> str:
    """` h`, ` v`, ` hv` or nothing: turned about the horizontal, the vertical axis."""
    names = "".join(name for name, there in zip("hv", turned.tolist(), strict=True) if there)
    return f" {names}" if names else ""


def caption(sample: Mapping[str, Any], answer: tuple[Tensor, Tensor] | None) -> str:
    """What the marks mean, or how much of the answer is right."""
    if answer is None:
        return "number: the cell of a cube; h, v: turned by half about the horizontal, the vertical axis"
    ordered = "right" if torch.equal(answer[0], sample["order"]) else "wrong"
    turns, count = int((answer[1] == sample["turned"]).sum()), sample["turned"].numel()
    return f"order {ordered}; {turns} of {count} half turns recognised; green: cube restored"

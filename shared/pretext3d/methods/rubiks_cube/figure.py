"""A picture of Rubik's cube recovery: the volume, the puzzle, and the network's solution.

Coronal planes, one per layer of the grid from back to front, show half rotations about the left-right and
the inferior-superior axis.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from pretext3d.annotations import Int, Shaped, Tensor
from pretext3d.methods.rubiks_cube.pretext import check_axes, solve, turn_probabilities
from pretext3d.training.grid_drawing import BOX, RIGHT, WRONG
from pretext3d.training.mosaics import Mosaic, describe_puzzle, draw_puzzle

__all__ = ["draw"]

HEADINGS = {3: "The volume, its cubes outlined", 2: "The image, its tiles outlined"}
PATCHES = {3: "cubes", 2: "tiles"}
MARKS = {2: "hv", 1: "r"}  # of a rotated cube, by the number of its rotations


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
    dims = volume["image"].ndim - 1
    order, turned = sample["order"], sample["turned"]
    notes = [str(cell + 1) + turn_names(marks) for cell, marks in zip(order.tolist(), turned, strict=True)]
    mosaics = [Mosaic("What the network sees", sample["image"], notes, [BOX] * len(order), upright=False)]
    answer = answered(pred, permutations) if pred is not None else None
    if answer is not None:
        restored = solve(sample["image"], *answer, check_axes(axes, dims))
        position = answer[0].argsort()  # of the cube shown at each place
        right = (order[position] == torch.arange(len(order))) & (turned == answer[1]).all(1)[position]
        colours = [RIGHT if good else WRONG for good in right.tolist()]
        heading = "The network's solution"
        mosaics.append(Mosaic(heading, restored, [""] * len(order), colours, upright=True))
    return draw_puzzle(
        volume,
        sample["starts"],
        mosaics,
        grid=grid,
        heading=HEADINGS[dims],
        title=title,
        subtitle=describe_puzzle(volume, sample, len(permutations), PATCHES[dims]),
        caption=caption(sample, answer),
    )


def answered(pred: tuple[Tensor, Tensor], permutations: Int[Tensor, "k m"]) -> tuple[Tensor, Tensor]:
    """The predicted order (m,) and rotations (m, r) of one puzzle."""
    batch = tuple(part.detach().cpu().float()[None] for part in pred)
    turned = turn_probabilities((batch[0], batch[1]), permutations)[0] > 0.5
    return permutations[int(batch[0][0].argmax())], turned


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

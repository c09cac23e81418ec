"""A picture of a jigsaw puzzle: the volume, the scrambled patches, and the network's solution."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from pretext3d.annotations import Int, Tensor
from pretext3d.ops.permutations import reorder
from pretext3d.training.grid_drawing import BOX, RIGHT, WRONG
from pretext3d.training.mosaics import Mosaic, describe_puzzle, draw_puzzle

__all__ = ["draw"]

HEADINGS = {3: "The volume, its patches outlined", 2: "The image, its patches outlined"}


def draw(
    volume: Mapping[str, Any],
    sample: Mapping[str, Any],
    pred: Tensor | None = None,
    title: str = "",
    *,
    permutations: Int[Tensor, "p m"],
    grid: int | Sequence[int],
) -> Any:
    """The puzzle of one volume, and with `pred` the network's solution of it, as a matplotlib `Figure`.

    Left: the volume with the outlines of its patches. Middle: the patches as the network gets them, each with
    the number of the cell that it comes from. Right: the patches as the predicted permutation arranges them,
    framed green where they are in their cell.

    Args:
        volume: Item with `image` (c, *space) in RAS order, its `id`, and the keys of `View`.
        sample: Output of the pipeline: `image` (m, c, *size), `order` (m,), `permutation` (K,) and `starts`
            (m, d), voxels of the volume. The first of its puzzles is drawn.
        pred: Logits (1, P) of the network for `image`.
        title: First line.
        permutations: Classes (P, m).
        grid: Number of cells along each axis.
    """
    patches, order, puzzle = (
        sample["image"],
        sample["order"],
        {**sample, "permutation": sample["permutation"][0]},
    )
    notes = [str(cell + 1) for cell in order.tolist()]
    mosaics = [Mosaic("What the network sees", patches, notes, [BOX] * len(notes), upright=False)]
    caption = "number: the cell that a patch comes from"
    if pred is not None:
        logits = pred[0].float()
        found, certain = int(logits.argmax()), 100 * float(logits.softmax(-1).max())
        position = permutations[found].argsort()  # of the patch shown at each place
        right = order[position] == torch.arange(len(order))
        notes = [str(cell + 1) for cell in order[position].tolist()]
        colours = [RIGHT if there else WRONG for there in right.tolist()]
        solved = Mosaic("The network's solution", reorder(patches, position), notes, colours, upright=True)
        mosaics.append(solved)
        caption = f"permutation {found} predicted, {certain:.0f} %; "
        caption += f"{int(right.sum())} of {len(order)} patches in their cells, green"
    return draw_puzzle(
        volume,
        sample["starts"],
        mosaics,
        grid=grid,
        heading=HEADINGS[volume["image"].ndim - 1],
        title=title,
        subtitle=describe_puzzle(volume, puzzle, len(permutations), "patches"),
        caption=caption,
    )

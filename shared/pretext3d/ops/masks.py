"""Masks of sets of classes, which may overlap."""

from collections.abc import Sequence

import torch

from pretext3d.annotations import Bool, Shaped, Tensor

__all__ = ["class_masks"]


def class_masks(
    classes: Shaped[Tensor, "*size"], members: Sequence[Sequence[int]], channel: int
) -> Bool[Tensor, "*masks"]:
    """One mask per set of classes: True where a voxel's class is in the set.

    Args:
        classes: Class of each voxel, an integer from 0, with one channel: (b, 1, ...) or (1, ...).
        members: Classes of each set.
        channel: Axis of the channel: 1 for a batch, 0 for one item.

    Returns:
        (b, sets, ...) or (sets, ...).

    Examples:
        >>> class_masks(torch.tensor([[0, 1, 2, 3]]), [[1, 2, 3], [3]], channel=0).int().tolist()
        [[0, 1, 1, 1], [0, 0, 0, 1]]
    """
    size = max([int(classes.max()), *(c for one in members for c in one)]) + 1
    table = torch.zeros(len(members), size, dtype=torch.bool, device=classes.device)
    for row, one in zip(table, members, strict=True):
        row[list(one)] = True
    return table[:, classes.long().squeeze(channel)].movedim(0, channel)

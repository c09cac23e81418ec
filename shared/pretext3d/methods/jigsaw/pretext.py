"""Jigsaw puzzles: which permutation were the patches of a grid put in?

Taleb A, Loetzsch W, Danz N, Severin J, Gaertner T, Bergner B, Lippert C. 3D Self-Supervised Methods for
Medical Imaging. NeurIPS 2020 (section 3.3, 3D-Jig), after Noroozi M, Favaro P. Unsupervised Learning of
Visual Representations by Solving Jigsaw Puzzles. ECCV 2016.

In the paper's order: the puzzles (an n x n x n grid at a random place, a patch at a random place of each
cell, K of P permutations), the network (one encoder for all patches, fully connected layers on the features
of all of them in the order that they are given), and the accuracy. The grid is in
`pretext3d.transforms.grids`, the choice of the permutations in `pretext3d.ops.permutations`; the loss L_Jig
is `ClassLoss` in `pretext3d.training.classes`.

Cells are numbered in C order, from 0 to m - 1: the last axis runs fastest. The encoder sees one patch at a
time, so that the features of a scrambled grid are the scrambled features of the grid: a grid is encoded once
for its K puzzles, and each further puzzle costs only a pass through the head.

Deviates: the loss is the mean over the puzzles of a batch. The permutations are as far apart as those of
Noroozi and Favaro or farther, and are chosen from a group where there is one. The paper does not say how its
K puzzles of an image are drawn; here they have one grid and different permutations.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from ignite.metrics import Metric
from monai.transforms import Transform
from torch import nn

from pretext3d.annotations import Float, Int, Shaped, Tensor
from pretext3d.checking import boolean, integer
from pretext3d.errors import UserError
from pretext3d.networks.backbone import Backbone
from pretext3d.networks.heads import FullyConnectedHead, PatchFeatures
from pretext3d.ops.grids import assemble_cubes, extract_cubes
from pretext3d.ops.permutations import reorder
from pretext3d.training.classes import class_metrics
from pretext3d.transforms.grids import RandPuzzle

__all__ = [
    "JigsawNet",
    "RandJigsawd",
    "scramble",
    "standardise",
    "unscramble",
    "validation_metrics",
]


FAINT = 0.02  # smallest standard deviation that becomes 1, in intensities from 0 to 1


# -------------------------------------------------------------------------------------------- 3.3 the puzzle
def scramble(
    volume: Shaped[Tensor, "..."],
    starts: Int[Tensor, "*b m d"],
    order: Int[Tensor, "*b m"],
    size: Sequence[int],
) -> Shaped[Tensor, "..."]:
    """The patches of a grid in a new order: position s gets the patch of cell order[s].

    Each patch is copied once, from the volume to its position.

    Args:
        volume: Volumes (*b, c, i, j, k) or images (*b, c, i, j).
        starts: Lowest voxels of the patches, in the order of the cells.
        order: Cell that the patch at each position comes from.
        size: Voxels of a patch.

    Returns:
        (*b, m, c, *size).

    Examples:
        >>> row = torch.tensor([[[5, 6, 7]]])
        >>> scramble(row, torch.tensor([[0, 0], [0, 1], [0, 2]]), torch.tensor([2, 0, 1]), (1, 1)).flatten()
        tensor([7, 5, 6])
    """
    return extract_cubes(volume, reorder(starts, order), size)


def unscramble(
    patches: Shaped[Tensor, "..."],
    starts: Int[Tensor, "*b m d"],
    order: Int[Tensor, "*b m"],
    shape: Sequence[int],
) -> Shaped[Tensor, "..."]:
    """The inverse of `scramble`: each patch where it comes from, in a volume of `shape`, zeros between.

    Args:
        patches: The puzzle (*b, m, c, *size).
        starts: Lowest voxels of the patches, in the order of the cells.
        order: Cell that the patch at each position comes from.
        shape: Voxels of the volumes along each spatial axis.

    Returns:
        (*b, c, *shape).

    Examples:
        >>> patches = torch.tensor([7, 5, 6]).view(3, 1, 1, 1)
        >>> starts = torch.tensor([[0, 0], [0, 1], [0, 2]])
        >>> unscramble(patches, starts, torch.tensor([2, 0, 1]), (1, 4)).tolist()
        [[[5, 6, 7, 0]]]
    """
    return assemble_cubes(patches, reorder(starts, order), shape)


def standardise(patches: Float[Tensor, "m c *size"]) -> Float[Tensor, "m c *size"]:
    """Mean 0 and standard deviation 1 of each channel of each patch: (x - mean) / max(std, 0.02).

    Noroozi and Favaro (section 4.2) do so, since neighbours have similar intensities. The lower limit, in
    intensities from 0 to 1, leaves the noise of air faint.

    Examples:
        >>> standardise(torch.tensor([[[1.0, 3.0]], [[0.01, 0.03]]])).tolist()
        [[[-1.0, 1.0]], [[-0.5, 0.5]]]
    """
    over = tuple(range(2, patches.ndim))
    mean = patches.mean(over, keepdim=True)
    std = patches.std(over, correction=0, keepdim=True)
    return (patches - mean) / std.clamp(min=FAINT)


class RandJigsawd(RandPuzzle, Transform):
    """A volume (c, i, j, k) becomes K puzzles of one grid: `image` (m, c, *size), the patches of the first.

    In 2D an image (c, i, j) does. For the grid see `RandGrid`.

    Adds `permutation` (K,) (the classes, int64, 0 to P - 1, all different), `order` (m,) (the cell of the
    patch at each position of `image`), `moves` (K, m) (for each puzzle, the position in `image` of the patch
    at each of its positions; the first row is 0 to m - 1) and `starts` (m, d) (lowest voxels of the patches
    of the cells, in the volume of d axes).

    Args:
        permutations: Classes (P, m).
        *grid: Number n of cells along each axis, size of a patch, gap (the paper: 3; 39 and 3 voxels).
        puzzles: Number K of puzzles per sample.
        normalise: Whether each patch is standardised, see `standardise`.
        **options: Further arguments of `RandGrid`.

    Raises:
        UserError: for invalid arguments, and for a volume shorter than the grid.
    """

    def __init__(
        self,
        permutations: Int[Tensor, "p m"],
        *grid: Any,
        puzzles: int = 1,
        normalise: Any = False,
        **options: Any,
    ) -> None:
        super().__init__(permutations, *grid, **options)
        count = len(permutations)
        if count < 2:
            raise UserError(f"num_permutations: found {count}, expected 2 or more to tell apart")
        expected = f"1 to {count}, the number of permutations"
        self.puzzles = integer("puzzles", puzzles, 1, count, expected)
        self.normalise = boolean("patch_normalisation", normalise)
        self.further = np.zeros(self.puzzles - 1, dtype=np.int64)

    def randomize(self, data: Shaped[Tensor, "c *space"]) -> None:
        """Draw the grid, the permutation of the first puzzle, and those of the further ones."""
        super().randomize(data)
        others = self.R.permutation(len(self.permutations) - 1)[: self.puzzles - 1]
        self.further = others + (others >= self.permutation)

    def __call__(self, data: dict[str, Any]) -> dict[str, Any]:
        """The case with its puzzles and their solutions."""
        d = dict(data)
        volume = self.volume(d)
        self.randomize(volume)
        starts, order = self.starts, self.order
        permutation = torch.tensor([self.permutation, *self.further.tolist()])
        patches = scramble(volume, starts, order, self.size)
        d[self.image_key] = standardise(patches) if self.normalise else patches
        d["permutation"], d["order"], d["starts"] = permutation, order, starts
        d["moves"] = order.argsort()[self.permutations[permutation]]
        return d


# ---------------------------------------------------------------------------------------- 3.3 the network
class JigsawNet(nn.Module):
    """One encoder for all m patches, and a fully connected head on their features, joined in their order.

    Args:
        backbone: Network with `encode`; its decoder is not used.
        permutations: Classes (P, m), kept with the weights: they give the P logits their meaning.
        hidden: Units of each hidden layer of the head (the paper: 2048 and 1024).
        dropout: Probability with which a hidden unit is dropped (the paper: 0.5).
        pool_size: Edge of the pooled map of a patch.

    Raises:
        UserError: for invalid arguments.
    """

    permutations: Tensor

    def __init__(
        self,
        backbone: Backbone,
        permutations: Int[Tensor, "p m"],
        hidden: Any = (2048, 1024),
        dropout: float = 0.5,
        pool_size: int = 1,
    ) -> None:
        super().__init__()
        count, cells = permutations.shape
        self.backbone, self.patches = backbone, PatchFeatures(backbone, pool_size)
        self.register_buffer("permutations", permutations)
        self.head = FullyConnectedHead(cells * self.patches.features, count, hidden, dropout=dropout)

    def forward(
        self, x: Float[Tensor, "b m c *space"], moves: Int[Tensor, "b k m"] | None = None
    ) -> Float[Tensor, "b k p"]:
        """The logits of the P permutations for each of the K puzzles.

        Args:
            x: The patches.
            moves: Index in `x` of the patch at each position of each puzzle; None = one puzzle, as given.
        """
        features = self.patches(self.backbone, x)
        puzzles = features[:, None]
        if moves is not None:
            puzzles = reorder(features[:, None].expand(-1, moves.shape[1], -1, -1), moves)
        return self.head(puzzles.flatten(2).flatten(0, 1)).unflatten(0, puzzles.shape[:2])


# --------------------------------------------------------------------------------------------- the accuracy
def validation_metrics() -> dict[str, Metric]:
    """The metrics of a validation: the fraction of held-out puzzles whose permutation is recognised, 0 to 1.

    `chance` is 1 / P, 0.01 for 100 permutations.
    """
    return class_metrics("permutation")

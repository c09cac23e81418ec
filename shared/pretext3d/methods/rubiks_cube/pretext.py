"""Rubik's cube recovery: order and orient the cubes of a volume.

Zhuang X, Li Y, Hu Y, Ma K, Yang Y, Zheng Y. Self-supervised Feature Learning for 3D Medical Images by Playing
a Rubik's Cube. MICCAI 2019.

In the paper's order (section 2.1): the puzzle (a grid of cubes with gaps, one of K permutations, half turns
about the horizontal and the vertical axis), the Siamese network with its two heads, the losses (Eq. 1 to 3)
and the accuracies of Table 1. The grid's geometry is in `pretext3d.ops.grids`, the choice of the
permutations in `pretext3d.ops.permutations`.

Deviates: the rotation loss is the full binary cross-entropy, of which Eq. 2 prints the positive term. By
default the orientation of a cube is read given the order of the cubes (see `RubiksCubeNet`); `orientation:
independent` is the paper's head.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from ignite.metrics import Metric
from monai.transforms import Randomizable, Transform
from torch import nn

from pretext3d.annotations import Bool, Float, Int, Shaped, Tensor
from pretext3d.errors import UserError
from pretext3d.networks.backbone import Backbone
from pretext3d.networks.heads import PermutationHead
from pretext3d.ops.grids import block_size, check_grid, cube_starts, extract_cubes
from pretext3d.ops.permutations import reorder
from pretext3d.ops.rotations import half_turns
from pretext3d.training.metrics import SampleMean

__all__ = [
    "OrientationAccuracy",
    "RandRubiksCubed",
    "RubiksCubeLoss",
    "RubiksCubeNet",
    "ordering_accuracy",
    "solve",
    "validation_metrics",
]

HEADS = ("given_order", "independent")


# ------------------------------------------------------------------------------------------- 2.1 the puzzle
def scramble(
    cubes: Shaped[Tensor, "*b m c i j k"],
    order: Int[Tensor, "*b m"],
    turned: Bool[Tensor, "*b m 2"],
    axes: Sequence[int],
) -> Shaped[Tensor, "*b m c i j k"]:
    """Position s gets cube order[s], then it is turned where turned[s] says so.

    Args:
        cubes: in the order of their cells.
        order: the cell that the cube at each position comes from.
        turned: of each position: half a turn about axes[0] (horizontal), about axes[1] (vertical).
        axes: two spatial axes, 0 to 2.
    """
    moved = reorder(cubes, order)
    for number, axis in enumerate(axes):
        moved = half_turns(moved, turned[..., number], axis)
    return moved


def solve(
    cubes: Shaped[Tensor, "*b m c i j k"],
    order: Int[Tensor, "*b m"],
    turned: Bool[Tensor, "*b m 2"],
    axes: Sequence[int],
) -> Shaped[Tensor, "*b m c i j k"]:
    """The inverse of `scramble`: the cubes upright and in the order of their cells."""
    for number, axis in enumerate(axes):
        cubes = half_turns(cubes, turned[..., number], axis)
    return reorder(cubes, order.argsort(dim=-1))


class RandRubiksCubed(Randomizable, Transform):
    """A volume (c, i, j, k) becomes a puzzle: `image` (m, c, *size), the cubes as the network sees them.

    The block of grid * (size + gap) voxels lies in the middle of the volume or, where the volume is longer,
    up to `shift` of the free room away from it. Each cube lies anywhere in its cell, so neighbours are `gap`
    voxels apart on average.

    Adds `permutation` (the class, int64, 0 to K - 1), `order` (m,) (the cell of the cube at each position),
    `turned` (m, 2) bool (half turns about the horizontal and the vertical axis) and `starts` (m, 3) (lowest
    voxels of the cubes of the cells, in the volume).

    Args:
        permutations: (K, m), the classes.
        grid: cells along each axis, one number or three.
        size: voxels of a cube.
        gap: voxels between neighbours on average, one number or three (the paper: about 10).
        rotate_prob: of each of the two half turns of each cube; 0 leaves all upright (the paper's ablation).
        axes: the horizontal and the vertical axis; in RAS order left-right and inferior-superior.
        shift: 0 (the block in the middle) to 1 (anywhere in the volume).
        image_key: the volume.

    Raises:
        UserError: for impossible arguments and, when called, for a volume shorter than the grid (see
            `StretchToGridd`).
    """

    def __init__(
        self,
        permutations: Int[Tensor, "k m"],
        grid: int | Sequence[int],
        size: Sequence[int],
        gap: int | Sequence[int],
        rotate_prob: float = 0.5,
        axes: Sequence[int] = (0, 2),
        shift: float = 1.0,
        image_key: str = "image",
    ) -> None:
        self.grid, self.size = check_grid("grid", grid), check_grid("roi_size", size)
        self.gap = check_grid("gap", gap, least=0)
        cells = int(np.prod(self.grid))
        if permutations.shape[1] != cells:
            raise UserError(
                f"permutations: found {permutations.shape[1]} cells, expected {cells} for grid "
                f"{list(self.grid)}"
            )
        for name, value in (("rotate_prob", rotate_prob), ("shift", shift)):
            if not 0 <= value <= 1:
                raise UserError(f"{name}: found {value}, expected 0 to 1")
        if len(axes) != 2 or len(set(axes)) != 2 or not set(axes) <= {0, 1, 2}:
            raise UserError(f"axes: found {list(axes)}, expected two different ones of 0, 1, 2")
        self.permutations, self.axes = permutations, tuple(axes)
        self.rotate_prob, self.shift, self.image_key = float(rotate_prob), float(shift), image_key
        self.corner: tuple[int, ...] = (0, 0, 0)
        self.offsets = np.zeros((cells, 3), dtype=np.int64)
        self.permutation = 0
        self.turned = np.zeros((cells, 2), dtype=bool)

    def randomize(self, data: Shaped[Tensor, "c i j k"]) -> None:
        """Draw the block's place, the cubes' places in their cells, the permutation and the turns."""
        block = block_size(self.grid, self.size, self.gap)
        room = np.asarray(data.shape[1:]) - block
        if (room < 0).any():
            raise UserError(
                f"grid: {list(self.grid)} cells of roi_size {list(self.size)} and gap {list(self.gap)} need "
                f"{list(block)} voxels, found a volume of {list(data.shape[1:])}"
            )
        self.corner = tuple(round(r / 2 + self.R.uniform(-0.5, 0.5) * r * self.shift) for r in room.tolist())
        self.offsets = self.R.randint(0, np.asarray(self.gap) + 1, size=self.offsets.shape)
        self.permutation = int(self.R.randint(len(self.permutations)))
        self.turned = self.R.uniform(size=self.turned.shape) < self.rotate_prob

    def __call__(self, data: dict[str, Any]) -> dict[str, Any]:
        """The case with its puzzle and the puzzle's solution."""
        d = dict(data)
        volume = d[self.image_key]
        volume = volume.as_tensor() if hasattr(volume, "as_tensor") else volume
        self.randomize(volume)
        starts = cube_starts(self.corner, self.grid, self.size, self.gap, self.offsets)
        order, turned = self.permutations[self.permutation].clone(), torch.from_numpy(self.turned.copy())
        d[self.image_key] = scramble(extract_cubes(volume, starts, self.size), order, turned, self.axes)
        d["permutation"] = torch.tensor(self.permutation)
        d["order"], d["turned"], d["starts"] = order, turned, starts
        return d


# ---------------------------------------------------------------------------------- 2.1 network, Eq. 1 to 3
class RubiksCubeNet(nn.Module):
    """The Siamese network: one encoder for every cube, then a head for the order and one for the turns.

    Each cube's deepest map is average-pooled to `pool_size`^3 and brought to `features` numbers; those of all
    cubes are concatenated, and a layer of `hidden` units precedes the K permutation logits.

    Orientation `independent` (the paper): a second such pair of layers gives the 2 m logits. The label of a
    cube's turn then depends on which cube it is: seen alone, a corner of a head that is turned looks like
    another corner, so what is right under one permutation is wrong under another, and the logits stay at
    chance for long. Orientation `given_order` (default): a linear layer on each cube's features gives its two
    logits for each of the m cells that it may come from. Training reads those of the cell that it does come
    from, `OrientationAccuracy` weights them by the permutation head's own probabilities: nothing of the label
    is used. The validation loss, which chooses best.pt, is the training's.

    Args:
        backbone: any network with `encode`; its decoder is left out.
        permutations: (K, m), the classes.
        features: of a cube.
        hidden: units before the logits.
        pool_size: edge of the pooled map.
        orientation: `given_order` or `independent`.
        dropout: of the concatenated features.
    """

    permutations: Tensor

    def __init__(
        self,
        backbone: Backbone,
        permutations: Int[Tensor, "k m"],
        features: int = 64,
        hidden: int = 256,
        pool_size: int = 1,
        orientation: str = "given_order",
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if orientation not in HEADS:
            raise UserError(f"orientation: found {orientation!r}, expected one of {', '.join(HEADS)}")
        count, cells = permutations.shape
        self.backbone, self.pool_size = backbone.train_encoder_only(), pool_size
        self.register_buffer("permutations", permutations)
        deepest = backbone.feature_channels[-1] * pool_size**3
        self.branch = nn.Sequential(nn.Linear(deepest, features), nn.ReLU(inplace=True))

        self.ordering_head = PermutationHead(cells, features, hidden, count, dropout)
        self.given_order = orientation == "given_order"
        self.orientation_head = (
            nn.Linear(features, cells * 2)
            if self.given_order
            else PermutationHead(cells, features, hidden, cells * 2, dropout)
        )

    def forward(self, x: Float[Tensor, "b m c i j k"]) -> tuple[Tensor, Tensor]:
        """Permutation logits (b, K), and turn logits (b, m, 2) or, given the order, (b, m, m, 2).

        The latter are of the cube at each position, if it came from each cell.
        """
        batch, cells = x.shape[:2]
        deepest = self.backbone.encode_coarsest(x.flatten(0, 1).to(memory_format=torch.channels_last_3d))
        features = self.branch(F.adaptive_avg_pool3d(deepest, self.pool_size).flatten(1))
        joined = features.view(batch, -1)
        if self.given_order:
            turns = self.orientation_head(features).view(batch, cells, cells, 2)
        else:
            turns = self.orientation_head(joined).view(batch, cells, 2)
        return self.ordering_head(joined), turns


class RubiksCubeLoss(nn.Module):
    """Eq. 3: alpha * L_P + beta * L_R.

    L_P: cross-entropy of the permutation (Eq. 1). L_R: binary cross-entropy of the turns (Eq. 2 with both
    terms), the mean over cubes and axes, where the paper sums.

    Args:
        alpha: weight of L_P (the paper: 0.5).
        beta: weight of L_R (the paper: 0.5); 0 for puzzles without turns.
    """

    def __init__(self, alpha: float = 0.5, beta: float = 0.5) -> None:
        super().__init__()
        if alpha < 0 or beta < 0 or alpha + beta == 0:
            raise UserError(f"alpha, beta: found {alpha}, {beta}, expected weights of 0 or more, not both 0")
        self.alpha, self.beta = alpha, beta

    def forward(self, pred: tuple[Tensor, Tensor], target: dict[str, Tensor]) -> Tensor:
        """The mean over the batch; the target has `permutation`, `order` and `turned`."""
        ordering, turns = pred
        loss = self.alpha * F.cross_entropy(ordering, target["permutation"])
        if self.beta == 0:
            return loss + 0.0 * turns.sum()  # every parameter has a gradient: several processes wait for it
        if turns.ndim == 4:
            turns = at_cells(turns, target["order"])
        return loss + self.beta * F.binary_cross_entropy_with_logits(turns, target["turned"].to(turns))


def at_cells(turns: Float[Tensor, "b m m 2"], order: Int[Tensor, "b m"]) -> Float[Tensor, "b m 2"]:
    """The turn logits of each position's cube, for the cell that `order` says."""
    return turns.gather(2, order[:, :, None, None].expand(-1, -1, -1, 2)).squeeze(2)


def turn_probabilities(
    pred: tuple[Tensor, Tensor], permutations: Int[Tensor, "k m"]
) -> Float[Tensor, "b m 2"]:
    """The probability that each position's cube is turned, from the prediction alone.

    Given the order: sum over k of p(k) sigmoid(logit of position s at cell P_k(s)).
    """
    ordering, turns = pred
    if turns.ndim == 3:
        return turns.sigmoid()
    cells = permutations.shape[1]
    at_cell = F.one_hot(permutations.to(turns.device), cells).to(turns)  # (k, m positions, m cells)
    belief = torch.einsum("bk,kmc->bmc", ordering.softmax(-1), at_cell)
    return torch.einsum("bmc,bmcx->bmx", belief, turns.sigmoid())


# ------------------------------------------------------------------------------------------ 3.2 Table 1
def ordering_accuracy(output: dict[str, Any]) -> Float[Tensor, "b"]:
    """1 where the permutation is recognised, else 0; chance is 1 / K."""
    return (output["pred"][0].argmax(-1) == output["label"]["permutation"]).float()


class OrientationAccuracy:
    """Share of the 2 m half turns of a puzzle that are recognised, 0 to 1; chance is 0.5.

    Args:
        permutations: (K, m), the classes.
    """

    def __init__(self, permutations: Int[Tensor, "k m"]) -> None:
        self.permutations = permutations

    def __call__(self, output: dict[str, Any]) -> Float[Tensor, "b"]:
        """One number per puzzle."""
        found = turn_probabilities(output["pred"], self.permutations) > 0.5
        return (found == output["label"]["turned"]).float().flatten(1).mean(1)


def validation_metrics(permutations: Int[Tensor, "k m"], rotate: bool = True) -> dict[str, Metric]:
    """The metrics of a validation, by name: Table 1's, means over all held-out puzzles, 0 to 1.

    Without turns (`rotate` False) there is no orientation to measure.
    """
    metrics = {"ordering_accuracy": SampleMean(ordering_accuracy)}
    if rotate:
        metrics["orientation_accuracy"] = SampleMean(OrientationAccuracy(permutations))
    return metrics

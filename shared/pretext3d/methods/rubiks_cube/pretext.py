"""Rubik's cube recovery: order and orient the cubes of a volume.

Zhuang X, Li Y, Hu Y, Ma K, Yang Y, Zheng Y. Self-supervised Feature Learning for 3D Medical Images by Playing
a Rubik's Cube. MICCAI 2019.

In the paper's order (section 2.1): the puzzle (a grid of cubes with gaps, one of K permutations, half
rotations about the horizontal and the vertical axis), the Siamese network with its two heads, the losses (Eq.
1 to 3) and the accuracies of Table 1. The grid's geometry is in `pretext3d.ops.grids`, the choice of the
permutations in `pretext3d.ops.permutations`.

The defaults of the classes are the paper's: one fully connected layer per task on the concatenated maps of
all cubes, and the rotation loss summed over the m r labels.

Deviates: the rotation loss is the full binary cross-entropy, of which Eq. 2 prints the positive term. The
paper has volumes only. In 2D (ours) the cubes are tiles of an image, and a tile has one half rotation, in the
plane: r = 1 rotation per cube, where a volume has r = 2. Ours, as options: `orientation="given_order"`,
`features`, `hidden` (see `RubiksCubeNet`), and `rotation_reduction="mean"`.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from ignite.metrics import Metric
from monai.transforms import Transform
from torch import nn

from pretext3d.annotations import Bool, Float, Int, Shaped, Tensor
from pretext3d.checking import integer, number, one_of
from pretext3d.errors import UserError
from pretext3d.networks.backbone import Backbone
from pretext3d.networks.heads import PatchFeatures, PermutationHead
from pretext3d.ops.grids import extract_cubes
from pretext3d.ops.permutations import reorder
from pretext3d.ops.rotations import check_rotation_axes, half_turns
from pretext3d.training.classes import chance
from pretext3d.training.metrics import SampleMean
from pretext3d.transforms.grids import RandPuzzle

__all__ = [
    "OrientationAccuracy",
    "RandRubiksCubed",
    "RubiksCubeLoss",
    "RubiksCubeNet",
    "ordering_accuracy",
    "solve",
    "validation_metrics",
]

HEADS = ("independent", "given_order")
REDUCTIONS = ("sum", "mean")
# Axes of the half rotations, by dimensions: the horizontal and the vertical axis, in RAS order left-right and
# inferior-superior; in 2D the axis through the plane.
ROTATION_AXES = {3: (0, 2), 2: (2,)}


# ------------------------------------------------------------------------------------------- 2.1 the puzzle
def check_axes(axes: Sequence[int] | None, spatial_dims: int) -> tuple[int, ...]:
    """The axes of the half rotations, r = 2 for a volume or r = 1 for an image; None = `ROTATION_AXES`.

    Raises:
        UserError: other axes.

    Examples:
        >>> check_axes([1, 2], 3), check_axes(None, 3), check_axes(None, 2)
        ((1, 2), (0, 2), (2,))
    """
    usual = ROTATION_AXES[spatial_dims]
    if axes is None:
        return usual
    checked = check_rotation_axes("rotation_axes", axes, spatial_dims)
    if len(checked) != len(usual) or len(set(checked)) != len(checked):
        expected = "two different ones of 0, 1, 2" if spatial_dims == 3 else "[2] in 2D"
        raise UserError(f"rotation_axes: found {list(axes)}, expected {expected}")
    return checked


def scramble(
    cubes: Shaped[Tensor, "..."],
    order: Int[Tensor, "*b m"],
    turned: Bool[Tensor, "*b m r"],
    axes: Sequence[int],
) -> Shaped[Tensor, "..."]:
    """Position s receives cube order[s], which is then rotated where turned[s] is True.

    Args:
        cubes: Cubes (*b, m, c, *size), in the order of their cells.
        order: Cell that the cube at each position comes from.
        turned: Half rotations of each position about axes[0] (horizontal) and axes[1] (vertical).
        axes: Spatial axes, r out of 0, 1, 2; of tiles [2].

    Examples:
        >>> tiles = torch.arange(4).reshape(2, 1, 1, 2)
        >>> scramble(tiles, torch.tensor([1, 0]), torch.tensor([[False], [True]]), [2]).flatten().tolist()
        [2, 3, 1, 0]
    """
    moved = reorder(cubes, order)
    for which, axis in enumerate(axes):
        moved = half_turns(moved, turned[..., which], axis)
    return moved


def solve(
    cubes: Shaped[Tensor, "..."],
    order: Int[Tensor, "*b m"],
    turned: Bool[Tensor, "*b m r"],
    axes: Sequence[int],
) -> Shaped[Tensor, "..."]:
    """The inverse of `scramble`: the cubes upright and in the order of their cells.

    Examples:
        >>> tiles = torch.tensor([2, 3, 1, 0]).reshape(2, 1, 1, 2)
        >>> solve(tiles, torch.tensor([1, 0]), torch.tensor([[False], [True]]), [2]).flatten().tolist()
        [0, 1, 2, 3]
    """
    for which, axis in enumerate(axes):
        cubes = half_turns(cubes, turned[..., which], axis)
    return reorder(cubes, order.argsort(dim=-1))


class RandRubiksCubed(RandPuzzle, Transform):
    """A volume (c, i, j, k) becomes a puzzle: `image` (m, c, *size), the cubes as the network sees them.

    In 2D an image (c, i, j) becomes tiles. For the grid and its arguments see `RandGrid`.

    Adds `permutation` (the class, int64, 0 to K - 1), `order` (m,) (the cell of the cube at each position),
    `turned` (m, r) bool (half rotations about the r `axes`) and `starts` (m, d) (lowest voxels of the cubes
    of the cells, in the volume of d axes).

    Args:
        permutations: Classes (K, m).
        *grid: Number of cells along each axis, size of a cube, gap (the paper: 2, 64 and about 10 voxels).
        rotate_prob: Probability of each half rotation of each cube.
        axes: Rotation axes, the horizontal and the vertical one, in RAS order left-right and
            inferior-superior: [0, 2]; in 2D [2], the axis through the plane; None = these.
        rotate: False leaves all cubes upright (the paper's ablation).
        **options: Further arguments of `RandGrid`.

    Raises:
        UserError: for invalid arguments and, when called, for a volume shorter than the grid (see
            `StretchToGridd`).
    """

    def __init__(
        self,
        permutations: Int[Tensor, "k m"],
        *grid: Any,
        rotate_prob: float = 0.5,
        axes: Sequence[int] | None = None,
        rotate: bool = True,
        **options: Any,
    ) -> None:
        super().__init__(permutations, *grid, **options)
        self.axes = check_axes(axes, len(self.grid))
        probability = number("rotate_prob", rotate_prob, 0, 1)
        self.rotate_prob = probability if rotate else 0.0
        self.turned = np.zeros((self.cells, len(self.axes)), dtype=bool)

    def randomize(self, data: Shaped[Tensor, "c *space"]) -> None:
        """Draw the positions of block and cubes, the permutation and the rotations."""
        super().randomize(data)
        self.turned = self.R.uniform(size=self.turned.shape) < self.rotate_prob

    def __call__(self, data: dict[str, Any]) -> dict[str, Any]:
        """The case with its puzzle and the puzzle's solution."""
        d = dict(data)
        volume = self.volume(d)
        self.randomize(volume)
        starts, order, turned = self.starts, self.order, torch.from_numpy(self.turned.copy())
        d[self.image_key] = scramble(extract_cubes(volume, starts, self.size), order, turned, self.axes)
        d["permutation"] = torch.tensor(self.permutation)
        d["order"], d["turned"], d["starts"] = order, turned, starts
        return d


# ---------------------------------------------------------------------------------- 2.1 network, Eq. 1 to 3
class RubiksCubeNet(nn.Module):
    """The Siamese network: one encoder for all cubes, then a head for the order and one for the rotations.

    Each cube's deepest map is average-pooled to `pool_size` along each axis; the maps of all m cubes are
    concatenated. One fully connected layer (`hidden` 0) reads the K permutation logits from them, another the
    m r rotation logits: the paper's heads, "independent" of each other. 2D or 3D, as the backbone: a cube has
    r = 2 rotations, a tile of an image r = 1.

    Ours: a layer of `features` units on each cube's map; `hidden` units before the logits; orientation
    `given_order`, since a rotated corner of a head looks like another corner: whether a cube was rotated
    depends on which cube it is. A linear layer on each cube's features then gives its r logits for each of
    the m cells that it may come from. Training uses those of the cell that it does come from,
    `OrientationAccuracy` weights them by the permutation head's own probabilities: nothing of the label is
    used. The validation loss, which chooses best.pt, is the training's.

    Args:
        backbone: Network with `encode`; its decoder is not used.
        permutations: Classes (K, m).
        features: Number of features per cube; 0 = the pooled map itself.
        hidden: Number of units before the logits; 0 = one fully connected layer per task.
        pool_size: Edge of the pooled map.
        orientation: Kind of the rotation head, `independent` or `given_order`.
        dropout: Dropout probability of the concatenated features.

    Raises:
        UserError: another `orientation`; features or hidden below 0.
    """

    permutations: Tensor

    def __init__(
        self,
        backbone: Backbone,
        permutations: Int[Tensor, "k m"],
        features: int = 0,
        hidden: int = 0,
        pool_size: int = 1,
        orientation: str = "independent",
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        one_of("orientation", orientation, HEADS)
        integer("cube_features", features, minimum=0, expected="an integer from 0")
        integer("head_hidden", hidden, minimum=0, expected="an integer from 0")
        count, cells = permutations.shape
        self.backbone, self.patches = backbone, PatchFeatures(backbone, pool_size)
        self.register_buffer("permutations", permutations)
        self.rotations = len(ROTATION_AXES[backbone.spatial_dims])
        pooled = self.patches.features
        self.branch = (
            nn.Sequential(nn.Linear(pooled, features), nn.ReLU(inplace=True)) if features else nn.Identity()
        )
        features = features or pooled

        self.ordering_head = PermutationHead(cells, features, hidden, count, dropout)
        self.given_order = orientation == "given_order"
        outputs = cells * self.rotations
        self.orientation_head = (
            nn.Linear(features, outputs)
            if self.given_order
            else PermutationHead(cells, features, hidden, outputs, dropout)
        )

    def forward(self, x: Float[Tensor, "b m c *space"]) -> tuple[Tensor, Tensor]:
        """Permutation logits (b, K), and rotation logits (b, m, r) or, given the order, (b, m, m, r).

        The latter are of the cube at each position, if it came from each cell.
        """
        batch, cells = x.shape[:2]
        features = self.branch(self.patches(self.backbone, x))
        joined = features.view(batch, -1)
        if self.given_order:
            turns = self.orientation_head(features).view(batch, cells, cells, self.rotations)
        else:
            turns = self.orientation_head(joined).view(batch, cells, self.rotations)
        return self.ordering_head(joined), turns


class RubiksCubeLoss(nn.Module):
    """Eq. 3: alpha * L_P + beta * L_R, the mean over the batch.

    L_P: cross-entropy of the permutation (Eq. 1). L_R: binary cross-entropy of the rotations (Eq. 2 with both
    terms), the sum over the m r labels of a puzzle; `rotation_reduction="mean"` is ours: 1 / (m r) of it, for
    8 cubes a sixteenth.

    Args:
        alpha: Weight of L_P (the paper: 0.5).
        beta: Weight of L_R (the paper: 0.5).
        rotation_reduction: `sum` (the paper) or `mean`, over the labels of a puzzle.
        rotate: False drops L_R, for puzzles without rotations (the paper's ablation).

    Raises:
        UserError: a negative weight, both 0, or another reduction.
    """

    def __init__(
        self, alpha: float = 0.5, beta: float = 0.5, rotation_reduction: str = "sum", rotate: bool = True
    ) -> None:
        super().__init__()
        one_of("rotation_reduction", rotation_reduction, REDUCTIONS)
        beta = beta if rotate else 0.0
        if alpha < 0 or beta < 0 or alpha + beta == 0:
            raise UserError(f"alpha, beta: found {alpha}, {beta}, expected weights of 0 or more, not both 0")
        self.alpha, self.beta, self.rotation_reduction = alpha, beta, rotation_reduction

    def forward(self, pred: tuple[Tensor, Tensor], target: dict[str, Tensor]) -> Tensor:
        """The target has `permutation`, `order` and `turned`."""
        ordering, turns = pred
        loss = self.alpha * F.cross_entropy(ordering, target["permutation"])
        if self.beta == 0:
            return loss + 0.0 * turns.sum()  # every parameter needs a gradient: several processes wait for it
        if turns.ndim == 4:
            turns = at_cells(turns, target["order"])
        rotation = F.binary_cross_entropy_with_logits(turns, target["turned"].to(turns))
        if self.rotation_reduction == "sum":
            rotation = rotation * turns[0].numel()
        return loss + self.beta * rotation


def at_cells(turns: Float[Tensor, "b m m r"], order: Int[Tensor, "b m"]) -> Float[Tensor, "b m r"]:
    """The rotation logits of each position's cube, for its cell in `order`."""
    return turns.gather(2, order[:, :, None, None].expand(-1, -1, -1, turns.shape[-1])).squeeze(2)


def turn_probabilities(
    pred: tuple[Tensor, Tensor], permutations: Int[Tensor, "k m"]
) -> Float[Tensor, "b m r"]:
    """The probability that each position's cube is rotated, from the prediction only.

    With `given_order`: sum over k of p(k) sigmoid(logit of position s at cell P_k(s)).
    """
    ordering, turns = pred
    if turns.ndim == 3:
        return turns.sigmoid()
    cells = permutations.shape[1]
    at_cell = F.one_hot(permutations.to(turns.device), cells).to(turns)  # (k, m positions, m cells)
    belief = torch.einsum("bk,kmc->bmc", ordering.softmax(-1), at_cell)
    return torch.einsum("bmc,bmcx->bmx", belief, turns.sigmoid())


# ------------------------------------------------------------------------------------------ 3.2 Table 1
def ordering_chance(output: dict[str, Any]) -> Float[Tensor, "b"]:
    """The ordering accuracy of a guess, 1 / K, for each puzzle."""
    return chance({"pred": output["pred"][0]})


def ordering_accuracy(output: dict[str, Any]) -> Float[Tensor, "b"]:
    """1 where the permutation is recognised, otherwise 0; chance is 1 / K."""
    return (output["pred"][0].argmax(-1) == output["label"]["permutation"]).float()


class OrientationAccuracy:
    """Fraction of a puzzle's m r half rotations that are recognised, 0 to 1; chance is 0.5.

    Args:
        permutations: Classes (K, m).
    """

    def __init__(self, permutations: Int[Tensor, "k m"]) -> None:
        self.permutations = permutations

    def __call__(self, output: dict[str, Any]) -> Float[Tensor, "b"]:
        """One number per puzzle."""
        found = turn_probabilities(output["pred"], self.permutations) > 0.5
        return (found == output["label"]["turned"]).float().flatten(1).mean(1)


def validation_metrics(permutations: Int[Tensor, "k m"], rotate: bool = True) -> dict[str, Metric]:
    """The metrics of a validation, by name: Table 1's, means over all held-out puzzles, 0 to 1.

    `ordering_chance` is 1 / K; that of the orientation is 0.5. Without rotations (`rotate` False) there is no
    orientation accuracy.
    """
    metrics = {
        "ordering_accuracy": SampleMean(ordering_accuracy),
        "ordering_chance": SampleMean(ordering_chance),
    }
    if rotate:
        metrics["orientation_accuracy"] = SampleMean(OrientationAccuracy(permutations))
    return metrics

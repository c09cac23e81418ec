"""Relative patch location: where is a patch, seen from the patch in the centre?

Taleb A, Loetzsch W, Danz N, Severin J, Gaertner T, Bergner B, Lippert C. 3D Self-Supervised Methods for
Medical Imaging. NeurIPS 2020 (section 3.2, 3D-RPL), after Doersch C, Gupta A, Efros AA. Unsupervised Visual
Representation Learning by Context Prediction. ICCV 2015.

In the paper's order: the patches (a grid of N cells at a random place, a patch at a random place of each
cell; the one in the centre is the reference, K others are queries), the network (one encoder for all patches,
fully connected layers on the features of a pair), and the accuracy. The grid is in
`pretext3d.transforms.grids`, the loss (Eq. 2) is `ClassLoss` in `pretext3d.training.classes`; what removes
shortcuts is in `cues`, next to this module.

Cells are numbered in C order, from 0 to N - 1: the last axis runs fastest. The centre of a 3 x 3 x 3 grid is
cell 13, that of 3 x 3 is cell 4. A location is a cell's number among the N - 1 around the centre: 0 to 25, in
2D 0 to 7.

Deviates: the loss is the mean over the K queries of a batch, where Eq. 2 is their sum. The paper does not say
how the two patches meet; here their features are concatenated, the centre's first.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from ignite.metrics import Metric
from monai.transforms import Transform
from torch import nn

from pretext3d.annotations import Float, Int, Shaped, Tensor
from pretext3d.checking import integer, number, one_of, per_axis
from pretext3d.errors import UserError
from pretext3d.methods.relative_patch_location.cues import (
    COLOURS,
    check_colour,
    drop_colours,
    grey,
    project_colours,
)
from pretext3d.networks.backbone import Backbone
from pretext3d.networks.heads import FullyConnectedHead, PatchFeatures
from pretext3d.ops.grids import extract_cubes
from pretext3d.ops.intensities import adjust_
from pretext3d.training.classes import class_metrics
from pretext3d.transforms.grids import RandGrid

__all__ = [
    "RandRelativePatchesd",
    "RelativePatchLocationNet",
    "cells_at",
    "validation_metrics",
]


# ------------------------------------------------------------------------------------------ 3.2 the patches
def cells_at(locations: Int[Tensor, "*n"], centre: int) -> Int[Tensor, "*n"]:
    """Cells of locations around the centre, which is none: those from its number on are 1 higher.

    Examples:
        >>> cells_at(torch.tensor([0, 3, 4, 7]), centre=4).tolist()
        [0, 3, 5, 8]
    """
    return locations + (locations >= centre).to(locations)


class RandRelativePatchesd(RandGrid, Transform):
    """A volume (c, *space) becomes patches: `image` (1 + K, c, *size), the one in the centre and K queries.

    Adds `location` (K,), int64, where each query is around the centre, 0 to N - 2, and `starts` (N, d), the
    lowest voxels of the patches of all N cells, in the volume of d axes. The K queries of a sample are
    different cells. Only the 1 + K patches are cut from the volume.

    For the grid and its arguments see `RandGrid`; the others:

    Args:
        grid: Number of cells along each axis, odd numbers: there is a cell in the centre.
        size: Size of a patch in voxels.
        gap: Mean number of voxels between neighbours; a cell is `size` + `gap` long (the paper: 39 + 3).
        queries: Number K of queries per sample.
        shift: Range of the grid's position, 0 (in the middle) to 1 (anywhere in the volume).
        jitter: Range of a patch's place in its cell, 0 to `gap`; None = `gap`.
        brightness: Largest b; b ~ U(-brightness, brightness) is added to each channel of each patch.
        contrast: Largest k; each channel of each patch is stretched about its mean by 1 + k, k ~ U(-contrast,
            contrast).
        colour: What remains of the colours of a patch: `keep` = all; `grey` = their mean; `project` = all but
            the difference between green and magenta; `drop` = one channel, drawn for each patch.
        image_key: Key of the volume.
        spatial_dims: Number of spatial axes, 3 for volumes, 2 for images.
        body_size: Voxels of all volumes along each axis; None = they differ.

    Raises:
        UserError: for invalid arguments, a grid longer than `body_size` among them, and, when called, for a
            volume shorter than the grid or with channels that `colour` does not suit.
    """

    def __init__(
        self,
        grid: int | Sequence[int],
        size: Sequence[int],
        gap: int | Sequence[int],
        queries: int = 1,
        shift: float = 1.0,
        jitter: int | Sequence[int] | None = None,
        brightness: float = 0.0,
        contrast: float = 0.0,
        colour: str = "keep",
        image_key: str = "image",
        spatial_dims: int = 3,
        body_size: int | Sequence[int] | None = None,
    ) -> None:
        super().__init__(grid, size, gap, shift, jitter, image_key, spatial_dims, body_size)
        self.locations = location_count(self.grid)
        self.queries = integer("queries", queries, minimum=1, maximum=self.locations)
        self.brightness = number("patch_brightness", brightness, low=0)
        self.contrast = number("patch_contrast", contrast, 0, 1)
        one_of("patch_colour", colour, COLOURS)
        self.colour = colour
        self.centre = self.cells // 2
        self.location = np.arange(self.queries)
        self.factors = self.shifts = np.zeros((1 + self.queries, 0))
        self.kept, self.noise = np.zeros(1 + self.queries, dtype=np.int64), np.zeros(0)

    def randomize(self, data: Shaped[Tensor, "c *space"]) -> None:
        """Draw the positions of grid and patches, the queries, and the changes of intensity and colour."""
        super().randomize(data)
        patches, channels = 1 + self.queries, data.shape[0]
        check_colour(self.colour, channels)
        self.location = self.R.permutation(self.locations)[: self.queries]
        if self.brightness or self.contrast:
            self.factors = 1 + self.R.uniform(-self.contrast, self.contrast, size=(patches, channels))
            self.shifts = self.R.uniform(-self.brightness, self.brightness, size=(patches, channels))
        if self.colour == "drop":
            self.kept = self.R.randint(channels, size=patches)
            self.noise = self.R.standard_normal((patches, channels, *self.size))

    def __call__(self, data: dict[str, Any]) -> dict[str, Any]:
        """The case with its patches and the locations of the queries."""
        d = dict(data)
        volume = self.volume(d)
        self.randomize(volume)
        location, starts = torch.tensor(self.location, dtype=torch.int64), self.starts
        cells = [self.centre, *cells_at(location, self.centre).tolist()]
        d[self.image_key] = self.without_cues(extract_cubes(volume, starts[cells], self.size))
        d["location"], d["starts"] = location, starts
        return d

    def without_cues(self, patches: Float[Tensor, "n c *size"]) -> Float[Tensor, "n c *size"]:
        """The patches with the drawn changes of intensity, made in place, then of colour."""
        if self.brightness or self.contrast:
            factors, shifts = (torch.from_numpy(value).to(patches) for value in (self.factors, self.shifts))
            adjust_(patches, factors, shifts)
        if self.colour == "grey":
            return grey(patches)
        if self.colour == "project":
            return project_colours(patches)
        if self.colour == "drop":
            kept, noise = (torch.from_numpy(value).to(patches.device) for value in (self.kept, self.noise))
            return drop_colours(patches, kept, noise)
        return patches


def location_count(grid: Sequence[int]) -> int:
    """Number of locations around the centre of a grid.

    Raises:
        UserError: an even number of cells along an axis, or one cell.

    Examples:
        >>> location_count((3, 3, 3)), location_count((3, 3))
        (26, 8)
    """
    cells = int(np.prod(grid))
    if cells < 3 or cells % 2 == 0:
        raise UserError(
            f"grid: found {list(grid)}, expected odd numbers of cells, so that one is in the centre, and "
            "three cells or more"
        )
    return cells - 1


# --------------------------------------------------------------------------------------- 3.2 the network
class RelativePatchLocationNet(nn.Module):
    """One encoder for all patches, and a fully connected head on the features of (centre, query).

    Args:
        backbone: Network with `encode`; its decoder is not used.
        grid: Number of cells along each axis, one number or one per axis; N in all.
        hidden: Units of each hidden layer of the head (the paper: 2048 and 1024).
        dropout: Probability with which a hidden unit is dropped (the paper: 0.5).
        pool_size: Edge of the pooled map of a patch.

    Raises:
        UserError: for invalid arguments.
    """

    def __init__(
        self,
        backbone: Backbone,
        grid: int | Sequence[int] = 3,
        hidden: Sequence[int] = (2048, 1024),
        dropout: float = 0.5,
        pool_size: int = 1,
    ) -> None:
        super().__init__()
        locations = location_count(per_axis("grid", grid, backbone.spatial_dims))
        self.backbone, self.patches = backbone, PatchFeatures(backbone, pool_size)
        self.head = FullyConnectedHead(2 * self.patches.features, locations, hidden, dropout=dropout)

    def forward(self, x: Float[Tensor, "b v c *space"]) -> Float[Tensor, "b k n"]:
        """Logits of the N - 1 locations for each of the K queries, which follow the centre in v = 1 + K."""
        features = self.patches(self.backbone, x)
        queries = features[:, 1:]
        pairs = torch.cat([features[:, :1].expand_as(queries), queries], dim=-1)
        return self.head(pairs.flatten(0, 1)).unflatten(0, queries.shape[:2])


# --------------------------------------------------------------------------------------------- the accuracy
def validation_metrics() -> dict[str, Metric]:
    """The metrics of a validation: the fraction of all held-out queries whose location is recognised, 0 to 1.

    `chance` is 1 / (N - 1), 1/26, in 2D 1/8.
    """
    return class_metrics("location")

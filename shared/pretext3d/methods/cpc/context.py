"""The context network g_cxt of CPC: one vector per patch, from the patches of its inverted pyramid.

Section 3.1. Locations are numbered by rows, i from the top of the grid to its bottom, and within a row
by the other axes (j, k), in 2D by j alone. The context of (i, j, k) are the codes z_{u,v,w} with

    u <= i,  |v - j| <= min(i - u, radius),  |w - k| <= min(i - u, radius),

as far as they are in the grid: in its own row the patch alone, in the row above it 3 x 3 patches, in all rows
further up 5 x 5 for the paper's radius of 2 (Fig. 1a, whose widest row is [j - 2, j + 2]). Nothing below the
row i is in it, and nothing of row i but the patch itself. Masked convolutions see at most `radius` rows up.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn

from pretext3d.annotations import Bool, Float, Tensor
from pretext3d.checking import integer, one_of

__all__ = ["CONTEXTS", "GruContext", "MaskedConvContext", "build_context", "in_context"]

CONTEXTS = ("gru", "masked_conv")


def in_context(shape: Sequence[int], location: Sequence[int], radius: int, kind: str) -> Bool[Tensor, "..."]:
    """Which locations the context vector of one location sees; True in the grid `shape`.

    Args:
        shape: Number of rows, then the number of patches along each other axis.
        location: Row, then place along each other axis.
        radius: Largest half width of the pyramid.
        kind: `gru` or `masked_conv`.

    Examples:
        >>> in_context((3, 4), (2, 1), radius=1, kind="gru").int().tolist()
        [[1, 1, 1, 0], [1, 1, 1, 0], [0, 1, 0, 0]]
    """
    above = location[0] - torch.arange(shape[0])  # rows above the location's
    seen = above >= 0
    if kind == "masked_conv":
        seen = seen & (above <= radius)
    for axis, (count, place) in enumerate(zip(shape[1:], location[1:], strict=True)):
        near = (torch.arange(count) - place).abs() <= above.clamp(max=radius)[:, None]
        seen = seen[..., None] & near.view(shape[0], *[1] * axis, count)
    return seen


def neighbourhoods(codes: Float[Tensor, "..."], width: int) -> Float[Tensor, "..."]:
    """The codes of all patches of a row around each patch, joined; zeros outside the grid.

    Args:
        codes: (b, rows, *others, features) with one or two other axes.
        width: Half width: 2 * width + 1 patches along each other axis.

    Returns:
        (b, rows, *others, features * (2 * width + 1) ** others).

    Examples:
        >>> neighbourhoods(torch.tensor([1.0, 2.0, 3.0]).view(1, 1, 3, 1), 1).tolist()
        [[[[0.0, 1.0, 2.0], [1.0, 2.0, 3.0], [2.0, 3.0, 0.0]]]]
    """
    others = codes.ndim - 3
    windows = F.pad(codes, [0, 0, *[width] * (2 * others)])
    for axis in range(2, 2 + others):
        windows = windows.unfold(axis, 2 * width + 1, 1)
    return windows.flatten(2 + others)


class GruContext(nn.Module):
    """A GRU over the rows of the pyramid, from the top of the grid to the row of the patch.

    A row enters as one vector: a linear map of the joined codes of its part of the pyramid, with one map per
    width of the pyramid. All patches of all rows go through the GRU together: a step takes the row that is n
    rows above each patch, where there is one, for n from the largest down to 0, the patch itself.

    Args:
        features: Size of a code.
        units: Size of the context vector.
        shape: Number of rows, then the number of patches along each other axis.
        radius: Largest half width of the pyramid.
    """

    def __init__(self, features: int, units: int, shape: Sequence[int], radius: int = 2) -> None:
        super().__init__()
        self.radius, others = radius, len(shape) - 1
        widest = min(radius, shape[0] - 2)  # the last row has nothing to predict and no context
        self.rows = nn.ModuleList(
            nn.Linear(features * (2 * width + 1) ** others, units) for width in range(widest + 1)
        )
        self.cell = nn.GRUCell(units, units)

    def forward(self, codes: Float[Tensor, "b rows *others f"]) -> Tensor:
        """The context vectors (b, rows - 1, *others, units) of all rows but the last."""
        count = codes.shape[1] - 1
        units = self.cell.hidden_size
        hidden = codes.new_zeros(len(codes), count, *codes.shape[2:-1], units)
        for above in reversed(range(count)):  # rows from the top: those that are `above` rows above the patch
            width = min(above, self.radius)
            seen = self.rows[width](neighbourhoods(codes[:, : count - above], width))
            state = self.cell(seen.reshape(-1, units), hidden[:, above:].reshape(-1, units))
            hidden = torch.cat([hidden[:, :above], state.view_as(seen)], dim=1)
        return hidden


class MaskedConvContext(nn.Module):
    """Masked convolutions, `radius` of them in residual blocks, each one row further up and one patch wider.

    A kernel of 2 rows and 3 patches along each other axis is masked so that of the patch's own row only the
    patch itself is left: h + relu(A h_{i,j,k} + B h_{i-1,j-1..j+1,k-1..k+1}). The first h are a linear map of
    the codes.

    Args:
        features: Size of a code.
        units: Size of the context vector.
        shape: Number of rows, then the number of patches along each other axis.
        radius: Number of convolutions.
    """

    def __init__(self, features: int, units: int, shape: Sequence[int], radius: int = 2) -> None:
        super().__init__()
        joined = units * 3 ** (len(shape) - 1)
        layers = min(radius, shape[0] - 2)
        self.first = nn.Linear(features, units)
        self.here = nn.ModuleList(nn.Linear(units, units) for _ in range(layers))
        self.above = nn.ModuleList(nn.Linear(joined, units, bias=False) for _ in range(layers))

    def forward(self, codes: Float[Tensor, "b rows *others f"]) -> Tensor:
        """The context vectors (b, rows - 1, *others, units) of all rows but the last."""
        hidden: Tensor = self.first(codes[:, :-1])
        for here, above in zip(self.here, self.above, strict=True):
            upper = torch.cat([torch.zeros_like(hidden[:, :1]), hidden[:, :-1]], dim=1)
            hidden = hidden + F.relu(here(hidden) + above(neighbourhoods(upper, 1)))
        return hidden


def build_context(kind: str, features: int, units: int, shape: Sequence[int], radius: int) -> nn.Module:
    """The context network `gru` or `masked_conv`; for the arguments see `GruContext`.

    Raises:
        UserError: another kind, or numbers below 1 (the radius below 0).
    """
    one_of("context", kind, CONTEXTS)
    integer("context_units", units, minimum=1)
    integer("context_radius", radius, minimum=0)
    network = GruContext if kind == "gru" else MaskedConvContext
    return network(features, units, shape, radius)

"""The context networks of contrastive predictive coding: values by hand, and exactly which codes they see."""

import math

import pytest
import torch
from pretext3d.methods.cpc.context import GruContext, MaskedConvContext, build_context, in_context


def test_the_pyramid_by_hand() -> None:
    """Of the patch in row 3 and column 3, radius 2: itself, then 3, 5 and 5 wide."""
    seen = in_context((5, 7), (3, 3), radius=2, kind="gru").int().tolist()
    assert seen == [
        [0, 1, 1, 1, 1, 1, 0],
        [0, 1, 1, 1, 1, 1, 0],
        [0, 0, 1, 1, 1, 0, 0],
        [0, 0, 0, 1, 0, 0, 0],
        [0, 0, 0, 0, 0, 0, 0],
    ]
    short = in_context((5, 7), (3, 3), radius=2, kind="masked_conv")
    assert short[1:].int().tolist() == seen[1:]
    assert not short[0].any()
    assert int(in_context((3, 3, 3), (1, 0, 2), 2, "gru").sum()) == 2 * 2 + 1  # clipped to the grid


@pytest.mark.parametrize("kind", ["gru", "masked_conv"])
@pytest.mark.parametrize("shape", [(5, 6), (4, 3, 4), (2, 3), (3, 1, 1)])
@pytest.mark.parametrize("radius", [0, 1, 2])
def test_a_context_sees_its_pyramid_and_nothing_else(kind: str, shape: tuple[int, ...], radius: int) -> None:
    """Each code in turn is changed: the context vectors that change are those that `in_context` names."""
    torch.manual_seed(1)
    count, features = math.prod(shape), 3
    network = build_context(kind, features, 16, shape, radius).double()
    codes = torch.randn(1, *shape, features, dtype=torch.float64)
    changes = 3 * torch.eye(count, dtype=torch.float64).view(count, *shape, 1)
    before, after = network(codes), network(codes + changes)
    assert before.shape == (1, shape[0] - 1, *shape[1:], 16)
    changed = ((after - before).abs() > 1e-9).any(-1)  # (changed code, row, *others)
    for location in torch.cartesian_prod(*map(torch.arange, (shape[0] - 1, *shape[1:]))).tolist():
        expected = in_context(shape, location, radius, kind).flatten()
        assert torch.equal(changed[(slice(None), *location)], expected), location


def test_a_gru_over_the_rows_by_hand() -> None:
    """Three rows of two columns: a GRU takes the rows from the top, with one linear map per width."""
    torch.manual_seed(2)
    network = GruContext(features=2, units=3, shape=(3, 2), radius=2)
    codes = torch.randn(1, 3, 2, 2)
    got = network(codes)
    zero, outside = torch.zeros(1, 3), torch.zeros(1, 2)
    top, second = codes[:, 0], codes[:, 1]
    # location (0, 1): its own code alone
    torch.testing.assert_close(got[:, 0, 1], network.cell(network.rows[0](top[:, 1]), zero))
    # location (1, 0): columns -1, 0 and 1 of the top row, of which -1 is outside, then its own code
    row = network.rows[1](torch.stack([outside, top[:, 0], top[:, 1]], dim=2).flatten(1))
    state = network.cell(network.rows[0](second[:, 0]), network.cell(row, zero))
    torch.testing.assert_close(got[:, 1, 0], state)


def test_a_masked_convolution_by_hand() -> None:
    """The same as a convolution of 2 x 3 whose own row is masked to its middle."""
    torch.manual_seed(3)
    network = MaskedConvContext(features=2, units=3, shape=(3, 4), radius=1)
    codes = torch.randn(1, 3, 4, 2)
    first = network.first(codes)[:, :2].movedim(-1, 1)  # (1, 3, 2 rows, 4 columns)
    kernel = torch.zeros(3, 3, 2, 3)
    kernel[:, :, 0] = network.above[0].weight.view(3, 3, 3)
    kernel[:, :, 1, 1] = network.here[0].weight
    padded = torch.nn.functional.pad(first, (1, 1, 1, 0))
    convolved = torch.nn.functional.conv2d(padded, kernel, network.here[0].bias)
    torch.testing.assert_close(network(codes), (first + convolved.relu()).movedim(1, -1))

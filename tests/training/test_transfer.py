"""Tensors fitted to another network, by hand and as laws; whole transfers are in test_pretrained.py."""

import torch
from hypothesis import given
from hypothesis import strategies as st
from pretext3d.training.transfer import first_convolution, position_embedding, token_grid
from torch import nn


@given(st.integers(1, 5), st.integers(1, 5))
def test_first_convolution_keeps_the_response_to_equal_channels(before, after):
    torch.manual_seed(before * 7 + after)
    weight, image = torch.randn(3, before, 2, 3, 2).double(), torch.randn(1, 1, 5, 6, 7).double()
    expected = nn.functional.conv3d(image.repeat(1, before, 1, 1, 1), weight)
    found = nn.functional.conv3d(image.repeat(1, after, 1, 1, 1), first_convolution(weight, after))
    torch.testing.assert_close(found, expected)


def test_first_convolution_by_hand():
    """Two channels of weights 1 and 5 for three: mean 3, times 2 / 3 = 2 each; 1 + 5 = 2 + 2 + 2."""
    weight = torch.tensor([1.0, 5.0]).reshape(1, 2, 1, 1, 1)
    torch.testing.assert_close(first_convolution(weight, 3), torch.full((1, 3, 1, 1, 1), 2.0))


def test_position_embedding_by_hand():
    """Along one axis values 0 and 4 at centres 1/4 and 3/4; at 1/8, 3/8, 5/8, 7/8 they are 0, 1, 3, 4."""
    old = torch.tensor([0.0, 4.0]).reshape(1, 2, 1)
    new = position_embedding(old, (1, 1, 2), (1, 1, 4))
    torch.testing.assert_close(new, torch.tensor([0.0, 1.0, 3.0, 4.0]).reshape(1, 4, 1))
    torch.testing.assert_close(position_embedding(old, (2, 1, 1), (2, 1, 1)), old)


def test_token_grid():
    assert token_grid(4, (16, 16, 64), (16, 16, 16)) == (1, 1, 4)
    assert token_grid(256, (64, 64, 8), (8, 8, 2)) == (8, 8, 4)  # anisotropic
    assert token_grid(5, (32, 32, 32), (16, 16, 16)) is None

"""Contrast and brightness, worked out by hand."""

import torch
from pretext3d.ops.intensities import adjust_


def test_contrast_is_about_the_mean_of_each_channel_of_each_patch() -> None:
    """Patch 0: (1, 3), mean 2, factor 2, shift 1 -> 2 - 2 + 1 = 1 and 2 + 2 + 1 = 5; its second stays.

    Patch 1: (0, 8), mean 4, factor 0, shift 0 -> 4, 4; (2, 4) with shift -1.
    """
    patches = torch.tensor([[[[1.0, 3.0]], [[5.0, 6.0]]], [[[0.0, 8.0]], [[2.0, 4.0]]]])
    factors, shifts = torch.tensor([[2.0, 1.0], [0.0, 1.0]]), torch.tensor([[1.0, 0.0], [0.0, -1.0]])
    got = adjust_(patches, factors, shifts)
    assert got.flatten().tolist() == [1, 5, 5, 6, 4, 4, 1, 3]


def test_contrast_and_brightness_by_hand() -> None:
    """Channel 0: mean 2, deviations -1, 1 doubled, plus 3: 3, 7. Channel 1: mean 5, halved, minus 1."""
    images = torch.tensor([[[[1.0, 3.0]], [[4.0, 6.0]]]])
    got = adjust_(images, torch.tensor([[2.0, 0.5]]), torch.tensor([[3.0, -1.0]]))
    torch.testing.assert_close(got, torch.tensor([[[[3.0, 7.0]], [[3.5, 4.5]]]]))

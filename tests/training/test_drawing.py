"""Tests of what the pictures have in common."""

import pytest
import torch
from pretext3d.training.drawing import middle_planes


@pytest.mark.parametrize("shape", [(2, 4, 6, 8), (3, 4, 6)])
def test_middle_planes(shape: tuple[int, ...]) -> None:
    """Sagittal, coronal and axial: across the first, the second and the last axis; an image is its own."""
    image = torch.rand(*shape)
    planes = middle_planes(image)
    if len(shape) == 3:
        assert planes == [(image, (0, 1))]
    else:
        expected = [image[:, 2], image[:, :, 3], image[..., 4]]
        assert [axes for _, axes in planes] == [(1, 2), (0, 2), (0, 1)]
        assert all(torch.equal(a, b) for (a, _), b in zip(planes, expected, strict=True))

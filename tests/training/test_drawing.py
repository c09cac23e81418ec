"""Tests of what the pictures have in common."""

import pytest
import torch
from pretext3d.training.drawing import View, channels_shown, middle_planes, titled_figure


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


@pytest.mark.parametrize(
    ("shape", "oriented", "said"),
    [
        ((1, 4, 4, 4), True, ""),
        ((3, 4, 4, 4), True, "channel 1 of 3 is shown"),
        ((3, 4, 4), True, "channel 1 of 3 is shown"),  # slices of three contrasts
        ((3, 4, 4), False, "colours are those of the normalised channels"),
        ((2, 4, 4), False, "channel 1 of 2 is shown"),
        ((1, 4, 4), False, ""),
    ],
)
def test_a_picture_says_which_channels_it_shows(shape: tuple[int, ...], oriented: bool, said: str) -> None:
    volume = {"id": "p0", "image": torch.zeros(shape), "oriented": oriented}
    assert channels_shown(volume["image"], View(volume)) == said
    figure = titled_figure(6, 3, volume, "", subtitle=["below"], view=View(volume))
    texts = [text.get_text() for text in figure.texts]
    assert texts == ["p0", "below", *([said] if said else [])]

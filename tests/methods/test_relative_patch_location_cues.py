"""Cues of colour, removed: values worked out by hand."""

import pytest
import torch
from pretext3d.errors import UserError
from pretext3d.methods.relative_patch_location.cues import (
    check_colour,
    drop_colours,
    grey,
    project_colours,
)


def test_grey_keeps_the_number_of_channels() -> None:
    got = grey(torch.tensor([[[[1.0, 0.0]], [[2.0, 3.0]], [[6.0, 0.0]]]]))
    assert got.flatten().tolist() == [3, 1, 3, 1, 3, 1]


def test_projection_removes_green_minus_magenta_alone() -> None:
    """a = (-1, 2, -1), a.a = 6. Grey (1, 1, 1) has a.x = 0 and stays; a itself becomes 0.

    (3, 0, 0): a.x = -3, x + a / 2 = (2.5, 1, -0.5).
    """
    pixels = torch.tensor([[1.0, 1.0, 1.0], [-1.0, 2.0, -1.0], [3.0, 0.0, 0.0]])
    got = project_colours(pixels.T[None, :, :, None])[0, :, :, 0].T
    torch.testing.assert_close(got, torch.tensor([[1.0, 1.0, 1.0], [0.0, 0.0, 0.0], [2.5, 1.0, -0.5]]))


def test_one_channel_remains() -> None:
    """Patch 0 keeps channel 1, (0, 4) with a standard deviation of 2: noise z becomes 0.02 z elsewhere."""
    patches = torch.tensor([[[9.0, 9.0], [0.0, 4.0], [1.0, 2.0]], [[-5.0, 5.0], [7.0, 7.0], [7.0, 7.0]]])
    noise = torch.full((2, 3, 2), 3.0)
    got = drop_colours(patches, torch.tensor([1, 0]), noise)
    expected = [[[0.06, 0.06], [0.0, 4.0], [0.06, 0.06]], [[-5.0, 5.0], [0.15, 0.15], [0.15, 0.15]]]
    torch.testing.assert_close(got, torch.tensor(expected))


@pytest.mark.parametrize(
    ("colour", "channels", "message"),
    [
        ("grey", 1, "patch_colour: found 'grey' with images of 1 channel, expected keep"),
        (
            "project",
            2,
            "patch_colour: found 'project' with images of 2 channels, expected keep, grey or drop",
        ),
    ],
)
def test_colours_that_are_not_there(colour: str, channels: int, message: str) -> None:
    with pytest.raises(UserError, match=message):
        check_colour(colour, channels)
    check_colour("keep", channels)

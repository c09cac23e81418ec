import pytest
import torch
from monai.data import MetaTensor
from pretext3d.data.loading import SelectChannelsd
from pretext3d.errors import UserError

AFFINE = torch.diag(torch.tensor([2.0, 1.0, 3.0, 1.0]))


def sample(channels: int = 3) -> dict:
    """Channel c holds 10 c, 10 c + 1, ..."""
    values = torch.arange(2.0 * 3).reshape(1, 1, 2, 3) + 10 * torch.arange(channels).reshape(-1, 1, 1, 1)
    return {"id": "case7", "image": MetaTensor(values, affine=AFFINE), "label": torch.zeros(1, 1, 2, 3)}


@pytest.mark.parametrize(
    ("channels", "firsts"),
    [([1], [10]), ([2, 0], [20, 0]), (1, [10]), ((0, 1, 2), [0, 10, 20]), (None, [0, 10, 20])],
)
def test_channels_in_the_given_order(channels, firsts) -> None:
    data = sample()
    result = SelectChannelsd("image", channels)(data)
    assert result["image"][:, 0, 0, 0].tolist() == firsts
    assert torch.equal(result["image"].affine, AFFINE.double())
    assert result["label"] is data["label"]
    assert data["image"].shape == (3, 1, 2, 3)  # the input is as it was


@pytest.mark.parametrize(("channels", "count"), [(None, 3), ([0, 1, 2], 3), ([0], 1)])
def test_nothing_to_leave_out(channels, count) -> None:
    data = sample(count)
    assert SelectChannelsd("image", channels)(data)["image"] is data["image"]


def test_too_few_channels_names_the_case() -> None:
    with pytest.raises(UserError, match=r"channels: found \[0, 3\], but case case7 has 3 channels"):
        SelectChannelsd("image", [0, 3])(sample())


@pytest.mark.parametrize("channels", [[], [-1], [1, 1]])
def test_bad_channels(channels) -> None:
    with pytest.raises(UserError, match="channels: found"):
        SelectChannelsd("image", channels)

"""Random brightness and gamma: by hand, alike for image and truth, and mistakes."""

import pytest
import torch
from pretext3d.errors import UserError
from pretext3d.methods.supervoxel_inpainting.intensities import RandBrightnessGammad


def test_by_hand() -> None:
    change = RandBrightnessGammad("image")
    change.randomize = lambda channels: None  # type: ignore[method-assign]
    change.factors, change.exponent = [2.0, 0.5], 2.0
    out = change({"image": torch.tensor([[[[0.0, 0.5]]], [[[1.0, 0.5]]]])})["image"]
    torch.testing.assert_close(out, torch.tensor([[[[0.0, 0.5]]], [[[0.5, 0.125]]]]))


def test_hidden_stays_hidden_and_the_rest_equal() -> None:
    clean = torch.rand(2, 4, 4, 4)
    mask = torch.zeros(1, 4, 4, 4, dtype=torch.bool)
    mask[0, 1:3, 1:3, 1:3] = True
    change = RandBrightnessGammad(["image", "clean"], prob=1).set_random_state(0)
    out = change({"image": clean.masked_fill(mask, 0.0), "clean": clean})
    assert not torch.allclose(out["clean"], clean)
    assert torch.equal(out["image"], out["clean"].masked_fill(mask, 0.0))
    again = RandBrightnessGammad(["image", "clean"], prob=1).set_random_state(0)(
        {"image": clean, "clean": clean}
    )
    assert torch.equal(again["clean"], out["clean"])
    ratios = out["clean"].flatten(1).max(1).values
    assert ratios[0] != ratios[1]  # each channel has its own brightness


def test_each_channel_has_its_own_brightness() -> None:
    change = RandBrightnessGammad("image", brightness=0.3, prob=1).set_random_state(0)
    factors = change({"image": torch.ones(4, 1, 1, 1)})["image"].flatten()  # 1^g is 1
    assert len(factors.unique()) == 4
    assert 0.7 <= factors.min() < factors.max() <= 1.3


def test_the_crops_of_a_visit_share_a_draw() -> None:
    """Whatever the state of the transform, as the samples of a data set are seeded one by one."""
    ones = torch.ones(3, 1, 1, 1)

    def factors(jitter: str, visit: int, crop: int) -> list[float]:
        change = RandBrightnessGammad("image", prob=1, jitter=jitter).set_random_state(crop)
        return change({"image": ones, "visit_seed": visit})["image"].flatten().tolist()

    assert factors("volume", 5, 0) == factors("volume", 5, 1)
    assert factors("volume", 5, 0) != factors("volume", 6, 0)
    assert factors("crop", 5, 0) != factors("crop", 5, 1)
    assert factors("crop", 5, 0) == factors("crop", 6, 0)


def test_without_a_chance_nothing_changes() -> None:
    clean = torch.rand(1, 3, 3, 3)
    assert torch.equal(RandBrightnessGammad("image", prob=0)({"image": clean})["image"], clean)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"prob": 7}, "augment_prob: found 7"),
        ({"brightness": 1}, "brightness: found 1"),
        ({"gamma": [1.5, 0.7]}, "gamma: found"),
        ({"jitter": "image"}, "jitter: found 'image', expected one of crop, volume"),
    ],
)
def test_mistakes(keys: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        RandBrightnessGammad("image", **keys)


def test_values_below_0_are_refused() -> None:
    change = RandBrightnessGammad("image", prob=1)
    with pytest.raises(
        UserError, match=r"normalisation: found image with values down to -0\.5, .* expect 0 to"
    ):
        change({"image": torch.tensor([-0.5, 1.0]).reshape(1, 2, 1, 1)})

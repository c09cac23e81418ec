import pytest
import torch
from monai.data import MetaTensor
from pretext3d.data.loading import NameByCased, OnImageGridd, ScaleToUnitd, SelectChannelsd
from pretext3d.data.prepare import with_result_names
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


def test_percentiles_by_hand() -> None:
    # 0 .. 100: the 10th percentile is 10, the 90th 90; 50 is half way, 0 and 100 are clipped
    volume = torch.arange(101.0).reshape(1, 101, 1, 1)
    got = ScaleToUnitd("image", {"percentiles": [10, 90]})({"image": volume})["image"].flatten()
    torch.testing.assert_close(got[[0, 10, 30, 50, 90, 100]], torch.tensor([0.0, 0.0, 0.25, 0.5, 1.0, 1.0]))
    torch.testing.assert_close(volume, torch.arange(101.0).reshape(1, 101, 1, 1))


def test_mean_and_maximum_by_hand() -> None:
    # mean (0 + 1 + 1 + 6) / 4 = 2; the largest distance is 6 - 2 = 4: (0 - 2) / 4 = -0.5, (1 - 2) / 4 = -0.25
    volume = torch.tensor([[0.0, 1.0, 1.0, 6.0], [3.0, 3.0, 3.0, 3.0]]).reshape(2, 4, 1, 1)
    got = ScaleToUnitd("image", {"mean_maximum": [-1, 1]})({"image": volume})["image"]
    torch.testing.assert_close(got[0].flatten(), torch.tensor([-0.5, -0.25, -0.25, 1.0]))
    assert (got[1] == 0).all()  # constant


@pytest.mark.parametrize("value", [-1024.0, 0.1, 3.3333e7])
def test_a_constant_channel_becomes_0(value) -> None:
    volume = torch.full((1, 7, 11, 13), value)  # their mean in float32 is not always exactly the value
    for normalisation in ({"mean_maximum": [-1, 1]}, {"percentiles": [0.5, 99.5]}):
        assert (ScaleToUnitd("image", normalisation)({"image": volume})["image"] == 0).all()


def test_window_by_hand_and_channels_apart() -> None:
    volume = torch.tensor([[-175.0, 37.5], [250.0, 1000.0]]).reshape(2, 2, 1, 1)
    got = ScaleToUnitd("image", {"window": [-175, 250]})({"image": volume})["image"]
    torch.testing.assert_close(got.flatten(), torch.tensor([0.0, 0.5, 1.0, 1.0]))
    each = ScaleToUnitd("image", {"percentiles": [0, 100]})({"image": volume})["image"]
    torch.testing.assert_close(each.flatten(), torch.tensor([0.0, 1.0, 0.0, 1.0]))


def test_almost_empty_channel_is_scaled_by_its_range_and_a_constant_one_is_zero() -> None:
    volume = torch.zeros(2, 10, 10, 10)
    volume[0, 0, 0, 0] = 1448.0
    volume[1] = 7.0
    got = ScaleToUnitd("image", {"percentiles": [0.5, 99.5]})({"image": volume})["image"]
    assert got[0].max() == 1
    assert got[0].sum() == 1
    assert got[1].abs().max() == 0


@pytest.mark.parametrize(
    "normalisation",
    [
        {},
        {"mean": [0, 1]},
        {"percentiles": [50]},
        {"percentiles": [99, 1]},
        {"percentiles": [0, 101]},
        {"window": [5, 5]},
    ],
)
def test_bad_normalisation_is_named(normalisation) -> None:
    with pytest.raises(UserError, match="normalisation"):
        ScaleToUnitd("image", normalisation)


def test_results_have_names_of_their_own() -> None:
    cases = with_result_names([{"id": name} for name in ("a/b", "A_b", "c/b", "a_b")])
    assert [case["result_name"] for case in cases] == ["a_b", "A_b_2", "c_b", "a_b_3"]
    pred = MetaTensor(torch.zeros(1, 2, 2, 2), meta={"filename_or_obj": "/somewhere/0001.dcm"})
    named = NameByCased("pred")({"result_name": "clinic_scan 7", "pred": pred})["pred"]
    assert named.meta["filename_or_obj"] == "clinic_scan 7.nii.gz"
    assert NameByCased("pred")({"pred": pred})["pred"] is pred  # of MONAI Label


def test_label_gets_the_grid_of_its_image() -> None:
    affine = torch.diag(torch.tensor([2.0, 2.0, 3.0, 1.0], dtype=torch.float64))
    data = {
        "image": MetaTensor(torch.zeros(2, 4, 5, 6), affine=affine),
        "label": MetaTensor(torch.ones(1, 4, 5, 6), affine=1.009 * affine),
    }
    got = OnImageGridd("label")(data)
    torch.testing.assert_close(got["label"].affine, affine)
    torch.testing.assert_close(got["label"].as_tensor(), torch.ones(1, 4, 5, 6))
    torch.testing.assert_close(data["label"].affine, 1.009 * affine)  # the input is as it was
    data["label"] = MetaTensor(torch.ones(1, 4, 5, 7), affine=affine)
    with pytest.raises(UserError, match=r"label: found shape \[4, 5, 7\], expected the image's, \[4, 5, 6\]"):
        OnImageGridd("label")(data)

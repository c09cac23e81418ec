"""The promises of the interface, kept by every encoder."""

import ast
import math
import re

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pretext3d.errors import UserError
from pretext3d.networks.backbone import check_sizes
from pretext3d.networks.factory import ENCODERS, build_backbone, rebuild
from pretext3d.networks.unet import UNet

from tests.networks.conftest import SMALL, small_backbone


def test_every_encoder_is_tested():
    assert set(SMALL) == set(ENCODERS)


@pytest.mark.parametrize("dims", [3, 2])
def test_maps_attributes_and_gradients(encoder, dims):
    """Shapes are what the attributes say; no parameter is left out of the backward pass."""
    backbone = small_backbone(encoder, spatial_dims=dims)
    roi_size = SMALL[encoder][1][:dims]
    x = torch.randn(2, 2, *roi_size)
    features = backbone.encode(x)
    y = backbone.decode(features)
    assert tuple(y.shape) == (2, backbone.out_channels, *roi_size)
    assert len(backbone.feature_channels) == len(backbone.feature_strides) == len(features)
    for feature, channels, strides in zip(
        features, backbone.feature_channels, backbone.axis_strides, strict=True
    ):
        size = [math.ceil(n / s) for n, s in zip(roi_size, strides, strict=True)]
        assert list(feature.shape) == [2, channels, *size]
    assert backbone.feature_strides == tuple(max(strides) for strides in backbone.axis_strides)
    assert backbone.feature_strides[0] == 1
    assert sorted(backbone.feature_strides) == list(backbone.feature_strides)
    (y * torch.randn_like(y)).sum().backward()
    assert [name for name, p in backbone.named_parameters() if p.grad is None] == []
    assert [name for name, p in backbone.named_parameters() if not p.grad.any()] == []
    assert all(torch.isfinite(p.grad).all() for p in backbone.parameters())


def test_the_coarsest_map_alone_is_the_same(case):
    backbone, x = case
    backbone.eval()
    with torch.no_grad():
        assert torch.equal(backbone.encode_coarsest(x), backbone.encode(x)[-1])


def test_every_map_matters_to_decode(case):
    """A decoder that ignored a map would be a skip that is not connected."""
    backbone, x = case
    backbone.eval()
    with torch.no_grad():
        features = backbone.encode(x)
        y = backbone.decode(list(features))
        for level in range(len(features)):
            changed = [f + 100 * torch.randn_like(f) if m == level else f for m, f in enumerate(features)]
            assert not torch.equal(backbone.decode(changed), y), level  # at random weights it may be a little
        torch.testing.assert_close(backbone.decode(features), y)  # and nothing was written in place


def test_what_is_beside_the_encoder(case):
    """The coarsest map has a gradient for every parameter but those that train_encoder_only freezes."""
    backbone, x = case
    backbone.eval()
    assert backbone.train_encoder_only() is backbone
    assert backbone.record["untrained"] == list(backbone.outside_encoder) != []
    frozen = {name for name, p in backbone.named_parameters() if not p.requires_grad}
    backbone.requires_grad_(True)
    coarsest = backbone.encode(x)[-1]
    (coarsest * torch.randn_like(coarsest)).sum().backward()
    assert {name for name, p in backbone.named_parameters() if p.grad is None} == frozen


def test_rebuilt_from_its_record(case):
    backbone, x = case
    backbone.eval()
    plain = ast.literal_eval(repr(backbone.record))  # plain values only
    again = rebuild(plain).eval()
    assert again.record == backbone.record
    state = backbone.state_dict()
    assert {k: v.shape for k, v in again.state_dict().items()} == {k: v.shape for k, v in state.items()}
    again.load_state_dict(state)
    with torch.no_grad():
        assert torch.equal(again(x), backbone(x))


def test_two_dimensions(encoder):
    """Colour images: three channels; the record says how many axes there are."""
    backbone = small_backbone(encoder, in_channels=3, spatial_dims=2)
    size = SMALL[encoder][1][:2]
    features = backbone.encode(torch.randn(2, 3, *size))
    assert [tuple(f.shape[2:]) for f in features] == backbone.map_sizes(size)
    assert tuple(backbone.decode(features).shape) == (2, backbone.out_channels, *size)
    assert rebuild(backbone.record).record["spatial_dims"] == 2
    assert not [m for m in backbone.modules() if type(m).__name__.endswith("3d")]


def test_map_sizes_by_hand():
    assert UNet(1).map_sizes((8, 12, 4)) == [(8, 12, 4), (4, 6, 2), (2, 3, 1)]
    # a ResNet's stem and stages give ceil(20 / 2) = 10, 5, 3, 2, 1
    assert [s[0] for s in small_backbone("resnet10").map_sizes((20, 8, 8))] == [20, 10, 5, 3, 2, 1]


@pytest.mark.parametrize(
    ("roi_size", "message"),
    [
        ((18, 32, 9), r"found \[18, 32, 9\], expected multiples of 8 .*: \[16, 32, 8\] or \[24, 32, 16\]"),
        ((4, 8, 8), r"found \[4, 8, 8\], expected multiples of 8 .*nearest valid: \[8, 8, 8\]$"),
        ((16, 16), r"found \[16, 16\], expected 3 integers"),
        ((0, 8, 8), r"found \[0, 8, 8\], expected 3 integers"),
    ],
)
def test_roi_size_is_checked(roi_size, message):
    with pytest.raises(UserError, match="^roi_size: " + message):
        build_backbone("unet4", 1, roi_size)


@pytest.mark.parametrize("roi_size", [(8.0, 8, 8), "888", (True, 8, 8)])
def test_sizes_are_whole_numbers(roi_size):
    with pytest.raises(UserError, match=r"roi_size: found .*, expected 3 integers"):
        check_sizes(roi_size, 3)


def test_sizes_of_numpy_are_numbers():
    assert check_sizes(np.array([8, 16, 24]), 3) == [8, 16, 24]


CHECKED = {name: small_backbone(name) for name in ("unet4", "resnet10", "swin_unetr", "segresnet")}


@given(st.sampled_from([*CHECKED, "dynunet"]), st.tuples(*[st.integers(1, 70)] * 3))
def test_the_nearest_sizes_are_valid(name, roi_size):
    """What a message proposes is accepted."""

    def check(sizes):
        return CHECKED[name].check_roi_size(sizes) if name in CHECKED else build_backbone(name, 1, sizes)

    try:
        check(roi_size)
    except UserError as error:
        proposed = re.findall(r"\[[\d, ]+\]", str(error).split("nearest valid")[1])
        assert proposed
        for sizes in map(ast.literal_eval, proposed):
            check(sizes)


def test_one_value_is_no_batch():
    x = torch.randn(1, 1, 4, 4, 4)
    with pytest.raises(UserError, match=r"batch_size: found 1 with inputs of \[4, 4, 4\].*\[8, 8, 8\]"):
        UNet(1)(x)
    with pytest.raises(UserError, match="batch_size: found 1"):
        small_backbone("resnet10", 1)(torch.randn(1, 1, 32, 32, 32))
    UNet(1).eval()(x)
    UNet(1, norm="group")(x)
    UNet(1)(torch.randn(2, 1, 4, 4, 4))
    with pytest.raises(UserError, match=r"roi_size: .*one voxel"):
        UNet(1, norm="instance").check_roi_size((4, 4, 4))


@pytest.mark.parametrize("channels", [0, -1, True])
def test_in_channels_are_checked(channels):
    with pytest.raises(UserError, match=f"in_channels: found {channels}, expected"):
        build_backbone("unet", channels, (8, 8, 8))


def test_spatial_dims_are_checked():
    with pytest.raises(UserError, match="spatial_dims: found 4, expected 2 or 3"):
        build_backbone("unet", 1, (8, 8, 8, 8), spatial_dims=4)


@pytest.mark.parametrize("name", [name for name in ENCODERS if name.startswith(("unet4", "vgg", "resnet"))])
def test_an_encoder_alone_takes_any_size(name):
    """The paper's cube for CT, a quarter of it: 16 x 16 x 3 voxels; maps round up, as `map_sizes` says."""
    options = {"width": 8} if name.startswith("resnet") else {}
    backbone = build_backbone(name, 1, (16, 16, 3), options=options, encoder_only=True)
    sizes = [tuple(feature.shape[2:]) for feature in backbone.encode(torch.randn(2, 1, 16, 16, 3))]
    assert sizes == backbone.map_sizes((16, 16, 3))
    with pytest.raises(UserError, match=r"roi_size: found \[16, 16, 3\]"):
        build_backbone(name, 1, (16, 16, 3), options=options)


def test_not_every_encoder_takes_any_size():
    with pytest.raises(UserError, match="roi_size"):
        build_backbone("unetr", 1, (16, 16, 3), encoder_only=True)


def test_an_input_too_small_to_learn_from(caplog):
    """Maps of unet4 have strides 1, 2, 4, 8: of 2 voxels three maps are one voxel, of 3 to 8 the coarsest."""
    for size in (1, 2):
        message = rf"roi_size: found \[{size}, {size}\], expected \[9, 9\] or more for UNet: only its finest"
        with pytest.raises(UserError, match=message):
            build_backbone("unet4", 1, (size, size), spatial_dims=2, encoder_only=True)
    build_backbone("unet4", 1, (9, 3, 3), encoder_only=True)
    assert caplog.text == ""
    for size, encoder_only in ((3, True), (8, True), (8, False)):
        caplog.clear()
        build_backbone("unet4", 1, (size,) * 3, encoder_only=encoder_only)
        found = f"roi_size: found {[size] * 3}, with which the coarsest map of UNet is one voxel"
        assert found in caplog.text


def test_a_record_is_described_without_a_look_at_its_roi_size(caplog):
    """What matters is the size of the run that uses the weights, not that of the one that made them."""
    record = build_backbone("unet4", 1, (8, 8, 8)).record
    caplog.clear()
    rebuild(record)
    rebuild(record, roi_size=(16, 16, 16))
    assert caplog.text == ""
    rebuild(record, roi_size=(8, 8, 8))
    assert "the coarsest map of UNet is one voxel" in caplog.text

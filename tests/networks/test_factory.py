import sys

import pytest
import torch
from pretext3d.errors import UserError
from pretext3d.networks.factory import build_backbone, rebuild
from pretext3d.networks.unet import UNet


def test_record():
    backbone = build_backbone("unet4", 2, (16, 8, 24))
    assert backbone.feature_channels == (16, 32, 64, 128)
    assert backbone.record == {
        "encoder": "unet4",
        "in_channels": 2,
        "spatial_dims": 3,
        "roi_size": [16, 8, 24],
    }
    assert build_backbone("unet", 1, (8, 8, 8)).feature_channels == (16, 32, 64)


def test_vgg_has_the_layout_of_vgg_11():
    """8 convolutions: 64; 128; 256, 256; 512, 512; 512, 512 channels; a pooling before each level but one."""
    backbone = build_backbone("vgg", 1, (16, 16, 16))
    convolutions = [m for m in backbone.down.modules() if isinstance(m, torch.nn.Conv3d)]
    assert [m.out_channels for m in convolutions] == [64, 128, 256, 256, 512, 512, 512, 512]
    assert backbone.feature_strides == (1, 2, 4, 8, 16)


@pytest.mark.parametrize("convolutions", [0, [1, 1], [1, 0, 1], [1.0, 1, 1]])
def test_numbers_of_convolutions_that_make_no_network(convolutions):
    with pytest.raises(UserError, match=r"convolutions: found .*, expected one integer, or one for each of"):
        build_backbone("unet", 1, (8, 8, 8), options={"convolutions": convolutions})


def test_rebuilt_for_other_channels_and_sizes():
    record = build_backbone("unet", 1, (8, 8, 8), options={"norm": "group"}).record
    assert record["options"] == {"norm": "group"}
    again = rebuild(record, in_channels=4, roi_size=(4, 8, 16))
    assert again.record == {**record, "in_channels": 4, "roi_size": [4, 8, 16]}


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("resnet5", "'resnet50'"),
        ("UNET", "'unet'"),
        ("swinunetr", "'swin_unetr'"),
        ("segres_net", "'segresnet'"),
    ],
)
def test_unknown_encoder(name, near):
    with pytest.raises(
        UserError, match=f"encoder: found '{name}', expected one of unet, unet4, .*; did you mean {near}\\?"
    ):
        build_backbone(name, 1, (32, 32, 32))


def test_unknown_encoder_far_from_all():
    with pytest.raises(UserError, match=r"segresnet, or the dotted name of a class derived from .*Backbone$"):
        build_backbone("transformer_xl", 1, (32, 32, 32))


def test_unknown_option():
    with pytest.raises(
        UserError, match=r"options: found 'feature_sise' for encoder 'swin_unetr', .*'feature_size'"
    ):
        build_backbone("swin_unetr", 1, (64, 64, 64), options={"feature_sise": 24})
    with pytest.raises(UserError, match=r"options: found 'depth' for encoder 'resnet10'"):
        build_backbone("resnet10", 1, (64, 64, 64), options={"depth": 50})


def test_record_with_an_entry_missing():
    with pytest.raises(
        UserError, match=r"backbone record: found \['encoder', 'spatial_dims'\], expected in_channels"
    ):
        rebuild({"encoder": "unet", "spatial_dims": 3})


class OwnBackbone(UNet):
    """A user's network, with an option of its own."""

    def __init__(self, in_channels: int, spatial_dims: int = 3, width: int = 4) -> None:
        super().__init__(in_channels, (width, 2 * width), spatial_dims=spatial_dims)


def test_a_class_of_ones_own_is_rebuilt_from_its_record():
    name = f"{__name__}.OwnBackbone"
    backbone = build_backbone(name, 1, (4, 4, 4), options={"width": 6})
    assert backbone.record["encoder"] == name
    again = rebuild(backbone.record, in_channels=2, encoder=name)
    assert isinstance(again, OwnBackbone)
    assert again.feature_channels == (6, 12)
    again.load_state_dict(rebuild(backbone.record, in_channels=2, encoder=name).state_dict())


@pytest.mark.parametrize("given", ["", "unet", "antigravity.other"])
def test_a_record_imports_nothing_that_the_user_has_not_named(given):
    record = {"encoder": "antigravity.x", "in_channels": 1, "spatial_dims": 3, "roi_size": [8, 8, 8]}
    with pytest.raises(UserError, match=r"encoder: found 'antigravity.x' in a checkpoint's record, expected"):
        rebuild(record, encoder=given)
    assert "antigravity" not in sys.modules


@pytest.mark.parametrize("name", ["torch.nn.Linear", "os.system", "pretext3d.networks.unet.NoSuch"])
def test_only_backbones_are_built(name):
    with pytest.raises(UserError, match=f"encoder: found '{name}', expected one of"):
        build_backbone(name, 1, (4, 4, 4))


def test_a_class_that_cannot_be_imported():
    with pytest.raises(
        UserError, match=r"encoder: found 'no\.such\.Net', which cannot be imported: No module"
    ):
        build_backbone("no.such.Net", 1, (4, 4, 4))


@pytest.mark.parametrize(("found", "expected"), [(3, 2), (2, 3)])
def test_weights_of_other_spatial_axes_are_refused(found, expected):
    record = build_backbone("unet", 1, (8, 8, 8)[:found], found).record
    assert rebuild(record, spatial_dims=found).record == record
    message = (
        rf"spatial_dims: found weights of a {found}D network \(spatial_dims {found}\), expected {expected};"
    )
    with pytest.raises(UserError, match=message):
        rebuild(record, roi_size=(8, 8, 8)[:expected], spatial_dims=expected)


def test_every_part_of_a_2d_network_by_its_parameters():
    """One channel in, 16/32/64, 3x3 convolutions: 9 weights where 3D has 27, 4 where it has 8."""
    convolutions = (16 + 16 * 16) + (16 * 32 + 32 * 32) + (32 * 64 + 64 * 64)
    merges = (64 * 32 + 32 * 32) + (32 * 16 + 16 * 16)
    ups, norms = 4 * (64 * 32 + 32 * 16) + 32 + 16, 4 * (16 + 32 + 64 + 32 + 16)
    count = sum(p.numel() for p in build_backbone("unet", 1, (8, 8), 2).parameters())
    assert count == 9 * (convolutions + merges) + ups + norms

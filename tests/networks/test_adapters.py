"""The adapters are MONAI's networks up to the output layer: same weights, same output."""

from pathlib import Path

import pytest
import torch
from monai.networks import nets
from pretext3d.errors import UserError
from pretext3d.networks import vit
from pretext3d.networks.adapters import (
    DynUNetBackbone,
    SegResNetBackbone,
    SwinUNETRBackbone,
    UNETRBackbone,
    plan_strides,
)
from pretext3d.networks.factory import build_backbone, rebuild
from pretext3d.networks.segmentation import SegmentationNet
from pretext3d.training.pretrained import Pretrained, transfer_weights

from tests.networks.conftest import SMALL_UNETR


def dyn(strides):
    return nets.DynUNet(3, 1, 2, [3] * len(strides), strides, strides[1:])


@pytest.mark.parametrize(
    ("theirs", "ours", "head", "roi_size"),
    [
        (
            lambda: nets.SwinUNETR(1, 2, feature_size=12),
            lambda: SwinUNETRBackbone(1, feature_size=12),
            "out",
            (32, 32, 64),
        ),
        (
            lambda: nets.UNETR(1, 2, (16, 32, 48), **SMALL_UNETR),
            lambda: UNETRBackbone(1, (16, 32, 48), **SMALL_UNETR),
            "out",
            (16, 32, 48),
        ),
        (
            lambda: dyn([[1, 1, 1], [2, 2, 2], [2, 2, 1]]),
            lambda: DynUNetBackbone(1, (16, 16, 8)),
            "output_block",
            (16, 16, 8),
        ),
        (
            lambda: nets.SegResNet(init_filters=8),
            lambda: SegResNetBackbone(1, init_filters=8),
            "conv_final.2",
            (8, 16, 24),
        ),
    ],
    ids=["swin_unetr", "unetr", "dynunet", "segresnet"],
)
def test_equals_monais_network(theirs, ours, head, roi_size):
    torch.manual_seed(0)
    whole, backbone = theirs().eval(), ours().eval()
    missing, unexpected = backbone.load_state_dict(whole.state_dict(), strict=False)
    assert missing == []
    left_out = (head, "skip_layers.", "vit.blocks.")
    assert all(name.startswith(left_out) for name in unexpected)
    assert all("norm_cross_attn" in name for name in unexpected if name.startswith("vit."))
    x = torch.randn(1, 1, *roi_size)
    with torch.no_grad():
        torch.testing.assert_close(whole.get_submodule(head)(backbone(x)), whole(x))


@pytest.mark.parametrize(
    ("roi_size", "sizes"),
    [
        ((96, 96, 96), [(96,) * 3, (48,) * 3, (24,) * 3, (12,) * 3, (6,) * 3]),
        # half of the longest edge is as good as equal: all three are halved
        ((64, 128, 128), [(64, 128, 128), (32, 64, 64), (16, 32, 32), (8, 16, 16), (4, 8, 8), (4, 4, 4)]),
        # a thin axis waits until the others have come down to twice its size; 5 is odd: no further
        ((80, 80, 20), [(80, 80, 20), (40, 40, 20), (20, 20, 10), (10, 10, 5), (5, 5, 5)]),
        ((40, 56, 40), [(40, 56, 40), (20, 28, 20), (10, 14, 10), (5, 7, 5)]),
        # never less than three levels
        ((16, 4, 4), [(16, 4, 4), (8, 4, 4), (4, 4, 4)]),
        ((20, 20, 20), [(20,) * 3, (10,) * 3, (5,) * 3]),
        ((512, 16), [(512, 16), (256, 16), (128, 16), (64, 16), (32, 16), (16, 8)]),
    ],
)
def test_strides_follow_from_the_size(roi_size, sizes):
    current, found = roi_size, []
    for stride in plan_strides(roi_size):
        current = tuple(n // s for n, s in zip(current, stride, strict=True))
        found.append(current)
    assert found == sizes


def test_dynunet_keeps_its_strides_for_another_size():
    first = build_backbone("dynunet", 1, (32, 32, 8))
    again = rebuild(first.record, roi_size=(64, 64, 64))
    assert again.record["options"]["strides"] == first.record["options"]["strides"]
    assert {k: v.shape for k, v in again.state_dict().items()} == {
        k: v.shape for k, v in first.state_dict().items()
    }
    # strides (1, 1, 1), (2, 2, 1), (2, 2, 2), (2, 2, 1) along k: 2 in all, along i and j: 8
    assert first.divisors == (8, 8, 2)
    with pytest.raises(UserError, match=r"multiples of \[8, 8, 2\] .*: \[8, 32, 2\] or \[16, 32, 4\]"):
        rebuild(first.record, roi_size=(12, 32, 3))
    with pytest.raises(UserError, match="coarsest map would be one voxel"):
        rebuild(first.record, roi_size=(8, 8, 2))


def test_unetr_goes_to_another_size():
    """4 and 6 tokens of 16^3: the position embeddings are resampled, all else is transferred unchanged."""
    options = SMALL_UNETR
    source = SegmentationNet(build_backbone("unetr", 1, (32, 32, 16), options=options), 2)
    target = SegmentationNet(rebuild(source.backbone.record, roi_size=(48, 32, 16)), 3)
    (key,) = source.backbone.position_keys
    assert source.backbone.state_dict()[key].shape == (1, 4, 24)
    assert target.backbone.state_dict()[key].shape == (1, 6, 24)
    record = {"method": "segmentation", "channels": 1, "backbone": source.backbone.record}
    report = transfer_weights(target, Pretrained(Path("source.pt"), record, source.state_dict()))
    assert [row.name for row in report.of("adapted")] == ["backbone." + key]
    assert report.fraction == 1


def test_unetr_refuses_an_input_of_another_size():
    net = UNETRBackbone(1, (16, 16, 16), **SMALL_UNETR)
    with pytest.raises(
        UserError, match=r"roi_size: found an input of \[32, 16, 16\], expected \[16, 16, 16\]"
    ):
        net.encode(torch.zeros(1, 1, 32, 16, 16))


def test_paper_sizes():
    """SwinUNETR of AVS-DB: feature size 48; MONAI's UNETR: a ViT-B/16."""
    swin = build_backbone("swin_unetr", 1, (96, 96, 96))
    with torch.device("meta"):
        unetr = build_backbone("unetr", 1, (96, 96, 96))
    assert swin.feature_channels == (48, 48, 96, 192, 384, 768)
    assert swin.out_channels == 48
    assert unetr.feature_channels == (16, 32, 64, 128, 768)
    assert unetr.state_dict()[unetr.position_keys[0]].shape == (1, 6**3, 768)


def test_recomputing_changes_no_value():
    torch.manual_seed(0)
    plain = SwinUNETRBackbone(1, feature_size=12, spatial_dims=2)
    saving = SwinUNETRBackbone(1, feature_size=12, use_checkpoint=True, spatial_dims=2)
    saving.load_state_dict(plain.state_dict())
    x = torch.randn(1, 1, 64, 32)
    grads = []
    for net in (plain, saving):
        net(x).square().mean().backward()
        grads.append(net.swinViT.patch_embed.proj.weight.grad)
    torch.testing.assert_close(*grads)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: SwinUNETRBackbone(1, feature_size=32), "feature_size: found 32, expected a multiple of 12"),
        (lambda: UNETRBackbone(1, (16, 16, 16), hidden_size=10), "hidden_size: found 10"),
        (lambda: UNETRBackbone(1, (20, 16, 16)), r"multiples of 16 .*: \[16, 16, 16\] or \[32, 16, 16\]"),
        (lambda: SegResNetBackbone(1, init_filters=12), "init_filters: found 12"),
        (lambda: DynUNetBackbone(1, (12, 12, 12)), r"one of them 16 or more.*: \[16, 16, 16\]"),
        (lambda: DynUNetBackbone(1, (32, 32, 32), strides=[[1, 1, 1], [2, 2, 2]]), "3 or more levels"),
        (lambda: build_backbone("swin_unetr", 1, (32, 32, 32)), r"one axis of 64 .*: \[64, 64, 64\]"),
    ],
)
def test_arguments_are_checked(build, message):
    with pytest.raises(UserError, match=message):
        build()


def test_einops_is_asked_for(monkeypatch):
    monkeypatch.setattr(vit, "optional_import", lambda name: (None, False))
    with pytest.raises(UserError, match="encoder: swin_unetr needs the package einops"):
        SwinUNETRBackbone(1)

"""The small vision transformer: its patches, its parameters, and its transfer to crops of another size."""

import math
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pretext3d.errors import UserError
from pretext3d.networks.factory import build_backbone, rebuild
from pretext3d.networks.segmentation import SegmentationNet
from pretext3d.networks.vit import ViTBackbone, plan_steps
from pretext3d.training.pretrained import Pretrained, transfer_weights

SMALL = {"feature_size": 4, "hidden_size": 24, "num_layers": 2}


def patch_size(steps):
    return tuple(math.prod(along) for along in zip(*steps, strict=True))


@pytest.mark.parametrize(
    ("roi_size", "patch", "tokens"),
    [
        ((64, 64, 8), (8, 8, 2), 8 * 8 * 4),  # the third axis waits until the others have come to 16
        ((64, 64, 64), (16, 16, 16), 4**3),  # 8 would give 512
        ((48, 48, 48), (8, 8, 8), 6**3),
        ((40, 56, 40), (8, 8, 8), 5 * 7 * 5),
        ((96, 96, 96), (16, 16, 16), 6**3),
        ((64, 64), (4, 4), 16**2),
        ((192, 192), (16, 16), 12**2),
        ((8, 8, 8), (4, 4, 4), 2**3),  # two steps at least
    ],
)
def test_patches_follow_from_the_size(roi_size, patch, tokens):
    assert patch_size(plan_steps(roi_size)) == patch
    assert math.prod(n // p for n, p in zip(roi_size, patch, strict=True)) == tokens


@given(st.lists(st.integers(1, 130), min_size=2, max_size=3))
def test_every_plan_gives_a_network_or_sizes_that_do(roi_size):
    try:
        steps = plan_steps(roi_size)
    except UserError as error:
        nearest = [int(n) for n in str(error).split("nearest valid: [")[1].rstrip("]").split(",")]
        steps, roi_size = plan_steps(nearest), nearest
    patch = patch_size(steps)
    assert all(n % p == 0 for n, p in zip(roi_size, patch, strict=True))
    assert 2 <= math.prod(n // p for n, p in zip(roi_size, patch, strict=True)) <= 256


def test_the_number_of_parameters_by_hand():
    """64x64x8, one channel: the parts of the docstring, added up."""
    width, patch, tokens = 192, 8 * 8 * 2, 256
    embedding = patch * width + width + tokens * width
    attention = 3 * width**2 + width**2 + width  # qkv without a bias
    mlp = 2 * width * 4 * width + 4 * width + width
    transformer = embedding + 6 * (attention + mlp + 4 * width) + 2 * width
    norms = 2 * (16 + 32 + 64)
    skips = 27 * (1 * 16 + 16 * 32 + 32 * 64) + norms
    up = 4 * 32 * 16 + 4 * 64 * 32 + 8 * width * 64 + norms  # steps of 2x2x1, 2x2x1, 2x2x2
    merge = sum(27 * c**2 + 2 * c for c in (16, 32, 64))
    backbone = build_backbone("vit_tiny", 1, (64, 64, 8))
    assert sum(p.numel() for p in backbone.parameters()) == transformer + skips + up + merge
    assert backbone.feature_channels == (16, 32, 64, 192)
    assert backbone.axis_strides == ((1, 1, 1), (2, 2, 1), (4, 4, 1), (8, 8, 2))


def test_tokens_are_at_their_places():
    """Patch (1, 0, 2) of a grid of 2x2x4 is token 1 * 8 + 0 * 4 + 2."""
    backbone = ViTBackbone(1, (16, 8, 8), steps=[[2, 2, 1], [4, 2, 2]], **SMALL)
    tokens = torch.arange(16.0).reshape(1, 16, 1).expand(1, 16, 24)
    assert backbone.to_map(tokens)[0, 0, 1, 0, 2] == 10
    assert backbone.map_sizes((16, 8, 8))[-1] == (2, 2, 4)


def test_detail_reaches_the_finest_map():
    """A change of one voxel changes the result most next to that voxel."""
    torch.manual_seed(0)
    backbone = ViTBackbone(1, (32, 32), **SMALL, spatial_dims=2).eval()
    image = torch.randn(1, 1, 32, 32)
    other = image.clone()
    other[0, 0, 13, 21] += 5
    with torch.no_grad():
        change = (backbone(image) - backbone(other))[0].abs().sum(0)
    row, column = divmod(int(change.argmax()), 32)
    assert max(abs(row - 13), abs(column - 21)) <= 2


def test_it_goes_to_another_size_with_the_same_patches():
    """64x64x8 has 8x8x4 tokens, 40x64x12 has 5x8x6: positions are resampled, all else is the same."""
    source = SegmentationNet(build_backbone("vit_tiny", 1, (64, 64, 8), options=SMALL), 2)
    assert source.backbone.record["options"] == {**SMALL, "steps": [[2, 2, 1], [2, 2, 1], [2, 2, 2]]}
    target = SegmentationNet(rebuild(source.backbone.record, roi_size=(40, 64, 12)), 3)
    (key,) = source.backbone.position_keys
    assert target.backbone.state_dict()[key].shape == (1, 5 * 8 * 6, 24)
    with torch.no_grad():  # positions that grow along the third axis alone, 0 to 3
        source.backbone.get_parameter(key).copy_(torch.arange(4.0).repeat(64).reshape(1, 256, 1))
    record = {"method": "segmentation", "channels": 1, "backbone": source.backbone.record}
    report = transfer_weights(target, Pretrained(Path("source.pt"), record, source.state_dict()))
    assert [row.name for row in report.of("adapted")] == ["backbone." + key]
    assert report.fraction == 1
    found = target.backbone.get_parameter(key).reshape(5, 8, 6, 24)
    # six centres (k + 1/2) * 4/6 - 1/2 in the old grid: -1/6, 1/2, 7/6, 11/6, 5/2, 19/6, the ends held
    expected = torch.tensor([0, 1 / 2, 7 / 6, 11 / 6, 5 / 2, 3]).reshape(6, 1).expand(5, 8, 6, 24)
    torch.testing.assert_close(found.detach(), expected)


def test_sizes_that_the_patches_do_not_divide():
    record = build_backbone("vit_tiny", 1, (64, 64, 8), options=SMALL).record
    with pytest.raises(UserError, match=r"roi_size: found \[60, 64, 8\], expected multiples of \[8, 8, 2\]"):
        rebuild(record, roi_size=(60, 64, 8))


def test_an_input_of_another_size():
    with pytest.raises(
        UserError, match=r"roi_size: found an input of \[32, 16\], expected \[16, 16\]: ViT has a position"
    ):
        ViTBackbone(1, (16, 16), spatial_dims=2, **SMALL)(torch.zeros(1, 1, 32, 16))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"hidden_size": 32}, "hidden_size: found 32, expected a multiple of num_heads 3"),
        ({"num_layers": 0}, "num_layers: found 0, expected an integer from 1 to 64"),
        ({"num_layers": 65536}, "num_layers: found 65536"),
        ({"feature_size": 0}, "feature_size: found 0"),
        ({"mlp_dim": -1}, "mlp_dim: found -1"),
        ({"steps": [[2, 2, 2]]}, "steps: found .*, expected 2 or more lists of 3 integers"),
        ({"steps": [[2, 2, 2], [1, 1, 1]]}, "steps: found .*, one of each above 1"),
        ({"steps": [[2, 2], [2, 2]]}, "steps: found "),
        ({"steps": [4, 4]}, r"steps: found \[4, 4\]"),
        ({"steps": [[4, 4, 4], [8, 8, 8]]}, r"roi_size: found \[16, 16, 16\], expected multiples of 32"),
        ({"steps": [[4, 4, 4], [4, 4, 4]]}, r"roi_size: .*coarsest map would be one voxel"),
    ],
)
def test_arguments_are_checked(options, message):
    with pytest.raises(UserError, match=message):
        ViTBackbone(1, (16, 16, 16), **options)


@pytest.mark.parametrize("roi_size", [(63, 63, 63), (100, 100, 100), (1, 1, 1), (2, 2)])
def test_sizes_without_patches(roi_size):
    with pytest.raises(UserError, match=r"roi_size: found .*, expected even sizes .*nearest valid: \["):
        plan_steps(roi_size)

"""Every encoder, small: (name, options, a crop with three different edges where the encoder allows it)."""

import pytest
import torch
from pretext3d.networks.factory import build_backbone

SMALL_UNETR = {"feature_size": 8, "hidden_size": 24, "mlp_dim": 24, "num_heads": 3}
SMALL = {
    "unet": ({}, (12, 8, 4)),
    "unet4": ({}, (24, 16, 8)),
    "vgg": ({}, (16, 32, 48)),
    "taleb_unet": ({}, (16, 48, 32)),
    "resnet10": ({"width": 8}, (24, 16, 8)),
    "resnet18": ({"width": 8}, (8, 24, 16)),
    "resnet50": ({"width": 8}, (16, 8, 24)),
    "swin_unetr": ({"feature_size": 12}, (64, 32, 32)),
    "unetr": (SMALL_UNETR, (16, 48, 32)),
    "vit_tiny": ({"feature_size": 4, "hidden_size": 24, "num_layers": 2}, (24, 16, 4)),
    "dynunet": ({}, (16, 20, 8)),
    "segresnet": ({"init_filters": 8}, (24, 16, 8)),
}


def small_backbone(name, in_channels=2, roi_size=None, spatial_dims=3):
    options, size = SMALL[name]
    torch.manual_seed(0)
    return build_backbone(name, in_channels, roi_size or size[:spatial_dims], spatial_dims, options)


CASES = [(name, dims) for dims in (3, 2) for name in SMALL if (name, dims) != ("swin_unetr", 3)]  # seconds


@pytest.fixture(params=CASES, ids=[f"{name}-{dims}d" for name, dims in CASES])
def case(request):
    """A backbone and an input for it: volumes of two channels, images of three."""
    name, dims = request.param
    channels = 2 if dims == 3 else 3
    backbone = small_backbone(name, channels, spatial_dims=dims)
    return backbone, torch.randn(1, channels, *SMALL[name][1][:dims])


@pytest.fixture(params=SMALL)
def encoder(request):
    return request.param

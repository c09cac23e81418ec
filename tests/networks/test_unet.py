import pytest
import torch
from pretext3d.errors import UserError
from pretext3d.networks.unet import UNet


def test_parameters_by_hand():
    """One channel in, 16/32/64; a 3x3x3 convolution without bias a -> b has 27ab weights, batch norm 2b.

    down 16:      432 +   6,912 +  2 * 32 =   7,408
    down 32:   13,824 +  27,648 +  2 * 64 =  41,600
    down 64:   55,296 + 110,592 + 2 * 128 = 166,144
    up 64->32: 8 * 64 * 32 + 32           =  16,416
    up 32->16: 8 * 32 * 16 + 16           =   4,112
    merge 32:  27 * 64 * 32 + 27,648 + 128 = 83,072
    merge 16:  27 * 32 * 16 + 6,912 + 64  =  20,800
    """
    count = sum(p.numel() for p in UNet(1).parameters())
    assert count == 7_408 + 41_600 + 166_144 + 16_416 + 4_112 + 83_072 + 20_800 == 339_552
    # a channel more: 27 * 16 weights
    assert sum(p.numel() for p in UNet(2).parameters()) == 339_552 + 432


def test_levels_and_attributes():
    net = UNet(3, channels=(8, 24, 40, 48))
    assert net.feature_channels == (8, 24, 40, 48)
    assert net.feature_strides == (1, 2, 4, 8)
    assert (net.out_channels, net.size_divisor, net.in_channels) == (8, 8, 3)


def test_convolutions_pad_with_zeros_and_pool_maxima():
    """All weights of the first level one, norms without effect: a voxel becomes the sum over its 27."""
    net = UNet(1, channels=(1, 1)).eval()
    for weight in net.parameters():
        torch.nn.init.ones_(weight)
    for name, value in net.named_parameters():
        if name.endswith("bias"):
            torch.nn.init.zeros_(value)
    x = torch.zeros(1, 1, 2, 2, 2)
    x[..., 0, 0, 0] = 1
    fine, coarse = net.encode(x)
    # 8 voxels, all neighbours of each other: 1 everywhere after one convolution, 8 after two
    torch.testing.assert_close(fine, torch.full_like(fine, 8), rtol=1e-4, atol=0)
    # its maximum, 8; one voxel's neighbourhood is itself
    torch.testing.assert_close(coarse, torch.full((1, 1, 1, 1, 1), 8.0), rtol=1e-4, atol=0)
    # decode: the map up, 8 everywhere, next to the skip's 8: 8 * 16 = 128, then 8 * 128
    torch.testing.assert_close(
        net.decode([fine, coarse]), torch.full((1, 1, 2, 2, 2), 1024.0), rtol=1e-4, atol=0
    )


@pytest.mark.parametrize(
    ("norm", "kind"),
    [("batch", torch.nn.BatchNorm3d), ("instance", torch.nn.InstanceNorm3d), ("group", torch.nn.GroupNorm)],
)
def test_norms(norm, kind):
    net = UNet(1, norm=norm)
    assert sum(isinstance(m, kind) for m in net.modules()) == 10  # two in each of five blocks
    assert sum(p.numel() for p in net.parameters()) == 339_552


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"norm": "layer"}, "norm: found 'layer', expected one of batch, instance, group"),
        ({"channels": (16,)}, r"channels: found \[16\], expected two or more"),
        ({"channels": (16, 0)}, r"channels: found \[16, 0\]"),
        ({"channels": (4, 8), "norm": "group"}, "multiples of 8"),
    ],
)
def test_arguments_are_checked(arguments, message):
    with pytest.raises(UserError, match=message):
        UNet(1, **arguments)


def test_the_norm_may_come_last():
    """Taleb et al.: convolution, ReLU, batch norm, twice a level; the convolution then has a bias."""
    net = UNet(1, channels=(16, 32, 64, 128, 256), norm_last=True)
    kinds = [torch.nn.Conv3d, torch.nn.ReLU, torch.nn.BatchNorm3d] * 2
    for block in (*net.down, *net.merge):
        assert [type(layer) for layer in block] == kinds
        assert block[0].bias is not None

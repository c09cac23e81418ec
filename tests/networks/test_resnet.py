import pytest
import torch
from monai.networks.nets import resnet as monai_resnet
from pretext3d.errors import UserError
from pretext3d.networks.resnet import AdditiveDecoder, ResNet


@pytest.mark.parametrize(
    ("depth", "channels"),
    [
        (10, (16, 64, 64, 128, 256, 512)),
        (18, (16, 64, 64, 128, 256, 512)),
        (50, (16, 64, 256, 512, 1024, 2048)),
    ],
)
def test_channels_and_strides(depth, channels):
    with torch.device("meta"):
        net = ResNet(1, depth=depth)
    assert net.feature_channels == channels
    assert net.feature_strides == (1, 2, 4, 8, 16, 32)
    assert net.out_channels == 64


def test_stages_are_monais():
    """ResNet-10 and MONAI's feature extractor, same weights: same maps."""
    torch.manual_seed(0)
    theirs = monai_resnet.ResNetFeatures("resnet10", pretrained=False, in_channels=2).eval()
    ours = ResNet(2, depth=10).eval()
    missing, unexpected = ours.load_state_dict(theirs.state_dict(), strict=False)
    assert unexpected == []
    assert {name.split(".")[0] for name in missing} == {"detail", "decoder"}
    x = torch.randn(1, 2, 32, 40, 32)
    with torch.no_grad():
        for mine, other in zip(ours.encode(x)[1:], theirs(x), strict=True):
            torch.testing.assert_close(mine, other)


def test_decoder_by_hand():
    """Two maps of one channel, lateral weights 2 and 3, norm without effect.

    Coarse map [4, 8] along k: 3 * [4, 8] = [12, 24]; up to four voxels, centres at 1/8, 3/8, 5/8, 7/8 between
    those at 1/4 and 3/4: [12, 15, 21, 24]. Fine map [-10, 0, 1, -12]: doubled [-20, 0, 2, -24]; sum
    [-8, 15, 23, 0]; ReLU [0, 15, 23, 0].
    """
    decoder = AdditiveDecoder((1, 1), width=1, spatial_dims=3).eval()
    torch.nn.init.constant_(decoder.lateral[0].weight, 2)
    torch.nn.init.constant_(decoder.lateral[1].weight, 3)
    decoder.norm[0].eps = 0
    fine = torch.tensor([-10.0, 0, 1, -12]).reshape(1, 1, 1, 1, 4)
    coarse = torch.tensor([4.0, 8]).reshape(1, 1, 1, 1, 2)
    torch.testing.assert_close(decoder([fine, coarse]).flatten(), torch.tensor([0.0, 15, 23, 0]))


def test_sizes_beyond_the_divisor_are_rounded_up():
    net = ResNet(1, depth=10, width=4)
    net.check_roi_size((40, 56, 40))
    features = net.encode(torch.randn(1, 1, 40, 56, 40))
    assert [f.shape[3] for f in features] == [56, 28, 14, 7, 4, 2]
    assert net.decode(features).shape == (1, 4, 40, 56, 40)


def test_shortcuts_carry_gradients_in_resnet18():
    """MONAI's setting for this depth detaches them: the stage's input would get no gradient through them."""
    net = ResNet(1, depth=18, width=4)
    x = torch.randn(2, 64, 4, 4, 4, requires_grad=True)
    block = net.layer2[0]
    torch.nn.init.zeros_(block.bn2.weight)  # the residual path off: only the shortcut is left
    block(x).sum().backward()
    assert x.grad.any()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"depth": 34}, "depth: found 34, expected one of 10, 18, 50"),
        ({"width": 0}, "width: found 0"),
        ({"detail": -1}, "detail: found -1"),
    ],
)
def test_arguments_are_checked(arguments, message):
    with pytest.raises(UserError, match=message):
        ResNet(1, **arguments)

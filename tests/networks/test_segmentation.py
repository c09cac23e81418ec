import pytest
import torch
from pretext3d.errors import UserError
from pretext3d.networks.factory import build_backbone
from pretext3d.networks.segmentation import SegmentationNet

from tests.networks.conftest import SMALL, small_backbone, small_case


def test_logits_and_names(encoder):
    backbone, x = small_case(encoder)
    net = SegmentationNet(backbone, num_classes=3).eval()
    assert {name.split(".")[0] for name in net.state_dict()} == {"backbone", "head"}
    with torch.no_grad():
        logits = net(x)
        assert logits.shape == (1, 3, *x.shape[2:])
        torch.testing.assert_close(logits, net.head(net.backbone(x)))


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")  # of checks, the tests' own among them
@pytest.mark.parametrize("name", ["unet", "resnet10", "segresnet"])
def test_torchscript(name, tmp_path):
    net = SegmentationNet(small_backbone(name), num_classes=2).eval()
    x = torch.randn(2, 2, *SMALL[name][1])
    torch.jit.trace(net, x).save(tmp_path / "net.ts")
    again = torch.jit.load(tmp_path / "net.ts")
    other = torch.randn(3, 2, *SMALL[name][1])
    with torch.no_grad():
        torch.testing.assert_close(again(other), net(other))


def test_two_dimensions():
    net = SegmentationNet(build_backbone("unet", 3, (8, 12), spatial_dims=2), num_classes=4)
    assert net(torch.randn(2, 3, 8, 12)).shape == (2, 4, 8, 12)


@pytest.mark.parametrize("num_classes", [0, -2])
def test_num_classes_is_checked(num_classes):
    with pytest.raises(UserError, match=f"num_classes: found {num_classes}"):
        SegmentationNet(small_backbone("unet"), num_classes)

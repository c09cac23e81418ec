import pytest
import torch
from pretext3d.errors import UserError
from pretext3d.networks.factory import build_backbone
from pretext3d.networks.segmentation import SegmentationNet

from tests.networks.conftest import SMALL, small_backbone


def test_logits_and_names(case):
    backbone, x = case
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


def test_duc_by_hand():
    """A coarsest map of 1 x 1 x 2 voxels at stride 2: each of them fills a block of 2 x 2 x 2 voxels.

    The convolution's channels are taken in the order class, then i, j, k of the block.
    """
    net = SegmentationNet(build_backbone("unet", 1, (8, 8, 8), options={"channels": [4, 8]}), 3, "duc").eval()
    convolution = net.head.conv_block
    assert (convolution.in_channels, convolution.out_channels) == (8, 3 * 2**3)
    assert tuple(convolution.kernel_size) == (1, 1, 1)
    coarsest = torch.randn(1, 8, 1, 1, 2)
    logits, blocks = net.head(coarsest), convolution(coarsest)
    assert logits.shape == (1, 3, 2, 2, 4)
    for voxel in range(2):
        block = logits[0, :, :, :, 2 * voxel : 2 * voxel + 2].flatten()
        torch.testing.assert_close(block, blocks[0, :, 0, 0, voxel])


def test_duc_reads_the_encoder_alone(case):
    backbone, x = case
    if len(set(backbone.axis_strides[-1])) > 1:
        with pytest.raises(UserError, match=r"decoder: found 'duc', but .* strides \("):
            SegmentationNet(backbone, 2, "duc")
        return
    net = SegmentationNet(backbone, 2, "duc").eval()
    logits = net(x)
    assert logits.shape == (1, 2, *x.shape[2:])
    logits.sum().backward()
    trained = [name for name, p in net.named_parameters() if p.requires_grad]
    assert [name for name in trained if net.get_parameter(name).grad is None] == []
    assert not any(p.grad is not None for p in net.parameters() if not p.requires_grad)


def test_duc_ends_where_the_input_does():
    """8 x 16 x 9 voxels at stride 32 give a map of one voxel, 32 x 32 x 32 logits."""
    net = SegmentationNet(small_backbone("resnet10"), 2, "duc").eval()
    x = torch.randn(1, 2, 8, 16, 9)
    with torch.no_grad():
        whole = net.head(net.backbone.encode_coarsest(x))
        assert whole.shape == (1, 2, 32, 32, 32)
        torch.testing.assert_close(net(x), whole[..., :8, :16, :9])


def test_duc_of_an_image_by_hand():
    """A coarsest map of 1 x 2 pixels at stride 2: each of them fills a block of 2 x 2 pixels."""
    net = SegmentationNet(build_backbone("unet", 3, (8, 8), 2, {"channels": [4, 8]}), 3, "duc").eval()
    assert net.head.conv_block.out_channels == 3 * 2**2
    coarsest = torch.randn(1, 8, 1, 2)
    logits, blocks = net.head(coarsest), net.head.conv_block(coarsest)
    assert logits.shape == (1, 3, 2, 4)
    for pixel in range(2):
        block = logits[0, :, :, 2 * pixel : 2 * pixel + 2].flatten()
        torch.testing.assert_close(block, blocks[0, :, 0, pixel])


def test_unknown_decoder():
    with pytest.raises(UserError, match="decoder: found 'fcn', expected ''"):
        SegmentationNet(small_backbone("unet"), 2, "fcn")

"""A rescaled network is the same function, and its convolutions are as large as at initialisation."""

import pytest
import torch
from pretext3d.networks.classification import ClassificationNet
from pretext3d.networks.factory import ENCODERS, build_backbone
from pretext3d.networks.rescaling import NORMS, normed_convolutions, rescale_like
from torch import nn

# convolutions before a norm, with that norm; the others end at an addition, a pooling, or the output
PAIRS = {"unet": 10, "taleb_unet": 18, "resnet10": 13, "vit_tiny": 6, "dynunet": 14, "segresnet": 12}


def exact(network):
    """In double precision and without eps, with statistics as of a training."""
    for module in network.modules():
        if isinstance(module, (*NORMS, nn.LayerNorm)):
            module.eps = 0.0
        if getattr(module, "running_var", None) is not None:
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2.0)
    return network.double().eval()


@pytest.mark.parametrize("encoder", sorted(ENCODERS))
def test_the_output_stays_the_same_and_the_kernels_are_those_of_the_beginning(encoder):
    torch.manual_seed(0)
    roi = (64, 64) if encoder in ("swin_unetr", "unetr", "vgg") or encoder.startswith("resnet") else (32, 32)
    network = exact(build_backbone(encoder, 1, roi, 2))
    initial = {name: value.clone() for name, value in network.state_dict().items()}
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(2.0 if parameter.ndim > 2 else 1.0)
    x = torch.randn(1, 1, *roi, dtype=torch.double)
    before = network(x)
    factors = rescale_like(network, initial, x.shape)
    assert factors
    assert set(factors.values()) == {0.5}
    if encoder in PAIRS:
        assert len(factors) == PAIRS[encoder]
    torch.testing.assert_close(network(x), before, rtol=1e-9, atol=1e-9)
    for name in factors:
        now = network.get_submodule(name).weight
        torch.testing.assert_close(now.norm(), initial[f"{name}.weight"].norm())


def test_a_convolution_with_another_way_is_left_alone():
    """Of a residual connection, of two norms, of a module that is called twice."""

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.convs = nn.ModuleList(nn.Conv2d(1, 1, 3, padding=1) for _ in range(4))
            self.norms = nn.ModuleList(nn.BatchNorm2d(1) for _ in range(4))

        def forward(self, x):
            added = self.convs[0](x)
            added = added + self.norms[0](added)
            twice = self.norms[1](self.convs[1](self.norms[1](self.convs[1](added))))
            changed = self.convs[2](twice)
            changed += twice  # the same tensor, no longer the convolution's output
            return self.norms[3](self.convs[3](self.norms[2](changed)).relu())

    assert normed_convolutions(Block(), (1, 1, 8, 8)) == {}


def test_a_kernel_that_another_layer_shares_is_left_alone():
    network = nn.Sequential(nn.Conv2d(1, 1, 3), nn.BatchNorm2d(1), nn.Conv2d(1, 1, 3), nn.ReLU())
    network[2].weight = network[0].weight
    initial = {name: 2 * value for name, value in network.state_dict().items()}
    assert normed_convolutions(network, (1, 1, 8, 8)) == {"0": "1"}
    assert rescale_like(network, initial, (1, 1, 8, 8)) == {}


def test_a_layer_with_two_names_is_rescaled():
    """As in MONAI's DynUNet, which registers its blocks a second time."""

    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.norm = nn.Conv2d(1, 1, 3), nn.BatchNorm2d(1)
            self.skipped = nn.ModuleList([self.conv])

        def forward(self, x):
            return self.norm(self.conv(x))

    network = Twice()
    initial = {name: 2 * value for name, value in network.state_dict().items()}
    assert list(rescale_like(network, initial, (1, 1, 8, 8)).values()) == [pytest.approx(2.0)]


def test_only_named_tensors_are_rescaled():
    network = exact(build_backbone("unet", 1, (16, 16), 2))
    initial = {name: 2 * value for name, value in network.state_dict().items()}
    named = [name for name in initial if name.startswith("down.0")]
    assert set(rescale_like(network, initial, (1, 1, 16, 16), named).values()) == {2.0}
    changed = [name for name in initial if not torch.equal(2 * network.state_dict()[name], initial[name])]
    assert changed
    assert all(name.startswith("down.0") for name in changed)


def test_a_classification_reads_the_encoder_alone():
    network = ClassificationNet(build_backbone("unet", 1, (16, 16), 2), 2)
    assert all(".down." in name for name in normed_convolutions(network, (1, 1, 16, 16)))


def test_a_kernel_of_zeros_stays():
    network = nn.Sequential(nn.Conv2d(1, 1, 3, bias=False), nn.BatchNorm2d(1))
    initial = {name: value.clone() for name, value in network.state_dict().items()}
    nn.init.zeros_(network[0].weight)
    assert rescale_like(network, initial, (1, 1, 8, 8)) == {}

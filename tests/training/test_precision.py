from functools import partial

import pytest
import torch
from monai.inferers import SlidingWindowInferer
from pretext3d.errors import UserError
from pretext3d.networks.backbone import channels_last
from pretext3d.networks.classification import ClassificationNet
from pretext3d.networks.factory import build_backbone
from pretext3d.training.precision import (
    AutocastInferer,
    spatial_dims_of,
    to_device,
    use_bfloat16,
)
from torch import nn

CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)


@pytest.mark.parametrize("device", [CPU, GPU, torch.device("mps")])
def test_asked_for_or_not(device) -> None:
    assert use_bfloat16("bf16", device)
    assert not use_bfloat16("fp32", device)


@pytest.mark.parametrize("fast", [True, False])
def test_auto_is_where_the_device_has_instructions(monkeypatch, fast) -> None:
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: fast)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 0) if fast else (7, 5))
    assert use_bfloat16("auto", CPU) is fast
    assert use_bfloat16("auto", GPU) is fast
    assert not use_bfloat16("auto", torch.device("mps"))


def test_unknown_precision() -> None:
    with pytest.raises(UserError, match="precision: found 'int4', expected auto, bf16 or fp32"):
        AutocastInferer("int4", CPU)


class Spy(nn.Module):
    """Twice the convolution with weights 1 and no bias of 1x1x1; keeps what it was called with."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv3d(2, 1, 1, bias=False)
        nn.init.ones_(self.conv.weight)

    def forward(self, x, factor=2):
        self.seen = x
        result = self.conv(x) * factor
        self.computed = result.dtype
        return result


@pytest.mark.parametrize(("precision", "dtype"), [("bf16", torch.bfloat16), ("fp32", torch.float32)])
def test_network_runs_in_the_precision(precision, dtype) -> None:
    network = Spy()
    image = torch.rand(2, 2, 3, 4, 5, generator=torch.Generator().manual_seed(0))
    result = AutocastInferer(precision, CPU)(image, network, factor=3)
    assert network.computed == dtype
    assert result.dtype == torch.float32
    assert network.seen.is_contiguous(memory_format=torch.channels_last_3d)
    assert network.conv.weight.dtype == torch.float32
    assert not torch.is_autocast_enabled("cpu")
    # bfloat16 has 8 significant bits: 2^-8 for each of inputs, sum and product
    tolerance = {"rtol": 3 * 2**-8, "atol": 0.0} if dtype == torch.bfloat16 else {}
    torch.testing.assert_close(result, 3 * image.sum(1, keepdim=True), check_dtype=False, **tolerance)


class Convolution(nn.Module):
    """One convolution, as a module and as a function; what came out before it was made float32."""

    def __init__(self, dims, kernel=3, stride=1, channels=8):
        super().__init__()
        sizes = (kernel,) * dims if isinstance(kernel, int) else kernel
        settings = {"stride": stride, "padding": tuple(size // 2 for size in sizes)}
        self.conv = getattr(nn, f"Conv{dims}d")(8, channels, sizes, **settings)
        self.function = partial(getattr(nn.functional, f"conv{dims}d"), **settings)

    def forward(self, x):
        self.seen = x
        result = self.conv(x)
        self.computed = result.dtype
        named = self.function(x, weight=self.conv.weight, bias=self.conv.bias)
        assert named.dtype == self.computed
        return result


def check_gradients(network, image, dtype):
    """Computed in `dtype`; the same in every run, whatever was in the memory, and those of float32."""
    gradients = []
    for _ in range(6):
        freed = [torch.full((size,), float("nan")) for size in (10**3, 10**4, 10**5)]
        del freed
        network.zero_grad()
        AutocastInferer("bf16", CPU)(image, network).square().mean().backward()
        gradients.append(network.conv.weight.grad.clone())
    assert network.computed == dtype
    assert all(torch.equal(gradient, gradients[0]) for gradient in gradients)
    expected = torch.autograd.grad(network(image).square().mean(), network.conv.weight)[0]
    error = (gradients[0] - expected).norm() / expected.norm()
    assert error < (1e-5 if dtype == torch.float32 else 0.02)  # bfloat16 has 8 significant bits


@pytest.mark.parametrize(
    ("shape", "dtype"),
    [((2, 5, 5), torch.float32), ((1, 1, 1), torch.float32), ((3, 2, 1), torch.bfloat16)],
)
def test_kernels_deeper_than_their_map_are_computed_in_float32(shape, dtype) -> None:
    """In bfloat16 their weight gradients depend on memory that nothing has written."""
    torch.manual_seed(0)
    check_gradients(Convolution(3), torch.randn(2, 8, *shape), dtype)


def test_runs_the_inferer_it_is_given() -> None:
    """Windows of 2x2x2 of a volume of 4x2x2: two of them, and the whole volume's answer."""
    network, image = Spy(), torch.arange(32.0).reshape(1, 2, 4, 2, 2)
    window = SlidingWindowInferer(roi_size=(2, 2, 2), sw_batch_size=1, overlap=0)
    result = AutocastInferer("fp32", CPU, window)(image, network)
    assert network.seen.shape == (1, 2, 2, 2, 2)
    torch.testing.assert_close(result, 2 * image.sum(1, keepdim=True))


# -------------------------------------------------------------------------------------------------------- 2D
@pytest.mark.parametrize("kernel", [3, 5])
@pytest.mark.parametrize("shape", [(1, 1), (2, 5), (5, 1), (1, 4), (2, 2), (8, 8)])
def test_kernels_larger_than_an_image_are_right_in_bfloat16(shape, kernel):
    """At stride 1, what is wrong with 3D convolutions is not with 2D ones: every run gives the right one."""
    torch.manual_seed(0)
    network = to_device(Convolution(2, kernel), "cpu")
    check_gradients(network, torch.randn(2, 8, *shape), torch.bfloat16)


@pytest.mark.parametrize(
    ("shape", "kernel", "stride", "dtype"),
    [
        ((1, 1), (3, 3), 2, torch.float32),
        ((6, 1), (3, 3), 2, torch.float32),
        ((4, 2), (3, 5), 3, torch.float32),
        ((4, 4, 1), (3, 3, 3), (2, 2, 2), torch.float32),
        ((3, 1, 3), (3, 3, 3), 2, torch.float32),
        ((8, 8, 1), (1, 3, 3), (1, 1, 2), torch.float32),
        ((2, 3), (3, 3), 2, torch.float32),
        ((4, 4, 2), (3, 3, 3), 2, torch.float32),
        ((1, 1), (1, 1), 2, torch.bfloat16),
        ((3, 3), (3, 3), 2, torch.bfloat16),
        ((4, 4, 3), (3, 3, 3), 2, torch.bfloat16),
    ],
)
def test_strides_to_a_map_of_one_are_computed_in_float32(shape, kernel, stride, dtype) -> None:
    torch.manual_seed(0)
    network = to_device(Convolution(len(shape), kernel, stride, channels=64), CPU)
    check_gradients(network, torch.randn(2, 8, *shape), dtype)


@pytest.mark.parametrize(
    ("channels", "shape", "patch", "dtype"),
    [
        (1, (64, 64, 8), (8, 8, 8), torch.float32),  # one token along the last axis
        (3, (64, 8), (8, 8), torch.float32),
        (4, (48, 64), (16, 16), torch.float32),  # 4 * 16 is a multiple of 64
        (16, (12, 8, 12), (4, 4, 4), torch.float32),
        (1, (64, 64, 8), (8, 8, 2), torch.bfloat16),
        (3, (48, 64), (16, 16), torch.bfloat16),
    ],
)
def test_patches_are_right_whatever_was_in_the_memory(channels, shape, patch, dtype) -> None:
    torch.manual_seed(0)
    network = nn.Sequential()
    network.append(getattr(nn, f"Conv{len(shape)}d")(channels, 32, patch, patch))
    image = torch.rand(2, channels, *shape)
    expected = network(image)
    computed = []
    network.register_forward_hook(lambda module, inputs, output: computed.append(output.dtype))
    to_device(network, CPU, len(shape))
    for _ in range(4):
        freed = [torch.full((expected.numel(),), 1e30).to(kind) for kind in (torch.bfloat16, torch.float32)]
        del freed
        result = AutocastInferer("bf16", CPU)(image, network)
        assert (result - expected).norm() / expected.norm() < (1e-5 if dtype == torch.float32 else 0.02)
    assert set(computed) == {dtype}


class Tiles(Convolution):
    """A convolution of each tile in sets of them."""

    def forward(self, x):
        result = super().forward(x.flatten(0, -4))
        self.seen = x
        return result


def test_images_are_laid_out_and_sets_of_tiles_are_left() -> None:
    network, inferer = Tiles(2), AutocastInferer("fp32", CPU)
    inferer(torch.rand(2, 8, 5, 6), network)
    assert network.seen.is_contiguous(memory_format=torch.channels_last)
    tiles = torch.rand(2, 4, 8, 5, 6)  # five axes, and yet no volume
    inferer(tiles, network)
    assert network.seen is tiles


@pytest.mark.parametrize("dims", [2, 3])
def test_a_network_lies_in_the_layout_of_its_dimension(dims) -> None:
    backbone = build_backbone("unet", 3, (8,) * dims, dims)
    plain = nn.Sequential(getattr(nn, f"Conv{dims}d")(3, 8, 3), nn.Flatten(), nn.Linear(8, 2))
    wrapped = nn.Module()
    wrapped.module = ClassificationNet(build_backbone("unet", 3, (8,) * dims, dims), 2)
    for network in (backbone, plain, wrapped):
        assert spatial_dims_of(network) == dims
        assert to_device(network, CPU) is network
        layout = channels_last(dims)
        kernels = [p for p in network.parameters() if p.ndim == dims + 2]
        assert kernels
        assert all(kernel.is_contiguous(memory_format=layout) for kernel in kernels)


def test_a_network_without_convolutions_is_one_of_3d() -> None:
    assert spatial_dims_of(nn.Linear(2, 2)) == spatial_dims_of(torch.relu) == 3

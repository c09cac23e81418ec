"""A network of which two axes are swapped is the same function; where they are swapped."""

import pytest
import torch
from pretext3d.networks import unet
from pretext3d.networks.axis_order import axis_to_swap, swapped
from pretext3d.networks.unet import UNet

SIZES = [(16, 16, 8), (24, 16, 4), (8, 24)]


@pytest.mark.parametrize("size", SIZES)
def test_the_same_function_with_the_same_gradients(
    size: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In float64: outputs, gradients of weights and input, and the norms' running statistics."""
    torch.manual_seed(0)
    swapping = UNet(2, channels=(3, 4, 5), spatial_dims=len(size)).double()
    plain = UNet(2, channels=(3, 4, 5), spatial_dims=len(size)).double()
    plain.load_state_dict(swapping.state_dict())
    image = torch.randn(2, 2, *size, dtype=torch.float64)
    target = torch.randn(2, 3, *size, dtype=torch.float64)
    found = []
    for net in (swapping, plain):
        x = image.clone().requires_grad_()
        features = net.encode(x)
        assert [tuple(f.shape[2:]) for f in features] == net.map_sizes(size)
        output = net.decode(features)
        ((output - target) ** 2).mean().backward()
        gradients = {name: weight.grad for name, weight in net.named_parameters()}
        found.append({"output": output, "x": x.grad, **gradients, **dict(net.named_buffers())})
        monkeypatch.setattr(unet, "axis_to_swap", lambda x: -1)
    for name, value in found[0].items():
        torch.testing.assert_close(value, found[1][name], rtol=1e-9, atol=1e-12, msg=name)


def test_axes_are_swapped_where_that_saves_time() -> None:
    sizes = {(64, 64, 8): -2, (64, 32, 8): -3, (8, 64, 64): -1, (64, 64, 16): -1, (8, 8, 8): -1, (64, 8): -2}
    for size, axis in sizes.items():
        x = torch.zeros(1, 1, *size)
        assert axis_to_swap(x) == axis, size
        assert axis_to_swap(x.to("meta")) == -1
        with torch.no_grad():
            assert axis_to_swap(x) == -1  # inference


def test_twice_swapped_is_as_before() -> None:
    x = torch.arange(48.0).view(1, 2, 4, 3, 2)
    assert swapped(x, -3).shape == (1, 2, 2, 3, 4)
    assert torch.equal(swapped(swapped(x, -3), -3), x)
    assert swapped(x, -1) is x

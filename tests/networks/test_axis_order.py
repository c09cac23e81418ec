"""A network of which two axes are swapped is the same function; where they are swapped."""

import pytest
import torch
from pretext3d.networks import unet
from pretext3d.networks.axis_order import axis_to_swap, swapped
from pretext3d.networks.unet import UNet

SIZES = [(16, 16, 8), (24, 16, 4)]


@pytest.mark.parametrize("norm", ["batch", "instance", "group"])
@pytest.mark.parametrize("size", SIZES)
def test_the_same_function_with_the_same_gradients(
    size: tuple[int, ...], norm: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In float64: outputs, gradients of weights and input, and the norms' running statistics."""
    torch.manual_seed(0)
    swapping = UNet(2, channels=(8, 16, 8), norm=norm).double()
    plain = UNet(2, channels=(8, 16, 8), norm=norm).double()
    plain.load_state_dict(swapping.state_dict())
    image = torch.randn(2, 2, *size, dtype=torch.float64)
    target = torch.randn(2, 8, *size, dtype=torch.float64)
    assert axis_to_swap(swapping, image) != -1
    found = []
    for net in (swapping, plain):
        x = image.clone().requires_grad_()
        features = net.encode(x)
        assert [tuple(f.shape[2:]) for f in features] == net.map_sizes(size)
        output = net.decode(features)
        ((output - target) ** 2).mean().backward()
        gradients = {name: weight.grad for name, weight in net.named_parameters()}
        found.append({"output": output, "x": x.grad, **gradients, **dict(net.named_buffers())})
        monkeypatch.setattr(unet, "axis_to_swap", lambda network, x: -1)
    for name, value in found[0].items():
        torch.testing.assert_close(value, found[1][name], rtol=1e-9, atol=1e-12, msg=name)


def test_axes_are_swapped_where_that_saves_time() -> None:
    network = UNet(1)
    sizes = {(64, 64, 8): -2, (64, 32, 8): -3, (8, 64, 64): -1, (64, 64, 16): -1, (8, 8, 8): -1, (64, 8): -1}
    for size, axis in sizes.items():
        x = torch.zeros(1, 1, *size)
        assert axis_to_swap(network, x) == axis, size
        assert axis_to_swap(network, x.to("meta")) == -1
        with torch.no_grad():
            assert axis_to_swap(network, x) == -1
    assert axis_to_swap(network.eval(), torch.zeros(1, 1, 64, 64, 8)) == -1  # Grad-CAM has gradients, too


def test_a_hook_sees_the_axes_of_the_image() -> None:
    network, seen = UNet(1), []
    network.down[1].register_forward_hook(lambda module, inputs, output: seen.append(tuple(output.shape)))
    network(torch.zeros(2, 1, 32, 16, 8))
    assert seen == [(2, 32, 16, 8, 4)]


def test_twice_swapped_is_as_before() -> None:
    x = torch.arange(48.0).view(1, 2, 4, 3, 2)
    assert swapped(x, -3).shape == (1, 2, 2, 3, 4)
    assert torch.equal(swapped(swapped(x, -3), -3), x)
    assert swapped(x, -1) is x

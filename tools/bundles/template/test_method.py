"""Example method: values worked out by hand, and laws."""

import torch
from pretext3d.methods.example_method.pretext import ExampleMethodLoss, ExampleMethodNet, psnr
from pretext3d.networks.factory import build_backbone


def test_loss_by_hand() -> None:
    """Errors 1, 0, 2 and 0: (1 + 0 + 4 + 0) / 4 = 1.25."""
    pred = torch.tensor([[[[1.0, 2.0], [5.0, 4.0]]]])
    clean = torch.tensor([[[[0.0, 2.0], [3.0, 4.0]]]])
    torch.testing.assert_close(ExampleMethodLoss()(pred, {"clean": clean}), torch.tensor(1.25))


def test_psnr_is_per_image() -> None:
    """Errors of 0.1 and of 1 everywhere: 20 and 0 dB."""
    clean = torch.zeros(2, 1, 3, 4, 5)
    image = torch.stack([torch.full((1, 3, 4, 5), 0.1), torch.ones(1, 3, 4, 5)])
    torch.testing.assert_close(psnr(image, clean), torch.tensor([20.0, 0.0]))


def test_every_parameter_learns_in_2d_and_3d() -> None:
    for dims in (2, 3):
        network = ExampleMethodNet(build_backbone("unet", 2, [16] * dims, spatial_dims=dims))
        x = torch.rand(2, 2, *[16] * dims, generator=torch.Generator().manual_seed(0))
        output = network(x)
        assert output.shape == x.shape
        ExampleMethodLoss()(output, {"clean": x}).backward()
        assert all(p.grad is not None and p.grad.any() for p in network.parameters())

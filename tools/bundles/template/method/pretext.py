"""Example method: its paper, in one line.

Authors. Title. Venue, year.

In the paper's order: the network with its head (section), the loss (equation), and errors in units that a
person can read. What this example does is denoising: the network sees a crop with Gaussian noise and gives
the crop without it. Put the method's own targets, heads and loss in its place.

Deviates: what differs from the paper, and why.
"""

from collections.abc import Mapping
from typing import Any

import torch.nn.functional as F
from ignite.metrics import Metric
from monai.networks.layers.factories import Conv
from torch import nn

from pretext3d.annotations import Float, Tensor
from pretext3d.networks.backbone import Backbone
from pretext3d.training.metrics import SampleMean

__all__ = ["ExampleMethodLoss", "ExampleMethodNet", "validation_metrics"]


class ExampleMethodNet(nn.Module):
    """A backbone and one 1x1x1 convolution to the image's channels.

    Args:
        backbone: Any network with `encode` and `decode`; fine-tuning takes over this submodule alone.
    """

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.backbone = backbone
        convolution = Conv[Conv.CONV, backbone.spatial_dims]
        self.head = convolution(backbone.out_channels, backbone.in_channels, kernel_size=1)

    def forward(self, x: Float[Tensor, "b c *space"]) -> Float[Tensor, "b c *space"]:
        """The image without noise."""
        return self.head(self.backbone(x))


class ExampleMethodLoss(nn.Module):
    """Mean squared error between the prediction and the target's `clean`, over all voxels of the batch."""

    def forward(self, pred: Tensor, target: Mapping[str, Tensor]) -> Tensor:
        """The mean over the batch."""
        return F.mse_loss(pred.float(), target["clean"])


def psnr(image: Float[Tensor, "b c *space"], clean: Float[Tensor, "b c *space"]) -> Float[Tensor, "b"]:
    """Peak signal-to-noise ratio per image, dB, for a peak of 1: -10 log10(mean squared error).

    Examples:
        >>> import torch
        >>> psnr(torch.full((1, 1, 2, 2), 0.1), torch.zeros(1, 1, 2, 2))
        tensor([20.])
    """
    return -10 * (image - clean).square().flatten(1).mean(1).clamp(min=1e-10).log10()


def predicted_psnr(output: Mapping[str, Any]) -> Float[Tensor, "b"]:
    """`psnr` of the prediction, from the engine's output."""
    return psnr(output["pred"].float(), output["label"]["clean"])


def input_psnr(output: Mapping[str, Any]) -> Float[Tensor, "b"]:
    """The baseline: `psnr` of the input itself."""
    return psnr(output["image"].float(), output["label"]["clean"])


def validation_metrics() -> dict[str, Metric]:
    """The metrics of a validation, by name: means over all held-out crops."""
    return {"psnr_db": SampleMean(predicted_psnr), "input_psnr_db": SampleMean(input_psnr)}

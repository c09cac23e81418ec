"""ROI-guided supervoxel in-painting: hide one region of a volume, and fill it from what is around it.

Kayal S, Chen S, de Bruijne M. Region-of-Interest Guided Supervoxel Inpainting for Self-supervision. MICCAI
2020.

In the paper's order: network and losses (2.2), and errors. Supervoxels are in
`pretext3d.transforms.supervoxels`; the regions of Eq. 1 (2.1), the cuboids and the tiles (3.3) in
`pretext3d.methods.supervoxel_inpainting.regions`, the arms (3.2) in `arms` next to it.

The paper has volumes only. In 2D (ours) the regions are superpixels or rectangles of an image; losses and
errors are the same, over pixels in place of voxels. Dimensions are those of the tensors.
"""

import math
from collections.abc import Mapping
from typing import Any

import torch.nn.functional as F
from ignite.metrics import Metric, MetricsLambda
from monai.losses import DiceLoss
from monai.metrics.regression import KernelType, compute_ssim_and_cs
from monai.networks.layers.factories import Conv, Pool
from torch import nn

from pretext3d.annotations import Bool, Float, Shaped, Tensor
from pretext3d.checking import number
from pretext3d.networks.backbone import Backbone
from pretext3d.training.metrics import SampleMean

__all__ = [
    "InpaintingLoss",
    "RestartLoss",
    "SupervoxelInpaintingNet",
    "masked_mse",
    "masked_psnr",
    "masked_ssim",
    "mean_fill_mse",
    "mse",
    "tile_fill_mse",
    "validation_metrics",
]

BORDER = 3  # width in voxels of the border whose mean the baseline fills a hidden region with
WINDOW = 7  # voxels, edge of the windows of SSIM


# ---------------------------------------------------------------------------------------- 2.2 network, losses
class SupervoxelInpaintingNet(nn.Module):
    """Backbone and a linear convolution of kernel size 1, the layer that fine-tuning replaces.

    Args:
        backbone: Network with `encode` and `decode`.
        task: Task of the arm: inpainting, with as many output channels as the images have, or segmentation.
        num_classes: Number of output channels of a segmentation.
    """

    def __init__(self, backbone: Backbone, task: str = "inpainting", num_classes: int = 0) -> None:
        super().__init__()
        self.backbone = backbone
        convolution = Conv[Conv.CONV, backbone.spatial_dims]
        outputs = num_classes if task == "segmentation" else backbone.in_channels
        self.head = convolution(backbone.out_channels, outputs, kernel_size=1)

    def forward(self, x: Float[Tensor, "b c *space"]) -> Float[Tensor, "b o *space"]:
        """The in-painted tile; for arm restart-unet, logits."""
        painted: Tensor = self.head(self.backbone.decode(self.backbone.encode(x)))
        return painted


class InpaintingLoss(nn.Module):
    """Mean squared error over the tile and all channels, + `region_weight` * that in the hidden region.

    A region is a hundredth of a tile: with the first part only, which is the paper's loss, a network spends
    its first thousands of steps on copying its input.

    Args:
        region_weight: Weight of the hidden region; 0 = the paper's loss.
    """

    def __init__(self, region_weight: float = 0.0) -> None:
        super().__init__()
        self.region_weight = number("region_weight", region_weight, low=0, expected="0 or more")

    def forward(self, pred: Tensor, target: Mapping[str, Tensor]) -> Tensor:
        """The mean over the batch."""
        output = {"pred": pred, "label": target}
        loss = mse(output).mean()
        return loss + self.region_weight * masked_mse(output).mean() if self.region_weight else loss


class RestartLoss(nn.Module):
    """Dice loss of a segmentation, mean over the foreground classes: the loss of arm restart-unet."""

    def __init__(self) -> None:
        super().__init__()
        self.dice = DiceLoss(softmax=True, to_onehot_y=True, include_background=False)

    def forward(self, pred: Tensor, target: Mapping[str, Tensor]) -> Tensor:
        """The mean over the batch."""
        loss: Tensor = self.dice(pred.float(), target["label"])
        return loss


def loss_of(task: str, region_weight: float = 0.0) -> nn.Module:
    """The loss of an arm's task: `InpaintingLoss`, or `RestartLoss` for segmentation."""
    return RestartLoss() if task == "segmentation" else InpaintingLoss(region_weight)


# --------------------------------------------------------------------------------------------------- errors
# Each takes the trainer's output {"pred", "label"} and returns one number per tile, for `SampleMean`.
def masked_mean(values: Shaped[Tensor, "b c *space"], mask: Bool[Tensor, "b 1 *space"]) -> Float[Tensor, "b"]:
    """Mean over the channels and the voxels where `mask` is True; 0 where there are none."""
    total = (values * mask).flatten(1).sum(1)
    return total / (mask.flatten(1).sum(1) * values.shape[1]).clamp(min=1)


def squared_error(output: Mapping[str, Any]) -> Float[Tensor, "b c *space"]:
    """Squared error of each voxel and channel, intensities [0, 1]."""
    return (output["pred"].float() - output["label"]["clean"]).square()


def masked_mse(output: Mapping[str, Any]) -> Float[Tensor, "b"]:
    """Mean squared error in the hidden region."""
    return masked_mean(squared_error(output), output["label"]["mask"])


def mse(output: Mapping[str, Any]) -> Float[Tensor, "b"]:
    """Mean squared error over the complete tile: the loss."""
    return squared_error(output).flatten(1).mean(1)


def masked_psnr(output: Mapping[str, Any]) -> Float[Tensor, "b"]:
    """Peak signal-to-noise ratio in the hidden region, dB, for a peak of 1."""
    return -10 * masked_mse(output).clamp(min=1e-10).log10()


def masked_ssim(output: Mapping[str, Any]) -> Float[Tensor, "b"]:
    """Structural similarity, mean over windows 7 voxels long, all weights equal, centred in the region.

    At the tile's faces the outermost voxels are repeated.
    """
    dims = output["pred"].ndim - 2
    pad = [WINDOW // 2] * (2 * dims)
    pred, clean = (
        F.pad(x.float(), pad, mode="replicate") for x in (output["pred"], output["label"]["clean"])
    )
    window = {"kernel_size": (WINDOW,) * dims, "kernel_sigma": (1.0,) * dims}
    similarity, _ = compute_ssim_and_cs(
        pred, clean, spatial_dims=dims, data_range=1.0, kernel_type=KernelType.UNIFORM, **window
    )
    return masked_mean(similarity, output["label"]["mask"])


def flat_fill_mse(output: Mapping[str, Any], near: Bool[Tensor, "b 1 *space"] | bool) -> Float[Tensor, "b"]:
    """`masked_mse` of a region filled with one value per channel, the mean of visible `near` voxels."""
    clean, mask = output["label"]["clean"], output["label"]["mask"]
    source = near & ~mask & output["label"]["inside"]  # a tile may reach beyond its volume
    fill = (clean * source).flatten(2).sum(2) / source.flatten(2).sum(2).clamp(min=1)
    return masked_mean((clean - fill.reshape(*fill.shape, *[1] * (clean.ndim - 2))).square(), mask)


def mean_fill_mse(output: Mapping[str, Any]) -> Float[Tensor, "b"]:
    """The baseline: `masked_mse` of a region filled with the mean of its border, one value per channel.

    The border is every visible voxel within 3 voxels of the region along each axis.
    """
    mask = output["label"]["mask"].float()
    maximum = Pool[Pool.MAX, mask.ndim - 2](2 * BORDER + 1, stride=1, padding=BORDER)
    return flat_fill_mse(output, maximum(mask) > 0)


def tile_fill_mse(output: Mapping[str, Any]) -> Float[Tensor, "b"]:
    """Chance: `masked_mse` of a region filled with the mean of all visible voxels, one value per channel."""
    return flat_fill_mse(output, True)


def relative(error: float, baseline: float) -> float:
    """Ratio of two errors; NaN where every region is flat, so that the baseline has no error.

    Examples:
        >>> relative(0.1, 0.4)
        0.25
    """
    return error / baseline if baseline else math.nan


def validation_metrics(task: str = "inpainting") -> dict[str, Metric]:
    """The metrics of a validation, by name: the mean over all held-out tiles of the errors above.

    `tile_fill_mse` is chance, `mean_fill_mse` the baseline's error; `relative_masked_error`, `masked_mse` /
    `mean_fill_mse`, is 1 for a network that is no better than a flat fill with the mean of the border.

    Args:
        task: Task of the arm; segmentation, which is measured after fine-tuning, has no metrics.
    """
    if task == "segmentation":
        return {}
    error, baseline = SampleMean(masked_mse), SampleMean(mean_fill_mse)
    return {
        "masked_mse": error,
        "tile_fill_mse": SampleMean(tile_fill_mse),
        "mean_fill_mse": baseline,
        "relative_masked_error": MetricsLambda(relative, error, baseline),
        "mse": SampleMean(mse),
        "masked_psnr_db": SampleMean(masked_psnr),
        "masked_ssim": SampleMean(masked_ssim),
    }

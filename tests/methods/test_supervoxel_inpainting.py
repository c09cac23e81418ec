"""Supervoxel in-painting: network, losses and errors by hand, SSIM against scikit-image."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ignite.engine import Engine
from pretext3d.errors import UserError
from pretext3d.methods.supervoxel_inpainting import pretext as si
from pretext3d.networks.factory import build_backbone
from pretext3d.networks.segmentation import SegmentationNet
from pretext3d.training.pretrained import Pretrained, transfer_weights
from skimage.metrics import structural_similarity

from tests.methods.inpainting import output


def by_hand() -> dict[str, Any]:
    """Two tiles of 5 x 6 x 7 voxels and two channels, of which two voxels are hidden.

    The truth is 0.5 everywhere but in the hidden voxels: there 0.7 and 0.3 in channel 0, 0.9 twice in channel
    1. The first prediction is 0.5 everywhere; the second is right, but for one visible voxel that is 1 off.
    """
    clean = torch.full((2, 2, 5, 6, 7), 0.5)
    mask = torch.zeros(2, 1, 5, 6, 7, dtype=torch.bool)
    mask[:, :, 2, 3, 3:5] = True
    clean[:, 0, 2, 3, 3], clean[:, 0, 2, 3, 4], clean[:, 1, 2, 3, 3:5] = 0.7, 0.3, 0.9
    pred = torch.full((2, 2, 5, 6, 7), 0.5)
    pred[1] = clean[1]
    pred[1, 0, 0, 0, 0] += 1
    return output(pred, clean, mask)


def test_errors_by_hand() -> None:
    # hidden, first tile: (0.2^2 + 0.2^2 + 0.4^2 + 0.4^2) / 4 = 0.4 / 4 = 0.1; whole: 0.4 / (2 * 210)
    torch.testing.assert_close(si.masked_mse(by_hand()), torch.tensor([0.1, 0.0]))
    torch.testing.assert_close(si.mse(by_hand()), torch.tensor([0.4 / 420, 1 / 420]))
    # -10 log10(0.1) = 10 dB; no error at all is held at 100 dB
    torch.testing.assert_close(si.masked_psnr(by_hand()), torch.tensor([10.0, 100.0]))


def test_yardstick_by_hand() -> None:
    # the border is 0.5 throughout, so a flat fill is the first prediction
    torch.testing.assert_close(si.mean_fill_mse(by_hand()), torch.tensor([0.1, 0.1]))


def test_border_is_near_and_visible_alone() -> None:
    # along k: 1 for k < 2, 3 from 2 on, 7 at the hidden k = 5; its border is k = 2, 3, 4, 6, all 3: (7 - 3)^2
    clean = torch.ones(1, 1, 1, 1, 7)
    clean[..., 2:] = 3.0
    clean[..., 5] = 7.0
    mask = torch.zeros(1, 1, 1, 1, 7, dtype=torch.bool)
    mask[..., 5] = True
    torch.testing.assert_close(si.mean_fill_mse(output(clean, clean, mask)), torch.tensor([16.0]))
    # the mean of all that is visible, 1 1 3 3 3 3, is 7 / 3
    torch.testing.assert_close(si.tile_fill_mse(output(clean, clean, mask)), torch.tensor([(14 / 3) ** 2]))


def test_what_lies_beyond_the_volume_is_not_visible() -> None:
    one = output(torch.zeros(1, 1, 1, 1, 7), torch.zeros(1, 1, 1, 1, 7), torch.zeros(1, 1, 1, 1, 7) > 0)
    one["label"]["clean"][..., :5] = 0.5
    one["label"]["mask"][..., 2] = True
    one["label"]["inside"][..., 5:] = False
    for flat in (si.mean_fill_mse, si.tile_fill_mse):
        torch.testing.assert_close(flat(one), torch.tensor([0.0]))


def test_flat_regions_alone_have_no_relative_error() -> None:
    assert math.isnan(si.relative(0.1, 0.0))
    assert si.relative(0.1, 0.2) == 0.5


def test_a_tile_hidden_as_a_whole_has_finite_errors() -> None:
    clean = torch.full((1, 1, 4, 4, 4), 0.5)
    every = output(clean, clean, torch.ones(1, 1, 4, 4, 4, dtype=torch.bool))
    torch.testing.assert_close(
        si.mean_fill_mse(every), torch.tensor([0.25])
    )  # nothing to look at: filled with 0
    nothing = output(clean, clean, torch.zeros(1, 1, 4, 4, 4, dtype=torch.bool))
    assert float(si.masked_mse(nothing)) == 0


def test_similarity_is_scikit_images() -> None:
    rng = np.random.default_rng(0)
    clean = rng.random((2, 12, 13, 14)).astype(np.float32)
    pred = (clean + 0.2 * rng.standard_normal(clean.shape)).astype(np.float32)
    mask = np.zeros((1, 12, 13, 14), dtype=bool)
    mask[0, 4:7, 5:9, 4:8] = True  # three voxels and more from every face, where paddings differ
    expected = []
    for one, other in zip(pred, clean, strict=True):
        _, similarity = structural_similarity(
            one, other, win_size=7, data_range=1.0, full=True, use_sample_covariance=False
        )
        expected.append(similarity[mask[0]].mean())
    got = si.masked_ssim(output(*(torch.from_numpy(x)[None] for x in (pred, clean, mask))))
    torch.testing.assert_close(got, torch.tensor([np.mean(expected)]).float(), atol=1e-4, rtol=0)
    same = si.masked_ssim(output(*(torch.from_numpy(x)[None] for x in (clean, clean, mask))))
    torch.testing.assert_close(same, torch.ones(1), atol=1e-4, rtol=0)


def test_loss_is_over_the_whole_tile() -> None:
    made = by_hand()
    # (0.4 + 1) / (2 * 420)
    torch.testing.assert_close(si.InpaintingLoss()(made["pred"], made["label"]), torch.tensor(1.4 / 840))
    # in the regions (0.1 + 0) / 2
    weighted = si.InpaintingLoss(region_weight=2.0)(made["pred"], made["label"])
    torch.testing.assert_close(weighted, torch.tensor(1.4 / 840 + 2 * 0.05))
    with pytest.raises(UserError, match="region_weight"):
        si.InpaintingLoss(region_weight=-1)


def test_restart_loss_by_hand() -> None:
    # logits 0: softmax 0.5 everywhere; 2 of 8 voxels are foreground: Dice 2 * (2 * 0.5) / (8 * 0.5 + 2) = 1/3
    label = torch.zeros(1, 1, 2, 2, 2)
    label[0, 0, 0, 0] = 1
    loss = si.RestartLoss()(torch.zeros(1, 2, 2, 2, 2), {"label": label})
    torch.testing.assert_close(loss, torch.tensor(2 / 3), atol=1e-5, rtol=0)  # MONAI adds 1e-5 to both parts


def test_metrics_of_a_validation() -> None:
    metrics = si.validation_metrics()
    engine = Engine(lambda *_: by_hand())
    for name, metric in metrics.items():
        metric.attach(engine, name)
    got = engine.run([0], max_epochs=1).metrics
    assert got["masked_mse"] == pytest.approx(0.05)
    assert got["mean_fill_mse"] == pytest.approx(0.1)
    assert got["relative_masked_error"] == pytest.approx(0.5)
    assert set(got) == {
        "masked_mse", "tile_fill_mse", "mean_fill_mse", "relative_masked_error", "mse", "masked_psnr_db",
        "masked_ssim",
    }  # fmt: skip
    assert si.validation_metrics("segmentation") == {}


@pytest.mark.parametrize("channels", [1, 2])
def test_network_paints_as_many_channels_as_it_sees(channels: int) -> None:
    net = si.SupervoxelInpaintingNet(build_backbone("unet", channels, (8, 12, 8)))
    painted = net(torch.rand(2, channels, 8, 12, 8)).detach()
    assert painted.shape == (2, channels, 8, 12, 8)
    assert float(painted.min()) < 0 < float(painted.max())  # linear, no sigmoid


def test_all_but_the_last_layer_is_handed_over() -> None:
    record = build_backbone("unet", 2, (8, 8, 8)).record
    pretrained = si.SupervoxelInpaintingNet(build_backbone("unet", 2, (8, 8, 8)))
    segmenting = SegmentationNet(build_backbone("unet", 2, (8, 8, 8)), num_classes=2)
    head = segmenting.head.weight.detach().clone()
    record = {"backbone": record, "channels": 2}
    report = transfer_weights(segmenting, Pretrained(Path("source.pt"), record, pretrained.state_dict()))
    assert report.fraction == 1.0
    assert {row.name for row in report.of("new")} == {"head.weight", "head.bias"}
    assert torch.equal(segmenting.head.weight, head)
    assert torch.equal(segmenting.backbone.down[0][0].weight, pretrained.backbone.down[0][0].weight)


def test_it_learns_to_fill_a_flat_image() -> None:
    """Tiles of one random grey value each: the hidden value can be predicted from what is around it."""
    torch.manual_seed(0)
    net = si.SupervoxelInpaintingNet(build_backbone("unet", 1, (8, 8, 8)))
    optimizer, loss = torch.optim.Adam(net.parameters(), lr=0.01), si.InpaintingLoss()
    mask = torch.zeros(8, 1, 8, 8, 8, dtype=torch.bool)
    mask[..., 3:6, 2:6, 3:5] = True
    for _ in range(60):
        clean = torch.rand(8, 1, 1, 1, 1).expand(8, 1, 8, 8, 8)
        pred = net(clean.masked_fill(mask, 0.0))
        optimizer.zero_grad()
        loss(pred, {"clean": clean}).backward()
        optimizer.step()
    error = float(si.masked_mse(output(pred.detach(), clean, mask)).mean())
    assert error < 0.3 / 12  # always predicting the mean 0.5 of U(0, 1) costs 1/12

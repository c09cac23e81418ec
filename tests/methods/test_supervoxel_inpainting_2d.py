"""Supervoxel in-painting in 2D: superpixels, rectangles, tiles by hand on 5 x 6 pixels; errors."""

from functools import partial
from typing import Any

import numpy as np
import pytest
import skimage.segmentation
import torch
from hypothesis import given
from hypothesis import strategies as st
from ignite.engine import Engine
from monai.data import MetaTensor
from pretext3d.errors import UserError
from pretext3d.methods.supervoxel_inpainting import pretext as si
from pretext3d.methods.supervoxel_inpainting.intensities import RandBrightnessGammad
from pretext3d.methods.supervoxel_inpainting.regions import RandHideRegiond, Regionsd, region_map
from pretext3d.networks.factory import build_backbone
from pretext3d.transforms.supervoxels import Supervoxelsd
from skimage.metrics import structural_similarity

from tests.methods import inpainting
from tests.methods.inpainting import AFFINE, output

SHAPE = (5, 6)
# three superpixels: columns j = 0, 1, 2, then 3, 4, then 5; 5 pixels per column, so 15, 10 and 5; those with
# i = 0, 1 are the foreground: 6, 4 and 2 of the three
case, prepared = partial(inpainting.case, SHAPE), partial(inpainting.prepared, SHAPE)
foreground, stripes = partial(inpainting.foreground, SHAPE), partial(inpainting.layers, SHAPE)


# ---------------------------------------------------------------------------------------------------- regions
def test_regions_by_hand() -> None:
    regions, boxes, largest = region_map(stripes(), foreground(), 3)
    kept = stripes() * foreground()
    assert torch.equal(regions, torch.where(kept == 3, 0, kept).to(regions.dtype))
    assert boxes.tolist() == [[[0, 0], [2, 3]], [[0, 3], [2, 5]]]
    assert largest == 6


@given(seed=st.integers(0, 10_000), least=st.integers(1, 6), count=st.integers(1, 20))
def test_regions_of_an_image_are_those_of_a_volume_one_voxel_thick(seed: int, least: int, count: int) -> None:
    rng = np.random.default_rng(seed)
    supervoxels = torch.from_numpy(rng.integers(0, count + 1, (1, *SHAPE), dtype=np.int32))
    roi = torch.from_numpy(rng.random((1, *SHAPE)) < 0.6)
    regions, boxes, largest = region_map(supervoxels, roi, least)
    thick, thick_boxes, thick_largest = region_map(supervoxels[..., None], roi[..., None], least)
    assert torch.equal(regions, thick[..., 0])
    assert torch.equal(boxes, thick_boxes[..., :2])
    assert largest == thick_largest


def test_prepared_case_and_sizes_in_mm2() -> None:
    ready = prepared()
    assert ready["unusable"] == ""
    torch.testing.assert_close(ready["spacing"], torch.tensor([1.0, 2.0]))
    # a pixel has 2 mm2, and regions have 6, 4 and 2: 7 mm2 are 3.5 pixels, so 4; 8 mm2 are 4; 9 are 5
    assert [len(prepared(min_region_size=n)["region_boxes"]) for n in (7, 8, 9)] == [2, 2, 1]
    reason = "no region of 50 voxels or more (min_region_size: 100, at 2 mm2 per voxel), the largest has 6"
    assert prepared(min_region_size=100)["unusable"] == reason
    # flat indices of the pixels with i < 2
    assert prepared(regions="cuboids", cuboid_sides=[2, 3])["foreground"].tolist() == list(range(12))
    assert "hold no cuboid" in prepared(regions="cuboids", cuboid_sides=[6, 7])["unusable"]


@pytest.mark.parametrize("backend", ["torch", "skimage"])
@pytest.mark.parametrize("shape", [(12, 14), (9, 10, 11)])
def test_superpixels_and_supervoxels_of_both_backends(
    backend: str, shape: tuple[int, ...], tmp_path: Any
) -> None:
    """Without a mask, of two channels: every voxel belongs to one, and regions can be hidden."""
    image = torch.rand(2, *shape, generator=torch.Generator().manual_seed(0))
    image[:, : shape[0] // 2] += 1
    spacing = [1.0, 2.0, 3.0][: len(shape)]
    given_case = {"image": MetaTensor(image, affine=AFFINE)}
    found = Supervoxelsd(n_segments=12, backend=backend, cache_dir=str(tmp_path))(given_case)
    labels = found["supervoxels"]
    assert labels.shape == (1, *shape)
    assert labels.unique().tolist() == list(range(1, int(labels.max()) + 1))
    assert 4 <= int(labels.max()) <= 30
    if backend == "skimage":
        relative = [round(float(s), 6) for s in np.asarray(spacing) / np.exp(np.log(spacing).mean())]
        expected = skimage.segmentation.slic(
            image.numpy(), n_segments=12, compactness=0.15, sigma=0, spacing=relative, convert2lab=False,
            start_label=1, channel_axis=0,
        )  # fmt: skip
        # the same up to the numbers of the regions
        pairs = np.unique(np.stack([labels[0].numpy().ravel(), expected.ravel()]), axis=1)
        assert pairs.shape[1] == len(np.unique(expected)) == int(labels.max())
    ready = Regionsd(roi=False, min_region_voxels=2)(found)
    sample = RandHideRegiond("image", roi_size=[6] * len(shape)).set_random_state(0)(ready)
    assert sample["mask"].any()


# ------------------------------------------------------------------------------------------------------ tiles
def test_tile_by_hand() -> None:
    # region 2: i 0..1, j 3..4; a tile of 3 x 4: along i 0 alone holds both rows; along j 1, 2 and 3 hold both
    # columns, and of these 1 is the middle's (6 - 4) // 2
    hide = RandHideRegiond("image", roi_size=[3, 4])
    samples = [hide({**prepared(), "draw": draw}) for draw in range(3)]
    second = next(s for s in samples if int(s["mask"].sum()) == 4)
    assert second["crop_start"].tolist() == [0, 1]
    assert second["crop_size"].tolist() == [3, 4]
    expected = torch.zeros(1, 3, 4, dtype=torch.bool)
    expected[:, :2, 2:] = True
    assert torch.equal(second["mask"], expected)
    torch.testing.assert_close(second["clean"], case()["image"].as_tensor()[:, 0:3, 1:5])
    assert torch.equal(second["image"], second["clean"].masked_fill(expected, 0.0))
    assert second["inside"].all()
    assert {int(s["mask"].sum()) for s in samples} == {6, 4, 2}  # each region once


def test_smaller_images_lie_in_the_middle() -> None:
    # 9 - 5 = 4: two before; 9 - 6 = 3: one before
    sample = RandHideRegiond("image", roi_size=[9, 9])({**prepared(), "draw": 0})
    assert sample["crop_start"].tolist() == [-2, -1]
    torch.testing.assert_close(sample["clean"][:, 2:7, 1:7], case()["image"].as_tensor())
    assert int(sample["inside"].sum()) == 30


@pytest.mark.parametrize("regions", ["supervoxels", "cuboids"])
@pytest.mark.parametrize("channels", [1, 3])
def test_laws(regions: str, channels: int) -> None:
    settings: dict[str, Any] = {"regions": regions, "cuboid_sides": [2, 3]}
    ready = prepared(channels, **settings)
    before = ready["image"].clone()
    one, two = (RandHideRegiond("image", roi_size=[4, 3], **settings) for _ in range(2))
    for seed in range(5):
        one.set_random_state(seed=seed), two.set_random_state(seed=seed)
        a, b = one(ready), two(ready)
        assert all(torch.equal(a[key], b[key]) for key in ("image", "clean", "mask", "crop_start"))
        assert torch.equal(ready["image"], before)
        assert a["image"].shape == a["clean"].shape == (channels, 4, 3)
        assert a["mask"].any()
        # the image has no zeros, so what is zero is hidden: in all channels alike
        assert torch.equal(a["image"] == 0, a["mask"].expand_as(a["image"]))
        changed = RandBrightnessGammad(["image", "clean"], prob=1).set_random_state(seed)(a)
        assert torch.equal(changed["image"], changed["clean"].masked_fill(a["mask"], 0.0))
    if regions == "cuboids":
        assert 2 <= min(one.hidden.shape) <= max(one.hidden.shape) <= 3


def test_a_tile_has_as_many_sizes_as_its_image() -> None:
    with pytest.raises(UserError, match=r"roi_size: found \[4, 4, 4\], expected as many sizes .* \[5, 6\]"):
        RandHideRegiond("image", roi_size=[4, 4, 4])(prepared())


# ----------------------------------------------------------------------------------------- network and errors
def test_errors_by_hand() -> None:
    """One tile of 5 x 6 pixels, 0.5 but for two hidden pixels of 0.7 and 0.1; the prediction is 0.5."""
    clean, mask = torch.full((1, 1, *SHAPE), 0.5), torch.zeros(1, 1, *SHAPE, dtype=torch.bool)
    mask[..., 2, 3:5] = True
    clean[..., 2, 3], clean[..., 2, 4] = 0.7, 0.1
    made = output(torch.full_like(clean, 0.5), clean, mask)
    # (0.04 + 0.16) / 2 in the region, 0.2 / 30 over the tile; a flat fill is 0.5, too
    torch.testing.assert_close(si.masked_mse(made), torch.tensor([0.1]))
    torch.testing.assert_close(si.mse(made), torch.tensor([0.2 / 30]))
    torch.testing.assert_close(si.masked_psnr(made), torch.tensor([10.0]))
    torch.testing.assert_close(si.mean_fill_mse(made), torch.tensor([0.1]))
    torch.testing.assert_close(si.tile_fill_mse(made), torch.tensor([0.1]))
    loss = si.InpaintingLoss(region_weight=2.0)(made["pred"], made["label"])
    torch.testing.assert_close(loss, torch.tensor(0.2 / 30 + 2 * 0.1))


def test_errors_of_an_image_are_those_of_a_volume_one_voxel_thick() -> None:
    generator = torch.Generator().manual_seed(0)
    clean, pred = (torch.rand(2, 3, 12, 13, generator=generator) for _ in range(2))
    mask = torch.rand(2, 1, 12, 13, generator=generator) < 0.2
    flat = output(pred, clean, mask)
    thick = output(pred[..., None], clean[..., None], mask[..., None])
    errors = (si.masked_mse, si.mse, si.masked_psnr, si.mean_fill_mse, si.tile_fill_mse, si.masked_ssim)
    for error in errors:
        torch.testing.assert_close(error(flat), error(thick))


def test_similarity_is_scikit_images() -> None:
    rng = np.random.default_rng(0)
    clean = rng.random((1, 12, 13)).astype(np.float32)
    pred = (clean + 0.2 * rng.standard_normal(clean.shape)).astype(np.float32)
    mask = np.zeros((1, 12, 13), dtype=bool)
    mask[0, 4:7, 5:9] = True  # three pixels and more from every edge, where paddings differ
    settings = {"win_size": 7, "data_range": 1.0, "full": True, "use_sample_covariance": False}
    _, similarity = structural_similarity(pred[0], clean[0], **settings)
    got = si.masked_ssim(output(*(torch.from_numpy(x)[None] for x in (pred, clean, mask))))
    torch.testing.assert_close(got, torch.tensor([similarity[mask[0]].mean()]).float(), atol=1e-4, rtol=0)


def test_network_and_gradients() -> None:
    net = si.SupervoxelInpaintingNet(build_backbone("unet", 3, (8, 12), spatial_dims=2))
    painted = net(torch.rand(2, 3, 8, 12))
    assert painted.shape == (2, 3, 8, 12)
    clean, mask = torch.rand(2, 3, 8, 12), torch.rand(2, 1, 8, 12) < 0.3
    si.InpaintingLoss(0.3)(painted, {"clean": clean, "mask": mask}).backward()
    assert [name for name, p in net.named_parameters() if p.grad is None] == []


def test_restart_loss_by_hand() -> None:
    # logits 0: softmax 0.5 everywhere; 2 of 8 pixels are foreground: Dice 2 * (2 * 0.5) / (8 * 0.5 + 2) = 1/3
    label = torch.zeros(1, 1, 2, 4)
    label[0, 0, 0, :2] = 1
    loss = si.RestartLoss()(torch.zeros(1, 2, 2, 4), {"label": label})
    torch.testing.assert_close(loss, torch.tensor(2 / 3), atol=1e-5, rtol=0)  # MONAI adds 1e-5 to both parts


def test_metrics_of_a_validation() -> None:
    clean, mask = torch.full((2, 1, *SHAPE), 0.5), torch.zeros(2, 1, *SHAPE, dtype=torch.bool)
    mask[..., 2, 3:5] = True
    clean[..., 2, 3:5] = 0.7
    engine = Engine(lambda *_: output(torch.full_like(clean, 0.6), clean, mask))
    for name, metric in si.validation_metrics().items():
        metric.attach(engine, name)
    got = engine.run([0], max_epochs=1).metrics
    # 0.1^2 everywhere; a flat fill is 0.5, so 0.2^2 in the region
    assert got["masked_mse"] == pytest.approx(0.01)
    assert got["mse"] == pytest.approx(0.01)
    assert got["relative_masked_error"] == pytest.approx(0.25, rel=1e-4)

"""Features of pretrained weights: the network of a record, its maps and pooled vectors, in 3D and 2D."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pretext3d.errors import UserError
from pretext3d.networks.classification import ClassificationNet
from pretext3d.networks.factory import build_backbone
from pretext3d.networks.segmentation import SegmentationNet
from pretext3d.training.checkpoint_io import save_checkpoint
from pretext3d.training.features import Level, PretrainedModel, model_of
from pretext3d.training.pretrained import read_pretrained
from torch import nn


def checkpoint(
    folder: Path, method: str = "rotation", dims: int = 3, encoder: str = "unet", **more: Any
) -> Path:
    """A checkpoint of random weights."""
    torch.manual_seed(5)
    backbone = build_backbone(encoder, 1, [16] * dims, spatial_dims=dims)
    network: nn.Module
    if method == "segmentation":
        network, more = SegmentationNet(backbone, 3), {"num_classes": 3, **more}
    elif method == "classification":
        network, more = ClassificationNet(backbone, 2), {"num_classes": 2, **more}
    else:
        network = nn.Module()
        network.backbone, network.head = backbone, nn.Linear(3, 2)
    record = {
        "method": method, "channels": 1, "channel_indices": None, "pixdim": [], "backbone": backbone.record,
        "normalisation": {"window": [0, 1]}, **more,
    }  # fmt: skip
    save_checkpoint(folder / "best.pt", {"network": network.state_dict(), "record": record})
    return folder / "best.pt"


def model(folder: Path, *arguments: Any, **more: Any) -> PretrainedModel:
    return model_of(read_pretrained(checkpoint(folder, *arguments, **more)), precision="fp32")


@pytest.mark.parametrize("dims", [3, 2])
def test_maps_of_a_pretraining(tmp_path: Path, dims: int) -> None:
    found = model(tmp_path, dims=dims)
    assert found.network is found.backbone
    assert not any(part.training for part in found.network.modules())
    assert found.levels == tuple(
        Level(channels, (stride,) * dims) for channels, stride in ((16, 1), (32, 2), (64, 4))
    )
    assert found.roi_size == (16,) * dims
    image = torch.rand(1, *(16, 20, 24)[:dims])
    maps = found.encode(image)
    for level, features in zip(found.levels, maps, strict=True):
        sizes = [n // s for n, s in zip(image.shape[1:], level.strides, strict=True)]
        assert list(features.shape) == [level.channels, *sizes]
        assert not features.requires_grad
    with torch.no_grad():
        for features, expected in zip(maps, found.backbone.encode(image[None]), strict=True):
            torch.testing.assert_close(features, expected[0])
    batch = found.encode(torch.stack([image, image.flip(1)]))
    torch.testing.assert_close(batch[-1][0], maps[-1])
    assert batch[-1].shape[0] == 2


def test_sizes_between_are_padded_at_the_end(tmp_path: Path) -> None:
    """SegResNet takes multiples of 8 alone: 9 x 16 x 20 is padded to 16 x 16 x 24."""
    found = model(tmp_path, encoder="segresnet")
    image = torch.rand(1, 9, 16, 20)
    padded = torch.zeros(1, 16, 16, 24)
    padded[:, :9, :, :20] = image
    for features, expected in zip(found.encode(image), found.encode(padded), strict=True):
        torch.testing.assert_close(features, expected)


def test_pooled_features_are_the_mean_over_windows(tmp_path: Path) -> None:
    found = model(tmp_path)
    image = torch.rand(1, 32, 16, 16)  # two windows
    halves = [found.encode(part)[-1].flatten(1).mean(1) for part in (image[:, :16], image[:, 16:])]
    np.testing.assert_allclose(found.pooled(image), torch.stack(halves).mean(0).numpy(), rtol=1e-5)
    middle = found.encode(image[:, 8:24])[-1].flatten(1).mean(1)
    np.testing.assert_allclose(found.pooled(image, max_windows=1), middle.numpy(), rtol=1e-5)


def test_the_network_of_a_fine_tuning_is_complete(tmp_path: Path) -> None:
    image = torch.rand(2, 1, 16, 16, 16)
    segmentation = model(tmp_path, "segmentation")
    with torch.no_grad():
        assert segmentation.network(image).shape == (2, 3, 16, 16, 16)
    classification = model(tmp_path, "classification")
    with torch.no_grad():
        logits = classification.network(image)
    pooled = torch.from_numpy(classification.pooled(image[0]))
    weights = classification.network.get_submodule("head")
    torch.testing.assert_close(weights(pooled), logits[0])  # what its output layer reads


def test_weights_are_those_of_the_file(tmp_path: Path) -> None:
    file = checkpoint(tmp_path)
    stored = read_pretrained(file).network
    for name, value in model_of(read_pretrained(file)).network.state_dict().items():
        assert torch.equal(value, stored[f"backbone.{name}"])


def test_weights_without_a_backbone_are_refused(tmp_path: Path) -> None:
    file = checkpoint(tmp_path)
    content = torch.load(file, weights_only=True)
    content["network"] = {name: v for name, v in content["network"].items() if name.startswith("head")}
    save_checkpoint(file, content)
    with pytest.raises(
        UserError, match=r"best\.pt: its record describes a network of .* of which the file has 0"
    ):
        model_of(read_pretrained(file))


def test_an_array_gives_what_a_tensor_does(tmp_path: Path) -> None:
    found, image = model(tmp_path), torch.rand(1, 16, 16, 16)
    assert all(map(torch.equal, found.encode(image.numpy()), found.encode(image)))
    assert np.array_equal(found.pooled(image.numpy()), found.pooled(image))


def test_an_array_may_run_backwards_and_have_any_byte_order(tmp_path: Path) -> None:
    """As of a reorientation, or of a reader of files that another machine wrote."""
    found, image = model(tmp_path), torch.rand(1, 16, 16, 16)
    wanted = found.pooled(image.flip(-1))
    assert np.array_equal(found.pooled(image.numpy()[..., ::-1]), wanted)
    assert np.array_equal(found.pooled(image.flip(-1).numpy().astype(">f4")), wanted)
    assert np.array_equal(found.encode(image.numpy()[..., ::-1])[-1], found.encode(image.flip(-1))[-1])


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (torch.zeros(2, 16, 16, 16), r"image: found shape \[2, 16, 16, 16\], expected \(1, i, j, k\)"),
        (torch.zeros(16, 16, 16), r"image: found shape \[16, 16, 16\], expected \(1, i, j, k\)"),
    ],
)
def test_an_image_of_another_kind(tmp_path: Path, image: torch.Tensor, message: str) -> None:
    found = model(tmp_path)
    for read in (found.encode, found.pooled):
        with pytest.raises(UserError, match=message):
            read(image)


def test_arguments(tmp_path: Path) -> None:
    read = read_pretrained(checkpoint(tmp_path))
    with pytest.raises(UserError, match="precision: found 'half', expected auto, bf16 or fp32"):
        model_of(read, precision="half")
    with pytest.raises(UserError, match="max_windows: found 0"):
        model_of(read).pooled(torch.zeros(1, 16, 16, 16), max_windows=0)
    vision = model(tmp_path, encoder="vit_tiny")
    with pytest.raises(
        UserError, match=r"roi_size: found an input of \[32, 16, 16\], expected \[16, 16, 16\]"
    ):
        vision.encode(torch.zeros(1, 32, 16, 16))
    assert vision.pooled(torch.zeros(1, 32, 16, 16)).shape == (vision.levels[-1].channels,)

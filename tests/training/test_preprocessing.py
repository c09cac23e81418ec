"""Another window or spacing than that of pre-training: what is reported, and the key that takes the same."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser
from monai.data import MetaTensor
from monai.transforms import Compose
from PIL import Image
from pretext3d.data.dataset import describe
from pretext3d.errors import UserError
from pretext3d.training.preprocessing import (
    RecordedPreprocessing,
    check_spacing,
    check_window,
    differing_axes,
)
from pretext3d.training.pretrained import Pretrained, pixdim_of

from tests.labelled import AFFINE, save, volume

ROOT = Path(__file__).resolve().parents[2]


def test_another_window_of_intensities_is_reported(caplog):
    there, here = {"window": [-175, 250]}, {"percentiles": [0.5, 99.5]}
    check_window(Path("best.pt"), there, there)
    check_window(Path("best.pt"), here, {"percentiles": [1, 99]})
    check_window(Path("best.pt"), {"mean_maximum": [-1, 1]}, here)
    assert not caplog.messages
    check_window(Path("best.pt"), there, {"window": 40})  # reported in full by what scales the intensities
    for one, other in ((there, here), (here, there), (there, {"window": [0, 80]})):
        caplog.clear()
        check_window(Path("best.pt"), one, other)
        assert "best.pt: trained with normalisation" in caplog.text


@pytest.mark.parametrize(
    ("there", "here", "axes"),
    [
        ([1.0, 1.0, 3.0], [1.0, 1.0, 3.0], ""),
        ([1.0, 1.0, 3.0], [1.3, 1.3, 3.9], ""),  # 1.3 times: still alike
        ([1.0, 1.0, 3.0], [1.31, 1.0, 2.3], "xz"),  # 3 / 2.3 = 1.304
        ([2.0, 2.0], [1.0, 2.0], "x"),
        ([], [1.0, 1.0, 1.0], ""),  # as each file has it: nothing to compare
        ([1.0, 1.0, 1.0], [], ""),
    ],
)
def test_axes_with_another_spacing(there: list[float], here: list[float], axes: str) -> None:
    assert differing_axes(there, here) == axes
    assert differing_axes(here, there) == axes


def test_another_spacing_is_reported_once_with_the_key_that_helps(caplog: pytest.LogCaptureFixture) -> None:
    check_spacing(Path("best.pt"), [1.0, 1.0, 3.0], [1.2, 1.2, 3.0])
    assert not caplog.messages
    check_spacing(Path("best.pt"), [1.0, 1.0, 3.0], [2.0, 1.0, 1.5])
    assert caplog.messages == [
        "best.pt: trained at a spacing of 1x1x3 mm, here it is 2x1x1.5 mm, more than 1.3 times different "
        "along x, z: the same structure has another size in voxels; --pixdim pretrained takes that of the "
        "weights"
    ]


def weights(**record: object) -> Pretrained:
    return Pretrained(Path("run/best.pt"), {"backbone": {"spatial_dims": 3}, **record}, {})


def test_the_spacing_of_the_weights() -> None:
    there = weights(pixdim=[1.0, 1.0, 2.5])
    assert pixdim_of("pretrained", there, 3) == [1.0, 1.0, 2.5]
    for pixdim in ("median", 1.5, [1.0, 1.0, 2.0], {"fit": 1.5}, None):
        assert pixdim_of(pixdim, there, 3) == pixdim
        assert pixdim_of(pixdim, "", 3) == pixdim
        assert pixdim_of(pixdim, "nothing/is/read", 3) == pixdim


@pytest.mark.parametrize(
    ("pretrained", "spatial_dims", "message"),
    [
        ("", 3, "pixdim: found 'pretrained' with no weights in the key pretrained, expected a spacing in mm"),
        (weights(pixdim=[]), 3, "found 'pretrained', but run/best.pt was not trained at one spacing"),
        (weights(), 3, "found 'pretrained', but run/best.pt was not trained at one spacing"),
        (weights(pixdim=[1.0, 1.0, 1.0]), 2, "run/best.pt: its network has spatial_dims 3"),
    ],
)
def test_weights_without_a_spacing(pretrained: object, spatial_dims: int, message: str) -> None:
    with pytest.raises(UserError) as caught:
        pixdim_of("pretrained", pretrained, spatial_dims)  # type: ignore[arg-type]
    assert message in str(caught.value)


# ------------------------------------------------------------------------ the preprocessing of a record
def record(dims: int = 3, **more: Any) -> dict[str, Any]:
    backbone = {"encoder": "unet", "in_channels": 1, "spatial_dims": dims, "roi_size": [16] * dims}
    return {
        "backbone": backbone, "channel_indices": None, "pixdim": [], "normalisation": {"window": [0, 4]}
    } | more  # fmt: skip


@pytest.mark.parametrize("pixdim", [[], [2.0, 3.0, 2.5]])
def test_it_is_that_of_inference(pixdim: list[float]) -> None:
    """The same transforms as `preprocessing` of inference.yaml with this record."""
    told = record(pixdim=pixdim, channel_indices=[1], frames="mean")
    parser = ConfigParser(ConfigParser.load_config_file(ROOT / "bundles/vectorpose/configs/inference.yaml"))
    keys = {"spatial_dims": 3, "channels": [1], "frames": "mean", "spacing": pixdim}
    parser.config.update({**keys, "normalisation": told["normalisation"]})
    mine = RecordedPreprocessing(told)
    expected = parser.get_parsed_content("preprocessing")
    assert describe(Compose([mine.load, *mine.steps])) == describe(expected)


def test_a_file_and_its_voxels_in_memory_give_the_same(tmp_path: Path) -> None:
    """The file's axes are i = anterior (2 mm), j = left (3 mm), k = inferior (2 mm)."""
    array = volume(seed=3)[0]
    file = save(array, tmp_path / "a.nii.gz")
    prepare = RecordedPreprocessing(record())
    from_file = prepare(file)["image"]
    assert from_file.shape == (1, 18, 26, 22)
    expected = torch.from_numpy((array / 4).clip(0, 1)).permute(1, 0, 2).flip(0, 2)[None]
    torch.testing.assert_close(from_file.as_tensor(), expected)
    in_memory = MetaTensor(torch.from_numpy(array)[None], affine=torch.from_numpy(AFFINE))
    for given in ({"image": in_memory, "age": 60}, {"image": str(file), "age": 60}):
        found = prepare(given)
        assert set(found) == {"image", "age"}
        torch.testing.assert_close(found["image"].as_tensor(), expected)
    assert in_memory.shape == (1, *array.shape)  # the input stays
    # without geometry: axes as they are
    plain = prepare({"image": array[None]})["image"].as_tensor()
    torch.testing.assert_close(plain, torch.from_numpy((array / 4).clip(0, 1))[None])


def test_spacing_is_that_of_the_record_or_given(tmp_path: Path) -> None:
    file = save(volume(seed=3)[0], tmp_path / "a.nii.gz")  # 18 x 26 x 22 voxels of 3 x 2 x 2 mm along x y z
    recorded = record(pixdim=[3.0, 5.0, 2.0])
    # (n - 1) * old / new + 1: 17 * 3 / 3 + 1 = 18, 25 * 2 / 5 + 1 = 11, 21 * 2 / 2 + 1 = 22
    assert RecordedPreprocessing(recorded)(file)["image"].shape[1:] == (18, 11, 22)
    assert RecordedPreprocessing(recorded, pixdim=[3, 2, 2])(file)["image"].shape[1:] == (18, 26, 22)
    assert RecordedPreprocessing(recorded, pixdim="resize")(file)["image"].shape[1:] == (16, 16, 16)
    # an array without geometry is on the grid of the training
    array = np.zeros((1, 9, 8, 7), np.float32)
    assert RecordedPreprocessing(recorded)({"image": array})["image"].shape[1:] == (9, 8, 7)


def test_pictures_and_slices(tmp_path: Path) -> None:
    picture = np.random.default_rng(0).integers(0, 255, (6, 9), dtype=np.uint8)  # rows, columns
    Image.fromarray(picture).save(tmp_path / "eye.png")
    prepare = RecordedPreprocessing(record(2, normalisation={"window": [0, 255]}))
    assert prepare(tmp_path / "eye.png")["image"].shape == (1, 9, 6)
    file = save(volume(seed=3)[0], tmp_path / "a.nii.gz")
    flat = prepare({"image": str(file), "slice": 5, "slice_axis": 2})["image"]
    solid = RecordedPreprocessing(record(normalisation={"window": [0, 255]}))(file)["image"]
    torch.testing.assert_close(flat.as_tensor(), solid.as_tensor()[..., 5])
    with pytest.raises(UserError, match=r"a\.nii\.gz: found a volume of 18x26x22 voxels and slice None"):
        prepare(file)


def test_images_without_normalisation_in_the_record() -> None:
    """A training on generated images has none; labelled tasks then take percentiles."""
    told = {key: value for key, value in record().items() if key != "normalisation"}
    found = RecordedPreprocessing(told)({"image": torch.arange(1000.0).reshape(1, 10, 10, 10)})["image"]
    assert float(found.min()) == 0
    assert float(found.max()) == 1


@pytest.mark.parametrize(
    ("image", "message"),
    [
        ({}, "image: found the keys none, expected image"),
        ({"label": "a.nii"}, "image: found the keys label, expected image"),
        ({"image": np.zeros((4, 4, 4))}, r"image: found shape \[4, 4, 4\], expected channels and i, j, k"),
        (
            {"image": np.zeros((2, 4, 4, 4))},
            "image: found 2 channels, expected 1, those that the network was",
        ),
        ({"image": np.full((1, 4, 4, 4), np.nan)}, "image: found 64 values that are NaN or infinite"),
        ("nowhere.nii.gz", "nowhere.nii.gz: "),
    ],
)
def test_an_image_that_cannot_be_prepared_is_one_message(image: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        RecordedPreprocessing(record())(image)


def test_channels_of_the_training_are_selected() -> None:
    image = torch.stack([torch.full((4, 4, 4), float(value)) for value in range(3)])
    found = RecordedPreprocessing(record(channel_indices=[2]))({"image": image})["image"]
    assert found.unique().tolist() == [0.5]  # 2 of 0 to 4
    with pytest.raises(UserError, match=r"channels: found \[2\], but case image has 1 channels"):
        RecordedPreprocessing(record(channel_indices=[2]))({"image": image[:1]})


@pytest.mark.parametrize("pixdim", ["fit", {"fit_each": 1.0}, [1.0, 1.0], -1.0])
def test_a_spacing_that_needs_other_cases_is_refused(pixdim: Any) -> None:
    with pytest.raises(UserError, match="pixdim: found"):
        RecordedPreprocessing(record(), pixdim)

"""2D items from files to predictions on the files' own grids, through MONAI's transforms and evaluator."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import DataLoader, Dataset, MetaTensor
from monai.engines import SupervisedEvaluator
from monai.inferers import SlidingWindowInferer
from monai.transforms import (
    Compose,
    LoadImaged,
    Orientationd,
    Resized,
    SaveImaged,
    ScaleIntensityd,
    Spacingd,
)
from PIL import Image
from pretext3d.data.dataset import CachedVolumes
from pretext3d.data.loading import (
    LoadCased,
    NameByCased,
    OnImageGridd,
    PlainOrientationd,
    SaveCased,
    SelectChannelsd,
)
from pretext3d.data.prepare import inference_cases, prepare_cases
from pretext3d.errors import UserError
from pretext3d.transforms.labels import ClassToLabeld, InvertToClassd

from .conftest import voxels
from .pictures import photograph, picture


def same_item(one: MetaTensor, other: MetaTensor) -> None:
    torch.testing.assert_close(one.as_tensor(), other.as_tensor(), rtol=0, atol=0)
    assert set(one.meta) == set(other.meta)
    for key, value in other.meta.items():
        np.testing.assert_array_equal(np.asarray(one.meta[key]), np.asarray(value), err_msg=key)


def test_in_3d_the_voxels_are_monais(volume, label):
    case = {
        "image": [volume("a.nii.gz"), volume("b.nii.gz")],
        "label": label("c.nii.gz"),
        "landmark": [1, 2, 3],
    }
    got = LoadCased(["image", "label"])(case)
    expected = LoadImaged(["image", "label"], ensure_channel_first=True)(case)
    for key in ("image", "label"):
        torch.testing.assert_close(got[key].as_tensor(), expected[key].as_tensor(), rtol=0, atol=0)
        torch.testing.assert_close(got[key].affine, expected[key].affine, rtol=0, atol=0)
        # of the files' metadata, only what MONAI's own transforms read
        assert set(got[key].meta) == {
            "affine", "filename_or_obj", "space", "original_affine", "spatial_shape", "original_channel_dim"
        }  # fmt: skip
    assert set(got) == set(case)
    assert "label" not in LoadCased(["image", "label"], allow_missing_keys=True)({"image": case["image"]})
    with pytest.raises(UserError, match="spatial_dims: found 1, expected 2 or 3"):
        LoadCased("image", spatial_dims=1)


def test_items_of_2d(volume, tmp_path):
    path = volume("v.nii.gz", axes="LPS")
    sagittal = {"image": path, "slice": 1, "slice_axis": 0, "landmark": [10, 20, 30]}
    got = LoadCased(["image", "label"], 2, allow_missing_keys=True)(sagittal)
    assert (got["image"].shape, got["oriented"], got["landmark"]) == ((1, 6, 7), True, [20, 30, 10])
    assert sagittal["landmark"] == [10, 20, 30]
    axial = LoadCased("image", 2)({"image": path, "slice": 1, "landmark": [10, 20, 30]})
    assert axial["landmark"] == [10, 20, 30]
    mask = picture(tmp_path / "m.png", np.array([[0, 255, 0]] * 2, np.uint8))
    files = [picture(tmp_path / f"{n}.png", np.full((2, 3), n, np.uint8)) for n in (1, 2)]
    shown = LoadCased(["image", "label"], 2)({"image": files, "label": mask})
    assert (shown["image"].shape, shown["oriented"]) == ((2, 3, 2), False)
    assert shown["image"][:, 0, 0].tolist() == [1, 2]
    assert shown["label"][0, :, 0].tolist() == [0, 1, 0]
    torch.testing.assert_close(shown["image"].affine, torch.diag(torch.tensor([-1.0, -1, 1, 1])).double())


@pytest.mark.parametrize("codes", ["RAS", "RA"])
def test_orientation_of_planes_and_volumes_and_back(volume, tmp_path, codes):
    shown = photograph()
    item = {"image": picture(tmp_path / "a.png", shown)}
    transform = Compose([LoadCased("image", 2), PlainOrientationd("image", codes)])
    got = transform(item)["image"]
    # columns run to the left, rows to the back: seen from the right and the front, both are reversed
    np.testing.assert_array_equal(got.numpy().transpose(2, 1, 0), shown[::-1, ::-1])
    monai = Orientationd("image", axcodes="RA", labels=None)(LoadCased("image", 2)(item))["image"]
    torch.testing.assert_close(got.as_tensor(), monai.as_tensor())
    torch.testing.assert_close(got.affine, monai.affine)
    back = transform.inverse({"image": got})["image"]
    np.testing.assert_array_equal(back.numpy().transpose(2, 1, 0), shown)
    torch.testing.assert_close(back.affine, torch.diag(torch.tensor([-1.0, -1, 1, 1])).double())


def test_orientation_in_3d_is_monais(volume):
    item = LoadCased("image")({"image": volume("a.nii.gz", axes="PSR")})
    got = PlainOrientationd("image")(item)
    same_item(got["image"], Orientationd("image", axcodes="RAS", labels=None)(item)["image"])


def pipeline(cases: list, folder: Path, pixdim: list[float], values: tuple[int, ...] = (0, 1, 2)) -> None:
    """Inference as a bundle does it; the network's class of a pixel is its value: 0, 1 or 2."""
    labels = {"values": values}

    class ByValue(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return -((x[:, :1] - torch.tensor([0.0, 1.0, 2.0], device=x.device).reshape(1, 3, 1, 1)) ** 2)

    before = Compose(
        [
            LoadCased("image", 2),
            SelectChannelsd("image", [0]),
            PlainOrientationd("image"),
            *([Spacingd("image", pixdim=pixdim, mode="bilinear")] if pixdim else []),
        ]
    )
    after = Compose(
        [
            InvertToClassd("pred", before, "image", labels),
            ClassToLabeld("pred", labels),
            SaveCased("pred", str(folder), spatial_dims=2, labels=labels),
        ]
    )
    SupervisedEvaluator(
        device=torch.device("cpu"),
        val_data_loader=DataLoader(Dataset(cases, before), batch_size=1),
        network=ByValue(),
        inferer=SlidingWindowInferer((16, 16), 4, 0.25, mode="gaussian"),
        postprocessing=after,
    ).run()


def classes(shape: tuple[int, ...]) -> np.ndarray:
    """0, 1 and 2 in boxes of three different sizes, nowhere symmetric."""
    array = np.zeros(shape, np.uint8)
    array[2 : shape[0] // 2, 3 : shape[1] - 4] = 1
    array[shape[0] // 2 + 2 : shape[0] - 3, 5 : shape[1] // 2 + 3] = 2
    return array


def agreement(one: np.ndarray, other: np.ndarray) -> float:
    assert one.shape == other.shape
    return float((one == other).mean())


@pytest.mark.parametrize("orientation", [1, 6, 8])
def test_a_pictures_segmentation_lies_on_the_picture_as_it_is_shown(tmp_path, orientation):
    stored = np.repeat(classes((48, 64))[..., None], 3, -1)
    picture(tmp_path / "in/a photo.png", stored, orientation)
    picture(tmp_path / "in/deep/a photo.png", stored[:, ::-1].copy(), orientation)
    cases = inference_cases(str(tmp_path / "in"), spatial_dims=2, cache_dir=str(tmp_path / "cache"))["cases"]
    pipeline(cases, tmp_path / "out", [1.0, 1.0])
    names = sorted(p.name for p in (tmp_path / "out").iterdir())
    assert names == ["a photo_seg.png", "deep_a photo_seg.png"]
    shown = {1: stored, 6: np.rot90(stored, -1), 8: np.rot90(stored)}[orientation][..., 0]
    with Image.open(tmp_path / "out/a photo_seg.png") as saved:
        assert saved.mode == "L"
        assert agreement(np.asarray(saved), shown) == 1


def test_a_rotated_jpeg_through_another_spacing(tmp_path):
    stored = np.kron(classes((48, 64)), np.ones((2, 2), np.uint8))
    picture(tmp_path / "in/a.jpg", stored, 6, quality=100)
    cases = inference_cases(str(tmp_path / "in"), spatial_dims=2, cache_dir=str(tmp_path / "cache"))["cases"]
    pipeline(cases, tmp_path / "out", [1.5, 2.0])
    with Image.open(tmp_path / "out/a_seg.png") as saved:
        assert agreement(np.asarray(saved), np.rot90(stored, -1)) > 0.93  # borders are resampled


@pytest.mark.parametrize("axes", ["LAS", "PSR"])
@pytest.mark.parametrize("shape", [(40, 30), (40, 30, 1)])
def test_a_single_slice_comes_back_on_its_own_grid(volume, tmp_path, axes, shape):
    stored = classes(shape)
    path = volume("in/a.nii.gz", stored, spacing=(0.8, 1.1, 5.0), axes=axes)
    cases = inference_cases(str(tmp_path / "in"), spatial_dims=2, cache_dir=str(tmp_path / "cache"))["cases"]
    pipeline(cases, tmp_path / "out", [0.8, 1.1] if axes == "LAS" else [0.7, 1.0])
    (file,) = (tmp_path / "out").iterdir()
    saved = nib.load(file)
    assert file.name == "a_seg.nii.gz"
    assert saved.get_data_dtype() == np.uint8
    np.testing.assert_allclose(saved.affine, nib.load(path).affine, atol=1e-6)
    assert agreement(np.asarray(saved.dataobj), stored) > (0.999 if axes == "LAS" else 0.93)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_slices_of_a_volume_are_put_together(volume, tmp_path, axis):
    stored = np.zeros((30, 26, 28), np.uint8)
    stored[4:12, 5:20, 6:24] = 1
    stored[15:26, 8:14, 3:12] = 2
    path = volume("in/v.nii.gz", stored, spacing=(1.0, 2.0, 3.0), axes="PSR")
    second = volume("in/w.nii.gz", stored[::-1].copy(), axes="LAS")
    found = inference_cases(
        str(tmp_path / "in"), spatial_dims=2, slices={"axis": axis}, cache_dir=str(tmp_path / "cache")
    )
    assert {c["result_name"] for c in found["cases"]} == {"v", "w"}
    cases = found["cases"][::2] + found["cases"][1::2]  # the order is of no consequence
    pipeline(cases, tmp_path / "out", [1.0, 1.0])
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["v_seg.nii.gz", "w_seg.nii.gz"]
    for name, source, expected in (("v", path, stored), ("w", second, stored[::-1])):
        saved = nib.load(tmp_path / f"out/{name}_seg.nii.gz")
        np.testing.assert_allclose(saved.affine, nib.load(source).affine, atol=1e-6)
        assert agreement(np.asarray(saved.dataobj), expected) > 0.97


def test_label_values_above_255_are_written_with_two_bytes(volume, tmp_path):
    """Pictures, slices of volumes, volumes: the classes 1 and 2 are the label values 7 and 700."""
    stored = classes((48, 64))
    picture(tmp_path / "in/a.png", np.repeat(stored[..., None], 3, -1))
    volume("in/v.nii.gz", np.repeat(stored[..., None], 2, -1))
    keys = {"spatial_dims": 2, "slices": {"axis": 2}, "channels": [0], "cache_dir": str(tmp_path / "cache")}
    pipeline(inference_cases(str(tmp_path / "in"), **keys)["cases"], tmp_path / "out", [], (0, 7, 700))
    expected = np.asarray([0, 7, 700], np.uint16)[stored]
    with Image.open(tmp_path / "out/a_seg.png") as saved:
        np.testing.assert_array_equal(np.asarray(saved), expected)
    expected = expected[..., None].repeat(2, -1)
    values = torch.from_numpy(expected.astype(np.int32))[None]
    whole = MetaTensor(values, affine=torch.eye(4), meta={"filename_or_obj": "w.nii.gz"})
    save = SaveCased("pred", str(tmp_path / "out"), labels={"values": [0, 7, 700]})
    save({"pred": whole, "result_name": "w"})
    for name in ("v_seg.nii.gz", "w_seg.nii.gz"):
        saved = nib.load(tmp_path / "out" / name)
        assert saved.get_data_dtype() == np.uint16
        np.testing.assert_array_equal(np.asarray(saved.dataobj), expected)


def test_saving_in_3d_is_monais(tmp_path):
    affine = torch.tensor([[0, -3.0, 0, 40], [2.0, 0, 0, -9], [0, 0, -2.0, 7], [0, 0, 0, 1]])
    values = torch.from_numpy(voxels((1, 5, 6, 7)).astype(np.float32))
    pred = MetaTensor(values, affine=affine, meta={"filename_or_obj": "/somewhere/0001.dcm"})
    ours, monais = SaveCased("pred", str(tmp_path / "a")), tmp_path / "b"
    ours({"pred": pred, "result_name": "case 7"})
    settings = {
        "output_dtype": np.uint8,
        "resample": False,
        "separate_folder": False,
        "output_postfix": "seg",
    }
    named = NameByCased("pred")({"pred": pred, "result_name": "case 7"})
    SaveImaged("pred", output_dir=monais, **settings)(named)
    assert [p.name for p in (tmp_path / "a").iterdir()] == ["case 7_seg.nii.gz"]
    one, other = (nib.load(folder / "case 7_seg.nii.gz") for folder in (tmp_path / "a", monais))
    assert one.header == other.header
    np.testing.assert_array_equal(np.asarray(one.dataobj), np.asarray(other.dataobj))
    assert isinstance(ours, SaveImaged)  # MONAI Label leaves out what is one, and loads by what is the other
    assert isinstance(LoadCased("image"), LoadImaged)


def test_the_cache_keeps_items_apart_and_the_same(volume, label, tmp_path):
    for name in ("a", "b", "c"):
        volume(f"d/imagesTr/{name}.nii.gz", axes="LPS"), label(f"d/labelsTr/{name}.nii.gz", axes="LPS")
    ready = prepare_cases(
        str(tmp_path / "d"), purpose="finetuning", spatial_dims=2, slices={"axis": 1, "every": 2},
        roi_size=4, cache_dir=str(tmp_path / "cache"), val_fraction=0.34,
    )  # fmt: skip
    assert (len(ready["train"]), len(ready["val"])) == (6, 3)  # slices 0, 2, 4 of three volumes
    assert not {c["subject"] for c in ready["train"]} & {c["subject"] for c in ready["val"]}
    transform = Compose(
        [
            LoadCased(["image", "label"], 2),
            OnImageGridd("label"),
            PlainOrientationd(["image", "label"]),
            Spacingd(["image", "label"], pixdim=ready["pixdim"], mode=["bilinear", "nearest"]),
            ScaleIntensityd("image"),
            Resized(["image", "label"], (8, 8), mode=["bilinear", "nearest"]),
        ]
    )
    cached = CachedVolumes(ready["train"], transform, cache_dir=str(tmp_path / "cache"), num_workers=2)
    assert len({cached.entry(case) for case in range(6)}) == 6
    for number, case in enumerate(ready["train"]):
        expected = transform(case)
        for key in ("image", "label"):
            torch.testing.assert_close(cached[number][key].as_tensor(), expected[key].as_tensor())
            torch.testing.assert_close(cached[number][key].affine, expected[key].affine)
        assert (cached[number]["id"], cached[number]["oriented"]) == (case["id"], True)


@pytest.mark.parametrize(("shape", "axis"), [((1, 6, 7), 0), ((5, 1, 7), 1), ((5, 6, 1), 2), ((5, 6), 2)])
def test_a_single_slice_says_which_axis_is_across_it(volume, shape, axis):
    got = LoadCased("image", 2)({"image": volume("a.nii.gz", voxels(shape))})
    assert (got["slice_axis"], got["oriented"]) == (axis, True)
    # in a PSR file i runs along y, j along z and k along x
    turned = LoadCased("image", 2)({"image": volume("b.nii.gz", voxels(shape), axes="PSR")})
    assert turned["slice_axis"] == {0: 1, 1: 2, 2: 0}[axis]

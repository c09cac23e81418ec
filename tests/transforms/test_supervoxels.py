"""Tests of the transform that adds supervoxels: what it keeps, what it computes once, what it refuses."""

import pytest
import skimage.segmentation
import torch
from monai.data import MetaTensor
from monai.transforms import Randomizable
from pretext3d.data.dataset import describe
from pretext3d.errors import UserError
from pretext3d.ops.slic import slic
from pretext3d.transforms import supervoxels
from pretext3d.transforms.supervoxels import Supervoxelsd

SHAPE = (5, 6, 7)
AFFINE = torch.tensor([[0.0, 3, 0, -10], [-2, 0, 0, 5], [0, 0, 4, 7], [0, 0, 0, 1]], dtype=torch.float64)


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def calls(monkeypatch, tmp_path) -> list[tuple]:
    """The arguments of every call of `slic`; labels are kept in a fresh folder."""
    seen = []

    def spy(*arguments):
        seen.append(arguments)
        return slic(*arguments)

    monkeypatch.setattr(supervoxels, "slic", spy)
    monkeypatch.setenv("PRETEXT3D_CACHE", str(tmp_path))
    return seen


@pytest.mark.parametrize("backend", ["torch", "skimage"])
def test_adds_labels_and_keeps_the_rest(calls, backend):
    image = MetaTensor(noise(2, *SHAPE), affine=AFFINE)
    before = image.clone()
    transform = Supervoxelsd(n_segments=8, backend=backend)
    result = transform({"image": image, "id": "a"})
    labels = result["supervoxels"]
    assert not isinstance(transform, Randomizable)
    assert result["image"] is image
    assert result["id"] == "a"
    assert torch.equal(image.as_tensor(), before.as_tensor())
    assert isinstance(labels, MetaTensor)
    assert torch.equal(labels.affine, AFFINE)
    assert (labels.shape, labels.dtype) == ((1, *SHAPE), torch.int32)
    assert labels.unique().tolist() == list(range(1, int(labels.max()) + 1))
    assert torch.equal(transform({"image": image})["supervoxels"], labels)
    describe(transform)  # it may stand in the cached part of a pipeline


def test_half_precision_of_both_kinds(calls):
    image = noise(2, *SHAPE).bfloat16()
    expected = Supervoxelsd(n_segments=8)({"image": image.float()})["supervoxels"]
    assert torch.equal(Supervoxelsd(n_segments=8)({"image": image})["supervoxels"], expected)
    half = image.half()  # bfloat16's 8 bits of mantissa fit into its 11
    assert torch.equal(Supervoxelsd(n_segments=8)({"image": half})["supervoxels"], expected)


def test_spacing_is_that_of_the_affine_over_its_mean(calls):
    # columns of the affine: 2, 3, 4 mm; geometric mean 24^(1/3) = 2.884499
    image = noise(1, *SHAPE)
    spacing = (0.693361, 1.040042, 1.386723)
    result = Supervoxelsd(n_segments=8)({"image": MetaTensor(image, affine=AFFINE)})
    assert calls[0][3] == pytest.approx(spacing)
    assert torch.equal(result["supervoxels"].as_tensor()[0], slic(image, 8, 0.15, spacing))
    plain = Supervoxelsd(n_segments=8)({"image": image.numpy()})["supervoxels"]
    assert type(plain) is torch.Tensor
    assert calls[1][3] == (1, 1, 1)
    finer = AFFINE.clone()
    finer[:3, :3] /= 4
    Supervoxelsd(n_segments=8)({"image": MetaTensor(image, affine=finer)})
    assert len(calls) == 2  # the same supervoxels at every resolution


def test_spacing_in_voxels_is_scikit_images_default(calls):
    smooth = torch.nn.functional.interpolate(noise(1, 2, 3, 3, 3), (12, 14, 16), mode="trilinear")[0]
    image = MetaTensor(smooth, affine=AFFINE)
    for backend in ("torch", "skimage"):
        settings = {"n_segments": 30, "backend": backend}
        plain = Supervoxelsd(**settings)({"image": image.as_tensor()})["supervoxels"]
        found = Supervoxelsd(**settings, spacing="voxels")({"image": image})["supervoxels"]
        assert torch.equal(found.as_tensor(), plain)
        assert not torch.equal(Supervoxelsd(**settings)({"image": image})["supervoxels"].as_tensor(), plain)
    expected = skimage.segmentation.slic(
        smooth.numpy(), n_segments=30, compactness=0.15, convert2lab=False, start_label=1, channel_axis=0
    )
    assert torch.equal(found.as_tensor()[0], torch.from_numpy(expected).int())


def test_computed_once_for_equal_content_and_settings(calls, tmp_path):
    image = noise(1, *SHAPE)
    for _ in range(3):
        Supervoxelsd(n_segments=8)({"image": image.clone()})
    assert len(calls) == 1
    mask = torch.ones(1, *SHAPE)
    mask[0, 0] = 0
    other = image.clone()
    other[0, 4, 5, 6] += 1
    for settings, sample in (
        ({}, {"image": other}),
        ({"n_segments": 9}, {"image": image}),
        ({"compactness": 0.2}, {"image": image}),
        ({"mask_key": "mask"}, {"image": image, "mask": torch.ones(1, *SHAPE)}),
        ({"mask_key": "mask"}, {"image": image, "mask": mask}),
        ({}, {"image": image.double()}),
        ({}, {"image": image.view(1, 7, 6, 5)}),
        ({}, {"image": MetaTensor(image, affine=AFFINE)}),
    ):
        before = len(calls)
        for _ in range(2):
            Supervoxelsd(**{"n_segments": 8, **settings})(sample)
        assert len(calls) == before + 1
    Supervoxelsd(n_segments=8, backend="skimage")({"image": image})
    assert len(list((tmp_path / "supervoxels").glob("*.npz"))) == len(calls) + 1
    Supervoxelsd(n_segments=8, cache_dir=str(tmp_path / "elsewhere"))({"image": image})
    assert len(list((tmp_path / "elsewhere" / "supervoxels").iterdir())) == 1


def test_format_is_part_of_the_key(calls, monkeypatch):
    Supervoxelsd(n_segments=8)({"image": noise(1, *SHAPE)})
    monkeypatch.setattr(supervoxels, "FORMAT", supervoxels.FORMAT + 1)
    Supervoxelsd(n_segments=8)({"image": noise(1, *SHAPE)})
    assert len(calls) == 2


@pytest.mark.parametrize("backend", ["torch", "skimage"])
def test_mask_and_several_keys(calls, backend):
    data = {"a": noise(1, *SHAPE), "b": noise(2, *SHAPE, seed=1), "roi": (noise(1, *SHAPE) < 0.8).float()}
    result = Supervoxelsd(("a", "b"), ("cut_a", "cut_b"), 8, backend=backend, mask_key="roi")(data)
    for key in ("cut_a", "cut_b"):
        assert torch.equal(result[key] > 0, data["roi"] > 0)
    passed = Supervoxelsd(("a", "c"), ("cut_a", "cut_c"), 8, allow_missing_keys=True)(data)
    assert "cut_a" in passed
    assert "cut_c" not in passed


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_labels_are_on_the_device_of_the_volume(calls):
    labels = Supervoxelsd(n_segments=8)({"image": noise(1, *SHAPE).cuda()})["supervoxels"]
    assert labels.is_cuda


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n_segments": 0}, "n_segments: found 0, expected an integer of 1 or more"),
        ({"compactness": -1.0}, "compactness: found -1.0, expected a number above 0"),
        ({"backend": "itk"}, "backend: found 'itk', expected one of torch, skimage"),
        ({"spacing": "cm"}, "slic_spacing: found 'cm', expected one of mm, voxels"),
        ({"output_key": ("a", "b")}, "output_key: found .'a', 'b'., expected one name for each of .'image'."),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    with pytest.raises(UserError, match=message):
        Supervoxelsd("image", **arguments)


@pytest.mark.parametrize(
    ("sample", "message"),
    [
        (
            {"t1": torch.zeros(6, 7)},
            r"t1: found shape \[6, 7\] of torch.float32, expected floating-point",
        ),
        ({"t1": torch.zeros(1, 5, 6, 7, dtype=torch.uint8)}, "t1: found shape .* of torch.uint8, expected"),
        ({"t1": torch.full((1, 5, 6, 7), torch.nan)}, "t1: found NaN or infinite values in 210 voxels"),
        ({"roi": torch.zeros(1, 5, 6, 7)}, "roi: found no voxel in it, expected one at least"),
        ({"roi": torch.ones(1, 7, 6, 5)}, r"roi: found shape \[7, 6, 5\], expected .*\[5, 6, 7\] of t1"),
        ({"roi": torch.ones(5, 6, 7)}, r"roi: found shape \[5, 6, 7\], expected \(1, i, j, k\)"),
        ({"roi": None}, "mask_key: the sample has no 'roi', found t1"),
        (
            {"t1": MetaTensor(noise(1, 5, 6, 7), affine=torch.diag(torch.tensor([1.0, 0, 1, 1])))},
            "affine: found",
        ),
    ],
)
def test_bad_samples_are_named(calls, sample, message):
    data = {"t1": noise(1, *SHAPE), "roi": torch.ones(1, *SHAPE), **sample}
    data = {key: value for key, value in data.items() if value is not None}
    with pytest.raises(UserError, match=message):
        Supervoxelsd("t1", mask_key="roi")(data)
    assert calls == []


def test_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"cache_dir: .*supervoxels cannot be written"):
        Supervoxelsd(n_segments=8, cache_dir=str(tmp_path / "file"))({"image": noise(1, *SHAPE)})


@pytest.mark.parametrize("backend", ["torch", "skimage"])
def test_images_have_superpixels(tmp_path, backend):
    affine = torch.diag(torch.tensor([2.0, 0.5, 9.0, 1.0]))  # of a slice 9 mm thick, which counts for nothing
    image = MetaTensor(noise(3, 30, 40), affine=affine)
    transform = Supervoxelsd(
        "image", n_segments=12, compactness=5.0, backend=backend, mask_key="mask", cache_dir=str(tmp_path)
    )
    mask = torch.ones(1, 30, 40)
    mask[:, :5] = 0
    result = transform({"image": image, "mask": mask})["supervoxels"]
    assert result.shape == (1, 30, 40)
    assert torch.equal(result.affine, image.affine)
    assert torch.equal(result.as_tensor() > 0, mask > 0)
    assert 6 <= result.max() <= 20
    if backend == "torch":  # lengths over their geometric mean, 1 mm: 2 and 0.5
        assert torch.equal(result[0].as_tensor(), slic(image.as_tensor(), 12, 5.0, (2.0, 0.5), mask[0] > 0))
    with pytest.raises(UserError, match=r"mask: found shape \[1, 30, 40, 1\], expected \(1, i, j\)"):
        transform({"image": image, "mask": mask[..., None]})

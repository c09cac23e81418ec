"""Random crops, flips and rotations: index geometry by hand, and its laws."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from monai.data import MetaTensor
from pretext3d.errors import UserError
from pretext3d.transforms import crops


def ramp(shape: tuple[int, ...] = (1, 5, 6, 7)) -> torch.Tensor:
    return torch.arange(float(np.prod(shape))).reshape(shape)


def test_window_of_roi_size_is_copied() -> None:
    volume = ramp()
    got = crops.crop_resize(volume, (1, 2, 3), (2, 3, 4), (2, 3, 4))
    torch.testing.assert_close(got, volume[:, 1:3, 2:5, 3:7])
    got.zero_()
    torch.testing.assert_close(volume, ramp())


def test_window_over_the_border_is_zero_there() -> None:
    got = crops.crop_resize(torch.ones(1, 5, 6, 7), (-1, 4, 0), (3, 4, 7), (3, 4, 7))
    expected = torch.zeros(1, 3, 4, 7)
    expected[:, 1:, :2] = 1  # one plane before axis 0, two behind axis 1
    torch.testing.assert_close(got, expected)


def test_halving_by_hand() -> None:
    # trilinear 4 -> 2 without aligned corners: means of the middle pairs (0, 1), (2, 3)
    volume = torch.arange(4.0).reshape(1, 4, 1, 1)
    got = crops.crop_resize(volume, (0, 0, 0), (4, 1, 1), (2, 1, 1))
    torch.testing.assert_close(got.flatten(), torch.tensor([0.5, 2.5]))


def test_scale_crop_bigger_and_smaller_than_the_volume() -> None:
    transform = crops.RandScaleCropd("image", (8, 4, 4), scale_range=(1, 1))
    for seed in range(50):
        transform.set_random_state(seed=seed)
        got = transform({"image": torch.ones(1, 5, 6, 7)})
        start = got["crop_start"].tolist()
        assert -3 <= start[0] <= 0  # the crop of 8 holds the whole axis of 5
        assert 0 <= start[1] <= 2
        assert 0 <= start[2] <= 3
        assert got["image"].sum() == 5 * 4 * 4
        assert got["crop_size"].tolist() == [8, 4, 4]


def test_scale_is_one_number_for_three_axes_and_covers_its_range() -> None:
    transform = crops.RandScaleCropd("image", (20, 40, 60), scale_range=(0.5, 1.5))
    sizes = []
    for seed in range(100):
        transform.set_random_state(seed=seed)
        sizes.append(transform({"image": torch.ones(1, 9, 9, 9)})["crop_size"])
    scale = torch.stack(sizes) / torch.tensor([20.0, 40.0, 60.0])
    assert (scale.amax(1) - scale.amin(1)).max() <= 1 / 20  # rounding to whole voxels
    assert scale.min() < 0.55
    assert scale.max() > 1.45


def test_empty_crops_are_drawn_again() -> None:
    volume = torch.zeros(1, 40, 8, 8)
    volume[:, 30:] = 1
    transform = crops.RandScaleCropd("image", (8, 8, 8), (1, 1), min_intensity=0.5, max_tries=200)
    for seed in range(20):
        transform.set_random_state(seed=seed)
        assert transform({"image": volume})["image"].mean() >= 0.5


def test_same_seed_same_crop_and_input_untouched() -> None:
    volume = ramp((2, 9, 9, 9))
    transform = crops.RandScaleCropd("image", (4, 4, 4))
    first = transform.set_random_state(seed=3) or transform
    a = transform({"image": volume})["image"]
    transform.set_random_state(seed=3)
    torch.testing.assert_close(a, transform({"image": volume})["image"])
    torch.testing.assert_close(volume, ramp((2, 9, 9, 9)))
    assert first is transform


def test_there_are_48_orientations_and_no_others() -> None:
    transform = crops.RandFlipRotate90d("image")
    seen = set()
    for seed in range(1500):
        transform.set_random_state(seed=seed)
        transform.randomize()
        seen.add(transform.orientation.astype(int).tobytes())
    assert len(seen) == 48


def test_prob_zero_is_identity() -> None:
    transform = crops.RandFlipRotate90d("image", flip_prob=0, rotate_prob=0)
    got = transform({"image": ramp()})
    torch.testing.assert_close(got["image"], ramp())
    torch.testing.assert_close(got["orientation"], torch.eye(3))


def test_only_named_axes_are_flipped() -> None:
    transform = crops.RandFlipRotate90d("image", flip_axes=[1], rotate_axes=[])
    seen = set()
    for seed in range(30):
        transform.set_random_state(seed=seed)
        seen.add(tuple(transform({"image": ramp()})["orientation"].diag().tolist()))
    assert seen == {(1, 1, 1), (1, -1, 1)}


@pytest.mark.parametrize(
    ("arguments", "key"),
    [
        ({"flip_axes": [3]}, "flip_axes"),
        ({"rotate_axes": [-1]}, "rotate_axes"),
        ({"flip_prob": 7}, "flip_prob"),
        ({"rotate_prob": -1}, "rotate_prob"),
    ],
)
def test_bad_flip_arguments_are_named(arguments: dict, key: str) -> None:
    with pytest.raises(UserError, match=key):
        crops.RandFlipRotate90d("image", **arguments)


@pytest.mark.parametrize(
    ("arguments", "key"),
    [
        ({"roi_size": (4,)}, "roi_size"),
        ({"roi_size": (4, 4, 0)}, "roi_size"),
        ({"roi_size": (4, 4, 4), "scale_range": (2, 1)}, "scale_range"),
        ({"roi_size": (4, 4, 4), "max_tries": 0}, "max_tries"),
    ],
)
def test_bad_crop_arguments_are_named(arguments: dict, key: str) -> None:
    with pytest.raises(UserError, match=key):
        crops.RandScaleCropd("image", **arguments)


def test_unequal_edges_cannot_turn() -> None:
    transform = crops.RandFlipRotate90d("image", flip_axes=[], rotate_axes=[0], rotate_prob=1)
    transform.set_random_state(seed=0)
    volumes = ({"image": ramp((1, 4, 4, 6))} for _ in range(20))
    with pytest.raises(UserError, match="rotate_axes"):
        list(map(transform, volumes))


# -------------------------------------------------------------------------------------------------------- 2D
def test_image_window_by_hand():
    got = crops.crop_resize(torch.ones(3, 5, 6), (-1, 4), (3, 4), (3, 4))
    expected = torch.zeros(3, 3, 4)
    expected[:, 1:, :2] = 1  # one row before axis 0, two columns behind axis 1
    torch.testing.assert_close(got, expected)
    # bilinear 4 -> 2 without aligned corners: means of the middle pairs (0, 1), (2, 3)
    torch.testing.assert_close(
        crops.crop_resize(torch.arange(4.0).reshape(1, 4, 1), (0, 0), (4, 1), (2, 1)).flatten(),
        torch.tensor([0.5, 2.5]),
    )


@given(st.integers(0, 100))
def test_crop_of_an_image_is_that_of_a_volume_constant_along_z(seed):
    image = torch.rand(2, 30, 20, generator=torch.Generator().manual_seed(seed))
    start, size = (seed % 7 - 3, seed % 5 - 2), (12 + seed % 9, 10 + seed % 4)
    flat = crops.crop_resize(image, start, size, (8, 6))
    volume = crops.crop_resize(image[..., None].expand(-1, -1, -1, 4), (*start, 0), (*size, 4), (8, 6, 3))
    torch.testing.assert_close(volume, flat[..., None].expand(-1, -1, -1, 3))


def test_scale_crop_of_images():
    transform = crops.RandScaleCropd(["image", "label"], (8, 4), scale_range=(0.5, 2))
    image = ramp((3, 9, 7))
    for seed in range(30):
        transform.set_random_state(seed=seed)
        got = transform({"image": image, "label": torch.ones(1, 9, 7)})
        assert got["image"].shape == (3, 8, 4)
        assert got["label"].shape == (1, 8, 4)
        assert got["crop_start"].shape == got["crop_size"].shape == (2,)
        assert 4 <= got["crop_size"][0] <= 16
    torch.testing.assert_close(image, ramp((3, 9, 7)))


@pytest.mark.parametrize(("roi_size", "shape"), [((4, 4), (1, 5, 6, 7)), ((4, 4, 4), (1, 5, 6))])
def test_roi_size_has_a_number_for_each_axis(roi_size, shape):
    count = "three" if len(shape) == 4 else "two"
    with pytest.raises(UserError, match=f"roi_size: found .*, expected {count} sizes for these volumes"):
        crops.RandScaleCropd("image", roi_size)({"image": torch.ones(shape)})


def test_there_are_8_orientations_of_an_image_and_the_matrix_says_where_pixels_go():
    transform = crops.RandFlipRotate90d("image", spatial_dims=2)
    image, seen = ramp((1, 4, 4)), set()
    for seed in range(200):
        transform.set_random_state(seed=seed)
        got = transform({"image": image})
        matrix = got["orientation"].numpy()
        assert matrix.shape == (2, 2)
        seen.add(matrix.astype(int).tobytes())
        for pixel in itertools.product(range(4), repeat=2):
            i, j = np.rint(matrix @ (np.array(pixel) - 1.5) + 1.5).astype(int)
            assert got["image"][0, i, j] == image[0][pixel]
    assert len(seen) == 8


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"flip_axes": [2]}, r"flip_axes: found \[2\], expected a list of axes out of 0, 1$"),
        (
            {"rotate_axes": [0]},
            r"rotate_axes: found \[0\], expected a list of axes out of 2 .*plane",
        ),
    ],
)
def test_axes_that_images_do_not_have(arguments, message):
    with pytest.raises(UserError, match=message):
        crops.RandFlipRotate90d("image", **arguments, spatial_dims=2)
    with pytest.raises(UserError, match="spatial_dims: found 3, expected 2 for these volumes"):
        crops.RandFlipRotate90d("image")({"image": ramp((1, 4, 4))})


# ------------------------------------------------------------------------------------ the box of the body
def body(*shape: int) -> MetaTensor:
    """Air of 2, a body of 102 in the voxels (1, 1, 2) to (2, 3, 3); voxels of 2 x 1 x 3 mm."""
    image = torch.full((1, *shape), 2.0)
    image[0, 1:3, 1:4, 2:4] = 102.0
    image[0, 0, 0, 0] = 7.0  # 5 % of the range: not above it
    return MetaTensor(image, affine=torch.diag(torch.tensor([2.0, 1.0, 3.0, 1.0])))


def test_the_body_is_cut_out_and_resized() -> None:
    volume = body(4, 6, 5)
    got = crops.ResizeBodyd("image", size=[4, 3, 2])({"image": volume})["image"]
    torch.testing.assert_close(got.as_tensor(), torch.full((1, 4, 3, 2), 102.0))
    # 2 voxels of 2 mm have become 4 of 1 mm; the first voxel is where it was, but for half a voxel's length
    torch.testing.assert_close(got.affine.diagonal(), torch.tensor([1.0, 1.0, 3.0, 1.0]).double())
    torch.testing.assert_close(got.affine[:3, 3], torch.tensor([2.0 - 0.5, 1.0, 6.0]).double())
    assert torch.equal(volume.as_tensor(), body(4, 6, 5).as_tensor())


def test_any_channel_belongs_to_the_body() -> None:
    image = torch.zeros(2, 4, 4)
    image[0, 1, 1] = 1
    image[1, 2, 3] = 100
    got = crops.ResizeBodyd("image", size=[2, 3], spatial_dims=2)({"image": image})["image"]
    torch.testing.assert_close(got, image[:, 1:3, 1:4])


def test_without_a_threshold_or_a_body_the_whole_volume_is_resized() -> None:
    volume = body(4, 6, 5)
    whole = crops.ResizeBodyd("image", size=[4, 6, 5], threshold=None)({"image": volume})["image"]
    torch.testing.assert_close(whole.as_tensor(), volume.as_tensor())
    flat = torch.ones(1, 2, 2, 2)
    assert crops.ResizeBodyd("image", size=1)({"image": flat})["image"].shape == (1, 1, 1, 1)


def test_shrinking_a_body_averages_it() -> None:
    """A checkerboard of 0 and 1 with a period of 2 becomes its mean; plain interpolation would alias it."""
    i, j, k = torch.meshgrid(*[torch.arange(16.0)] * 3, indexing="ij")
    board = ((i + j + k) % 2)[None]
    got = crops.ResizeBodyd("image", size=4)({"image": board})["image"]
    torch.testing.assert_close(got, torch.full((1, 4, 4, 4), 0.5), atol=0.02, rtol=0)


@pytest.mark.parametrize(
    ("shape", "size"),
    [((17, 9, 31), (4, 12, 7)), ((64, 60, 20), (16, 16, 16)), ((50, 31), (8, 40)), ((5, 6, 7), (5, 6, 7))],
)
def test_a_constant_volume_has_no_frame(shape: tuple[int, ...], size: tuple[int, ...]) -> None:
    """A darker border would show where a patch lies, and how a volume is rotated."""
    got = crops.resize(torch.full((2, *shape), 3.0), size)
    torch.testing.assert_close(got, torch.full((2, *size), 3.0))


def test_axes_are_resized_one_by_one() -> None:
    """By hand along each axis, weights of a triangle 2 voxels wide on both sides, normalised in the volume.

    [0, 2, 4, 6] at 2 voxels: the first one's centre is at 1 between the edges, the distances 0.5, 0.5, 1.5:
    weights 0.75, 0.75, 0.25, (0 + 1.5 + 1) / 1.75 = 10 / 7; the second one's mirror image is 6 - 10 / 7.
    """
    ramp = torch.tensor([0.0, 2.0, 4.0, 6.0])
    low, high = 10 / 7, 6 - 10 / 7
    for axis in range(3):
        volume = ramp.view(1, *[4 if a == axis else 1 for a in range(3)]).expand(1, 4, 4, 4)
        size = tuple(2 if a == axis else 4 for a in range(3))
        expected = torch.tensor([low, high]).view(1, *[2 if a == axis else 1 for a in range(3)])
        torch.testing.assert_close(crops.resize(volume, size), expected.expand(1, *size))
    plane = ramp.view(1, 4, 1).expand(1, 4, 3)
    torch.testing.assert_close(
        crops.resize(plane, (2, 3)), torch.tensor([low, high]).view(1, 2, 1).expand(1, 2, 3)
    )


@pytest.mark.parametrize(
    ("key", "arguments"),
    [
        ("body_size", {"size": [4, 4]}),
        ("body_size", {"size": 0}),
        ("body_threshold", {"size": 4, "threshold": 1.0}),
    ],
)
def test_a_wrong_body_box(key: str, arguments: dict) -> None:
    with pytest.raises(UserError, match=rf"^{key}: found"):
        crops.ResizeBodyd("image", **arguments)
    with pytest.raises(UserError, match=r"^body_size"):
        crops.ResizeBodyd("image", size=4)({"image": torch.ones(1, 4, 4)})

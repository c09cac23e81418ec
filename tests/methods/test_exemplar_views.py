import math
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from monai.bundle import ConfigParser
from monai.data import MetaTensor
from pretext3d.data.subjects import case_code, subject_code
from pretext3d.errors import UserError
from pretext3d.methods.exemplar.views import (
    RandViewsd,
    Views,
    apply_views,
    resample,
    rotations,
    sampling_matrices,
)
from pretext3d.ops.rotations import rotation_matrix

AFFINE = np.diag([2.0, 1.0, 3.0, 1.0])
NOTHING = {f"{name}_prob": 0.0 for name in ("flip", "rotate", "zoom", "shift", "brightness", "contrast")}


def matrices(dims=3, flipped=(), angle=0.0, axis=(0.0, 0.0, 1.0), zoom=1.0, shift=None):
    """Sampling matrices of one view."""
    flips = torch.tensor([[a in flipped for a in range(dims)]])
    about = None if dims == 2 else torch.tensor([axis], dtype=torch.float64)
    rotation = rotations(torch.tensor([angle], dtype=torch.float64), about)
    move = torch.tensor([shift or [0.0] * dims], dtype=torch.float64)
    return sampling_matrices(flips, rotation, torch.tensor([zoom], dtype=torch.float64), move)


def numbered(*shape):
    return MetaTensor(
        torch.arange(1.0, 1 + math.prod(shape)).reshape(shape) / math.prod(shape), affine=AFFINE
    )


def sample(image, seed=0, case=None, **options):
    transform = RandViewsd(spatial_dims=image.ndim - 1, **options)
    transform.set_random_state(seed=seed)
    return transform({"id": "a", "image": image, **(case or {})})


# ---------------------------------------------------------------------------------------- the one resampling
@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("quarters", [1, 2, 3])
def test_right_angles_are_rot90_in_3d(axis, quarters):
    """About axis 0 from axis 1 to 2, about 1 from 2 to 0, about 2 from 0 to 1; cubes, so that shapes stay."""
    image = torch.rand(1, 2, 5, 5, 5)
    plane = ((axis + 1) % 3, (axis + 2) % 3)
    got = resample(image, matrices(angle=90.0 * quarters, axis=[float(a == axis) for a in range(3)]))
    expected = torch.rot90(image, quarters, [2 + a for a in plane])
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-5)


def test_a_right_angle_is_rot90_in_2d():
    image = torch.rand(1, 3, 6, 6)
    torch.testing.assert_close(
        resample(image, matrices(2, angle=90.0)), torch.rot90(image, 1, [2, 3]), rtol=0, atol=1e-5
    )


def test_rotations_are_those_of_the_package():
    for axis in range(3):
        about = torch.eye(3, dtype=torch.float64)[[axis]]
        got = rotations(torch.tensor([90.0], dtype=torch.float64), about)
        torch.testing.assert_close(got[0], torch.from_numpy(rotation_matrix(axis, 1)), rtol=0, atol=1e-12)


def test_a_rotation_by_a_third_about_the_diagonal_takes_each_axis_to_the_next():
    """About (1, 1, 1), of any length, by 120 degrees: e0 to e1, e1 to e2, e2 to e0."""
    got = rotations(torch.tensor([120.0], dtype=torch.float64), 5 * torch.ones(1, 3, dtype=torch.float64))
    torch.testing.assert_close(got[0], torch.eye(3, dtype=torch.float64).roll(1, 0), rtol=0, atol=1e-12)


@pytest.mark.parametrize("axes", [(0,), (1,), (2,), (0, 2)])
def test_a_flip_is_a_flip(axes):
    image = torch.rand(2, 1, 5, 6, 7)
    got = resample(image, matrices(flipped=axes).expand(2, 3, 4))
    torch.testing.assert_close(got, image.flip([2 + a for a in axes]), rtol=0, atol=1e-5)


def test_a_zoom_by_two_by_hand():
    """A ramp 0, 1, 2, 3 of four voxels, centre 1.5: voxel y shows 1.5 + (y - 1.5) / 2 = 0.75, 1.25, ..."""
    ramp = torch.arange(4.0).reshape(1, 1, 4, 1).expand(1, 1, 4, 3)
    got = resample(ramp, matrices(2, zoom=2.0))
    torch.testing.assert_close(got[0, 0, :, 1], torch.tensor([0.75, 1.25, 1.75, 2.25]))


def test_a_shift_by_hand():
    """By +1 along axis 1: voxel y shows y - 1, and outside 0."""
    image = torch.arange(12.0).reshape(1, 1, 3, 4)
    got = resample(image, matrices(2, shift=[0.0, 1.0]))
    expected = torch.tensor([[0.0, 0, 1, 2], [0, 4, 5, 6], [0, 8, 9, 10]])
    torch.testing.assert_close(got[0, 0], expected, rtol=0, atol=1e-5)


def test_the_order_is_flip_rotate_zoom_shift():
    """Each point of the image is where its own motions, one after the other, take it; sizes differ.

    Point p = (1, 0), in voxels from the centre: flipped along axis 0 to (-1, 0), rotated by 90 degrees to
    (0, -1), zoomed by 2 to (0, -2), shifted by (1, 0.5) to (1, -1.5).
    """
    matrix = matrices(2, (0,), 90.0, zoom=2.0, shift=[1.0, 0.5])[0]
    at = torch.tensor([1.0, -1.5, 1.0], dtype=torch.float64)
    torch.testing.assert_close(matrix @ at, torch.tensor([1.0, 0.0], dtype=torch.float64))
    image = torch.zeros(1, 1, 7, 9)
    image[0, 0, 3 + 1, 4] = 1.0  # p = (1, 0) from the centre (3, 4)
    got = resample(image, matrices(2, (0,), 90.0, zoom=2.0, shift=[1.0, 0.5]))
    # (1, -1.5): between the columns 4 - 2 and 4 - 1 of row 3 + 1, a quarter of a voxel of the image from both
    torch.testing.assert_close(got[0, 0, 4, 2:4], torch.tensor([0.75, 0.75]), rtol=0, atol=1e-5)


def test_a_rotation_keeps_lengths_in_voxels_where_sizes_differ():
    """A bar of 4 voxels along the short axis is one of 4 voxels along the long axis after 90 degrees."""
    image = torch.zeros(1, 1, 6, 10)
    image[0, 0, 1:5, 4:6] = 1.0
    got = resample(image, matrices(2, angle=90.0))
    expected = torch.zeros(6, 10)
    expected[2:4, 3:7] = 1.0
    torch.testing.assert_close(got[0, 0], expected, rtol=0, atol=1e-5)


def test_a_batch_gives_what_each_of_its_images_gives():
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(3, 2, 5, 6, 7, generator=generator)
    views = Views(
        torch.cat([matrices(angle=30.0 * n, axis=(1.0, n, 2.0), zoom=1 + n / 5) for n in range(3)]).float(),
        *(torch.rand(3, 2, generator=generator) for _ in range(3)),
    )
    whole = apply_views(images, views)
    for n in range(3):
        alone = apply_views(images[n : n + 1], Views(*(part[n : n + 1] for part in views)))
        torch.testing.assert_close(whole[n : n + 1], alone)


# --------------------------------------------------------------------------------------------- the transform
@pytest.mark.parametrize("shape", [(2, 5, 6, 7), (3, 8, 6)])
def test_without_any_change_a_view_is_the_image(shape):
    image = numbered(*shape)
    got = sample(image, anchor="view", **NOTHING)
    assert not isinstance(got["image"], MetaTensor)
    assert got["image"].shape == (2, *shape)
    torch.testing.assert_close(got["image"], image.as_tensor().expand(2, *shape), rtol=0, atol=1e-5)


def test_the_anchor_is_the_image_or_a_view_of_its_own():
    image = numbered(1, 6, 7, 5)
    before = image.clone()
    plain, view = (sample(image, anchor=anchor)["image"] for anchor in ("image", "view"))
    assert torch.equal(plain[0], image.as_tensor())
    assert not torch.allclose(plain[0], plain[1])
    assert not torch.allclose(view[0], image.as_tensor())
    assert not torch.allclose(view[0], view[1])
    assert torch.equal(image, before)


def test_same_seed_same_views():
    first, again, other = (sample(numbered(1, 6, 7, 5), seed)["image"] for seed in (3, 3, 4))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_a_draw_can_be_applied_again():
    image = torch.rand(1, 5, 6, 7)
    transform = RandViewsd().set_random_state(seed=1)
    got = transform({"id": "a", "image": image})["image"][1]
    torch.testing.assert_close(got, apply_views(image[None], transform.views)[0])


def drawn(dims=3, count=200, channels=1, **options):
    """Parameters of many views."""
    transform = RandViewsd(anchor="view", spatial_dims=dims, **{**NOTHING, **options})
    transform.set_random_state(seed=0)
    parts = []
    for _ in range(count // 2):
        transform.randomize((channels, *range(10, 10 + dims)))
        parts.append(transform.views)
    return Views(*(torch.cat([part[n] for part in parts]) for n in range(4) if parts[0][n] is not None))


def test_flips_come_with_their_probability_on_their_axes():
    linear = drawn(flip_prob=0.5, flip_axes=[0, 2]).matrices[:, :, :3]
    flipped = (linear.diagonal(dim1=1, dim2=2) < 0).float().mean(0)
    torch.testing.assert_close(flipped, torch.tensor([0.5, 0.0, 0.5]), atol=0.11, rtol=0)  # 3 standard errors


@pytest.mark.parametrize("dims", [2, 3])
def test_angles_are_in_their_range(dims):
    """Of a rotation matrix: trace 1 + 2 cos(a) in 3D, 2 cos(a) in 2D."""
    linear = drawn(dims, rotate_prob=1.0, rotate_range=40.0).matrices[:, :, :dims].double()
    torch.testing.assert_close(
        linear @ linear.transpose(1, 2), torch.eye(dims).double().expand(200, dims, dims), atol=1e-6, rtol=0
    )
    cos = (linear.diagonal(dim1=1, dim2=2).sum(1) - (dims - 2)) / 2
    angles = cos.clamp(-1, 1).acos().rad2deg()
    assert float(angles.max()) <= 40.01
    assert float(angles.max()) > 35
    assert abs(float(angles.mean()) - 20) < 2.5  # uniform from 0 to 40: standard error 0.8


def test_axes_point_anywhere():
    """The mean of u u^T over all directions is I / 3."""
    rotation = drawn(rotate_prob=1.0, rotate_range=90.0, count=1000).matrices[:, :, :3].double()
    axis = torch.stack([rotation[:, a, b] - rotation[:, b, a] for a, b in ((2, 1), (0, 2), (1, 0))], 1)
    axis = axis / axis.norm(dim=1, keepdim=True)
    torch.testing.assert_close(
        axis.T @ axis / 1000, torch.eye(3).double() / 3, atol=0.04, rtol=0
    )  # standard error 0.01


def test_zooms_are_as_often_in_as_out():
    linear = drawn(zoom_prob=1.0, zoom_range=[0.5, 2.0]).matrices[:, 0, 0]
    assert float(linear.min()) >= 0.5
    assert float(linear.max()) <= 2.0
    assert abs(float((linear > 1).float().mean()) - 0.5) < 0.11


def test_shifts_are_parts_of_each_axis():
    moved = drawn(shift_prob=1.0, shift_range=0.2).matrices[:, :, 3].abs().amax(0)
    limits = torch.tensor([2.0, 2.2, 2.4])  # a fifth of 10, 11, 12 voxels
    assert (moved <= limits).all()
    assert (moved > 0.9 * limits).all()


def test_half_of_the_views_are_changed():
    views = drawn(contrast_prob=0.5, contrast_range=[0.5, 0.6], brightness_prob=0.25)
    assert abs(float((views.contrast < 1).float().mean()) - 0.5) < 0.11
    assert abs(float((views.brightness != 0).float().mean()) - 0.25) < 0.1


def test_gamma_by_hand():
    """Square roots of 0, 0.25, 0.81 and of 0 in place of -1, then (x - mean) * 2 + mean."""
    image = torch.tensor([0.0, 0.25, 0.81, -1.0]).reshape(1, 1, 2, 2)
    half = torch.tensor([[0.5]])
    got = apply_views(image, Views(matrices(2).float(), 4 * half, 0 * half, half))
    roots = torch.tensor([[0.0, 0.5], [0.9, 0.0]])
    torch.testing.assert_close(got[0, 0], 2 * (roots - 0.35) + 0.35, rtol=0, atol=1e-5)
    assert image.min() == -1  # the image itself stays


def test_gamma_is_drawn_last_and_only_if_asked_for():
    """The other changes of a seed are the same with it; all channels have one exponent, or each its own."""
    keys = {"contrast_prob": 1.0, "rotate_prob": 1.0, "channels": 2, "count": 2}
    without, shared = drawn(**keys), drawn(**keys, gamma_prob=1.0, gamma_range=[0.5, 0.6])
    assert without.gamma is None
    assert all(torch.equal(one, other) for one, other in zip(without[:3], shared[:3], strict=True))
    assert ((shared.gamma >= 0.5) & (shared.gamma <= 0.6)).all()
    assert torch.equal(shared.gamma[:, 0], shared.gamma[:, 1])
    own = drawn(**keys, gamma_prob=1.0, per_channel=True).gamma
    assert not torch.isclose(own[:, 0], own[:, 1]).any()


def test_channels_share_their_colour_or_have_their_own():
    options = {"contrast_prob": 1.0, "brightness_prob": 1.0, "channels": 3}
    shared, own = (drawn(dims=2, per_channel=each, **options) for each in (False, True))
    for part in (1, 2):
        assert torch.equal(shared[part][:, 0], shared[part][:, 2])
        assert not torch.isclose(own[part][:, 0], own[part][:, 2]).any()


def test_who_and_what_a_sample_is_of():
    """Two volumes of one subject: the same subject, another case."""
    cases = [{"id": f"p1_{phase}", "subject": "p1", "source": "heart"} for phase in ("ed", "es")]
    got = [sample(numbered(1, 5, 6, 7), case=case) for case in cases]
    assert int(got[0]["subject_code"]) == int(got[1]["subject_code"]) == subject_code(cases[0])
    assert [int(g["case_code"]) for g in got] == [case_code(case) for case in cases]
    assert int(got[0]["case_code"]) != int(got[1]["case_code"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"anchor": "both"}, "anchor: found 'both', expected one of image, view"),
        ({"flip_prob": 7}, "flip_prob: found 7"),
        ({"flip_axes": [3]}, r"flip_axes: found \[3\]"),
        ({"rotate_range": 270}, r"rotate_range: found 270, expected a number in \[0, 180\]"),
        ({"zoom_range": [2, 1]}, r"zoom_range: found \[2, 1\], expected two numbers 0 < low <= high"),
        ({"zoom_range": 2}, "zoom_range: found 2"),
        ({"zoom_range": [0, 1]}, r"zoom_range: found \[0, 1\]"),
        ({"shift_range": -0.1}, "shift_range: found -0.1"),
        ({"brightness_range": -0.1}, "brightness_range: found -0.1"),
        ({"contrast_range": [1, "2"]}, r"contrast_range: found \[1, '2'\]"),
        ({"contrast_prob": True}, "contrast_prob: found True"),
        ({"gamma_prob": 2}, "gamma_prob: found 2"),
        ({"gamma_range": [0, 2]}, r"gamma_range: found \[0, 2\], expected two numbers 0 < low <= high"),
        ({"per_channel": "no"}, "per_channel: found 'no', expected True or False"),
    ],
)
def test_impossible_views(options, message):
    with pytest.raises(UserError, match=message):
        RandViewsd(**options)


def test_axes_that_an_image_does_not_have():
    with pytest.raises(UserError, match=r"flip_axes: found \[2\], expected a list of axes out of 0, 1"):
        RandViewsd(flip_axes=[2], spatial_dims=2)
    with pytest.raises(UserError, match=r"image: found shape \[1, 5, 6\], expected \(c, i, j, k\)"):
        RandViewsd()({"id": "a", "image": torch.rand(1, 5, 6)})


@pytest.mark.parametrize("profile", ["paper", "laptop"])
@pytest.mark.parametrize("dims", [2, 3])
def test_the_bundle_resizes_bodies_to_the_size_of_its_record(profile, dims):
    """`roi_size` alone decides, which the record has: there is no key for another size of the body."""
    config = Path(__file__).parents[2] / "bundles" / "exemplar" / "configs" / "train.yaml"
    parser = ConfigParser(yaml.safe_load(config.read_text()))
    parser.update({"profile": profile, "spatial_dims": dims, "roi_size": 40})
    steps = parser["train"]["preprocessing"]["transforms"]
    (place,) = (n for n, step in enumerate(steps) if "ResizeBodyd" in str(step))
    resize = parser.get_parsed_content(f"train::preprocessing::transforms::{place}")
    assert list(resize.size) == list(parser.get_parsed_content("crop_size")) == [40] * dims
    assert parser["backbone"]["roi_size"] == "@crop_size"  # what the record has of it
    assert "body_size" not in parser.config

"""Renderings: outlines, filled, textured; their random numbers; what intensity gives away."""

import numpy as np
import pytest
import torch
from pretext3d.errors import UserError
from pretext3d.methods.avsdb.placement import Placement
from pretext3d.methods.avsdb.rendering import GREY, Look, rendering, smooth
from pretext3d.methods.avsdb.volumes import ShapeVolumes

SIZE = (12, 10, 8)


def scene(size: tuple[int, int, int] = SIZE) -> Placement:
    """One cuboid of 6 x 6 x 4 voxels with an outline of two voxels in each slice."""
    codes = torch.zeros(size, dtype=torch.int16)
    codes[2:8, 2:8, 1:5] = 1
    codes[4:6, 4:6, 1:5] = 2
    return Placement(codes, [0], [0.0], [(5, 5, 3)])


def full(size: tuple[int, int, int] = SIZE) -> Placement:
    """One shape everywhere."""
    return Placement(torch.full(size, 2, dtype=torch.int16), [0], [0.0], [(0, 0, 0)])


def image(changes: dict, render: str = "filled", seed: int = 0) -> torch.Tensor:
    return Look(np.random.default_rng(seed), rendering(render, changes), 1, SIZE).draw(scene())


def test_outline_by_hand() -> None:
    """32 voxels of the border of each of four slices have 128 of 255, all others 0."""
    found = image({}, "outline")
    assert found.unique().tolist() == [0.0, pytest.approx(128 / 255)]
    assert int((found > 0).sum()) == 4 * 32
    assert torch.equal(found > 0, scene().codes == 1)


def test_filled_by_hand() -> None:
    found = image({})
    assert torch.equal(found > 0, scene().codes > 0)
    assert found.max() == pytest.approx(GREY)


def test_a_hollow_shape_has_the_background_inside() -> None:
    found = image({"hollow": 1.0, "background": [0.25, 0.25], "brightness": [0.75, 0.75]})
    expected = torch.where(scene().codes == 1, 0.75, 0.25)
    torch.testing.assert_close(found, expected)


def test_noise_has_its_standard_deviation_and_is_clipped() -> None:
    look = Look(np.random.default_rng(0), rendering("filled", {"noise": [0.1, 0.1]}), 1, (40, 40, 40))
    found = look.draw(full((40, 40, 40)))
    assert float(found.std()) == pytest.approx(0.1, rel=0.02)
    assert float(found.mean()) == pytest.approx(GREY, abs=0.002)
    strong = image({"noise": [1.0, 1.0]})
    assert strong.min() == 0
    assert strong.max() == 1


def test_blur_keeps_the_mean_and_a_constant_image() -> None:
    sharp, blurred = image({}), image({"blur": [1.0, 1.0]})
    assert float(blurred.sum()) == pytest.approx(float(sharp.sum()), rel=0.03)
    assert float(blurred.max()) < float(sharp.max())
    look = Look(np.random.default_rng(0), rendering("filled", {"blur": [1.0, 1.0]}), 1, SIZE)
    constant = look.draw(full())
    torch.testing.assert_close(constant, torch.full(SIZE, GREY))


def test_blur_reaches_along_a_short_axis_too() -> None:
    """Of a step along k in 16 slices, with a Gaussian of 4 voxels: half at the step."""
    codes = torch.zeros((24, 24, 16), dtype=torch.int16)
    codes[..., 8:] = 2
    placement = Placement(codes, [0], [0.0], [(0, 0, 0)])
    look = Look(np.random.default_rng(0), rendering("filled", {"blur": [4.0, 4.0]}), 1, codes.shape)
    found = look.draw(placement)[12, 12] / GREY
    torch.testing.assert_close(found[7] + found[8], torch.tensor(1.0))
    assert 0.4 < float(found[7]) < 0.5
    assert 0.05 < float(found[2]) < 0.1


def test_bias_is_a_smooth_factor() -> None:
    look = Look(np.random.default_rng(0), rendering("filled", {"bias_field": [0.2, 0.2]}), 1, SIZE)
    found = look.draw(full())
    points = look.bias_points
    assert points is not None
    assert float(found[0, 0, 0]) == pytest.approx(GREY * np.exp(0.2 * points[0, 0, 0]), rel=1e-5)
    assert float(found[-1, -1, -1]) == pytest.approx(GREY * np.exp(0.2 * points[2, 2, 2]), rel=1e-5)


def test_smooth_interpolates_between_corners() -> None:
    found = smooth(np.asarray([[0.0, 1.0], [2.0, 3.0]], dtype=np.float32), torch.zeros(3, 5))
    expected = [[0, 0.25, 0.5, 0.75, 1], [1, 1.25, 1.5, 1.75, 2], [2, 2.25, 2.5, 2.75, 3]]
    torch.testing.assert_close(found, torch.tensor(expected))


def test_every_shape_has_a_mean_off_the_background() -> None:
    for seed in range(50):
        look = Look(np.random.default_rng(seed), rendering("textured"), 30, SIZE)
        assert (np.abs(look.means - look.background) >= 0.1).all()
        assert len(set(look.means)) == 30


def test_intensity_does_not_give_a_class_away() -> None:
    """The mean intensities of the classes, over 200 volumes, agree up to four standard errors."""
    generate = ShapeVolumes((24, 24, 24), xy_classes=2, z_classes=2, num_shapes=4, render="textured")
    means: list[list[float]] = [[] for _ in range(5)]
    for seed in range(200):
        sample = generate(np.random.default_rng(seed), seed)
        for number in range(1, 5):
            voxels = sample["image"][sample["label"] == number]
            if len(voxels) > 20:
                means[number].append(float(voxels.mean()))
    overall = np.mean(np.concatenate(means[1:]))
    for values in means[1:]:
        assert abs(np.mean(values) - overall) < 4 * np.std(values) / np.sqrt(len(values))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"noise": [0.2, 0.1]},
            r"rendering::noise: found \[0.2, 0.1\], expected two numbers of 0 or more and 1 or",
        ),
        ({"brightness": 0.5}, "rendering::brightness: found 0.5"),
        (
            {"texture_size": [0.001, 3]},
            "rendering::texture_size: found .0.001, 3.*, expected voxels, 1 or more",
        ),
        ({"texture_size": [0, 3]}, "rendering::texture_size: found .* two numbers above 0 and 512"),
        ({"hollow": 2}, r"rendering::hollow: found 2, expected a number in \[0, 1\]"),
        ({"contrast": 0.3}, r"rendering::contrast: found 0.3, expected a number in \[0, 0.2\], a quarter of"),
        ({"brightness": [0, 200]}, r"rendering::brightness: found \[0, 200\], .* 1 or less"),
        ({"background": [0, 2]}, r"rendering::background: found \[0, 2\], .* 1 or less"),
        ({"noise": [0, 50]}, r"rendering::noise: found \[0, 50\], .* 1 or less"),
        ({"blur": [0, 11]}, r"rendering::blur: found \[0, 11\], .* 10 or less"),
        ({"bias_field": [0, 3]}, r"rendering::bias_field: found \[0, 3\], .* 2 or less"),
        (
            {"brightness": [0.4, 0.6], "background": [0.2, 0.5]},
            r"rendering::brightness: found brightness \[0.4, 0.6\] and background \[0.2, 0.5\], expected "
            r"one of them to be 0.4 wide or more, or a rendering::contrast of 0.075 or less \(found 0.1\)",
        ),
    ],
)
def test_impossible_renderings(changes: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        rendering("textured", changes)


def test_ranges_of_just_the_width_that_the_contrast_needs() -> None:
    """0.6 - 0.2 is 0.4 less a rounding: four times the contrast of 0.1."""
    found = rendering("textured", {"background": [0.2, 0.6], "brightness": [0.4, 0.7]})
    for seed in range(20):
        look = Look(np.random.default_rng(seed), found, 5, SIZE)
        assert (np.abs(look.means - look.background) >= 0.1).all()


def test_the_blur_does_not_use_float32_which_a_gpu_computes_in_tf32(monkeypatch: pytest.MonkeyPatch) -> None:
    used = []

    def filtering(x: torch.Tensor, kernels: list[torch.Tensor], mode: str) -> torch.Tensor:
        used.extend([x.dtype, *(kernel.dtype for kernel in kernels)])
        return x

    monkeypatch.setattr("pretext3d.methods.avsdb.rendering.separable_filtering", filtering)
    assert image({"blur": [1.0, 1.0]}).dtype == torch.float32
    assert set(used) == {torch.float64}


def test_many_shapes_are_far_from_the_background_in_little_time() -> None:
    """Brightness just narrower than four times the contrast: the background stays, means are drawn again."""
    narrow = rendering("textured", {"brightness": [0.001, 0.8], "background": [0, 0.8], "contrast": 0.2})
    for seed in range(20):
        look = Look(np.random.default_rng(seed), narrow, 16_000, (8, 8, 8))
        assert np.abs(look.means - look.background).min() >= 0.2
        assert look.means.min() >= 0.001
        assert look.means.max() <= 0.8

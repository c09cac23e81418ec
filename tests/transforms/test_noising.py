"""Tests of the Models Genesis corruption: golden values, laws, and the plain implementation as the oracle."""

from random import Random
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from monai.data import MetaTensor
from pretext3d.errors import UserError
from pretext3d.transforms.noising import (
    CURVE_STEPS,
    PRESETS,
    Curve,
    NoisingDraw,
    Paint,
    RandGenesisNoised,
    apply_noising,
    bezier_intensity,
    draw_noising,
    inpaint_blocks,
    noising_settings,
    outpaint_windows,
    uniform_noise,
)

from tests.reference.plain_noising import plain_bezier, plain_outpaint

CPU = torch.device("cpu")
SHAPE = (5, 6, 7)
AFFINE = torch.tensor([[2.0, 0, 0, -10], [0, 3, 0, 5], [0, 0, 4, 7], [0, 0, 0, 1]], dtype=torch.float64)
shapes = st.tuples(*[st.integers(1, 9)] * 3)


def numbered(*shape: int, channels: int = 1) -> torch.Tensor:
    """Every voxel another value in [0, 1)."""
    count = channels * int(np.prod(shape))
    return (torch.arange(count, dtype=torch.float32) / count).view(channels, *shape)


def paint(keep: bool, *boxes: tuple[tuple[int, ...], tuple[int, ...]], constants: Any = None) -> Paint:
    start, size = (np.array(part) for part in zip(*boxes, strict=True))
    return Paint(keep, size, start, 11, None if constants is None else np.array(constants))


# ------------------------------------------------------------------------------------------------- intensity
@pytest.mark.parametrize(
    ("points", "decreasing", "expected"),
    [
        # X(t) = t = Y(t): the identity and its mirror image
        ([[1 / 3, 1 / 3], [2 / 3, 2 / 3]], False, [0, 1 / 64, 1 / 8, 1]),
        ([[1 / 3, 1 / 3], [2 / 3, 2 / 3]], True, [1, 63 / 64, 7 / 8, 0]),
        # X = t^3, Y = 1 - (1 - t)^3: x = 1/64 is t = 1/4, Y = 1 - 27/64; x = 1/8 is t = 1/2, Y = 1 - 1/8
        ([[0, 1], [0, 1]], False, [0, 37 / 64, 7 / 8, 1]),
        # decreasing: Y(3/4) = 1 - 1/64, Y(1/2) = 1 - 1/8
        ([[0, 1], [0, 1]], True, [1, 63 / 64, 7 / 8, 0]),
    ],
)
def test_curve_by_hand(points, decreasing, expected):
    volume = torch.tensor([0, 1 / 64, 1 / 8, 1]).view(1, 1, 2, 2)
    result = bezier_intensity(volume, Curve(np.array(points, dtype=float), decreasing))
    # half a step of the table, 1 / 2^15, times a slope of at most 9 (dY/dX = (1 - t)^2 / t^2 at t = 1/4)
    torch.testing.assert_close(result.flatten(), torch.tensor(expected), rtol=0, atol=9 / 2**15 + 1e-6)


@given(st.integers(0, 10_000), st.booleans())
def test_curve_equals_the_plain_one_to_a_step_of_the_table(seed, decreasing):
    random = np.random.RandomState(seed)
    curve, volume = Curve(random.rand(2, 2), decreasing), torch.from_numpy(random.rand(1, 8, 8, 8)).float()
    result, step = bezier_intensity(volume, curve).numpy(), 1.0 / (CURVE_STEPS - 1)
    around = [plain_bezier(volume.numpy() + d, curve.points, decreasing) for d in (-step, step)]
    assert (result >= np.minimum(*around) - 1e-4).all()
    assert (result <= np.maximum(*around) + 1e-4).all()
    assert np.median(np.abs(result - plain_bezier(volume.numpy(), curve.points, decreasing))) < 1e-4


def test_curve_is_monotone_and_takes_values_outside_as_0_and_1():
    curve = Curve(np.array([[0.9, 0.1], [0.2, 0.7]]), decreasing=False)
    ramp = torch.linspace(-0.2, 1.2, 1000).view(1, 10, 10, 10)
    result = bezier_intensity(ramp, curve).flatten()
    assert (result.diff() >= 0).all()
    assert (result[:100] == 0).all()
    assert (result[-100:] == 1).all()


# -------------------------------------------------------------------------------------------------- painting
def test_inpainting_by_hand():
    volume = numbered(*SHAPE)
    drawn = paint(False, ((0, 1, 2), (2, 2, 2)), ((1, 2, 3), (1, 1, 1)), constants=[0.25, 0.75])
    result = inpaint_blocks(volume, drawn)
    expected = volume.clone()
    expected[0, 0:2, 1:3, 2:4] = 0.25
    expected[0, 1, 2, 3] = 0.75  # the later block
    assert torch.equal(result, expected)


def test_outpainting_by_hand():
    volume = numbered(*SHAPE)
    drawn = paint(True, ((0, 0, 0), (2, 2, 2)), ((3, 4, 5), (2, 2, 2)), constants=[0.5, 0.9])
    expected = torch.full_like(volume, 0.5)
    expected[0, :2, :2, :2] = volume[0, :2, :2, :2]
    expected[0, 3:, 4:, 5:] = volume[0, 3:, 4:, 5:]
    assert torch.equal(outpaint_windows(volume, drawn), expected)


def test_noise_is_a_function_of_seed_and_voxel():
    whole = uniform_noise(5, SHAPE, (0, 0, 0), SHAPE, CPU)
    part = uniform_noise(5, SHAPE, (1, 2, 3), (3, 2, 4), CPU)
    assert torch.equal(whole[1:4, 2:4, 3:7], part)
    assert not torch.equal(whole, uniform_noise(6, SHAPE, (0, 0, 0), SHAPE, CPU))


@pytest.mark.parametrize("seed", [0, 1, 2**31 - 1])
def test_noise_is_uniform_and_white(seed):
    noise = uniform_noise(seed, (64, 64, 64), (0, 0, 0), (64, 64, 64), CPU)
    assert noise.min() >= 0
    assert noise.max() < 1
    # 2^18 values in 16 bins of 2^14: standard deviation 124, 5 of them
    assert ((torch.histc(noise, 16, 0, 1) - 2**14).abs() < 620).all()
    centred = (noise - 0.5) * 12**0.5
    for shift in ((1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 1, 1), (0, 2, 0)):
        correlation = (centred * centred.roll(shift, (0, 1, 2))).mean()
        assert abs(correlation) < 5 / 2**9  # 5 / sqrt(2^18)


def test_painted_noise_differs_between_samples_and_outpainting_hides_as_much_as_the_plain_one():
    volume = torch.full((1, 32, 32, 32), 2.0)
    settings = noising_settings("genesis", paint_prob=1, inpaint_prob=0)
    shares = []
    for seed in range(200):
        drawn = draw_noising(settings, (32, 32, 32), np.random.RandomState(seed)).paint
        assert drawn is not None
        shares.append((outpaint_windows(volume, drawn) < 2).float().mean().item())
    random, arrays = Random(0), np.random.RandomState(0)
    plain = [(plain_outpaint(volume.numpy(), random, arrays) < 2).mean() for _ in range(200)]
    # a share's standard deviation between samples is about 0.08: 0.008 for the difference of two means of 200
    assert abs(np.mean(shares) - np.mean(plain)) < 0.032


# ---------------------------------------------------------------------------------------- draws and presets
def test_presets_are_those_of_the_papers():
    genesis, author = PRESETS["genesis"], PRESETS["vectorpose"]
    assert (genesis.shuffle_prob, genesis.num_windows, genesis.window_size) == (0.5, 10_000, 0.1)
    assert (genesis.intensity_prob, genesis.decreasing_prob) == (0.9, 0.5)
    assert (genesis.paint_prob, genesis.inpaint_prob, genesis.continue_prob) == (0.9, 0.2, 0.95)
    assert (genesis.inpaint_blocks, genesis.inpaint_size, genesis.border) == (5, (1 / 6, 1 / 3), 3)
    assert (genesis.outpaint_windows, genesis.outpaint_margin, genesis.fill) == (5, (3 / 7, 4 / 7), "uniform")
    assert (author.shuffle_prob, author.num_windows, author.intensity_prob) == (0.25, 5_000, 0.5)
    assert (author.paint_prob, author.inpaint_prob, author.inpaint_blocks) == (0.75, 0.5, 10)
    assert author.fill == "constant"


def test_a_preset_with_numbers_of_ones_own():
    expected = noising_settings("vectorpose", num_windows=7, border=0)
    assert noising_settings({"preset": "vectorpose", "num_windows": 7, "border": 0}) == expected
    with pytest.raises(UserError, match=r"num_window: no such setting .*did you mean num_windows"):
        noising_settings({"preset": "genesis", "num_window": 7})
    with pytest.raises(UserError, match="preset: found '', expected one of genesis, vectorpose"):
        noising_settings({"num_windows": 7})


def test_draws_have_the_original_ranges():
    # 64^3: window sides 1..6, blocks 64 // 6 = 10 .. 64 // 3 = 21, kept ones 64 - (27..36) = 28..37, border 3
    random = np.random.RandomState(0)
    settings = noising_settings("genesis", num_windows=50)
    draws = [draw_noising(settings, (64, 64, 64), random) for _ in range(2000)]
    sides = np.concatenate([d.windows.size for d in draws if d.windows is not None])
    ends = np.concatenate([d.windows.start + d.windows.size for d in draws if d.windows is not None])
    assert (sides.min(), sides.max()) == (1, 6)
    assert ends.max() == 64
    assert np.bincount(sides.ravel())[1:] / sides.size == pytest.approx(np.full(6, 1 / 6), abs=0.01)
    for keep, low, high in ((False, 10, 21), (True, 28, 37)):
        paints = [d.paint for d in draws if d.paint is not None and d.paint.keep == keep]
        size, start = (np.concatenate([getattr(p, name) for p in paints]) for name in ("size", "start"))
        assert (size.min(), size.max()) == (low, high)
        assert start.min() == 3
        assert (start + size).max() == 61
        counts = np.bincount([len(p.size) for p in paints], minlength=6) / len(paints)
        # each goes on with 0.95: all five blocks of in-painting have 0.95^5, of out-painting 0.95^4
        assert counts[5] == pytest.approx(0.95 ** (4 if keep else 5), abs=0.06)
        assert keep == (counts[0] == 0)
    frequency = [
        np.mean([getattr(d, name) is not None for d in draws]) for name in ("windows", "curve", "paint")
    ]
    assert frequency == pytest.approx([0.5, 0.9, 0.9], abs=0.04)
    assert np.mean([d.paint.keep for d in draws if d.paint]) == pytest.approx(0.8, abs=0.04)
    assert np.mean([d.curve.decreasing for d in draws if d.curve]) == pytest.approx(0.5, abs=0.05)


@given(shapes, st.integers(0, 1000), st.sampled_from(["genesis", "vectorpose"]))
def test_any_small_volume_can_be_corrupted(shape, seed, preset):
    volume = numbered(*shape)
    settings = noising_settings(preset, num_windows=20, shuffle_prob=1, intensity_prob=1, paint_prob=1)
    result = apply_noising(volume, draw_noising(settings, shape, np.random.RandomState(seed)))
    assert result.shape == volume.shape
    assert 0 <= result.min() <= result.max() <= 1


# ------------------------------------------------------------------------------------------------------- laws
ALWAYS = {"num_windows": 100, "window_size": 0.5, "shuffle_prob": 1, "intensity_prob": 1, "paint_prob": 1}


@pytest.mark.parametrize("preset", ["genesis", "vectorpose"])
def test_same_seed_same_output_other_seed_other_output(preset):
    data = {"image": numbered(12, 13, 14)}
    outputs = [
        RandGenesisNoised("image", preset, **ALWAYS).set_random_state(seed)(data)["image"]
        for seed in (1, 1, 2)
    ]
    assert torch.equal(outputs[0], outputs[1])
    assert not torch.equal(outputs[0], outputs[2])


def test_draw_can_be_replayed():
    transform = RandGenesisNoised("image", **ALWAYS).set_random_state(0)
    volume = numbered(*SHAPE)
    result = transform({"image": volume})["image"]
    assert torch.equal(apply_noising(volume, transform.draw), result)


def test_input_is_kept_and_shape_dtype_affine_too():
    image = MetaTensor(numbered(*SHAPE, channels=2), affine=AFFINE)
    before = image.clone()
    data = {"image": image, "other": "kept"}
    result = RandGenesisNoised("image", **ALWAYS).set_random_state(0)(data)
    assert data["image"] is image
    assert torch.equal(image.as_tensor(), before.as_tensor())
    assert isinstance(result["image"], MetaTensor)
    assert torch.equal(result["image"].affine, AFFINE)
    assert (result["image"].shape, result["image"].dtype) == (image.shape, image.dtype)
    assert result["other"] == "kept"
    assert not torch.equal(result["image"].as_tensor(), before.as_tensor())


@pytest.mark.parametrize("dtype", [torch.float16, torch.float64])
def test_other_precisions_are_kept(dtype):
    result = RandGenesisNoised("image", **ALWAYS).set_random_state(0)({"image": numbered(*SHAPE).to(dtype)})
    assert result["image"].dtype == dtype
    single = RandGenesisNoised("image", **ALWAYS).set_random_state(0)(
        {"image": numbered(*SHAPE).to(dtype).float()}
    )
    torch.testing.assert_close(result["image"].float(), single["image"], rtol=0, atol=1e-3)


def test_noncontiguous_and_numpy_volumes():
    volume = numbered(7, 6, 5).permute(0, 3, 2, 1)
    draws = [RandGenesisNoised("image", **ALWAYS).set_random_state(0) for _ in range(2)]
    result = draws[0]({"image": volume})["image"]
    assert torch.equal(result, draws[1]({"image": volume.contiguous().numpy()})["image"])


def test_prob_zero_is_the_identity():
    volume = numbered(*SHAPE)
    for probs in ({"prob": 0.0}, {"shuffle_prob": 0, "intensity_prob": 0, "paint_prob": 0}):
        transform = RandGenesisNoised("image", **probs)
        for _ in range(5):
            assert torch.equal(transform({"image": volume})["image"], volume)
    assert torch.equal(apply_noising(volume, NoisingDraw()), volume)


@pytest.mark.parametrize("inpaint_prob", [0, 1])
def test_channels_and_keys_share_one_draw(inpaint_prob):
    one = numbered(*SHAPE)
    data = {"image": one, "copy": one.clone(), "pair": one.expand(2, -1, -1, -1)}
    transform = RandGenesisNoised(("image", "copy", "pair"), inpaint_prob=inpaint_prob, **ALWAYS)
    result = transform.set_random_state(4)(data)
    for other in (result["copy"], result["pair"][:1], result["pair"][1:]):
        assert torch.equal(result["image"], other)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("preset", ["genesis", "vectorpose"])
def test_gpu_result_equals_cpu_result(preset):
    volume = numbered(32, 33, 34, channels=2)
    settings = noising_settings(preset, shuffle_prob=1, intensity_prob=1, paint_prob=1)
    for seed in range(5):
        drawn = draw_noising(settings, volume.shape[1:], np.random.RandomState(seed))
        assert torch.equal(apply_noising(volume.cuda(), drawn).cpu(), apply_noising(volume, drawn))


# ----------------------------------------------------------------------------------------------------- errors
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"prob": 7.0}, "prob: found 7.0, expected a probability from 0 to 1"),
        ({"shuffle_prob": 7}, "shuffle_prob: found 7, expected a probability"),
        ({"paint_prob": -0.1}, "paint_prob: found -0.1"),
        ({"paint_prob": float("nan")}, "paint_prob: found nan"),
        ({"inpaint_prob": "often"}, "inpaint_prob: found 'often'"),
        ({"preset": "genisis"}, "preset: found 'genisis', expected one of genesis, vectorpose"),
        ({"shufle_prob": 0.5}, "shufle_prob: no such setting of the noising .did you mean shuffle_prob"),
        ({"num_windows": 2.5}, "num_windows: found 2.5, expected an integer of 0 or more"),
        ({"num_windows": True}, "num_windows: found True"),
        ({"outpaint_windows": 0}, "outpaint_windows: found 0, expected an integer of 1 or more"),
        ({"window_size": 1.5}, "window_size: found 1.5, expected a fraction from 0 to 1"),
        ({"inpaint_size": [0.5, 0.2]}, "inpaint_size: found .0.5, 0.2., expected two fractions"),
        ({"outpaint_margin": 0.5}, "outpaint_margin: found 0.5, expected two fractions"),
        ({"fill": "zero"}, "fill: found 'zero', expected one of uniform, constant"),
    ],
)
def test_bad_settings_are_named(arguments, message):
    with pytest.raises(UserError, match=message):
        RandGenesisNoised("image", **arguments)


@pytest.mark.parametrize(
    ("volume", "message"),
    [
        (torch.zeros(6, 7), r"image: found shape \[6, 7\] of torch.float32, expected floating-point"),
        (torch.zeros(1, 5, 6, 7, dtype=torch.int16), "image: found .* torch.int16"),
        (numbered(*SHAPE) * 300, r"image: found intensities from 0 to 298.571, expected 0 to 1"),
        (torch.full((1, 5, 6, 7), torch.nan), "image: found intensities from nan"),
    ],
)
def test_bad_volumes_are_named(volume, message):
    with pytest.raises(UserError, match=message):
        RandGenesisNoised("image")({"image": volume})


def test_keys_of_different_shape_and_missing_keys():
    data = {"image": numbered(*SHAPE), "clean": numbered(5, 5, 5)}
    with pytest.raises(UserError, match=r"clean: found shape \[5, 5, 5\], expected .* \[5, 6, 7\]"):
        RandGenesisNoised(("image", "clean"))(data)
    RandGenesisNoised(("image", "absent"), allow_missing_keys=True)(data)
    with pytest.raises(KeyError, match="absent"):
        RandGenesisNoised(("image", "absent"))(data)


# -------------------------------------------------------------------------------------------------------- 2D
def test_painting_an_image_by_hand():
    image = numbered(5, 6)
    blocks = paint(False, ((0, 1), (2, 3)), ((1, 2), (3, 1)), constants=[0.25, 0.75])
    expected = image.clone()
    expected[0, 0:2, 1:4] = 0.25
    expected[0, 1:4, 2:3] = 0.75  # later over earlier
    assert torch.equal(inpaint_blocks(image, blocks), expected)
    kept = outpaint_windows(image, paint(True, ((1, 2), (3, 3)), constants=[0.51]))
    assert torch.equal(kept[0, 1:4, 2:5], image[0, 1:4, 2:5])
    assert (kept == 0.51).sum() == 30 - 9


def test_noise_of_an_image_is_that_of_the_first_plane_of_a_volume():
    """A voxel's number in C order: with one voxel along i, an image's."""
    flat = uniform_noise(7, (9, 8), (2, 1), (4, 5), CPU)
    assert torch.equal(flat, uniform_noise(7, (1, 9, 8), (0, 2, 1), (1, 4, 5), CPU)[0])
    assert torch.equal(flat, uniform_noise(7, (9, 8), (0, 0), (9, 8), CPU)[2:6, 1:6])


@pytest.mark.parametrize("preset", list(PRESETS))
@pytest.mark.parametrize("shape", [(1, 1), (5, 6), (64, 48)])
def test_laws_of_images(preset, shape):
    image = MetaTensor(numbered(*shape, channels=3), affine=AFFINE)
    before = image.clone()
    transform = RandGenesisNoised(["image", "other"], preset=preset, num_windows=300)
    changed = 0
    for seed in range(12):
        results = [
            transform.set_random_state(seed)({"image": image, "other": image[:1].as_tensor()})
            for _ in range(2)
        ]
        assert torch.equal(image.as_tensor(), before.as_tensor())
        assert torch.equal(results[0]["image"].as_tensor(), results[1]["image"].as_tensor())
        assert torch.equal(results[0]["image"].affine, AFFINE)
        assert results[0]["image"].shape == image.shape
        if transform.draw.paint is None:  # channels share one draw: of any number of them the same
            assert torch.equal(results[0]["image"].as_tensor()[:1], results[0]["other"])
        changed += not torch.equal(results[0]["image"].as_tensor(), image.as_tensor())
    assert changed > 6 or shape == (1, 1)
    off = RandGenesisNoised("image", preset=preset, prob=0)({"image": image})["image"]
    assert torch.equal(off.as_tensor(), before.as_tensor())

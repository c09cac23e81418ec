"""Tests of the Scharr gradient, the medians and the boundary target: by hand, scikit-image and SciPy."""

import itertools

import numpy as np
import pytest
import scipy.ndimage
import skimage.filters
import torch
from hypothesis import given
from hypothesis import strategies as st
from pretext3d.ops import edges, medians
from pretext3d.ops.edges import boundary_target, scharr
from pretext3d.ops.medians import median_exact, median_separable, sort_program

SHAPE = (5, 6, 7)
shapes = st.tuples(*[st.integers(1, 9)] * 3)


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def ramp(axis: int, slope: float = 1.0) -> torch.Tensor:
    """slope * coordinate along one axis, (5, 6, 7)."""
    return torch.from_numpy(np.indices(SHAPE)[axis]).float() * slope


# --------------------------------------------------------------------------------------------------- Scharr
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_ramp_by_hand(axis):
    # difference over two voxels 2 * 0.1, at the mirrored border 0.1; smoothing keeps it; divided by sqrt(3)
    expected = torch.full(SHAPE, 0.2 / 3**0.5)
    expected.select(axis, 0).mul_(0.5)
    expected.select(axis, -1).mul_(0.5)
    torch.testing.assert_close(scharr(ramp(axis, 0.1)), expected, rtol=0, atol=1e-6)


def test_single_voxel_by_hand():
    # x = 1 at one voxel: its neighbour along i has g_i = (10/16)^2 and g_j = g_k = 0 (it is in their middle);
    # the neighbour along i and j has g_i = g_j = 10/16 * 3/16, g_k = 0; the voxel itself has none
    volume = torch.zeros(SHAPE)
    volume[2, 3, 3] = 1
    result = scharr(volume)
    assert result[2, 3, 3] == 0
    assert result[1, 3, 3].item() == pytest.approx(100 / 256 / 3**0.5)
    assert result[3, 4, 3].item() == pytest.approx((2 * (30 / 256) ** 2 / 3) ** 0.5)
    assert result[3, 4, 4].item() == pytest.approx((3 * (9 / 256) ** 2 / 3) ** 0.5)


@given(shapes, st.integers(0, 100))
def test_scharr_equals_scikit_image(shape, seed):
    volume = noise(*shape, seed=seed)
    expected = torch.from_numpy(skimage.filters.scharr(volume.numpy()))
    torch.testing.assert_close(scharr(volume), expected, rtol=1e-5, atol=1e-6)  # single precision sums


def test_scharr_in_several_slabs_equals_scikit_image(monkeypatch):
    volume = noise(23, 20, 22)
    expected = torch.from_numpy(skimage.filters.scharr(volume.numpy()))
    for elements in (1, 20 * 22 * 4, 2**16):
        monkeypatch.setattr(edges, "CPU_ELEMENTS", elements)
        torch.testing.assert_close(scharr(volume), expected, rtol=1e-5, atol=1e-6)


def test_batch_equals_single_volumes_and_flips_commute():
    batch = noise(2, 3, *SHAPE)
    result = scharr(batch)
    for n, c in itertools.product(range(2), range(3)):
        assert torch.equal(result[n, c], scharr(batch[n, c]))
    for axis in (-3, -2, -1):
        torch.testing.assert_close(scharr(batch.flip(axis)), result.flip(axis), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(scharr(0.5 * batch + 2), 0.5 * result, rtol=1e-4, atol=1e-5)


# -------------------------------------------------------------------------------------------------- medians
@pytest.mark.parametrize("size", [3, 5, 7])
def test_sorting_network_sorts_every_0_1_input(size):
    # Knuth's 0-1 principle: a network that sorts these sorts everything
    program = sort_program(size)
    values = torch.tensor(list(itertools.product([0.0, 1.0], repeat=size))).T.contiguous()
    results = list(torch.empty_like(values))
    medians.run_program(program, list(values), results)
    assert torch.equal(torch.stack(results), values.sort(dim=0)[0])


@pytest.mark.parametrize("size", [3, 5, 7])
@given(shape=shapes, seed=st.integers(0, 100))
def test_exact_median_equals_scipy(size, shape, seed):
    volume = noise(*shape, seed=seed)
    assert torch.equal(
        median_exact(volume, size), torch.from_numpy(scipy.ndimage.median_filter(volume.numpy(), size))
    )


@pytest.mark.parametrize("size", [3, 5])
@given(shape=shapes, seed=st.integers(0, 100))
def test_separable_median_equals_three_of_scipys(size, shape, seed):
    volume = noise(*shape, seed=seed)
    expected = volume.numpy()
    for axes in ((1, 1, size), (1, size, 1), (size, 1, 1)):
        expected = scipy.ndimage.median_filter(expected, size=axes)
    assert torch.equal(median_separable(volume, size), torch.from_numpy(expected))


def test_median_in_several_slabs_equals_scipy(monkeypatch):
    volume = noise(13, 10, 11).round(decimals=1)  # with many equal values
    expected = torch.from_numpy(scipy.ndimage.median_filter(volume.numpy(), 5))
    for elements in (1, 300, 2**15):
        monkeypatch.setattr(medians, "CPU_ELEMENTS", elements)
        assert torch.equal(median_exact(volume), expected)


@pytest.mark.parametrize("function", [median_exact, median_separable])
def test_median_laws(function):
    volume = noise(*SHAPE)
    result = function(volume)
    assert torch.equal(function(volume.square()), result.square())  # commutes with a rising function
    assert torch.equal(function(volume.flip(0, 2)), result.flip(0, 2))
    flat = torch.full(SHAPE, 0.25)
    flat[2, 3, 3] = 1
    assert torch.equal(function(flat), torch.full(SHAPE, 0.25))  # an outlier disappears


# ------------------------------------------------------------------------------------------ boundary targets
def test_boundary_of_a_ramp_by_hand():
    # away from the border: Scharr 2 * 0.02 / sqrt(3) = 0.023094; (0.023094 - 0.01) * 30 = 0.39282
    volume = ramp(2, 0.02)
    result = boundary_target(volume, median_size=1)
    torch.testing.assert_close(result[:, :, 1:-1], torch.full((5, 6, 5), 0.39282), rtol=0, atol=1e-5)
    # gain 60: 0.78564; offset 0.05 is above the gradient: 0; slope 0.1: 0.11547 - 0.01 > 1 / 30: clipped to 1
    assert boundary_target(volume, 1, gain=60.0)[2, 2, 3].item() == pytest.approx(0.78564, abs=1e-5)
    assert boundary_target(volume, 1, offset=0.05).max() == 0
    assert boundary_target(ramp(2, 0.1), 1)[2, 2, 3] == 1


@pytest.mark.parametrize("median", ["exact", "separable"])
def test_median_takes_noise_out_of_the_target(median):
    step = torch.zeros(16, 16, 16)
    step[8:] = 0.5
    speckled = torch.where(noise(16, 16, 16) < 0.02, 1.0, step)
    clean, result = boundary_target(step, 1), boundary_target(speckled, median=median)
    assert (boundary_target(speckled, 1) - clean).abs().mean() > 0.1
    assert (result - clean).abs().mean() < 0.01
    assert (result[7:9] == 1).all()


def test_default_target_equals_the_definition():
    volume = noise(12, 13, 14)
    smooth = scipy.ndimage.median_filter(volume.numpy(), 5)
    expected = np.clip((skimage.filters.scharr(smooth) - 0.01) * 30, 0, 1)
    # single precision sums times the gain of 30
    torch.testing.assert_close(boundary_target(volume), torch.from_numpy(expected), rtol=1e-5, atol=3e-5)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("median", ["exact", "separable"])
def test_gpu_result_equals_cpu_result(median):
    volume = noise(2, 17, 18, 19)
    result = boundary_target(volume.cuda(), median=median).cpu()
    torch.testing.assert_close(result, boundary_target(volume, median=median), rtol=1e-5, atol=3e-5)


# -------------------------------------------------------------------------------------------------------- 2D
images = st.tuples(*[st.integers(1, 12)] * 2)


def test_ramp_of_an_image_by_hand():
    # difference over two pixels 2 * 0.1, at the mirrored border 0.1; divided by sqrt(2)
    expected = torch.full((5, 6), 0.2 / 2**0.5)
    expected[:, 0] = expected[:, -1] = 0.1 / 2**0.5
    torch.testing.assert_close(scharr(ramp(1, 0.1)[..., 0], 2), expected, rtol=0, atol=1e-6)


@given(images, st.integers(0, 100))
def test_scharr_of_an_image_equals_scikit_image(shape, seed):
    batch = noise(2, *shape, seed=seed)
    expected = torch.from_numpy(np.stack([skimage.filters.scharr(image.numpy()) for image in batch]))
    torch.testing.assert_close(scharr(batch, 2), expected, rtol=1e-5, atol=1e-6)


def test_scharr_of_an_image_is_that_of_a_volume_constant_along_z():
    # the volume's third difference is 0, and its magnitude divided by sqrt(3), not sqrt(2)
    image = noise(11, 12)
    volume = scharr(image[..., None].repeat(1, 1, 4)) * 1.5**0.5
    torch.testing.assert_close(volume, scharr(image, 2)[..., None].expand_as(volume), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("size", [3, 5, 7])
@given(shape=images, seed=st.integers(0, 100))
def test_medians_of_an_image_equal_scipys(size, shape, seed):
    image = noise(*shape, seed=seed)
    expected = image.numpy()
    assert torch.equal(
        median_exact(image, size), torch.from_numpy(scipy.ndimage.median_filter(expected, size))
    )
    for axes in ((1, size), (size, 1)):
        expected = scipy.ndimage.median_filter(expected, size=axes)
    assert torch.equal(median_separable(image, size), torch.from_numpy(expected))


def test_image_in_several_slabs_equals_scipy_and_scikit_image(monkeypatch):
    image = noise(33, 20)
    median = torch.from_numpy(scipy.ndimage.median_filter(image.numpy(), 5))
    gradient = torch.from_numpy(skimage.filters.scharr(image.numpy()))
    for elements in (1, 90, 2**15):
        monkeypatch.setattr(medians, "CPU_ELEMENTS", elements)
        monkeypatch.setattr(edges, "CPU_ELEMENTS", elements)
        assert torch.equal(median_exact(image), median)
        torch.testing.assert_close(scharr(image, 2), gradient, rtol=1e-5, atol=1e-6)


def test_boundary_of_an_image_equals_the_definition():
    images = noise(3, 21, 22)
    smooth = np.stack([scipy.ndimage.median_filter(image.numpy(), 5) for image in images])
    gradient = np.stack([skimage.filters.scharr(image) for image in smooth])
    expected = torch.from_numpy(np.clip((gradient - 0.01) * 30, 0, 1))
    torch.testing.assert_close(boundary_target(images, spatial_dims=2), expected, rtol=1e-5, atol=3e-5)

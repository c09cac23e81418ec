"""Tests of SLIC: by hand, by laws, and against scikit-image in quality."""

import numpy as np
import pytest
import skimage.measure
import torch
from hypothesis import given
from hypothesis import strategies as st
from pretext3d.errors import UserError
from pretext3d.ops import slic as module
from pretext3d.ops.slic import slic
from pretext3d.phantom.phantom import phantom_volume
from pretext3d.transforms.supervoxels import plain_slic

from tests.reference.supervoxel_quality import boundary_recall, under_segmentation_error

SHAPE = (5, 6, 7)


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def line(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float32).view(1, -1, 1, 1)


def same_cut(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Whether two label maps are equal but for the numbers."""
    pairs = torch.stack([a.reshape(-1), b.reshape(-1)], 1).unique(dim=0)
    return len(pairs) == len(a.unique()) == len(b.unique())


def check_labels(labels: torch.Tensor, mask: torch.Tensor | None = None) -> None:
    """1..n without gaps, each one connected, 0 exactly outside the mask."""
    assert labels.dtype == torch.int32
    found = labels[labels > 0].unique()
    assert found.tolist() == list(range(1, len(found) + 1))
    assert skimage.measure.label(labels.numpy(), background=0, connectivity=1).max() == len(found)
    assert torch.equal(labels > 0, torch.ones_like(labels, dtype=torch.bool) if mask is None else mask)


# -------------------------------------------------------------------------------------------------- by hand
@pytest.mark.parametrize(
    ("compactness", "spacing", "expected"),
    [(0.5, 1.0, [1, 1, 1, 1, 2, 2]), (1.0, 1.0, [1, 1, 1, 2, 2, 2]), (0.5, 3.0, [1, 1, 1, 2, 2, 2])],
)
def test_distance_by_hand(compactness, spacing, expected):
    # Two cells of 3, S = 3, centres at 1 and 4, colours 0 and 2.2 / 3. Voxel 3 (colour 0.2) is away from
    # the first by 0.04 / m^2 + s^2 (2/3)^2, from the second by 0.2844 / m^2 + s^2 (1/3)^2:
    # m = 0.5: 0.604 < 1.249; m = 1: 0.484 > 0.395; m = 0.5, s = 3: 4.16 > 2.138. This then stays so.
    image = line(0, 0, 0, 0.2, 1, 1)
    assert slic(image, 2, compactness, (spacing, 1.0, 1.0)).flatten().tolist() == expected
    assert slic(image * 40 - 7, 2, compactness, (spacing, 9.0, 9.0)).flatten().tolist() == expected


def test_flat_halves_split_at_their_border():
    image = torch.zeros(1, 8, 4, 4)
    image[:, 3:] = 1  # cells end at 4
    for shape, expected in (((8, 4, 4), image[0]), ((4, 8, 4), image[0].movedim(0, 1))):
        labels = slic(expected[None], 2, compactness=0.01)
        assert labels.shape == shape
        assert torch.equal(labels - 1, expected.int())
    both = torch.cat([torch.zeros_like(image), image])  # what a flat channel adds is nothing
    assert torch.equal(slic(both, 2, 0.01), slic(image, 2, 0.01))


def test_flat_boxes_of_an_anisotropic_volume():
    # 8 centres of (5, 6, 7): two along each axis; the boxes' borders at 1, 3, 4, the cells' at 2, 3, 3
    i, j, k = np.indices(SHAPE)
    channels = np.stack([i >= 1, j >= 3, k >= 4])
    boxes = 1 + channels[0] * 4 + channels[1] * 2 + channels[2]
    labels = slic(torch.from_numpy(channels).float(), 8, 0.01, (3.0, 2.0, 1.0), min_size_factor=0)
    assert torch.equal(labels, torch.from_numpy(boxes).int())


def test_constant_volume_is_a_grid():
    # 210 / 8 = 26.25 voxels, edge 3, two cells along each axis, at 5 // 2, 6 // 2, 7 // 2
    labels = slic(torch.full((2, *SHAPE), 3.0), 8)
    i, j, k = np.indices(SHAPE)
    expected = 1 + 4 * (i >= 2) + 2 * (j >= 3) + (k >= 3)
    assert torch.equal(labels, torch.from_numpy(expected).int())


def test_as_many_segments_as_voxels_or_one():
    image = noise(1, 2, 3, 4)
    for n in (24, 25, 400):
        assert torch.equal(slic(image, n).flatten(), torch.arange(1, 25, dtype=torch.int32))
    assert slic(image, 1).unique().tolist() == [1]
    assert slic(noise(1, 1, 1, 1), 5).tolist() == [[[1]]]
    mask = torch.zeros(2, 3, 4, dtype=torch.bool)
    mask[1, 2, 1:] = True
    assert slic(image, 3, mask=mask)[1, 2].tolist() == [0, 1, 2, 3]


def test_small_and_large_regions():
    image = line(0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0)
    # compactness 0.01: the bright voxel is a fragment, less than half of a cell of 6
    assert len(slic(image, 2, 0.01, enforce_connectivity=False).unique()) == 2
    assert torch.bincount(slic(image, 2, 0.01).flatten())[1:].min() >= 3
    assert len(slic(image, 1, 0.01, min_size_factor=0, max_size_factor=0.25).unique()) == 4


def test_mask_by_hand():
    # two islands of 4 x 4 x 4 share two segments; what is outside has no say, not even NaN
    mask = torch.zeros(4, 4, 12, dtype=torch.bool)
    mask[:, :, :4] = mask[:, :, 8:] = True
    image = noise(1, 4, 4, 12)
    labels = slic(torch.where(mask, image, torch.nan), 2, compactness=100.0, mask=mask)
    assert (labels[:, :, :4] == 1).all()
    assert (labels[:, :, 8:] == 2).all()
    check_labels(labels, mask)
    assert torch.equal(labels, slic(torch.where(mask, image, 1e6), 2, compactness=100.0, mask=mask))


def test_a_thin_island_has_centres_of_its_own():
    # the plate, 2 voxels thick, fills a quarter of the 2 x 4 cells that it lies in, and none of them has a
    # neighbour with a centre
    mask = torch.zeros(16, 16, 64, dtype=torch.bool)
    mask[:, :, :16] = True
    mask[:2, :, 40:] = True
    labels = slic(torch.zeros(1, 16, 16, 64), 12, 1.0, mask=mask, enforce_connectivity=False)
    assert len(labels[:2, :, 40:].unique()) == 8


# ----------------------------------------------------------------------------------------------------- laws
@pytest.mark.parametrize(("dims", "longest"), [(3, 9), (2, 20)])
@given(
    data=st.data(),
    channels=st.integers(1, 3),
    n_segments=st.integers(1, 60),
    compactness=st.sampled_from([0.001, 0.15, 10.0]),
    masked=st.booleans(),
    seed=st.integers(0, 100),
)
def test_laws_of_volumes_and_images(dims, longest, data, channels, n_segments, compactness, masked, seed):
    shape = data.draw(st.tuples(*[st.integers(1, longest)] * dims), "shape")
    image = noise(channels, *shape, seed=seed)
    mask = noise(*shape, seed=seed + 1) < 0.7 if masked else None
    if masked and not mask.any():
        mask.view(-1)[0] = True
    before, spacing = image.clone(), (1.0, 2.0, 0.5)[: len(shape)]
    labels = slic(image, n_segments, compactness, spacing, mask)
    check_labels(labels, mask)
    assert torch.equal(image, before)
    assert torch.equal(labels, slic(image, n_segments, compactness, spacing, mask))
    assert torch.equal(labels, slic(4 * image, n_segments, compactness, spacing, mask))  # exact in floats
    loose = slic(image, n_segments, compactness, mask=mask, enforce_connectivity=False)
    assert loose[loose > 0].unique().tolist() == list(range(1, int(loose.max()) + 1))


def test_axes_channels_and_flips_do_not_matter():
    image = noise(2, 12, 12, 12)
    labels = slic(image, 27, enforce_connectivity=False)
    assert torch.equal(slic(image.flip(0), 27, enforce_connectivity=False), labels)
    for axis in (0, 1, 2):
        flipped = slic(image.flip(axis + 1), 27, enforce_connectivity=False)
        assert same_cut(flipped.flip(axis), labels)
    turned = slic(image.permute(0, 3, 1, 2), 27, enforce_connectivity=False)
    assert same_cut(turned.permute(1, 2, 0), labels)


@pytest.mark.parametrize("elements", [1, 5_000, 2**30])
def test_parts_of_any_size_give_the_same(monkeypatch, elements):
    image, mask = noise(2, 20, 21, 22), noise(20, 21, 22) < 0.8
    expected = slic(image, 30), slic(image, 30, mask=mask)
    monkeypatch.setattr(module, "CPU_ELEMENTS", elements)
    assert torch.equal(slic(image, 30), expected[0])
    assert torch.equal(slic(image, 30, mask=mask), expected[1])


def test_compactness_makes_cubes():
    image = noise(1, 24, 24, 24)
    assert torch.equal(slic(image, 27, 50.0), slic(torch.zeros_like(image), 27))
    surface = [int((slic(image, 27, c).diff(dim=0) != 0).sum()) for c in (0.05, 0.5, 50.0)]
    assert surface[0] > surface[1] > surface[2] == 2 * 24 * 24


@pytest.fixture(scope="module")
def anatomy() -> tuple[torch.Tensor, np.ndarray]:
    image, truth = phantom_volume(0, 0, (56, 64, 60))
    first = np.sqrt(image / image.max())
    second = truth / truth.max() + 0.05 * np.random.RandomState(0).randn(*truth.shape)
    return torch.from_numpy(np.stack([first, second]).astype(np.float32)), truth


def check_quality(image: torch.Tensor, truth: np.ndarray, n_segments: int, masked: bool) -> None:
    """As many segments as scikit-image's, to a quarter, and of its quality."""
    mask = torch.from_numpy(truth > 0) if masked else None
    ours = slic(image, n_segments, mask=mask)
    theirs = plain_slic(image, n_segments, 0.15, (1,) * truth.ndim, mask)
    check_labels(ours, mask)
    assert 0.8 < ours.max() / theirs.max() < 1.25
    assert under_segmentation_error(ours.numpy(), truth) < 1.05 * under_segmentation_error(theirs, truth)
    assert boundary_recall(ours.numpy(), truth, 1) > boundary_recall(theirs, truth, 1) - 0.02


@pytest.mark.parametrize("masked", [False, True])
def test_quality_is_that_of_scikit_image(anatomy, masked):
    check_quality(*anatomy, 300, masked)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_gpu_result_equals_cpu_result(anatomy):
    image, _ = anatomy
    for mask in (None, image[0] > 0.2):
        expected = slic(image, 300, mask=mask)
        result = slic(image.cuda(), 300, mask=None if mask is None else mask.cuda())
        assert result.is_cuda
        # sums in another order may send a voxel halfway between two centres to the other one
        assert (result.cpu() == expected).float().mean() > 0.99
        assert torch.equal(result, slic(image.cuda(), 300, mask=None if mask is None else mask.cuda()))


# ------------------------------------------------------------------------------------------------ bad inputs
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n_segments": 0}, "n_segments: found 0, expected an integer of 1 or more"),
        ({"max_iterations": 0}, "max_iterations: found 0, expected an integer of 1 or more"),
        ({"compactness": 0.0}, "compactness: found 0.0, expected a number above 0"),
        ({"compactness": float("nan")}, "compactness: found nan, expected a number above 0"),
        ({"spacing": (1.0, 0.0, 1.0)}, r"spacing: found \[1.0, 0.0, 1.0\], expected three lengths above 0"),
        (
            {"mask": torch.zeros(5, 6, 7, dtype=torch.bool)},
            "mask: found no voxel in it, expected one at least",
        ),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    with pytest.raises(UserError, match=message):
        slic(noise(1, *SHAPE), **arguments)


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_bad_values_are_counted(value):
    image = noise(2, *SHAPE)
    image[:, 1, 2, 3] = image[0, 4, 5, 6] = value
    with pytest.raises(UserError, match="image: found NaN or infinite values in 2 voxels, expected none"):
        slic(image)


# -------------------------------------------------------------------------------------------------------- 2D
def test_constant_image_is_a_grid():
    # 30 / 4 = 7.5 pixels, edge 3, two cells along each axis, at 5 // 2 and 6 // 2
    i, j = np.indices((5, 6))
    labels = slic(torch.full((3, 5, 6), 3.0), 4)
    assert torch.equal(labels, torch.from_numpy(1 + 2 * (i >= 2) + (j >= 3)).int())


def test_distance_in_an_image_by_hand():
    # the example in 3D above, along axis 0 of an image
    image = torch.tensor([0, 0, 0, 0.2, 1, 1]).view(1, 6, 1)
    assert slic(image, 2, 0.5).flatten().tolist() == [1, 1, 1, 1, 2, 2]
    assert slic(image, 2, 1.0).flatten().tolist() == [1, 1, 1, 2, 2, 2]
    assert slic(image, 2, 0.5, (3.0, 9.0)).flatten().tolist() == [1, 1, 1, 2, 2, 2]


def test_image_and_volume_of_one_slice_are_cut_alike():
    image = noise(2, 40, 44)
    for mask in (None, noise(40, 44, seed=1) < 0.8):
        whole = slic(image[:, None], 30, mask=None if mask is None else mask[None])
        assert torch.equal(slic(image, 30, mask=mask), whole[0])


@pytest.mark.parametrize("masked", [False, True])
def test_quality_of_superpixels_is_that_of_scikit_image(anatomy, masked):
    image = torch.nn.functional.interpolate(anatomy[0][None, ..., 30], scale_factor=4, mode="bilinear")[0]
    truth = anatomy[1][..., 30].repeat(4, axis=0).repeat(4, axis=1)
    check_quality(image, truth, 100, masked)


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (1.0, 0.0)])
def test_spacing_of_an_image(spacing):
    with pytest.raises(UserError, match=r"spacing: found .*, expected two lengths above 0"):
        slic(noise(1, 5, 6), spacing=spacing)

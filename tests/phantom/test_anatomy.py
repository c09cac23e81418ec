"""The phantom's bodies: every organ in every subject, at its place, in its contrast; no two alike."""

from itertools import pairwise

import numpy as np
import pytest
from pretext3d.phantom.anatomy import LABELS
from pretext3d.phantom.phantom import phantom_affine, phantom_volume

NUMBER = {name: value for value, name in enumerate(LABELS)}
ORGANS = LABELS[1:]
COUNT = 8


@pytest.fixture(scope="module")
def bodies() -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Image, label and affine of several subjects."""
    return [(*phantom_volume(0, index), phantom_affine(0, index)) for index in range(COUNT)]


def centroid(label: np.ndarray, affine: np.ndarray, organ: str) -> np.ndarray:
    """World mm of the middle of an organ."""
    return affine[:3, :3] @ np.argwhere(label == NUMBER[organ]).mean(0) + affine[:3, 3]


def test_every_organ_is_in_every_subject_at_a_believable_size(bodies: list) -> None:
    # millilitres; an adult has a liver of about 0.5-1.5 l, a spleen of 0.05-0.3 l, lungs of 1-3 l in a scan
    limits = {"liver": (300, 1800), "spleen": (25, 400), "kidneys": (80, 500), "heart": (100, 900),
              "lungs": (800, 4000), "spine": (200, 800), "aorta": (60, 400)}  # fmt: skip
    assert set(limits) == set(ORGANS)
    for _, label, affine in bodies:
        assert set(np.unique(label)) == set(range(len(LABELS)))
        litre = abs(np.linalg.det(affine[:3, :3])) / 1000
        for organ, (low, high) in limits.items():
            assert low < (label == NUMBER[organ]).sum() * litre < high, organ


def test_organs_lie_at_consistent_places(bodies: list) -> None:
    for organ in ORGANS:
        places = np.array([centroid(label, affine, organ) for _, label, affine in bodies])
        # the body is about 280 x 200 x 320 mm: an organ wanders by less than 15 mm, a twentieth of it
        assert places.std(0).max() < 15, organ
        # but it does wander
        assert places.std(0).min() > 0.5, organ


def test_the_body_has_a_right_and_a_left_a_front_and_a_top(bodies: list) -> None:
    for _, label, affine in bodies:
        place = {organ: centroid(label, affine, organ) for organ in ORGANS}
        x, y, z = ({organ: p[axis] for organ, p in place.items()} for axis in range(3))
        assert x["liver"] > x["spleen"] + 60
        assert x["heart"] < x["spine"]
        assert x["aorta"] < x["spine"]
        assert y["spine"] < y["aorta"] < y["heart"]
        assert y["kidneys"] < y["liver"]
        assert z["lungs"] > z["heart"] > z["liver"] > z["kidneys"]


def test_intensities_are_ordered_as_in_the_contrast_it_imitates(bodies: list) -> None:
    for image, label, _ in bodies:
        mean = {organ: image[label == value].mean() for organ, value in NUMBER.items()}
        assert mean["lungs"] < mean["spine"] < mean["aorta"]
        assert mean["lungs"] < 0.4 * mean["spleen"]
        assert mean["spleen"] < mean["aorta"]
        assert mean["liver"] < mean["aorta"]


def test_air_surrounds_the_body(bodies: list) -> None:
    for image, label, _ in bodies:
        fat = np.percentile(image, 99)
        for face in (image[0], image[-1], image[:, 0], image[:, -1]):
            assert np.percentile(face, 90) < 0.15 * fat
        corner = image[:4, :4, -4:]
        assert corner.mean() > 3  # Rician noise: air is not 0
        assert not label[:2].any()
        assert not label[-2:].any()


def test_subjects_differ(bodies: list) -> None:
    assert len({image.shape for image, _, _ in bodies}) > 1
    volumes = np.array([[(label == NUMBER[organ]).sum() for organ in ORGANS] for _, label, _ in bodies])
    # coefficient of variation of each organ's volume; the spine, cut off by the volume's ends, varies least
    variation = dict(zip(ORGANS, volumes.std(0) / volumes.mean(0), strict=True))
    assert variation.pop("spine") > 0.02
    assert min(variation.values()) > 0.06
    smallest = np.min([label.shape for _, label, _ in bodies], 0)
    cuts = [label[: smallest[0], : smallest[1], : smallest[2]] for _, label, _ in bodies]
    for first, second in pairwise(cuts):
        assert (first != second)[(first > 0) | (second > 0)].mean() > 0.1


def test_noise_and_bias_field_are_there(bodies: list) -> None:
    image, label, _ = bodies[0]
    liver = image[label == NUMBER["liver"]]
    assert 0.02 < liver.std() / liver.mean() < 0.4
    air = image[:6, :6, -6:]
    # the magnitude of complex noise is Rayleigh: mean / deviation = sqrt(pi / 2) / sqrt(2 - pi / 2) = 1.91
    assert air.mean() / air.std() == pytest.approx(1.91, abs=0.35)


def test_finer_voxels_show_the_same_body() -> None:
    coarse, fine = phantom_volume(1, 2, (40, 32, 40))[1], phantom_volume(1, 2, (80, 64, 80))[1]
    assert np.abs(np.array(fine.shape) - 2 * np.array(coarse.shape)).max() <= 1
    for value in range(1, len(LABELS)):
        # a voxel of the coarse grid is eight of the fine one
        assert (fine == value).sum() == pytest.approx(8 * (coarse == value).sum(), rel=0.35)
        middle = [np.argwhere(label == value).mean(0) / label.shape for label in (coarse, fine)]
        assert np.abs(middle[0] - middle[1]).max() < 0.03

"""The picture of rotation prediction: what is shown of a volume, a slice and a photograph."""

import numpy as np
import pytest
import torch
from matplotlib.colors import to_rgb
from pretext3d.methods.rotation.figure import RIGHT, WRONG, draw, rotation_name
from pretext3d.methods.rotation.pretext import RandRotationsd
from pretext3d.ops.rotations import rotation_classes
from pretext3d.training.drawing import View
from pretext3d.training.pictures import render

SLICE, PHOTO = {"oriented": True, "slice": 3, "slice_axis": 2}, {"oriented": False}


def case(dims=3, channels=1, versions=3, size=6, axes=None, **kind):
    """A body of 6 voxels along each axis, and a sample of its corner of `size` voxels."""
    image = torch.rand(channels, *[6] * dims, generator=torch.Generator().manual_seed(0))
    volume = {"id": "head", "image": image, **kind}
    crop = image[(slice(None), *[slice(size)] * dims)]
    transform = RandRotationsd(versions, [size] * dims, axes=axes).set_random_state(seed=1)
    return volume, transform({"image": crop})


def certain(classes, count):
    return 20.0 * torch.nn.functional.one_hot(classes, count)


def texts(figure):
    return [text.get_text() for text in figure.texts + [t for axes in figure.axes for t in axes.texts]]


def shown(axes):
    return np.asarray(axes.images[0].get_array())


def scaled(image):
    low, high = np.quantile(image, [0.005, 0.995])
    return (image - low) / (high - low)


def test_a_volume_and_its_versions():
    volume, sample = case()
    figure = draw(volume, sample, title="a title")
    assert len(figure.axes) == 4 * 3  # body and three versions, three planes each
    found = texts(figure)
    assert found[0] == "a title"
    assert [t for t in found if len(t) == 1] == list("PAISLRISLRPA")  # sagittal, coronal and axial plane
    axial = figure.axes[2]
    image = volume["image"][0].double().numpy()
    np.testing.assert_allclose(shown(axial), scaled(image)[:, :, 3].T, atol=1e-6)
    for version in range(3):
        axis, turns = rotation_classes()[int(sample["rotation"][version])]
        degrees, about = 90 * turns, ("left-right", "front-back", "up-down")[axis]
        assert (f"{degrees}° about {about}" if turns else "upright") in found
        np.testing.assert_array_equal(figure.axes[3 * (version + 1)].get_xlim(), [6, 0])
    assert "3 rotated versions of this body in one sample" in found
    assert np.isfinite(render(figure)).all()


def test_right_answers_are_green_and_wrong_ones_red():
    volume, sample = case()
    wrong = sample["rotation"].clone()
    wrong[1] = (wrong[1] + 1) % 10
    figure = draw(volume, sample, certain(wrong, 10))
    answers = [t for t in figure.texts if t.get_text().startswith("100 %: ")]
    assert [to_rgb(t.get_color()) for t in answers] == [to_rgb(RIGHT), to_rgb(WRONG), to_rgb(RIGHT)]
    assert "green or red: the network's answer with its probability; 2 of 3 are right" in texts(figure)


def test_of_many_versions_the_first_four_are_shown():
    volume, sample = case(versions=10)
    figure = draw(volume, sample, certain(sample["rotation"], 10))
    assert len(figure.axes) == 5 * 3
    assert any("10 of 10 are right (the first 4 are shown)" in t for t in texts(figure))


def test_a_crop_is_described():
    volume, sample = case(size=4)
    figure = draw(volume, sample)
    assert figure.texts[1].get_text().startswith("body resized to 6 × 6 × 6 voxels, versions of 4 × 4 × 4")  # noqa: RUF001
    assert shown(figure.axes[3]).shape == (4, 4)


def test_a_slice():
    volume, sample = case(dims=2, channels=2, **SLICE)
    figure = draw(volume, sample, axes=[2])
    assert len(figure.axes) == 4
    assert [t for t in texts(figure) if len(t) == 1] == ["L", "R", "P", "A"]
    assert "one of 4 rotations each" in figure.texts[1].get_text()
    names = ["upright", "90°", "180°", "270°"]
    assert [names[n] for n in sample["rotation"].tolist()] == [t for t in texts(figure) if t in names]


def test_a_photograph_has_colours_and_no_directions():
    volume, sample = case(dims=2, channels=3, **PHOTO)
    figure = draw(volume, sample)
    assert shown(figure.axes[0]).shape == (6, 6, 3)
    assert not [t for t in texts(figure) if len(t) == 1]


@pytest.mark.parametrize(
    ("axis", "turns", "name"),
    [(0, 0, "upright"), (0, 1, "90° about left-right"), (2, 3, "270° about up-down")],
)
def test_names(axis, turns, name):
    assert rotation_name(axis, turns, View({"image": torch.zeros(1, 2, 2, 2)})) == name

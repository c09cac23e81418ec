"""The picture of the task: where things are drawn, worked out by hand, and what is written next to them."""

from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from monai.data import MetaTensor
from pretext3d.methods.vectorpose import pretext as vp
from pretext3d.methods.vectorpose.figure import Place, crop_panels, draw
from pretext3d.ops.rotations import flip_matrix, reorient, rotation_matrix
from pretext3d.transforms.crops import crop_resize

# A 10 x 20 x 30 volume at 1 x 2 x 3 mm: 10 x 40 x 90 mm, landmark = centre = (5, 20, 45) mm.
# A crop that starts at voxel (1, 2, 3) with edges (4, 4, 4): from (1, 4, 9) to (5, 12, 21) mm.
SPACING = torch.tensor([1.0, 2.0, 3.0])
SHAPE = (10, 20, 30)
START, EDGES = (1, 2, 3), (4, 4, 4)
ROI = (6, 6, 6)
CENTRE = [3.0, 8.0, 15.0]
LANDMARK = [5.0, 20.0, 45.0]


def example(
    orientation: np.ndarray, num_vectors: int = 9, channels: int = 1
) -> tuple[dict[str, Any], dict[str, Any]]:
    image = torch.rand(channels, *SHAPE, generator=torch.Generator().manual_seed(0))
    clean = reorient(crop_resize(image, START, EDGES, ROI), orientation)
    matrix = torch.from_numpy(orientation).float()
    start, size = torch.tensor(START).float(), torch.tensor(EDGES).float()
    landmark = torch.tensor(SHAPE) / 2
    sample = {
        "image": 1 - clean, "clean": clean, "boundary": clean.square(), "crop_start": start,
        "crop_size": size, "orientation": matrix, "radius": torch.tensor([50.0]),
        "vectors": vp.landmark_vectors(landmark, start, size, SPACING, matrix, num_vectors),
    }  # fmt: skip
    return {"id": "case_7", "image": MetaTensor(image), "spacing": SPACING}, sample


def perfect(sample: dict[str, Any], boundary: bool = True) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits whose activations are the targets, nearly."""
    spherical = vp.to_spherical(sample["vectors"], sample["radius"])
    logits = torch.cat(
        [spherical[..., :2].logit(1e-6), spherical[..., 2:].clamp(-0.999999, 0.999999).atanh()], -1
    )
    parts = [sample["clean"], sample["boundary"]] if boundary else [sample["clean"]]
    return logits, torch.cat(parts).logit(1e-6)


def texts(figure: Figure) -> str:
    found = [t.get_text() for t in figure.texts]
    found += [t.get_text() for axes in figure.axes for t in [axes.title, *axes.texts]]
    return "\n".join(found + [t.get_text() for legend in figure.legends for t in legend.get_texts()])


def titles(figure: Figure) -> list[str]:
    return [axes.get_title() for axes in figure.axes]


MOVES = [np.eye(3), flip_matrix([1]), rotation_matrix(0, 1), rotation_matrix(2, 3) @ flip_matrix([0, 2])]


@pytest.mark.parametrize("orientation", MOVES, ids=["none", "flip", "turn", "both"])
def test_all_true_vectors_end_in_the_landmark(orientation: np.ndarray) -> None:
    place = Place(*example(orientation))
    tips = place.tips(example(orientation)[1]["vectors"])
    np.testing.assert_allclose(tips, [LANDMARK] * 9, atol=1e-4)  # float32 of up to 90 mm


def test_origins_are_the_crops_centre_and_corners_in_mm() -> None:
    place = Place(*example(flip_matrix([0])))
    np.testing.assert_allclose(place.origins(2), [CENTRE, [1.0, 4.0, 9.0]])
    assert place.origins(0).shape == (0, 3)


def test_letters_follow_the_content() -> None:
    assert Place(*example(np.eye(3))).letters(0) == ("L", "R")
    assert Place(*example(flip_matrix([1]))).letters(1) == ("A", "P")
    # a quarter turn about axis 0 takes axis 1 to axis 2 and axis 2 to minus axis 1
    turned = Place(*example(rotation_matrix(0, 1)))
    assert [turned.letters(axis) for axis in range(3)] == [("L", "R"), ("S", "I"), ("P", "A")]


def test_planes_by_hand() -> None:
    figure = draw(*example(np.eye(3)))
    axial, coronal, sagittal = figure.axes[:3]
    assert titles(figure)[:3] == ["Axial", "Coronal", "Sagittal"]
    box = next(patch for patch in axial.patches if isinstance(patch, Rectangle))
    assert (*box.get_xy(), box.get_width(), box.get_height()) == (1.0, 4.0, 4.0, 8.0)
    lines = next(c for c in sagittal.collections if isinstance(c, LineCollection))
    np.testing.assert_allclose(lines.get_segments()[0], [CENTRE[1:], LANDMARK[1:]], atol=1e-4)
    # the patient's right on the left, front and head as usual
    assert axial.get_xlim()[0] > axial.get_xlim()[1]
    assert axial.get_ylim()[0] < axial.get_ylim()[1]
    assert [t.get_text() for t in axial.texts] == ["L", "R", "P", "A"]
    assert [t.get_text() for t in coronal.texts] == ["L", "R", "I", "S"]
    assert [t.get_text() for t in sagittal.texts] == ["P", "A", "I", "S"]
    # through the crop's centre: voxel 1 + 4 / 2 = 3 across, 5 up
    volume = example(np.eye(3))[0]["image"][0].numpy()
    np.testing.assert_allclose(axial.images[0].get_array(), volume[:, :, 5].T)
    np.testing.assert_allclose(sagittal.images[0].get_array(), volume[3].T)
    # one scale in mm for the three planes
    figure.canvas.draw()
    scales = {round(a.bbox.width / abs(np.diff(a.get_xlim())[0]), 3) for a in figure.axes[:3]}
    assert len(scales) == 1


def test_numbers_of_a_perfect_prediction() -> None:
    volume, sample = example(flip_matrix([1]))
    figure = draw(volume, sample, perfect(sample), "case_7, epoch 3")
    assert "case_7, epoch 3" in texts(figure)
    assert "predicted: 0.0 mm and 0° off on average" in texts(figure)
    assert texts(figure).count("mean error 0.000") == 2
    assert "mirrored front-back" in texts(figure)
    assert len(titles(figure)) == 3 + 5


def test_numbers_of_a_wrong_prediction_by_hand() -> None:
    volume, sample = example(np.eye(3), num_vectors=1)
    # centre (3, 8, 15) -> landmark (5, 20, 45) mm: v = (2, 12, 30), |v| = 32.37. Logits 0 mean
    # r = R / 2 = 25 mm, theta = pi / 2, phi = 0: (25, 0, 0); off by |(23, -12, -30)| = 39.66 mm
    reconstruction = torch.zeros(2, *ROI)  # sigmoid 0.5
    figure = draw(volume, sample, (torch.zeros(1, 3), reconstruction))
    assert "to predict: 1 vector to the landmark, 32 to 32 mm" in texts(figure)
    # angle: arccos(2 / 32.37) = 86.5 degrees
    assert "predicted: 39.7 mm and 86° off on average" in texts(figure)
    error = float((sample["clean"] - 0.5).abs().mean())
    assert f"mean error {error:.3f}" in texts(figure)


@pytest.mark.parametrize("with_pred", [False, True])
def test_without_vectors(with_pred: bool) -> None:
    volume, sample = example(np.eye(3), num_vectors=0)
    figure = draw(volume, sample, perfect(sample) if with_pred else None)
    assert "landmark" not in texts(figure)
    assert "predicted:" not in texts(figure)
    assert len(figure.axes) == 3 + (5 if with_pred else 3)


def test_without_boundaries() -> None:
    volume, sample = example(np.eye(3), channels=3)
    names = [name for name, _, _ in crop_panels(sample, perfect(sample, boundary=False))]
    assert names == ["Middle slice of the crop", "What the network sees", "The network's reconstruction"]
    del sample["boundary"]
    figure = draw(volume, sample)
    assert titles(figure)[3:] == names[:2]
    assert "channel 1 of 3" in texts(figure)


def test_crop_outside_the_volume_is_drawn_whole() -> None:
    volume, sample = example(np.eye(3))
    sample["crop_start"] = torch.tensor([-4.0, 18.0, 28.0])
    axes = draw(volume, sample).axes[0]
    assert axes.get_xlim()[1] <= -4.0
    assert axes.get_ylim()[1] >= (18 + 4) * 2.0


def test_nothing_is_left_behind_and_the_input_is_not_changed() -> None:
    import matplotlib.pyplot as plt

    volume, sample = example(np.eye(3))
    before = {key: value.clone() for key, value in sample.items()}
    assert isinstance(draw(volume, sample, perfect(sample)), Figure)
    assert plt.get_fignums() == []
    for key, value in before.items():
        torch.testing.assert_close(sample[key], value, rtol=0, atol=0)

"""The pictures of the methods for 2D items: a slice with the patient's directions, a photograph in colour."""

from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.collections import LineCollection
from matplotlib.colors import to_rgb
from matplotlib.patches import Rectangle
from monai.data import MetaTensor
from pretext3d.methods.rubiks_cube import figure as rubiks_figure
from pretext3d.methods.rubiks_cube.pretext import RandRubiksCubed
from pretext3d.methods.supervoxel_inpainting import figure as inpainting_figure
from pretext3d.methods.supervoxel_inpainting.regions import RandHideRegiond, Regionsd
from pretext3d.methods.vectorpose import figure as vectorpose_figure
from pretext3d.methods.vectorpose.vectors import landmark_vectors, to_spherical
from pretext3d.ops.permutations import far_permutations
from pretext3d.ops.rotations import flip_matrix, reorient, rotation_matrix
from pretext3d.training.drawing import View, pixels
from pretext3d.training.pictures import render
from pretext3d.transforms.crops import crop_resize

PERMUTATIONS = torch.from_numpy(far_permutations(4, 24))
SLICE, PHOTO = {"oriented": True, "slice": 3, "slice_axis": 2}, {"oriented": False}


def image(channels: int) -> MetaTensor:
    values = torch.rand(channels, 10, 12, generator=torch.Generator().manual_seed(0))
    return MetaTensor(values, affine=torch.diag(torch.tensor([1.0, 2.0, 4.0, 1.0], dtype=torch.float64)))


def texts(figure: Any) -> str:
    found = [t.get_text() for t in figure.texts]
    found += [t.get_text() for axes in figure.axes for t in [axes.title, *axes.texts]]
    return "\n".join(found + [t.get_text() for legend in figure.legends for t in legend.get_texts()])


def shown(axes: Any) -> np.ndarray:
    return np.asarray(axes.images[0].get_array())


# ----------------------------------------------------------------------------------- what it is
@pytest.mark.parametrize(
    ("axis", "plane", "letters", "directions"),
    [
        (0, "Sagittal", [("P", "A"), ("I", "S")], ["front-back", "up-down"]),
        (1, "Coronal", [("L", "R"), ("I", "S")], ["left-right", "up-down"]),
        (2, "Axial", [("L", "R"), ("P", "A")], ["left-right", "front-back"]),
    ],
)
def test_slices_have_the_directions_of_their_plane(
    axis: int, plane: str, letters: list[tuple[str, str]], directions: list[str]
) -> None:
    view = View({"image": image(3), "oriented": True, "slice": 0, "slice_axis": axis})
    assert (view.plane, view.letters, view.directions) == (plane, letters, directions)
    assert not view.colour
    assert view.unit == "mm"


def test_photographs_have_colours_and_no_directions() -> None:
    for item in ({"image": image(3)}, {"image": image(3), **PHOTO}):
        view = View(item)
        assert (view.plane, view.letters, view.colour, view.unit) == ("Image", [("", "")] * 2, True, "px")
    assert not View({"image": image(1), **PHOTO}).colour
    assert View({"image": torch.zeros(3, 4, 5, 6)}).letters == [("L", "R"), ("P", "A"), ("I", "S")]
    assert not View({"image": torch.zeros(3, 4, 5, 6)}).colour


def test_pixels_by_hand() -> None:
    # (c, a, b) = (3, 1, 2): matplotlib takes rows first, and colours last in [0, 1]
    slab = torch.tensor([[[0.1, 0.2]], [[0.3, 1.4]], [[-0.5, 0.6]]])
    np.testing.assert_allclose(pixels(slab, 1), [[0.3], [1.4]], atol=1e-6)
    np.testing.assert_allclose(pixels(slab, colour=True), [[[0.1, 0.3, 0]], [[0.2, 1, 0.6]]], atol=1e-6)


# ----------------------------------------------------------------------------------- VectorPOSE
MOVES = [
    np.eye(2),
    flip_matrix([1], 2),
    rotation_matrix(2, 1, 2),
    rotation_matrix(2, 3, 2) @ flip_matrix([0], 2),
]


def vectorpose(orientation: np.ndarray, channels: int = 1, n: int = 5, **kind: Any) -> tuple[dict, dict]:
    """The landmark is the centre, (5, 6) pixels or (5, 12) mm; a crop from (1, 2) with edges (4, 4)."""
    volume = {"id": "case_7", "image": image(channels), "spacing": torch.tensor([1.0, 2.0]), **kind}
    clean = reorient(crop_resize(volume["image"].as_tensor(), (1, 2), (4, 4), (6, 6)), orientation)
    matrix = torch.from_numpy(orientation).float()
    start, size = torch.tensor([1.0, 2.0]), torch.tensor([4.0, 4.0])
    sample = {
        "image": 1 - clean, "clean": clean, "boundary": clean.square(), "crop_start": start,
        "crop_size": size, "orientation": matrix, "radius": torch.tensor([20.0]),
        "vectors": landmark_vectors(torch.tensor([5.0, 6.0]), start, size, volume["spacing"], matrix, n),
    }  # fmt: skip
    return volume, sample


@pytest.mark.parametrize("orientation", MOVES)
def test_all_true_vectors_end_in_the_landmark(orientation: np.ndarray) -> None:
    volume, sample = vectorpose(orientation)
    tips = vectorpose_figure.Place(volume, sample).tips(sample["vectors"])
    np.testing.assert_allclose(tips, [[5.0, 12.0]] * 5, atol=1e-4)


def test_vectorpose_of_a_slice() -> None:
    volume, sample = vectorpose(np.eye(2), **SLICE)
    polar = to_spherical(sample["vectors"], sample["radius"])
    logits = torch.cat([polar[..., :1].logit(1e-6), polar[..., 1:].clamp(-0.999999, 0.999999).atanh()], -1)
    pred = (logits, torch.cat([sample["clean"], sample["boundary"]]).logit(1e-6))
    figure = vectorpose_figure.draw(volume, sample, pred)
    assert [axes.get_title() for axes in figure.axes[:2]] == ["Axial", "The crop"]
    assert len(figure.axes) == 1 + 5
    axial = figure.axes[0]
    np.testing.assert_allclose(shown(axial), volume["image"][0].numpy().T, atol=1e-6)
    box = next(patch for patch in axial.patches if isinstance(patch, Rectangle))
    assert (*box.get_xy(), box.get_width(), box.get_height()) == (1.0, 4.0, 4.0, 8.0)
    lines = next(c for c in axial.collections if isinstance(c, LineCollection))
    np.testing.assert_allclose(lines.get_segments()[0], [[3.0, 8.0], [5.0, 12.0]], atol=1e-4)
    assert [t.get_text() for t in axial.texts] == ["L", "R", "P", "A"]
    assert axial.get_xlim()[0] > axial.get_xlim()[1]  # the patient's right on the left
    assert axial.get_ylim()[0] < axial.get_ylim()[1]
    said = texts(figure)
    assert "predicted: 0.0 mm and 0° off on average" in said
    assert "image: 10 × 24 mm, 10 × 12 pixels of 1 × 2 mm" in said  # noqa: RUF001
    assert "(projected)" not in said
    assert render(figure).shape == (660, 1200, 3)


@pytest.mark.parametrize("n", [0, 5])
def test_vectorpose_of_a_photograph(n: int) -> None:
    volume, sample = vectorpose(MOVES[2], channels=3, n=n, **PHOTO)
    figure = vectorpose_figure.draw(volume, sample)
    np.testing.assert_allclose(shown(figure.axes[0]), volume["image"].numpy().transpose(2, 1, 0), atol=1e-6)
    np.testing.assert_allclose(shown(figure.axes[1]), sample["clean"].numpy().transpose(2, 1, 0), atol=1e-6)
    letters = {t.get_text() for axes in figure.axes for t in axes.texts} & set("LRPAIS")
    assert not letters
    said = texts(figure)
    assert "image: 10 × 12 pixels\n" in said  # noqa: RUF001
    assert "mm" not in said
    assert "rotated" in said
    assert ("landmark" in said) == bool(n)


# ----------------------------------------------------------------------------------- Rubik's cube
def puzzle(channels: int, **kind: Any) -> tuple[dict, dict, tuple[torch.Tensor, torch.Tensor]]:
    """An image in [-1, 1], its puzzle, and the answer of a network that has solved it."""
    volume = {"id": "case_7", "image": 2 * image(channels) - 1, **kind}
    transform = RandRubiksCubed(PERMUTATIONS, 2, (4, 3), 1, spatial_dims=2).set_random_state(seed=1)
    sample = transform(volume)
    ordering = torch.full((24,), -20.0)
    ordering[sample["permutation"]] = 20.0
    rotations = (sample["turned"].float() * 40 - 20)[:, None].expand(-1, 4, -1)
    return volume, sample, (ordering, rotations)


def test_a_solved_puzzle_is_green_and_a_wrong_rotation_red() -> None:
    volume, sample, (ordering, rotations) = puzzle(1, **SLICE)
    how = {"permutations": PERMUTATIONS, "grid": [2, 2], "axes": [2]}
    figure = rubiks_figure.draw(volume, sample, (ordering, rotations), **how)
    assert len(figure.axes) == 3
    frames = [patch.get_edgecolor()[:3] for patch in figure.axes[2].patches]
    assert frames == [to_rgb(rubiks_figure.RIGHT)] * 4
    assert "order right; 4 of 4 half turns recognised; green: tile restored" in texts(figure)
    assert [t.get_text() for t in figure.axes[2].texts if t.get_text() in "LRPAIS" and t.get_text()] == [
        "L", "R", "P", "A",
    ]  # fmt: skip
    wrong = rotations.clone()
    wrong[3] = -wrong[3]
    figure = rubiks_figure.draw(volume, sample, (ordering, wrong), **how)
    red = [patch.get_edgecolor()[:3] == to_rgb(rubiks_figure.WRONG) for patch in figure.axes[2].patches]
    assert [place for place, there in enumerate(red) if there] == [int(sample["order"][3])]


def test_a_puzzle_of_a_photograph() -> None:
    volume, sample, _ = puzzle(3, **PHOTO)
    before = {key: value.clone() for key, value in sample.items() if isinstance(value, torch.Tensor)}
    figure = rubiks_figure.draw(volume, sample, permutations=PERMUTATIONS, grid=2)
    assert [shown(axes).shape for axes in figure.axes] == [(12, 10, 3), (3, 4, 3)]
    said = texts(figure).split("\n")
    for position in range(4):
        mark = " r" if sample["turned"][position] else ""
        assert f"{int(sample['order'][position]) + 1}{mark}" in said
    assert not set(said) & set("LRPAIS")
    assert "number: the cell of a tile; r: rotated by half in the plane" in said
    assert any("4 tiles of 4 × 3 pixels, permutation" in line for line in said)  # noqa: RUF001
    assert all(torch.equal(sample[key], value) for key, value in before.items())
    assert np.isfinite(render(figure)).all()


# ----------------------------------------------------------------------------------- in-painting
def hidden(kind: str, channels: int, **how: Any) -> tuple[dict, dict]:
    """10 x 12 pixels of 1 x 2 mm; two superpixels, j = 0..5 and 6..11, of which i < 6 are foreground."""
    label = torch.zeros(1, 10, 12, dtype=torch.uint8)
    label[:, :6] = 1
    case = {"id": "case_7", "image": image(channels), "label": label, **how}
    if kind == "supervoxels":
        case["supervoxels"] = (1 + (torch.arange(12) > 5)).int().expand(1, 10, 12)
    volume = Regionsd(kind, min_region_voxels=1, cuboid_sides=[2, 3])(case)
    hide = RandHideRegiond("image", roi_size=[8, 8], regions=kind, cuboid_sides=[2, 3])
    return volume, hide.set_random_state(seed=0)({**volume, "draw": 0})


def test_in_painting_of_a_slice() -> None:
    volume, sample = hidden("supervoxels", 2, **SLICE)
    figure = inpainting_figure.draw(volume, sample, sample["clean"] + 0.1, channel=1)
    titles = [axes.get_title() for axes in figure.axes]
    assert titles[:4] == ["Image", "2 superpixels", "Regions that may be hidden", "Hidden now, and the tile"]
    np.testing.assert_allclose(shown(figure.axes[0]), volume["image"][1].numpy().T, atol=1e-6)
    np.testing.assert_allclose(shown(figure.axes[-1]), 0.1, atol=1e-6)
    count = int(sample["mask"].sum())
    said = texts(figure)
    assert f"one of 2 regions, {count} pixels = {2 * count} mm²" in said
    assert "channel 2 of 2 is shown" in said
    assert "MSE 0.0100" in said
    assert [t.get_text() for t in figure.axes[0].texts] == ["L", "R", "P", "A"]
    assert render(figure).shape == (740, 1200, 3)


def test_in_painting_of_a_photograph() -> None:
    volume, sample = hidden("cuboids", 3, **PHOTO)
    mirrored = {key: sample[key].flip(1) for key in ("image", "clean", "mask", "inside")}
    turned = {**sample, **mirrored, "orientation": torch.diag(torch.tensor([-1.0, 1.0]))}
    figure = inpainting_figure.draw(volume, turned)
    titles = [axes.get_title() for axes in figure.axes]
    assert titles[:3] == ["Image", "Foreground: rectangles overlap it", "Hidden now, and the tile"]
    np.testing.assert_allclose(shown(figure.axes[0]), volume["image"].numpy().transpose(2, 1, 0), atol=1e-6)
    # drawn as it lies in the image
    np.testing.assert_allclose(shown(figure.axes[3]), sample["image"].numpy().transpose(2, 1, 0), atol=1e-6)
    said = texts(figure)
    assert f"hidden: a random rectangle, {int(sample['mask'].sum())} pixels, " in said
    assert "mm" not in said
    assert "is shown" not in said

"""The picture of a jigsaw puzzle: which patches are framed green, and what it says."""

from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.colors import to_rgb
from monai.data import MetaTensor
from pretext3d.methods.jigsaw.figure import draw
from pretext3d.methods.jigsaw.pretext import RandJigsawd
from pretext3d.ops.permutations import far_permutations
from pretext3d.training.grid_drawing import BOX, RIGHT, WRONG
from pretext3d.training.pictures import render


def case(dims: int, channels: int = 1, **item: Any) -> tuple[dict[str, Any], dict[str, Any], torch.Tensor]:
    """A volume of 13 x 12 x 11 voxels or an image of 13 x 12, its puzzle of 3^d cells, the 10 classes."""
    permutations = torch.from_numpy(far_permutations(3**dims, 10))
    image = torch.rand(channels, *(13, 12, 11)[:dims], generator=torch.Generator().manual_seed(0))
    volume = {"id": "case_7", "image": MetaTensor(image, affine=torch.eye(4)), **item}
    transform = RandJigsawd(permutations, 3, (3, 2, 2)[:dims], 1, spatial_dims=dims).set_random_state(seed=1)
    return volume, transform(volume), permutations


def texts(figure: Any) -> list[str]:
    return [text.get_text() for text in figure.texts + [t for axes in figure.axes for t in axes.texts]]


def frames(panels: Any) -> list[Any]:
    return [patch.get_edgecolor()[:3] for panel in panels for patch in panel.patches]


@pytest.mark.parametrize("dims", [3, 2])
def test_a_solved_puzzle_is_green(dims: int) -> None:
    volume, sample, permutations = case(dims)
    logits = torch.full((1, 10), -20.0)
    logits[0, sample["permutation"]] = 20.0
    figure = draw(volume, sample, logits, permutations=permutations, grid=3)
    layers = 3 if dims == 3 else 1
    assert len(figure.axes) == 3 * layers
    assert frames(figure.axes[layers : 2 * layers]) == [to_rgb(BOX)] * 3**dims
    assert frames(figure.axes[2 * layers :]) == [to_rgb(RIGHT)] * 3**dims
    number = int(sample["permutation"])
    said = f"permutation {number} predicted, 100 %; {3**dims} of {3**dims} patches in their cells, green"
    assert said in texts(figure)
    assert np.isfinite(render(figure)).all()


def test_a_wrong_answer_is_red_where_patches_are_misplaced() -> None:
    """The classes 0 and 1 of 9 cells: at place p the answer puts the patch whose position it knows as p's."""
    volume, sample, permutations = case(2)
    truth = int(sample["permutation"])
    other = (truth + 1) % 10
    logits = torch.zeros(1, 10)
    logits[0, other] = 1.0
    figure = draw(volume, sample, logits, permutations=permutations, grid=3)
    given, answer = sample["order"].tolist(), permutations[other].tolist()
    shown = [given[answer.index(place)] for place in range(9)]  # the cell of the patch at each place
    colours = [to_rgb(RIGHT if shown[place] == place else WRONG) for place in range(9)]
    assert frames(figure.axes[2:]) == colours
    assert to_rgb(WRONG) in colours
    found = [text.get_text() for text in figure.axes[2].texts[:9]]
    assert found == [str(cell + 1) for cell in shown]
    probability = round(100 * np.e / (np.e + 9))
    right = sum(cell == place for place, cell in enumerate(shown))
    said = f"permutation {other} predicted, {probability} %; {right} of 9 patches in their cells, green"
    assert said in texts(figure)


def test_a_photograph_without_a_network() -> None:
    volume, sample, permutations = case(2, channels=3, oriented=False)
    before = {key: value.clone() for key, value in sample.items() if isinstance(value, torch.Tensor)}
    figure = draw(volume, sample, title="a title", permutations=permutations, grid=3)
    assert len(figure.axes) == 2
    found = texts(figure)
    assert {"a title", "number: the cell that a patch comes from", "What the network sees"} <= set(found)
    notes = [text.get_text() for text in figure.axes[1].texts[:9]]
    assert notes == [str(cell + 1) for cell in sample["order"].tolist()]
    assert not set(found) & set("LRPAIS")
    assert any("9 patches of 3 × 2 pixels, permutation" in line for line in found)  # noqa: RUF001
    assert all(torch.equal(sample[key], value) for key, value in before.items())

"""The picture: notes on the cells, frames of the answers."""

from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from pretext3d.methods.relative_patch_location.figure import cell_probabilities, draw
from pretext3d.methods.relative_patch_location.pretext import RandRelativePatchesd, cells_at
from pretext3d.training.grid_drawing import BOX, RIGHT, WRONG
from pretext3d.training.pictures import render


def case(dims: int = 3, queries: int = 2, channels: int = 1) -> tuple[dict[str, Any], dict[str, Any]]:
    volume = {"id": "head", "image": torch.rand(channels, *(12, 13, 14)[:dims])}
    transform = RandRelativePatchesd(3, (3, 3, 3)[:dims], 1, queries=queries, spatial_dims=dims)
    return volume, transform.set_random_state(seed=0)(volume)


def texts(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.texts + [t for axes in figure.axes for t in axes.texts]]


def frames(figure: Figure, colour: str) -> int:
    edges = [patch.get_edgecolor()[:3] for axes in figure.axes for patch in axes.patches]
    return sum(np.allclose(edge, to_rgb(colour)) for edge in edges)


@pytest.mark.parametrize(("dims", "layers"), [(3, 3), (2, 1)])
def test_answers_have_frames(dims: int, layers: int) -> None:
    """Two queries: the first right, the second wrong. Layers, patches, and two maps of each layer."""
    volume, sample = case(dims)
    locations = 3**dims - 1
    pred = torch.zeros(2, locations)
    pred[0, sample["location"][0]] = pred[1, (sample["location"][1] + 1) % locations] = 9
    figure = draw(volume, sample, pred, grid=3)
    assert len(figure.axes) == layers + 3 + 2 * layers
    assert (frames(figure, RIGHT), frames(figure, WRONG)) == (1, 1)
    assert frames(figure, BOX) == 3 + 1  # outlines of three patches, and the true cell of the wrong answer
    assert any(text.startswith("1 of 2 shown queries right") for text in texts(figure))
    assert np.isfinite(render(figure)).all()


def test_without_a_network() -> None:
    volume, sample = case(queries=6)
    figure = draw(volume, sample, title="a title", grid=3)
    assert len(figure.axes) == 3 + 5  # layers; the centre and four of six queries
    found = texts(figure)
    assert "a title" in found
    assert {"C", "1", "2", "3", "4"} <= set(found)
    assert "5" not in found
    assert frames(figure, BOX) == 5


def test_notes_are_at_the_cells() -> None:
    """A panel is a layer along axis 1, from back to front; cell = 9 i + 3 j + k."""
    volume, sample = case()
    figure = draw(volume, sample, grid=3)
    for number, cell in enumerate(cells_at(sample["location"], 13).tolist(), start=1):
        layers = [n for n in range(3) if str(number) in [t.get_text() for t in figure.axes[n].texts]]
        assert layers == [(cell // 3) % 3]


def test_probabilities_leave_the_centre_out() -> None:
    got = cell_probabilities(torch.log(torch.tensor([1.0, 2.0, 3.0, 4.0])), centre=2)
    np.testing.assert_allclose(got, [0.1, 0.2, np.nan, 0.3, 0.4])

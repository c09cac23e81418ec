"""The picture of a fractal: its projections, and the answer in words and colour."""

import numpy as np
import pytest
import torch
from matplotlib.colors import to_rgb
from pretext3d.methods.avsdb.fractals_figure import RIGHT, WRONG, draw
from pretext3d.training.pictures import render

NAMES = ["fractal 0", "fractal 1", "fractal 2"]


def texts(figure):
    return [text.get_text() for text in figure.texts]


def test_projections_of_a_volume():
    """Two voxels on one line along axis 0: sqrt(2) in that projection, 1 twice in the others."""
    image = torch.zeros(1, 4, 6, 5)
    image[0, 1, 2, 3] = image[0, 3, 2, 3] = 1
    figure = draw({"id": "item 7"}, {"image": image, "fractal": torch.tensor([1])}, class_names=NAMES)
    along = [np.asarray(axes.images[0].get_array()) for axes in figure.axes]
    assert [panel.shape for panel in along] == [(5, 6), (5, 4), (6, 4)]  # the first axis across
    assert along[0][3, 2] == pytest.approx(np.sqrt(2))
    assert np.argwhere(along[1]).tolist() == [[3, 1], [3, 3]]
    assert [axes.get_title() for axes in figure.axes] == [f"along axis {axis}" for axis in range(3)]
    assert texts(figure)[:2] == ["item 7", "fractal 1 of 3"]
    assert "1.7 % of the voxels" in texts(figure)[2]  # 2 of 120


@pytest.mark.parametrize(("truth", "colour"), [(2, RIGHT), (0, WRONG)])
def test_the_answer_of_an_image(truth, colour):
    """Logits 0, 0 and log 2: probability 2 / (1 + 1 + 2)."""
    sample = {"image": torch.ones(1, 8, 4), "fractal": torch.tensor([truth])}
    figure = draw({}, sample, torch.tensor([[0.0, 0.0, np.log(2)]]), "epoch 3", class_names=NAMES)
    assert len(figure.axes) == 1
    assert texts(figure)[:2] == [
        "epoch 3",
        f"fractal {truth} of 3; found: 50 %: fractal 2",
    ]
    assert to_rgb(figure.texts[1].get_color()) == to_rgb(colour)
    assert render(figure).ndim == 3

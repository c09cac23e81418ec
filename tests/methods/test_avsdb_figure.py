"""The picture of shapes: its parts in 3D and 2D, with and without a prediction."""

import numpy as np
import pytest
import torch
from pretext3d.methods.avsdb.figure import draw, outside, palette
from pretext3d.methods.avsdb.volumes import ShapeVolumes
from pretext3d.training.pictures import render


def texts(figure: object) -> list[str]:
    return [text.get_text() for text in figure.texts]  # type: ignore[attr-defined]


@pytest.mark.parametrize("size", [(24, 20, 16), (32, 24)])
@pytest.mark.parametrize("predicted", [False, True])
def test_picture(size: tuple[int, ...], predicted: bool) -> None:
    generate = ShapeVolumes(size, spatial_dims=len(size), num_shapes=5)
    sample = generate(np.random.default_rng(0), 0)
    classes = len(generate.class_names)
    pred = torch.randn(classes, *size, generator=torch.Generator().manual_seed(0)) if predicted else None
    figure = draw({"id": "item 0"}, sample, pred, class_names=generate.class_names)
    rows = 3 if predicted else 2
    # in 3D: three planes of each, a look at labels and predictions, the legend
    assert len(figure.axes) == (rows * 3 + rows - 1 + 1 if len(size) == 3 else rows + 1)
    found = texts(figure)
    assert found[0] == "item 0"
    assert {"Image", "Label"} <= set(found)
    assert ("Prediction" in found) == predicted
    assert any(f"of {classes - 1} classes here" in text for text in found)
    assert render(figure).std() > 5


def test_the_legend_names_what_is_predicted_too() -> None:
    names = ["background", "ellipse", "triangle", "square"]
    sample = {"image": torch.rand(1, 16, 16, 16), "label": torch.zeros(1, 16, 16, 16)}
    sample["label"][0, 4:8] = 2
    pred = torch.zeros(4, 16, 16, 16)
    pred[3] = 1.0
    figure = draw({"id": "x"}, sample, pred, class_names=names)
    legend = next(axes.get_legend() for axes in figure.axes if axes.get_legend())
    assert [text.get_text() for text in legend.get_texts()] == ["triangle", "square"]


def test_the_nearest_shape_is_seen() -> None:
    """Two plates behind each other: from the front only the first one's class."""
    label = torch.zeros(12, 12, 12, dtype=torch.long)
    label[3:9, 2, 3:9], label[3:9, 9, 3:9] = 1, 2
    colours = palette(3)
    seen = outside(label, colours).reshape(-1, 3)
    hue = seen[seen.max(1) > 0.2]
    first = np.abs(hue / hue.max(1, keepdims=True) - colours[1]).max(1) < 0.02
    assert 0.3 < first.mean() < 1  # turned, the plate behind shows beside it


def test_colours_differ() -> None:
    colours = palette(33)
    assert colours[0].tolist() == [0, 0, 0]
    assert len({tuple(colour) for colour in colours.round(3)}) == 33

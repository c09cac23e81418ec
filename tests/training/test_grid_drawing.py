"""Layers of a grid, as the pictures show them."""

import torch
from matplotlib.figure import Figure
from pretext3d.training.grid_drawing import Contrast, as_volume, draw_layer, layer_of


def test_layers_from_back_to_front() -> None:
    # cells of a 2 x 3 x 2 grid in C order: (i, j, k) is 6 i + 2 j + k
    assert layer_of((2, 3, 2), 1).tolist() == [[2, 3], [8, 9]]


def test_an_image_is_a_volume_of_one_layer() -> None:
    sample = {"image": torch.zeros(2, 1, 3, 4), "starts": torch.tensor([[5, 6], [7, 8]])}
    image, got, cells = as_volume(torch.zeros(1, 20, 30), sample, (1, 2))
    assert image.shape == (1, 20, 1, 30)
    assert got["image"].shape == (2, 1, 3, 1, 4)
    assert got["starts"].tolist() == [[5, 0, 6], [7, 0, 8]]
    assert cells == (1, 1, 2)


def test_outlines_are_where_the_patches_are() -> None:
    """A 1 x 1 x 2 grid, patches at (1, 2, 0) and (2, 0, 6): width along axis 0, height along axis 2."""
    volume = torch.rand(1, 8, 9, 10)
    sample = {"image": torch.zeros(2, 1, 2, 3, 4), "starts": torch.tensor([[1, 2, 0], [2, 0, 6]])}
    panels = [Figure().add_subplot() for _ in range(2)]
    for panel, notes in zip(panels, (None, {1: "here"}), strict=True):
        draw_layer(panel, volume, sample, (1, 1, 2), 0, Contrast(volume, False), notes)
    boxes = [
        [(*patch.get_xy(), patch.get_width(), patch.get_height()) for patch in p.patches] for p in panels
    ]
    assert boxes == [[(1, 0, 2, 4), (2, 6, 2, 4)], [(2, 6, 2, 4)]]
    assert [[text.get_text() for text in p.texts] for p in panels] == [["1", "2"], ["here"]]

"""Pictures of puzzles: which patch is drawn where."""

from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.colors import to_rgb
from pretext3d.training.grid_drawing import BOX, RIGHT, WRONG
from pretext3d.training.mosaics import Mosaic, draw_puzzle


def shown(panel: Any) -> list[float]:
    """The first voxel of each image in a panel."""
    return [float(np.asarray(image.get_array()).ravel()[0]) for image in panel.images]


def overlapping(texts: list[Any]) -> list[tuple[str, str]]:
    """The pairs of texts that are drawn over each other."""
    boxes = [(text.get_text(), text.get_window_extent()) for text in texts]
    return [
        (one, other)
        for n, (one, box) in enumerate(boxes)
        for other, next_box in boxes[n + 1 :]
        if box.overlaps(next_box)
    ]


@pytest.mark.parametrize("dims", [3, 2])
def test_no_text_is_drawn_over_another(dims: int) -> None:
    """Neither numbers of patches, letters of directions nor headings; every number has an outline."""
    volume = {"id": "head", "image": torch.rand(1, *[30] * dims, generator=torch.Generator().manual_seed(0))}
    cells = np.stack(np.meshgrid(*[np.arange(3)] * dims, indexing="ij"), -1).reshape(-1, dims)
    patches = torch.rand(3**dims, 1, *[8] * dims)
    notes, colours = [str(n + 1) for n in range(3**dims)], [BOX] * 3**dims
    mosaics = [Mosaic("Patches", patches, notes, colours, upright) for upright in (False, True)]
    starts = torch.from_numpy(10 * cells)
    figure = draw_puzzle(volume, starts, mosaics, grid=3, heading="Volume", subtitle="two", caption="end")
    figure.canvas.draw()
    assert overlapping([*figure.texts, *(text for panel in figure.axes for text in panel.texts)]) == []
    assert all(text.get_path_effects() for panel in figure.axes for text in panel.texts)


def test_patches_of_27_cells_are_drawn_at_their_places() -> None:
    """Patch p has the intensity p; the layer j shows patches 9 i + 3 j + k, up the columns of each i."""
    volume = {"id": "head", "image": torch.linspace(-1, 28, 12**3).reshape(1, 12, 12, 12)}
    cells = np.stack(np.meshgrid(*[np.arange(3)] * 3, indexing="ij"), -1).reshape(-1, 3)
    patches = torch.arange(27.0).reshape(27, 1, 1, 1, 1).expand(27, 1, 3, 3, 3)
    colours = [RIGHT, WRONG, BOX] * 9
    mosaic = Mosaic("Patches", patches, [f"n{p}" for p in range(27)], colours, upright=True)
    starts = torch.from_numpy(4 * cells)
    figure = draw_puzzle(volume, starts, [mosaic], grid=3, heading="Volume", caption="end", subtitle="two")
    assert len(figure.axes) == 3 + 3
    low, high = np.quantile(patches, [0.005, 0.995])  # of the patches themselves
    for layer, panel in enumerate(figure.axes[3:]):
        places = [9 * i + 3 * layer + k for i in range(3) for k in range(3)]
        np.testing.assert_allclose(
            shown(panel), np.clip((np.array(places) - low) / (high - low), 0, 1), atol=1e-6
        )
        assert [text.get_text() for text in panel.texts[:9]] == [f"n{p}" for p in places]
        assert [patch.get_edgecolor()[:3] for patch in panel.patches] == [to_rgb(colours[p]) for p in places]
        assert [text.get_text() for text in panel.texts[9:]] == ["L", "R", "I", "S"]
    for layer, panel in enumerate(figure.axes[:3]):
        corners = [patch.get_xy() for patch in panel.patches]
        assert corners == [(4 * i, 4 * k) for i in range(3) for k in range(3)]
        assert [text.get_text() for text in panel.texts[:9]] == [
            str(9 * i + 3 * layer + k + 1) for i in range(3) for k in range(3)
        ]
    assert {"Volume", "Patches", "head", "two", "end"} <= {text.get_text() for text in figure.texts}

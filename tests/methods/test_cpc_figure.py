"""The picture of CPC: which patches are marked, and what is said of the network's answer."""

from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.colors import to_hex
from pretext3d.methods.cpc.figure import CONTEXT, HERE, PATCH, answer, chosen, draw, marked
from pretext3d.methods.cpc.patches import PatchGrid, RandPatchGridd
from pretext3d.training.grid_drawing import RIGHT, WRONG
from pretext3d.training.pictures import render

CUBE = PatchGrid(grid=[3, 2, 4], size=[4, 4, 4], overlap=1, jitter=1, steps=2)
PLANE = PatchGrid(grid=[3, 4], size=[4, 6], steps=2, spatial_dims=2)
BOTH = pytest.mark.parametrize("patches", [CUBE, PLANE], ids=["3d", "2d"])


def case(patches: PatchGrid) -> tuple[dict[str, Any], dict[str, Any]]:
    image = torch.rand(2, *[edge + 3 for edge in patches.block], generator=torch.Generator().manual_seed(0))
    volume = {"id": "head", "image": image}
    return volume, RandPatchGridd(patches).set_random_state(seed=0)(volume)


def certain(patches: PatchGrid, shift: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Codes along different axes; each prediction is the code of its location or of one `shift` further."""
    count = len(patches.order)
    codes = 5 * torch.eye(count)
    return codes, codes[(patches.targets + shift) % count]


def texts(figure: Any) -> str:
    return "\n".join(t.get_text() for t in [*figure.texts, *(t for axes in figure.axes for t in axes.texts)])


def colours(panel: Any) -> list[str]:
    return [to_hex(patch.get_edgecolor()) for patch in panel.patches]


def test_what_is_marked() -> None:
    """Rows 3 to 0 of the last axis are the locations' rows 0 to 3; the patch is in row 1 = 4 - 1 - 2.

    Its place is (1, 1) of 3 x 2, its cell (1, 1, 2) = 1 * 8 + 1 * 4 + 2 = 14. The row above it, k = 3: all of
    3 x 2 cells. Below it, k = 1 and k = 0, are the patches to be recognised, 13 and 12.
    """
    assert chosen(CUBE) == (1, 1, 1)
    found = marked(CUBE, (1, 1, 1), "gru", 2)
    above = {8 * i + 4 * j + 3 for i in range(3) for j in range(2)}
    assert found == {14: HERE, 13: RIGHT, 12: RIGHT, **dict.fromkeys(above, CONTEXT)}


@BOTH
def test_without_a_network(patches: PatchGrid) -> None:
    figure = draw(*case(patches), title="a title", patches=patches)
    assert len(figure.axes) == (2 if patches is CUBE else 1)
    found = [colour for panel in figure.axes for colour in colours(panel)]
    assert len(found) == len(patches.order)
    expected = marked(patches, chosen(patches), "gru", 2).values()
    assert sorted(c for c in found if c != PATCH) == sorted(expected)
    assert "a title" in texts(figure)
    assert f"{len(patches.targets)} predictions, each of one of {len(patches.order)} patches" in texts(figure)


@BOTH
def test_a_network_that_is_right(patches: PatchGrid) -> None:
    figure = draw(*case(patches), certain(patches), patches=patches)
    found = texts(figure)
    assert "1 row ahead: recognised,\n100 % for the right one" in found
    assert "2 rows ahead: recognised,\n100 % for the right one" in found
    assert f"100 % of the {len(patches.targets)} predictions" in found
    panels = figure.axes[2:] if patches is CUBE else figure.axes[1:]
    framed = [colour for panel in panels for colour in colours(panel)]
    assert (framed.count(RIGHT), framed.count(WRONG)) == (2, 0)
    assert np.isfinite(render(figure)).all()


@BOTH
def test_a_network_that_is_wrong(patches: PatchGrid) -> None:
    figure = draw(*case(patches), certain(patches, shift=1), patches=patches)
    assert "1 row ahead: not recognised,\n0 % for the right one" in texts(figure)
    assert "0 % of the" in texts(figure)
    panels = figure.axes[2:] if patches is CUBE else figure.axes[1:]
    framed = [colour for panel in panels for colour in colours(panel)]
    assert (framed.count(RIGHT), framed.count(WRONG)) == (2, 2)


def test_probabilities_are_by_cell() -> None:
    place = chosen(CUBE)
    for step, cell in ((1, 13), (2, 12)):
        probability, right = answer(CUBE, certain(CUBE), place, step)
        assert right == cell
        assert int(probability.argmax()) == cell
        assert float(probability.sum()) == pytest.approx(1)

"""A picture of exemplar networks: an anchor, its view, and a negative, with their distances.

A volume is shown by its three middle planes. The patient's right is on the left in the image itself; a view
is flipped and rotated.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from pretext3d.annotations import Float, Tensor
from pretext3d.data.dataset import CachedVolumes
from pretext3d.data.subjects import subject_code
from pretext3d.training.drawing import FAINT, TEXT, View, frame, middle_planes, numpy, times, titled_figure
from pretext3d.training.grid_drawing import RIGHT, WRONG, Contrast
from pretext3d.training.pictures import predict

__all__ = ["draw"]

PANEL, TOP, BOTTOM = 2.5, 0.95, 0.75  # inches: a plane, the title, the caption
HEADINGS = ("Anchor", "Its view (positive)", "Another subject (negative)")


def draw(
    volume: Mapping[str, Any],
    sample: Mapping[str, Any],
    pred: Float[Tensor, "2 f"] | None = None,
    title: str = "",
    *,
    dataset: CachedVolumes,
    network: nn.Module,
    inferer: Callable[..., Any],
    device: torch.device | str = "cpu",
    objective: str = "triplet",
) -> Any:
    """The task of one sample, and with `pred` what the network makes of it, as a matplotlib `Figure`.

    Args:
        volume: Item with `image` (c, *space) in RAS order, its `id`, and the keys of `View`.
        sample: Output of the pipeline: `image` (2, c, *space) and `subject_code`.
        pred: Output of the network for this sample without the batch axis.
        title: First line.
        dataset: Held-out cases, of which the first of another subject is the negative.
        network: Network that embeds the negative; needed with `pred`.
        inferer: Inferer that calls the network, as in validation.
        device: Device of the network.
        objective: `triplet` for L2 distances, `contrastive` for cosine distances.
    """
    view = View(volume)
    other = negative_of(sample, dataset)
    images = [*sample["image"]] + ([] if other is None else [other["image"][0]])
    show = Contrast(torch.stack(images, dim=1), view.colour)  # one for all: the positive may be brighter
    rows, columns = (3 if view.dims == 3 else 1), len(images)
    height = TOP + PANEL * rows + BOTTOM
    width = max(PANEL * columns + 0.4, 7.0)
    figure = titled_figure(width, height, volume, title, below=0.3, view=view)
    for column, image in enumerate(images):
        across = PANEL / width
        left = 0.5 + (column - columns / 2) * across
        figure.text(
            left + across / 2, 1 - 0.75 / height, HEADINGS[column], color=TEXT, size=11, ha="center",
            va="center",
        )  # fmt: skip
        for row, (plane, _) in enumerate(reversed(middle_planes(image))):  # the axial one first
            bottom = (BOTTOM + (rows - 1 - row) * PANEL) / height
            size = (across - 0.1 / width, (PANEL - 0.1) / height)
            panel = figure.add_axes((left + 0.05 / width, bottom, *size))
            draw_plane(panel, plane, show)
    text, colour = description(sample["image"][0], view), FAINT
    if pred is not None:
        far = None if other is None else predict(network, inferer, [other], device)[0][0]
        text, near = distances(pred, far, objective)
        colour = RIGHT if near else WRONG
    figure.text(0.5, 0.4 / height, text, color=colour, size=10.5, ha="center", va="center")
    return figure


def negative_of(sample: Mapping[str, Any], dataset: CachedVolumes) -> dict[str, Any] | None:
    """The first sample of another subject; None where all cases are of one."""
    own = int(sample["subject_code"])
    others = (index for index, case in enumerate(dataset.data) if subject_code(case) != own)
    found = next(others, None)
    return None if found is None else dataset[found]


def draw_plane(panel: Any, plane: Float[Tensor, "c a b"], show: Contrast) -> None:
    """A plane, its first channel or its colours."""
    across, up = plane.shape[1:]
    show(panel, plane, (0, across, 0, up))
    frame(panel, numpy(torch.zeros(2)), numpy(torch.tensor([across, up])))


def description(image: Float[Tensor, "c *space"], view: View) -> str:
    """Size of the network's input."""
    return f"{times(image.shape[1:])} {'voxels' if view.dims == 3 else 'pixels'}"


def distances(
    pred: Float[Tensor, "2 f"], negative: Float[Tensor, "f"] | None, objective: str
) -> tuple[str, bool]:
    """The distances of anchor and view, and of anchor and negative, in words; whether the view is nearer.

    Examples:
        >>> distances(torch.tensor([[0.0, 1.0], [3.0, 5.0]]), torch.tensor([0.0, 2.0]), "triplet")
        ('distance of anchor and view 5.00, of anchor and negative 1.00', False)
    """
    anchor, view = pred.float()
    kind = "cosine distance" if objective == "contrastive" else "distance"

    def between(other: Tensor) -> float:
        if objective == "contrastive":
            return 1 - float(F.cosine_similarity(anchor, other, dim=0))
        return float(torch.linalg.vector_norm(anchor - other))

    near = between(view)
    if negative is None:
        return f"{kind} of anchor and view {near:.2f}", True
    far = between(negative.float())
    return f"{kind} of anchor and view {near:.2f}, of anchor and negative {far:.2f}", near < far

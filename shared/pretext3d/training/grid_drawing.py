"""What the pictures of methods with a grid of patches have in common: planes through its layers.

Coronal planes, one per layer of the grid from back to front. An image is drawn as one such plane of a volume
that is one voxel thick.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from pretext3d.annotations import Shaped, Tensor
from pretext3d.training.drawing import frame, numpy, outlined, pixels

__all__ = ["BOX", "DEPTH", "RIGHT", "WRONG", "Contrast", "as_volume", "draw_layer", "layer_of", "note"]

DEPTH = 1  # the axis through coronal planes
BOX, RIGHT, WRONG = "#ffd54a", "#5fd38d", "#ff5f57"
NOTE = np.asarray([0.95, 0.93])  # start of a patch's note, relative to its size


def as_volume(
    image: Tensor, sample: Mapping[str, Any], cells: Sequence[int]
) -> tuple[Tensor, Mapping[str, Any], tuple[int, ...]]:
    """Image, sample and grid; in 2D those of a volume that is one voxel thick from back to front.

    Args:
        image: Volume (c, i, j, k) or image (c, i, j).
        sample: `image` (n, c, *size), the patches, and `starts` (m, d), the lowest voxels of those of all
            cells.
        cells: Number of cells along each axis.
    """
    if image.ndim == 4:
        return image, sample, tuple(cells)
    starts = torch.as_tensor(sample["starts"])
    thin = torch.stack([starts[:, 0], torch.zeros_like(starts[:, 0]), starts[:, 1]], dim=1)
    tiles = torch.as_tensor(sample["image"]).unsqueeze(-2)
    return image.unsqueeze(-2), {**sample, "image": tiles, "starts": thin}, (cells[0], 1, cells[1])


class Contrast:
    """Scales a slice for display: its first channel or its colours, with all but the extremes in [0, 1]."""

    def __init__(self, image: Tensor, colour: bool) -> None:
        self.colour = colour
        shown = numpy(image if colour else image[:1])
        low, high = np.quantile(shown.reshape(len(shown), -1), [0.005, 0.995], axis=1)
        self.low, self.high = (torch.from_numpy(limit)[:, None, None] for limit in (low, high))

    def __call__(self, panel: Any, plane: Shaped[Tensor, "c a b"], extent: Sequence[Any]) -> None:
        """Draw a slice."""
        plane = torch.as_tensor(plane)[: len(self.low)].double().cpu()
        scaled = (plane - self.low) / (self.high - self.low).clamp(min=1e-12)
        picture = pixels(scaled, colour=self.colour)
        panel.imshow(picture, cmap="gray", vmin=0, vmax=1, origin="lower", extent=tuple(extent))


def layer_of(cells: Sequence[int], layer: int) -> Shaped[np.ndarray, "a b"]:
    """Numbers of the cells in one layer along axis 1, (cells along axis 0, cells along axis 2).

    Examples:
        >>> layer_of((2, 3, 2), 1).tolist()
        [[2, 3], [8, 9]]
    """
    return np.arange(np.prod(cells)).reshape(cells)[:, layer]


def draw_layer(
    panel: Any,
    image: Shaped[Tensor, "c i j k"],
    sample: Mapping[str, Any],
    cells: Sequence[int],
    layer: int,
    show: Contrast,
    notes: Mapping[int, str] | None = None,
) -> None:
    """The coronal plane through the middle of a layer's patches, with their outlines and notes.

    Args:
        panel: Axes of matplotlib.
        image: Volume.
        sample: `image` and `starts`, see `as_volume`.
        cells: Number of cells along each axis.
        layer: Number of the layer.
        show: Contrast of the volume.
        notes: Cells to outline, and the note in each; None = all, numbered from 1.
    """
    from matplotlib.patches import Rectangle

    width, depth, height = sample["image"].shape[2:]
    numbers = layer_of(cells, layer)
    starts = numpy(sample["starts"])
    middle = int(np.clip(starts[numbers.ravel(), DEPTH].mean() + depth / 2, 0, image.shape[2] - 1))
    show(panel, image[:, :, middle], (0, image.shape[1], 0, image.shape[3]))
    for number in numbers.ravel().tolist():
        if notes is None or number in notes:
            corner = starts[number][[0, 2]]
            panel.add_patch(Rectangle(tuple(corner), width, height, fill=False, edgecolor=BOX, linewidth=1.4))
            note(panel, corner, (width, height), str(number + 1) if notes is None else notes[number])
    low = np.minimum(0, starts.min(0)[[0, 2]])
    high = np.maximum([image.shape[1], image.shape[3]], starts.max(0)[[0, 2]] + (width, height))
    frame(panel, low, high)


def note(panel: Any, corner: np.ndarray, size: Sequence[float], text: str, colour: str = BOX) -> None:
    """A short text at the upper left of a patch as it is shown, from its lowest corner and its size."""
    panel.text(
        *(corner + NOTE * size),
        text,
        color=colour,
        size=10,
        ha="left",
        va="top",
        zorder=7,
        path_effects=outlined(),
    )

"""A picture of a volume of a fractal: its three projections, and the network's answer."""

from collections.abc import Mapping, Sequence
from typing import Any

from pretext3d.annotations import Float, Tensor
from pretext3d.training.drawing import FAINT, TEXT, numpy, times, titled_figure
from pretext3d.training.grid_drawing import RIGHT, WRONG

__all__ = ["draw"]

PANEL, HEAD, FOOT = 2.9, 0.85, 0.35  # inches


def draw(
    volume: Mapping[str, Any],
    sample: Mapping[str, Any],
    pred: Float[Tensor, "1 classes"] | None = None,
    title: str = "",
    *,
    class_names: Sequence[str],
) -> Any:
    """One item of `FractalVolumes`, as a matplotlib `Figure`: how many points' voxels lie behind each pixel.

    Args:
        volume: Item; its `id` is the title without another one.
        sample: `image` (1, *space) and `fractal` (1,).
        pred: Logits of the network for this sample, without the batch axis.
        title: First line.
        class_names: Names of the classes.
    """
    image, truth = sample["image"][0], int(sample["fractal"][0])
    panels = {f"along axis {axis}": image.sum(axis) for axis in range(3)} if image.ndim == 3 else {"": image}
    width, height = max(PANEL * len(panels), 6.4), HEAD + PANEL + FOOT
    figure = titled_figure(width, height, volume, title, below=0.25)
    said, colour = answer(pred, truth, class_names)
    figure.text(0.02, 1 - 0.6 / height, said, color=colour, size=10.5, va="center")
    for column, (heading, projection) in enumerate(panels.items()):
        left = (column + (1 - len(panels)) / 2) * PANEL / width + 0.5 - PANEL / 2 / width
        axes = figure.add_axes((left, FOOT / height, (PANEL - 0.1) / width, (PANEL - 0.1) / height))
        axes.imshow(numpy(projection).T ** 0.5, cmap="gray", origin="lower")
        axes.axis("off")
        axes.set_title(heading, color=FAINT, size=9, pad=2)
    filled = 100 * float(image.mean())
    text = f"{times(image.shape)}; {filled:.1f} % of the voxels have a point in them"
    figure.text(0.02, 0.16 / height, text, color=FAINT, size=9, va="center")
    return figure


def answer(
    pred: Float[Tensor, "1 classes"] | None, truth: int, class_names: Sequence[str]
) -> tuple[str, str]:
    """The class, and the most probable one with its probability; and the text's colour.

    Examples:
        >>> import torch
        >>> answer(torch.tensor([[0.0, 20.0]]), 0, ["fractal 0", "fractal 1"])
        ('fractal 0 of 2; found: 100 %: fractal 1', '#ff5f57')
    """
    said = f"{class_names[truth]} of {len(class_names)}"
    if pred is None:
        return said, TEXT
    likely = pred[0].detach().float().softmax(-1)
    found = int(likely.argmax())
    percent = round(100 * float(likely[found]))
    return f"{said}; found: {percent} %: {class_names[found]}", RIGHT if found == truth else WRONG

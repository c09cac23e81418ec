"""A picture of the example method: what the network sees, must predict, and predicts."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from pretext3d.annotations import Tensor
from pretext3d.training.drawing import BACK, TEXT, numpy

__all__ = ["draw"]

PANEL = 3.2  # inches


def draw(
    volume: Mapping[str, Any], sample: Mapping[str, Any], pred: Tensor | None = None, title: str = ""
) -> Any:
    """The middle slice of one crop, as a matplotlib `Figure`: input, target, and with `pred` the prediction.

    Args:
        volume: What the sample was taken from; its `id` is the title without another one.
        sample: `image` and `clean` (c, *space), intensities from 0 to 1.
        pred: Output of the network for this sample, without the batch axis.
        title: The line above.
    """
    from matplotlib.figure import Figure

    panels = {"Input": sample["image"], "Target": sample["clean"]} | (
        {} if pred is None else {"Output": pred}
    )
    figure = Figure(figsize=(PANEL * len(panels), PANEL + 0.6), facecolor=BACK)
    figure.suptitle(title or str(volume.get("id", "")), color=TEXT)
    for number, (heading, image) in enumerate(panels.items(), start=1):
        axes = figure.add_subplot(1, len(panels), number)
        axes.imshow(middle(numpy(image)[0]).T, origin="lower", cmap="gray", vmin=0, vmax=1)
        axes.set_title(heading, color=TEXT, size=11)
        axes.axis("off")
    return figure


def middle(image: np.ndarray) -> np.ndarray:
    """The middle slice across the last axis of a volume; an image as it comes."""
    return image if image.ndim == 2 else image[..., image.shape[-1] // 2]

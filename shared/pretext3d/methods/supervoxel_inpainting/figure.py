"""A picture of supervoxel in-painting, after the paper's Figure 1.

An image is drawn as the one axial slice of a volume that is one voxel thick.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from pretext3d.annotations import Float, Int, Shaped, Tensor
from pretext3d.errors import UserError
from pretext3d.methods.supervoxel_inpainting import pretext as inpainting
from pretext3d.training.drawing import (
    FAINT,
    TEXT,
    View,
    frame,
    mark_edges,
    numpy,
    pixels,
    times,
    titled_figure,
)

__all__ = ["draw"]

SIZE = (12.0, 7.4)  # inches
TILE, HIDDEN, OUTLINE = "#ffd54a", "#40d8ff", "#ffb04a"
GOLDEN = 0.618034  # fraction of the colour wheel between neighbouring numbers: their colours are far apart
TILE_HEADING = "Hidden now, and the tile"
MAPS, TILES = ("image", "supervoxels", "regions", "label"), ("image", "clean", "mask", "inside")
WORDS = {
    3: {"volume": "volume", "voxels": "voxels", "cuboid": "cuboid", "supervoxels": "supervoxels"},
    2: {"volume": "image", "voxels": "pixels", "cuboid": "rectangle", "supervoxels": "superpixels"},
}


def draw(
    volume: Mapping[str, Any],
    sample: Mapping[str, Any],
    pred: Tensor | None = None,
    title: str = "",
    channel: int = 0,
) -> Any:
    """The task of one tile, and with `pred` the network's result, as a matplotlib `Figure`.

    All panels show one axial slice, the one with most voxels of the hidden region. Above: the volume, its
    supervoxels (if any), the regions that may be hidden, and the hidden one with the tile. Below: the tile as
    the network sees it, the original, and the network's in-painting, with the error.

    Args:
        volume: Item with `image` (c, *space) in RAS order, [0, 1], `spacing` (d,), mm; `supervoxels` and
            `regions` (1, *space), or `label`, where the arm has them; and the keys of `View`.
        sample: Output of the pipeline for one tile: `image`, `clean` (c, *roi_size), `mask`, `inside` (1,
            *roi_size), `crop_start` (d,), voxels of the volume; `orientation` (d, d) where it was mirrored:
            it is drawn in the volume's orientation.
        pred: Output of the network for this sample without the batch axis, (c, *roi_size).
        title: First line.
        channel: Index of the channel that is shown, where it is not in colour.

    Raises:
        UserError: an arm that hides nothing, or a channel that does not exist.
    """
    if "mask" not in sample:
        raise UserError("arm: restart-unet hides nothing, so there is no picture of it; expected another arm")
    if not 0 <= channel < len(sample["clean"]):
        raise UserError(f"draw::channel: found {channel}, expected 0 to {len(sample['clean']) - 1}")
    view = View(volume)
    sample, pred = as_in_volume(sample, pred)
    volume, sample, pred = with_depth(volume, sample, pred)
    place = Place(volume, sample, view)
    lines = describe(volume, sample, place)
    figure = titled_figure(*SIZE, volume, title, subtitle=lines, view=view, channel=channel)
    above = volume_panels(volume, place)
    for rectangle, (heading, overlay, labels) in zip(rectangles(len(above), 0.472), above, strict=True):
        axes = figure.add_axes(rectangle)
        slab = pixels(volume["image"][..., place.slice], channel, view.colour)
        place.show(axes, slab, (0, 0), cmap="gray", vmin=0, vmax=1)
        if overlay is not None:
            place.show(axes, overlay, (0, 0))
        if labels is not None:
            place.outline(axes, labels, (0, 0), OUTLINE)
        if heading == TILE_HEADING:
            place.mark_tile(axes)
        axes.set_title(heading, color=TEXT, size=11, pad=5)
        frame(axes, np.zeros(2), place.extent[:2])
        mark_edges(axes, [*view.letters[0], *view.letters[1]])
    below = tile_panels(sample, pred, place, channel)
    for rectangle, (heading, note, tile, colours) in zip(rectangles(len(below), 0.06), below, strict=True):
        axes = figure.add_axes(rectangle)
        limits = {"cmap": "gray", "vmax": 1.0} if colours == "gray" else {"cmap": colours, "vmax": 0.5}
        place.show(axes, tile, place.start[:2], vmin=0.0, **limits)
        place.outline(axes, place.mask, place.start[:2], HIDDEN)
        axes.set_title(heading, color=TEXT, size=11, pad=5)
        axes.text(0.5, -0.05, note, color=FAINT, size=9.5, ha="center", va="top", transform=axes.transAxes)
        frame(axes, place.start[:2] * place.spacing[:2], place.end[:2] * place.spacing[:2])
    return figure


def as_in_volume(sample: Mapping[str, Any], pred: Tensor | None) -> tuple[Mapping[str, Any], Tensor | None]:
    """The tile and the network's output, mirrored back."""
    if "orientation" not in sample:
        return sample, pred
    signs = numpy(sample["orientation"]).diagonal()
    axes = [axis + 1 for axis, sign in enumerate(signs) if sign < 0]
    tiles = {key: torch.as_tensor(sample[key]).flip(axes) for key in TILES}
    return {**sample, **tiles}, None if pred is None else pred.flip(axes)


def with_depth(
    volume: Mapping[str, Any], sample: Mapping[str, Any], pred: Tensor | None
) -> tuple[Mapping[str, Any], Mapping[str, Any], Tensor | None]:
    """The arguments of an image as those of a volume that is one voxel of 1 mm thick along the third axis."""
    if volume["image"].ndim == 4:
        return volume, sample, pred

    def thick(item: Mapping[str, Any], keys: tuple[str, ...]) -> dict[str, Tensor]:
        return {key: torch.as_tensor(item[key])[..., None] for key in keys if torch.is_tensor(item.get(key))}

    def third(item: Mapping[str, Any], key: str, value: float) -> dict[str, Tensor]:
        return {key: torch.tensor([*numpy(item[key]).tolist(), value])}

    volume = {**volume, **thick(volume, MAPS), **third(volume, "spacing", 1.0)}
    sample = {**sample, **thick(sample, TILES), **third(sample, "crop_start", 0.0)}
    return volume, sample, None if pred is None else pred[..., None]


class Place:
    """The positions of the tile and the hidden region, and the axial slice that is shown."""

    def __init__(
        self, volume: Mapping[str, Any], sample: Mapping[str, Any], view: View | None = None
    ) -> None:
        self.view = View(volume) if view is None else view
        self.spacing = numpy(volume["spacing"])
        self.shape = np.asarray(volume["image"].shape[1:])
        self.extent = self.shape * self.spacing
        self.start = numpy(sample["crop_start"]).astype(int)
        self.end = self.start + np.asarray(sample["clean"].shape[1:])
        hidden = torch.as_tensor(sample["mask"])[0]
        self.voxels = int(hidden.sum())
        self.tile_slice = int(hidden.sum((0, 1)).argmax())
        self.slice = int(np.clip(self.start[2] + self.tile_slice, 0, self.shape[2] - 1))
        self.mask = numpy(hidden[:, :, self.tile_slice]) > 0

    def show(self, axes: Any, picture: Float[np.ndarray, "..."], start: Any, **how: Any) -> None:
        """Draw a slice (j, i), or (j, i, 3 or 4) with colours, in mm; its lower corner is voxel `start`."""
        left, bottom = np.asarray(start) * self.spacing[:2]
        width, height = picture.shape[1::-1] * self.spacing[:2]
        axes.imshow(
            picture, origin="lower", interpolation="nearest", aspect="equal",
            extent=(left, left + width, bottom, bottom + height), **how,
        )  # fmt: skip

    def outline(self, axes: Any, labels: Shaped[np.ndarray, "i j"], start: Any, colour: str) -> None:
        """Draw the lines between voxels of different labels."""
        from matplotlib.collections import LineCollection

        lines = (borders(labels) + np.asarray(start)) * self.spacing[:2]
        axes.add_collection(LineCollection(list(lines), colors=colour, linewidths=0.7), autolim=False)

    def mark_tile(self, axes: Any) -> None:
        """Draw the hidden region, filled, and the tile's outline."""
        from matplotlib.patches import Rectangle

        self.show(axes, tinted(self.mask.T.astype(int), HIDDEN), self.start[:2])
        corner, size = self.start[:2] * self.spacing[:2], (self.end - self.start)[:2] * self.spacing[:2]
        axes.add_patch(Rectangle(corner, *size, fill=False, edgecolor=TILE, linewidth=1.8))


def describe(volume: Mapping[str, Any], sample: Mapping[str, Any], place: Place) -> tuple[str, str]:
    """Two lines about the volume and its hidden region."""
    view, dims = place.view, place.view.dims
    words = WORDS[dims]
    share = place.voxels / sample["mask"].numel()
    count = len(volume["region_boxes"]) if "region_boxes" in volume else 0
    one_of = f"one of {count} regions" if count else f"a random {words['cuboid']}"
    amount = place.voxels * float(np.prod(place.spacing))
    in_mm = (f" = {amount / 1000:.1f} ml" if dims == 3 else f" = {amount:.0f} mm²") * view.oriented
    tile, shape = times(sample["clean"].shape[1:][:dims]), times(place.shape[:dims])
    extent, spacing = times(place.extent[:dims], 0), times(place.spacing[:dims])
    size = f"{extent} mm, {shape} {words['voxels']} of {spacing} mm" if view.oriented else f"{shape} pixels"
    return (
        f"{words['volume']}: {size}",
        f"hidden: {one_of}, {place.voxels:,} {words['voxels']}{in_mm}, {share:.1%} of a tile of {tile}",
    )


def volume_panels(
    volume: Mapping[str, Any], place: Place
) -> list[tuple[str, np.ndarray | None, np.ndarray | None]]:
    """Heading, colours (j, i, 4) and labels to outline (i, j) of each picture of the volume."""
    words = WORDS[place.view.dims]
    panels: list[tuple[str, np.ndarray | None, np.ndarray | None]]
    panels = [(words["volume"].capitalize(), None, None)]

    def slab(key: str) -> np.ndarray:
        return numpy(volume[key][0, :, :, place.slice]).astype(int)

    if "supervoxels" in volume:
        panels.append(
            (f"{int(volume['supervoxels'].max())} {words['supervoxels']}", None, slab("supervoxels"))
        )
    if "regions" in volume:
        panels.append(("Regions that may be hidden", tinted(slab("regions").T), None))
    elif "foreground" in volume:
        label = (slab("label") > 0).astype(int)
        panels.append((f"Foreground: {words['cuboid']}s overlap it", tinted(label.T), None))
    return [*panels, (TILE_HEADING, None, None)]


def tile_panels(
    sample: Mapping[str, Any], pred: Tensor | None, place: Place, channel: int
) -> list[tuple[str, str, np.ndarray, str]]:
    """Heading, note, pixels (b, a) or (b, a, 3) and colour map of each picture of the tile."""
    colour = place.view.colour

    def slab(tile: Tensor) -> Float[np.ndarray, "..."]:
        return pixels(torch.as_tensor(tile)[..., place.tile_slice], channel, colour)

    clean = sample["clean"]
    panels = [
        ("What the network sees", "one region is zero", slab(sample["image"]), "gray"),
        ("What was there", "must be in-painted", slab(clean), "gray"),
    ]
    if pred is not None:
        output = as_output(sample, pred)
        error, fill = (float(f(output)) for f in (inpainting.masked_mse, inpainting.mean_fill_mse))
        likeness = float(inpainting.masked_ssim(output))
        flat = f", {error / fill:.2f} of a flat fill's" if fill > 1e-6 else "; a flat fill makes no error"
        note = f"there: MSE {error:.4f}{flat}"
        restored = output["pred"][0]
        shape = slab(clean).shape[:2]
        panels += [
            ("The network's in-painting", f"there: similarity (SSIM) {likeness:.2f}", slab(restored), "gray"),
            ("Error", note, np.abs(slab(restored) - slab(clean)).reshape(*shape, -1).mean(-1), "magma"),
        ]
    return panels


def as_output(sample: Mapping[str, Any], pred: Float[Tensor, "c a b d"]) -> dict[str, Any]:
    """A sample and its prediction as a batch of one, the input of the method's errors."""
    label = {key: torch.as_tensor(sample[key])[None] for key in ("clean", "mask", "inside")}
    label["clean"] = label["clean"].float()
    return {"pred": pred.detach().cpu().float()[None], "label": label}


def borders(labels: Shaped[np.ndarray, "i j"]) -> Float[np.ndarray, "n 2 2"]:
    """Segments (two ends, each i and j, voxels from the lower corner) between voxels of different labels."""
    i, j = np.nonzero(labels[1:] != labels[:-1])
    across = np.stack([np.stack([i + 1, j], -1), np.stack([i + 1, j + 1], -1)], 1)
    i, j = np.nonzero(labels[:, 1:] != labels[:, :-1])
    along = np.stack([np.stack([i, j + 1], -1), np.stack([i + 1, j + 1], -1)], 1)
    return np.concatenate([across, along]).astype(float)


def tinted(labels: Int[np.ndarray, "j i"], colour: str = "") -> Float[np.ndarray, "j i 4"]:
    """A colour for each label above 0, half transparent; nothing where the label is 0."""
    from matplotlib.colors import hsv_to_rgb, to_rgb

    hue = (labels * GOLDEN) % 1.0
    colours = hsv_to_rgb(np.stack([hue, np.full_like(hue, 0.85), np.ones_like(hue)], -1))
    if colour:
        colours = np.broadcast_to(to_rgb(colour), (*labels.shape, 3))
    return np.concatenate([colours, 0.55 * (labels > 0)[..., None]], -1)


def rectangles(count: int, bottom: float) -> list[tuple[float, float, float, float]]:
    """Left, bottom, width and height in the figure of a row of panels."""
    width = 0.97 / max(4, count)
    left = 0.5 - width * count / 2
    return [(left + width * column + 0.008, bottom, width - 0.016, 0.37) for column in range(count)]

"""How a volume of shapes looks: outlines, filled shapes, or textured ones.

Tadokoro et al., CVPRW 2023, leaves the intensities open. Its authors' successor draws the outline in each
slice, two voxels wide, with value 128 of 255: that is `outline`. `filled` gives every voxel of a shape that
value. `textured` is ours: every shape and the background have a random mean and a random amplitude of the
volume's one smooth texture, some shapes are hollow, and the image is blurred, noisy and biased, so that
intensity says nothing about a class.

Random numbers are drawn with NumPy, and applied on the device of the shapes.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from monai.networks.layers import gaussian_1d, separable_filtering

from pretext3d.annotations import Float, Tensor
from pretext3d.checking import brief, closest_hint, named_entries, number, one_of, ordered_pair
from pretext3d.errors import UserError
from pretext3d.methods.avsdb.placement import Placement
from pretext3d.methods.avsdb.shapes import uniform
from pretext3d.ops.tensors import LINEAR

__all__ = ["RENDERINGS", "Look", "Rendering", "rendering"]

GREY = 128 / 255  # PrimGeoSeg
# upper limits of the ranges: intensities are from 0 to 1, sizes in voxels
MOST = {
    "brightness": 1.0, "background": 1.0, "texture": 1.0, "texture_size": 512.0, "blur": 10.0,
    "bias_field": 2.0, "noise": 1.0,
}  # fmt: skip
ROUNDING = 1e-9  # of the difference of two intensities
BIAS_POINTS = 3  # of the coarse grid, along each axis, that the bias field is interpolated from


@dataclass(frozen=True)
class Rendering:
    """How shapes are drawn: intensities from 0 to 1, and ranges of which each volume or shape has a value.

    Args:
        render: What of a shape is drawn: `outline`, `filled` or `textured`, with the border alone of a shape
            that is hollow.
        brightness: Range of the mean intensity of each shape.
        background: Range of the mean intensity of the background.
        contrast: Smallest difference of a shape's mean from the background's; at most a quarter of the wider
            of the two ranges.
        texture: Range of each shape's, and the background's, amplitude of the volume's smooth texture.
        texture_size: Range of the size of the texture's structures, in voxels.
        hollow: Probability of a shape's interior looking like the background.
        blur: Range of the standard deviation of the Gaussian that the image is blurred with, in voxels.
        bias_field: Range of the amplitude of a smooth factor exp(amplitude * noise).
        noise: Range of the standard deviation of Gaussian noise.

    Raises:
        UserError: for another value of `render`, a range or a probability that is not one, or above `MOST`.
    """

    render: Any = "outline"
    brightness: Any = (GREY, GREY)
    background: Any = (0.0, 0.0)
    contrast: Any = 0.0
    texture: Any = (0.0, 0.0)
    texture_size: Any = (4, 12)
    hollow: Any = 0.0
    blur: Any = (0.0, 0.0)
    bias_field: Any = (0.0, 0.0)
    noise: Any = (0.0, 0.0)

    def __post_init__(self) -> None:
        one_of("render", self.render, RENDERINGS)
        for key, most in MOST.items():
            given, low_open = getattr(self, key), key == "texture_size"
            object.__setattr__(self, key, ordered_pair(f"rendering::{key}", given, low_open, most))
        if self.texture_size[0] < 1:
            found = brief(list(self.texture_size))
            raise UserError(f"rendering::texture_size: found {found}, expected voxels, 1 or more")
        number("rendering::hollow", self.hollow, 0, 1)
        self._check_contrast()

    def _check_contrast(self) -> None:
        """Refuse a contrast for which the ranges are too narrow; names the value that was changed."""
        ranges = {key: getattr(self, key) for key in ("brightness", "background")}
        most = max(high - low for low, high in ranges.values()) / 4
        usual = RENDERINGS[self.render]
        changed = [key for key, pair in ranges.items() if key in usual and pair != usual[key]]
        if not changed or self.contrast != usual.get("contrast", 0.0):
            expected = f"a number in [0, {most:g}], a quarter of the wider range of brightness and background"
            number("rendering::contrast", self.contrast, 0, most + ROUNDING, expected=expected)
        elif self.contrast > most + ROUNDING:
            words = " and ".join(f"{key} [{pair[0]:g}, {pair[1]:g}]" for key, pair in ranges.items())
            raise UserError(
                f"rendering::{changed[0]}: found {words}, expected one of them to be {4 * self.contrast:g} "
                f"wide or more, or a rendering::contrast of {most:g} or less (found {self.contrast:g})"
            )


RENDERINGS: dict[str, dict[str, Any]] = {
    "outline": {},
    "filled": {},
    "textured": {
        "brightness": (0.1, 0.9),
        "background": (0.0, 0.8),
        "contrast": 0.1,
        "texture": (0.0, 0.15),
        "hollow": 0.25,
        "blur": (0.0, 1.0),
        "bias_field": (0.0, 0.3),
        "noise": (0.0, 0.08),
    },
}


def rendering(render: Any, changes: Any = None) -> Rendering:
    """A rendering by name, with some of its values changed.

    Raises:
        UserError: for an unknown name or value, see `Rendering`.

    Examples:
        >>> rendering("textured", {"noise": [0, 0.2]}).noise
        (0.0, 0.2)
    """
    one_of("render", render, RENDERINGS)
    known = [field.name for field in fields(Rendering) if field.name != "render"]
    given = named_entries("rendering", changes, "{noise: [0, 0.1]}")
    for key in given:
        if key not in known:
            hint = closest_hint(key, known)
            raise UserError(f"rendering: found {key!r}, expected any of {', '.join(known)}{hint}")
    return Rendering(render, **{**RENDERINGS[render], **given})


class Look:
    """The random numbers of one volume's rendering.

    Args:
        rng: Source of the random numbers.
        rendering: How shapes are drawn.
        count: Number of shapes.
        size: Voxels of the volume along each axis.
    """

    def __init__(
        self, rng: np.random.Generator, rendering: Rendering, count: int, size: Sequence[int]
    ) -> None:
        r, self.size = rendering, tuple(size)
        self.background = float(uniform(rng, r.background, 1)[0])
        while too_near(self.background, r):  # at most every other draw is
            self.background = float(uniform(rng, r.background, 1)[0])
        self.means = uniform(rng, r.brightness, count)
        while (near := np.abs(self.means - self.background) < r.contrast).any():
            self.means[near] = uniform(rng, r.brightness, int(near.sum()))
        self.amplitudes = uniform(rng, r.texture, count + 1)  # the background's is the first
        self.hollow = (rng.random(count) < r.hollow) | (r.render == "outline")
        cell, self.blur, self.bias, deviation = (
            float(uniform(rng, pair, 1)[0]) for pair in (r.texture_size, r.blur, r.bias_field, r.noise)
        )
        coarse = [max(2, int(np.ceil(edge / cell)) + 1) for edge in size]
        self.texture = rng.standard_normal(coarse, dtype=np.float32) if r.texture[1] else None
        points = [BIAS_POINTS] * len(size)
        self.bias_points = rng.standard_normal(points, dtype=np.float32) if r.bias_field[1] else None
        noise = rng.standard_normal(size, dtype=np.float32) if r.noise[1] else None
        self.noise = None if noise is None else np.float32(deviation) * noise

    def draw(self, placement: Placement) -> Float[Tensor, "*space"]:
        """The image of placed shapes, with intensities from 0 to 1; a volume of one slice is an image."""
        flat = len(self.size) == 2

        def looked_up(background: float, border: np.ndarray, interior: np.ndarray) -> Tensor:
            values = np.concatenate([[background], np.stack([border, interior], axis=1).ravel()])
            found = placement.look_up(values.astype(np.float32))
            return found[..., 0] if flat else found

        image = looked_up(self.background, self.means, np.where(self.hollow, self.background, self.means))
        device = image.device
        if self.texture is not None:
            first, own = self.amplitudes[0], self.amplitudes[1:]
            amplitude = looked_up(first, own, np.where(self.hollow, first, own))
            image = image + amplitude * smooth(self.texture, image)
        if self.blur > 0:
            # float64: a GPU computes convolutions of float32 in TF32, with 10 bits
            kernel = gaussian_1d(torch.tensor(self.blur, device=device), truncated=3.0).double()
            kernels = [kernel / kernel.sum()] * image.ndim
            image = separable_filtering(image[None, None].double(), kernels, mode="replicate")[0, 0].float()
        if self.bias_points is not None:
            image = image * torch.exp(self.bias * smooth(self.bias_points, image))
        if self.noise is not None:
            image = image + torch.from_numpy(self.noise).to(device)
        return image.clamp_(0, 1)


def too_near(background: float, rendering: Rendering) -> bool:
    """Whether a background leaves the shapes less than half of their range of brightness.

    With half of it or more, a mean that is drawn again until it is far enough needs two draws on average.

    Examples:
        >>> too_near(0.5, Rendering(brightness=(0.4, 0.6), background=(0, 1), contrast=0.1))
        True
        >>> too_near(0.4, Rendering(brightness=(0.4, 0.6), background=(0, 1), contrast=0.1))
        False
    """
    low, high = rendering.brightness
    lost = min(high, background + rendering.contrast) - max(low, background - rendering.contrast)
    return lost > (high - low) / 2 + ROUNDING or (low == high and abs(background - low) < rendering.contrast)


def smooth(points: np.ndarray, like: Float[Tensor, "*space"]) -> Float[Tensor, "*space"]:
    """A coarse grid, whose outer points are the corners, interpolated linearly to a volume's size."""
    coarse = torch.from_numpy(points)[None, None].to(like.device)
    return F.interpolate(coarse, size=tuple(like.shape), mode=LINEAR[like.ndim], align_corners=True)[0, 0]

"""Random views of an image: flips, rotations, zoom and shift as one resampling, then changes of intensities.

Section 3.5 of Taleb et al. (NeurIPS 2020): "random flipping along an arbitrary axis, random rotation along an
arbitrary axis, random brightness and contrast, and random zooming". Shifts, changes of gamma, and a
brightness and contrast per channel, are ours.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from monai.transforms import Randomizable, Transform

from pretext3d.annotations import Bool, Float, Tensor
from pretext3d.checking import boolean, number, one_of, ordered_pair
from pretext3d.data.subjects import case_code, subject_code
from pretext3d.errors import UserError
from pretext3d.ops.checks import check_spatial_dims
from pretext3d.ops.intensities import adjust_, gamma_
from pretext3d.ops.rotations import check_flip_axes
from pretext3d.ops.tensors import plain_tensor

__all__ = ["RandViewsd", "Views", "apply_views", "resample", "rotations", "sampling_matrices"]

ANCHORS = ("image", "view")
FACTORS = "two numbers 0 < low <= high"


class Views(NamedTuple):
    """Parameters of n views.

    Attributes:
        matrices: Sampling matrices (n, d, d + 1), see `sampling_matrices`.
        contrast: Factors (n, c) of the deviation from a channel's mean.
        brightness: Intensities (n, c) that are added.
        gamma: Exponents (n, c) of the intensities, before; None = 1.
    """

    matrices: Tensor
    contrast: Tensor
    brightness: Tensor
    gamma: Tensor | None = None


def rotations(angles: Float[Tensor, "n"], axes: Float[Tensor, "n 3"] | None = None) -> Float[Tensor, "n d d"]:
    """Rotation matrices by any angles: in the plane of an image or, given axes, of a volume.

    Right-handed in voxel axes, as `torch.rot90(x, 1, (0, 1))` and `ops.rotations`: 90 degrees in the plane,
    or about [0, 0, 1], take axis 0 to axis 1. About a unit axis u: R = I + sin(a) K + (1 - cos(a)) K^2 with
    K v = u x v (Rodrigues).

    Args:
        angles: Angles in degrees.
        axes: Rotation axes (not zero, of any length); None = in the plane, d = 2.

    Examples:
        >>> (rotations(torch.tensor([90.0])).round() + 0).tolist()
        [[[0.0, -1.0], [1.0, 0.0]]]
    """
    cos, sin = angles.deg2rad().cos(), angles.deg2rad().sin()
    if axes is None:
        return torch.stack([torch.stack([cos, -sin], 1), torch.stack([sin, cos], 1)], 1)
    x, y, z = F.normalize(axes, dim=1).unbind(1)
    zero = torch.zeros_like(x)
    cross = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], 1).reshape(-1, 3, 3)
    sin, cos = sin[:, None, None], cos[:, None, None]
    return torch.eye(3).to(cross) + sin * cross + (1 - cos) * cross @ cross


def sampling_matrices(
    flipped: Bool[Tensor, "n d"],
    rotation: Float[Tensor, "n d d"],
    zoom: Float[Tensor, "n"],
    shift: Float[Tensor, "n d"],
) -> Float[Tensor, "n d e"]:
    """The affine maps (n, d, d + 1) from a view's voxels to the image's, both in voxels from the centre.

    The content is flipped first, then rotated, then zoomed, then shifted: a point p of the image is at
    y = zoom R F p + shift in the view. A view is sampled where each of its voxels y comes from:
    p = F R^T (y - shift) / zoom.

    Args:
        flipped: Axes that are mirrored.
        rotation: Rotation matrices R, see `rotations`.
        zoom: Factors; 2 shows the content twice as large.
        shift: Shifts in voxels.

    Examples:
        >>> eye, none = torch.eye(2)[None], torch.zeros(1, 2)
        >>> sampling_matrices(none > 0, eye, torch.tensor([2.0]), torch.tensor([[1.0, 0.0]])).tolist()
        [[[0.5, 0.0, -0.5], [0.0, 0.5, 0.0]]]
    """
    signs = 1 - 2 * flipped.to(rotation)
    linear = signs[:, :, None] * rotation.transpose(1, 2) / zoom[:, None, None]
    return torch.cat([linear, -linear @ shift[:, :, None]], dim=2)


def resample(
    images: Float[Tensor, "n c *space"], matrices: Float[Tensor, "n d e"]
) -> Float[Tensor, "n c *space"]:
    """Every image at the places that its matrix gives, linearly interpolated, 0 outside; one call for all.

    Args:
        images: Images or volumes, on any device.
        matrices: Sampling matrices (n, d, d + 1), see `sampling_matrices`.

    Examples:
        >>> flip = torch.tensor([[[1.0, 0.0, 0.0], [0.0, -1.0, 0.0]]])
        >>> resample(torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]]), flip).tolist()
        [[[[2.0, 1.0], [4.0, 3.0]]]]
    """
    space = images.shape[2:]
    matrices = matrices.to(images)
    # affine_grid measures from the centre in half lengths, and has the axes in reverse order
    half = images.new_tensor(space) / 2
    linear = matrices[:, :, :-1] * half / half[:, None]
    offset = matrices[:, :, -1:] / half[:, None]
    theta = torch.cat([linear.flip(1, 2), offset.flip(1)], dim=2)
    grid = F.affine_grid(theta, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, mode="bilinear", padding_mode="zeros", align_corners=False)


def apply_views(images: Float[Tensor, "n c *space"], views: Views) -> Float[Tensor, "n c *space"]:
    """`resample`, `gamma_`, then `adjust_`: views of a batch, one per image, on the device of the images.

    Contrast and brightness are affine: a standardised histogram is the same after them, and may be all that a
    view is recognised by. Gamma changes its shape.
    """
    shown = resample(images, views.matrices)
    if views.gamma is not None:
        shown = gamma_(shown, views.gamma)
    return adjust_(shown, views.contrast, views.brightness)


class RandViewsd(Randomizable, Transform):
    """An image (c, *space) becomes an anchor and its positive: `image` (2, c, *space).

    The positive is a random view, the anchor the image itself or another random view. A view is flipped
    across each of `flip_axes`, rotated by an angle ~ U(-rotate_range, rotate_range) about an axis that is
    uniform over all directions (of an image in its plane), zoomed by a factor whose logarithm is uniform, and
    shifted, in one resampling (see `sampling_matrices`); then gamma, contrast and brightness change (see
    `apply_views`).
    Rotations are in voxels: an image whose voxels are not cubes is sheared in mm.

    Adds `subject_code` and `case_code`, int64 scalars: the loss excludes negatives of the same subject, and
    the retrieval looks for the same case (see `subjects.subject_code`).

    Args:
        image_key: Key of the image, in intensities of about 0 to 1.
        anchor: `image` (the paper) or `view`.
        flip_prob: Probability of each flip.
        flip_axes: Axes that may be mirrored, out of 0, 1, 2, in 2D out of 0, 1; None = all.
        rotate_prob: Probability of a rotation.
        rotate_range: Largest angle in degrees, 0 to 180 (any angle).
        zoom_prob: Probability of a zoom.
        zoom_range: Smallest and largest factor.
        shift_prob: Probability of a shift.
        shift_range: Largest shift along each axis, as a fraction of the image's length, 0 to 1.
        brightness_prob: Probability of a change of brightness.
        brightness_range: Largest intensity that is added or subtracted.
        contrast_prob: Probability of a change of contrast.
        contrast_range: Smallest and largest factor.
        gamma_prob: Probability of a change of gamma; with 0 nothing is drawn for it.
        gamma_range: Smallest and largest exponent of the intensities.
        per_channel: Whether each channel has its own brightness, contrast and gamma, or all have the same.
        spatial_dims: Number of spatial axes, 3 for volumes, 2 for images.

    Raises:
        UserError: for invalid arguments and, when called, for an image with another number of spatial axes.
    """

    def __init__(
        self,
        image_key: str = "image",
        anchor: str = "image",
        flip_prob: float = 0.5,
        flip_axes: Sequence[int] | None = None,
        rotate_prob: float = 1.0,
        rotate_range: float = 180.0,
        zoom_prob: float = 1.0,
        zoom_range: Any = (0.7, 1.4),
        shift_prob: float = 1.0,
        shift_range: float = 0.1,
        brightness_prob: float = 1.0,
        brightness_range: float = 0.3,
        contrast_prob: float = 1.0,
        contrast_range: Any = (0.5, 2.0),
        gamma_prob: float = 0.0,
        gamma_range: Any = (0.5, 2.0),
        per_channel: Any = False,
        spatial_dims: int = 3,
    ) -> None:
        one_of("anchor", anchor, ANCHORS)
        check_spatial_dims(spatial_dims)
        self.image_key, self.anchor, self.spatial_dims = image_key, anchor, spatial_dims
        self.flip_axes = tuple(range(spatial_dims))
        if flip_axes is not None:
            self.flip_axes = check_flip_axes("flip_axes", flip_axes, spatial_dims)
        self.flip_prob = number("flip_prob", flip_prob, 0, 1)
        self.rotate_prob = number("rotate_prob", rotate_prob, 0, 1)
        self.rotate_range = number("rotate_range", rotate_range, 0, 180)
        self.zoom_prob = number("zoom_prob", zoom_prob, 0, 1)
        self.zoom_range = ordered_pair("zoom_range", zoom_range, low_open=True, expected=FACTORS)
        self.shift_prob = number("shift_prob", shift_prob, 0, 1)
        self.shift_range = number("shift_range", shift_range, 0, 1)
        self.brightness_prob = number("brightness_prob", brightness_prob, 0, 1)
        self.brightness_range = number("brightness_range", brightness_range, 0)
        self.contrast_prob = number("contrast_prob", contrast_prob, 0, 1)
        self.contrast_range = ordered_pair("contrast_range", contrast_range, low_open=True, expected=FACTORS)
        self.gamma_prob = number("gamma_prob", gamma_prob, 0, 1)
        self.gamma_range = ordered_pair("gamma_range", gamma_range, low_open=True, expected=FACTORS)
        self.per_channel = boolean("per_channel", per_channel)
        self.views: Views | None = None

    def randomize(self, data: Sequence[int]) -> None:
        """Draw `views` for an image of shape `data` (c, *space): one, or two where the anchor is a view."""
        channels, *space = (int(n) for n in data)
        count, dims = 1 + (self.anchor == "view"), len(space)
        flipped = self.R.uniform(size=(count, dims)) < self.flip_prob
        flipped &= np.isin(np.arange(dims), self.flip_axes)
        angles = self._where(self.rotate_prob, self.R.uniform(-1, 1, size=count) * self.rotate_range, 0.0)
        about = torch.from_numpy(self.R.normal(size=(count, 3))) if dims == 3 else None
        zoom = self._where(self.zoom_prob, self._factors(self.zoom_range, count), 1.0)
        shift = self.R.uniform(-1, 1, size=(count, dims)) * self.shift_range * space
        shift = self._where(self.shift_prob, shift, 0.0)
        separate = channels if self.per_channel else 1
        contrast = self._factors(self.contrast_range, count, separate)
        contrast = self._where(self.contrast_prob, contrast, 1.0)
        brightness = self.R.uniform(-1, 1, size=(count, separate)) * self.brightness_range
        brightness = self._where(self.brightness_prob, brightness, 0.0)
        matrices = sampling_matrices(
            torch.from_numpy(flipped),
            rotations(torch.from_numpy(angles), about),
            torch.from_numpy(zoom),
            torch.from_numpy(shift),
        )
        changes = [contrast, brightness]
        if self.gamma_prob:
            changes.append(
                self._where(self.gamma_prob, self._factors(self.gamma_range, count, separate), 1.0)
            )
        self.views = Views(
            matrices.float(), *(torch.from_numpy(x).expand(count, channels).float() for x in changes)
        )

    def _factors(self, limits: tuple[float, float], *shape: int) -> np.ndarray:
        """Factors whose logarithm is uniform between those of the limits."""
        return np.exp(self.R.uniform(*np.log(limits), size=shape))

    def _where(self, prob: float, drawn: np.ndarray, neutral: float) -> np.ndarray:
        """Each view's own draw with a probability, else the neutral value."""
        happens = self.R.uniform(size=len(drawn)) < prob
        return np.where(happens.reshape(-1, *(1,) * (drawn.ndim - 1)), drawn, neutral)

    def __call__(self, data: Mapping[str, Any]) -> dict[str, Any]:
        """The case with its two views, `subject_code` and `case_code`."""
        d = dict(data)
        image = plain_tensor(d[self.image_key]).float()
        if image.ndim - 1 != self.spatial_dims:
            shape = "(c, i, j, k)" if self.spatial_dims == 3 else "(c, i, j)"
            raise UserError(f"{self.image_key}: found shape {list(image.shape)}, expected {shape}")
        self.randomize(image.shape)
        assert self.views is not None
        views = apply_views(image.expand(len(self.views.matrices), *image.shape), self.views)
        d[self.image_key] = views if len(views) == 2 else torch.stack([image, views[0]])
        d["subject_code"], d["case_code"] = torch.tensor(subject_code(d)), torch.tensor(case_code(d))
        return d

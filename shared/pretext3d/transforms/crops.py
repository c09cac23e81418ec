"""Random crops, flips and 90-degree rotations, and the box of the body resized, in 2D and 3D.

Voxel coordinates are continuous: voxel i covers [i, i + 1) along its axis, so a volume of n voxels spans
[0, n] and its centre is n / 2. A crop is (start, size) in these coordinates; for orientations see
`pretext3d.ops.rotations`.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from monai.data import MetaTensor
from monai.transforms import MapTransform, Randomizable, SpatialCrop, generate_spatial_bounding_box

from pretext3d.annotations import Shaped, Tensor
from pretext3d.checking import WORDS, number, ordered_pair, per_axis
from pretext3d.errors import UserError
from pretext3d.ops.checks import check_spatial_dims
from pretext3d.ops.rotations import (
    check_flip_axes,
    check_rotation_axes,
    flip_matrix,
    reorient,
    rotation_matrix,
)
from pretext3d.ops.tensors import LINEAR, plain_tensor

__all__ = ["RandFlipRotate90d", "RandScaleCropd", "ResizeBodyd", "resize"]


def crop_resize(
    volume: Shaped[Tensor, "c *space"], start: Sequence[int], size: Sequence[int], roi_size: Sequence[int]
) -> Shaped[Tensor, "c *roi"]:
    """The window [start, start + size) of a volume, zeros outside it, resampled to `roi_size`.

    Interpolation is trilinear, for an image bilinear. A window of exactly `roi_size` is copied, not
    interpolated. The volume is never changed; of a memory-mapped one only the window is read.

    Examples:
        >>> crop_resize(torch.tensor([[[1.0, 2.0], [3.0, 4.0]]]), (1, 0), (2, 2), (2, 2)).tolist()
        [[[3.0, 4.0], [0.0, 0.0]]]
    """
    low = [max(0, s) for s in start]
    high = [min(n, s + e) for n, s, e in zip(volume.shape[1:], start, size, strict=True)]
    window = volume[(slice(None), *map(slice, low, high))].float()
    before = [lo - s for lo, s in zip(low, start, strict=True)]
    after = [s + e - h for s, e, h in zip(start, size, high, strict=True)]
    if any(before) or any(after):
        window = F.pad(window, [n for b, a in zip(before[::-1], after[::-1], strict=True) for n in (b, a)])
    if tuple(size) == tuple(roi_size):
        return window.clone()
    return F.interpolate(window[None], size=tuple(roi_size), mode=LINEAR[len(low)], align_corners=False)[0]


def resize(volume: Shaped[Tensor, "c *space"], size: Sequence[int]) -> Shaped[Tensor, "c *size"]:
    """A volume at another size: linear interpolation, with a wider triangle where an axis shrinks.

    The weights of a voxel are normalised within the volume (PyTorch's `antialias`), so that a constant volume
    stays constant up to its border. MONAI's `Resize` with anti_aliasing filters against zeros outside, and
    darkens the border of what shrinks, each axis by its factor: a frame that shows a pretext task where a
    patch lies and how a volume is rotated. A `MetaTensor` gets the affine of the new voxels.

    Args:
        volume: Volume (c, i, j, k) or, in 2D, image (c, i, j).
        size: Voxels of the result along each axis.

    Examples:
        >>> resize(torch.tensor([[[0.0, 2.0, 4.0, 6.0]]]), (1, 2))
        tensor([[[1.4286, 4.5714]]])
    """
    old = volume.shape[1:]
    plain = plain_tensor(volume).float()
    if plain.ndim == 3:
        plain = _resize_plane(plain[None], size)[0]
    else:  # one plane after the other: axes 1 and 2 of the volume, then axis 0
        plain = _resize_plane(plain, (size[1], size[2]))
        plain = _resize_plane(plain.permute(0, 3, 1, 2), (size[0], size[1])).permute(0, 2, 3, 1)
    if not isinstance(volume, MetaTensor):
        return plain.contiguous()
    scale = torch.eye(len(volume.affine), dtype=torch.float64)
    for axis, (before, after) in enumerate(zip(old, size, strict=True)):
        scale[axis, axis] = before / after
        scale[axis, -1] = (before / after - 1) / 2
    return MetaTensor(
        plain.contiguous(), meta={**volume.meta, "affine": volume.affine @ scale.to(volume.affine)}
    )


def _resize_plane(planes: Shaped[Tensor, "n m a b"], size: Sequence[int]) -> Shaped[Tensor, "n m *size"]:
    return F.interpolate(planes, size=tuple(size), mode="bilinear", align_corners=False, antialias=True)


class ResizeBodyd(MapTransform):
    """Deterministic: the bounding box of the body, resized to one size for all cases, with its affine.

    A voxel is in the body where a channel exceeds `threshold` of the range from the channel's minimum to its
    maximum. For the interpolation see `resize`. A case without such a voxel is resized as a whole. Source:
    Taleb et al., NeurIPS 2020, who take 0.05 and 128^3 voxels.

    Args:
        keys: Keys of volumes (c, i, j, k) or, in 2D, images (c, i, j); the first one decides on the box.
        size: Voxels of the result, one number or one per axis.
        threshold: Part of the intensity range, 0 to 1 without 1; None = the whole volume is resized.
        spatial_dims: Number of spatial axes, 3 for volumes, 2 for images.

    Raises:
        UserError: For invalid arguments and, when called, for a volume with another number of spatial axes.

    Examples:
        >>> image = torch.tensor([[[0.0, 0.0, 0.0], [0.0, 3.0, 5.0]]])
        >>> ResizeBodyd("image", size=[1, 2], spatial_dims=2)({"image": image})["image"].tolist()
        [[[3.0, 5.0]]]
    """

    def __init__(
        self,
        keys: Sequence[str] | str,
        size: int | Sequence[int],
        threshold: float | None = 0.05,
        spatial_dims: int = 3,
    ) -> None:
        super().__init__(keys)
        self.size = per_axis("body_size", size, spatial_dims)
        self.threshold = (
            None if threshold is None else number("body_threshold", threshold, 0, 1, high_open=True)
        )

    def __call__(self, data: Mapping[Any, Any]) -> dict[Any, Any]:
        """The case with its bodies."""
        d = dict(data)
        keys = list(self.key_iterator(d))
        first = d[keys[0]]
        dims = first.ndim - 1
        if dims != len(self.size):
            raise UserError(f"body_size: found {list(self.size)}, expected {dims} sizes for these volumes")
        box = self.box(plain_tensor(first))
        for key in keys:
            d[key] = resize(SpatialCrop(roi_start=box[0], roi_end=box[1])(d[key]), self.size)
        return d

    def box(self, volume: Shaped[Tensor, "c *space"]) -> tuple[list[int], list[int]]:
        """First voxel of the body's box, and the first one after it, along each axis."""
        whole = [0] * (volume.ndim - 1), list(volume.shape[1:])
        if self.threshold is None:
            return whole
        low, high = (extreme(volume.flatten(1), dim=1) for extreme in (torch.amin, torch.amax))
        limit = low + self.threshold * (high - low)
        inside = volume > limit.view(-1, *[1] * (volume.ndim - 1))
        if not inside.any():
            return whole
        start, end = generate_spatial_bounding_box(inside.any(0, keepdim=True), select_fn=is_true)
        return list(start), list(end)


def is_true(mask: Tensor) -> Tensor:
    """The mask itself."""
    return mask


class RandScaleCropd(MapTransform, Randomizable):
    """A crop of random scale and position, resampled to `roi_size`; crops with little content are redrawn.

    The crop's edges are round(`roi_size` * s) voxels with one s ~ U(`scale_range`) for all axes. Along
    an axis of n voxels the start is uniform over the positions where the crop is inside, or, where the crop
    is longer than the volume, over the positions where it contains the entire axis (zeros beyond). A crop
    with a mean below `min_intensity` is rejected, up to `max_tries` times; then the fullest try is taken.

    Adds `crop_start` and `crop_size`, float tensors of shape (3,), in 2D (2,), in voxels of the volume.

    Args:
        keys: Keys of volumes (c, i, j, k) or, in 2D, images (c, i, j); the first one decides on rejection.
        roi_size: Size of the result in voxels, one number per spatial axis.
        scale_range: Limits of s, (1, 1) for crops that are never resampled.
        min_intensity: Smallest mean of an accepted crop, in the volume's units; 0 accepts every crop.
        max_tries: Number of draws before the fullest crop so far is taken.

    Raises:
        UserError: For invalid arguments and, when called, for a volume with another number of spatial axes.
    """

    def __init__(
        self,
        keys: Sequence[str] | str,
        roi_size: Sequence[int],
        scale_range: Sequence[float] = (0.5, 1.5),
        min_intensity: float = 0.0,
        max_tries: int = 10,
    ) -> None:
        MapTransform.__init__(self, keys)
        expected = "two numbers 0 < low <= high"
        self.scale_range = ordered_pair("scale_range", scale_range, low_open=True, expected=expected)
        if len(roi_size) not in WORDS or min(roi_size) < 1:
            found = list(roi_size)
            raise UserError(
                f"roi_size: found {found}, expected three sizes in voxels, in 2D two, of 1 or more"
            )
        if max_tries < 1:
            raise UserError(f"max_tries: found {max_tries}, expected 1 or more")
        self.roi_size = tuple(int(n) for n in roi_size)
        self.min_intensity = float(min_intensity)
        self.max_tries = int(max_tries)
        self.start: tuple[int, ...] = (0,) * len(self.roi_size)
        self.size: tuple[int, ...] = self.roi_size

    def randomize(self, data: Shaped[Tensor, "c *space"]) -> None:
        """Draw `start` and `size` for a volume."""
        if data.ndim - 1 != len(self.roi_size):
            count = WORDS.get(data.ndim - 1, data.ndim - 1)
            raise UserError(
                f"roi_size: found {list(self.roi_size)}, expected {count} sizes for these volumes"
            )
        fullest = -np.inf
        for _ in range(self.max_tries):
            scale = self.R.uniform(*self.scale_range)
            size = tuple(max(1, round(n * scale)) for n in self.roi_size)
            room = [n - e for n, e in zip(data.shape[1:], size, strict=True)]
            start = tuple(int(self.R.randint(min(0, r), max(0, r) + 1)) for r in room)
            mean = _window_mean(data, start, size) if self.min_intensity > 0 else 0.0
            if mean > fullest:
                fullest, self.start, self.size = mean, start, size
            if mean >= self.min_intensity:
                return

    def __call__(self, data: dict[str, Any]) -> dict[str, Any]:
        """The case with its crops and their position: `crop_start` and `crop_size`, in voxels."""
        d = dict(data)
        keys = list(self.key_iterator(d))
        self.randomize(plain_tensor(d[keys[0]]))
        for key in keys:
            d[key] = crop_resize(plain_tensor(d[key]), self.start, self.size, self.roi_size)
        d["crop_start"] = torch.tensor(self.start, dtype=torch.float32)
        d["crop_size"] = torch.tensor(self.size, dtype=torch.float32)
        return d


def _window_mean(volume: Tensor, start: Sequence[int], size: Sequence[int]) -> float:
    """Mean over the complete window, in which voxels outside the volume count as zero."""
    inside = volume[(slice(None), *(slice(max(0, s), s + e) for s, e in zip(start, size, strict=True)))]
    return float(inside.sum(dtype=torch.float64)) / (volume.shape[0] * float(np.prod(size)))


class RandFlipRotate90d(MapTransform, Randomizable):
    """Random flips, then random 90-degree rotations: one signed permutation for all keys.

    Each axis of `flip_axes` is mirrored with `flip_prob`; then, for each axis of `rotate_axes` in order, a
    rotation of 90, 180 or 270 degrees about it follows with `rotate_prob`. Adds `orientation`, a float tensor
    (3, 3), in 2D (2, 2): the matrix M that takes directions of the volume's frame to the new frame.

    A flip across an axis along which the anatomy is symmetric (left-right of a head) is invisible, so a
    target that depends on it cannot be predicted: leave such axes out.

    Args:
        keys: Keys of volumes (c, i, j, k) of one shape or, in 2D, images (c, i, j).
        flip_axes: Axes to mirror, out of 0, 1, 2, in 2D out of 0, 1; None: all axes.
        flip_prob: Probability of each flip.
        rotate_axes: Axes to rotate about, out of 0, 1, 2, in 2D only 2 (in the plane); None: all axes.
        rotate_prob: Probability of each rotation.
        spatial_dims: Number of spatial axes, 3 for volumes, 2 for images.

    Raises:
        UserError: For axes that there are not, a probability outside [0, 1], and, when called, for a volume
            with another number of spatial axes, and for a rotation by 90 degrees between axes of different
            length.
    """

    def __init__(
        self,
        keys: Sequence[str] | str,
        flip_axes: Sequence[int] | None = None,
        flip_prob: float = 0.5,
        rotate_axes: Sequence[int] | None = None,
        rotate_prob: float = 0.75,
        spatial_dims: int = 3,
    ) -> None:
        MapTransform.__init__(self, keys)
        check_spatial_dims(spatial_dims)
        self.spatial_dims = spatial_dims
        flips = tuple(range(spatial_dims))
        rotations: tuple[int, ...] = flips if spatial_dims == 3 else (2,)
        for name, prob in (("flip_prob", flip_prob), ("rotate_prob", rotate_prob)):
            if not 0 <= prob <= 1:
                raise UserError(f"{name}: found {prob}, expected a probability from 0 to 1")
        if flip_axes is not None:
            flips = check_flip_axes("flip_axes", flip_axes, spatial_dims)
        if rotate_axes is not None:
            rotations = check_rotation_axes("rotate_axes", rotate_axes, spatial_dims)
        self.flip_axes, self.flip_prob = flips, float(flip_prob)
        self.rotate_axes, self.rotate_prob = rotations, float(rotate_prob)
        self.orientation = np.eye(spatial_dims)

    def randomize(self, data: Any = None) -> None:
        """Draw `orientation`."""
        dims = self.spatial_dims
        mirrored = [axis for axis in self.flip_axes if self.R.rand() < self.flip_prob]
        self.orientation = flip_matrix(mirrored, dims)
        for axis in self.rotate_axes:
            turns = int(self.R.randint(1, 4)) if self.R.rand() < self.rotate_prob else 0
            self.orientation = rotation_matrix(axis, turns, dims) @ self.orientation

    def __call__(self, data: dict[str, Any]) -> dict[str, Any]:
        """The case with its volumes mirrored and rotated, and its `orientation`."""
        d = dict(data)
        keys = list(self.key_iterator(d))
        found = d[keys[0]].ndim - 1
        if found != self.spatial_dims:
            raise UserError(f"spatial_dims: found {self.spatial_dims}, expected {found} for these volumes")
        self.randomize()
        for key in keys:
            shape = d[key].shape
            d[key] = reorient(d[key], self.orientation)
            if d[key].shape != shape:
                raise UserError(
                    f"rotate_axes: a crop of {list(shape[1:])} voxels cannot be rotated by 90 degrees onto "
                    "itself; expected a roi_size with equal edges across each axis of rotate_axes, or fewer "
                    "axes"
                )
        d["orientation"] = torch.from_numpy(self.orientation).float()
        return d

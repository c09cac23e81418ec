"""Boundary targets: a 3D median filter and the magnitude of the 3D Scharr gradient, on any device.

Zhang Y, Gu P, Sapkota N, Zheng H, Liang P, Chen DZ. A Point in the Right Direction: Vector Prediction for
Spatially-Aware Self-Supervised Volumetric Representation Learning. ISBI 2023, section 2.2.

Borders are mirrored including the border voxel (c b a | a b c d | d c b), as `reflect` of SciPy.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from monai.config import KeysCollection
from monai.transforms import MapTransform
from monai.utils import convert_to_tensor

from pretext3d.annotations import Float, Tensor
from pretext3d.errors import UserError
from pretext3d.ops.medians import median_exact, median_separable
from pretext3d.transforms.outputs import like, output_names

__all__ = ["BoundaryTargetsd"]

MEDIANS = ("exact", "separable")
# Voxels of one array operation on a CPU, so that the arrays of one slab stay in its cache; measured.
CPU_ELEMENTS = 2**16


# -------------------------------------------------------------------------------- Scharr gradient
def scharr(volume: Float[Tensor, "*b i j k"]) -> Float[Tensor, "*b i j k"]:
    """Magnitude of the 3D Scharr gradient, sqrt((g_i^2 + g_j^2 + g_k^2) / 3).

    g_a is the difference [-1, 0, 1], so intensity per two voxels, along axis a of the volume smoothed by
    [3, 10, 3] / 16 along the other two axes. Equal to `skimage.filters.scharr`, borders included.

    Args:
        volume: any number of leading dimensions, floating point.
    """
    result = torch.empty_like(volume, memory_format=torch.contiguous_format)
    shape = volume.shape[-3:]
    for source, target in zip(volume.detach().reshape(-1, *shape), result.view(-1, *shape), strict=True):
        _scharr_into(source, target)
    return result


def _scharr_into(volume: Tensor, result: Tensor) -> None:
    """`scharr` of one volume (i, j, k), in slabs along i so that what is in between stays in the cache."""
    ni, nj, nk = volume.shape
    padded = F.pad(volume[None], (1,) * 6, mode="replicate")[0]  # a border mirrored by one voxel repeats it
    slab = min(ni, max(1, CPU_ELEMENTS // (nj * nk))) if volume.device.type == "cpu" else ni
    once = volume.new_empty(slab + 2, nj + 2, nk)
    twice = volume.new_empty(slab + 2, nj, nk)
    gradient = volume.new_empty(slab, nj, nk)
    for low in range(0, ni, slab):
        rows = min(slab, ni - low)
        part, out = padded[low : low + rows + 2], result[low : low + rows]
        a, b, g = once[: rows + 2], twice[: rows + 2], gradient[:rows]
        _smooth(part, 2, a)
        _difference(_smooth(a, 1, b), 0, out).square_()
        _smooth(_difference(a, 1, b), 0, g)
        out.addcmul_(g, g)
        _smooth(_smooth(_difference(part, 2, a), 1, b), 0, g)
        out.addcmul_(g, g).mul_((3 / 16) ** 4 / 3).sqrt_()


def _smooth(volume: Tensor, axis: int, out: Tensor) -> Tensor:
    """[3, 10, 3] / 3 along an axis, without its first and last place; the factor 3 / 16 comes at the end."""
    n = volume.shape[axis] - 2
    torch.add(volume.narrow(axis, 0, n), volume.narrow(axis, 2, n), out=out)
    return out.add_(volume.narrow(axis, 1, n), alpha=10 / 3)


def _difference(volume: Tensor, axis: int, out: Tensor) -> Tensor:
    """[-1, 0, 1] along an axis, without its first and last place."""
    n = volume.shape[axis] - 2
    return torch.sub(volume.narrow(axis, 2, n), volume.narrow(axis, 0, n), out=out)


# -------------------------------------------------------------------------------- boundary target
def boundary_target(
    volume: Float[Tensor, "*b i j k"],
    median_size: int = 5,
    offset: float = 0.01,
    gain: float = 30.0,
    median: str = "exact",
) -> Float[Tensor, "*b i j k"]:
    """clip((scharr(median(volume)) - offset) * gain, 0, 1).

    Args:
        volume: any number of leading dimensions, intensities [0, 1].
        median_size: voxels of the median's window along each axis, odd; 1 = no median.
        offset: Scharr magnitude, intensity per two voxels, up to which there is no boundary.
        gain: 1 / (magnitude from `offset` to a full boundary).
        median: "exact" (of the cubic window) or "separable" (three 1D medians, about a tenth of the time).

    Source: the paper gives no scaling; these three numbers are those of its author's code.
    """
    smooth = volume
    if median_size > 1:
        function: Callable[[Tensor, int], Tensor] = median_exact if median == "exact" else median_separable
        volumes = volume.reshape(-1, *volume.shape[-3:])
        smooth = torch.stack([function(v, median_size) for v in volumes]).view(volume.shape)
    return scharr(smooth).sub_(offset).mul_(gain).clamp_(0, 1)


class BoundaryTargetsd(MapTransform):
    """Deterministic: adds the boundary target of a volume (c, i, j, k) with intensities [0, 1].

    boundary = clip((scharr(median(volume)) - `offset`) * `gain`, 0, 1), same shape as the volume. Of a
    MetaTensor the target keeps the affine. The volume itself is left as it is.

    Args:
        keys: the clean volumes.
        output_key: where the target goes: one name per key.
        median_size: voxels of the median's window along each axis, odd, 1 to 7; 1 = no median.
        offset: Scharr magnitude, intensity per two voxels, up to which there is no boundary.
        gain: 1 / (magnitude from `offset` to a full boundary), above 0.
        median: `exact` (the definition) or `separable` (three 1D medians, about a tenth of the time).
        allow_missing_keys: pass over keys that a sample lacks.

    Raises:
        UserError: for an argument outside its range and, when called, for a volume that is not (c, i, j, k).
    """

    def __init__(
        self,
        keys: KeysCollection = "image",
        output_key: str | Sequence[str] = "boundary",
        median_size: int = 5,
        offset: float = 0.01,
        gain: float = 30.0,
        median: str = "exact",
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.output_keys = output_names(self.keys, output_key)
        if median_size not in (1, 3, 5, 7):
            raise UserError(f"median_size: found {median_size}, expected 1 (no median), 3, 5 or 7 voxels")
        if not gain > 0:
            raise UserError(f"gain: found {gain}, expected a number above 0")
        if not offset >= 0:
            raise UserError(f"offset: found {offset}, expected 0 or more")
        if median not in MEDIANS:
            raise UserError(f"median: found {median!r}, expected one of {', '.join(MEDIANS)}")
        self.median_size, self.median = int(median_size), median
        self.offset, self.gain = float(offset), float(gain)

    def __call__(self, data: dict[str, Any]) -> dict[str, Any]:
        """The sample with its boundary targets."""
        d = dict(data)
        for key, output_key in self.key_iterator(d, self.output_keys):
            volume = convert_to_tensor(d[key], track_meta=False)
            if volume.ndim != 4 or not volume.is_floating_point() or 0 in volume.shape:
                found = f"shape {list(volume.shape)} of {volume.dtype}"
                raise UserError(f"{key}: found {found}, expected floating-point (c, i, j, k)")
            target = boundary_target(volume, self.median_size, self.offset, self.gain, self.median)
            d[output_key] = like(target, d[key])
        return d

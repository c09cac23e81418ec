"""Boundary targets: a median filter and the magnitude of the Scharr gradient, in 2D and 3D, on any device.

Zhang Y, Gu P, Sapkota N, Zheng H, Liang P, Chen DZ. A Point in the Right Direction: Vector Prediction for
Spatially-Aware Self-Supervised Volumetric Representation Learning. ISBI 2023, section 2.2.

Borders are mirrored including the border voxel (c b a | a b c d | d c b), as `reflect` of SciPy.
"""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F

from pretext3d.annotations import Float, Tensor
from pretext3d.ops.medians import median_exact, median_separable

__all__ = ["boundary_target", "scharr"]

MEDIANS = ("exact", "separable")
# Voxels of one array operation on a CPU, so that the arrays of one slab stay in its cache; measured.
CPU_ELEMENTS = 2**16


# -------------------------------------------------------------------------------- Scharr gradient
def scharr(volume: Float[Tensor, "*b"], spatial_dims: int = 3) -> Float[Tensor, "*b"]:
    """Magnitude of the Scharr gradient, sqrt((g_i^2 + g_j^2 + g_k^2) / 3), in 2D sqrt((g_i^2 + g_j^2) / 2).

    g_a is the difference [-1, 0, 1], so intensity per two voxels, along axis a of the volume smoothed by
    [3, 10, 3] / 16 along the other axes. Equal to `skimage.filters.scharr`, borders included.

    Args:
        volume: Volume with any number of leading axes before the spatial ones, floating point.
        spatial_dims: Number of spatial axes, 3 or 2.

    Examples:
        >>> edge = scharr(torch.tensor([[0.0, 0.0, 1.0, 1.0]] * 3), spatial_dims=2)[1]
        >>> [round(value, 4) for value in edge.tolist()]
        [0.0, 0.7071, 0.7071, 0.0]
    """
    result = torch.empty_like(volume, memory_format=torch.contiguous_format)
    shape = volume.shape[-spatial_dims:]
    for source, target in zip(volume.detach().reshape(-1, *shape), result.view(-1, *shape), strict=True):
        _scharr_into(source, target)
    return result


def _scharr_into(volume: Tensor, result: Tensor) -> None:
    """`scharr` of one volume or image, in slabs along i so that intermediate arrays stay in the cache.

    The filters run from the last axis to the first. `parts[a]` is the result of the filters along axis a and
    the axes after it, and is therefore one voxel longer on both sides along the axes before a.
    """
    dims, ni, plane = volume.ndim, volume.shape[0], volume.shape[1:]
    padded = F.pad(volume[None], (1,) * 2 * dims, mode="replicate")[
        0
    ]  # a border mirrored by a voxel repeats it
    slab = min(ni, max(1, CPU_ELEMENTS // math.prod(plane))) if volume.device.type == "cpu" else ni
    buffers = [
        volume.new_empty(slab + 2 * (a > 0), *(n + 2 * (b < a) for b, n in enumerate(plane, 1)))
        for a in range(dims)
    ]
    for low in range(0, ni, slab):
        rows = min(slab, ni - low)
        out = result[low : low + rows]
        parts = [buffer[: rows + 2 * (a > 0)] for a, buffer in enumerate(buffers)]
        parts.append(padded[low : low + rows + 2])
        for axis in range(dims - 1, 0, -1):
            _smooth(parts[axis + 1], axis, parts[axis])
        _difference(parts[1], 0, out).square_()
        for along in range(1, dims):  # parts[along + 1] is already smooth along the axes after `along`
            _difference(parts[along + 1], along, parts[along])
            for axis in range(along - 1, -1, -1):
                _smooth(parts[axis + 1], axis, parts[axis])
            out.addcmul_(parts[0], parts[0])
        out.mul_((3 / 16) ** (2 * dims - 2) / dims).sqrt_()


def _smooth(volume: Tensor, axis: int, out: Tensor) -> Tensor:
    """[3, 10, 3] / 3 along an axis, without its first and last voxel; the factor 3 / 16 comes at the end."""
    n = volume.shape[axis] - 2
    torch.add(volume.narrow(axis, 0, n), volume.narrow(axis, 2, n), out=out)
    return out.add_(volume.narrow(axis, 1, n), alpha=10 / 3)


def _difference(volume: Tensor, axis: int, out: Tensor) -> Tensor:
    """[-1, 0, 1] along an axis, without its first and last voxel."""
    n = volume.shape[axis] - 2
    return torch.sub(volume.narrow(axis, 2, n), volume.narrow(axis, 0, n), out=out)


# -------------------------------------------------------------------------------- boundary target
def boundary_target(
    volume: Float[Tensor, "*b"],
    median_size: int = 5,
    offset: float = 0.01,
    gain: float = 30.0,
    median: str = "exact",
    spatial_dims: int = 3,
) -> Float[Tensor, "*b"]:
    """clip((scharr(median(volume)) - offset) * gain, 0, 1).

    Args:
        volume: Volume with any number of leading axes before the spatial ones, intensities [0, 1].
        median_size: Voxels of the median's window along each axis, odd; 1 = no median.
        offset: Scharr magnitude, intensity per two voxels, up to which there is no boundary.
        gain: 1 / (magnitude from `offset` to a full boundary).
        median: "exact" (of the cubic window) or "separable" (one 1D median per axis, a tenth of the time).
        spatial_dims: Number of spatial axes, 3 or 2.

    Source: the paper gives no scaling; these three numbers are from its author's code.
    """
    smooth = volume
    if median_size > 1:
        function: Callable[[Tensor, int], Tensor] = median_exact if median == "exact" else median_separable
        volumes = volume.reshape(-1, *volume.shape[-spatial_dims:])
        smooth = torch.stack([function(v, median_size) for v in volumes]).view(volume.shape)
    return scharr(smooth, spatial_dims).sub_(offset).mul_(gain).clamp_(0, 1)

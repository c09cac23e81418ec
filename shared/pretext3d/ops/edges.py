"""Boundary targets: a 3D median filter and the magnitude of the 3D Scharr gradient, on any device.

Zhang Y, Gu P, Sapkota N, Zheng H, Liang P, Chen DZ. A Point in the Right Direction: Vector Prediction for
Spatially-Aware Self-Supervised Volumetric Representation Learning. ISBI 2023, section 2.2.

Borders are mirrored including the border voxel (c b a | a b c d | d c b), as `reflect` of SciPy.
"""

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

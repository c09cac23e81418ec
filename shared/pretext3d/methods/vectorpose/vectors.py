"""Geometry of VectorPOSE's vectors, in 2 and 3 dimensions: origins, length and direction.

Zhang Y, Gu P, Sapkota N, Zheng H, Liang P, Chen DZ. A Point in the Right Direction: Vector Prediction for
Spatially-Aware Self-Supervised Volumetric Representation Learning. ISBI 2023, section 2.1.
"""

import itertools
import math

import torch

from pretext3d.annotations import Float, Tensor
from pretext3d.checking import integer

__all__ = ["ORIGINS", "check_num_vectors", "landmark_vectors", "to_cartesian", "to_spherical"]

# Origins in the crop's unit cube, in the order in which a smaller number of vectors uses them.
# 3D: the centre, a corner, the three corners that make a regular tetrahedron with it, the other four (Table
# 2: 1, 2, 5, 9). 2D: the centre, a corner, the opposite one (the longest baseline shows the scale best), the
# other two.
ORIGINS = {
    3: (
        (0.5, 0.5, 0.5),
        (0.0, 0.0, 0.0),
        (1.0, 1.0, 0.0), (1.0, 0.0, 1.0), (0.0, 1.0, 1.0),
        (1.0, 1.0, 1.0), (0.0, 0.0, 1.0), (0.0, 1.0, 0.0), (1.0, 0.0, 0.0),
    ),
    2: ((0.5, 0.5), (0.0, 0.0), (1.0, 1.0), (1.0, 0.0), (0.0, 1.0)),
}  # fmt: skip


def check_num_vectors(num_vectors: int | None, spatial_dims: int) -> int:
    """The number of vectors in 2D or 3D; None means one per origin.

    Raises:
        UserError: not 0 to 9 in 3D, 0 to 5 in 2D.

    Examples:
        >>> check_num_vectors(None, 3), check_num_vectors(None, 2), check_num_vectors(1, 2)
        (9, 5, 1)
    """
    most = len(ORIGINS[spatial_dims])
    expected = (
        f"0 to {most}, the centre and the corners of a crop in {spatial_dims}D, or null for all of them"
    )
    return most if num_vectors is None else integer("num_vectors", num_vectors, 0, most, expected)


def landmark_vectors(
    landmark: Float[Tensor, "d"],
    start: Float[Tensor, "d"],
    size: Float[Tensor, "d"],
    spacing: Float[Tensor, "d"],
    orientation: Float[Tensor, "d d"],
    num_vectors: int | None = None,
) -> Float[Tensor, "n d"]:
    """Vectors in mm from the crop's origins to the landmark, in the frame after flips and rotations.

    v_m = M ((landmark - (start + o_m * size)) * spacing), with o_m the m-th origin in the unit cube BEFORE
    the transform: when mirrored or rotated, vector m still starts at that corner's new place (the paper's
    index rule).

    Args:
        landmark: Landmark of the volume, continuous voxel coordinates.
        start: Lower corner of the crop, voxels.
        size: Edges of the crop, voxels of the volume (not of the network's input).
        spacing: Size of a voxel in mm along each axis.
        orientation: Signed permutation M of the flips and rotations.
        num_vectors: Number of vectors, the first n of `ORIGINS`; None = all.

    Examples:
        >>> place = torch.tensor([2.5, 3.0]), torch.tensor([1.0, 2.0]), torch.tensor([2.0, 4.0])
        >>> landmark_vectors(*place, torch.tensor([1.0, 2.0]), torch.eye(2), 2).tolist()
        [[0.5, -2.0], [1.5, 2.0]]
    """
    number = check_num_vectors(num_vectors, len(landmark))
    origins = torch.tensor(ORIGINS[len(landmark)][:number], dtype=landmark.dtype, device=landmark.device)
    return ((landmark - (start + origins.reshape(-1, len(landmark)) * size)) * spacing) @ orientation.T


def to_spherical(vectors: Float[Tensor, "*b d"], radius: Float[Tensor, "*r"]) -> Float[Tensor, "*b d"]:
    """Normalised spherical coordinates (r / R clipped to 1, theta / pi, phi / pi): [0, 1], [0, 1], [-1, 1].

    theta = arccos(z / r), written as atan2(|(x, y)|, z), and phi = atan2(y, x): both finite, with finite
    gradients, for the zero vector too. Paper: section 2.1, before Eq. 1. In 2D there is no z and no theta:
    polar coordinates (r / R, phi / pi).

    Examples:
        >>> to_spherical(torch.tensor([0.0, 5.0]), torch.tensor(10.0)).tolist()
        [0.5, 0.5]
    """
    parts = vectors.unbind(-1)
    lengths = [_safe_sqrt(total) for total in itertools.accumulate(part * part for part in parts)]
    polar = [torch.atan2(lengths[axis - 1], parts[axis]) for axis in range(len(parts) - 1, 1, -1)]
    angles = [*polar, torch.atan2(parts[1], parts[0])]
    return torch.stack([(lengths[-1] / radius).clamp(max=1.0), *(a / math.pi for a in angles)], dim=-1)


def _safe_sqrt(value: Tensor) -> Tensor:
    return value.clamp(min=1e-12).sqrt()


def to_cartesian(spherical: Float[Tensor, "*b d"], radius: Float[Tensor, "*r"]) -> Float[Tensor, "*b d"]:
    """The inverse of `to_spherical`, in the unit of `radius`.

    Examples:
        >>> to_cartesian(torch.tensor([0.5, 0.5, 0.0]), torch.tensor(10.0)).round().tolist()
        [5.0, 0.0, -0.0]
    """
    length = spherical[..., 0] * radius  # length of the coordinates that are not computed yet
    *polar, phi = (angle * math.pi for angle in spherical[..., 1:].unbind(-1))
    last = []
    for theta in polar:
        last.append(length * theta.cos())
        length = length * theta.sin()
    return torch.stack([length * phi.cos(), length * phi.sin(), *reversed(last)], dim=-1)

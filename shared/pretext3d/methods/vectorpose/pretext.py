"""VectorPOSE: vector prediction and boundary-focused reconstruction.

Zhang Y, Gu P, Sapkota N, Zheng H, Liang P, Chen DZ. A Point in the Right Direction: Vector Prediction for
Spatially-Aware Self-Supervised Volumetric Representation Learning. ISBI 2023.

In the paper's order: vectors from a crop's origins to the volume's landmark (2.1), their spherical form and
loss (Eq. 1), reconstruction of voxels and boundaries (2.2, Eq. 2), the total loss and the heads (2.3), and
errors in units a person can read. The corruption of the input and the boundary filter are in
`pretext3d.transforms.noising` and `pretext3d.transforms.edges`, the crops in `pretext3d.transforms.crops`.

Deviates: vectors are in millimetres, not voxels, so that anisotropic volumes keep true angles; the boundary
target's scaling, which the paper does not give, is a parameter.
"""

import math
from copy import deepcopy
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from ignite.metrics import Metric
from monai.data import MetaTensor
from monai.transforms import Compose, Randomizable, Transform
from torch import nn

from pretext3d.annotations import Float, Tensor
from pretext3d.data.dataset import CachedVolumes
from pretext3d.errors import UserError
from pretext3d.networks.backbone import Backbone
from pretext3d.training.metrics import SampleMean

__all__ = [
    "Landmarkd",
    "MeanVectorError",
    "VectorPoseLoss",
    "VectorPoseNet",
    "VectorTargetsd",
    "angular_error_degrees",
    "boundary_l1",
    "scale_error_percent",
    "validation_metrics",
    "vector_error_mm",
    "voxel_l1",
    "voxel_psnr",
    "without_jitter",
]

# Origins in the crop's unit cube, in the order in which a smaller number of vectors takes them: the centre, a
# corner, the three corners that make a regular tetrahedron with it, the other four (Table 2: 1, 2, 5, 9).
ORIGINS = (
    (0.5, 0.5, 0.5),
    (0.0, 0.0, 0.0),
    (1.0, 1.0, 0.0), (1.0, 0.0, 1.0), (0.0, 1.0, 1.0),
    (1.0, 1.0, 1.0), (0.0, 0.0, 1.0), (0.0, 1.0, 0.0), (1.0, 0.0, 0.0),
)  # fmt: skip


# ---------------------------------------------------------------------------------------------- 2.1 vectors
def landmark_vectors(
    landmark: Float[Tensor, "3"],
    start: Float[Tensor, "3"],
    size: Float[Tensor, "3"],
    spacing: Float[Tensor, "3"],
    orientation: Float[Tensor, "3 3"],
    num_vectors: int = 9,
) -> Float[Tensor, "n 3"]:
    """Vectors in mm from the crop's origins to the landmark, in the frame after flips and rotations.

    v_m = M ((landmark - (start + o_m * size)) * spacing), with o_m the m-th origin in the unit cube BEFORE
    the transform: mirrored or turned, vector m still starts where that corner went (the paper's index rule).

    Args:
        landmark: the volume's landmark, continuous voxel coordinates.
        start: the crop's lower corner, voxels.
        size: the crop's edges, voxels of the volume (not of the network's input).
        spacing: mm per voxel.
        orientation: signed permutation M of the flips and rotations.
        num_vectors: the first n of centre, corner, 3 tetrahedral corners, 4 other corners.
    """
    origins = torch.tensor(ORIGINS[:num_vectors], dtype=landmark.dtype, device=landmark.device).reshape(-1, 3)
    return ((landmark - (start + origins * size)) * spacing) @ orientation.T


def to_spherical(vectors: Float[Tensor, "*b 3"], radius: Float[Tensor, "*r"]) -> Float[Tensor, "*b 3"]:
    """Normalised spherical coordinates (r / R clipped to 1, theta / pi, phi / pi): [0, 1], [0, 1], [-1, 1].

    theta = arccos(z / r), written as atan2(|(x, y)|, z), and phi = atan2(y, x): both finite, with finite
    gradients, for the zero vector too. Paper: section 2.1, before Eq. 1.
    """
    x, y, z = vectors.unbind(-1)
    r = _safe_sqrt(x * x + y * y + z * z)
    theta = torch.atan2(_safe_sqrt(x * x + y * y), z)
    return torch.stack([(r / radius).clamp(max=1.0), theta / math.pi, torch.atan2(y, x) / math.pi], dim=-1)


def _safe_sqrt(value: Tensor) -> Tensor:
    return value.clamp(min=1e-12).sqrt()


def to_cartesian(spherical: Float[Tensor, "*b 3"], radius: Float[Tensor, "*r"]) -> Float[Tensor, "*b 3"]:
    """The inverse of `to_spherical`, in the unit of `radius`."""
    r, theta, phi = spherical[..., 0] * radius, spherical[..., 1] * math.pi, spherical[..., 2] * math.pi
    x, y = r * theta.sin() * phi.cos(), r * theta.sin() * phi.sin()
    return torch.stack([x, y, r * theta.cos()], dim=-1)


class Landmarkd(Transform):
    """Deterministic: where a volume's reference landmark is, and its size and spacing.

    Adds float tensors of shape (3,): `landmark_voxel` (continuous voxel coordinates), `volume_size` (voxels)
    and `spacing` (mm). The landmark is the case's `landmark` (x, y, z, mm in the world frame) if it has one,
    the centre of mass of its `landmark_mask` if that was loaded, and the volume's centre otherwise (the
    paper's default).

    Args:
        image_key: the volume (c, i, j, k), with its affine.
        point_key: key of the world point.
        mask_key: key of a loaded mask, as its file has it, on any grid; anything above 0.5 counts. The mask
            itself is taken out of the case.
    """

    def __init__(
        self, image_key: str = "image", point_key: str = "landmark", mask_key: str = "landmark_mask"
    ) -> None:
        self.image_key, self.point_key, self.mask_key = image_key, point_key, mask_key

    def __call__(self, data: dict[str, Any]) -> dict[str, Any]:
        """The case with its landmark, size and spacing."""
        d = dict(data)
        image: MetaTensor = d[self.image_key]
        affine = torch.as_tensor(image.affine, dtype=torch.float64)
        size = torch.tensor(image.shape[1:], dtype=torch.float64)
        landmark = size / 2
        if d.get(self.point_key) is not None:
            point = torch.tensor([*map(float, d[self.point_key]), 1.0], dtype=torch.float64)
            landmark = (torch.linalg.inv(affine) @ point)[:3] + 0.5  # the affine maps voxel centres
        elif isinstance(d.get(self.mask_key), torch.Tensor):
            mask: MetaTensor = d.pop(self.mask_key)
            inside = torch.nonzero(mask.as_tensor()[0] > 0.5)
            if len(inside) == 0:
                raise UserError(f"case {d.get('id')}: {self.mask_key} is empty; expected voxels above 0.5")
            centre = torch.cat([inside.double().mean(0), torch.ones(1, dtype=torch.float64)])
            world = torch.as_tensor(mask.affine, dtype=torch.float64) @ centre
            landmark = (torch.linalg.inv(affine) @ world)[:3] + 0.5
        d["landmark_voxel"] = landmark.float()
        d["volume_size"] = size.float()
        d["spacing"] = affine[:3, :3].norm(dim=0).float()
        return d


class VectorTargetsd(Randomizable, Transform):
    """Adds `vectors` (n, 3), mm, and `radius` (1,), mm: half the volume's diagonal, Eq. 1's R.

    The landmark is jittered by U(-`jitter`, `jitter`) of the volume's length along each axis. Needs what
    `Landmarkd`, `RandScaleCropd` and `RandFlipRotate90d` add; without the last one the frame is the volume's.

    Args:
        num_vectors: 0 (no vector prediction) to 9; Table 2 has 1, 2, 5 and 9.
        jitter: eta, a fraction of each dimension's length (the paper: 0.05).
    """

    def __init__(self, num_vectors: int = 9, jitter: float = 0.05) -> None:
        if not 0 <= num_vectors <= len(ORIGINS):
            raise UserError(f"num_vectors: found {num_vectors}, expected 0 to {len(ORIGINS)}")
        if not 0 <= jitter <= 0.5:
            raise UserError(f"jitter: found {jitter}, expected a fraction of the volume's length, 0 to 0.5")
        self.num_vectors, self.jitter = int(num_vectors), float(jitter)
        self.shift = np.zeros(3)

    def randomize(self, data: Any = None) -> None:
        """Draw the landmark's shift, a fraction of the volume's lengths."""
        self.shift = self.R.uniform(-self.jitter, self.jitter, size=3)

    def __call__(self, data: dict[str, Any]) -> dict[str, Any]:
        """The case with its target vectors and its radius."""
        d = dict(data)
        self.randomize()
        landmark = d["landmark_voxel"] + torch.from_numpy(self.shift).to(d["volume_size"]) * d["volume_size"]
        orientation = d.get("orientation", torch.eye(3, device=landmark.device))
        place = (d["crop_start"], d["crop_size"], d["spacing"], orientation)
        d["vectors"] = landmark_vectors(landmark, *place, self.num_vectors)
        d["radius"] = (d["volume_size"] * d["spacing"]).norm()[None] / 2
        return d


def without_jitter(preprocessing: Compose) -> Compose:
    """A copy of the training's transforms whose vectors lead to the landmark itself, as validation measures.

    With jitter, held-out errors could not fall under the mean length of the jitter.
    """
    copied = deepcopy(preprocessing)
    for transform in copied.transforms:
        if isinstance(transform, VectorTargetsd):
            transform.jitter = 0.0
    return copied


# ---------------------------------------------------------------------------------------- 2.1 Eq. 1, Eq. 2, 3
def activate_vectors(logits: Float[Tensor, "b n 3"]) -> Float[Tensor, "b n 3"]:
    """Sigmoid of r and theta, tanh of phi."""
    return torch.cat([logits[..., :2].sigmoid(), logits[..., 2:].tanh()], dim=-1)


def vector_loss(logits: Float[Tensor, "b n 3"], target: Float[Tensor, "b n 3"]) -> Float[Tensor, ""]:
    """Eq. 1: L1 of r, theta and phi, summed; mean over vectors.

    phi is compared with the nearest of phi, phi + 2 pi and phi - 2 pi.
    """
    error = (activate_vectors(logits) - target).abs()
    turned = torch.minimum(error[..., 2], (2.0 - error[..., 2]).abs())  # one turn is 2 where pi is 1
    return (error[..., 0] + error[..., 1] + turned).mean()


class VectorPoseLoss(nn.Module):
    """Eq. 3: lambda * BFR + (1 - lambda) * VP, with BFR = L1(voxels) + alpha * L1(boundaries), Eq. 2.

    The network's `pred` = (vector logits (b, n, 3), reconstruction logits (b, c or 2c, i, j, k)); the target
    is the batch's dictionary with `vectors`, `radius`, `clean` and `boundary`. With no vectors the loss is
    BFR alone.

    Args:
        reconstruction_weight: lambda, 0 to 1 (the paper: 0.5).
        boundary_weight: alpha (the paper: 5); not used by a network without boundary channels.
    """

    def __init__(self, reconstruction_weight: float = 0.5, boundary_weight: float = 5.0) -> None:
        super().__init__()
        if not 0 <= reconstruction_weight <= 1:
            raise UserError(f"reconstruction_weight: found {reconstruction_weight}, expected 0 to 1")
        if not 0 <= boundary_weight < math.inf:
            raise UserError(f"boundary_weight: found {boundary_weight}, expected 0 or more")
        self.reconstruction_weight, self.boundary_weight = reconstruction_weight, boundary_weight

    def forward(self, pred: tuple[Tensor, Tensor], target: dict[str, Tensor]) -> Tensor:
        """The mean over the batch."""
        logits, reconstruction = pred
        channels = target["clean"].shape[1]
        bfr = F.l1_loss(reconstruction[:, :channels].float().sigmoid(), target["clean"])
        if reconstruction.shape[1] > channels:
            edges = F.l1_loss(reconstruction[:, channels:].float().sigmoid(), target["boundary"])
            bfr = bfr + self.boundary_weight * edges
        if logits.shape[1] == 0:
            return bfr
        vp = vector_loss(logits.float(), to_spherical(target["vectors"], target["radius"]))
        return self.reconstruction_weight * bfr + (1 - self.reconstruction_weight) * vp


class VectorPoseNet(nn.Module):
    """Backbone with the two heads of section 2.3.

    VP head: the deepest feature map, average-pooled to `pool_size`^3, flattened, a 2-layer MLP. BFR head: one
    1x1x1 convolution on the decoder's map to `in_channels` voxel channels and as many boundary channels.

    Args:
        backbone: any network with `encode` and `decode`.
        num_vectors: as in `VectorTargetsd`; 0 leaves the VP head out.
        hidden: width of the MLP (the paper: 256).
        pool_size: edge of the pooled map; 1 = global average (the paper).
        boundary: False leaves the boundary channels out (Table 2's first column).
    """

    def __init__(
        self,
        backbone: Backbone,
        num_vectors: int = 9,
        hidden: int = 256,
        pool_size: int = 1,
        boundary: bool = True,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.num_vectors, self.pool_size = num_vectors, pool_size
        if num_vectors:
            deepest = backbone.feature_channels[-1] * pool_size**3
            self.vector_head = nn.Sequential(
                nn.Linear(deepest, hidden), nn.ReLU(inplace=True), nn.Linear(hidden, 3 * num_vectors)
            )
        outputs = backbone.in_channels * (2 if boundary else 1)
        self.reconstruction_head = nn.Conv3d(backbone.out_channels, outputs, kernel_size=1)

    def forward(self, x: Float[Tensor, "b c i j k"]) -> tuple[Tensor, Tensor]:
        """Vector logits (b, n, 3) and reconstruction logits (b, c or 2c, i, j, k)."""
        features = self.backbone.encode(x)
        reconstruction = self.reconstruction_head(self.backbone.decode(features))
        if not self.num_vectors:
            return x.new_zeros(len(x), 0, 3), reconstruction
        pooled = F.adaptive_avg_pool3d(features[-1], self.pool_size).flatten(1)
        return self.vector_head(pooled).view(len(x), self.num_vectors, 3), reconstruction


# --------------------------------------------------------------------------------------------------- errors
# Each takes the trainer's output {"pred", "label"} and gives one number per crop, ready for `SampleMean`.
def predicted_vectors(output: dict[str, Any]) -> Float[Tensor, "b n 3"]:
    """The predicted vectors in mm."""
    return to_cartesian(activate_vectors(output["pred"][0].float()), output["label"]["radius"])


def vector_error_mm(output: dict[str, Any]) -> Float[Tensor, "b"]:
    """Mean over a crop's vectors of |v_predicted - v|, mm."""
    return (predicted_vectors(output) - output["label"]["vectors"]).norm(dim=-1).mean(dim=1)


def angular_error_degrees(output: dict[str, Any]) -> Float[Tensor, "b"]:
    """Mean over a crop's vectors of the angle between predicted and true vector, 0 to 180 degrees."""
    predicted, true = predicted_vectors(output), output["label"]["vectors"]
    sine = torch.linalg.cross(predicted, true).norm(dim=-1)
    return torch.rad2deg(torch.atan2(sine, (predicted * true).sum(-1))).mean(dim=1)


def scale_error_percent(output: dict[str, Any]) -> Float[Tensor, "b"]:
    """Error of the crop's extent as the predicted vectors imply it, percent; NaN for fewer than 2 vectors.

    A crop's extent is the root mean square distance between its origins and their mean: the landmark cancels.
    """

    def extent(vectors: Tensor) -> Tensor:
        return (vectors - vectors.mean(dim=1, keepdim=True)).square().sum(-1).mean(dim=1).sqrt()

    true = extent(output["label"]["vectors"])
    return 100 * (extent(predicted_vectors(output)) - true).abs() / true


def voxel_l1(output: dict[str, Any]) -> Float[Tensor, "b"]:
    """Mean absolute error of the reconstructed voxels, intensities [0, 1]."""
    clean = output["label"]["clean"]
    return (output["pred"][1][:, : clean.shape[1]].float().sigmoid() - clean).abs().flatten(1).mean(1)


def voxel_psnr(output: dict[str, Any]) -> Float[Tensor, "b"]:
    """Peak signal-to-noise ratio of the reconstructed voxels, dB, for a peak of 1."""
    clean = output["label"]["clean"]
    error = output["pred"][1][:, : clean.shape[1]].float().sigmoid() - clean
    return -10 * error.square().flatten(1).mean(1).clamp(min=1e-10).log10()


def boundary_l1(output: dict[str, Any]) -> Float[Tensor, "b"]:
    """Mean absolute error of the reconstructed boundaries, [0, 1]; NaN for a network without them."""
    edges = output["pred"][1][:, output["label"]["clean"].shape[1] :]
    if edges.shape[1] == 0:
        return torch.full((len(edges),), math.nan, device=edges.device)
    return (edges.float().sigmoid() - output["label"]["boundary"]).abs().flatten(1).mean(1)


class MeanVectorError:
    """The yardstick: `vector_error_mm` of always predicting the training set's mean vectors.

    The mean over `num_crops` training samples is taken at the first use: a function of the data set's seed.
    """

    def __init__(self, dataset: CachedVolumes, num_crops: int = 512) -> None:
        self.dataset, self.num_crops = dataset, num_crops
        self.mean: Tensor | None = None

    def __call__(self, output: dict[str, Any]) -> Float[Tensor, "b"]:
        """One number per crop, as `vector_error_mm`."""
        true = output["label"]["vectors"]
        if self.mean is None:
            vectors = [self.dataset.until(key, "vectors") for key in range(self.num_crops)]
            self.mean = torch.stack(vectors).mean(0)
        return (self.mean.to(true) - true).norm(dim=-1).mean(dim=1)


def validation_metrics(train_dataset: CachedVolumes) -> dict[str, Metric]:
    """The metrics of a validation, by name: the mean over all held-out crops of the errors above.

    `mean_predictor_mm` is the yardstick's error, `relative_vector_error` is `vector_error_mm` /
    `mean_predictor_mm`: 1 is no better than the mean vectors of `train_dataset`, 0 is perfect.
    """
    vector = SampleMean(vector_error_mm)
    yardstick = SampleMean(MeanVectorError(train_dataset))
    return {
        "vector_error_mm": vector,
        "mean_predictor_mm": yardstick,
        "relative_vector_error": vector / yardstick,
        "angular_error_degrees": SampleMean(angular_error_degrees),
        "scale_error_percent": SampleMean(scale_error_percent),
        "voxel_l1": SampleMean(voxel_l1),
        "voxel_psnr_db": SampleMean(voxel_psnr),
        "boundary_l1": SampleMean(boundary_l1),
    }

"""VectorPOSE: vector prediction and boundary-focused reconstruction.

Zhang Y, Gu P, Sapkota N, Zheng H, Liang P, Chen DZ. A Point in the Right Direction: Vector Prediction for
Spatially-Aware Self-Supervised Volumetric Representation Learning. ISBI 2023.

In the paper's order: vectors from a crop's origins to the volume's landmark (2.1), their loss (Eq. 1),
reconstruction of voxels and boundaries (2.2, Eq. 2), the total loss and the heads (2.3), and errors in units
that are easy to interpret. The geometry of the vectors is in `pretext3d.methods.vectorpose.vectors`, the
corruption of the input in `pretext3d.transforms.noising`, the boundary filter in
`pretext3d.transforms.edges`, the crops in `pretext3d.transforms.crops`.

Deviates: vectors are in millimetres, not voxels, so that anisotropic volumes keep true angles; the boundary
target's scaling, which the paper does not give, is a parameter. The paper has volumes only. In 2D (ours) the
origins are the centre and the 4 corners of a crop, and a vector has the polar form (r, phi), with the same
activations and losses. Every formula holds for d = 2 and d = 3 dimensions, d being a vector's length.
"""

import math
from copy import deepcopy
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from ignite.metrics import Metric
from monai.data import MetaTensor
from monai.data.utils import to_affine_nd
from monai.networks.layers.factories import Conv, Pool
from monai.transforms import Compose, Randomizable, Transform
from torch import nn

from pretext3d.annotations import Float, Tensor
from pretext3d.checking import number
from pretext3d.data.dataset import CachedVolumes
from pretext3d.errors import UserError
from pretext3d.methods.vectorpose.vectors import (
    check_num_vectors,
    landmark_vectors,
    to_cartesian,
    to_spherical,
)
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


# ---------------------------------------------------------------------------------------------- 2.1 vectors
class Landmarkd(Transform):
    """Deterministic: adds the position of a volume's reference landmark, its size and its spacing.

    Adds float tensors of shape (d,): `landmark_voxel` (continuous voxel coordinates), `volume_size` (voxels)
    and `spacing` (mm). The landmark is the case's `landmark` (x, y, z, mm in the world frame) if it has one,
    the centre of mass of its `landmark_mask` if that was loaded, and the volume's centre otherwise (the
    paper's default). In 2D the point is projected onto the plane, at any distance from it; the third of
    its numbers is along the plane's normal; the mask is that of the plane.

    Args:
        image_key: Key of the volume (c, i, j, k) or image (c, i, j), with its affine.
        point_key: Key of the world point.
        mask_key: Key of a loaded mask, unchanged, on any grid; voxels above 0.5 count. The mask itself is
            removed from the case.
    """

    def __init__(
        self, image_key: str = "image", point_key: str = "landmark", mask_key: str = "landmark_mask"
    ) -> None:
        self.image_key, self.point_key, self.mask_key = image_key, point_key, mask_key

    def __call__(self, data: dict[str, Any]) -> dict[str, Any]:
        """The case with its landmark, size and spacing."""
        d = dict(data)
        image: MetaTensor = d[self.image_key]
        dims = image.ndim - 1
        affine = _affine_3d(image)
        size = torch.tensor(image.shape[1:], dtype=torch.float64)
        landmark = size / 2
        if d.get(self.point_key) is not None:
            point = torch.tensor([*map(float, d[self.point_key]), 1.0], dtype=torch.float64)
            landmark = (torch.linalg.inv(affine) @ point)[:dims] + 0.5  # the affine maps voxel centres
        elif isinstance(d.get(self.mask_key), torch.Tensor):
            mask: MetaTensor = d.pop(self.mask_key)
            inside = torch.nonzero(mask.as_tensor()[0] > 0.5)
            if len(inside) == 0:
                raise UserError(f"case {d.get('id')}: {self.mask_key} is empty; expected voxels above 0.5")
            centre = F.pad(inside.double().mean(0), (0, 4 - mask.ndim))
            world = _affine_3d(mask) @ torch.cat([centre, torch.ones(1, dtype=torch.float64)])
            landmark = (torch.linalg.inv(affine) @ world)[:dims] + 0.5
        d["landmark_voxel"] = landmark.float()
        d["volume_size"] = size.float()
        d["spacing"] = affine[:3, :dims].norm(dim=0).float()
        return d


def _affine_3d(image: MetaTensor) -> Float[Tensor, "4 4"]:
    """An image's affine, float64; that of a plane leaves z unchanged."""
    return to_affine_nd(3, torch.as_tensor(image.affine, dtype=torch.float64))


class VectorTargetsd(Randomizable, Transform):
    """Adds `vectors` (n, d), mm, and `radius` (1,), mm: half the volume's diagonal, Eq. 1's R.

    The landmark is jittered by U(-`jitter`, `jitter`) of the volume's length along each axis. Needs the keys
    that `Landmarkd`, `RandScaleCropd` and `RandFlipRotate90d` add; without the last the frame is the
    volume's.

    Args:
        num_vectors: Number of vectors, 0 (no vector prediction) to 9, in 2D to 5; None = all; Table 2 has 1,
            2, 5 and 9.
        jitter: Fraction eta of each dimension's length (the paper: 0.05).

    Raises:
        UserError: for a value outside its range; of `num_vectors` when called in 2D, too.
    """

    def __init__(self, num_vectors: int | None = None, jitter: float = 0.05) -> None:
        check_num_vectors(num_vectors, 3)
        if not 0 <= jitter <= 0.5:
            raise UserError(f"jitter: found {jitter}, expected a fraction of the volume's length, 0 to 0.5")
        self.num_vectors, self.jitter = num_vectors, float(jitter)
        self.shift = np.zeros(3)

    def randomize(self, data: Float[Tensor, "d"]) -> None:
        """Draw the landmark's shift, a fraction of the volume's lengths."""
        self.shift = self.R.uniform(-self.jitter, self.jitter, size=len(data))

    def __call__(self, data: dict[str, Any]) -> dict[str, Any]:
        """The case with its target vectors and its radius."""
        d = dict(data)
        self.randomize(d["volume_size"])
        landmark = d["landmark_voxel"] + torch.from_numpy(self.shift).to(d["volume_size"]) * d["volume_size"]
        orientation = d.get("orientation", torch.eye(len(landmark), device=landmark.device))
        place = (d["crop_start"], d["crop_size"], d["spacing"], orientation)
        d["vectors"] = landmark_vectors(landmark, *place, self.num_vectors)
        d["radius"] = (d["volume_size"] * d["spacing"]).norm()[None] / 2
        return d


def without_jitter(preprocessing: Compose) -> Compose:
    """A copy of the training's transforms whose vectors point to the landmark itself, for validation.

    With jitter, held-out errors could not fall below the mean length of the jitter.
    """
    copied = deepcopy(preprocessing)
    for transform in copied.transforms:
        if isinstance(transform, VectorTargetsd):
            transform.jitter = 0.0
    return copied


# ---------------------------------------------------------------------------------------- 2.1 Eq. 1, Eq. 2, 3
def activate_vectors(logits: Float[Tensor, "b n d"]) -> Float[Tensor, "b n d"]:
    """Sigmoid of r and theta, tanh of phi."""
    return torch.cat([logits[..., :-1].sigmoid(), logits[..., -1:].tanh()], dim=-1)


def vector_loss(logits: Float[Tensor, "b n d"], target: Float[Tensor, "b n d"]) -> Float[Tensor, ""]:
    """Eq. 1: L1 of r, theta and phi, summed; mean over vectors.

    phi is compared with the nearest of phi, phi + 2 pi and phi - 2 pi.
    """
    error = (activate_vectors(logits) - target).abs()
    around = torch.minimum(error[..., -1], (2.0 - error[..., -1]).abs())  # 2 pi is 2 where pi is 1
    return (error[..., :-1].sum(-1) + around).mean()


class VectorPoseLoss(nn.Module):
    """Eq. 3: lambda * BFR + (1 - lambda) * VP, with BFR = L1(voxels) + alpha * L1(boundaries), Eq. 2.

    The network's `pred` = (vector logits (b, n, d), reconstruction logits (b, c or 2c, *space)); the target
    is the batch's dictionary with `vectors`, `radius`, `clean` and `boundary`. Without vectors the loss is
    BFR only.

    Args:
        reconstruction_weight: Weight lambda, 0 to 1 (the paper: 0.5).
        boundary_weight: Weight alpha (the paper: 5); not used by a network without boundary channels.
    """

    def __init__(self, reconstruction_weight: float = 0.5, boundary_weight: float = 5.0) -> None:
        super().__init__()
        number("reconstruction_weight", reconstruction_weight, 0, 1, expected="0 to 1")
        number("boundary_weight", boundary_weight, low=0, expected="0 or more")
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

    VP head: the deepest feature map, average-pooled to `pool_size` along each axis, flattened, a 2-layer MLP.
    BFR head: one convolution of kernel size 1 on the decoder's map to `in_channels` voxel channels and as
    many boundary channels. 2D or 3D, as the backbone.

    Args:
        backbone: Network with `encode` and `decode`.
        num_vectors: Number of vectors, as in `VectorTargetsd`; 0 = no VP head.
        hidden: Width of the MLP (the paper: 256).
        pool_size: Edge of the pooled map; 1 = global average (the paper).
        boundary: Whether to predict boundary channels (False: Table 2's first column).

    Raises:
        UserError: for more vectors than a crop has origins.
    """

    def __init__(
        self,
        backbone: Backbone,
        num_vectors: int | None = None,
        hidden: int = 256,
        pool_size: int = 1,
        boundary: bool = True,
    ) -> None:
        super().__init__()
        dims = backbone.spatial_dims
        self.backbone = backbone
        self.num_vectors = check_num_vectors(num_vectors, dims)
        if self.num_vectors:
            self.pool = Pool[Pool.ADAPTIVEAVG, dims](pool_size)
            deepest = backbone.feature_channels[-1] * pool_size**dims
            self.vector_head = nn.Sequential(
                nn.Linear(deepest, hidden), nn.ReLU(inplace=True), nn.Linear(hidden, dims * self.num_vectors)
            )
        outputs = backbone.in_channels * (2 if boundary else 1)
        self.reconstruction_head = Conv[Conv.CONV, dims](backbone.out_channels, outputs, kernel_size=1)

    def forward(self, x: Float[Tensor, "b c *space"]) -> tuple[Tensor, Tensor]:
        """Vector logits (b, n, d) and reconstruction logits (b, c or 2c, *space)."""
        features = self.backbone.encode(x)
        reconstruction = self.reconstruction_head(self.backbone.decode(features))
        dims = x.ndim - 2
        if not self.num_vectors:
            return x.new_zeros(len(x), 0, dims), reconstruction
        pooled = self.pool(features[-1]).flatten(1)
        return self.vector_head(pooled).view(len(x), self.num_vectors, dims), reconstruction


# --------------------------------------------------------------------------------------------------- errors
# Each takes the trainer's output {"pred", "label"} and returns one number per crop, for `SampleMean`.
def predicted_vectors(output: dict[str, Any]) -> Float[Tensor, "b n d"]:
    """The predicted vectors in mm."""
    return to_cartesian(activate_vectors(output["pred"][0].float()), output["label"]["radius"])


def vector_error_mm(output: dict[str, Any]) -> Float[Tensor, "b"]:
    """Mean over a crop's vectors of |v_predicted - v|, mm."""
    return (predicted_vectors(output) - output["label"]["vectors"]).norm(dim=-1).mean(dim=1)


def angular_error_degrees(output: dict[str, Any]) -> Float[Tensor, "b"]:
    """Mean over a crop's vectors of the angle between predicted and true vector, 0 to 180 degrees."""
    predicted, true = predicted_vectors(output), output["label"]["vectors"]
    predicted, true = (F.pad(v, (0, 3 - v.shape[-1])) for v in (predicted, true))  # in 2D: z is 0
    sine = torch.linalg.cross(predicted, true).norm(dim=-1)
    return torch.rad2deg(torch.atan2(sine, (predicted * true).sum(-1))).mean(dim=1)


def scale_error_percent(output: dict[str, Any]) -> Float[Tensor, "b"]:
    """Error of the crop's extent implied by the predicted vectors, percent; NaN for fewer than 2 vectors.

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
    """The baseline: `vector_error_mm` of always predicting the training set's mean vectors.

    The mean over `num_crops` training samples is computed at the first use; it is a function of the data
    set's seed.
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

    `mean_predictor_mm` is the baseline's error, `relative_vector_error` is `vector_error_mm` /
    `mean_predictor_mm`: 1 is no better than the mean vectors of `train_dataset`, 0 is perfect.
    """
    vector = SampleMean(vector_error_mm)
    baseline = SampleMean(MeanVectorError(train_dataset))
    return {
        "vector_error_mm": vector,
        "mean_predictor_mm": baseline,
        "relative_vector_error": vector / baseline,
        "angular_error_degrees": SampleMean(angular_error_degrees),
        "scale_error_percent": SampleMean(scale_error_percent),
        "voxel_l1": SampleMean(voxel_l1),
        "voxel_psnr_db": SampleMean(voxel_psnr),
        "boundary_l1": SampleMean(boundary_l1),
    }

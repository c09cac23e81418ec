"""Cases of supervoxel in-painting that are worked out by hand, in 3D and in 2D; outputs of its network."""

from collections.abc import Sequence
from typing import Any

import torch
from monai.data import MetaTensor
from pretext3d.methods.supervoxel_inpainting.regions import Regionsd

AFFINE = torch.diag(torch.tensor([1.0, 2.0, 3.0, 1.0], dtype=torch.float64))


def layers(shape: Sequence[int]) -> torch.Tensor:
    """Three supervoxels along the last axis: 0, 1, 2, then 3, 4, then 5 and, where there is one, 6."""
    labels = torch.tensor([1, 1, 1, 2, 2, 3, 3], dtype=torch.int32)[: shape[-1]]
    return labels.expand(1, *shape).contiguous()


def foreground(shape: Sequence[int]) -> torch.Tensor:
    """The voxels with i = 0, 1."""
    roi = torch.zeros(1, *shape, dtype=torch.bool)
    roi[:, :2] = True
    return roi


def case(shape: Sequence[int], channels: int = 2, **extra: Any) -> dict[str, Any]:
    """An image without zeros, in voxels of 1 x 2 x 3 mm, or pixels of 1 x 2 mm, and its supervoxels."""
    image = torch.rand(channels, *shape, generator=torch.Generator().manual_seed(0)) + 0.1
    return {"id": "case_7", "image": MetaTensor(image, affine=AFFINE), "supervoxels": layers(shape), **extra}


def prepared(shape: Sequence[int], channels: int = 2, **settings: Any) -> dict[str, Any]:
    """Such a case with its regions, of any size unless `settings` say otherwise."""
    label = foreground(shape).to(torch.uint8)
    return Regionsd(**{"min_region_voxels": 1, **settings})(case(shape, channels, label=label))


def output(pred: torch.Tensor, clean: torch.Tensor, mask: torch.Tensor) -> dict[str, Any]:
    """An evaluator's output for tiles that lie inside their volume."""
    return {"pred": pred, "label": {"clean": clean, "mask": mask, "inside": torch.ones_like(mask)}}

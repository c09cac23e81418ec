"""Tensors without MONAI's metadata, and the names of linear interpolation."""

from monai.data import MetaTensor

from pretext3d.annotations import Tensor

__all__ = ["LINEAR", "plain_tensor"]

LINEAR = {1: "linear", 2: "bilinear", 3: "trilinear"}  # of torch and MONAI, by the number of axes


def plain_tensor(tensor: Tensor) -> Tensor:
    """The tensor without MONAI's metadata, which cost more than a crop; it shares its values with the input.

    Examples:
        >>> import torch
        >>> type(plain_tensor(MetaTensor(torch.zeros(1, 2, 2)))).__name__
        'Tensor'
    """
    return tensor.as_tensor() if isinstance(tensor, MetaTensor) else tensor

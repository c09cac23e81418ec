"""Tensors without MONAI's metadata, their memory as arrays, and the names of linear interpolation."""

import numpy as np
import torch
from monai.data import MetaTensor

from pretext3d.annotations import Shaped, Tensor

__all__ = ["LINEAR", "as_integers", "copies_by_numpy", "plain_tensor"]

INTEGERS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}  # by their bytes

LINEAR = {1: "linear", 2: "bilinear", 3: "trilinear"}  # of torch and MONAI, by the number of axes


def plain_tensor(tensor: Tensor) -> Tensor:
    """The tensor without MONAI's metadata, which cost more than a crop; it shares its values with the input.

    Examples:
        >>> import torch
        >>> type(plain_tensor(MetaTensor(torch.zeros(1, 2, 2)))).__name__
        'Tensor'
    """
    return tensor.as_tensor() if isinstance(tensor, MetaTensor) else tensor


def copies_by_numpy(tensor: Tensor) -> bool:
    """Whether NumPy can move a tensor's values: on the CPU, without a gradient.

    It copies from views that torch does not have (mirrored, of all windows), which saves a copy.
    """
    return tensor.device.type == "cpu" and not tensor.requires_grad


def as_integers(tensor: Shaped[Tensor, "..."]) -> Shaped[np.ndarray, "..."]:
    """The memory of a tensor on the CPU, of any data type, as integers of as many bytes; not copied.

    Examples:
        >>> as_integers(torch.tensor([True, False])).tolist()
        [1, 0]
    """
    return np.asarray(tensor.as_subclass(torch.Tensor).view(INTEGERS[tensor.element_size()]).numpy())

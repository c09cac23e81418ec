"""Tests of tensors without metadata, and of the names of linear interpolation."""

import pytest
import torch
import torch.nn.functional as F
from monai.data import MetaTensor
from pretext3d.ops.tensors import LINEAR, plain_tensor


def test_without_metadata_and_without_a_copy() -> None:
    volume = torch.rand(1, 2, 3, 4)
    assert plain_tensor(volume) is volume
    plain = plain_tensor(MetaTensor(volume, affine=torch.eye(4)))
    assert type(plain) is torch.Tensor
    assert plain.data_ptr() == volume.data_ptr()


@pytest.mark.parametrize("dims", [1, 2, 3])
def test_names_of_linear_interpolation(dims: int) -> None:
    """The midpoint of 0 and 1 along the last axis."""
    values = torch.tensor([0.0, 1.0]).expand(1, 1, *[2] * dims)
    found = F.interpolate(values, size=[2] * (dims - 1) + [3], mode=LINEAR[dims], align_corners=True)
    assert found.flatten()[:3].tolist() == [0.0, 0.5, 1.0]

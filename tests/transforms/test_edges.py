"""The boundary target as a transform; its values are tested in `tests/ops/test_edges.py`."""

import pytest
import torch
from monai.data import MetaTensor
from pretext3d.errors import UserError
from pretext3d.ops.edges import boundary_target
from pretext3d.transforms.edges import BoundaryTargetsd

SHAPE = (5, 6, 7)
AFFINE = torch.tensor([[2.0, 0, 0, -10], [0, 3, 0, 5], [0, 0, 4, 7], [0, 0, 0, 1]], dtype=torch.float64)


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def test_transform_adds_the_target_and_keeps_the_rest():
    image = MetaTensor(noise(2, *SHAPE), affine=AFFINE)
    before = image.clone()
    result = BoundaryTargetsd("image")({"image": image, "id": "a"})
    assert result["image"] is image
    assert torch.equal(image.as_tensor(), before.as_tensor())
    assert isinstance(result["boundary"], MetaTensor)
    assert torch.equal(result["boundary"].affine, AFFINE)
    assert torch.equal(result["boundary"].as_tensor(), boundary_target(image.as_tensor()))
    for channel in range(2):  # channels do not mix
        one = BoundaryTargetsd("image")({"image": image[channel : channel + 1]})["boundary"]
        assert torch.equal(one.as_tensor(), result["boundary"].as_tensor()[channel : channel + 1])


def test_several_keys_and_plain_tensors():
    data = {"a": noise(1, *SHAPE), "b": noise(1, *SHAPE, seed=1).numpy()}
    result = BoundaryTargetsd(("a", "b"), ("edge_a", "edge_b"), median="separable")(data)
    assert type(result["edge_a"]) is torch.Tensor
    assert torch.equal(result["edge_b"], boundary_target(noise(1, *SHAPE, seed=1), median="separable"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"median_size": 4}, "median_size: found 4, expected 1 .no median., 3, 5 or 7"),
        ({"gain": 0.0}, "gain: found 0.0, expected a number above 0"),
        ({"offset": -1.0}, "offset: found -1.0, expected 0 or more"),
        ({"median": "fast"}, "median: found 'fast', expected one of exact, separable"),
        ({"output_key": ("a", "b")}, "output_key: found .'a', 'b'., expected one name for each of .'image'."),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    with pytest.raises(UserError, match=message):
        BoundaryTargetsd("image", **arguments)


@pytest.mark.parametrize("volume", [torch.zeros(6, 7), torch.zeros(1, 5, 6, 7, dtype=torch.uint8)])
def test_bad_volumes_are_named(volume):
    with pytest.raises(UserError, match=r"image: found shape .*, expected floating-point \(c, i, j, k\)"):
        BoundaryTargetsd("image")({"image": volume})


def test_images_have_their_own_target():
    image = MetaTensor(noise(3, 9, 8), affine=AFFINE)
    result = BoundaryTargetsd("image")({"image": image})["boundary"]
    assert torch.equal(result.as_tensor(), boundary_target(image.as_tensor(), spatial_dims=2))
    assert torch.equal(result.affine, AFFINE)

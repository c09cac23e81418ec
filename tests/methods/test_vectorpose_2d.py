"""VectorPOSE in 2D: vectors worked out by hand on an image of 5 x 6 pixels of 1 x 2 mm, laws, losses."""

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from ignite.engine import Engine
from monai.data import MetaTensor
from monai.transforms import Compose, CopyItemsd
from pretext3d.data.dataset import CachedVolumes
from pretext3d.errors import UserError
from pretext3d.methods.vectorpose import pretext as vp
from pretext3d.methods.vectorpose.vectors import (
    ORIGINS,
    check_num_vectors,
    landmark_vectors,
    to_cartesian,
    to_spherical,
)
from pretext3d.networks.factory import build_backbone
from pretext3d.ops.rotations import flip_matrix, rotation_matrix
from pretext3d.transforms.crops import RandFlipRotate90d, RandScaleCropd

# The landmark is the centre, (2.5, 3) pixels; a crop that starts at (1, 2) with edges (2, 4).
LANDMARK, SPACING = torch.tensor([2.5, 3.0]), torch.tensor([1.0, 2.0])
START, SIZE = torch.tensor([1.0, 2.0]), torch.tensor([2.0, 4.0])
# centre (2, 4) -> (0.5, -1) pixels -> (0.5, -2) mm; corner (1, 2) -> (1.5, 1) -> (1.5, 2); the opposite one,
# (3, 6), -> (-0.5, -3) -> (-0.5, -6); (3, 2) -> (-0.5, 1) -> (-0.5, 2); (1, 6) -> (1.5, -3) -> (1.5, -6)
BY_HAND = torch.tensor([[0.5, -2.0], [1.5, 2.0], [-0.5, -6.0], [-0.5, 2.0], [1.5, -6.0]])


def case(**extra: Any) -> dict[str, Any]:
    affine = torch.diag(torch.tensor([1.0, 2.0, 5.0, 1.0], dtype=torch.float64))
    affine[:3, 3] = torch.tensor([-5.0, 0.0, 7.0], dtype=torch.float64)
    image = torch.rand(1, 5, 6, generator=torch.Generator().manual_seed(0))
    return {"id": "slice_7", "image": MetaTensor(image, affine=affine), **extra}


# ---------------------------------------------------------------------------------------------------- vectors
def test_vectors_by_hand() -> None:
    place = (LANDMARK, START, SIZE, SPACING)
    torch.testing.assert_close(landmark_vectors(*place, torch.eye(2)), BY_HAND)
    torch.testing.assert_close(landmark_vectors(*place, torch.eye(2), 2), BY_HAND[:2])
    assert landmark_vectors(*place, torch.eye(2), 0).shape == (0, 2)
    mirrored = torch.from_numpy(flip_matrix([0], 2)).float()
    torch.testing.assert_close(landmark_vectors(*place, mirrored), BY_HAND * torch.tensor([-1.0, 1.0]))
    # a rotation by 90 degrees in the plane takes (x, y) to (-y, x)
    rotated = torch.from_numpy(rotation_matrix(2, 1, 2)).float()
    expected = torch.stack([-BY_HAND[:, 1], BY_HAND[:, 0]], dim=1)
    torch.testing.assert_close(landmark_vectors(*place, rotated), expected)


def test_origins_are_the_centre_and_four_corners() -> None:
    assert ORIGINS[2][0] == (0.5, 0.5)
    assert set(ORIGINS[2][1:]) == {(a, b) for a in (0.0, 1.0) for b in (0.0, 1.0)}
    assert [a + b for a, b in zip(*ORIGINS[2][1:3], strict=True)] == [1.0, 1.0]  # a corner and its opposite


def test_number_of_vectors() -> None:
    assert check_num_vectors(None, 2) == 5
    for wrong in (6, 9, -1, True):
        with pytest.raises(UserError, match=r"num_vectors: found .*, expected 0 to 5, .* in 2D"):
            check_num_vectors(wrong, 2)
    backbone = build_backbone("unet", 1, (8, 8), spatial_dims=2)
    with pytest.raises(UserError, match="num_vectors: found 9"):
        vp.VectorPoseNet(backbone, num_vectors=9)
    ready = {**vp.Landmarkd()(case()), "crop_start": START, "crop_size": SIZE}
    with pytest.raises(UserError, match="num_vectors: found 9"):
        vp.VectorTargetsd(num_vectors=9)(ready)


def test_polar_by_hand() -> None:
    radius = torch.tensor(10.0)
    cases = {  # vector: (r / R, phi / pi)
        (5.0, 0.0): (0.5, 0.0),
        (0.0, 5.0): (0.5, 0.5),
        (-5.0, 0.0): (0.5, 1.0),
        (0.0, -5.0): (0.5, -0.5),
        (-3.0, -3.0): (math.sqrt(18) / 10, -0.75),
        (30.0, 0.0): (1.0, 0.0),  # longer than R: clipped
    }
    got = to_spherical(torch.tensor(list(cases)), radius)
    torch.testing.assert_close(got, torch.tensor(list(cases.values())), atol=1e-6, rtol=0)


@given(st.floats(-50, 50), st.floats(-50, 50))
def test_polar_round_trip(x: float, y: float) -> None:
    vector, radius = torch.tensor([x, y]), torch.tensor(100.0)
    back = to_cartesian(to_spherical(vector, radius), radius)
    torch.testing.assert_close(
        back, vector, atol=1e-3, rtol=1e-4
    )  # float32 of 50 mm, through sine and cosine


@given(st.floats(-50, 50), st.floats(-50, 50))
def test_a_planes_vector_is_one_of_space_with_a_right_angle(x: float, y: float) -> None:
    flat, radius = to_spherical(torch.tensor([x, y]), torch.tensor(100.0)), torch.tensor(100.0)
    space = to_spherical(torch.tensor([x, y, 0.0]), radius)
    torch.testing.assert_close(space, torch.stack([flat[0], torch.tensor(0.5), flat[1]]))


def test_zero_vector_has_finite_targets_and_gradients() -> None:
    zero = torch.zeros(2, 2, requires_grad=True)
    polar = to_spherical(zero, torch.tensor(10.0))
    polar.sum().backward()
    assert polar.isfinite().all()
    assert zero.grad is not None
    assert zero.grad.isfinite().all()


# ---------------------------------------------------------------------------------------------------- targets
def test_landmark_of_an_image() -> None:
    got = vp.Landmarkd()(case())
    torch.testing.assert_close(got["landmark_voxel"], torch.tensor([2.5, 3.0]))
    torch.testing.assert_close(got["spacing"], torch.tensor([1.0, 2.0]))
    torch.testing.assert_close(got["volume_size"], torch.tensor([5.0, 6.0]))
    # (-4, 4) mm is pixel centre (1, 2), at (1.5, 2.5); 90 mm from the plane or in it
    for z in (7.0, 97.0):
        got = vp.Landmarkd()(case(landmark=[-4.0, 4.0, z]))
        torch.testing.assert_close(got["landmark_voxel"], torch.tensor([1.5, 2.5]))
    mask = torch.zeros(1, 5, 6)
    mask[0, 1, 2] = mask[0, 3, 2] = 1  # centre of mass: pixel (2, 2), at its middle
    got = vp.Landmarkd()(case(landmark_mask=MetaTensor(mask, affine=case()["image"].affine)))
    torch.testing.assert_close(got["landmark_voxel"], torch.tensor([2.5, 2.5]))
    assert "landmark_mask" not in got


def test_targets_radius_and_jitter() -> None:
    ready = {**vp.Landmarkd()(case()), "crop_start": START, "crop_size": SIZE}
    got = vp.VectorTargetsd(jitter=0.0)(ready)
    torch.testing.assert_close(got["vectors"], BY_HAND)
    torch.testing.assert_close(got["radius"], torch.tensor([13 / 2]))  # half the diagonal of 5 x 12 mm
    transform = vp.VectorTargetsd(num_vectors=3, jitter=0.1).set_random_state(seed=0)
    moved = torch.stack([transform(ready)["vectors"] - BY_HAND[:3] for _ in range(200)])
    torch.testing.assert_close(
        moved, moved[:, :1].expand_as(moved), atol=1e-5, rtol=0
    )  # one landmark for all
    widest, limit = moved.abs().amax((0, 1)), torch.tensor([0.5, 1.2])  # a tenth of 5 and 12 mm
    assert (widest <= limit + 1e-5).all()
    assert (widest > 0.9 * limit).all()


def pipeline(seed: int) -> Compose:
    steps = Compose(
        [
            vp.Landmarkd(),
            RandScaleCropd("image", (4, 4), (0.5, 1.5)),
            RandFlipRotate90d("image", flip_axes=(0, 1), rotate_axes=(2,), spatial_dims=2),
            vp.VectorTargetsd(jitter=0.05),
            CopyItemsd("image", names="clean"),
        ]
    )
    return steps.set_random_state(seed=seed)


@pytest.mark.parametrize("seed", range(5))
def test_a_slice_of_a_volume_has_the_vectors_of_the_formula(seed: int) -> None:
    volume = torch.rand(1, 5, 6, 7, generator=torch.Generator().manual_seed(0))
    image = MetaTensor(volume[..., 3], affine=case()["image"].affine)
    steps = pipeline(seed)
    got = steps({"image": image})
    shift = torch.from_numpy(steps.transforms[3].shift).float()
    matrix = got["orientation"]
    landmark = torch.tensor([2.5, 3.0]) + shift * torch.tensor([5.0, 6.0])
    for origin, vector in zip(ORIGINS[2], got["vectors"], strict=True):
        start = got["crop_start"] + torch.tensor(origin) * got["crop_size"]
        torch.testing.assert_close(vector, matrix @ ((landmark - start) * SPACING), atol=1e-5, rtol=0)
    assert got["image"].shape == (1, 4, 4)


def test_same_seed_same_sample_and_the_image_is_not_touched() -> None:
    given_case = case()
    before = given_case["image"].clone()
    first, again, other = (pipeline(seed)(given_case) for seed in (3, 3, 4))
    for key in ("image", "vectors", "radius", "crop_start", "orientation"):
        assert torch.equal(torch.as_tensor(first[key]), torch.as_tensor(again[key]))
    assert not torch.equal(first["vectors"], other["vectors"])
    assert torch.equal(given_case["image"], before)
    assert set(given_case) == {"id", "image"}


# ---------------------------------------------------------------------------------------- losses and errors
def test_vector_loss_by_hand() -> None:
    # sigmoid(0) = 0.5, tanh(0) = 0: |0.5 - 0.2| + |0 - 0.25| = 0.55
    target = torch.tensor([[[0.2, 0.25]]])
    torch.testing.assert_close(vp.vector_loss(torch.zeros(1, 1, 2), target), torch.tensor(0.55))
    # target 179 degrees, prediction -179 degrees: 2 degrees apart, not 358
    logits = torch.tensor([[[0.0, math.atanh(-179 / 180)]]])
    target = torch.tensor([[[0.5, 179 / 180]]])
    torch.testing.assert_close(vp.vector_loss(logits, target), torch.tensor(2 / 180), atol=1e-5, rtol=0)


def test_total_loss_by_hand() -> None:
    # voxels 0.5 against 0.3, boundaries 0.5 against 0.1: BFR = 0.2 + 5 * 0.4 = 2.2
    # one vector (2, 0) of R = 10: r / R = 0.2 against 0.5, phi 0: VP = 0.3; 0.5 * 2.2 + 0.5 * 0.3 = 1.25
    target = {
        "clean": torch.full((1, 1, 2, 3), 0.3),
        "boundary": torch.full((1, 1, 2, 3), 0.1),
        "vectors": torch.tensor([[[2.0, 0.0]]]),
        "radius": torch.tensor([[10.0]]),
    }
    pred = (torch.zeros(1, 1, 2), torch.zeros(1, 2, 2, 3))
    torch.testing.assert_close(vp.VectorPoseLoss()(pred, target), torch.tensor(1.25))


def output_of(predicted: torch.Tensor, true: torch.Tensor) -> dict[str, Any]:
    """A trainer's output whose predicted vectors are the given ones."""
    r = torch.tensor([[100.0]])
    polar = to_spherical(predicted[None], r)
    logits = torch.cat([polar[..., :1].clamp(1e-6, 1 - 1e-6).logit(), polar[..., 1:].atanh()], dim=-1)
    return {"pred": (logits, torch.zeros(1, 2, 2, 3)), "label": {"vectors": true[None], "radius": r}}


def test_errors_in_units_by_hand() -> None:
    # 3 mm along x and 4 mm along y: 5 mm apart, at a right angle; and one that is right
    output = output_of(torch.tensor([[3.0, 0.0], [10.0, 5.0]]), torch.tensor([[0.0, 4.0], [10.0, 5.0]]))
    torch.testing.assert_close(vp.vector_error_mm(output), torch.tensor([2.5]), atol=1e-2, rtol=0)
    torch.testing.assert_close(vp.angular_error_degrees(output), torch.tensor([45.0]), atol=1e-2, rtol=0)
    # two origins 10 mm apart are predicted 12 mm apart: 20 %; a common shift does not matter
    output = output_of(torch.tensor([[39.0, 5.0], [51.0, 5.0]]), torch.tensor([[20.0, 5.0], [30.0, 5.0]]))
    torch.testing.assert_close(vp.scale_error_percent(output), torch.tensor([20.0]), atol=0.1, rtol=0)


@pytest.mark.parametrize("n", [0, 1, None])
@pytest.mark.parametrize("boundary", [True, False])
def test_network_shapes_and_gradients(n: int | None, boundary: bool) -> None:
    net = vp.VectorPoseNet(
        build_backbone("unet", 2, (8, 12), spatial_dims=2), n, pool_size=2, boundary=boundary
    )
    logits, reconstruction = net(torch.rand(2, 2, 8, 12))
    assert logits.shape == (2, 5 if n is None else n, 2)
    assert reconstruction.shape == (2, 4 if boundary else 2, 8, 12)
    target = {
        "clean": torch.rand(2, 2, 8, 12), "boundary": torch.rand(2, 2, 8, 12),
        "vectors": torch.randn(2, logits.shape[1], 2), "radius": torch.full((2, 1), 3.0),
    }  # fmt: skip
    vp.VectorPoseLoss()((logits, reconstruction), target).backward()
    assert [name for name, p in net.named_parameters() if p.grad is None] == []


def test_metrics_of_a_validation() -> None:
    """Training vectors are (0, 0) and (6, 8), mean (3, 4); all held-out ones are (3, 9), 5 mm from it."""

    class Samples(CachedVolumes):
        def __init__(self) -> None: ...

        def until(self, key: int, name: str) -> torch.Tensor:
            return torch.tensor([[6.0, 8.0]]) * (key % 2)

    made = output_of(torch.tensor([[3.0, 8.0]]), torch.tensor([[3.0, 9.0]]))  # 1 mm off
    made["pred"] = (made["pred"][0], torch.zeros(1, 2, 2, 3))
    made["label"] |= {"clean": torch.full((1, 1, 2, 3), 0.4), "boundary": torch.full((1, 1, 2, 3), 0.25)}
    engine = Engine(lambda *_: made)
    for name, metric in vp.validation_metrics(Samples()).items():
        metric.attach(engine, name)
    got = engine.run([0], max_epochs=1).metrics
    assert got["vector_error_mm"] == pytest.approx(1.0, abs=1e-3)
    assert got["mean_predictor_mm"] == pytest.approx(5.0, abs=1e-3)
    assert got["relative_vector_error"] == pytest.approx(0.2, abs=1e-3)
    assert got["voxel_l1"] == pytest.approx(0.1)
    assert got["voxel_psnr_db"] == pytest.approx(20.0, abs=1e-3)
    assert got["boundary_l1"] == pytest.approx(0.25)

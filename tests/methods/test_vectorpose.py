"""VectorPOSE: vectors worked out by hand, the spherical form, the losses, the errors."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from monai.data import MetaTensor
from monai.transforms import Compose
from pretext3d.errors import UserError
from pretext3d.methods.vectorpose import pretext as vp
from pretext3d.methods.vectorpose.vectors import ORIGINS
from pretext3d.networks.factory import build_backbone
from pretext3d.ops.rotations import flip_matrix, rotation_matrix

# A 10 x 20 x 30 volume at 1 x 2 x 3 mm: landmark = centre = (5, 10, 15) voxels.
# A crop that starts at (1, 2, 3) with edges (4, 4, 4).
LANDMARK = torch.tensor([5.0, 10.0, 15.0])
START, SIZE = torch.tensor([1.0, 2.0, 3.0]), torch.tensor([4.0, 4.0, 4.0])
SPACING = torch.tensor([1.0, 2.0, 3.0])
# centre (3, 4, 5) -> (2, 6, 10) voxels -> (2, 12, 30) mm; corner (1, 2, 3) -> (4, 8, 12) -> (4, 16, 36) mm;
# corner (5, 6, 3) -> (0, 4, 12) -> (0, 8, 36) mm
BY_HAND = torch.tensor([[2.0, 12.0, 30.0], [4.0, 16.0, 36.0], [0.0, 8.0, 36.0]])


def vectors(orientation: np.ndarray, n: int = 3) -> torch.Tensor:
    matrix = torch.from_numpy(orientation).float()
    return vp.landmark_vectors(LANDMARK, START, SIZE, SPACING, matrix, n)


def test_identity_by_hand() -> None:
    torch.testing.assert_close(vectors(np.eye(3)), BY_HAND)


def test_flip_by_hand() -> None:
    # axis 1 mirrored: the vector of each ORIGINAL corner has its y turned round
    torch.testing.assert_close(vectors(flip_matrix([1])), BY_HAND * torch.tensor([1.0, -1.0, 1.0]))


def test_rotation_by_hand() -> None:
    # a quarter turn about axis 0 takes (x, y, z) to (x, -z, y)
    expected = torch.tensor([[2.0, -30.0, 12.0], [4.0, -36.0, 16.0], [0.0, -36.0, 8.0]])
    torch.testing.assert_close(vectors(rotation_matrix(0, 1)), expected)


def test_flip_then_rotation_by_hand() -> None:
    # y mirrored first, then the turn: (x, y, z) -> (x, -y, z) -> (x, -z, -y)
    expected = torch.tensor([[2.0, -30.0, -12.0], [4.0, -36.0, -16.0], [0.0, -36.0, -8.0]])
    torch.testing.assert_close(vectors(rotation_matrix(0, 1) @ flip_matrix([1])), expected)


def test_origins_are_the_centre_and_eight_corners() -> None:
    assert ORIGINS[3][0] == (0.5, 0.5, 0.5)
    assert set(ORIGINS[3][1:]) == {(a, b, c) for a in (0.0, 1.0) for b in (0.0, 1.0) for c in (0.0, 1.0)}
    tetrahedron = np.array(ORIGINS[3][1:5])
    distances = np.linalg.norm(tetrahedron[:, None] - tetrahedron[None], axis=-1)
    np.testing.assert_allclose(distances[~np.eye(4, dtype=bool)], math.sqrt(2))


def test_spherical_by_hand() -> None:
    radius = torch.tensor(10.0)
    cases = {  # vector: (r / R, theta / pi, phi / pi)
        (0.0, 0.0, 5.0): (0.5, 0.0, 0.0),
        (0.0, 0.0, -5.0): (0.5, 1.0, 0.0),
        (5.0, 0.0, 0.0): (0.5, 0.5, 0.0),
        (0.0, 5.0, 0.0): (0.5, 0.5, 0.5),
        (-5.0, 0.0, 0.0): (0.5, 0.5, 1.0),
        (0.0, -5.0, 0.0): (0.5, 0.5, -0.5),
        (30.0, 0.0, 0.0): (1.0, 0.5, 0.0),  # longer than R: clipped
    }
    got = vp.to_spherical(torch.tensor(list(cases)), radius)
    torch.testing.assert_close(got, torch.tensor(list(cases.values())), atol=1e-6, rtol=0)


def test_zero_vector_has_finite_targets_and_gradients() -> None:
    zero = torch.zeros(2, 3, requires_grad=True)
    spherical = vp.to_spherical(zero, torch.tensor(10.0))
    spherical.sum().backward()
    assert spherical.isfinite().all()
    assert zero.grad is not None
    assert zero.grad.isfinite().all()


@given(st.lists(st.floats(-50, 50), min_size=3, max_size=3))
def test_spherical_round_trip(vector: list[float]) -> None:
    v, radius = torch.tensor(vector), torch.tensor(100.0)
    back = vp.to_cartesian(vp.to_spherical(v, radius), radius)
    torch.testing.assert_close(back, v, atol=1e-3, rtol=1e-4)  # float32 of 50 mm, through sine and cosine


def test_phi_takes_the_short_way_round() -> None:
    # target 179 degrees, prediction -179 degrees: 2 degrees apart, not 358
    target = torch.tensor([[[0.5, 0.5, 179 / 180]]])
    logits = torch.tensor([[[0.0, 0.0, math.atanh(-179 / 180)]]])
    torch.testing.assert_close(vp.vector_loss(logits, target), torch.tensor(2 / 180), atol=1e-5, rtol=0)


def test_vector_loss_by_hand() -> None:
    # sigmoid(0) = 0.5, tanh(0) = 0: |0.5 - 0.2| + |0.5 - 0.9| + |0 - 0.25| = 0.95
    target = torch.tensor([[[0.2, 0.9, 0.25]]])
    torch.testing.assert_close(vp.vector_loss(torch.zeros(1, 1, 3), target), torch.tensor(0.95))


def total_loss_parts(channels: int) -> torch.Tensor:
    """Zero logits: voxels 0.5 against 0.3, boundaries 0.5 against 0.1, one vector at its target but r."""
    target = {
        "clean": torch.full((1, 1, 2, 2, 2), 0.3),
        "boundary": torch.full((1, 1, 2, 2, 2), 0.1),
        "vectors": torch.tensor([[[2.0, 0.0, 0.0]]]),  # r / R = 0.2, theta / pi = 0.5, phi = 0
        "radius": torch.tensor([[10.0]]),
    }
    pred = (torch.zeros(1, 1, 3), torch.zeros(1, channels, 2, 2, 2))
    return vp.VectorPoseLoss()(pred, target)


def test_total_loss_by_hand() -> None:
    # BFR = 0.2 + 5 * 0.4 = 2.2; VP = |0.5 - 0.2| = 0.3; 0.5 * 2.2 + 0.5 * 0.3 = 1.25
    torch.testing.assert_close(total_loss_parts(channels=2), torch.tensor(1.25))


def test_without_boundary_channels_only_voxels_count() -> None:
    torch.testing.assert_close(total_loss_parts(channels=1), torch.tensor(0.5 * 0.2 + 0.5 * 0.3))


def output_of(predicted: torch.Tensor, true: torch.Tensor, radius: float = 100.0) -> dict:
    """A trainer's output whose predicted vectors are the given ones."""
    r = torch.tensor([[radius]])
    spherical = vp.to_spherical(predicted[None], r)
    spherical = spherical.clamp(min=1e-6 - 1)
    logits = torch.cat([spherical[..., :2].clamp(1e-6, 1 - 1e-6).logit(), spherical[..., 2:].atanh()], dim=-1)
    clean = torch.full((1, 1, 2, 2, 2), 0.5)
    return {
        "pred": (logits, torch.zeros(1, 2, 2, 2, 2)),
        "label": {"vectors": true[None], "radius": r, "clean": clean, "boundary": clean - 0.25},
    }


def test_errors_in_units_by_hand() -> None:
    # 3 mm and 4 mm vectors at a right angle: 5 mm apart; and one that is right
    predicted = torch.tensor([[3.0, 0.1, 0.1], [10.0, 5.0, 1.0]])
    true = torch.tensor([[0.0, 4.1, 0.1], [10.0, 5.0, 1.0]])
    output = output_of(predicted, true)
    torch.testing.assert_close(vp.vector_error_mm(output), torch.tensor([2.5]), atol=1e-2, rtol=0)
    cosine = (4.1 * 0.1 + 0.01) / (math.sqrt(9.02) * math.sqrt(16.82))
    angle = math.degrees(math.acos(cosine)) / 2
    torch.testing.assert_close(vp.angular_error_degrees(output), torch.tensor([angle]), atol=1e-2, rtol=0)


def test_scale_error_by_hand() -> None:
    # two origins 10 mm apart are predicted 12 mm apart: 20 %; a common shift does not matter
    true = torch.tensor([[20.0, 5.0, 5.0], [30.0, 5.0, 5.0]])
    predicted = torch.tensor([[39.0, 5.0, 5.0], [51.0, 5.0, 5.0]])
    torch.testing.assert_close(
        vp.scale_error_percent(output_of(predicted, true)), torch.tensor([20.0]), atol=0.1, rtol=0
    )


def test_reconstruction_errors_by_hand() -> None:
    output = output_of(torch.ones(1, 3), torch.ones(1, 3))  # sigmoid(0) = 0.5 everywhere
    torch.testing.assert_close(vp.voxel_l1(output), torch.tensor([0.0]))
    torch.testing.assert_close(vp.boundary_l1(output), torch.tensor([0.25]))
    output["label"]["clean"] = torch.full((1, 1, 2, 2, 2), 0.4)  # error 0.1: -10 log10(0.01) = 20 dB
    torch.testing.assert_close(vp.voxel_psnr(output), torch.tensor([20.0]), atol=1e-3, rtol=0)


@pytest.mark.parametrize("n", [0, 1, 9])
@pytest.mark.parametrize("boundary", [True, False])
def test_network_shapes_of_the_ablations(n: int, boundary: bool) -> None:
    backbone = build_backbone("unet", in_channels=2, roi_size=(8, 12, 8))
    net = vp.VectorPoseNet(backbone, num_vectors=n, pool_size=2, boundary=boundary)
    logits, reconstruction = net(torch.rand(2, 2, 8, 12, 8))
    assert logits.shape == (2, n, 3)
    assert reconstruction.shape == (2, 4 if boundary else 2, 8, 12, 8)


def case(**extra: object) -> dict:
    affine = torch.diag(torch.tensor([1.0, 2.0, 3.0, 1.0], dtype=torch.float64))
    affine[:3, 3] = torch.tensor([-5.0, 0.0, 7.0], dtype=torch.float64)
    return {"image": MetaTensor(torch.rand(1, 5, 6, 7), affine=affine), **extra}


def test_landmark_is_the_centre_by_default() -> None:
    got = vp.Landmarkd()(case())
    torch.testing.assert_close(got["landmark_voxel"], torch.tensor([2.5, 3.0, 3.5]))
    torch.testing.assert_close(got["spacing"], torch.tensor([1.0, 2.0, 3.0]))
    torch.testing.assert_close(got["volume_size"], torch.tensor([5.0, 6.0, 7.0]))


def test_landmark_from_a_world_point() -> None:
    # (-4, 4, 13) mm is voxel centre ((-4 + 5) / 1, 4 / 2, (13 - 7) / 3) = (1, 2, 2), at (1.5, 2.5, 2.5)
    got = vp.Landmarkd()(case(landmark=[-4.0, 4.0, 13.0]))
    torch.testing.assert_close(got["landmark_voxel"], torch.tensor([1.5, 2.5, 2.5]))


def test_landmark_from_a_mask() -> None:
    affine = case()["image"].affine
    mask = torch.zeros(1, 5, 6, 7)
    mask[0, 1, 2, 3] = mask[0, 3, 2, 3] = 1  # centre of mass: voxel (2, 2, 3), at its middle
    got = vp.Landmarkd()(case(landmark_mask=MetaTensor(mask, affine=affine)))
    torch.testing.assert_close(got["landmark_voxel"], torch.tensor([2.5, 2.5, 3.5]))
    assert "landmark_mask" not in got
    with pytest.raises(UserError, match="landmark_mask is empty"):
        vp.Landmarkd()(case(landmark_mask=MetaTensor(torch.zeros(1, 5, 6, 7), affine=affine)))


def test_landmark_from_a_mask_on_a_grid_of_its_own() -> None:
    image_affine = torch.diag(torch.tensor([4.0, 4.0, 4.0, 1.0], dtype=torch.float64))
    mask_affine = torch.eye(4, dtype=torch.float64)
    mask_affine[:3, 3] = torch.tensor([10.0, 0.0, -2.0])
    mask = torch.zeros(1, 3, 3, 3)
    mask[0, 1, 2, 0] = 1  # world (11, 2, -2) mm, voxel (2.75, 0.5, -0.5) of the image
    data = {
        "image": MetaTensor(torch.zeros(1, 5, 6, 7), affine=image_affine),
        "landmark_mask": MetaTensor(mask, affine=mask_affine),
    }
    got = vp.Landmarkd()(data)
    torch.testing.assert_close(got["landmark_voxel"], torch.tensor([3.25, 1.0, 0.0]))


def sample() -> dict:
    return {
        "landmark_voxel": LANDMARK, "volume_size": torch.tensor([10.0, 20.0, 30.0]), "spacing": SPACING,
        "crop_start": START, "crop_size": SIZE,
    }  # fmt: skip


def test_targets_radius_and_jitter() -> None:
    got = vp.VectorTargetsd(num_vectors=3, jitter=0.0)(sample())
    torch.testing.assert_close(got["vectors"], BY_HAND)
    # half the diagonal of 10 x 40 x 90 mm
    torch.testing.assert_close(got["radius"], torch.tensor([math.sqrt(100 + 1600 + 8100) / 2]))
    transform = vp.VectorTargetsd(num_vectors=3, jitter=0.05)
    shifts = []
    for seed in range(200):
        transform.set_random_state(seed=seed)
        moved = transform(sample())["vectors"] - BY_HAND
        torch.testing.assert_close(
            moved[0].expand_as(moved), moved, atol=1e-4, rtol=0
        )  # one landmark for all
        shifts.append(moved[0])
    widest = torch.stack(shifts).abs().amax(0)
    limit = torch.tensor([0.5, 2.0, 4.5])  # 5 % of 10, 40 and 90 mm
    assert (widest <= limit + 1e-4).all()
    assert (widest > 0.9 * limit).all()


def test_validation_measures_to_the_landmark_itself() -> None:
    training = Compose([vp.VectorTargetsd(num_vectors=3, jitter=0.05)])
    held_out = vp.without_jitter(training)(sample())
    torch.testing.assert_close(held_out["vectors"], vp.VectorTargetsd(3, jitter=0.0)(sample())["vectors"])
    assert training.transforms[0].jitter == 0.05


@pytest.mark.parametrize(
    ("make", "key"),
    [
        (lambda: vp.VectorTargetsd(num_vectors=10), "num_vectors"),
        (lambda: vp.VectorTargetsd(jitter=5), "jitter"),
        (lambda: vp.VectorPoseLoss(reconstruction_weight=2), "reconstruction_weight"),
    ],
)
def test_bad_arguments_are_named(make: object, key: str) -> None:
    with pytest.raises(UserError, match=key):
        make()  # type: ignore[operator]

"""Rotation prediction: values worked out by hand, and laws."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from monai.data import MetaTensor
from pretext3d.errors import UserError
from pretext3d.methods.rotation.pretext import (
    AccuracyUpToHalfTurns,
    RandRotationsd,
    RotationNet,
    RotationRecall,
    validation_metrics,
)
from pretext3d.networks.factory import build_backbone
from pretext3d.ops.rotations import reorient, rotation_classes, rotation_matrix
from pretext3d.training.classes import ClassAccuracy, ClassLoss

AFFINE = np.diag([2.0, 1.0, 3.0, 1.0])


def volume(dims: int, channels: int = 1, n: int = 4) -> MetaTensor:
    rng = torch.Generator().manual_seed(0)
    return MetaTensor(torch.rand(channels, *[n] * dims, generator=rng), affine=AFFINE)


def rotated(image: torch.Tensor, seed: int = 0, versions: int = 3, **options: object) -> dict:
    transform = RandRotationsd(versions, image.shape[1:], **options)  # type: ignore[arg-type]
    return transform.set_random_state(seed=seed)({"image": image, "id": "head"})


# -------------------------------------------------------------------------------------- several versions
@given(st.sampled_from([2, 3]), st.integers(1, 4), st.booleans(), st.integers(0, 99))
def test_each_version_is_the_volume_rotated_by_its_class(
    dims: int, versions: int, distinct: bool, seed: int
) -> None:
    image = volume(dims, channels=2)
    before = image.clone()
    got = rotated(image, seed, versions, distinct=distinct)
    rotations = rotation_classes(dims)
    assert got["image"].shape == (versions, *image.shape)
    assert got["image"].dtype == image.dtype
    assert not isinstance(got["image"], MetaTensor)  # an affine holds for none of the versions but the first
    assert got["rotation"].dtype == torch.int64
    assert got["id"] == "head"
    for version, number in zip(got["image"], got["rotation"].tolist(), strict=True):
        assert torch.equal(version, reorient(image.as_tensor(), rotation_matrix(*rotations[number], dims)))
    assert torch.equal(image, before)
    if distinct:
        assert len(set(got["rotation"].tolist())) == versions


@pytest.mark.parametrize(("dims", "count"), [(3, 10), (2, 4)])
def test_every_rotation_once(dims: int, count: int) -> None:
    got = rotated(volume(dims), seed=2, versions=count)
    assert sorted(got["rotation"].tolist()) == list(range(count))
    assert len({tuple(version.flatten().tolist()) for version in got["image"]}) == count


@pytest.mark.parametrize("distinct", [True, False])
def test_every_rotation_is_equally_probable(distinct: bool) -> None:
    """Of 500 samples of three versions: each of ten 150 times; 4 standard deviations are 4 * 11.6 = 46."""
    transform = RandRotationsd(3, (2, 2, 2), distinct).set_random_state(seed=0)
    image = torch.zeros(1, 2, 2, 2)
    drawn = torch.stack([transform({"image": image})["rotation"] for _ in range(500)])
    counts = torch.bincount(drawn.flatten(), minlength=10)
    assert int(counts.min()) > 104
    assert int(counts.max()) < 196
    repeated = sum(len(set(row)) < 3 for row in drawn.tolist())
    # independent draws: 1 - 0.9 * 0.8 = 28 % of the samples have one twice, 140; 4 standard deviations are 40
    assert repeated == 0 if distinct else 100 < repeated < 180


def test_same_seed_same_versions() -> None:
    first, again, other = (rotated(volume(3), seed) for seed in (3, 3, 4))
    assert all(torch.equal(first[key], again[key]) for key in ("image", "rotation"))
    assert not torch.equal(first["image"], other["image"])


def test_axes_may_be_chosen_and_then_volumes_be_flat() -> None:
    image = torch.rand(1, 4, 4, 3, generator=torch.Generator().manual_seed(0))
    got = rotated(image, versions=4, axes=[2])
    for version, number in zip(got["image"], got["rotation"].tolist(), strict=True):
        assert torch.equal(version, torch.rot90(image, number, (1, 2)))


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"versions": 0}, "versions: found 0, expected an integer of 1 or more"),
        ({"versions": 11}, "versions: found 11, expected 1 to 10, the number of rotations, with"),
        ({"versions": 5, "axes": [0]}, "versions: found 5, expected 1 to 4, the number of rotations, with"),
        ({"axes": [3]}, "rotation_axes: found"),
        ({"roi_size": (4, 4, 6)}, r"roi_size: found \[4, 4, 6\], expected equal edges along axes 1 and 2"),
        ({"body_size": (8, 8, 3)}, r"body_size: found \[8, 8, 3\], expected roi_size, \[4, 4, 4\]"),
    ],
)
def test_impossible_versions(keys: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        RandRotationsd(**{"versions": 2, "roi_size": (4, 4, 4), **keys})


# -------------------------------------------------------------------------------------- network and loss
@pytest.mark.parametrize(("dims", "axes", "classes"), [(3, None, 10), (2, None, 4), (3, [0, 1], 7)])
@pytest.mark.parametrize("pool_size", [1, 2])
def test_network(dims: int, axes: list[int] | None, classes: int, pool_size: int) -> None:
    backbone = build_backbone("unet", 2, [8] * dims, spatial_dims=dims)
    network = RotationNet(backbone, axes, hidden=[6], dropout=0.0, pool_size=pool_size)
    logits = network(torch.randn(2, 3, 2, *[8] * dims))
    assert logits.shape == (2, 3, classes)
    ClassLoss("rotation")(logits, {"rotation": torch.zeros(2, 3, dtype=torch.long)}).backward()
    # several processes wait for every gradient
    assert [n for n, p in network.named_parameters() if p.requires_grad and p.grad is None] == []
    assert not any(p.requires_grad for p in network.backbone.up.parameters())


def test_a_version_s_answer_does_not_depend_on_the_others() -> None:
    network = RotationNet(build_backbone("unet", 1, (8, 8, 8)), hidden=[6]).eval()
    x = torch.randn(2, 3, 1, 8, 8, 8)
    together = network(x)
    for sample in range(2):
        for version in range(3):
            alone = network(x[sample, version][None, None])[0, 0]
            torch.testing.assert_close(alone, together[sample, version])


def test_the_papers_head() -> None:
    """The encoder of 16 to 256 channels, its map averaged; 2048, 1024 units, batch norm; ten logits."""
    network = RotationNet(build_backbone("taleb_unet", 1, (16, 16, 16)))
    shapes = [tuple(p.shape) for n, p in network.named_parameters() if not n.startswith("backbone")]
    linear = [shape for shape in shapes if len(shape) == 2]
    assert linear == [(2048, 256), (1024, 2048), (10, 1024)]
    assert [m.p for m in network.modules() if isinstance(m, torch.nn.Dropout)] == [0.5, 0.5]
    assert sum(isinstance(m, torch.nn.BatchNorm1d) for m in network.modules()) == 2


def answers(pred: list[list[int]], truth: list[list[int]], classes: int) -> dict:
    logits = torch.nn.functional.one_hot(torch.tensor(pred), classes).float()
    return {"pred": logits, "label": {"rotation": torch.tensor(truth)}}


def test_accuracies_by_hand() -> None:
    """Classes 0 upright; 1, 2, 3: 90, 180, 270 degrees about axis 0; 4, 5, 6 about axis 1; 7, 8, 9 about 2.

    First image: right; 180 for 0 degrees; 180 about axis 1 for 180 about axis 2; 270 for 90 degrees about
    axis 0. Second: 90 degrees about axis 1 for axis 0; 90 for 180 degrees; right; right.
    """
    output = answers([[4, 2, 5, 3], [4, 1, 9, 0]], [[4, 0, 8, 1], [1, 2, 9, 0]], 10)
    assert ClassAccuracy("rotation")(output).tolist() == [0.25, 0.5]
    assert AccuracyUpToHalfTurns(rotation_classes())(output).tolist() == [1.0, 0.5]
    assert RotationRecall(0)(output).tolist() == [0.0, 1.0]  # class 0 comes once in each image
    assert RotationRecall(7)(output).tolist() == []


def test_accuracies_in_2d_by_hand() -> None:
    """Of 0, 90, 180 and 270 degrees: 180 for 0, 270 for 90, right, and 90 for 180."""
    output = answers([[2, 3, 3, 1]], [[0, 1, 3, 2]], 4)
    assert ClassAccuracy("rotation")(output).tolist() == [0.25]
    assert AccuracyUpToHalfTurns(rotation_classes(2))(output).tolist() == [0.75]


@pytest.mark.parametrize(("dims", "chance"), [(3, 0.28), (2, 0.5)])
def test_chance_of_the_accuracy_up_to_half_turns(dims: int, chance: float) -> None:
    """Every answer for every truth, equally often."""
    rotations = rotation_classes(dims)
    count = len(rotations)
    pred, truth = ([[n] for n in np.indices((count, count))[i].ravel().tolist()] for i in (0, 1))
    found = AccuracyUpToHalfTurns(rotations)(answers(pred, truth, count)).mean()
    assert float(found) == pytest.approx(chance)


def test_metrics_are_means_over_all_versions() -> None:
    """A batch of two images and one of one: 1, 0.5 and 0 of two versions are right: 0.5."""
    metrics = validation_metrics(2, per_class=True)
    assert set(metrics) == {
        "rotation_accuracy", "chance", "accuracy_up_to_half_turns", "accuracy_0", "accuracy_axis2_90",
        "accuracy_axis2_180", "accuracy_axis2_270",
    }  # fmt: skip
    for metric in metrics.values():
        metric.reset()
        metric.update(metric._output_transform(answers([[0, 1], [2, 0]], [[0, 1], [2, 1]], 4)))
        metric.update(metric._output_transform(answers([[1, 3]], [[0, 1]], 4)))
    found = {name: metric.compute() for name, metric in metrics.items()}
    assert (found["rotation_accuracy"], found["chance"]) == (0.5, 0.25)
    assert found["accuracy_0"] == 0.5  # of two versions of class 0, in two batches
    assert found["accuracy_axis2_90"] == pytest.approx(1 / 3)
    assert found["accuracy_axis2_180"] == 1.0
    assert math.isnan(found["accuracy_axis2_270"])  # it never came


@pytest.mark.parametrize("dims", [3, 2])
def test_rotations_of_one_volume_are_learned(dims: int) -> None:
    torch.manual_seed(0)
    mode = {3: "trilinear", 2: "bilinear"}[dims]
    image = torch.nn.functional.interpolate(torch.rand(1, 1, *[3] * dims), [8] * dims, mode=mode)[0]
    count = len(rotation_classes(dims))
    sample = RandRotationsd(count, [8] * dims).set_random_state(seed=0)({"image": image})
    x, target = sample["image"][None], {"rotation": sample["rotation"][None]}
    backbone = build_backbone("unet", 1, [8] * dims, spatial_dims=dims, options={"channels": [8, 16]})
    network = RotationNet(backbone, hidden=[32], dropout=0.0)
    optimizer = torch.optim.Adam(network.parameters(), 0.01)
    for _ in range(40):
        optimizer.zero_grad()
        ClassLoss("rotation")(network(x), target).backward()
        optimizer.step()
    assert float(ClassAccuracy("rotation")({"pred": network(x), "label": target})) == 1.0

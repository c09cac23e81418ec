"""The loss and the measures of AVS-DB, by hand."""

import math

import numpy as np
import pytest
import torch
from ignite.engine import Engine
from monai.losses import DiceLoss
from pretext3d.errors import UserError
from pretext3d.methods.avsdb.pretext import (
    ClassDice,
    ConfusionMetric,
    ShapeLoss,
    class_accuracy,
    confusion_matrix,
    dice_of_classes,
    foreground_dice,
    mean_class_dice,
    most_frequent_class,
    validation_metrics,
)
from pretext3d.methods.avsdb.volumes import ShapeVolumes
from pretext3d.networks.factory import build_backbone
from pretext3d.networks.segmentation import SegmentationNet

# rows: 10 voxels of background, 6 of class 1, 4 of class 2, none of class 3
MATRIX = torch.tensor([[8, 2, 0, 0], [1, 3, 2, 0], [0, 0, 4, 0], [0, 0, 0, 0]])


def test_measures_by_hand() -> None:
    """Class 1: 2 * 3 / (6 + 5); class 2: 2 * 4 / (4 + 6); shapes: 2 * 9 / (10 + 11); 7 of the 9 are right."""
    torch.testing.assert_close(
        dice_of_classes(MATRIX)[:3], torch.tensor([16 / 19, 6 / 11, 8 / 10], dtype=torch.float64)
    )
    assert math.isnan(dice_of_classes(MATRIX)[3])  # neither there nor predicted: left out of the mean
    assert mean_class_dice(MATRIX) == pytest.approx((6 / 11 + 0.8) / 2)
    assert foreground_dice(MATRIX) == pytest.approx(18 / 21)
    assert class_accuracy(MATRIX) == pytest.approx(7 / 9)
    assert most_frequent_class(MATRIX) == pytest.approx(5 / 9)
    assert ClassDice(2)(MATRIX) == pytest.approx(0.8)


def test_confusion_matrix_by_hand() -> None:
    """Truth 0 1 2 2, answers 0 2 2 1."""
    answers = torch.nn.functional.one_hot(torch.tensor([[[0, 2], [2, 1]]]), 3).permute(0, 3, 1, 2)
    label = torch.tensor([[[[0, 1], [2, 2]]]])
    found = confusion_matrix(answers.float(), label.to(torch.uint8))
    assert found.tolist() == [[1, 0, 0], [0, 0, 1], [0, 1, 1]]


def test_metrics_are_of_all_voxels_of_all_batches() -> None:
    metric = ConfusionMetric(3)
    answers = torch.nn.functional.one_hot(torch.tensor([[[0, 2], [2, 1]]]), 3).permute(0, 3, 1, 2).float()
    for label in ([[[[0, 1], [2, 2]]]], [[[[0, 2], [2, 1]]]]):
        output = {"pred": answers, "label": {"label": torch.tensor(label)}}
        metric.update(metric._output_transform(output))
    assert class_accuracy(metric.compute()) == pytest.approx(4 / 6)  # 1 of 3, then 3 of 3
    metric.reset()
    assert metric.compute().sum() == 0


def test_a_batch_is_counted_once_for_all_metrics(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two batches, two epochs: the second has the first one's numbers, and four counts in all."""
    counted: list[int] = []

    def count(logits: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        counted.append(len(label))
        return confusion_matrix(logits, label)

    monkeypatch.setattr("pretext3d.methods.avsdb.pretext.confusion_matrix", count)
    answers = torch.nn.functional.one_hot(torch.tensor([[[0, 2], [2, 1]]]), 3).permute(0, 3, 1, 2).float()
    labels = [torch.tensor([[[[0, 1], [2, 2]]]]), torch.tensor([[[[0, 2], [2, 1]]]])]
    engine = Engine(
        lambda _, label: {"pred": answers, "label": {"label": label, "dropped": torch.tensor([3])}}
    )
    for name, metric in validation_metrics(["background", "a", "b"], per_class=True).items():
        metric.attach(engine, name)
    for _ in range(2):
        found = engine.run(labels).metrics
        assert found["class_accuracy"] == pytest.approx(4 / 6)
        assert found["dice_a"] == pytest.approx(
            2 * 1 / (2 + 2)
        )  # the truth has two of class 1, as the answers
        assert found["foreground_dice"] == 1
        assert found["dropped"] == 3
    assert len(counted) == 4


@pytest.mark.parametrize("value", ["no", 0, None])
def test_flags_are_true_or_false(value: object) -> None:
    with pytest.raises(UserError, match=r"cross_entropy: found .*, expected True or False"):
        ShapeLoss(value)  # type: ignore[arg-type]
    with pytest.raises(UserError, match=r"class_dice: found .*, expected True or False"):
        validation_metrics(["background", "a"], value)  # type: ignore[arg-type]


def test_metrics_by_name() -> None:
    names = ["background", "ellipse prism", "ellipse cone"]
    assert list(validation_metrics(names)) == [
        "foreground_dice", "class_dice", "class_accuracy", "most_frequent_class", "dropped",
    ]  # fmt: skip
    assert list(validation_metrics(names, per_class=True))[4:] == [
        "dice_ellipse_prism", "dice_ellipse_cone", "dropped",
    ]  # fmt: skip


def test_dice_loss_is_of_the_batch() -> None:
    """A class that one of two volumes lacks costs nothing there, unlike with the Dice of each volume."""
    label = torch.tensor([[[[0, 1]]], [[[0, 0]]]])
    logits = 20.0 * torch.nn.functional.one_hot(label[:, 0], 3).permute(0, 3, 1, 2).float()
    logits[1, 1] += 18  # some of class 1 in the volume without it
    single = DiceLoss(softmax=True, to_onehot_y=True)(logits, label)
    batch = ShapeLoss()(logits, {"label": label})
    assert float(batch) < float(single)
    perfect = ShapeLoss()(200.0 * (logits > 19), {"label": label})
    assert float(perfect) == pytest.approx(0, abs=1e-4)


def test_cross_entropy_is_added() -> None:
    logits = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    label = torch.randint(0, 3, (2, 1, 4, 4), generator=torch.Generator().manual_seed(1))
    plain, both = (ShapeLoss(flag)(logits, {"label": label.to(torch.uint8)}) for flag in (False, True))
    entropy = torch.nn.functional.cross_entropy(logits, label[:, 0])
    torch.testing.assert_close(both - plain, entropy)


@pytest.mark.parametrize("dims", [3, 2])
def test_two_volumes_are_learned(dims: int) -> None:
    torch.manual_seed(0)
    rules = 1 if dims == 3 else None
    generate = ShapeVolumes(
        [16] * dims, dims, ["ellipse", "triangle"], rules, 2, sizes={"box": [60, 80]}, render="filled",
        changes={"brightness": [0.3, 1.0]},
    )  # fmt: skip
    volumes = [generate.draw(rng) for rng in generators(2)]
    items = generate.render(volumes)
    image, label = (torch.stack([item[key] for item in items]) for key in ("image", "label"))
    network = SegmentationNet(build_backbone("unet", 1, [16] * dims, spatial_dims=dims), 3)
    optimizer = torch.optim.AdamW(network.parameters(), 0.01)
    for _ in range(60):
        optimizer.zero_grad()
        ShapeLoss(cross_entropy=True)(network(image), {"label": label}).backward()
        assert all(p.grad is not None for p in network.parameters())  # several processes wait for each
        optimizer.step()
    with torch.no_grad():
        matrix = confusion_matrix(network(image), label)
    assert foreground_dice(matrix) > 0.95
    assert mean_class_dice(matrix) > 0.9


def generators(count: int) -> list[np.random.Generator]:
    return [np.random.default_rng(seed) for seed in range(count)]

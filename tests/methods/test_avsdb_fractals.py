"""V-PCF: iterated maps by hand, the choice of classes, instances, voxels, and the classification."""

import math
import pickle

import numpy as np
import pytest
import torch
from pretext3d.data.generated import GeneratedItems
from pretext3d.errors import UserError
from pretext3d.methods.avsdb.fractals import (
    FractalNet,
    FractalVolumes,
    Systems,
    clouds,
    draw_maps,
    draw_system,
    find_systems,
    fractal_metrics,
    iterate,
    joined,
    occupancy,
    probabilities,
    scaled,
    variances,
)
from pretext3d.networks.factory import build_backbone
from pretext3d.training.classes import ClassLoss

SIZE = (16, 24, 8)
SMALL = {"num_classes": 5, "num_points": 600}


def test_maps_by_hand():
    """A = diag(1/2, 1/4, 1), b = (1, 0, 2), and the identity: from 0, maps 0, 1, 0.

    x1 = (1, 0, 2); x2 = x1; x3 = (1/2 + 1, 0, 2 + 2). The second system adds (1, 1, 1) in each step.
    """
    first = torch.stack([torch.diag(torch.tensor([0.5, 0.25, 1.0])), torch.eye(3)])
    second = torch.eye(3).expand(2, 3, 3)
    offsets = torch.tensor([[[1.0, 0, 2], [0, 0, 0]], [[1.0, 1, 1], [1, 1, 1]]])
    maps = torch.tensor([0, 1, 0]).reshape(1, 3, 1).expand(2, 3, 1)
    points = iterate(torch.stack([first, second]), offsets, maps)[:, :, 0]
    assert points[0].tolist() == [[1, 0, 2], [1, 0, 2], [1.5, 0, 4]]
    assert points[1].tolist() == [[1, 1, 1], [2, 2, 2], [3, 3, 3]]


def test_a_matrix_is_not_transposed():
    """A = [[0, 1], [0, 0]] takes (0, 1) to (1, 0)."""
    matrices, offsets = torch.tensor([[[[0.0, 1], [0, 0]]]]), torch.tensor([[[0.0, 1]]])
    assert iterate(matrices, offsets, torch.zeros(1, 2, 1, dtype=torch.int64))[0, :, 0].tolist() == [
        [0, 1],
        [1, 1],
    ]


def test_the_cantor_set():
    """x / 3 and x / 3 + 2 / 3, equally probable: no points in the middle third, mean 1/2, variance 1/8."""
    system = joined([(np.full((2, 1, 1), 1 / 3), np.array([[0.0], [2 / 3]]))], 3)
    assert system.probabilities.tolist() == [[0.5, 0.5, 0]]
    maps = draw_maps([np.random.default_rng(0)], system.probabilities, 20_000)
    points = clouds(system, maps, 20_000).flatten()
    assert points.shape == (20_000,)
    assert not ((points > 1 / 3 + 1e-6) & (points < 2 / 3 - 1e-6)).any()
    assert float(points.mean()) == pytest.approx(1 / 2, abs=0.02)
    assert float(points.var()) == pytest.approx(1 / 8, abs=0.005)


def test_maps_are_chosen_with_their_probabilities():
    """Of 16 million bits of 1/4, 3/4 and 0: the shares to three standard deviations, sqrt(3/16 / n)."""
    maps = draw_maps([np.random.default_rng(1)], np.array([[0.25, 0.75, 0.0]]), 16_000)
    assert maps.shape == (1, 40, 1_000)  # 24 steps to settle, 16 that are kept
    assert maps.max() == 1
    assert abs((maps == 0).mean() - 0.25) < 3 * math.sqrt(3 / 16 / maps.size)


def test_probabilities_follow_the_determinant():
    """|det| 1/8, 3/8 of diagonal matrices and of one with a swap; one of 0 has 0.01 of 0.51."""
    matrices = np.stack([np.eye(3) / 2, np.diag([0.5, 0.75, 1.0])[[1, 0, 2]], np.zeros((3, 3))])
    np.testing.assert_allclose(probabilities(matrices), np.array([0.125, 0.375, 0.01]) / 0.51)


def test_variance_along_each_axis():
    """0, 1/4, 1 become -1, -1/2, 1: mean -1/6, mean of squares 3/4, variance 3/4 - 1/36 = 13/18."""
    points = torch.tensor([[[0.0, 10.0], [0.25, 10.0], [1.0, 30.0]]])
    np.testing.assert_allclose(variances(points)[0], [13 / 18, 8 / 9], rtol=1e-6)
    assert scaled(points)[0, :, 1].tolist() == [0, 0, 1]
    flat = torch.zeros(1, 4, 3)
    assert variances(flat).tolist() == [[0, 0, 0]]  # no division by zero


def test_voxels_by_hand():
    """Half of the volume's edges, at its far end: from 1/2 to 1 of (8, 4, 2) voxels."""
    points = torch.tensor([[0.0, 0, 0], [0.5, 0.5, 0.5], [1, 1, 1], [0.01, 0.01, 0.01]])
    image = occupancy(points, (8, 4, 2), box=0.5, place=[1, 1, 1])
    assert image.nonzero().tolist() == [[0, 4, 2, 1], [0, 6, 3, 1], [0, 7, 3, 1]]
    assert occupancy(points, (8, 4, 2), box=0.5, place=[0, 0, 0]).nonzero()[-1].tolist() == [0, 4, 2, 1]
    assert occupancy(points[:1], (8, 4, 2), box=0.5)[0, 2, 1, 0] == 1  # in the middle: from 1/4


@pytest.mark.parametrize("dims", [3, 2])
def test_classes_spread_along_every_axis(dims):
    generate = FractalVolumes(SIZE[:dims], dims, min_variance=0.15, **SMALL)
    systems = generate.systems
    norms = np.linalg.norm(systems.matrices, 2, axis=(2, 3))
    assert norms.max() < 1 / (1 + 0.1 * math.sqrt(dims))  # with its changes, each map still contracts
    assert np.abs(systems.offsets).max() <= 1
    assert all(3 <= (row > 0).sum() <= 8 for row in systems.probabilities)
    np.testing.assert_allclose(systems.probabilities.sum(1), 1)
    every = FractalVolumes(SIZE[:dims], dims, min_variance=0, **SMALL).systems
    least = []
    for chosen in (systems, every):  # other points than those of the choice
        maps = draw_maps([np.random.default_rng(9)] * 5, chosen.probabilities, 2_000)
        least.append(float(variances(clouds(chosen, maps, 2_000)).min()))
    assert least[0] > 0.12 > least[1]
    assert len({row.tobytes() for row in systems.matrices}) == 5


def test_the_search_ends_with_the_first_classes_that_fail(monkeypatch):
    """Of 1,000 classes the first 2, in 3 rounds: 6 systems at most are drawn."""
    drawn = []
    monkeypatch.setattr("pretext3d.methods.avsdb.fractals.TRIES", 3)
    monkeypatch.setattr("pretext3d.methods.avsdb.fractals.TOGETHER", 2)
    monkeypatch.setattr(
        "pretext3d.methods.avsdb.fractals.draw_system", lambda *given: drawn.append(1) or draw_system(*given)
    )
    with pytest.raises(UserError, match="of class 0 reached along every axis"):
        find_systems(0, 1000, 2, (3, 8), 0.9, 0.9)
    assert len(drawn) == 6


def test_a_class_is_a_function_of_its_seed_and_number():
    few, many = FractalVolumes(SIZE, **SMALL), FractalVolumes(SIZE, **{**SMALL, "num_classes": 8})
    for one, more in zip(few.systems, many.systems, strict=True):
        np.testing.assert_array_equal(one, more[:5])
    other = FractalVolumes(SIZE, class_seed=1, **SMALL)
    assert not np.array_equal(few.systems.offsets, other.systems.offsets)


def test_an_instance_is_a_function_of_its_class_and_generator():
    generate = FractalVolumes(SIZE, **SMALL)
    again = pickle.loads(pickle.dumps(generate))  # as a worker receives it
    first = generate.instance(3, np.random.default_rng(7))
    assert torch.equal(first["image"], again.instance(3, np.random.default_rng(7))["image"])
    assert not torch.equal(first["image"], generate.instance(3, np.random.default_rng(8))["image"])
    assert first["fractal"].tolist() == [3]
    assert first["image"].dtype == torch.float32
    assert first["fractal"].dtype == torch.int64


def test_without_changes_instances_of_a_class_are_alike():
    """The same system, box and place: many points are in the same voxels, unlike those of another class."""
    generate = FractalVolumes((12, 12, 12), change=0, noise=0, box=(1, 1), num_classes=4, num_points=30_000)
    images = [generate.instance(number, np.random.default_rng(seed))["image"] for number, seed in
              ((0, 1), (0, 2), (1, 3))]  # fmt: skip
    overlap = [2 * float((images[0] * other).sum() / (images[0] + other).sum()) for other in images[1:]]
    assert overlap[0] > 0.9
    assert overlap[0] > overlap[1] + 0.1


def test_noise_is_of_another_class():
    """Two classes, a point at each end: of ten points, those of the other class are at its place."""
    generate = FractalVolumes((8, 8), 2, num_classes=2, num_points=1_000, noise=0.5, change=0, box=(1, 1))
    # class 0: points on one diagonal; class 1: on the other one
    diagonal = np.array([[-1.0, -1], [1, 1]]) / 2
    generate.systems = Systems(
        np.tile(np.eye(2) / 2, (2, 2, 1, 1)),
        np.stack([diagonal, diagonal * [1, -1]]),
        np.full((2, 2), 0.5),
    )
    image = generate.instance(0, np.random.default_rng(0))["image"][0]
    on = torch.zeros(8, 8, dtype=torch.bool)
    on[range(8), range(8)] = True
    assert image[on].all()
    assert image[on.flip(1)].any()
    assert not image[~(on | on.flip(1))].any()
    generate.noise = 0.0
    assert not generate.instance(0, np.random.default_rng(0))["image"][0][~on].any()


def test_classes_are_equally_probable():
    """Of 500 items of five classes, each has 100 to five standard deviations, sqrt(500 * 4/25) = 8.9."""
    generate = FractalVolumes((4, 4), 2, num_classes=5, num_points=16)
    generate.instance = lambda number, rng: {"fractal": number}  # without the points
    items = GeneratedItems(generate, 500, seed=3)
    counts = np.bincount([int(items[key]["fractal"]) for key in range(500)], minlength=5)
    assert np.abs(counts - 100).max() < 5 * 8.9


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_classes": 1}, r"fractals::num_classes: found 1"),
        ({"maps": [5, 3]}, r"fractals::maps: found \[5, 3\]"),
        ({"maps": [1, 3]}, r"fractals::maps: found \[1, 3\]"),
        ({"maps": [3, 65]}, r"fractals::maps: found \[3, 65\]"),
        ({"min_variance": 1}, r"fractals::min_variance: found 1"),
        ({"min_variance": 0.3}, r"fractals::min_variance: found 0.3, expected a number in \[0, 0.25\]"),
        (
            {"min_variance": 0.25, "num_classes": 40},
            r"fractals::min_variance: found 0.25, which none of 3 systems of class \d+ reached",
        ),
        ({"change": 0.8}, r"fractals::change: found 0.8, expected a number in \[0, 0.25\]"),
        ({"num_points": 0}, r"fractals::num_points: found 0"),
        ({"change": 1.0}, r"fractals::change: found 1.0"),
        ({"noise": -0.1}, r"fractals::noise: found -0.1"),
        ({"box": [0.5, 2.0]}, r"fractals::box: found \[0.5, 2.0\]"),
        ({"box": [0.0, 1.0]}, r"fractals::box: found \[0.0, 1.0\]"),
        ({"class_seed": -1}, r"fractals::class_seed: found -1"),
    ],
)
def test_arguments_are_checked(options, message, monkeypatch):
    monkeypatch.setattr("pretext3d.methods.avsdb.fractals.TRIES", 3)
    with pytest.raises(UserError, match=message):
        FractalVolumes((8, 8), 2, **options)


@pytest.mark.parametrize("dims", [3, 2])
def test_the_network_learns_two_classes(dims):
    """The loss begins near log 2, and after some steps on one batch every answer is right."""
    torch.manual_seed(0)
    generate = FractalVolumes((16,) * dims, dims, num_classes=2, num_points=500)
    items = [GeneratedItems(generate, 8, seed=0)[key] for key in range(8)]
    images = torch.stack([item["image"] for item in items])
    target = {"fractal": torch.stack([item["fractal"] for item in items])}
    network = FractalNet(build_backbone("unet", 1, (16,) * dims, dims), 2)
    loss, optimizer = ClassLoss("fractal"), torch.optim.AdamW(network.parameters(), 0.01)
    losses = []
    for _ in range(20):
        optimizer.zero_grad()
        losses.append(loss(network(images), target))
        losses[-1].backward()
        optimizer.step()
    assert losses[0].item() == pytest.approx(math.log(2), abs=0.5)
    metric, guess = fractal_metrics().values()
    with torch.no_grad():
        metric.update(metric._output_transform({"pred": network(images), "label": target}))
        guess.update(guess._output_transform({"pred": network(images), "label": target}))
    assert (metric.compute(), guess.compute()) == (1, 0.5)
    assert not any(p.requires_grad for p in network.backbone.up.parameters())  # the decoder is not trained

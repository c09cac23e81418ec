"""Jigsaw puzzles: values worked out by hand, and laws, in 3D and in 2D."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from monai.data import MetaTensor
from pretext3d.errors import UserError
from pretext3d.methods.jigsaw.pretext import (
    JigsawNet,
    RandJigsawd,
    scramble,
    standardise,
    unscramble,
    validation_metrics,
)
from pretext3d.networks.factory import build_backbone
from pretext3d.ops.permutations import far_permutations
from pretext3d.training.classes import ClassAccuracy, ClassLoss

from tests.memory import peak_bytes

AFFINE = np.diag([2.0, 1.0, 3.0, 1.0])
KEYS = ("image", "permutation", "moves", "order", "starts")


def permutations_of(cells: int, count: int = 10) -> torch.Tensor:
    return torch.from_numpy(far_permutations(cells, count))


def puzzle_of(volume: torch.Tensor, seed: int = 0, **options: Any) -> dict[str, Any]:
    settings = {"grid": 2, "size": (2, 2, 1), "gap": (1, 0, 1), "permutations": permutations_of(8), **options}
    transform = RandJigsawd(**settings)
    transform.set_random_state(seed=seed)
    return transform({"image": volume})


def numbered(*shape: int) -> MetaTensor:
    return MetaTensor(torch.arange(1.0, 1 + math.prod(shape)).reshape(shape), affine=AFFINE)


# ------------------------------------------------------------------------------------------------- the puzzle
def test_scramble_by_hand() -> None:
    """A 3 x 4 image, row by row 0..11, patches of 1 x 2 at (0, 0), (1, 1), (2, 2): 0 1 | 5 6 | 10 11.

    Order 2, 0, 1: position 0 gets the patch of cell 2, position 1 that of cell 0, position 2 that of cell 1.
    """
    image = torch.arange(12).reshape(1, 3, 4)
    starts, order = torch.tensor([[0, 0], [1, 1], [2, 2]]), torch.tensor([2, 0, 1])
    got = scramble(image, starts, order, (1, 2))
    assert got.shape == (3, 1, 1, 2)
    assert got.flatten().tolist() == [10, 11, 0, 1, 5, 6]
    back = unscramble(got, starts, order, (3, 4))
    assert back.tolist() == [[[0, 1, 0, 0], [0, 5, 6, 0], [0, 0, 10, 11]]]


def test_a_batch_is_its_elements() -> None:
    volumes = torch.rand(2, 3, 5, 6, 7)
    starts = torch.randint(0, 4, (2, 8, 3))
    order = permutations_of(8)[[3, 7]]
    got = scramble(volumes, starts, order, (2, 3, 4))
    for each in range(2):
        assert torch.equal(got[each], scramble(volumes[each], starts[each], order[each], (2, 3, 4)))


@pytest.mark.parametrize("dims", [3, 2])
def test_27_and_9_cells_without_gaps(dims: int) -> None:
    """A volume of 3 voxels along each axis, patches of one voxel: position s shows the number of order[s]."""
    permutations = permutations_of(3**dims, 100)
    volume = numbered(1, *[3] * dims)
    got = puzzle_of(
        volume, grid=3, size=[1] * dims, gap=0, permutations=permutations, spatial_dims=dims, seed=dims
    )
    assert got["image"].shape == (3**dims, 1, *[1] * dims)
    assert got["image"].flatten().tolist() == [1 + cell for cell in got["order"].tolist()]
    assert torch.equal(got["order"], permutations[int(got["permutation"])])
    assert got["permutation"].dtype == torch.int64
    assert got["moves"].tolist() == [list(range(3**dims))]


def test_further_puzzles_are_the_same_patches_in_another_order() -> None:
    """Patch of cell c has the value 1 + c, so puzzle k reads 1 + permutation k; all ten classes once."""
    permutations = permutations_of(8)
    got = puzzle_of(numbered(1, 2, 2, 2), size=[1, 1, 1], gap=0, puzzles=10)
    assert sorted(got["permutation"].tolist()) == list(range(10))
    values = got["image"].flatten()[got["moves"]]
    assert torch.equal(values, 1.0 + permutations[got["permutation"]])
    assert got["moves"][0].tolist() == list(range(8))
    assert torch.equal(got["order"], permutations[got["permutation"][0]])
    alone = puzzle_of(numbered(1, 2, 2, 2), size=[1, 1, 1], gap=0)
    assert torch.equal(alone["image"], got["image"])  # K changes nothing of the first puzzle


def test_further_classes_come_as_often() -> None:
    """The second of two puzzles: each of the 10 classes in 30 of 300 samples; standard deviation 5."""
    pairs = [puzzle_of(numbered(1, 6, 4, 4), seed, puzzles=2)["permutation"].tolist() for seed in range(300)]
    assert all(first != second for first, second in pairs)
    counts = np.bincount([second for _, second in pairs], minlength=10)
    assert counts.min() >= 12
    assert counts.max() <= 50


@given(
    space=st.tuples(st.integers(6, 9), st.integers(4, 9), st.integers(4, 9)),
    shift=st.sampled_from([0.0, 1.0]),
    jitter=st.sampled_from([None, 0]),
    seed=st.integers(0, 99),
)
def test_a_puzzle_can_be_put_together_again(
    space: tuple[int, ...], shift: float, jitter: int | None, seed: int
) -> None:
    """The volume from patches and labels: what the patches hold is restored, voxel for voxel."""
    volume = numbered(2, *space)
    before = volume.clone()
    got = puzzle_of(volume, seed, shift=shift, jitter=jitter)
    joined = unscramble(got["image"], got["starts"], got["order"], space)
    inside = unscramble(torch.ones_like(got["image"]), got["starts"], got["order"], space)
    assert int(inside[0].sum()) == 8 * 2 * 2 * 1  # patches do not overlap
    torch.testing.assert_close(joined, volume.as_tensor() * inside, rtol=0, atol=0)
    assert torch.equal(volume, before)


@given(
    space=st.tuples(st.integers(9, 12), st.integers(6, 8)),
    channels=st.sampled_from([1, 3]),
    seed=st.integers(0, 99),
)
def test_a_puzzle_of_an_image_can_be_put_together_again(
    space: tuple[int, int], channels: int, seed: int
) -> None:
    image = numbered(channels, *space)
    options = {"grid": 3, "size": (2, 1), "gap": 1, "permutations": permutations_of(9, 100)}
    got = puzzle_of(image, seed, spatial_dims=2, **options)
    joined = unscramble(got["image"], got["starts"], got["order"], space)
    inside = unscramble(torch.ones_like(got["image"]), got["starts"], got["order"], space)
    assert int(inside[0].sum()) == 9 * 2 * 1
    torch.testing.assert_close(joined, image.as_tensor() * inside, rtol=0, atol=0)


def test_standardised_patches() -> None:
    """Patches 1 3 | 0.01 0.03: standard deviations 1 and 0.01, of which the second counts as 0.02."""
    got = standardise(torch.tensor([[[1.0, 3.0], [5.0, 5.0]], [[0.01, 0.03], [0.5, 1.5]]]))
    expected = torch.tensor([[[-1.0, 1.0], [0.0, 0.0]], [[-0.5, 0.5], [-1.0, 1.0]]])
    torch.testing.assert_close(got, expected)


@pytest.mark.parametrize("dims", [3, 2])
def test_brightness_and_contrast_of_a_volume_are_gone(dims: int) -> None:
    volume = torch.rand(2, *[9, 8, 8][:dims])
    options = {"size": [4] * dims, "gap": 0, "permutations": permutations_of(2**dims), "spatial_dims": dims}
    plain, got, other = (
        puzzle_of(each, normalise=on, **options)["image"]
        for each, on in ((volume, False), (volume, True), (0.5 * volume + 0.2, True))
    )
    torch.testing.assert_close(got, other, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(got, standardise(plain))
    over = tuple(range(2, 2 + dims))
    torch.testing.assert_close(got.mean(over), torch.zeros(2**dims, 2), atol=1e-5, rtol=0)
    torch.testing.assert_close(got.std(over, correction=0), torch.ones(2**dims, 2), atol=1e-4, rtol=0)


def test_every_class_comes_as_often() -> None:
    """Of 300 puzzles, each of the 10 classes 30 times; standard deviation 5."""
    drawn = [int(puzzle_of(numbered(1, 6, 4, 4), seed)["permutation"]) for seed in range(300)]
    counts = np.bincount(drawn, minlength=10)
    assert len(counts) == 10
    assert counts.min() >= 12
    assert counts.max() <= 50


def test_same_seed_same_puzzle() -> None:
    volume = numbered(1, 7, 6, 5)
    first, again, other = (puzzle_of(volume, seed) for seed in (3, 3, 4))
    assert all(torch.equal(first[key], again[key]) for key in KEYS)
    assert not torch.equal(first["image"], other["image"])


def test_channels_share_one_draw() -> None:
    volume = numbered(1, 7, 6, 5).as_tensor()
    got = puzzle_of(torch.cat([volume, 1000 + volume]))["image"]
    torch.testing.assert_close(got[:, 1], 1000 + got[:, 0], rtol=0, atol=0)


def test_a_puzzle_owns_its_solution() -> None:
    permutations = permutations_of(8)
    got = puzzle_of(numbered(1, 6, 4, 4), permutations=permutations)
    got["order"].zero_()
    assert torch.equal(permutations, permutations_of(8))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"grid": 3}, "permutations: found 8 cells, expected 27 for grid"),
        ({"size": (0, 2, 2)}, "roi_size: found"),
        ({"gap": -1}, "gap: found -1"),
        ({"jitter": 2}, "jitter: found"),
        ({"shift": 1.5}, "shift: found 1.5"),
        ({"puzzles": 0}, "puzzles: found 0, expected 1 to 10, the number of permutations"),
        ({"puzzles": 11}, "puzzles: found 11, expected 1 to 10"),
        ({"permutations": permutations_of(8, 1)}, "num_permutations: found 1, expected 2 or more"),
        ({"body_size": 5}, r"need \[6, 4, 4\] voxels, found body_size of \[5, 5, 5\]"),
    ],
)
def test_impossible_puzzles(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        RandJigsawd(
            **{"permutations": permutations_of(8), "grid": 2, "size": (2, 2, 1), "gap": (1, 0, 1)} | options
        )


def test_a_volume_shorter_than_the_grid() -> None:
    with pytest.raises(UserError, match=r"need \[6, 4, 4\] voxels, found a volume of \[5, 4, 4\]"):
        puzzle_of(numbered(1, 5, 4, 4))


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="Linux counts the peak")
def test_a_puzzle_takes_at_most_one_more_volume() -> None:
    """A volume of 150^3 voxels (13.5 MB) cut into 27 patches without gaps: one copy; five are allowed."""
    volume = torch.zeros(1, 150, 150, 150)
    transform = RandJigsawd(permutations_of(27, 100), 3, (50, 50, 50), 0).set_random_state(seed=0)
    got, taken = peak_bytes(lambda: transform({"image": volume}))
    size = volume.numel() * volume.element_size()
    assert got["image"].numel() == volume.numel()
    assert 0.9 * size < taken < 1.5 * size  # the result itself is one copy


# ------------------------------------------------------------------------------------------ network and loss
@pytest.mark.parametrize("dims", [3, 2])
@pytest.mark.parametrize("hidden", [[], [6], [8, 6]])
def test_network(dims: int, hidden: list[int]) -> None:
    cells, size = 2**dims, (8, 12, 8)[:dims]
    backbone = build_backbone("unet", 2, size, spatial_dims=dims)
    network = JigsawNet(backbone, permutations_of(cells), hidden)
    logits = network(torch.randn(2, cells, 2, *size))
    assert logits.shape == (2, 1, 10)
    logits.sum().backward()
    missing = [name for name, p in network.named_parameters() if p.requires_grad and p.grad is None]
    assert missing == []  # several processes wait for every gradient
    assert not any(p.requires_grad for p in network.backbone.up.parameters())
    assert {name for name in network.state_dict() if not name.startswith(("backbone.", "head."))} == {
        "permutations"
    }


def test_features_are_joined_in_the_order_of_the_patches() -> None:
    """Without hidden units the logits are W (f_0 ... f_7) + b, for the pooled maps f of the patches."""
    torch.manual_seed(0)
    network = JigsawNet(build_backbone("unet", 1, (8, 8, 8)), permutations_of(8), hidden=[]).eval()
    x = torch.randn(3, 8, 1, 8, 8, 8)
    with torch.no_grad():
        maps = [network.backbone.encode_coarsest(x[:, s]) for s in range(8)]
        joined = torch.cat([each.mean((2, 3, 4)) for each in maps], dim=1)
        expected = joined @ network.head[0].weight.T + network.head[0].bias
        torch.testing.assert_close(network(x)[:, 0], expected, rtol=1e-4, atol=1e-5)
        assert not torch.allclose(network(x), network(x[:, [1, 0, *range(2, 8)]]))


@pytest.mark.parametrize("training", [True, False])
def test_a_grid_that_is_encoded_once_is_its_puzzles_encoded_one_by_one(training: bool) -> None:
    """Also while the statistics of batch norm are those of the batch: they do not depend on the order."""
    torch.manual_seed(0)
    backbone = build_backbone("unet", 1, (8, 8, 8))
    network = JigsawNet(backbone, permutations_of(8), hidden=[6], dropout=0.0).train(training)
    samples = [puzzle_of(torch.rand(1, 18, 17, 18), seed, size=(8, 8, 8), puzzles=3) for seed in range(2)]
    x, moves = (torch.stack([sample[key] for sample in samples]) for key in ("image", "moves"))
    each = torch.stack([x[b, moves[b, k]] for b in range(2) for k in range(3)])  # (6, 8, 1, 8, 8, 8)
    with torch.no_grad():
        together = network(x, moves)
        assert together.shape == (2, 3, 10)
        torch.testing.assert_close(together.flatten(0, 1), network(each)[:, 0], rtol=1e-3, atol=1e-4)


def test_the_papers_head() -> None:
    """27 patches of 256 features each: 6912 -> 2048 -> 1024 -> 100."""
    backbone = build_backbone("taleb_unet", 1, (39, 39, 39), encoder_only=True)
    network = JigsawNet(backbone, permutations_of(27, 100))
    layers = [layer for layer in network.head if isinstance(layer, torch.nn.Linear)]
    assert [tuple(layer.weight.shape) for layer in layers] == [(2048, 6912), (1024, 2048), (100, 1024)]
    assert [layer.p for layer in network.head if isinstance(layer, torch.nn.Dropout)] == [0.5, 0.5]


def test_name_of_the_metric() -> None:
    assert list(validation_metrics()) == ["permutation_accuracy", "chance"]


@pytest.mark.parametrize("dims", [3, 2])
def test_a_few_puzzles_are_learned(dims: int) -> None:
    """Of 12 puzzles of one volume, out of 4 classes: all, where guessing gives a quarter."""
    torch.manual_seed(0)
    mode = {3: "trilinear", 2: "bilinear"}[dims]
    volume = torch.nn.functional.interpolate(torch.rand(1, 1, *[5] * dims), [18] * dims, mode=mode)[0]
    permutations = permutations_of(2**dims, 4)
    puzzle = RandJigsawd(permutations, 2, [8] * dims, 1, spatial_dims=dims).set_random_state(seed=0)
    samples = [puzzle({"image": volume}) for _ in range(12)]
    batch = {key: torch.stack([sample[key] for sample in samples]) for key in ("image", "permutation")}
    backbone = build_backbone("unet", 1, [8] * dims, spatial_dims=dims, options={"channels": [8, 16]})
    network = JigsawNet(backbone, permutations, hidden=[16], dropout=0.0, pool_size=2)
    optimizer = torch.optim.Adam(network.parameters(), 0.01)
    for _ in range(40):
        optimizer.zero_grad()
        ClassLoss("permutation")(network(batch["image"]), batch).backward()
        optimizer.step()
    assert ClassAccuracy("permutation")({"pred": network.eval()(batch["image"]), "label": batch}).mean() > 0.9


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_gpu_gives_what_the_cpu_gives() -> None:
    volume, starts = torch.rand(2, 1, 8, 8, 8), torch.randint(0, 5, (2, 8, 3))
    order = permutations_of(8)[[0, 1]]
    here = scramble(volume, starts, order, (2, 3, 4))
    there = scramble(volume.cuda(), starts.cuda(), order.cuda(), (2, 3, 4))
    torch.testing.assert_close(there.cpu(), here, rtol=0, atol=0)
    back = unscramble(there, starts.cuda(), order.cuda(), (8, 8, 8))
    torch.testing.assert_close(back.cpu(), unscramble(here, starts, order, (8, 8, 8)), rtol=0, atol=0)

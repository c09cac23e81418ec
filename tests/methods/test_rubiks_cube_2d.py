"""Rubik's cube recovery in 2D: tiles, 24 permutations at most, one rotation per tile."""

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from monai.data import MetaTensor
from pretext3d.errors import UserError
from pretext3d.methods.rubiks_cube.pretext import (
    OrientationAccuracy,
    RandRubiksCubed,
    RubiksCubeLoss,
    RubiksCubeNet,
    ordering_accuracy,
    scramble,
    solve,
    turn_probabilities,
    validation_metrics,
)
from pretext3d.networks.factory import build_backbone
from pretext3d.ops.grids import assemble_cubes
from pretext3d.ops.permutations import far_permutations, load_permutations

PERMUTATIONS = torch.from_numpy(far_permutations(4, 24))


def puzzle_of(image: torch.Tensor, seed: int = 0, **options: Any) -> dict[str, Any]:
    settings = {"grid": 2, "size": (2, 1), "gap": (1, 0), "spatial_dims": 2, **options}
    transform = RandRubiksCubed(PERMUTATIONS, **settings)
    transform.set_random_state(seed=seed)
    return transform({"image": image})


def numbered(*shape: int) -> MetaTensor:
    return MetaTensor(torch.arange(1.0, 1 + math.prod(shape)).reshape(shape), affine=torch.eye(4))


# ------------------------------------------------------------------------------------------------- puzzle
def test_scramble_by_hand() -> None:
    """Two tiles of 2 x 3 pixels, numbered row by row.

    Position 0 gets tile 1, not rotated; position 1 gets tile 0, [[0, 1, 2], [3, 4, 5]], rotated by half: both
    axes mirrored.
    """
    tiles = torch.arange(12.0).reshape(2, 1, 2, 3)
    order, turned = torch.tensor([1, 0]), torch.tensor([[False], [True]])
    got = scramble(tiles, order, turned, [2])
    assert got.flatten().tolist() == [6, 7, 8, 9, 10, 11, 5, 4, 3, 2, 1, 0]
    torch.testing.assert_close(solve(got, order, turned, [2]), tiles, rtol=0, atol=0)


def test_the_permutation_is_what_the_network_sees() -> None:
    """Without gaps and rotations, position s holds the tile of cell order[s]: its first pixel shows which."""
    got = puzzle_of(numbered(1, 4, 6), size=(2, 3), gap=0, rotate_prob=0.0)
    # cells in C order start at (0|2, 0|3): pixel 6 i + j, numbered from 1
    firsts = [1 + 6 * i + j for i in (0, 2) for j in (0, 3)]
    assert got["image"].shape == (4, 1, 2, 3)
    assert got["image"][:, 0, 0, 0].tolist() == [firsts[cell] for cell in got["order"].tolist()]
    assert got["starts"].tolist() == [[0, 0], [0, 3], [2, 0], [2, 3]]
    torch.testing.assert_close(got["order"], PERMUTATIONS[got["permutation"]])
    assert got["turned"].shape == (4, 1)
    assert not got["turned"].any()


@given(
    space=st.tuples(st.integers(6, 9), st.integers(2, 9)),
    rotate=st.sampled_from([0.0, 0.5, 1.0]),
    shift=st.sampled_from([0.0, 1.0]),
    seed=st.integers(0, 99),
)
def test_a_puzzle_can_be_put_together_again(
    space: tuple[int, int], rotate: float, shift: float, seed: int
) -> None:
    image = numbered(2, *space)
    before = image.clone()
    got = puzzle_of(image, seed, rotate_prob=rotate, shift=shift)
    tiles = solve(got["image"], got["order"], got["turned"], [2])
    joined = assemble_cubes(tiles, got["starts"], space)
    inside = assemble_cubes(torch.ones_like(tiles), got["starts"], space)
    torch.testing.assert_close(joined, image.as_tensor() * inside, rtol=0, atol=0)
    assert int(inside[0].sum()) == 4 * 2
    assert {0.0: not got["turned"].any(), 0.5: True, 1.0: bool(got["turned"].all())}[rotate]
    assert torch.equal(image, before)


def test_same_seed_same_puzzle() -> None:
    first, again, other = (puzzle_of(numbered(1, 7, 6), seed) for seed in (3, 3, 4))
    assert all(torch.equal(first[k], again[k]) for k in ("image", "permutation", "order", "turned", "starts"))
    assert not torch.equal(first["image"], other["image"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"grid": 3}, "permutations: found 4 cells, expected 9 for grid"),
        ({"grid": [2, 2, 2]}, "grid: found"),
        ({"size": (2, 2, 2)}, "roi_size: found"),
        ({"gap": [1, 1, 1]}, "gap: found"),
        ({"axes": [0, 2]}, "axes: found .* about axis 2"),
        ({"axes": [0]}, "axes: found .* about axis 2"),
        ({"axes": []}, r"rotation_axes: found \[\], expected \[2\] in 2D"),
        ({"axes": [2, 2]}, r"rotation_axes: found \[2, 2\], expected \[2\] in 2D"),
    ],
)
def test_impossible_puzzles(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        puzzle_of(numbered(1, 6, 6), **options)


def test_a_volume_is_no_image() -> None:
    with pytest.raises(UserError, match=r"spatial_dims: found 2, expected the 3 axes"):
        puzzle_of(numbered(1, 6, 6, 6))


def test_there_are_24_permutations_of_four_tiles() -> None:
    assert len({tuple(p) for p in load_permutations("", 2, 24, spatial_dims=2).tolist()}) == 24
    with pytest.raises(UserError, match="num_permutations: found 100, expected 1 to 24"):
        load_permutations("", 2, 100, spatial_dims=2)


# ----------------------------------------------------------------------------------------- network and loss
@pytest.mark.parametrize(
    ("orientation", "shape"), [("given_order", (2, 4, 4, 1)), ("independent", (2, 4, 1))]
)
@pytest.mark.parametrize("beta", [0.5, 0.0])
def test_network_and_gradients(orientation: str, shape: tuple[int, ...], beta: float) -> None:
    backbone = build_backbone("unet", 3, (8, 12), spatial_dims=2)
    network = RubiksCubeNet(backbone, PERMUTATIONS, 4, 6, pool_size=2, orientation=orientation)
    ordering, rotations = network(torch.randn(2, 4, 3, 8, 12))
    assert ordering.shape == (2, 24)
    assert rotations.shape == shape
    target = {
        "permutation": torch.tensor([3, 4]),
        "order": PERMUTATIONS[[3, 4]],
        "turned": torch.ones(2, 4, 1) > 0,
    }
    RubiksCubeLoss(beta=beta)((ordering, rotations), target).backward()
    assert [n for n, p in network.named_parameters() if p.requires_grad and p.grad is None] == []


def test_loss_and_accuracies_by_hand() -> None:
    """Two tiles. L_P = -log(3 / 4) for logits log 3, 0 and class 0.

    L_R: probabilities 4/5 and 1/2 of a rotation that is there and one that is not: the sum of -log 0.8 and
    log 2.
    """
    ordering = torch.tensor([[math.log(3), 0.0]])
    target = {
        "permutation": torch.tensor([0]),
        "order": torch.tensor([[1, 0]]),
        "turned": torch.tensor([[[True], [False]]]),
    }
    order, rotation = -math.log(0.75), -math.log(0.8) + math.log(2)
    rotations = torch.tensor([[[math.log(4)], [0.0]]])
    loss = RubiksCubeLoss()((ordering, rotations), target).item()
    assert loss == pytest.approx(0.5 * order + 0.5 * rotation)
    mean = RubiksCubeLoss(rotation_reduction="mean")((ordering, rotations), target).item()
    assert mean == pytest.approx(0.5 * order + 0.5 * rotation / 2)
    # given the order: position 0 is read at cell 1, position 1 at cell 0; the others do not count
    far = torch.full((1, 2, 2, 1), 50.0)
    far[0, 0, 1], far[0, 1, 0] = rotations[0]
    assert RubiksCubeLoss()((ordering, far), target).item() == pytest.approx(loss)
    permutations = torch.tensor([[1, 0], [0, 1]])
    # 3/4 * 4/5 + 1/4 * 1 and 3/4 * 1/2 + 1/4 * 1
    expected = torch.tensor([[[0.85], [0.625]]])
    torch.testing.assert_close(turn_probabilities((ordering, far), permutations), expected)
    output = {"pred": (ordering, far), "label": target}
    assert ordering_accuracy(output).tolist() == [1.0]
    assert OrientationAccuracy(permutations)(output).tolist() == [0.5]
    names = {"ordering_accuracy", "ordering_chance", "orientation_accuracy"}
    assert set(validation_metrics(permutations)) == names


def test_a_few_puzzles_are_learned() -> None:
    """Of 12 puzzles of one image, out of 4 classes: all, where guessing gives a quarter and a half."""
    torch.manual_seed(0)
    image = torch.nn.functional.interpolate(torch.rand(1, 1, 5, 5), (18, 18), mode="bilinear")[0]
    puzzle = RandRubiksCubed(PERMUTATIONS[:4], 2, (8, 8), 1, spatial_dims=2).set_random_state(seed=0)
    samples = [puzzle({"image": image}) for _ in range(12)]
    keys = ("image", "permutation", "order", "turned")
    batch = {key: torch.stack([s[key] for s in samples]) for key in keys}
    backbone = build_backbone("unet", 1, (8, 8), spatial_dims=2, options={"channels": [8, 16]})
    network = RubiksCubeNet(backbone, PERMUTATIONS[:4], 16, 32, 2, "given_order")
    loss = RubiksCubeLoss(rotation_reduction="mean")
    optimizer = torch.optim.Adam(network.parameters(), 0.01)
    for _ in range(60):
        optimizer.zero_grad()
        loss(network(batch["image"]), batch).backward()
        optimizer.step()
    output = {"pred": network(batch["image"]), "label": batch}
    assert ordering_accuracy(output).mean() > 0.9
    assert OrientationAccuracy(PERMUTATIONS[:4])(output).mean() > 0.9

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.data import MetaTensor
from pretext3d.errors import UserError
from pretext3d.methods.rubiks_cube.pretext import (
    OrientationAccuracy,
    RandRubiksCubed,
    RubiksCubeLoss,
    RubiksCubeNet,
    at_cells,
    ordering_accuracy,
    scramble,
    solve,
    turn_probabilities,
    validation_metrics,
)
from pretext3d.networks.factory import build_backbone
from pretext3d.ops.grids import assemble_cubes, extract_cubes
from pretext3d.ops.permutations import far_permutations

AFFINE = np.diag([2.0, 1.0, 3.0, 1.0])
PERMUTATIONS = torch.from_numpy(far_permutations(8, 10))


def puzzle_of(volume, seed=0, **options):
    given = {"grid": 2, "size": (2, 2, 1), "gap": (1, 0, 1), **options}
    transform = RandRubiksCubed(PERMUTATIONS, **given)
    transform.set_random_state(seed=seed)
    return transform({"image": volume})


def numbered(*shape):
    return MetaTensor(torch.arange(1.0, 1 + math.prod(shape)).reshape(shape), affine=AFFINE)


# ------------------------------------------------------------------------------------------------- puzzle
def test_scramble_by_hand():
    """Three cubes of 1 x 2 x 2 voxels, numbered row by row; axes 0 (horizontal) and 2 (vertical).

    Position 0 gets cube 2, 8..11 = [[8, 9], [10, 11]], not turned. Position 1 gets cube 0, turned about axis
    0: axes 1 and 2 mirrored, [[3, 2], [1, 0]]. Position 2 gets cube 1 = [[4, 5], [6, 7]], turned about both:
    about axis 0 [[7, 6], [5, 4]], about axis 2 (axis 0 is one voxel long, axis 1 mirrored) [[5, 4], [7, 6]].
    """
    cubes = torch.arange(12.0).reshape(3, 1, 1, 2, 2)
    order = torch.tensor([2, 0, 1])
    turned = torch.tensor([[False, False], [True, False], [True, True]])
    got = scramble(cubes, order, turned, (0, 2))
    assert got.flatten().tolist() == [8, 9, 10, 11, 3, 2, 1, 0, 5, 4, 7, 6]
    torch.testing.assert_close(solve(got, order, turned, (0, 2)), cubes, rtol=0, atol=0)


def test_the_permutation_is_what_the_network_sees():
    """Without gaps and rotations, position s holds the cube of cell order[s]: its first voxel says which."""
    volume = numbered(1, 4, 4, 2)
    got = puzzle_of(volume, size=(2, 2, 1), gap=0, rotate_prob=0.0)
    # cells in C order start at (0|2, 0|2, 0|1): voxel 8 i + 2 j + k, numbered from 1
    firsts = [1 + 8 * i + 2 * j + k for i in (0, 2) for j in (0, 2) for k in (0, 1)]
    assert got["image"].shape == (8, 1, 2, 2, 1)
    assert got["image"][:, 0, 0, 0, 0].tolist() == [firsts[cell] for cell in got["order"].tolist()]
    torch.testing.assert_close(got["order"], PERMUTATIONS[got["permutation"]])
    assert not got["turned"].any()


@settings(derandomize=True, deadline=None, max_examples=20)
@given(
    space=st.tuples(st.integers(6, 9), st.integers(4, 9), st.integers(4, 9)),
    rotate=st.sampled_from([0.0, 0.5, 1.0]),
    shift=st.sampled_from([0.0, 1.0]),
    seed=st.integers(0, 99),
)
def test_a_split_puzzle_can_be_put_together_again(space, rotate, shift, seed):
    """Volume from cubes and labels: the content of the cubes is restored, voxel for voxel."""
    volume = numbered(2, *space)
    got = puzzle_of(volume, seed, rotate_prob=rotate, shift=shift)
    cubes = solve(got["image"], got["order"], got["turned"], (0, 2))
    joined = assemble_cubes(cubes, got["starts"], space)
    inside = assemble_cubes(torch.ones_like(cubes), got["starts"], space)
    assert ((inside == 0) | (inside == 1)).all()
    torch.testing.assert_close(joined, volume.as_tensor() * inside, rtol=0, atol=0)
    assert {0.0: not got["turned"].any(), 0.5: True, 1.0: bool(got["turned"].all())}[rotate]


def test_every_class_comes_and_every_turn_by_itself():
    """Of 300 puzzles: each of the 10 classes 30 times, give or take 5; each pair of answers in a quarter."""
    drawn = [puzzle_of(numbered(1, 6, 4, 4), seed) for seed in range(300)]
    classes = torch.bincount(torch.stack([got["permutation"] for got in drawn]), minlength=10)
    assert int(classes.min()) >= 12
    assert int(classes.max()) <= 50
    turned = torch.stack([got["turned"] for got in drawn]).flatten(0, 1).long()  # 2400 cubes
    pairs = torch.bincount(2 * turned[:, 0] + turned[:, 1], minlength=4) / len(turned)
    torch.testing.assert_close(pairs, torch.full((4,), 0.25), atol=0.05, rtol=0)  # 5 standard deviations


def test_a_puzzle_owns_its_solution():
    transform = RandRubiksCubed(PERMUTATIONS.clone(), 2, (2, 2, 1), (1, 0, 1)).set_random_state(seed=0)
    got = transform({"image": numbered(1, 6, 4, 4)})
    order, turned = got["order"].clone(), got["turned"].clone()
    got["order"].zero_()
    got["turned"].logical_not_()
    assert torch.equal(transform.permutations, PERMUTATIONS)
    assert torch.equal(torch.from_numpy(transform.turned), turned)
    assert torch.equal(PERMUTATIONS[got["permutation"]], order)


def test_without_rotations_all_cubes_are_upright():
    got, upright = (puzzle_of(numbered(1, 6, 4, 4), rotate_prob=1.0, rotate=on) for on in (True, False))
    assert got["turned"].all()
    assert not upright["turned"].any()
    assert torch.equal(got["order"], upright["order"])


def test_gaps_and_places():
    """Cells are size + gap long: cubes of neighbouring cells start size to size + 2 gap voxels apart."""
    distances, corners = [], []
    for seed in range(200):
        got = puzzle_of(numbered(1, 10, 6, 4), seed, size=(2, 2, 1), gap=(1, 0, 1))
        starts = got["starts"].reshape(2, 2, 2, 3)
        distances.append(starts[1, :, :, 0] - starts[0, :, :, 0])
        corners.append(starts[0, 0, 0])
    distances = torch.stack(distances)
    assert (int(distances.min()), int(distances.max())) == (2, 4)
    assert abs(float(distances.float().mean()) - 3) < 0.1  # the gap is 1 on average
    corners = torch.stack(corners)
    # room: 10 - 6 = 4 and 6 - 4 = 2 voxels for the block, and the offset in the cell
    assert corners.min(0).values.tolist() == [0, 0, 0]
    assert corners.max(0).values.tolist() == [5, 2, 1]


def test_same_seed_same_puzzle_and_the_volume_is_not_touched():
    volume = numbered(1, 7, 6, 5)
    before = volume.clone()
    first, again, other = (puzzle_of(volume, seed) for seed in (3, 3, 4))
    assert all(torch.equal(first[k], again[k]) for k in ("image", "permutation", "order", "turned", "starts"))
    assert not torch.equal(first["image"], other["image"])
    assert torch.equal(volume, before)


def test_channels_move_together():
    volume = numbered(1, 7, 6, 5)
    both = torch.cat([volume.as_tensor(), 1000 + volume.as_tensor()])
    got = puzzle_of(both)["image"]
    torch.testing.assert_close(got[:, 1], 1000 + got[:, 0], rtol=0, atol=0)


def test_a_volume_shorter_than_the_grid():
    with pytest.raises(UserError, match=r"need \[6, 4, 4\] voxels, found a volume of \[5, 4, 4\]"):
        puzzle_of(numbered(1, 5, 4, 4))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"grid": 3}, "permutations: found 8 cells, expected 27 for grid"),
        ({"size": (0, 2, 2)}, "roi_size: found"),
        ({"gap": -1}, "gap: found -1"),
        ({"rotate_prob": 7}, "rotate_prob: found 7, expected a number in"),
        ({"shift": -0.5}, "shift: found -0.5"),
        ({"axes": (0, 0)}, "axes: found"),
        ({"axes": (0, 3)}, "axes: found"),
    ],
)
def test_impossible_puzzles(options, message):
    with pytest.raises(UserError, match=message):
        puzzle_of(numbered(1, 6, 6, 6), **options)


# ----------------------------------------------------------------------------------------- network and loss
@pytest.mark.parametrize(
    ("orientation", "shape"), [("given_order", (2, 8, 8, 2)), ("independent", (2, 8, 2))]
)
@pytest.mark.parametrize("pool_size", [1, 2])
@pytest.mark.parametrize(("features", "hidden"), [(4, 6), (0, 0)])
def test_network(orientation, shape, pool_size, features, hidden):
    torch.manual_seed(0)
    backbone = build_backbone("unet", 2, (8, 8, 8))
    network = RubiksCubeNet(backbone, PERMUTATIONS, features, hidden, pool_size, orientation)
    ordering, turns = network(torch.randn(2, 8, 2, 8, 8, 8))
    assert ordering.shape == (2, 10)
    assert turns.shape == shape
    (ordering.sum() + turns.sum()).backward()
    missing = {n.split(".")[1] for n, p in network.named_parameters() if p.requires_grad and p.grad is None}
    assert missing == set()  # several processes wait for every gradient
    assert not any(p.requires_grad for p in network.backbone.up.parameters())


def test_branches_share_their_weights():
    """Exchanging two cubes of the input exchanges their turn logits, and nothing else."""
    network = RubiksCubeNet(build_backbone("unet", 1, (8, 8, 8)), PERMUTATIONS, 4, 6, 1, "given_order").eval()
    x = torch.randn(1, 8, 1, 8, 8, 8)
    swapped = x[:, [1, 0, 2, 3, 4, 5, 6, 7]]
    torch.testing.assert_close(network(swapped)[1][:, :2], network(x)[1][:, [1, 0]])
    torch.testing.assert_close(network(swapped)[1][:, 2:], network(x)[1][:, 2:])


def test_loss_by_hand():
    """K = 2, m = 2. L_P = -log(3 / 4) for logits log 3, 0 and class 0. L_R: probabilities 1/2, 4/5 | 1/2, 1/5
    against 0, 1 | 1, 0: log 2, -log 0.8, log 2, -log 0.8, of which the paper takes the sum.
    """
    ordering = torch.tensor([[math.log(3), 0.0]])
    turns = torch.tensor([[[0.0, math.log(4)], [0.0, -math.log(4)]]])
    target = {
        "permutation": torch.tensor([0]),
        "order": torch.tensor([[1, 0]]),
        "turned": torch.tensor([[[False, True], [True, False]]]),
    }
    order, turn = -math.log(0.75), 2 * math.log(2) - 2 * math.log(0.8)
    mean = RubiksCubeLoss(rotation_reduction="mean")
    assert RubiksCubeLoss()((ordering, turns), target).item() == pytest.approx(0.5 * order + 0.5 * turn)
    assert mean((ordering, turns), target).item() == pytest.approx(0.5 * order + 0.5 * turn / 4)
    assert RubiksCubeLoss(1.0, 0.0)((ordering, turns), target).item() == pytest.approx(order)
    assert RubiksCubeLoss(1.0, rotate=False)((ordering, turns), target).item() == pytest.approx(order)
    # given the order: position 0 is read at cell 1, position 1 at cell 0; the others do not count
    far = torch.full((1, 2, 2, 2), 50.0)
    far[0, 0, 1], far[0, 1, 0] = turns[0, 0], turns[0, 1]
    torch.testing.assert_close(at_cells(far, target["order"]), turns)
    assert RubiksCubeLoss()((ordering, far), target).item() == pytest.approx(0.5 * order + 0.5 * turn)


@pytest.mark.parametrize("batch", [1, 3])
def test_the_rotation_loss_sums_over_sixteen_labels_and_averages_over_the_batch(batch):
    """Logits 0: every one of the 2 * 8 labels costs log 2, as does the order of K = 2."""
    pred = (torch.zeros(batch, 2), torch.zeros(batch, 8, 2))
    target = {"permutation": torch.zeros(batch, dtype=torch.long), "turned": torch.rand(batch, 8, 2) < 0.5}
    assert RubiksCubeLoss()(pred, target).item() == pytest.approx(0.5 * (1 + 16) * math.log(2))
    mean = RubiksCubeLoss(rotation_reduction="mean")
    assert mean(pred, target).item() == pytest.approx(0.5 * (1 + 1) * math.log(2))


def test_the_papers_heads_are_one_layer_on_the_joined_maps():
    """U-Net, deepest map of 64 channels, pooled to 2^3: 8 * 64 * 8 numbers to 10 classes and to 16 labels."""
    network = RubiksCubeNet(build_backbone("unet", 1, (8, 8, 8)), PERMUTATIONS, pool_size=2).eval()
    joined = 8 * 64 * 2**3
    shapes = {n: list(p.shape) for n, p in network.named_parameters() if not n.startswith("backbone")}
    assert shapes == {
        "ordering_head.1.weight": [10, joined], "ordering_head.1.bias": [10],
        "orientation_head.1.weight": [16, joined], "orientation_head.1.bias": [16],
    }  # fmt: skip
    # linear in the maps: of an encoder that gives the cubes themselves, a sum is the sum of the logits
    network.pool, network.backbone.encode_coarsest = torch.nn.Identity(), lambda cubes: cubes
    x, y, zero = (
        torch.randn(1, 8, 64, 2, 2, 2),
        torch.randn(1, 8, 64, 2, 2, 2),
        torch.zeros(1, 8, 64, 2, 2, 2),
    )
    for task in (0, 1):
        both = network(x)[task] + network(y)[task] - network(zero)[task]
        torch.testing.assert_close(network(x + y)[task], both, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"orientation": "guess"}, "orientation: found 'guess', expected one of independent, given_order"),
        ({"features": -1}, "cube_features: found -1"),
        ({"hidden": -5}, "head_hidden: found -5"),
    ],
)
def test_impossible_heads(options, message):
    with pytest.raises(UserError, match=message):
        RubiksCubeNet(build_backbone("unet", 1, (8, 8, 8)), PERMUTATIONS, **options)


def test_reductions_have_names():
    with pytest.raises(UserError, match="rotation_reduction: found 'average', expected one of sum, mean"):
        RubiksCubeLoss(rotation_reduction="average")


@pytest.mark.parametrize("orientation", ["given_order", "independent"])
def test_without_turns_every_parameter_still_has_a_gradient(orientation):
    network = RubiksCubeNet(build_backbone("unet", 1, (8, 8, 8)), PERMUTATIONS, 4, 6, 1, orientation)
    target = {"permutation": torch.tensor([3, 4]), "order": PERMUTATIONS[[3, 4]]}
    RubiksCubeLoss(beta=0.0)(network(torch.randn(2, 8, 1, 8, 8, 8)), target).backward()
    assert [n for n, p in network.named_parameters() if p.requires_grad and p.grad is None] == []


@pytest.mark.parametrize(("alpha", "beta"), [(-1, 1), (0, 0), (1, -0.1)])
def test_weights_that_make_no_loss(alpha, beta):
    with pytest.raises(UserError, match="alpha, beta: found"):
        RubiksCubeLoss(alpha, beta)


def test_turns_are_weighted_by_the_predicted_order():
    """Two permutations 01 and 10 with probabilities 3/4 and 1/4.

    Position 0 is turned with probability 0.9 if it came from cell 0, 0.1 from cell 1:
    0.75 * 0.9 + 0.25 * 0.1 = 0.7.
    """
    permutations = torch.tensor([[0, 1], [1, 0]])
    logit = math.log(9)
    turns = torch.tensor([[[[logit, logit], [-logit, logit]], [[0.0, 0.0], [0.0, 0.0]]]])
    got = turn_probabilities((torch.tensor([[math.log(3), 0.0]]), turns), permutations)
    torch.testing.assert_close(got, torch.tensor([[[0.7, 0.9], [0.5, 0.5]]]))


def test_turns_are_read_where_each_cube_comes_from():
    """Three cubes in a circle, which is not its own inverse: positions 0, 1, 2 hold cells 1, 2, 0.

    The logits of position p at cell c are 10 p + c, so they are read as 1, 12 and 20.
    """
    order = torch.tensor([[1, 2, 0]])
    turns = (10.0 * torch.arange(3)[:, None] + torch.arange(3))[None, :, :, None].expand(1, 3, 3, 2)
    expected = torch.tensor([1.0, 12.0, 20.0])[None, :, None].expand(1, 3, 2)
    torch.testing.assert_close(at_cells(turns, order), expected)
    certain = (torch.tensor([[60.0, 0.0]]), (turns - 10) / 10)
    got = turn_probabilities(certain, torch.cat([order, torch.tensor([[0, 1, 2]])]))
    torch.testing.assert_close(got, ((expected - 10) / 10).sigmoid())


def test_a_few_puzzles_are_learned():
    """Of 12 puzzles of one volume, out of 4 classes: all, where guessing gives a quarter and a half."""
    torch.manual_seed(0)
    volume = torch.rand(1, 5, 5, 5)
    volume = torch.nn.functional.interpolate(volume[None], (18, 18, 18), mode="trilinear")[0]
    puzzle = RandRubiksCubed(PERMUTATIONS[:4], 2, (8, 8, 8), 1).set_random_state(seed=0)
    samples = [puzzle({"image": volume}) for _ in range(12)]
    cubes, *answers = (
        torch.stack([s[k] for s in samples]) for k in ("image", "permutation", "order", "turned")
    )
    target = dict(zip(("permutation", "order", "turned"), answers, strict=True))
    backbone = build_backbone("unet", 1, (8, 8, 8), options={"channels": [8, 16]})
    network = RubiksCubeNet(backbone, PERMUTATIONS[:4], 16, 32, 2, "given_order")
    loss = RubiksCubeLoss(rotation_reduction="mean")
    optimizer = torch.optim.Adam(network.parameters(), 0.01)
    for _ in range(40):
        optimizer.zero_grad()
        loss(network(cubes), target).backward()
        optimizer.step()
    output = {"pred": network(cubes), "label": target}
    assert ordering_accuracy(output).mean() > 0.9
    assert OrientationAccuracy(PERMUTATIONS[:4])(output).mean() > 0.9


# ------------------------------------------------------------------------------------------------ accuracies
def test_accuracies_by_hand():
    label = {"permutation": torch.tensor([1, 0]), "turned": torch.tensor([[[True, False]], [[True, True]]])}
    pred = (torch.tensor([[0.0, 1.0], [0.0, 1.0]]), torch.tensor([[[3.0, -1.0]], [[-2.0, 1.0]]]))
    output = {"pred": pred, "label": label}
    assert ordering_accuracy(output).tolist() == [1.0, 0.0]
    assert OrientationAccuracy(torch.tensor([[0], [0]]))(output).tolist() == [1.0, 0.5]


def test_metrics_by_name():
    names = {"ordering_accuracy", "ordering_chance", "orientation_accuracy"}
    assert set(validation_metrics(PERMUTATIONS)) == names
    assert set(validation_metrics(PERMUTATIONS, rotate=False)) == names - {"orientation_accuracy"}


def test_metrics_read_no_label_but_to_compare():
    """The label's order must not leak into the turns: another label, the same prediction."""
    torch.manual_seed(1)
    pred = (torch.randn(3, 10), torch.randn(3, 8, 8, 2))
    first = {"permutation": torch.tensor([0, 1, 2]), "turned": torch.zeros(3, 8, 2, dtype=torch.bool)}
    other = {**first, "permutation": torch.tensor([5, 6, 7]), "order": PERMUTATIONS[[5, 6, 7]]}
    accuracy = OrientationAccuracy(PERMUTATIONS)
    assert (
        accuracy({"pred": pred, "label": first}).tolist() == accuracy({"pred": pred, "label": other}).tolist()
    )


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_gpu_gives_what_the_cpu_gives():
    cubes, order = torch.rand(2, 8, 1, 3, 4, 5), PERMUTATIONS[[0, 1]]
    turned = torch.rand(2, 8, 2) < 0.5
    here = scramble(cubes, order, turned, (0, 2))
    there = scramble(cubes.cuda(), order.cuda(), turned.cuda(), (0, 2))
    torch.testing.assert_close(there.cpu(), here, rtol=0, atol=0)
    starts = torch.randint(0, 3, (2, 8, 3))
    volume = torch.rand(2, 1, 8, 8, 8)
    torch.testing.assert_close(
        extract_cubes(volume.cuda(), starts.cuda(), (2, 3, 4)).cpu(), extract_cubes(volume, starts, (2, 3, 4))
    )

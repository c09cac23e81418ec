import numpy as np
import pytest
import torch
from pretext3d.methods.rubiks_cube.figure import answered, caption, draw, turn_names
from pretext3d.methods.rubiks_cube.pretext import RandRubiksCubed
from pretext3d.ops.permutations import far_permutations
from pretext3d.training.pictures import render

PERMUTATIONS = torch.from_numpy(far_permutations(8, 10))
HOW = {"permutations": PERMUTATIONS, "grid": 2, "axes": (0, 2)}


def case(seed=0):
    volume = {"id": "head", "image": torch.rand(2, 12, 10, 9)}
    transform = RandRubiksCubed(PERMUTATIONS, 2, (4, 3, 3), 1)
    transform.set_random_state(seed=seed)
    return volume, transform(volume)


def certain(sample):
    """What a network that has solved the puzzle gives, the turns given the order."""
    ordering = torch.full((10,), -20.0)
    ordering[sample["permutation"]] = 20.0
    turns = (sample["turned"].float() * 40 - 20)[:, None].expand(-1, 8, -1)
    return ordering, turns


def texts(figure):
    return [text.get_text() for text in figure.texts + [t for axes in figure.axes for t in axes.texts]]


def edges(figure):
    """Colours of the frames, panel by panel."""
    return [[patch.get_edgecolor()[:3] for patch in axes.patches] for axes in figure.axes]


def test_a_solved_puzzle_is_green():
    volume, sample = case()
    figure = draw(volume, sample, certain(sample), **HOW)
    assert len(figure.axes) == 6  # two layers each of the volume, the puzzle, the solution
    assert len({colour for panel in edges(figure)[4:] for colour in panel}) == 1
    count = sample["turned"].numel()
    assert f"order right; {count} of {count} half turns recognised; green: cube restored" in texts(figure)
    assert np.isfinite(render(figure)).all()


def test_a_wrong_turn_is_red_where_the_cube_ends_up():
    volume, sample = case()
    ordering, turns = certain(sample)
    turns = turns.clone()
    turns[3] = -turns[3]  # the cube at position 3, whatever cell it came from
    solved, wrong = (draw(volume, sample, p, **HOW) for p in (certain(sample), (ordering, turns)))
    changed = [
        (panel, place)
        for panel, (a, b) in enumerate(zip(edges(solved)[4:], edges(wrong)[4:], strict=True))
        for place, (x, y) in enumerate(zip(a, b, strict=True))
        if x != y
    ]
    cell = int(sample["order"][3])  # cells are numbered i, j, k; a panel is a j, its places run over i and k
    assert changed == [((cell // 2) % 2, 2 * (cell // 4) + cell % 2)]


def test_without_a_network():
    volume, sample = case()
    figure = draw(volume, sample, title="a title", **HOW)
    assert len(figure.axes) == 4
    found = texts(figure)
    assert "a title" in found
    for position in range(8):
        note = f"{int(sample['order'][position]) + 1}{turn_names(sample['turned'][position])}"
        assert note in found
    assert caption(sample, None) in found


@pytest.mark.parametrize(("turned", "name"), [((0, 0), ""), ((1, 0), " h"), ((0, 1), " v"), ((1, 1), " hv")])
def test_names_of_turns(turned, name):
    assert turn_names(torch.tensor(turned, dtype=torch.bool)) == name


def test_the_answer_is_the_networks_own():
    _, sample = case(seed=5)
    order, turned = answered(certain(sample), PERMUTATIONS)
    assert torch.equal(order, sample["order"])
    assert torch.equal(turned, sample["turned"])

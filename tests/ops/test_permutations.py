import itertools
import json
import math
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pretext3d.errors import UserError
from pretext3d.ops import permutations
from pretext3d.ops.permutations import (
    POOL,
    _affine_group,
    _candidates,
    _field,
    _projective_group,
    far_permutations,
    load_permutations,
    minimum_distance,
    reorder,
)

RNG = np.random.default_rng(0)
BUNDLES = Path(__file__).resolve().parents[2] / "bundles"


def are_different_permutations(found: np.ndarray) -> bool:
    return bool((np.sort(found) == np.arange(found.shape[1])).all()) and len(np.unique(found, axis=0)) == len(
        found
    )


def test_minimum_distance_by_hand():
    # 012 and 021 differ in 2 places, 012 and 120 in 3, 021 and 120 in 2
    assert minimum_distance(np.array([[0, 1, 2], [1, 2, 0]])) == 3
    assert minimum_distance(np.array([[0, 1, 2], [0, 2, 1], [1, 2, 0]])) == 2
    assert minimum_distance(np.array([[0, 1, 2]])) == 3


def test_field_of_four_elements_by_hand():
    """GF(4) = {0, 1, x, x + 1} with x^2 = x + 1: 2 * 2 = 3, 2 * 3 = 1, 3 * 3 = 2; sums are exclusive or."""
    sums, products = _field(2, 2)
    assert sums.tolist() == [[a ^ b for b in range(4)] for a in range(4)]
    assert products.tolist() == [[0, 0, 0, 0], [0, 1, 2, 3], [0, 2, 3, 1], [0, 3, 1, 2]]


@pytest.mark.parametrize("field", [(5, 1), (2, 3), (3, 2), (3, 3)])
def test_fields_have_inverses_and_distribute(field):
    sums, products = _field(*field)
    size = len(sums)
    assert all(sorted(row) == list(range(size)) for row in sums.tolist())
    assert all(sorted(row) == list(range(size)) for row in products[1:].tolist())
    a, b, c = np.meshgrid(*[np.arange(size)] * 3, indexing="ij")
    assert (products[a, sums[b, c]] == sums[products[a, b], products[a, c]]).all()


@pytest.mark.parametrize(("field", "cells"), [((2, 3), 8), ((3, 2), 9), ((3, 3), 27)])
def test_affine_groups_are_sharply_transitive_on_pairs(field, cells):
    group = _affine_group(*field, RNG)
    assert group.shape == (cells * (cells - 1), cells)
    assert are_different_permutations(group)
    assert minimum_distance(group) == cells - 1


@pytest.mark.parametrize(("prime", "cells"), [(3, 4), (5, 6), (7, 8), (11, 12)])
def test_projective_groups_are_sharply_transitive_on_triples(prime, cells):
    group = _projective_group(prime, 1, RNG)
    assert group.shape == (cells * (cells - 1) * (cells - 2), cells)
    assert are_different_permutations(group)
    assert minimum_distance(group) == cells - 2


@pytest.mark.parametrize(
    ("cells", "count", "distance"),
    [(2, 2, 2), (4, 4, 4), (4, 24, 2), (8, 56, 7), (8, 100, 6), (27, 100, 26), (12, 100, 10)],
)
def test_distances(cells, count, distance):
    found = far_permutations(cells, count)
    assert found.shape == (count, cells)
    assert are_different_permutations(found)
    assert minimum_distance(found) == distance


@pytest.mark.parametrize(("cells", "count"), [(8, 100), (27, 100), (16, 50)])
def test_farther_apart_than_random_ones(cells, count):
    random = np.random.default_rng(1).permuted(np.tile(np.arange(cells), (count, 1)), axis=1)
    assert minimum_distance(far_permutations(cells, count)) >= minimum_distance(random) + 2


@settings(derandomize=True, deadline=None, max_examples=25)
@given(cells=st.integers(2, 12), count=st.integers(1, 40), seed=st.integers(0, 3))
def test_laws(cells, count, seed):
    if count > math.factorial(cells):
        with pytest.raises(UserError, match="num_permutations: found"):
            far_permutations(cells, count, seed)
        return
    found = far_permutations(cells, count, seed)
    assert found.shape == (count, cells)
    assert are_different_permutations(found)
    np.testing.assert_array_equal(found, far_permutations(cells, count, seed))
    fewer = max(1, count - 3)  # greedy: a smaller choice is the beginning of a larger one, from the same pool
    if cells <= 6:
        np.testing.assert_array_equal(far_permutations(cells, fewer, seed), found[:fewer])


@pytest.mark.parametrize(
    ("cells", "count", "distance"),
    # 107 and 127 are primes, and 343 is 7^3: groups of 1.2 and 2.0 million and of 117,306 elements
    [(108, 100, 106), (128, 2, 126), (343, 2, 342)],
)
def test_of_a_large_group_a_part_is_enough(cells, count, distance):
    pool = _candidates(cells, count, np.random.default_rng(1))
    assert pool.shape == (POOL, cells)
    assert are_different_permutations(pool)
    tracemalloc.start()
    found = far_permutations(cells, count)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert are_different_permutations(found)
    assert minimum_distance(found) >= distance
    assert peak < 1e9  # bytes; the tables of the field and a dozen arrays as large as the pool


def test_greedy_takes_the_farthest_candidate():
    """Of three cells: after one permutation come those at distance 3, its two rotations."""
    found = far_permutations(3, 3)
    assert minimum_distance(found) == 3
    assert sorted(map(tuple, found)) in [
        sorted(p for p in itertools.permutations(range(3)) if parity(p) == sign) for sign in (0, 1)
    ]


def parity(permutation):
    return sum(a > b for a, b in itertools.combinations(permutation, 2)) % 2


def test_another_seed_is_another_choice():
    assert not np.array_equal(far_permutations(8, 100, 0), far_permutations(8, 100, 1))


@pytest.mark.parametrize(
    ("cells", "count", "message"), [(1, 1, "grid: found 1"), (3, 7, "expected 1 to 6"), (8, 0, "")]
)
def test_impossible(cells, count, message):
    with pytest.raises(UserError, match=message or "num_permutations: found 0"):
        far_permutations(cells, count)


def test_file(tmp_path):
    path = tmp_path / "permutations.json"
    path.write_text(json.dumps({"permutations": [[2, 0, 1], [1, 2, 0]]}))
    other = {"permutations": [[1, 0]], "seed": 3}
    (tmp_path / "permutations_2.json").write_text(json.dumps(other))
    folder = str(tmp_path)
    assert load_permutations(folder, [1, 1, 3], 2).tolist() == [[2, 0, 1], [1, 2, 0]]
    assert load_permutations(folder, [1, 1, 3], 2, seed=5).tolist() == [[2, 0, 1], [1, 2, 0]]
    assert load_permutations(folder, [1, 2, 1], 1, seed=3).tolist() == [[1, 0]]
    assert load_permutations(folder, [1, 2, 1], 1, seed=4).tolist() == far_permutations(2, 1, 4).tolist()
    assert load_permutations(folder, 2, 4).tolist() == far_permutations(8, 4).tolist()  # another grid
    assert load_permutations(folder + "/none", 2, 4).tolist() == far_permutations(8, 4).tolist()


@pytest.mark.parametrize(
    ("bundle", "grid", "cells"),
    [
        ("rubiks_cube", [2, 2, 2], 8),
        ("rubiks_cube", [3, 3, 3], 27),
        ("jigsaw", [2, 2, 2], 8),
        ("jigsaw", [3, 3, 3], 27),
        ("jigsaw", [3, 3], 9),
    ],
)
def test_the_bundles_have_the_usual_grids(monkeypatch, bundle, grid, cells):
    expected = far_permutations(cells, 100).tolist()
    monkeypatch.setattr(permutations, "far_permutations", None)  # not called
    folder = str(BUNDLES / bundle / "configs")
    assert load_permutations(folder, grid, 100, spatial_dims=len(grid)).tolist() == expected


def test_permutations_that_are_too_close():
    """Of 4 cells: the 4 rotations of a circle are 4 apart, all 24 permutations 2, and 25 there are not."""
    far = load_permutations("", [1, 2, 2], 4, min_distance=4)
    assert minimum_distance(far.numpy()) == 4
    with pytest.raises(UserError, match="min_distance: found 3, but the 24 permutations of 4 cells are only"):
        load_permutations("", [1, 2, 2], 24, min_distance=3)
    with pytest.raises(UserError, match="num_permutations: found 25, expected 1 to 24 permutations of 4"):
        load_permutations("", [1, 2, 2], 25, min_distance=2)
    folder = str(BUNDLES / "jigsaw/configs")  # stored ones are measured, too
    assert len(load_permutations(folder, 3, 100, min_distance=26)) == 100
    with pytest.raises(UserError, match="are only 26 apart; expected 26 or less, or a smaller num_perm"):
        load_permutations(folder, 3, 100, min_distance=27)


@pytest.mark.parametrize("distance", [1, 5, True])
def test_distances_that_no_permutations_have(distance):
    with pytest.raises(UserError, match=r"min_distance: found .*, expected 2 to 4, the number of cells"):
        load_permutations("", [1, 2, 2], 4, min_distance=distance)


@pytest.mark.parametrize("seed", [-1, True])
def test_wrong_seed(tmp_path, seed):
    with pytest.raises(UserError, match="permutations_seed: found"):
        load_permutations(str(tmp_path), 2, 4, seed)


@pytest.mark.parametrize("text", ["{", "[]", '{"permutations": [[0, 0]]}', '{"permutations": [[0.5, 1]]}'])
def test_file_of_something_else(tmp_path, text):
    path = tmp_path / "permutations.json"
    path.write_text(text)
    with pytest.raises(UserError, match=r"permutations\.json: expected"):
        load_permutations(str(tmp_path), [1, 1, 2], 1)


def test_the_bundles_files_are_what_the_code_chooses():
    found = sorted(BUNDLES.glob("*/configs/permutations*.json"))
    assert found
    for path in found:
        stored = json.loads(path.read_text())
        chosen = far_permutations(stored["cells"], stored["count"], stored["seed"])
        assert stored["permutations"] == chosen.tolist(), path
        assert stored["minimum_distance"] == minimum_distance(chosen)


def test_no_class_twice():
    """Of 7 cells, a prime plus 0, 5,040 random draws repeat some: refused, not given as different classes."""
    with pytest.raises(UserError, match=r"num_permutations: found 5040, but among 20000 random .* only \d+"):
        far_permutations(7, 5040)


@given(st.integers(0, 2), st.integers(0, 99))
def test_cubes_and_tiles_are_put_in_order(batch, seed):
    order = torch.from_numpy(np.random.default_rng(seed).permuted(np.tile(np.arange(4), (3, 1)), axis=1))
    order = order[:batch] if batch else order[0]
    for size in ((2, 3), (2, 1, 3)):
        cubes = torch.rand(*order.shape, 2, *size)
        moved = reorder(cubes, order)
        for place in np.ndindex(*order.shape):
            assert torch.equal(moved[place], cubes[(*place[:-1], int(order[place]))])
        assert torch.equal(reorder(moved, order.argsort(-1)), cubes)


def test_four_tiles_have_24_permutations(tmp_path):
    found = load_permutations(str(tmp_path), 2, 24, spatial_dims=2)
    assert found.shape == (24, 4)
    with pytest.raises(UserError, match="num_permutations: found 25, expected 1 to 24"):
        load_permutations(str(tmp_path), [2, 2], 25, spatial_dims=2)

"""Placement: order, overlaps, what is overwritten, what is dropped."""

import numpy as np
import pytest
import torch
from pretext3d.methods.avsdb.placement import Placement, Solid, place, solids
from pretext3d.methods.avsdb.shapes import ShapeSizes, cross_sections, draw_shapes, z_rules

SIZE = (40, 48, 36)


def block(*edges: int) -> Solid:
    """A cuboid with odd edges."""
    voxels = torch.ones(edges, dtype=torch.int16)
    inner = torch.zeros(edges, dtype=torch.int16)
    inner[2:-2, 2:-2] = 1
    return Solid(voxels, inner, tuple(edge // 2 for edge in edges), voxels.numel())


def instances(found: Placement, count: int) -> np.ndarray:
    """1 + the number of the shape at each voxel, 0 where there is none."""
    return found.look_up(np.concatenate([[0], np.repeat(np.arange(1, count + 1), 2)])).numpy()


def borders(found: Placement, count: int) -> np.ndarray:
    """Whether a voxel belongs to an outline."""
    return found.look_up(np.asarray([0, *[1, 0] * count])).numpy() > 0


def placed(
    shapes: list[Solid], positions: list[list[list[float]]], max_overlap: float | None = 0.7
) -> Placement:
    volumes = np.asarray([float(shape.voxels.sum()) for shape in shapes])
    return place(shapes, volumes, np.asarray(positions), (11, 11, 11), max_overlap, z_margin=1)


def test_the_smaller_shape_overwrites_the_larger_one() -> None:
    """A cube of 5^3 and one of 3^3 in its middle, given first; both tried at the volume's centre."""
    centre = [[0.5, 0.5, 0.5]]
    found = placed([block(3, 3, 3), block(5, 5, 5)], [centre, centre], max_overlap=1.0)
    assert found.placed == [1]  # the small one lies in the large one altogether: 27 / 27 is not below 1
    corner = [[0.25, 0.5, 0.5]]  # from 1 to 9: voxel 3; its cube covers 2 to 4, the large one 3 to 7
    found = placed([block(3, 3, 3), block(5, 5, 5)], [corner, centre], max_overlap=0.7)
    assert found.placed == [1, 0]
    assert found.centres == [(5, 5, 5), (3, 5, 5)]
    assert found.overlaps == [0.0, 18 / 27]
    assert (instances(found, 2) == 1).sum() == 27
    assert (instances(found, 2) == 2).sum() == 125 - 18
    # the small one's outline, all of it but nothing inside, as it is 3 wide
    assert borders(found, 2)[2:5, 4:7, 4:7].all()
    assert not borders(found, 2)[5, 5, 5]


def test_a_position_with_too_much_overlap_is_tried_again_then_the_shape_is_dropped() -> None:
    centre, corner = [0.5, 0.5, 0.5], [0.25, 0.5, 0.5]
    shapes = [block(3, 3, 3), block(5, 5, 5)]
    again = placed(shapes, [[centre, corner], [centre, centre]], max_overlap=0.7)
    assert again.centres[1] == (3, 5, 5)
    dropped = placed(shapes, [[centre, corner], [centre, centre]], max_overlap=18 / 27)  # below, not at
    assert dropped.placed == [1]


def test_no_overlap_at_all() -> None:
    shapes = [block(3, 3, 3), block(5, 5, 5)]
    centre = [0.5, 0.5, 0.5]
    touching, beside = [0.25, 0.5, 0.5], [0.0, 0.5, 0.5]  # voxels 3 and 1: the latter's cube ends at 2
    found = placed(shapes, [[touching, beside], [centre, centre]], max_overlap=None)
    assert found.centres == [(5, 5, 5), (1, 5, 5)]
    assert found.overlaps == [0.0, 0.0]


def test_a_shape_that_leaves_the_volume_counts_what_is_inside() -> None:
    """A column of height 9 with its centre at slice 1: six of nine slices are inside."""
    found = placed([block(3, 3, 9)], [[[0.5, 0.5, 0.0]]])
    assert found.centres == [(5, 5, 1)]
    assert (instances(found, 1) == 1).sum() == 9 * 6


def drawn(count: int = 20, seed: int = 0, r: float | None = 0.7) -> tuple[list[Solid], np.ndarray, Placement]:
    rng = np.random.default_rng(seed)
    shapes = draw_shapes(rng, count, cross_sections(8), z_rules(4), ShapeSizes())
    found = solids(shapes, SIZE)
    positions = rng.random((count, 100, 3))
    return found, shapes.volume, place(found, shapes.volume, positions, SIZE, r, z_margin=3 * 36 / 96)


@pytest.mark.parametrize("r", [0.7, 0.2, 1.0, None])
@pytest.mark.parametrize("seed", range(4))
def test_every_accepted_overlap_is_under_the_limit(seed: int, r: float | None) -> None:
    """Painted again, shape by shape, with plain loops over nothing but the accepted shapes."""
    shapes, volumes, found = drawn(seed=seed, r=r)
    assert [volumes[n] for n in found.placed] == sorted((volumes[n] for n in found.placed), reverse=True)
    canvas, border = np.zeros(SIZE, dtype=int), np.zeros(SIZE, dtype=bool)
    for number, centre, overlap in zip(found.placed, found.centres, found.overlaps, strict=True):
        voxels = np.argwhere(shapes[number].voxels.numpy()) - shapes[number].half + centre
        rim = (
            np.argwhere((shapes[number].voxels & ~shapes[number].inner).numpy())
            - shapes[number].half
            + centre
        )
        inside, rim = (v[((v >= 0) & (v < SIZE)).all(1)] for v in (voxels, rim))
        at, edge = tuple(inside.T), tuple(rim.T)
        expected = np.count_nonzero(canvas[at]) / len(inside)
        assert overlap == pytest.approx(expected)
        assert expected < r if r else expected == 0
        canvas[at], border[at] = number + 1, False
        border[edge] = True
    np.testing.assert_array_equal(instances(found, 20), canvas)
    np.testing.assert_array_equal(borders(found, 20), border)


def test_what_finds_no_position_is_dropped() -> None:
    _, _, found = drawn(count=60, r=None)
    assert 3 < len(found.placed) < 60


def test_shapes_stay_inside_in_the_plane_and_centres_off_the_ends() -> None:
    for seed in range(4):
        shapes, _, found = drawn(seed=seed)
        for number, centre in zip(found.placed, found.centres, strict=True):
            half = shapes[number].half
            assert all(half[axis] <= centre[axis] <= SIZE[axis] - 1 - half[axis] for axis in (0, 1))
            assert 1 <= centre[2] <= SIZE[2] - 2

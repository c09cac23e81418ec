"""Shapes: classes, drawing, and the gauge, by geometry."""

import itertools

import numpy as np
import pytest
import torch
from pretext3d.errors import UserError
from pretext3d.methods.avsdb.placement import solids
from pretext3d.methods.avsdb.shapes import (
    Shapes,
    ShapeSizes,
    class_names,
    cross_sections,
    draw_shapes,
    z_rules,
)
from scipy import ndimage


def shape(
    angles: list[float] | None = None,
    radii: list[float] | None = None,
    semi_axes: tuple[float, float] = (0.0, 0.0),
    ratios: tuple[float, float, float] = (1.0, 1.0, 1.0),
    height: float = 10.0,
    rotation: float = 0.0,
) -> Shapes:
    """One shape; angles in degrees."""
    none = angles is None or radii is None
    return Shapes(
        section=np.zeros(1, dtype=int),
        rule=np.zeros(1, dtype=int),
        angles=np.full((1, 3), np.inf) if none else np.deg2rad([angles]),
        radii=np.zeros((1, 3)) if none else np.asarray([radii], dtype=float),
        semi_axes=np.asarray([semi_axes], dtype=float),
        rotation=np.asarray([np.deg2rad(rotation)]),
        height=np.asarray([height]),
        ratios=np.asarray([ratios], dtype=float),
    )


def gauge_at(found: Shapes, *points: tuple[float, float]) -> list[float]:
    x, y = torch.tensor(points, dtype=torch.float64).T[:, None]
    values: list[float] = found.gauge(x, y)[0].diagonal().tolist()
    return values


def many(count: int = 400, seed: int = 0, rules: int = 4, **sizes: object) -> Shapes:
    rng = np.random.default_rng(seed)
    return draw_shapes(rng, count, cross_sections(8), z_rules(rules), ShapeSizes(**sizes))


# ------------------------------------------------------------------------------------------- the classes
def test_class_names_in_the_label_s_order() -> None:
    names = class_names(8, 4)
    assert len(names) == 33
    assert names[:6] == [
        "background", "ellipse prism", "ellipse cone", "ellipse hourglass", "ellipse spindle",
        "triangle prism",
    ]  # fmt: skip
    assert names[-1] == "nonagon spindle"
    assert len(set(names)) == len(names)


@pytest.mark.parametrize(
    ("function", "value", "message"),
    [
        (cross_sections, 0, "xy_classes: found 0, expected a number of classes from 1"),
        (cross_sections, [], r"xy_classes: found \[\], expected"),
        (cross_sections, [2], r"xy_classes: found \[2\]"),
        (cross_sections, [3, "triangle"], "xy_classes: found"),
        (cross_sections, ["circle"], r"xy_classes: found \['circle'\]"),
        (cross_sections, "ellipse", "xy_classes: found 'ellipse'"),
        (cross_sections, 10**9, "xy_classes: found 1000000000"),
        (cross_sections, True, "xy_classes: found True"),
        (z_rules, 0, "z_classes: found 0, expected 1 to 4, or a list of different ones of prism, cone"),
        (z_rules, 5, "z_classes: found 5"),
        (z_rules, ["prism", "prism"], "z_classes: found"),
        (z_rules, "prism", "z_classes: found 'prism'"),
    ],
)
def test_impossible_classes(function: object, value: object, message: str) -> None:
    with pytest.raises(UserError, match=message):
        function(value)  # type: ignore[operator]


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"box": [30, 120]}, r"sizes::box: found \[30, 120\], a box larger than the volume"),
        (
            {"box": [80, 30]},
            r"sizes::box: found \[80, 30\], expected two numbers above 0, the smaller one first",
        ),
        ({"box": 30}, "sizes::box: found 30"),
        ({"height": [0, 50]}, r"sizes::height: found \[0, 50\]"),
        ({"height": [10, 97]}, "sizes::height: found .*a shape higher than the volume"),
        (
            {"min_radius": 16},
            r"sizes::min_radius: found 16, expected a number in \(0, 15\], half the smallest box",
        ),
        ({"z_margin": 49}, "sizes::z_margin: found 49"),
    ],
)
def test_impossible_sizes(sizes: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        ShapeSizes(**sizes)


# --------------------------------------------------------------------------------------------- the gauge
def test_gauge_of_a_triangle_by_hand() -> None:
    """Vertices (0, 10), (-10, 0), (10, -10), in the sectors from 0, 120 and 240 degrees.

    The first edge is y - x = 10. The last one, from (10, -10) to (0, 10), has e = (0.2, 0.1), as 2 - 1 = 1
    and 0.1 * 10 = 1: at (5, 0) it is 1. That before it, (-10, 0) to (10, -10), has e = (-0.1, -0.2).
    """
    found = shape([90, 180, 315], [10, 10, 10 * np.sqrt(2)])
    values = gauge_at(found, (0, 10), (-10, 0), (10, -10), (-5, 5), (-1, 2), (5, 0), (10, 0), (0, -5), (0, 0))
    np.testing.assert_allclose(values, [1, 1, 1, 1, 0.3, 1, 2, 1, 0], atol=1e-12)


def test_gauge_of_a_rotated_ellipse_by_hand() -> None:
    """Semi-axes 8 and 2, rotated by 90 degrees: 2 along x, 8 along y."""
    values = gauge_at(shape(semi_axes=(8, 2), rotation=90), (2, 0), (0, 8), (1, 0), (0, -4), (0, 0))
    np.testing.assert_allclose(values, [1, 1, 0.5, 0.5, 0], atol=1e-12)


def test_ratio_by_hand() -> None:
    """An hourglass of height 10: 0.8 at the lowest, 0.4 in the middle, 1 at the highest point."""
    z = torch.tensor([[-5.5, -5.0, -2.5, 0.0, 2.5, 5.0, 5.5]], dtype=torch.float64)
    found = shape([90, 180, 315], [10, 10, 10], ratios=(0.8, 0.4, 1.0)).ratio(z)[0]
    torch.testing.assert_close(found.tolist(), [-1.0, 0.8, 0.6, 0.4, 0.7, 1.0, -1.0])


def test_area_and_volume_by_hand() -> None:
    """Corners (0, 10), (-10, 0), (10, -10): (100 + 100 + 100) / 2 = 150; a cone has a third of a prism."""
    corners = {"angles": [90, 180, 315], "radii": [10, 10, 10 * np.sqrt(2)]}
    np.testing.assert_allclose(shape(**corners).area, [150.0])
    np.testing.assert_allclose(shape(**corners).volume, [1500.0])
    np.testing.assert_allclose(shape(**corners, ratios=(1.0, 0.5, 0.0)).volume, [500.0])
    np.testing.assert_allclose(shape(semi_axes=(4, 3)).area, [12 * np.pi])


# -------------------------------------------------------------------------------------------- the drawing
def test_drawn_shapes_keep_the_rules_of_their_classes() -> None:
    shapes = many()
    counts = np.asarray([0, *range(3, 10)])[shapes.section]
    for number, count in enumerate(counts):
        angles = shapes.angles[number][: max(count, 0)]
        assert np.isinf(shapes.angles[number][count:]).all()
        assert shapes.is_ellipse[number] == (count == 0)
        sectors = np.floor(angles / (2 * np.pi / max(count, 1))).astype(int)
        assert sectors.tolist() == list(range(count))  # one vertex in each of the equal sectors
        if count:
            assert max(np.diff([*angles, angles[0] + 2 * np.pi])) < np.pi
            assert (shapes.radii[number][:count] >= 15).all()
            assert (shapes.radii[number] <= 40).all()
        else:
            assert (shapes.semi_axes[number] >= 15).all()
            assert (shapes.semi_axes[number] <= 40).all()
    assert (shapes.height >= 10).all()
    assert (shapes.height <= 50).all()
    assert (shapes.rotation >= 0).all()
    assert (shapes.rotation <= np.pi).all()


def test_drawn_ratios_follow_their_rule() -> None:
    shapes = many()
    low, middle, high = shapes.ratios.T
    prism, cone, hourglass, spindle = (shapes.rule == rule for rule in range(4))
    assert (shapes.ratios[prism] == 1).all()
    assert set(low[cone]) == {0.0, 1.0}  # decreasing or increasing
    assert (low + high == 1)[cone].all()
    assert ((low >= 0.8) & (high >= 0.8) & (middle >= 0.3) & (middle <= 0.5))[hourglass].all()
    assert ((low <= 0.5) & (high <= 0.5) & (middle >= 0.8) & (middle <= 1))[spindle].all()


def test_the_same_generator_draws_the_same_shapes() -> None:
    first, again, other = many(seed=1), many(seed=1), many(seed=2)
    for name in vars(first):
        np.testing.assert_array_equal(getattr(first, name), getattr(again, name))
    assert not np.array_equal(first.height, other.height)


def test_gauge_is_1_at_every_vertex_and_homogeneous() -> None:
    shapes = many(60)
    for number in np.flatnonzero(~shapes.is_ellipse):
        one = shapes.chosen(np.asarray([number]))
        cos, sin = np.cos(one.rotation[0]), np.sin(one.rotation[0])
        corners = [(cos * u - sin * v, sin * u + cos * v) for u, v in one.vertices[0]]
        middles = [((a[0] + b[0]) / 2, (a[1] + b[1]) / 2) for a, b in itertools.pairwise(corners)]
        *on_edges, near, far = gauge_at(one, *corners, *middles, (3.0, -2.0), (6.0, -4.0))
        np.testing.assert_allclose(on_edges, 1, atol=1e-9)  # edges are straight
        np.testing.assert_allclose(far, 2 * near)


# --------------------------------------------------------------------------------------------- the solids
def slice_areas(found: Shapes, size: tuple[int, int, int]) -> list[np.ndarray]:
    return [solid.voxels.sum((0, 1)).numpy() for solid in solids(found, size)]


@pytest.mark.parametrize("size", [(96, 96, 96), (144, 96, 48)])
def test_a_prism_s_voxels_are_its_volume_up_to_a_shell(size: tuple[int, int, int]) -> None:
    """Area times height, up to three quarters of a voxel along the boundary of every slice, and a slice."""
    shapes = many(80, rules=1)
    scale = np.prod(size) / 96**3
    plane = size[0] * size[1] / 96**2
    for number, areas in enumerate(slice_areas(shapes, size)):
        inside = areas[areas > 0]
        assert (inside == inside[0]).all()  # every slice is the same
        points = shapes.vertices[number] * np.sqrt(plane)
        edges = np.linalg.norm(points - np.roll(points, -1, axis=0), axis=1).sum()
        edges = edges if edges else 2 * np.pi * 40 * np.sqrt(plane)
        assert abs(inside[0] - shapes.area[number] * plane) < 0.75 * edges
        assert abs(len(inside) - shapes.height[number] * size[2] / 96) <= 1
        shell = 0.75 * edges * len(inside) + inside[0]
        assert abs(areas.sum() - shapes.volume[number] * scale) < shell


def test_a_cone_s_slices_shrink_linearly() -> None:
    """The square root of the slice's area, over that of the base, is 1 - z / height."""
    shapes = draw_shapes(
        np.random.default_rng(0), 20, [0, 3, 6], ["cone"], ShapeSizes(box=(80, 80), height=(50, 50))
    )
    for number, areas in enumerate(slice_areas(shapes, (96, 96, 96))):
        upwards = shapes.ratios[number, 0] == 0
        ratios = np.sqrt(areas / shapes.area[number])
        z = np.arange(-25, 26) / 50
        expected = 0.5 + z if upwards else 0.5 - z
        np.testing.assert_allclose(ratios, expected, atol=0.06)


def test_solids_of_a_slice_are_the_cross_sections() -> None:
    shapes = many(10)
    flat = solids(shapes, (96, 96, 1))
    assert all(solid.voxels.shape[2] == 1 for solid in flat)
    for number, solid in enumerate(flat):
        assert int(solid.voxels.sum()) == pytest.approx(shapes.area[number], rel=0.1)


def test_boxes_hold_the_shapes_exactly() -> None:
    """No voxel is cut off: in a box one voxel larger, the same ones are inside."""
    shapes = many(60)
    for number, solid in enumerate(solids(shapes, (96, 64, 48))):
        one = shapes.chosen(np.asarray([number]))
        x, y, z = (
            torch.arange(-half - 1, half + 2, dtype=torch.float64)[None] * 96 / edge
            for half, edge in zip(solid.half, (96, 64, 48), strict=True)
        )
        larger = one.gauge(x, y)[0, :, :, None] <= one.ratio(z)[0]
        assert int(larger.sum()) == int(solid.voxels.sum())


def test_inner_voxels_by_hand() -> None:
    """The ellipse with semi-axes 5 and 3, in a volume of 96^3: rows from -5 to 5.

    In column 0 it has voxels from -3 to 3 along the second axis, and from -5 to 5 along the first. Two steps
    away from (0, y) are (0, y - 2), (0, y + 2), (-1, y + 1), ...: of (0, 1) the last one inside is (0, 3), of
    (0, 2) it is (0, 4), outside. Of (3, 0) it is (5, 0); (4, 1) has gauge sqrt(0.64 + 0.11) and is inside.
    """
    solid = solids(shape(semi_axes=(5, 3), height=1), (96, 96, 96))[0]
    assert solid.half == (5, 3, 0)
    assert solid.inner[5, :, 0].tolist() == [0, 0, 1, 1, 1, 0, 0]
    assert solid.inner[8, 3, 0]
    assert not solid.inner[9, 3, 0]
    assert not (solid.inner & ~solid.voxels).any()


def test_inner_voxels_are_two_erosions_of_every_slice() -> None:
    for solid in solids(many(40), (96, 64, 48)):
        expected = np.stack(
            [ndimage.binary_erosion(part, iterations=2) for part in solid.voxels.permute(2, 0, 1).numpy()], -1
        )
        np.testing.assert_array_equal(solid.inner.numpy(), expected)

"""The phantom's drawing tools against hand-computed distances, weights and blends."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pretext3d.phantom.canvas import Canvas, Profile, common, joined, smooth_field, spline_weights


def make_canvas(x: list[float], y: list[float], z: list[float], voxel: float = 2.0) -> Canvas:
    """A canvas whose body coordinates are the given axes."""
    grids = [g.astype(np.float32) for g in np.meshgrid(x, y, z, indexing="ij")]
    place = grids[2] + 260
    row = place.astype(np.int16)
    return Canvas(
        *grids,
        row,
        place - row,
        np.zeros((4, *place.shape), np.float32),
        np.zeros(place.shape, np.float32),
        np.zeros(place.shape, np.uint8),
        voxel,
    )


def test_profile_runs_through_its_knots_and_stays_between_them() -> None:
    profile = Profile((-100, 4), (0, 10), (50, 10), (100, 2))
    canvas = make_canvas([0], [0], [-150, -100, 0, 25, 50, 100, 150])
    # beyond the last knots it is constant; between two equal knots a monotone cubic is constant too
    np.testing.assert_allclose(canvas.profile(profile)[0, 0], [4, 4, 10, 10, 10, 2, 2], atol=1e-5)


def test_profile_between_two_heights_of_its_table_is_linear() -> None:
    canvas = make_canvas([0], [0], [10.25])
    np.testing.assert_allclose(canvas.profile(Profile((-200, 0), (200, 400)))[0, 0, 0], 210.25, atol=1e-3)


def test_spline_weights_golden() -> None:
    # at a knot 1/6, 2/3, 1/6; half-way between two: (1/2)^3/6 = 1/48 outside and 23/48 inside
    weights = spline_weights(np.array([2.0, 1.5]), 5)
    np.testing.assert_allclose(weights[0], [0, 1 / 6, 2 / 3, 1 / 6, 0], atol=1e-6)
    np.testing.assert_allclose(weights[1], [1 / 48, 23 / 48, 23 / 48, 1 / 48, 0], atol=1e-6)


@given(st.floats(1, 8))
def test_spline_weights_sum_to_one(position: float) -> None:
    assert spline_weights(np.array([position]), 10).sum() == pytest.approx(1, abs=1e-5)


def test_smooth_field_is_the_same_field_on_finer_voxels() -> None:
    def draw(step: float) -> np.ndarray:
        axes = [np.arange(-extent, extent + 1e-6, step) for extent in (160, 128, 160)]
        return smooth_field(np.random.RandomState(3), axes, 40.0)

    coarse, fine = draw(8.0), draw(4.0)
    np.testing.assert_allclose(fine[::2, ::2, ::2], coarse, atol=1e-4)
    # normal values of unit variance: about 9 x 7 x 9 independent ones in the volume, so 1 within 0.15
    assert coarse.std() == pytest.approx(1, abs=0.15)
    # smooth: neighbours 4 mm apart, a tenth of a wavelength, differ by far less than the field's range
    assert np.abs(np.diff(fine, axis=0)).max() < 0.8


def test_distance_to_a_sphere_is_exact() -> None:
    canvas = make_canvas([1, 16], [2], [3, 7])
    sphere = canvas.ellipsoid((1, 2, 3), (10, 10, 10))
    # centre (1, 2, 3): the point (16, 2, 3) lies 15 - 10 = 5 mm outside, (1, 2, 7) lies 4 - 10 = 6 mm inside
    assert sphere[1, 0, 0] == pytest.approx(5, abs=1e-4)
    assert sphere[0, 0, 1] == pytest.approx(-6, abs=1e-4)


def test_a_lean_moves_an_ellipsoid_with_the_height() -> None:
    canvas = make_canvas([-5, 0], [0], [10])
    # leaning by -0.5 mm a mm, its axis is at x = -5 when z = 10
    leaning = canvas.ellipsoid((0, 0, 0), (20, 20, 20), (-0.5, 0))
    upright = canvas.ellipsoid((0, 0, 0), (20, 20, 20))
    assert leaning[0, 0, 0] == pytest.approx(upright[1, 0, 0])


def test_capsule_golden() -> None:
    canvas = make_canvas([0, 5], [0], [-7, 5, 13])
    rod = canvas.capsule((0, 0, 0), (0, 0, 10), 2, 4)
    # half-way up its radius is 3: 5 - 3; below the end 7 - 2; above the other 3 - 4
    assert rod[1, 0, 1] == pytest.approx(2, abs=1e-5)
    assert rod[0, 0, 0] == pytest.approx(5, abs=1e-5)
    assert rod[0, 0, 2] == pytest.approx(-1, abs=1e-5)


def test_tube_golden() -> None:
    canvas = make_canvas([13], [4], [0])
    level = [Profile((-200, value), (200, value)) for value in (10, 0, 2)]
    # from (10, 0): 3 across and 4 / 0.5 = 8 along y, sqrt(9 + 64) - 2
    assert canvas.tube(*level, flat=0.5)[0, 0, 0] == pytest.approx(73**0.5 - 2, abs=1e-5)


@given(st.floats(-30, 30), st.floats(-30, 30))
def test_joined_shapes_hold_both_and_are_their_union_where_far_apart(a: float, b: float) -> None:
    first, second = np.full((1, 1, 1), a, np.float32), np.full((1, 1, 1), b, np.float32)
    union = float(joined(first, second, 8)[0, 0, 0])
    # the polynomial smooth minimum is at most blend / 4 = 2 below the minimum, and equal to it from 8 mm on
    assert min(a, b) - 2 - 1e-4 <= union <= min(a, b) + 1e-4
    if abs(a - b) >= 8.01:
        assert union == pytest.approx(min(a, b), abs=1e-4)
    assert float(common(first, second)[0, 0, 0]) == pytest.approx(max(a, b), abs=1e-4)


def test_paint_blends_over_one_voxel_and_labels_the_inside() -> None:
    canvas = make_canvas([0, 1, 2, 3, 4], [0], [0], voxel=2.0)
    canvas.image[...] = 100
    canvas.paint(canvas.x - np.float32(1.5), 300.0, 7)
    # distances -1.5 -0.5 0.5 1.5 2.5 over 2 mm: shares 1, 0.75, 0.25, 0, 0 of 300 over 100
    np.testing.assert_allclose(canvas.image[:, 0, 0], [300, 250, 150, 100, 100], atol=1e-4)
    assert canvas.label[:, 0, 0].tolist() == [7, 7, 0, 0, 0]


def test_painting_a_box_paints_the_subject() -> None:
    canvas = make_canvas(list(range(6)), list(range(5)), list(range(7)))
    part, cut = canvas.box((1, 2, 3), (2, 4, 3), x=canvas.x)
    assert part.image.shape == (2, 3, 1)
    assert cut["x"][:, 0, 0].tolist() == [1, 2]
    part.paint(np.full(part.image.shape, -9, np.float32), 50.0, 3)
    assert canvas.image.sum() == 6 * 50
    assert canvas.label[1:3, 2:5, 3].tolist() == [[3] * 3] * 2


def test_a_box_outside_the_volume_is_small_and_harmless() -> None:
    canvas = make_canvas([0, 1], [0, 1], [0, 1])
    canvas.rod([(90, 90, 90), (99, 99, 99)], [5, 5], 500.0, 2)
    assert not canvas.image.any()
    assert not canvas.label.any()

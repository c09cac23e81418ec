"""The drawing tools of the phantom: one subject's body coordinates, smooth fields, shapes and painting.

A body is drawn in *body coordinates*: millimetres along x (to the subject's right), y (to the front) and z
(to the head) of one reference torso, its origin on the midline at the height of the diaphragm. Each subject
maps its voxels into that frame (`Canvas.of_subject`), which undoes pose, size and a smooth deformation.
Shapes are approximate signed distances in mm, negative inside; painting blends a tissue's intensity in over
one voxel, which gives the partial-volume edges of a scan.

Arrays go through additions, multiplications, divisions and square roots only, so that the values depend on
the machine as little as floating point allows.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from functools import reduce
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import PchipInterpolator

__all__ = ["FIELD_OF_VIEW", "Array", "Canvas", "Point", "Profile", "common", "joined", "smooth_field"]

FIELD_OF_VIEW = (320.0, 256.0, 320.0)  # mm, of the nominal volume: the body and a margin of air
TABLE_STEP, TABLE_REACH = 1.0, 260  # profiles over z are tables from -260 to 260 mm
Array = NDArray[np.floating[Any]]  # float32 wherever it has a voxel's shape
Axes = Sequence[NDArray[np.floating[Any]]]
Point = Sequence[float] | NDArray[np.floating[Any]]


class Profile:
    """A quantity that changes smoothly with the height z: monotone cubics through (z, value) knots, in mm."""

    def __init__(self, *knots: tuple[float, float]) -> None:
        heights, values = np.array(knots).T
        grid = np.arange(-TABLE_REACH, TABLE_REACH + 1) * TABLE_STEP
        curve = PchipInterpolator(heights, values)(np.clip(grid, heights[0], heights[-1]))
        self.value = curve.astype(np.float32)
        self.rise = np.diff(self.value, append=self.value[-1])

    def at(self, height: float) -> float:
        """The value at one height in mm."""
        return float(np.interp(height + TABLE_REACH, np.arange(len(self.value)), self.value))


def spline_weights(positions: NDArray[np.floating[Any]], knots: int) -> Array:
    """Weights of cubic B-splines: row n has those of `knots` control values at positions[n] (in knots)."""
    distance = np.abs(positions[:, None] - np.arange(knots)[None])
    near = 2 / 3 - distance**2 + distance**3 / 2
    far = np.clip(2 - distance, 0, None) ** 3 / 6
    return np.where(distance < 1, near, far).astype(np.float32)


def smooth_field(rng: np.random.RandomState, centres: Axes, wavelength: float) -> Array:
    """A smooth random field of mean 0 and standard deviation about 1, on a grid of voxels.

    Normal control values every `wavelength` mm, joined by cubic B-splines. The draw depends on the nominal
    field of view alone, so that finer voxels see the same field.

    Args:
        rng: Random state that draws the control values.
        centres: Voxel centres along each axis in mm from the middle of the volume, three arrays.
        wavelength: Distance of the control values in mm.

    Returns:
        float32, shape (i, j, k).
    """
    counts = [int(extent * 1.1 / wavelength) + 4 for extent in FIELD_OF_VIEW]
    field: Array = rng.standard_normal(counts).astype(np.float32)
    for axis, (centre, count) in enumerate(zip(centres, counts, strict=True)):
        weights = spline_weights(np.clip(centre / wavelength + (count - 1) / 2, 1, count - 2), count)
        field = np.moveaxis(field, axis, -1)
        total = np.zeros((*field.shape[:-1], len(centre)), np.float32)
        for knot in range(count):
            rows = np.flatnonzero(weights[:, knot])
            if len(rows):
                reach = slice(rows[0], rows[-1] + 1)
                total[..., reach] += field[..., knot, None] * weights[reach, knot]
        field = np.moveaxis(total, -1, axis)
    # the variance of a cubic B-spline sum of unit normals, averaged over positions, is 151/315 per axis
    return np.ascontiguousarray(field) * np.float32((315 / 151) ** 1.5)


def common(*distances: Array) -> Array:
    """The intersection of shapes, given as signed distances.

    Examples:
        >>> common(np.array([-2.0, 1.0]), np.array([-1.0, -3.0])).tolist()
        [-1.0, 1.0]
    """
    return reduce(np.maximum, distances)


def joined(first: Array, second: Array, blend: float = 8.0) -> Array:
    """The union of two shapes, rounded off over `blend` mm where they meet (a polynomial smooth minimum)."""
    overlap = np.maximum(blend - np.abs(first - second), 0)
    return np.minimum(first, second) - overlap * overlap * np.float32(0.25 / blend)


@dataclass(frozen=True)
class Canvas:
    """The voxels of a subject, or of a box of one: body coordinates, and the painted image and label.

    Every array has the shape of the box. The arrays of a box are views: painting a box paints the subject.
    """

    x: Array
    y: Array
    z: Array
    row: NDArray[np.int16]  # position of z in the tables of `Profile`: row and remainder
    part: Array
    bumps: Array  # shape (4, i, j, k): smooth fields that make surfaces irregular, about unit variance
    image: Array
    label: NDArray[np.uint8]
    voxel: float  # mm, the mean edge of a voxel

    @classmethod
    def of_subject(
        cls,
        rng: np.random.RandomState,
        size: Sequence[int],
        spacing: Sequence[float],
        stretch: Sequence[float],
    ) -> "Canvas":
        """Empty volume of a subject in its pose.

        Args:
            rng: Random state that draws the pose (rotations of about 2 degrees, shifts of about 4 mm), the
                deformation and the bumps.
            size: Voxels along i, j, k.
            spacing: Spacing in mm along i, j, k.
            stretch: Size of the subject along x, y, z as factors of the reference torso's.
        """
        turns, shift = (
            rng.normal(0, 0.04, 3).clip(-0.08, 0.08),
            rng.normal((0, -8, 0), 4).clip((-9, -17, -9), (9, 1, 9)),
        )
        centres = [(np.arange(n) - (n - 1) / 2) * mm for n, mm in zip(size, spacing, strict=True)]
        (sa, sb, sc), (ca, cb, cc) = np.sin(turns), np.cos(turns)
        rows = (
            (cb * cc, cb * sc, -sb),
            (sa * sb * cc - ca * sc, sa * sb * sc + ca * cc, sa * cb),
            (ca * sb * cc + sa * sc, ca * sb * sc - sa * cc, ca * cb),
        )
        moved = [
            (centre - offset).astype(np.float32).reshape(shape)
            for centre, offset, shape in zip(
                centres, shift, ((-1, 1, 1), (1, -1, 1), (1, 1, -1)), strict=True
            )
        ]
        body = []
        for weights, factor in zip(rows, stretch, strict=True):
            posed = sum(np.float32(w) * axis for w, axis in zip(weights, moved, strict=True))
            body.append(
                posed * np.float32(1 / factor) + smooth_field(rng, centres, 80.0).clip(-2, 2) * np.float32(3)
            )
        x, y, z = body
        bumps = np.stack([smooth_field(rng, centres, wavelength) for wavelength in (45.0, 45.0, 45.0, 20.0)])
        place = np.clip(z + TABLE_REACH, 0, 2 * TABLE_REACH - 1).astype(np.float32)
        row = place.astype(np.int16)
        return cls(
            x, y, z, row, place - row, bumps.clip(-2.5, 2.5),
            np.zeros(tuple(size), np.float32), np.zeros(tuple(size), np.uint8), float(np.mean(spacing)),
        )  # fmt: skip

    def box(self, low: Point, high: Point, **more: Array) -> tuple["Canvas", dict[str, Array]]:
        """The box that holds all voxels from `low` to `high` (body, mm), and the same part of `more`."""
        keep: list[slice] = [slice(None)] * 3
        for axis in range(3):
            others = tuple(a for a in range(3) if a != axis)
            inside = np.ones(self.x.shape[axis], bool)
            for values, bottom, top in zip((self.x, self.y, self.z), low, high, strict=True):
                view = values[tuple(keep)]
                within = (view.min(others) <= top) & (view.max(others) >= bottom)
                inside &= within
            kept = np.flatnonzero(inside)
            keep[axis] = slice(int(kept[0]), int(kept[-1]) + 1) if len(kept) else slice(0, 1)
        cut: dict[str, Any] = {}
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, np.ndarray):
                cut[field.name] = value[..., keep[0], keep[1], keep[2]]
        return replace(self, **cut), {name: value[tuple(keep)] for name, value in more.items()}

    def profile(self, profile: Profile) -> Array:
        """The value of a profile at the height of each voxel."""
        return profile.value[self.row] + profile.rise[self.row] * self.part

    def ellipsoid(self, centre: Point, radii: Point, lean: Point = (0, 0)) -> Array:
        """Distance to an ellipsoid with axes along x, y, z, sheared by `lean` mm in x and y per mm in z."""
        dz = self.z - np.float32(centre[2])
        u = (self.x - np.float32(centre[0]) - np.float32(lean[0]) * dz) / np.float32(radii[0])
        v = (self.y - np.float32(centre[1]) - np.float32(lean[1]) * dz) / np.float32(radii[1])
        w = dz / np.float32(radii[2])
        u2, v2, w2 = u * u, v * v, w * w
        level = np.sqrt(u2 + v2 + w2)
        slope = np.sqrt(
            u2 / np.float32(radii[0] ** 2) + v2 / np.float32(radii[1] ** 2) + w2 / np.float32(radii[2] ** 2)
        )
        return level * (level - 1) / np.maximum(slope, np.float32(1e-3))

    def capsule(self, start: Point, end: Point, radius: float, end_radius: float | None = None) -> Array:
        """Distance to a rod with round ends; its radius changes linearly from one end to the other."""
        px, py, pz = (
            self.x - np.float32(start[0]),
            self.y - np.float32(start[1]),
            self.z - np.float32(start[2]),
        )
        ax, ay, az = (np.float32(b - a) for a, b in zip(start, end, strict=True))
        along = np.clip((px * ax + py * ay + pz * az) / (ax * ax + ay * ay + az * az), 0, 1)
        dx, dy, dz = px - along * ax, py - along * ay, pz - along * az
        grow = np.float32((radius if end_radius is None else end_radius) - radius)
        return np.sqrt(dx * dx + dy * dy + dz * dz) - (np.float32(radius) + grow * along)

    def tube(self, x: Profile, y: Profile, radius: Profile, flat: float = 1.0) -> Array:
        """Distance to a tube from bottom to top along (x(z), y(z)), `flat` times as deep as wide."""
        dx, dy = self.x - self.profile(x), (self.y - self.profile(y)) / np.float32(flat)
        return np.sqrt(dx * dx + dy * dy) - self.profile(radius)

    def paint(self, distance: Array, intensity: float | Array, label: int | None = None) -> None:
        """Blend a tissue in where `distance` is negative, over one voxel at the edge; set any label."""
        amount = np.clip(np.float32(0.5) - distance * np.float32(1 / self.voxel), 0, 1)
        self.image[...] += amount * (intensity - self.image)
        if label is not None:
            self.label[distance < 0] = label

    def rod(
        self, points: Sequence[Point], radius: Sequence[float], intensity: float, label: int | None = None
    ) -> None:
        """Paint a chain of capsules through `points`, with the radius at each point; one box per capsule."""
        for (start, end), (first, last) in zip(pairwise(points), pairwise(radius), strict=True):
            pad = max(first, last) + self.voxel
            low, high = np.minimum(start, end) - pad, np.maximum(start, end) + pad
            part, _ = self.box(list(low), list(high))
            part.paint(part.capsule(start, end, first, last), intensity, label)

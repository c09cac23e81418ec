"""Volumetric shapes: a cross-section in the xy-plane, and a similarity ratio that scales it along z.

Tadokoro R, Yamada R, Kataoka H. Pre-training Auto-generated Volumetric Shapes for 3D Medical Image
Segmentation. CVPRW 2023, section 2. The numbers that the paper leaves open are those of its authors'
successor (PrimGeoSeg: Tadokoro R et al., Primitive Geometry Segment Pre-training for 3D Medical Image
Segmentation, BMVC 2023), for volumes of 96 x 96 x 96 voxels.

A shape is the set of points (x, y, z), relative to its centre, with

    gauge(x, y) <= ratio(z),

where the gauge of a point is its distance from the centre as a fraction of the boundary's distance in that
direction. One gauge field per cross-section and one ratio per slice give the solid, without a loop over
voxels, vertices or slices.

Lengths are in voxels of a 96 x 96 x 96 volume: a volume of another size has shapes that are scaled with it,
axis by axis.

Deviates: the vertex angles of a triangle, one per sector of 120 degrees, are drawn again until no two
neighbours are 180 degrees or more apart, so that the centre is inside. Cross-sections of all classes have a
random rotation, like the ellipse's of 0 to 180 degrees, after which odd polygons do not point everywhere
equally often.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch

from pretext3d.annotations import Float, Tensor
from pretext3d.checking import brief, is_integer, number, ordered_pair
from pretext3d.errors import UserError

__all__ = ["EDGE", "Z_CLASSES", "ShapeSizes", "Shapes", "class_names", "cross_sections", "draw_shapes"]

EDGE = 96  # voxels along an edge of the volume that lengths refer to
ELLIPSE = 0  # number of "vertices" that stands for an ellipse
POLYGONS = {
    3: "triangle", 4: "quadrilateral", 5: "pentagon", 6: "hexagon", 7: "heptagon", 8: "octagon", 9: "nonagon",
}  # fmt: skip
# the paper's rules: constant; constantly decreasing or increasing; decrease, increase; increase, decrease
Z_CLASSES = ("prism", "cone", "hourglass", "spindle")
WIDE, NARROW = (0.8, 1.0), (0.3, 0.5)  # ratios where an hourglass, a spindle is wide or narrow (PrimGeoSeg)


# ------------------------------------------------------------------------------------------- the classes
def cross_sections(xy_classes: Any) -> list[int]:
    """The number of vertices of each class of cross-section, 0 for the ellipse.

    Args:
        xy_classes: Numbers of vertices from 3, and names (ellipse, triangle, ..., nonagon); or a number of
            classes: the ellipse, the triangle, the quadrilateral and so on.

    Raises:
        UserError: for no class, an unknown one, or one that comes twice.

    Examples:
        >>> cross_sections(4), cross_sections(["ellipse", "triangle", 12])
        ([0, 3, 4, 5], [0, 3, 12])
    """
    expected = "a number of classes from 1, or a list of different ones: ellipse, triangle, 4, 5, ..."
    if is_integer(xy_classes):
        if not 1 <= xy_classes <= 2**16:
            raise UserError(f"xy_classes: found {xy_classes}, expected {expected}")
        return [ELLIPSE, *range(3, xy_classes + 2)]
    names = {"ellipse": ELLIPSE, **{name: count for count, name in POLYGONS.items()}}
    given = [] if isinstance(xy_classes, str) or not isinstance(xy_classes, Sequence) else list(xy_classes)
    found = [names.get(entry, -1) if isinstance(entry, str) else entry for entry in given]
    valid = all(is_integer(count) and (count == ELLIPSE or 3 <= count <= 1000) for count in found)
    if not found or not valid or len(set(found)) < len(found):
        raise UserError(f"xy_classes: found {brief(xy_classes)}, expected {expected}")
    return [int(count) for count in found]


def z_rules(z_classes: Any) -> list[str]:
    """The rules along z, of `Z_CLASSES`; a number takes the first ones.

    Raises:
        UserError: for no rule, an unknown one, or one that comes twice.

    Examples:
        >>> z_rules(2), z_rules(["hourglass"])
        (['prism', 'cone'], ['hourglass'])
    """
    expected = f"1 to {len(Z_CLASSES)}, or a list of different ones of {', '.join(Z_CLASSES)}"
    if is_integer(z_classes) and 1 <= z_classes <= len(Z_CLASSES):
        return list(Z_CLASSES[:z_classes])
    sequence = isinstance(z_classes, Sequence) and not isinstance(z_classes, str)
    found = list(z_classes) if sequence else []
    if not found or not all(rule in Z_CLASSES for rule in found) or len(set(found)) < len(found):
        raise UserError(f"z_classes: found {brief(z_classes)}, expected {expected}")
    return found


def class_names(xy_classes: Any, z_classes: Any = (), spatial_dims: int = 3) -> list[str]:
    """Names of the label's classes, background first: class 1 + (cross-section * rules) + rule.

    Args:
        xy_classes: Cross-sections, as in `cross_sections`.
        z_classes: Rules along z, as in `z_rules`.
        spatial_dims: Number of spatial axes; in 2D the cross-sections alone are the classes.

    Examples:
        >>> class_names(["ellipse", 3], 2)
        ['background', 'ellipse prism', 'ellipse cone', 'triangle prism', 'triangle cone']
        >>> class_names(["ellipse", 10], spatial_dims=2)
        ['background', 'ellipse', '10-gon']
    """
    names = {ELLIPSE: "ellipse", **POLYGONS}
    sections = [names.get(count, f"{count}-gon") for count in cross_sections(xy_classes)]
    if spatial_dims == 2:
        return ["background", *sections]
    return ["background", *(f"{section} {rule}" for section in sections for rule in z_rules(z_classes))]


# --------------------------------------------------------------------------------------------- instances
@dataclass(frozen=True)
class ShapeSizes:
    """Ranges that the sizes of shapes are drawn from, in voxels of a volume of 96 x 96 x 96.

    Args:
        box: Shortest and longest edge of the square around a cross-section; uniform.
        min_radius: Shortest distance of a vertex from the centre, and shortest semi-axis of an ellipse: each
            is uniform from here to half the box.
        height: Smallest and largest extent along z; uniform.
        z_margin: Distance of a centre from the lowest and the highest slice, at least.

    Raises:
        UserError: for a range that is not one, or that no volume can hold.
    """

    box: Any = (30, 80)
    min_radius: Any = 15
    height: Any = (10, 50)
    z_margin: Any = 3

    def __post_init__(self) -> None:
        for key, what in (("box", "box larger than the volume"), ("height", "shape higher than the volume")):
            low, high = ordered_pair(f"sizes::{key}", getattr(self, key), low_open=True)
            if high > EDGE:
                raise UserError(
                    f"sizes::{key}: found [{low:g}, {high:g}], a {what}; expected at most {EDGE}, its edge "
                    "in the units of these sizes"
                )
            object.__setattr__(self, key, (low, high))
        half = self.box[0] / 2
        expected = f"a number in (0, {half:g}], half the smallest box"
        number("sizes::min_radius", self.min_radius, 0, half, low_open=True, expected=expected)
        number("sizes::z_margin", self.z_margin, 0, EDGE / 2)


@dataclass(frozen=True)
class Shapes:
    """n shapes, as arrays over them.

    Attributes:
        section: Index of the cross-section's class (n,).
        rule: Index of the rule along z (n,).
        angles: Directions of the vertices (n, p), in radians from 0 to 2 pi, one in each of the equal sectors
            of a shape with this many vertices, in their order; inf fills up.
        radii: Distances of the vertices from the centre (n, p); 0 fills up.
        semi_axes: Semi-axes of the ellipses (n, 2); 0 for polygons.
        rotation: Rotation of the cross-section in the plane, in radians (n,).
        height: Extent along z (n,).
        ratios: Similarity ratio at the lowest, the middle and the highest point (n, 3); linear in between.
    """

    section: np.ndarray
    rule: np.ndarray
    angles: np.ndarray
    radii: np.ndarray
    semi_axes: np.ndarray
    rotation: np.ndarray
    height: np.ndarray
    ratios: np.ndarray

    def __len__(self) -> int:
        return len(self.section)

    @classmethod
    def joined(cls, groups: Sequence["Shapes"]) -> "Shapes":
        """The shapes of several groups with the same classes, in their order."""
        names = [field.name for field in fields(cls)]
        return cls(*(np.concatenate([getattr(group, name) for group in groups]) for name in names))

    def chosen(self, numbers: np.ndarray) -> "Shapes":
        """Some of the shapes, by number."""
        return Shapes(*(getattr(self, field.name)[numbers] for field in fields(self)))

    @property
    def is_ellipse(self) -> np.ndarray:
        """Whether the cross-section is an ellipse (n,)."""
        return self.semi_axes[:, 0] > 0

    @property
    def vertices(self) -> np.ndarray:
        """Vertices before the rotation (n, p, 2); the first one fills up."""
        fill = np.isinf(self.angles)
        angles = np.where(fill, 0.0, self.angles)
        points = np.stack([self.radii * np.cos(angles), self.radii * np.sin(angles)], axis=-1)
        return np.where(fill[..., None], points[:, :1], points)

    @property
    def area(self) -> np.ndarray:
        """Area of the cross-section where the ratio is 1 (n,)."""
        points = self.vertices
        polygon = cross(points, np.roll(points, -1, axis=1)).sum(1) / 2
        return np.where(self.is_ellipse, np.pi * self.semi_axes.prod(1), polygon)

    @property
    def volume(self) -> np.ndarray:
        """Area times the integral of the squared ratio along z (n,)."""
        low, middle, high = self.ratios.T
        thirds = (low**2 + low * middle + 2 * middle**2 + middle * high + high**2) / 3
        return self.area * self.height * thirds / 2

    @property
    def reach(self) -> np.ndarray:
        """Largest distance from the centre along x and y (n, 2)."""
        cos, sin = np.cos(self.rotation), np.sin(self.rotation)
        axes = np.stack([np.stack([cos, sin], 1), np.stack([-sin, cos], 1)], axis=1)  # (n, own axis, x and y)
        polygon = np.abs(np.einsum("npa,nax->npx", self.vertices, axes)).max(1)
        ellipse = np.sqrt(((self.semi_axes[:, :, None] * axes) ** 2).sum(1))
        return np.where(self.is_ellipse[:, None], ellipse, polygon)

    def gauge(self, x: Float[Tensor, "n a"], y: Float[Tensor, "n b"]) -> Float[Tensor, "n a b"]:
        """Distance of points from the centre, as a fraction of the boundary's distance in their direction.

        It is 1 on the boundary, and homogeneous: twice as far from the centre it is twice as large. Between
        two vertices P and Q a point is q = alpha P + beta Q, and its gauge is alpha + beta = e . q with the
        edge's covector e, e . P = e . Q = 1.

        Args:
            x: Coordinates of the points relative to the centre, of each shape, float64.
            y: The other coordinates.
        """
        found = x.new_empty(len(x), x.shape[1], y.shape[1])
        for kind, gauge in (
            (self.is_ellipse, Shapes._round_gauge),
            (~self.is_ellipse, Shapes._angular_gauge),
        ):
            if len(numbers := np.flatnonzero(kind)):
                rows = torch.from_numpy(numbers).to(x.device)
                found.index_copy_(0, rows, gauge(self.chosen(numbers), x[rows], y[rows]))
        return found

    def _round_gauge(self, x: Float[Tensor, "n a"], y: Float[Tensor, "n b"]) -> Float[Tensor, "n a b"]:
        """The gauge of ellipses: the square root of a quadratic form."""
        cos, sin, (first, second) = np.cos(self.rotation), np.sin(self.rotation), self.semi_axes.T
        form = [
            (cos / first) ** 2 + (sin / second) ** 2,
            2 * cos * sin * (first**-2.0 - second**-2.0),
            (sin / first) ** 2 + (cos / second) ** 2,
        ]
        xx, xy, yy = torch.from_numpy(np.stack(form)[..., None]).to(x.device)
        squared = torch.addcmul((xx * x**2)[:, :, None], (xy * x)[:, :, None], y[:, None])
        return squared.add_((yy * y**2)[:, None]).sqrt_()

    def _angular_gauge(self, x: Float[Tensor, "n a"], y: Float[Tensor, "n b"]) -> Float[Tensor, "n a b"]:
        """The gauge of polygons: e . q with the covector e of the edge in the point's direction.

        Each of the equal sectors has one vertex: one comparison finds the edge. It is made in float32, as
        both edges of a vertex give the same gauge in its direction.
        """
        cos, sin = np.cos(self.rotation)[:, None], np.sin(self.rotation)[:, None]
        first, second = self._covectors()
        covectors = np.stack([cos * first - sin * second, sin * first + cos * second])
        count = np.isfinite(self.angles).sum(1, keepdims=True)
        padded = np.pad(self.angles, ((0, 0), (0, 1)), constant_values=np.inf)
        c, s, along_x, along_y = (torch.from_numpy(part).to(x.device) for part in (cos, sin, *covectors))
        angles, per_radian = (
            torch.from_numpy(part).float().to(x.device) for part in (padded, count / (2 * np.pi))
        )
        u = (-c * x).float()[:, :, None] + (-s * y).float()[:, None]
        v = (s * x).float()[:, :, None] + (-c * y).float()[:, None]
        direction = torch.atan2(v, u).add_(np.pi).flatten(1)  # 0 to 2 pi
        sector = (direction * per_radian).long()
        edge = sector + (direction >= angles.gather(1, sector))
        found = along_x.gather(1, edge).view_as(u).mul_(x[:, :, None])
        return found.addcmul_(along_y.gather(1, edge).view_as(u), y[:, None])

    def _covectors(self) -> tuple[np.ndarray, np.ndarray]:
        """Both entries of each edge's covector (n, p + 1): that before the first vertex, then after each."""
        points = self.vertices
        count = np.isfinite(self.angles).sum(1)
        before = points[np.arange(len(points)), np.maximum(count - 1, 0)][:, None]
        start = np.concatenate([before, points], axis=1)
        end = np.concatenate([points, points[:, :1]], axis=1)
        twice_area = cross(start, end)
        twice_area = np.where(np.abs(twice_area) > 0, twice_area, np.inf)  # what fills up has no edge
        return (end - start)[..., 1] / twice_area, -(end - start)[..., 0] / twice_area

    def ratio(self, z: Float[Tensor, "n c"]) -> Float[Tensor, "n c"]:
        """Similarity ratio at points along z relative to the centre; -1, less than any gauge, outside."""
        height, ratios = (
            torch.from_numpy(self.height).to(z.device),
            torch.from_numpy(self.ratios).to(z.device),
        )
        place = 2 * z / height[:, None]  # -1 to 1
        low, middle, high = ratios.T[:, :, None]
        inside = middle + place.abs() * (torch.where(place < 0, low, high) - middle)
        return torch.where(place.abs() <= 1, inside, -torch.ones_like(inside))


def cross(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    """Twice the signed area of the triangle of the origin, p and q."""
    return p[..., 0] * q[..., 1] - p[..., 1] * q[..., 0]


def draw_shapes(
    rng: np.random.Generator, count: int, sections: Sequence[int], rules: Sequence[str], sizes: ShapeSizes
) -> Shapes:
    """Draw shapes: every cross-section and every rule is equally probable.

    Args:
        rng: Source of the random numbers.
        count: Number of shapes.
        sections: Numbers of vertices of the cross-sections' classes, see `cross_sections`.
        rules: Rules along z, see `z_rules`.
        sizes: Ranges of the sizes.
    """
    section, rule = rng.integers(len(sections), size=count), rng.integers(len(rules), size=count)
    vertices = np.asarray(sections)[section]
    half = uniform(rng, sizes.box, count) / 2
    semi_axes = rng.uniform(sizes.min_radius, half[:, None], size=(count, 2))
    most = max(1, *sections)
    radii = rng.uniform(sizes.min_radius, half[:, None], size=(count, most))
    unused = np.arange(most) >= vertices[:, None]
    return Shapes(
        section=section,
        rule=rule,
        angles=draw_angles(rng, vertices, most),
        radii=np.where(unused, 0.0, radii),
        semi_axes=np.where(vertices[:, None] == ELLIPSE, semi_axes, 0.0),
        rotation=rng.uniform(0, np.pi, size=count),
        height=uniform(rng, sizes.height, count),
        ratios=draw_ratios(rng, np.asarray(rules)[rule]),
    )


def uniform(rng: np.random.Generator, pair: tuple[float, float], size: int | tuple[int, ...]) -> np.ndarray:
    """Random numbers from a range."""
    return rng.uniform(pair[0], pair[1], size=size)


def draw_angles(rng: np.random.Generator, vertices: np.ndarray, most: int) -> np.ndarray:
    """One direction in each of the equal sectors (n, most), drawn again while two are 180 degrees apart."""
    angles = np.full((len(vertices), most), np.inf)
    todo = np.flatnonzero(vertices > ELLIPSE)
    number = np.arange(most)
    while len(todo):
        count = vertices[todo, None]
        drawn = 2 * np.pi * (number + rng.random((len(todo), most))) / count
        angles[todo] = np.where(number < count, drawn, np.inf)
        following = np.where(number + 1 < count, np.roll(drawn, -1, axis=1), drawn[:, :1] + 2 * np.pi)
        gaps = np.where(number < count, following - drawn, 0.0)
        todo = todo[gaps.max(1) >= np.pi]
    return angles


def draw_ratios(rng: np.random.Generator, rules: np.ndarray) -> np.ndarray:
    """Ratio at the lowest, the middle and the highest point (n, 3) of shapes with some rules."""
    count = len(rules)
    wide, narrow = (uniform(rng, range_, (count, 3)) for range_ in (WIDE, NARROW))
    ends = np.asarray([True, False, True])
    upwards = rng.random(count) < 0.5
    cone = np.where(upwards[:, None], [0.0, 0.5, 1.0], [1.0, 0.5, 0.0])
    by_rule = {
        "prism": np.ones((count, 3)),
        "cone": cone,
        "hourglass": np.where(ends, wide, narrow),
        "spindle": np.where(ends, narrow, wide),
    }
    return np.select([(rules == rule)[:, None] for rule in by_rule], list(by_rule.values()))

"""Volumes of shapes: image and label as a function of a random generator alone.

Tadokoro et al., CVPRW 2023, section 2: draw shapes, place them, draw the image. See `shapes`, `placement` and
`rendering`, which list what deviates.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from pretext3d.checking import brief, integer, is_integer, named_entries, number, ordered_pair, per_axis
from pretext3d.errors import UserError
from pretext3d.methods.avsdb.placement import Placement, place, solids
from pretext3d.methods.avsdb.rendering import Look, rendering
from pretext3d.methods.avsdb.shapes import (
    EDGE,
    Shapes,
    ShapeSizes,
    class_names,
    cross_sections,
    draw_shapes,
    z_rules,
)  # fmt: skip
from pretext3d.ops.checks import check_spatial_dims

__all__ = ["ShapeVolumes", "Volume"]

SMALLEST = 4  # voxels that the largest box and height have at least: with fewer, no class is recognisable

ALONG_Z = ("height", "z_margin")  # the sizes that images do not have

MOST_SHAPES = 2**14 - 1  # the largest code, twice the number of shapes, fits int16
FEW_OR_MANY = f"an integer from 1 to {MOST_SHAPES}, or two, the smaller first"
MOST_TRIES = 10_000  # per shape, drawn beforehand; a hundred times the paper's
MOST_POSITIONS = 2_000_000  # per volume, 48 MB; a thousand times the paper's


def check_flat(**along_z: Any) -> None:
    """Refuse what has an effect along z alone, and none on images.

    Args:
        along_z: Values by key; None = not given.

    Raises:
        UserError: a value is given; names its key.

    Examples:
        >>> check_flat(z_classes=4)
        Traceback (most recent call last):
        pretext3d.errors.UserError: z_classes: found 4, expected none: images (spatial_dims 2) have no axis z
    """
    for key, value in along_z.items():
        if value is not None:
            raise UserError(
                f"{key}: found {brief(value)}, expected none: images (spatial_dims 2) have no axis z"
            )


class Volume:
    """Everything that was drawn for one volume, before it is placed and rendered.

    Attributes:
        shapes: The shapes.
        positions: Positions to try (shapes, tries, 3), from 0 to 1.
        look: Random numbers of the rendering.
    """

    def __init__(self, shapes: Shapes, positions: np.ndarray, look: Look) -> None:
        self.shapes, self.positions, self.look = shapes, positions, look


class ShapeVolumes:
    """Generator of volumes, in 2D images, with shapes; for `pretext3d.data.generated.GeneratedItems`.

    The call with (rng, key) returns `image` (1, *space), float32 from 0 to 1, `label` (1, *space), uint8: the
    class at each voxel, and `dropped`: how many shapes found no position. It depends on the generator alone.

    Args:
        roi_size: Voxels of a volume along each axis.
        spatial_dims: Number of spatial axes. An image has the cross-sections alone.
        xy_classes: Classes of cross-sections: their number, or a list, see `cross_sections`.
        z_classes: Rules along z, 1 to 4 or a list of prism, cone, hourglass, spindle; None = 2, of images no
            other value.
        num_shapes: Shapes per volume: a number, or a range that it is drawn from.
        max_overlap: Part of a shape's volume, below which it may be where others are; None: nowhere.
        tries: Positions that are tried before a shape is dropped.
        sizes: Values of `ShapeSizes` by name that differ from its defaults.
        render: `outline`, `filled` or `textured`.
        changes: Values of `Rendering` by name that differ from this one's.

    Attributes:
        class_names: Names of the label's classes, background first.

    Raises:
        UserError: for invalid arguments: no class, more than the label's type can hold, max_overlap outside
            (0, 1], boxes larger than the volume, a volume too small for every shape; of images, for what has
            an effect along z alone: z_classes, the sizes height and z_margin.

    Examples:
        >>> generate = ShapeVolumes((24, 32, 16), xy_classes=["ellipse", "triangle"], z_classes=1)
        >>> sample = generate(np.random.default_rng(0), 0)
        >>> sample["image"].shape, sample["label"].unique().tolist(), generate.class_names
        (torch.Size([1, 24, 32, 16]), [0, 1, 2], ['background', 'ellipse prism', 'triangle prism'])
    """

    def __init__(
        self,
        roi_size: Sequence[int],
        spatial_dims: int = 3,
        xy_classes: Any = 8,
        z_classes: Any = None,
        num_shapes: Any = 20,
        max_overlap: Any = 0.7,
        tries: Any = 100,
        sizes: Any = None,
        render: str = "outline",
        changes: Any = None,
    ) -> None:
        check_spatial_dims(spatial_dims)
        self.spatial_dims = spatial_dims
        self.size = per_axis("roi_size", roi_size, spatial_dims)
        self.grid = (*self.size, 1)[:3]  # of an image: one slice
        sizes = named_entries("sizes", sizes, "{box: [30, 60]}")
        self.sections = cross_sections(xy_classes)
        if spatial_dims == 2:
            check_flat(z_classes=z_classes, **{f"sizes::{key}": sizes.get(key) for key in ALONG_Z})
        z_classes = 2 if z_classes is None else z_classes
        self.rules = z_rules(z_classes) if spatial_dims == 3 else ["prism"]
        self.class_names = class_names(xy_classes, z_classes, spatial_dims)
        most = torch.iinfo(torch.uint8).max
        if len(self.class_names) - 1 > most:
            raise UserError(
                f"xy_classes: found {len(self.sections)} cross-sections with {len(self.rules)} rules along "
                f"z, {len(self.class_names) - 1} classes; expected at most {most}, which the label's type, "
                "uint8, can hold"
            )
        low, high = (
            (num_shapes, num_shapes)
            if is_integer(num_shapes)
            else ordered_pair("num_shapes", num_shapes, expected=FEW_OR_MANY)
        )
        if not (low == int(low) and high == int(high) and 1 <= low <= high <= MOST_SHAPES):
            raise UserError(f"num_shapes: found {num_shapes!r}, expected {FEW_OR_MANY}")
        self.num_shapes = (int(low), int(high))
        expected = "a number in (0, 1], or null for no overlap"
        self.max_overlap = (
            None
            if max_overlap is None
            else number("max_overlap", max_overlap, 0, 1, low_open=True, expected=expected)
        )
        self.tries = integer("tries", tries, minimum=1)
        most = min(MOST_TRIES, MOST_POSITIONS // self.num_shapes[1])
        if self.tries > most:
            raise UserError(
                f"tries: found {brief(tries)}, expected at most {most} with {self.num_shapes[1]} shapes"
            )
        known = set(ShapeSizes.__dataclass_fields__)
        if unknown := sorted(set(sizes) - known):
            raise UserError(f"sizes: found {unknown[0]!r}, expected any of {', '.join(sorted(known))}")
        self.sizes = ShapeSizes(**{key: size for key, size in sizes.items() if size is not None})
        self.rendering = rendering(render, changes)
        self._check_size()

    def _check_size(self) -> None:
        """Refuse a volume whose largest shapes have too few voxels to be recognised."""
        largest = (self.sizes.box[1], self.sizes.box[1], self.sizes.height[1])[: self.spatial_dims]
        found = [edge * part / EDGE for edge, part in zip(self.size, largest, strict=True)]
        if min(found) < SMALLEST:
            least = [int(np.ceil(SMALLEST * EDGE / part)) for part in largest]
            raise UserError(
                f"roi_size: found {list(self.size)}, in which no shape fits: the largest have "
                f"{' x '.join(f'{edge:.1f}' for edge in found)} voxels; expected {least} or more"
            )

    def __call__(self, rng: np.random.Generator, key: int = 0) -> dict[str, Any]:
        """The item of a random generator."""
        return self.render([self.draw(rng)])[0]

    def draw(self, rng: np.random.Generator) -> Volume:
        """The random numbers of a volume."""
        count = int(rng.integers(self.num_shapes[0], self.num_shapes[1] + 1))
        shapes = draw_shapes(rng, count, self.sections, self.rules, self.sizes)
        positions = rng.random((count, self.tries, 3))
        return Volume(shapes, positions, Look(rng, self.rendering, count, self.size))

    def render(self, volumes: Sequence[Volume], device: torch.device | str = "cpu") -> list[dict[str, Any]]:
        """The items of some volumes, on a device.

        The shapes of all volumes are computed together. Labels are the same on every device, but for voxels
        nearer to a boundary than float64 resolves (1e-12 of a shape's size; 1e-6 in the direction of a
        vertex), and for a shape whose overlap such a voxel brings to the limit, which then has another
        position; images to float32 rounding. Not tried on a GPU yet.
        """
        placements = self.placements(volumes, device)
        found = []
        for volume, placement in zip(volumes, placements, strict=True):
            label = placement.look_up(self.classes(volume.shapes))
            found.append(
                {
                    "image": volume.look.draw(placement)[None],
                    "label": (label if self.spatial_dims == 3 else label[..., 0])[None],
                    "dropped": len(volume.shapes) - len(placement.placed),
                }
            )
        return found

    def placements(self, volumes: Sequence[Volume], device: torch.device | str = "cpu") -> list[Placement]:
        """Where the shapes of some volumes are."""
        every = solids(Shapes.joined([volume.shapes for volume in volumes]), self.grid, device)
        found, start = [], 0
        for volume in volumes:
            stop = start + len(volume.shapes)
            margin = self.sizes.z_margin * self.grid[2] / EDGE
            found.append(
                place(
                    every[start:stop],
                    volume.shapes.volume if self.spatial_dims == 3 else volume.shapes.area,
                    volume.positions,
                    self.grid,
                    self.max_overlap,
                    margin,
                )
            )
            start = stop
        return found

    def classes(self, shapes: Shapes) -> np.ndarray:
        """Class of the background, and of the outline and the interior of each shape."""
        classes = 1 + shapes.section * len(self.rules) + shapes.rule
        return np.concatenate([[0], np.repeat(classes, 2)]).astype(np.uint8)

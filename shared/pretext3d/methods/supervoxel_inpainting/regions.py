"""Regions of a volume to hide, from supervoxels and foreground or as cuboids, and the tile around one.

Kayal S, Chen S, de Bruijne M. Region-of-Interest Guided Supervoxel Inpainting for Self-supervision. MICCAI
2020, section 2.1 with Eq. 1, and section 3.3.

Deviates: the paper's tiles are centred in-plane and overlap along z; here a tile is moved in-plane as little
as needed, and drawn along z, so that it contains the complete region, or as much of it as possible. In 2D
(ours) supervoxels are superpixels, cuboids are rectangles, and a tile is moved in-plane as in 3D: d is 2 or 3
below.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from monai.data import MetaTensor
from monai.transforms import MapTransform, Randomizable, Transform

from pretext3d.annotations import Bool, Int, Tensor
from pretext3d.checking import boolean, integer, is_integer, number, one_of
from pretext3d.errors import UserError
from pretext3d.ops.tensors import plain_tensor
from pretext3d.transforms.crops import crop_resize

__all__ = ["KINDS", "RandHideRegiond", "Regionsd"]

KINDS = ("supervoxels", "cuboids")
FORMAT = 1  # version of the output of `Regionsd`: raised with each change, so that caches are rebuilt
THROUGH = 2  # the axis through the plane, along which a tile's position is random


def region_map(
    supervoxels: Int[Tensor, "1 *space"], roi: Bool[Tensor, "1 *space"] | None, min_voxels: int
) -> tuple[Int[Tensor, "1 *space"], Int[Tensor, "m 2 d"], int]:
    """R = f(I) * S, Eq. 1, with the regions of at least `min_voxels` numbered 1..m, and 0 elsewhere.

    Args:
        supervoxels: Labels f(I), from 1; 0 belongs to none.
        roi: Foreground S, True inside; None = everywhere.
        min_voxels: Smallest number of voxels of a region.

    Returns:
        The map; the first and the last voxel plus one of each region along every axis; the number of voxels
        of the largest region, kept or not.

    Examples:
        >>> regions, boxes, largest = region_map(torch.tensor([[[1, 1, 2], [1, 3, 3]]]), None, 2)
        >>> regions.tolist(), boxes.tolist(), largest
        ([[[1, 1, 0], [1, 2, 2]]], [[[0, 0], [2, 2]], [[1, 1], [2, 3]]], 3)
    """
    labels = (supervoxels if roi is None else supervoxels * roi).long()
    sizes = torch.bincount(labels.flatten(), minlength=1)
    sizes[0] = 0
    kept = sizes >= max(1, min_voxels)
    count = int(kept.sum())
    dtype = torch.int16 if count < 2**15 else torch.int32
    regions = (kept.cumsum(0) * kept)[labels]
    dims = labels.ndim - 1
    boxes = torch.zeros(count, 2, dims, dtype=torch.int32, device=labels.device)
    for axis, length in enumerate(labels.shape[1:]):
        place = torch.arange(length, device=labels.device)
        place = place.reshape([-1 if a == axis else 1 for a in range(dims)])
        filled = torch.bincount((regions * length + place).flatten(), minlength=(count + 1) * length)
        filled = (filled.reshape(count + 1, length)[1:] > 0).int()
        boxes[:, 0, axis] = filled.argmax(1)  # the first filled position
        boxes[:, 1, axis] = length - filled.flip(1).argmax(1)
    return regions.to(dtype), boxes, int(sizes.max())


class Regionsd(Transform):
    """Deterministic: adds the regions of a volume that can be hidden.

    From supervoxels: `regions` (1, *space), 1..m and 0 elsewhere, and `region_boxes` (m, 2, d), their bounds.
    For cuboids around the foreground: `foreground` (n,), the flat indices of its voxels. Always: `spacing`
    (d,), mm, and `unusable`, '' or the reason why the volume has no region.

    Args:
        regions: Kind of the regions, supervoxels or cuboids.
        roi: Whether to use only voxels with a label above 0.
        min_region_voxels: Smallest number of voxels of a region of supervoxels (the paper: 1500).
        min_region_size: Smallest physical size of a region of supervoxels, the same at every resolution: mm3
            in a volume, mm2 in an image (a photograph without a spacing has pixels of 1 mm); 0 = any.
        cuboid_sides: Shortest and longest edge of a cuboid, voxels (the paper: 12 or more).

    Raises:
        UserError: for a value out of range; when called, for a case without a label where `roi` is set.
    """

    def __init__(
        self,
        regions: str = "supervoxels",
        roi: Any = True,
        min_region_voxels: int = 1500,
        min_region_size: float = 0,
        cuboid_sides: Sequence[int] = (12, 32),
        image_key: str = "image",
        label_key: str = "label",
        supervoxel_key: str = "supervoxels",
    ) -> None:
        one_of("regions", regions, KINDS)
        integer("min_region_voxels", min_region_voxels, minimum=1, expected="an integer from 1")
        number(
            "min_region_size",
            min_region_size,
            low=0,
            expected="mm3 of a volume, or mm2 of an image, or 0 for any",
        )
        self.version = FORMAT
        self.regions, self.roi = regions, boolean("roi", roi)
        self.min_region_voxels, self.min_region_size = min_region_voxels, float(min_region_size)
        self.sides = _two_sides(cuboid_sides)
        self.image_key, self.label_key, self.supervoxel_key = image_key, label_key, supervoxel_key

    def __call__(self, data: dict[str, Any]) -> dict[str, Any]:
        """The case with its regions."""
        d = dict(data)
        image = d[self.image_key]
        affine = image.affine if isinstance(image, MetaTensor) else torch.eye(4)
        d["spacing"] = affine[:-1, : image.ndim - 1].double().norm(dim=0).float()
        roi = None
        if self.roi:
            if d.get(self.label_key) is None:
                raise UserError(
                    f"case {d.get('id')}: has no {self.label_key}, expected one to find its regions"
                )
            roi = torch.as_tensor(d[self.label_key]) > 0.5
        d["unusable"] = "" if roi is None or bool(roi.any()) else "no foreground"
        if self.regions == "supervoxels":
            self._supervoxels(d, roi)
        else:
            if min(image.shape[1:]) < self.sides[0]:
                d["unusable"] = f"{list(image.shape[1:])} voxels hold no cuboid with sides of {self.sides[0]}"
            if roi is not None:
                d["foreground"] = torch.nonzero(roi.flatten())[:, 0].int()
        return d

    def _supervoxels(self, d: dict[str, Any], roi: Bool[Tensor, "1 *space"] | None) -> None:
        voxel = float(d["spacing"].double().prod())
        size_in_voxels = math.ceil(self.min_region_size / voxel - 1e-6)
        least = max(self.min_region_voxels, size_in_voxels)
        supervoxels = torch.as_tensor(d[self.supervoxel_key]).as_subclass(torch.Tensor)
        d["regions"], d["region_boxes"], largest = region_map(supervoxels, roi, least)
        if not d["unusable"] and not len(d["region_boxes"]):
            key = f"min_region_voxels: {self.min_region_voxels}"
            if least > self.min_region_voxels:
                key = (
                    f"min_region_size: {self.min_region_size:g}, at {voxel:.3g} mm{len(d['spacing'])} "
                    "per voxel"
                )
            d["unusable"] = f"no region of {least} voxels or more ({key}), the largest has {largest}"


def window_starts(counts: Int[Tensor, "n"], size: int) -> Int[Tensor, "s"]:
    """Starts of the windows of `size` positions that contain most of `counts`, ascending.

    Where `size` exceeds n there is one: that with the n positions in its middle.

    Examples:
        >>> window_starts(torch.tensor([0, 2, 0, 0, 2]), 2).tolist()
        [0, 1, 3]
    """
    n = len(counts)
    if n <= size:
        return torch.tensor([-((size - n) // 2)])
    total = F.pad(counts.cumsum(0), (1, 0))
    inside = total[size:] - total[: n + 1 - size]
    return torch.nonzero(inside == inside.max())[:, 0].cpu()


class RandHideRegiond(MapTransform, Randomizable):
    """Draws one region and a tile around it, and hides the region: zero in all channels.

    Sets `image` (c, *roi_size), the tile without the region; `clean`, the tile; `mask` (1, *roi_size), True
    where hidden; `inside` (1, *roi_size), True where the volume is; `crop_start` and `crop_size`, float
    tensors (d,), the tile in voxels of the volume.

    Region of supervoxels: all m occur in a random order, then all in another one, and so on: draw d of a case
    is number d mod m of order floor(d / m). Drawn at random where the sample has no `draw`. Cuboid: each edge
    uniform between `cuboid_sides`, and no longer than the volume and the tile; its position uniform, or, with
    `foreground`, uniform over the positions that contain a voxel of it, itself drawn uniformly. Tile: along i
    and j the most central, along k a random one, of those that contain the complete region, or most of it.
    Smaller volumes are placed in its middle, with zeros around.

    Args:
        keys: Key of the volume, one key.
        roi_size: Size of the tile in voxels, as many numbers as the volume has axes.
        regions: Kind of the regions, as in `Regionsd`, whose output is needed.
        cuboid_sides: Shortest and longest edge of a cuboid, voxels.
        seed: Seed of the order of regions.

    Raises:
        UserError: for a value out of range; when called, for a volume that is `unusable`.
    """

    def __init__(
        self,
        keys: Sequence[str] | str,
        roi_size: Sequence[int],
        regions: str = "supervoxels",
        cuboid_sides: Sequence[int] = (12, 32),
        seed: int = 0,
    ) -> None:
        MapTransform.__init__(self, keys)
        if len(roi_size) not in (2, 3) or min(roi_size) < 1:
            raise UserError(
                f"roi_size: found {list(roi_size)}, expected three sizes in voxels of 1 or more, or two in 2D"
            )
        one_of("regions", regions, KINDS)
        self.roi_size = tuple(int(n) for n in roi_size)
        self.regions, self.sides, self.seed = regions, _two_sides(cuboid_sides), int(seed)
        if regions == "cuboids" and self.sides[0] > min(self.roi_size):
            raise UserError(
                f"cuboid_sides: found {list(self.sides)}, expected a shortest edge of at most "
                f"{min(self.roi_size)} voxels, for they must fit into roi_size {list(self.roi_size)}"
            )
        self.low = [0] * len(self.roi_size)
        self.hidden: Tensor = torch.zeros(self.low, dtype=torch.bool)
        self.start = [0] * len(self.roi_size)

    def randomize(self, data: Mapping[str, Any]) -> None:
        """Draw `low` and `hidden`, the region in its bounds, and `start`, the tile's lower corner."""
        if data.get("unusable"):
            raise UserError(f"case {data.get('id')}: {data['unusable']}")
        shape = list(data[self.keys[0]].shape[1:])
        if len(shape) != len(self.roi_size):
            raise UserError(
                f"roi_size: found {list(self.roi_size)}, expected as many sizes as the image has: {shape}"
            )
        if self.regions == "supervoxels":
            count = len(data["region_boxes"])
            order, place = divmod(data["draw"], count) if "draw" in data else (0, self.R.randint(count))
            region = int(np.random.default_rng([self.seed, count, order]).permutation(count)[place])
            self.low, high = data["region_boxes"][region].tolist()
            box = tuple(slice(a, b) for a, b in zip(self.low, high, strict=True))
            self.hidden = plain_tensor(data["regions"])[0][box] == region + 1
        else:
            longest = [min(self.sides[1], n, size) for n, size in zip(shape, self.roi_size, strict=True)]
            sides = [int(self.R.randint(self.sides[0], n + 1)) for n in longest]
            first, last = [0] * len(shape), [n - side for n, side in zip(shape, sides, strict=True)]
            if "foreground" in data:
                voxel = int(data["foreground"][self.R.randint(len(data["foreground"]))])
                inside = [int(v) for v in np.unravel_index(voxel, shape)]
                first = [max(0, v - side + 1) for v, side in zip(inside, sides, strict=True)]
                last = [min(v, end) for v, end in zip(inside, last, strict=True)]
            self.low = [int(self.R.randint(a, b + 1)) for a, b in zip(first, last, strict=True)]
            self.hidden = torch.ones(sides, dtype=torch.bool, device=data[self.keys[0]].device)
        held = self.hidden  # the part of it in the tile, as far as the tile is chosen
        for axis, (n, size) in enumerate(zip(shape, self.roi_size, strict=True)):
            low, length = int(self.low[axis]), held.shape[axis]
            counts = torch.zeros(n, dtype=torch.long)
            counts[low : low + length] = held.sum([a for a in range(held.ndim) if a != axis]).cpu()
            starts = window_starts(counts, size)
            central = int((starts - (n - size) // 2).abs().argmin())
            start = int(starts[self.R.randint(len(starts)) if axis == THROUGH else central])
            begin, end = max(0, start - low), min(length, start + size - low)
            held = held.narrow(axis, begin, end - begin)
            self.start[axis] = start

    def __call__(self, data: dict[str, Any]) -> dict[str, Any]:
        """The tile, complete and without the region, and where the region is."""
        d = dict(data)
        self.randomize(d)
        volume = plain_tensor(d[self.keys[0]])
        d["clean"] = crop_resize(volume, self.start, self.roi_size, self.roi_size)
        low = [place - start for place, start in zip(self.low, self.start, strict=True)]
        region = crop_resize(self.hidden[None], [-n for n in low], self.roi_size, self.roi_size)
        d["mask"] = region > 0
        inside = volume.new_ones(()).expand(1, *volume.shape[1:])
        d["inside"] = crop_resize(inside, self.start, self.roi_size, self.roi_size) > 0
        d[self.keys[0]] = d["clean"].masked_fill(d["mask"], 0.0)
        d["crop_start"] = torch.tensor(self.start, dtype=torch.float32)
        d["crop_size"] = torch.tensor(self.roi_size, dtype=torch.float32)
        return d


def _two_sides(sides: Any) -> tuple[int, int]:
    """The shortest and the longest edge of a cuboid."""
    two = list(sides) if isinstance(sides, Sequence) else [sides]
    if len(two) != 2 or not all(map(is_integer, two)) or not 1 <= two[0] <= two[1]:
        raise UserError(
            f"cuboid_sides: found {sides!r}, expected the shortest and the longest edge in voxels, as [12,32]"
        )
    return two[0], two[1]

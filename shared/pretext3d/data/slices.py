"""Slices of volumes as 2D cases: which ones are taken, and how one is read, with its place in the volume.

A slice has an index along an axis of its volume in RAS order: axis 0 is x (sagittal slices), 1 is y
(coronal), 2 is z (axial). Once read, it is (c, i, j), with i and j along the two other world axes, ascending.
A single slice (a file with one voxel along an axis) is read in the same way. The affine holds only what a
plane needs: the spacing of i, j and the normal on the diagonal, and the position of the first voxel along
these three. So transforms that read the first two rows and columns work for every axis, and for oblique
volumes.
"""

import logging
import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import nibabel as nib
import numpy as np
import torch
from monai.data import MetaTensor
from numpy.typing import NDArray

from pretext3d.checking import is_integer
from pretext3d.data import reader
from pretext3d.data.dataset import file_stamp
from pretext3d.data.images import is_picture
from pretext3d.data.reader import PICTURE_AFFINE, Frames
from pretext3d.data.volumes import VerdictCache, VolumeFacts
from pretext3d.errors import UserError
from pretext3d.ops.checks import check_spatial_dims

__all__ = [
    "VolumeAssembler", "check_slices", "load_plane", "plane_axis", "slice_cases", "to_stored",
]  # fmt: skip

logger = logging.getLogger(__name__)

Case = dict[str, Any]

KEPT_FILES, KEPT_BYTES = 4, 2**29  # volumes kept in memory: this many, and more up to this many bytes


class Slices(NamedTuple):
    """Which slices of a volume are taken: index 0, `every`, 2 `every` ... along `axis` in RAS order."""

    axis: int
    every: int


def check_slices(slices: Any, spatial_dims: int) -> Slices | None:
    """The slices to take; None where volumes are not sliced.

    Args:
        slices: Mapping {axis: 0, 1 or 2, by default 2; every: 1 or more, by default 1}, or None.
        spatial_dims: Number of spatial axes, 2 or 3.

    Raises:
        UserError: For `spatial_dims` other than 2 and 3, slices in 3D, an axis other than 0, 1 and 2, or
            `every` below 1.

    Examples:
        >>> check_slices({"axis": 2}, spatial_dims=2)
        Slices(axis=2, every=1)
    """
    check_spatial_dims(spatial_dims)
    if slices is None:
        return None
    if spatial_dims == 3:
        raise UserError(
            f"slices: found {slices!r} with spatial_dims 3, expected null; slices are for 2D only"
        )
    known = isinstance(slices, Mapping) and set(slices) <= {"axis", "every"}
    axis, every = (slices.get("axis", 2), slices.get("every", 1)) if known else (None, None)
    if not is_integer(axis) or not is_integer(every) or axis not in (0, 1, 2) or every < 1:
        raise UserError(f"slices: found {slices!r}, expected {{axis: 0, 1 or 2 (x, y, z), every: 1 or more}}")
    return Slices(axis, every)


def plane_axis(facts: VolumeFacts, axis: int) -> int:
    """The world axis across the plane: the thin axis of a single slice or picture, `axis` for a volume."""
    thin = [world for world, length in enumerate(facts.along_world()[0]) if length == 1]
    return thin[0] if thin else axis


def slice_cases(
    cases: Sequence[Case],
    slices: Slices | None,
    channels: Sequence[int] | None = None,
    cache_dir: str = "",
    keep_labelled: bool = False,
    frames: Frames = None,
) -> list[Case]:
    """Good 2D cases, each volume replaced by its slices; constant (air-only) slices are left out.

    A slice's case is its volume's with `slice` (index), `slice_axis`, `slice_every`, `volume` (the volume's
    id), `slice_count` (the number of slices taken from it), `subject` (the volume's, else its name), and the
    slice's number in `id` and `name`: volume/slice012. Pictures, single slices and entries that already name
    a slice do not change. One log line reports the number of slices.

    Args:
        cases: Cases that have passed the checks.
        slices: Slices to take; None returns the cases unchanged.
        channels: Channels that are used; a slice is constant if all these channels are. None: all.
        cache_dir: Folder of the verdicts (see `check_cases`).
        keep_labelled: Whether to keep a constant slice whose label is not constant, with `constant`: True. A
            volume's score then counts what its label has there.
        frames: Use of a fourth axis of images, see `reader.select_frames`.

    Raises:
        UserError: If no slice is left.
    """
    if slices is None:
        return list(cases)
    cache = VerdictCache(str(Path(cache_dir) / "checks") if cache_dir else "", spatial_dims=2, frames=frames)
    found: list[Case] = []
    volumes = left_out = taken = 0
    for case in cases:
        files = [case["image"]] if isinstance(case["image"], str) else case["image"]
        facts = [cache.facts(path, "image") for path in files]
        if not facts[0].flat or "slice" in case:
            found.append(case)
            continue
        flat = [channel for one in facts for channel in one.flat[slices.axis]]
        air = set.intersection(*(set(flat[c]) for c in (channels or range(len(flat)))))
        wanted = range(0, facts[0].along_world()[0][slices.axis], slices.every)
        blank = air
        if keep_labelled and air:
            blank = air & set(cache.facts(case["label"], "label").flat[slices.axis][0])
        kept = [index for index in wanted if index not in blank]
        volumes, left_out, taken = volumes + 1, left_out + len(wanted) - len(kept), taken + len(kept)
        common = {**case, "subject": case.get("subject", case["name"]), "volume": case["id"]}
        common |= {"slice_axis": slices.axis, "slice_every": slices.every, "slice_count": len(kept)}
        for index in kept:
            names = {key: f"{case[key]}/slice{index:03d}" for key in ("id", "name")}
            found.append({**common, **names, "slice": index, **({"constant": True} if index in air else {})})
    if volumes:
        logger.info(
            "slices along axis %d: %d of %d volumes; %d constant ones (air) left out",
            slices.axis, taken, volumes, left_out,
        )  # fmt: skip
    if cases and not found:
        raise UserError(
            f"slices: found axis {slices.axis}, every {slices.every}, which gives only constant slices of "
            f"{volumes} volumes; expected some that are not constant"
        )
    return found


class Volume(NamedTuple):
    """A volume in memory.

    Attributes:
        array: Voxels (x, y, z, c), axes in RAS order, float32.
        affine: Affine (4, 4) of that array, mm.
        stored_affine: Affine (4, 4) of the array as stored in the file.
        stored_shape: Shape of the array as stored in the file, two or three sizes.
    """

    array: NDArray[Any]
    affine: NDArray[Any]
    stored_affine: NDArray[Any]
    stored_shape: tuple[int, ...]


def read_ras(path: str, frames: Frames = None) -> Volume:
    """A volume or single slice, with its axes in RAS order."""
    found = reader.read_volume(path, frames, spatial_dims=2)
    axes = nib.io_orientation(found.affine)
    ordered = nib.apply_orientation(found.array, axes)
    shape = found.array.shape[:3]
    ras = found.affine @ nib.orientations.inv_ornt_aff(axes, shape)
    return Volume(ordered, ras, found.affine, shape[: found.header.stored_dims])


def to_stored(array: NDArray[Any], affine: NDArray[Any], shape: Sequence[int]) -> NDArray[Any]:
    """An array (x, y, z) in RAS order with the axes of its file: oriented as `affine`, of the given shape."""
    to_ras = nib.io_orientation(affine)
    back = nib.orientations.ornt_transform(nib.orientations.axcodes2ornt("RAS"), to_ras)
    stored: NDArray[Any] = nib.apply_orientation(array, back)
    return stored.reshape(tuple(shape))


class VolumeAssembler:
    """Volumes put together from planes of class indices that arrive in any order, in one process.

    A volume is in memory from its first plane to its last, the `slice_count`-th.

    Args:
        dtype: Type of the voxels.

    Attributes:
        unfinished: Volumes that lack planes, by name: the voxels, and the indices that have arrived.
    """

    def __init__(self, dtype: type = np.uint8) -> None:
        self.dtype = dtype
        self.unfinished: dict[str, tuple[NDArray[Any], set[int]]] = {}

    def add(self, name: str, case: Mapping[Any, Any], plane: MetaTensor) -> NDArray[Any] | None:
        """The volume once it is complete, else None.

        Args:
            name: Name of the volume.
            case: Case of the slice: `slice` (index), `slice_axis` and `slice_count`; a single slice needs
                none of them.
            plane: Class indices (1, i, j) with the meta data that `load_plane` gives.

        Returns:
            Class indices (x, y, z), axes in RAS order, on the volume's grid; 0 in slices that were not taken.
        """
        affine = torch.as_tensor(plane.meta["volume_affine"]).cpu().numpy()
        shape = [int(n) for n in plane.meta["volume_shape"]]
        stored, ras = [*shape, *(1,) * (3 - len(shape))], [0, 0, 0]
        for voxel_axis, world_axis in enumerate(nib.io_orientation(affine)[:, 0].astype(int)):
            ras[world_axis] = stored[voxel_axis]
        one = 1 in ras
        axis, index = (ras.index(1), 0) if one else (int(case.get("slice_axis", 2)), int(case["slice"]))
        volume, found = self.unfinished.setdefault(name, (np.zeros(ras, self.dtype), set()))
        volume[(slice(None),) * axis + (index,)] = plane.detach().cpu().as_tensor()[0].numpy()
        found.add(index)
        if not one and len(found) < int(case.get("slice_count", 1)):
            return None
        del self.unfinished[name]
        return volume


class RecentVolumes:
    """Recently read volumes, so that a volume is read once, not once per slice; thread-safe.

    Args:
        files: Number of files that are always kept.
        limit: Total size of the volumes in bytes; where they exceed it, only `files` are kept.
    """

    def __init__(self, files: int = KEPT_FILES, limit: int = KEPT_BYTES) -> None:
        self.files, self.limit = files, limit
        self.lock = threading.Lock()
        self.locks: dict[str, threading.Lock] = {}  # one per file: threads wait for the one that reads it
        self.volumes: OrderedDict[str, tuple[Any, Volume]] = OrderedDict()

    def __call__(self, path: str, frames: Frames = None) -> Volume:
        """The volume in the file (or folder of DICOM slices) `path`."""
        version = [file_stamp(path), frames]
        with self.lock:
            waiting = self.locks.setdefault(path, threading.Lock())
        with waiting:
            with self.lock:
                if path in self.volumes and self.volumes[path][0] == version:
                    self.volumes.move_to_end(path)
                    return self.volumes[path][1]
            volume = read_ras(path, frames)
            with self.lock:
                self.volumes[path] = (version, volume)
                self.volumes.move_to_end(path)
                self._shrink()
        return volume

    def _shrink(self) -> None:
        total = sum(volume.array.nbytes for _, volume in self.volumes.values())
        while len(self.volumes) > self.files and total > self.limit:
            total -= self.volumes.popitem(last=False)[1][1].array.nbytes
        needed = {path for path, lock in self.locks.items() if path in self.volumes or lock.locked()}
        self.locks = {path: self.locks[path] for path in needed}


recent_volumes = RecentVolumes()


def load_plane(
    paths: str | Sequence[str],
    index: int | None = None,
    axis: int = 2,
    is_label: bool = False,
    frames: Frames = None,
) -> tuple[MetaTensor, int]:
    """A picture, a single slice, or one slice of a volume, and the world axis across it.

    Args:
        paths: Path of a file, or one path per channel.
        index: Index of the slice of a volume, in RAS order; None for pictures and single slices.
        axis: Axis of the volume that `index` counts along.
        is_label: Read pictures as class numbers.
        frames: Use of a fourth axis, see `reader.select_frames`.

    Returns:
        (c, i, j), float32. Its meta data have the plane's affine (4, 4), `filename_or_obj`, and for slices
        `volume_affine` (4, 4) and `volume_shape`, those of the array as stored in the file.

    Raises:
        UserError: For a volume without an index, or an index out of range.
    """
    files = [paths] if isinstance(paths, str) else list(paths)
    meta: dict[str, Any] = {"filename_or_obj": files[0], "space": "RAS"}
    if is_picture(files[0]):
        pictures = [reader.read_volume(path, None, is_label).array[:, :, 0] for path in files]
        stack = np.ascontiguousarray(np.moveaxis(np.concatenate(pictures, axis=-1), -1, 0))
        return MetaTensor(torch.from_numpy(stack), affine=torch.from_numpy(PICTURE_AFFINE), meta=meta), 2
    volumes = [recent_volumes(path, frames) for path in files]
    first = volumes[0]
    thin = [world for world, length in enumerate(first.array.shape[:3]) if length == 1]
    if thin:
        axis, index = thin[0], 0
    length = first.array.shape[axis]
    if index is None or not 0 <= index < length:
        shape = "x".join(map(str, first.array.shape[:3]))
        raise UserError(
            f"{files[0]}: found a volume of {shape} voxels and slice {index} along axis {axis}; expected a "
            f"single slice, or an index from 0 to {length - 1}, which --slices \"{{'axis': {axis}, "
            "'every': 1}\" sets"
        )
    planes = [np.moveaxis(volume.array.take(index, axis), -1, 0) for volume in volumes]
    stack = np.ascontiguousarray(np.concatenate(planes), dtype=np.float32)
    order = [*(world for world in range(3) if world != axis), axis]
    corner = first.affine @ np.append(np.where(np.arange(3) == axis, index, 0), 1.0)
    plane = np.diag([*np.linalg.norm(first.affine[:3, :3], axis=0)[order], 1.0])
    plane[:3, 3] = corner[order]
    meta["volume_affine"] = torch.from_numpy(first.stored_affine)
    meta["volume_shape"] = torch.tensor(first.stored_shape)
    return MetaTensor(torch.from_numpy(stack), affine=torch.from_numpy(plane), meta=meta), axis

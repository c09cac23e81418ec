"""Supervoxels of each volume, computed once and kept on disk.

Kayal S, Chen S, de Bruijne M. Region-of-Interest Guided Supervoxel Inpainting for Self-supervision. MICCAI
2020, section 3.3: SLIC with compactness 0.15 and at most 400 segments. `slic` documents the computation and
its differences from scikit-image's, which the backend `skimage` calls.
"""

import hashlib
import json
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import skimage.segmentation
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform
from monai.utils import convert_to_tensor

from pretext3d.annotations import Tensor
from pretext3d.checking import WORDS, one_of
from pretext3d.data.dataset import default_cache_dir
from pretext3d.data.disk_cache import kept_array
from pretext3d.errors import UserError
from pretext3d.ops.checks import check_volume_shape
from pretext3d.ops.slic import check_settings, check_volume, slic
from pretext3d.transforms.outputs import like, output_names

__all__ = ["Supervoxelsd"]

FORMAT = 1  # version of the kept labels: to be increased when the result of either backend changes
BACKENDS = ("torch", "skimage")
SPACINGS = ("mm", "voxels")


class Supervoxelsd(MapTransform):
    """Deterministic: adds the supervoxels of volumes (c, i, j, k), all channels together.

    In 2D: the superpixels of images (c, i, j). Labels are int32 (1, i, j, k), in 2D (1, i, j), 1..n, each one
    connected region; 0 outside the mask. For a MetaTensor they keep the affine and the device. The volume is
    unchanged. A constant volume is cut into a regular grid; one with fewer voxels than `n_segments` into
    single voxels.

    With `spacing` "mm" the spacing along the axes comes from the affine, divided by its geometric mean, so
    that `compactness` has the same meaning at every resolution: that of `slic` with voxels of 1 mm. With
    "voxels" distances are counted in voxels, as by scikit-image without a spacing (the paper); those of a
    plain tensor always are.

    Labels are kept in `cache_dir`, identified by the content of volume and mask, the spacing and the
    settings, and shared by all processes: each volume is cut once.

    Args:
        keys: Keys of floating-point volumes whose channels have similar ranges, as they share one scale.
        output_key: Key of the labels, one name per key.
        n_segments: Approximate number of supervoxels.
        compactness: Weight of space, above 0; higher values give more cubic supervoxels, see `slic`.
        backend: Implementation: `torch` (`slic`, on the volume's device) or `skimage` (about 5 times slower,
            on the CPU).
        mask_key: Key of a mask with the volume's spatial shape and one channel, above 0 where supervoxels are
            computed; None: everywhere.
        cache_dir: Folder whose sub-folder `supervoxels` keeps the labels; '' = `default_cache_dir()`.
        allow_missing_keys: Skip keys that a sample lacks.
        spacing: Unit of distances: `mm` or `voxels`.

    Raises:
        UserError: For an argument outside its range; when called, for a volume of another shape, or that
            has NaN or infinite values (within the mask), an empty mask or one of another shape, or a
            `cache_dir` that cannot be written.
    """

    def __init__(
        self,
        keys: KeysCollection = "image",
        output_key: str | Sequence[str] = "supervoxels",
        n_segments: int = 400,
        compactness: float = 0.15,
        backend: str = "torch",
        mask_key: str | None = None,
        cache_dir: str = "",
        allow_missing_keys: bool = False,
        spacing: str = "mm",
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.output_keys = output_names(self.keys, output_key)
        check_settings(n_segments, compactness)
        one_of("slic_backend", backend, BACKENDS)
        one_of("slic_spacing", spacing, SPACINGS)
        # the cache of volumes identifies a transform by its attributes: a change of these recomputes volumes
        self.version = [FORMAT, metadata.version("scikit-image") if backend == "skimage" else ""]
        self.n_segments, self.compactness = int(n_segments), float(compactness)
        self.backend, self.mask_key, self.cache_dir = backend, mask_key, str(cache_dir)
        self.spacing = spacing

    def __call__(self, data: dict[str, Any]) -> dict[str, Any]:
        """The sample with the supervoxels of its volumes."""
        d = dict(data)
        for key, output_key in self.key_iterator(d, self.output_keys):
            volume = convert_to_tensor(d[key], track_meta=False).detach()
            check_volume_shape(str(key), volume)
            mask = self._mask(d, volume.ndim)
            check_volume(volume, mask, key, str(self.mask_key))
            volume = volume.float() if volume.dtype == torch.bfloat16 else volume  # which NumPy lacks
            dims = volume.ndim - 1
            spacing = _relative_spacing(d[key], dims) if self.spacing == "mm" else (1.0,) * dims
            path = self._path(volume, mask, spacing)
            array = kept_array(path, lambda: self._compute(volume, mask, spacing))  # noqa: B023  called at once
            labels = torch.from_numpy(array.astype(np.int32))[None].to(volume.device)
            d[output_key] = like(labels, d[key])
        return d

    def _mask(self, d: dict[str, Any], ndim: int) -> Tensor | None:
        if self.mask_key is None:
            return None
        if self.mask_key not in d:
            raise UserError(f"mask_key: the sample has no {self.mask_key!r}, found {', '.join(map(str, d))}")
        mask = convert_to_tensor(d[self.mask_key], track_meta=False) > 0
        if mask.ndim != ndim or len(mask) != 1:
            expected = ", ".join(["1", "i", "j", "k"][:ndim])
            raise UserError(f"{self.mask_key}: found shape {list(mask.shape)}, expected ({expected})")
        return mask[0]

    def _path(self, volume: Tensor, mask: Tensor | None, spacing: Sequence[float]) -> Path:
        """The file of the labels: a hash of everything that they depend on."""
        settings = [*self.version, self.backend, self.n_segments, self.compactness, list(spacing)]
        content = hashlib.sha256()
        for array in [volume.cpu().numpy()] + ([] if mask is None else [mask.cpu().numpy()]):
            settings.append([str(array.dtype), list(array.shape)])
            content.update(np.ascontiguousarray(array).data)
        content.update(json.dumps(settings).encode())
        folder = Path(self.cache_dir or default_cache_dir()) / "supervoxels"
        return folder / f"{content.hexdigest()[:32]}.npz"

    def _compute(self, volume: Tensor, mask: Tensor | None, spacing: Sequence[float]) -> Any:
        if self.backend == "torch":
            labels = slic(volume, self.n_segments, self.compactness, spacing, mask)
            return labels.cpu().numpy()
        return plain_slic(volume, self.n_segments, self.compactness, spacing, mask)


def plain_slic(
    volume: Tensor, n_segments: int, compactness: float, spacing: Sequence[float], mask: Tensor | None
) -> Any:
    """The labels of scikit-image's SLIC, 1..n without gaps, 0 outside the mask."""
    labels = skimage.segmentation.slic(
        volume.float().cpu().numpy(),
        n_segments=n_segments,
        compactness=compactness,
        sigma=0,
        spacing=spacing,
        convert2lab=False,
        start_label=1,
        mask=None if mask is None else mask.cpu().numpy(),
        channel_axis=0,
    )
    return skimage.segmentation.relabel_sequential(labels)[0]


def _relative_spacing(image: Any, dims: int) -> tuple[float, ...]:
    """Voxel lengths divided by their geometric mean, to six digits; all 1 without an affine."""
    if not isinstance(image, MetaTensor):
        return (1.0,) * dims
    lengths = image.affine[:-1, :dims].to(torch.float64).norm(dim=0)
    if not (lengths > 0).all():
        raise UserError(f"affine: found spacing {lengths.tolist()}, expected {WORDS[dims]} lengths above 0")
    return tuple(round(length, 6) for length in (lengths / lengths.log().mean().exp()).tolist())

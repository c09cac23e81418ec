"""Deterministic transforms that MONAI lacks: loading and preparing cases, and saving results."""

import logging
import warnings
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import nibabel as nib
import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import LoadImaged, MapTransform, Orientation, Orientationd, SaveImaged, Spacingd
from monai.transforms.utils_pytorch_numpy_unification import percentile

from pretext3d.data.checks import as_channels
from pretext3d.data.labels import LabelMap
from pretext3d.data.nifti import image_like
from pretext3d.data.normalisation import check_normalisation
from pretext3d.data.reader import check_frames, load_volume
from pretext3d.data.slices import VolumeAssembler, load_plane, to_stored
from pretext3d.data.volumes import strip_extension
from pretext3d.errors import UserError
from pretext3d.files import draft_folder
from pretext3d.ops.checks import check_spatial_dims

__all__ = [
    "LoadCased",
    "NameByCased",
    "OnImageGridd",
    "PlainOrientationd",
    "PlainSpacingd",
    "SaveCased",
    "ScaleToUnitd",
    "SelectChannelsd",
]

logger = logging.getLogger(__name__)

LABELS = ("label", "landmark_mask")  # keys whose pictures hold class numbers


class LoadCased(LoadImaged):
    """Read the files of a case, channels first, float32, by `reader.read_volume`.

    A `LoadImaged`, because MONAI Label finds the transform that loads by this type; none of MONAI's readers
    is used. In 3D a file is a volume (c, i, j, k). In 2D it is a picture, a single slice, or a volume of
    which the case names a slice (`slice`, `slice_axis`): see `slices.load_plane`. In 2D the case also gets
    `oriented`: True for slices, whose axes are the patient's, False for pictures; for a single slice
    `slice_axis`, the world axis across it; and a `landmark` (x, y, z) is reordered to the plane's axes,
    followed by the normal.

    Args:
        keys: Keys of files, or of lists of one file per channel.
        spatial_dims: Number of spatial axes, 3 or 2.
        allow_missing_keys: Skip keys that a case lacks.
        frames: Use of a fourth axis of images, see `reader.select_frames`; a case's own `frames` precedes it.

    Raises:
        UserError: For a file that cannot be used, or files of one case with different shapes.
    """

    def __init__(
        self,
        keys: Sequence[str] | str,
        spatial_dims: int = 3,
        allow_missing_keys: bool = False,
        frames: str | int | Sequence[int] | None = None,
    ) -> None:
        MapTransform.__init__(self, keys, allow_missing_keys)
        self._loader = SimpleNamespace(
            image_only=True
        )  # MONAI Label sets it, and then expects image_meta_dict
        check_spatial_dims(spatial_dims)
        self.spatial_dims, self.frames = spatial_dims, check_frames(frames)

    def __call__(self, data: Mapping[Hashable, Any], reader: Any = None) -> dict[Hashable, Any]:
        """The case with its images in place of the file names."""
        d = dict(data)
        for number, key in enumerate(self.key_iterator(d)):
            frames = None if key in LABELS else check_frames(d.get("frames", self.frames))
            if self.spatial_dims == 3:
                d[key] = load_volume(d[key], frames)
            else:
                single = "slice" not in d
                plane = d.get("slice"), d.get("slice_axis", 2)
                d[key], axis = load_plane(d[key], *plane, is_label=key in LABELS, frames=frames)
                if number == 0:
                    d["oriented"] = "volume_affine" in d[key].meta
                    if d["oriented"] and single:
                        d["slice_axis"] = axis
                    if "landmark" in d:
                        d["landmark"] = [
                            *(x for w, x in enumerate(d["landmark"]) if w != axis),
                            d["landmark"][axis],
                        ]
            if not self._loader.image_only:
                d[f"{key}_meta_dict"] = dict(d[key].meta)
        return d


class SelectChannelsd(MapTransform):
    """Keep some channels of a channel-first volume, in the given order.

    Args:
        keys: Keys of volumes (c, ...).
        channels: Index or indices, from 0; None keeps all.
    """

    def __init__(self, keys: Sequence[str] | str, channels: int | Sequence[int] | None = None) -> None:
        super().__init__(keys)
        self.channels = as_channels(channels)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """The case with only the chosen channels."""
        d = dict(data)
        if self.channels is not None:
            for key in self.key_iterator(d):
                if max(self.channels) >= d[key].shape[0]:
                    raise UserError(
                        f"channels: found {self.channels}, but case {d.get('id', '?')} has "
                        f"{d[key].shape[0]} channels"
                    )
                # a volume that already has exactly these channels is left unchanged
                if self.channels != list(range(d[key].shape[0])):
                    d[key] = d[key][self.channels]
        return d


class OnImageGridd(MapTransform):
    """Give labels the affine of their image, whose shape they have.

    The check of volumes lets spacings differ by the rounding error of file converters. If image and label
    were resampled with different affines, their shapes could differ by one voxel.

    Args:
        keys: Keys of labels (c, i, j, k).
        image_key: Key of the image.
        allow_missing_keys: Skip keys that a case lacks.

    Raises:
        UserError: If the shape of a label differs from its image's.
    """

    def __init__(
        self, keys: Sequence[str] | str, image_key: str = "image", allow_missing_keys: bool = False
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.image_key = image_key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """The case with its labels on the image's grid."""
        d = dict(data)
        image = d[self.image_key]
        for key in self.key_iterator(d):
            if d[key].shape[1:] != image.shape[1:]:
                found, expected = list(d[key].shape[1:]), list(image.shape[1:])
                raise UserError(f"{key}: found shape {found}, expected the image's, {expected}")
            meta = {name: value for name, value in d[key].meta.items() if name != "affine"}
            d[key] = MetaTensor(d[key].as_tensor(), affine=image.affine.clone(), meta=meta)
        return d


class ScaleToUnitd(MapTransform):
    """Scale each channel linearly to [0, 1], or [-1, 1], and clip it to that range.

    Args:
        keys: Keys of volumes (c, ...).
        normalisation: Values that become 0 and 1: {"percentiles": [0.5, 99.5]} of the channel's voxels, or
            {"window": [-175, 250]} in the file's units (CT). Or {"mean_maximum": [-1, 1]}: the channel's
            mean becomes 0, and the largest distance from it 1 (Rubik's cube recovery). A channel whose two
            percentiles are equal (almost empty) is scaled from its minimum to its maximum; a constant one
            becomes 0.

    Raises:
        UserError: For any other description, or limits that do not ascend.
    """

    def __init__(self, keys: Sequence[str] | str, normalisation: Mapping[str, Sequence[int | float]]) -> None:
        super().__init__(keys)
        self.kind, *self.limits = check_normalisation(normalisation)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """The dictionary with its volumes scaled, float32."""
        d = dict(data)
        for key in self.key_iterator(d):
            volume = d[key].to(torch.float32)
            limits = [self._limits(channel) for channel in volume]
            shape = (-1, *(1,) * (volume.ndim - 1))
            low = volume.new_tensor([pair[0] for pair in limits]).reshape(shape)
            span = volume.new_tensor([pair[1] - pair[0] for pair in limits]).reshape(shape)
            unit = ((volume - low) / torch.where(span > 0, span, 1.0)).clamp(0.0, 1.0)
            d[key] = torch.where(span > 0, 2 * unit - 1, 0.0) if self.kind == "mean_maximum" else unit
        return d

    def _limits(self, channel: torch.Tensor) -> tuple[float, float]:
        if self.kind == "window":
            return self.limits[0], self.limits[1]
        if self.kind == "mean_maximum":
            lowest, highest = float(channel.min()), float(channel.max())
            mean = min(max(float(channel.mean()), lowest), highest)  # exact for a constant channel
            reach = max(highest - mean, mean - lowest)
            return mean - reach, mean + reach
        low, high = (float(value) for value in percentile(channel, self.limits))
        return (low, high) if low < high else (float(channel.min()), float(channel.max()))


class PlainSpacingd(Spacingd):
    """MONAI's `Spacingd` restricted to its own keys; the arguments and the inverse are the same.

    MONAI's treats every other key that begins with `image_` as meta data and updates it. MONAI Label keeps
    the file's name under `image_path`, a string, and MONAI 1.6 then raises an AttributeError.
    """

    def __call__(self, data: Mapping[Hashable, Any], lazy: bool | None = None) -> dict[Hashable, Any]:
        """The dictionary with its volumes resampled."""
        own = {key: data[key] for key in self.key_iterator(dict(data))}
        return {**data, **super().__call__(own, lazy)}


class PlainOrientationd(Orientationd):
    """MONAI's `Orientationd` for volumes and planes: a plane uses the first two of the axis codes.

    MONAI's also does this, but with a warning, in its inverse for any argument: a 4 x 4 affine names three
    axes.

    Args:
        keys: Keys of volumes (c, i, j, k) or planes (c, i, j).
        axcodes: Directions of the result's axes.
        allow_missing_keys: Skip keys that a case lacks.
    """

    def __init__(
        self, keys: Sequence[str] | str, axcodes: str = "RAS", allow_missing_keys: bool = False
    ) -> None:
        super().__init__(keys, axcodes=axcodes, labels=None, allow_missing_keys=allow_missing_keys)
        self.by_dims = {2: Orientation(axcodes=axcodes[:2], labels=None), 3: self.ornt_transform}

    def __call__(self, data: Mapping[Hashable, Any], lazy: bool | None = None) -> dict[Hashable, Any]:
        """The dictionary with its volumes and planes reoriented."""
        d = dict(data)
        for key in self.key_iterator(d):
            d[key] = self.by_dims[d[key].ndim - 1](d[key], lazy=lazy)
        return d

    def inverse(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """The dictionary with its volumes and planes in their original orientation."""
        d = dict(data)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="axcodes .* length is smaller")
            for key in self.key_iterator(d):
                d[key] = self.by_dims[d[key].ndim - 1].inverse(d[key])
        return d


class NameByCased(MapTransform):
    """Make `SaveImaged` name a case's results by its `result_name`, which is unique; file names may not be.

    A case without one (of MONAI Label, which saves results itself) stays unchanged.

    Args:
        keys: Keys of the tensors to be saved, with meta data.
        name_key: Key of the case's name for results (see `prepare.inference_cases`).
    """

    def __init__(self, keys: Sequence[str] | str, name_key: str = "result_name") -> None:
        super().__init__(keys)
        self.name_key = name_key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """The dictionary with the names changed."""
        d = dict(data)
        for key in self.key_iterator(d) if self.name_key in d else ():
            d[key].meta["filename_or_obj"] = f"{d[self.name_key]}.nii.gz"
        return d


class SaveCased(SaveImaged):
    """Save label values on the grid of the file that they were predicted from: one or two bytes per voxel.

    In 3D this is a NIfTI file under the case's `result_name`, with the forms, their codes and the units of
    the file where that is a NIfTI file. A `SaveImaged`, because MONAI Label leaves out what is one. In 2D:

    - a picture gives a PNG of the size that a viewer shows: the EXIF orientation of the picture is applied,
      and the PNG has none, so both look alike;
    - a single slice gives a NIfTI file with the axes, shape and affine of its file;
    - slices of a volume are assembled into one NIfTI file on the volume's grid, once all `slice_count`
      slices have arrived; slices without a prediction are 0. They may arrive in any order, in one process.

    Args:
        keys: Keys of predictions (1, i, j, k) or (1, i, j), inverted to the grid that `LoadCased` gave.
        output_dir: Folder of the files.
        output_postfix: Suffix of the file names: case_seg.nii.gz.
        spatial_dims: Number of spatial axes, 3 or 2.
        name_key: Key of the case's name for results.
        labels: Label map, in plain form; None = values up to 255.
    """

    def __init__(
        self,
        keys: Sequence[str] | str,
        output_dir: str,
        output_postfix: str = "seg",
        spatial_dims: int = 3,
        name_key: str = "result_name",
        labels: Mapping[str, Any] | None = None,
    ) -> None:
        self.dtype = np.uint16 if labels is not None and LabelMap.of(labels).largest > 255 else np.uint8
        super().__init__(
            keys,
            output_dir=output_dir,
            output_postfix=output_postfix,
            output_dtype=self.dtype,
            resample=False,
            separate_folder=False,
        )
        self.output_dir, self.output_postfix = Path(output_dir), output_postfix
        self.spatial_dims, self.name_key = spatial_dims, name_key
        self.volumes = VolumeAssembler(self.dtype)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """The case, unchanged; its predictions are on disk, or wait for the rest of their volume."""
        d = dict(data)
        for key in self.key_iterator(d):
            file = str(d[key].meta.get("filename_or_obj", "pred"))
            name = str(d.get(self.name_key) or strip_extension(Path(file).name))
            if self.spatial_dims == 3:
                array = d[key].detach().cpu().as_tensor()[0].numpy().astype(self.dtype)
                self._write(f"{name}_{self.output_postfix}.nii.gz", array, d[key].affine.cpu().numpy(), file)
            else:
                self._save_plane(d, d[key], file, name)
        return d

    def _save_plane(self, case: Mapping[Hashable, Any], pred: MetaTensor, file: str, name: str) -> None:
        if "volume_affine" not in pred.meta:
            plane = pred.detach().cpu().as_tensor()[0].numpy().astype(self.dtype)
            self._write(f"{name}_{self.output_postfix}.png", np.ascontiguousarray(plane.T))
            return
        volume = self.volumes.add(name, case, pred)
        if volume is not None:
            affine = torch.as_tensor(pred.meta["volume_affine"]).cpu().numpy()
            shape = [int(n) for n in pred.meta["volume_shape"]]
            self._write(
                f"{name}_{self.output_postfix}.nii.gz", to_stored(volume, affine, shape), affine, file
            )

    def _write(
        self, name: str, array: np.ndarray, affine: np.ndarray | None = None, source: str = ""
    ) -> None:
        """Write a PNG (rows, columns), or with an affine a NIfTI file, under another name first."""
        target = self.output_dir / name
        with draft_folder(target) as folder:  # both writers go by the suffix: the draft keeps its name
            if affine is None:
                from PIL import Image

                Image.fromarray(array).save(folder / name)
            else:
                nib.save(image_like(array, affine, source), folder / name)
            (folder / name).replace(target)
        logger.info("writing: %s", target)

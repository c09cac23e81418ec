"""The preparation of images that a record describes, and whether a labelled task has the same.

Weights see the same tissue in other values, or the same organ in another number of voxels, where intensities
or spacing are not those of their training.
"""

import logging
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import CastToTyped, Transform

from pretext3d.data.loading import (
    LoadCased,
    PlainOrientationd,
    PlainSpacingd,
    ScaleToUnitd,
    SelectChannelsd,
)
from pretext3d.data.spacing import choose_pixdim
from pretext3d.errors import UserError
from pretext3d.transforms.crops import ResizeBodyd

__all__ = ["RecordedPreprocessing", "check_spacing", "check_window", "differing_axes"]

logger = logging.getLogger(__name__)

RESIZE = "resize"
NORMALISATION = {"percentiles": [0.5, 99.5]}  # of a training on generated images, whose record has none

MAX_RATIO = 1.3  # of two spacings along an axis that count as alike
AXES = "xyz"


def check_window(file: Path, there: Mapping[str, Any], here: Mapping[str, Any] | None) -> None:
    """Warn where two normalisations differ in their window of intensities, or only one has a window.

    Weights that were not trained on scans have none, and nothing is compared.
    """
    if not there:
        return
    windows = [
        list(np.ravel(one["window"])) if isinstance(one, Mapping) and "window" in one else None
        for one in (there, here or there)
    ]
    if windows[0] != windows[1]:
        logger.warning(
            "%s: trained with normalisation %s, here it is %s: the same tissue looks different; "
            "give the same by --normalisation",
            file, there, here,
        )  # fmt: skip


def differing_axes(there: Sequence[float], here: Sequence[float]) -> str:
    """The axes along which two spacings differ by more than a factor of 1.3; '' where one is not known.

    Args:
        there: Spacing, mm along each axis; empty = as the files have it.
        here: Another one.

    Examples:
        >>> differing_axes([1.0, 1.0, 3.0], [1.3, 0.5, 1.0]), differing_axes([1.0, 1.0, 3.0], [])
        ('yz', '')
    """
    if len(there) != len(here):
        return ""
    pairs = zip(AXES, there, here, strict=False)
    return "".join(axis for axis, a, b in pairs if max(a, b) > MAX_RATIO * min(a, b) * (1 + 1e-6))


def check_spacing(file: Path, there: Sequence[float], here: Sequence[float]) -> None:
    """Warn where the spacing of a labelled task and that of its weights differ, see `differing_axes`.

    Args:
        file: Path of the checkpoint, for the message.
        there: Spacing in its record, mm along each axis; empty = none.
        here: Spacing of the task.
    """
    axes = differing_axes(there, here)
    if axes:
        logger.warning(
            "%s: trained at a spacing of %s mm, here it is %s mm, more than %g times different along %s: "
            "the same structure has another size in voxels; --pixdim pretrained takes that of the weights",
            file, in_mm(there), in_mm(here), MAX_RATIO, ", ".join(axes),
        )  # fmt: skip


def in_mm(spacing: Sequence[float]) -> str:
    """A spacing as text.

    Examples:
        >>> in_mm([1.0, 1.0, 2.5])
        '1x1x2.5'
    """
    return "x".join(f"{value:g}" for value in spacing)


class RecordedPreprocessing(Transform):
    """Prepare an image as the training of a checkpoint did: channels, RAS order, spacing, intensities.

    It takes a path (or one path per channel), or a dictionary with `image`: a path, or an image in memory,
    (c, i, j, k) or in 2D (c, i, j). The result is a dictionary with `image`, a float32 `MetaTensor` with the
    affine of the new voxels; other entries pass through. A `MetaTensor` is oriented and resampled by its
    affine. Any other array states no geometry: its axes count as RAS and its voxels as of `pixdim`. In 2D a
    slice of a volume is {"image": path, "slice": index, "slice_axis": 2}.

    Args:
        record: Record of a checkpoint.
        pixdim: Spacing in mm, one number or one per axis; None = that of the record, and without one there
            that of the file; resize = every image is resized to the input of the network.

    Attributes:
        spatial_dims: Number of spatial axes, 3 or 2.
        in_channels: Number of channels of the result.
        pixdim: Spacing in mm; [] = as the file has it.
        load: Transform that reads files.
        steps: Transforms after it, in order.

    Raises:
        UserError: an invalid spacing; when called, an image that cannot be read, of another number of
            channels or axes, or with voxels that are not finite.

    Examples:
        >>> backbone = {"encoder": "unet", "in_channels": 1, "spatial_dims": 2, "roi_size": [16, 16]}
        >>> prepare = RecordedPreprocessing({"backbone": backbone, "pixdim": [2.0, 2.0]}, pixdim=1.0)
        >>> prepare({"image": torch.rand(1, 8, 12)})["image"].shape
        torch.Size([1, 8, 12])
    """

    def __init__(self, record: Mapping[str, Any], pixdim: Any = None) -> None:
        backbone = record["backbone"]
        self.spatial_dims, self.in_channels = backbone["spatial_dims"], backbone["in_channels"]
        resized = isinstance(pixdim, str) and pixdim == RESIZE
        given = (record.get("pixdim") or []) if pixdim is None else [] if resized else pixdim
        if isinstance(given, str | Mapping):
            raise UserError(
                f"pixdim: found {given!r}, expected mm, one number or one per axis, or {RESIZE!r}"
            )
        self.pixdim = choose_pixdim(given, [], [], spatial_dims=self.spatial_dims)
        self.load = LoadCased("image", self.spatial_dims, frames=record.get("frames"))
        steps: list[Any] = [
            SelectChannelsd("image", record.get("channel_indices")),
            PlainOrientationd("image", axcodes="RAS"),
            ScaleToUnitd("image", record.get("normalisation") or NORMALISATION),
            CastToTyped("image", dtype=torch.float32),
        ]
        if self.pixdim:
            steps.insert(2, PlainSpacingd("image", pixdim=self.pixdim, mode="bilinear"))
        if resized:
            steps.append(ResizeBodyd("image", backbone["roi_size"], None, self.spatial_dims))
        self.steps = tuple(steps)

    def __call__(
        self, image: str | Path | Sequence[str | Path] | Mapping[Hashable, Any]
    ) -> dict[Hashable, Any]:
        """The dictionary with the image prepared."""
        d: dict[Hashable, Any] = dict(image) if isinstance(image, Mapping) else {"image": image}
        if "image" not in d:
            raise UserError(f"image: found the keys {', '.join(map(str, d)) or 'none'}, expected image")
        value, name = d["image"], "image"
        if isinstance(value, np.ndarray | torch.Tensor):
            d["image"] = self._in_memory(value)
        else:
            files = [str(value)] if isinstance(value, str | Path) else [str(file) for file in value]
            name = files[0] if files else name
            d = self.load({**d, "image": files if len(files) > 1 else name})
        found: MetaTensor = d["image"]
        if found.ndim != self.spatial_dims + 1:
            expected = "channels and " + ("i, j" if self.spatial_dims == 2 else "i, j, k")
            raise UserError(f"{name}: found shape {list(found.shape)}, expected {expected}")
        wrong = int((~torch.isfinite(found)).sum())
        if wrong:
            raise UserError(f"{name}: found {wrong:,} values that are NaN or infinite, expected none")
        added: dict[Hashable, Any] = {} if "id" in d else {"id": name}  # the name of the image in messages
        result: dict[Hashable, Any] = {**d, **added}
        for step in self.steps:  # a Compose would wrap their errors
            result = step(result)
        count = result["image"].shape[0]
        if count != self.in_channels:
            raise UserError(
                f"{name}: found {count} channel{'s' * (count != 1)}, expected {self.in_channels}, those that "
                "the network was trained on"
            )
        return {key: one for key, one in result.items() if key not in added}

    def _in_memory(self, image: np.ndarray | torch.Tensor) -> MetaTensor:
        """An image with its affine; one without geometry gets that of the training."""
        if isinstance(image, MetaTensor):
            return image
        spacing = [*self.pixdim, 1.0, 1.0, 1.0][:3] if self.pixdim else [1.0] * 3
        return MetaTensor(torch.as_tensor(image).float(), affine=torch.diag(torch.tensor([*spacing, 1.0])))

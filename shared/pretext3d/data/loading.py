"""Deterministic first steps that MONAI has no transform for."""

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import torch
from monai.data import MetaTensor
from monai.transforms import MapTransform, Spacingd
from monai.transforms.utils_pytorch_numpy_unification import percentile

from pretext3d.data.checks import as_channels
from pretext3d.errors import UserError

__all__ = ["NameByCased", "OnImageGridd", "PlainSpacingd", "ScaleToUnitd", "SelectChannelsd"]


class SelectChannelsd(MapTransform):
    """Keep some channels of a channel-first volume, in the given order.

    Args:
        keys: volumes (c, ...).
        channels: one index or several, from 0; None keeps all.
    """

    def __init__(self, keys: Sequence[str] | str, channels: int | Sequence[int] | None = None) -> None:
        super().__init__(keys)
        self.channels = as_channels(channels)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """The case with the chosen channels alone."""
        d = dict(data)
        if self.channels is not None:
            for key in self.key_iterator(d):
                if max(self.channels) >= d[key].shape[0]:
                    raise UserError(
                        f"channels: found {self.channels}, but case {d.get('id', '?')} has "
                        f"{d[key].shape[0]} channels"
                    )
                # a volume that has just these channels already is left as it is
                if self.channels != list(range(d[key].shape[0])):
                    d[key] = d[key][self.channels]
        return d


class OnImageGridd(MapTransform):
    """Give labels the affine of their image, whose shape they have.

    The check of volumes lets spacings differ by the rounding that converters bring. Resampled each by its own
    affine, image and label could then end up with one voxel more or less.

    Args:
        keys: labels (c, i, j, k).
        image_key: the image.
        allow_missing_keys: pass over keys that a case lacks.

    Raises:
        UserError: a label has another shape than its image.
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
    """Scale each channel linearly to [0, 1], or [-1, 1], and clip it there.

    Args:
        keys: volumes (c, ...).
        normalisation: what becomes 0 and 1: {"percentiles": [0.5, 99.5]} of the channel's voxels, or
            {"window": [-175, 250]} in the file's own units (CT). Or {"mean_maximum": [-1, 1]}: the channel's
            mean becomes 0, and the largest distance from it 1 (Rubik's cube recovery). A channel whose two
            percentiles are equal (almost empty) is scaled from its minimum to its maximum; a constant one
            becomes 0.

    Raises:
        UserError: for any other description, or limits that do not ascend.
    """

    def __init__(self, keys: Sequence[str] | str, normalisation: Mapping[str, Sequence[int | float]]) -> None:
        super().__init__(keys)
        expected = "expected {percentiles: [0.5, 99.5]}, {window: [low, high]} or {mean_maximum: [-1, 1]}"
        if len(normalisation) != 1 or not set(normalisation) <= {"percentiles", "window", "mean_maximum"}:
            raise UserError(f"normalisation: found {dict(normalisation)}, {expected}")
        self.kind, limits = next(iter(normalisation.items()))
        top = 100 if self.kind == "percentiles" else float("inf")
        if (
            len(limits) != 2
            or not limits[0] < limits[1] <= top
            or (self.kind == "percentiles" and limits[0] < 0)
            or (self.kind == "mean_maximum" and list(limits) != [-1, 1])
        ):
            raise UserError(f"normalisation: found {dict(normalisation)}, {expected}, ascending")
        self.limits = [float(limits[0]), float(limits[1])]

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
            mean = min(max(float(channel.mean()), lowest), highest)  # of equal values exactly theirs
            reach = max(highest - mean, mean - lowest)
            return mean - reach, mean + reach
        low, high = (float(value) for value in percentile(channel, self.limits))
        return (low, high) if low < high else (float(channel.min()), float(channel.max()))


class PlainSpacingd(Spacingd):
    """MONAI's `Spacingd` on its own keys alone; its arguments, and its inverse.

    MONAI's takes every other key that begins with `image_` for meta data and updates it. MONAI Label keeps
    the file's name under `image_path`, a text, and MONAI 1.6 then ends with an AttributeError.
    """

    def __call__(self, data: Mapping[Hashable, Any], lazy: bool | None = None) -> dict[Hashable, Any]:
        """The dictionary with its volumes resampled."""
        own = {key: data[key] for key in self.key_iterator(dict(data))}
        return {**data, **super().__call__(own, lazy)}


class NameByCased(MapTransform):
    """Let `SaveImaged` name a case's results by its `result_name`, which is unique, as file names may not be.

    A case without one (of MONAI Label, which saves by itself) stays as it is.

    Args:
        keys: what will be saved, with meta data.
        name_key: the case's name for results (see `prepare.inference_cases`).
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

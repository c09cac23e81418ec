"""Between label values, classes and a network's outputs: MONAI dictionary transforms around `LabelMap`."""

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import torch
from monai.data import MetaTensor
from monai.transforms import (
    AsDiscrete,
    Invertd,
    InvertibleTransform,
    MapTransform,
    RandCropByLabelClassesd,
    RandCropByPosNegLabeld,
)

from pretext3d.annotations import Tensor
from pretext3d.checking import one_of
from pretext3d.data.labels import LabelMap
from pretext3d.errors import UserError
from pretext3d.ops.masks import class_masks
from pretext3d.ops.tensors import plain_tensor
from pretext3d.transforms.outputs import like

__all__ = [
    "ClassToLabeld", "InvertToClassd", "LabelToClassd", "MaskClassesd", "MaskLogitsd", "rand_crop_by_class"
]  # fmt: skip


class LabelToClassd(MapTransform):
    """Replace the label values of a file by classes, one byte per voxel; see `LabelMap.classes`.

    Args:
        keys: Keys of labels (1, ...), as loaded.
        labels: Label map, in plain form.
        allow_missing_keys: Skip keys that a case lacks.

    Raises:
        UserError: voxels that are not integers, or values that no class has; names the case.
    """

    def __init__(
        self, keys: Sequence[str] | str, labels: Mapping[str, Any], allow_missing_keys: bool = False
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.labels = LabelMap.of(labels)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """The case with classes in place of label values."""
        d = dict(data)
        for key in self.key_iterator(d):
            label = torch.as_tensor(d[key])
            try:
                found = torch.from_numpy(self.labels.classes(label.cpu().numpy()))
            except UserError as error:
                raise UserError(f"case {d.get('id', '?')}: {error}") from None
            d[key] = like(found.to(label.device), d[key])
        return d


class ClassToLabeld(MapTransform):
    """Replace classes by the label values that they have in files.

    Args:
        keys: Keys of class indices (1, ...).
        labels: Label map, in plain form.
    """

    def __init__(self, keys: Sequence[str] | str, labels: Mapping[str, Any]) -> None:
        super().__init__(keys)
        self.labels = LabelMap.of(labels)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """The case with label values, uint8, or int32 where they exceed 255."""
        d = dict(data)
        kind = torch.uint8 if self.labels.largest < 256 else torch.int32
        for key in self.key_iterator(d):
            classes = torch.as_tensor(d[key])
            table = torch.tensor(self.labels.values, dtype=kind, device=classes.device)
            d[key] = like(table[classes.long()], d[key])
        return d


class InvertToClassd(MapTransform):
    """Bring a network's outputs back to the grid of the image's file, as one class per voxel.

    The outputs are resampled one after the other, with the largest one so far kept at each voxel, so that
    memory does not grow with classes times voxels of the file. The result is the same as that of MONAI's
    `Invertd` for all outputs at once, followed by argmax; equal outputs give the first class. Regions are
    painted in their order where their output, a logit, is above 0: a probability above 0.5.

    Args:
        keys: Keys of outputs (c, ...), logits.
        transform: Preprocessing whose inverse is applied.
        orig_keys: Key of the image that it was applied to.
        labels: Label map of the network, in plain form.

    Raises:
        UserError: if the number of outputs differs from the map's.
    """

    def __init__(
        self,
        keys: Sequence[str] | str,
        transform: InvertibleTransform,
        orig_keys: str,
        labels: Mapping[str, Any],
    ) -> None:
        super().__init__(keys)
        self.labels, self.orig_key = LabelMap.of(labels), orig_keys
        self.invert = Invertd("pred", transform, orig_keys=orig_keys, nearest_interp=False, to_tensor=True)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """The case with classes (1, ...), uint8, in place of outputs."""
        d = dict(data)
        for key in self.key_iterator(d):
            outputs = torch.as_tensor(d[key]).detach()
            if len(outputs) != self.labels.channels:
                raise UserError(
                    f"{key}: found {len(outputs)} outputs, expected {self.labels.channels}, one per "
                    f"{'region' if self.labels.regions else 'class'}"
                )
            d[key] = self._classes(plain_tensor(outputs), d[self.orig_key])
        return d

    def _classes(self, outputs: Tensor, image: MetaTensor) -> Tensor:
        painted = self.labels.painted()
        best: Tensor | None = None
        for number in range(len(outputs)):
            one = self.invert({self.orig_key: image, "pred": MetaTensor(outputs[number : number + 1])})[
                "pred"
            ]
            values = plain_tensor(one)
            if best is None:  # the first class, or no region
                classes = torch.zeros(values.shape, dtype=torch.uint8, device=values.device)
                best = torch.zeros((), device=values.device) if painted else values
            above = values > best
            classes.masked_fill_(above, painted[number] if painted else number)
            best = best if painted else torch.maximum(best, values)
        return like(classes, one)


class MaskLogitsd(MapTransform):
    """Turn a network's outputs into one mask per output: the largest logit's class, or regions above 0.

    Args:
        keys: Keys of outputs (c, ...), logits.
        labels: Label map of the network, in plain form.
    """

    def __init__(self, keys: Sequence[str] | str, labels: Mapping[str, Any]) -> None:
        super().__init__(keys)
        self.labels = LabelMap.of(labels)
        self.one_hot = AsDiscrete(argmax=True, to_onehot=self.labels.channels)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """The case with masks (c, ...), float32."""
        d = dict(data)
        for key in self.key_iterator(d):
            d[key] = (d[key] > 0).float() if self.labels.regions else self.one_hot(d[key])
        return d


class MaskClassesd(MapTransform):
    """Turn classes into one mask per output of the network: of a class, or of a region.

    Args:
        keys: Keys of classes (1, ...).
        labels: Label map of the network, in plain form.
    """

    def __init__(self, keys: Sequence[str] | str, labels: Mapping[str, Any]) -> None:
        super().__init__(keys)
        self.members = LabelMap.of(labels).members()

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """The case with masks (c, ...), float32."""
        d = dict(data)
        for key in self.key_iterator(d):
            masks = class_masks(plain_tensor(torch.as_tensor(d[key])).long(), self.members, channel=0)
            d[key] = like(masks.float(), d[key])
        return d


def rand_crop_by_class(
    keys: Sequence[str], spatial_size: Sequence[int], labels: Mapping[str, Any], crops: str = "positive"
) -> RandCropByPosNegLabeld | RandCropByLabelClassesd:
    """A random crop whose centre is a voxel of a drawn class of `label`, moved where the crop would not fit.

    Args:
        keys: Keys of the images and the label.
        spatial_size: Voxels of the crop.
        labels: Label map, in plain form.
        crops: Way of drawing: positive (2 of 3 centres are some foreground voxel, each as likely, so that
            large structures prevail; the third is any voxel, since MONAI's complement of a label of bytes
            is true everywhere) or balanced (every class of the case is as likely, the background among them;
            with regions, every label value).

    Raises:
        UserError: another way.
    """
    one_of("crops", crops, ("positive", "balanced"))
    if crops == "positive":
        return RandCropByPosNegLabeld(keys, label_key="label", spatial_size=spatial_size, pos=2, neg=1)
    classes = len(LabelMap.of(labels).values)
    # a case may lack a class: no warning for each of its crops
    return RandCropByLabelClassesd(
        keys, label_key="label", spatial_size=spatial_size, num_classes=classes, warn=False
    )

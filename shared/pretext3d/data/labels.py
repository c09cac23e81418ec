"""Values in label files, and what a network learns from them: classes, or regions that may overlap.

A label file holds an integer per voxel, 0 for the background: 0 and 255, or 0, 1, 2 and 4 (BraTS). A
network has classes 0, 1, 2, ... without gaps. `LabelMap` has both: loading turns values into classes, and
results are written with values again. Its plain form, a dictionary, is what a configuration and a
checkpoint's record hold.

Regions are named sets of label values, for example {WT: [1, 2, 4], TC: [1, 4], ET: [4]}, with one sigmoid
output each; see `regions`.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pretext3d.checking import brief, is_integer
from pretext3d.data.regions import check_regions
from pretext3d.errors import UserError

__all__ = ["MAX_CLASSES", "MAX_VALUE", "LabelMap", "recorded_labels", "whole_values"]

MAX_VALUE = 65535  # largest value in a label file: two bytes per voxel
MAX_CLASSES = 256  # background included: one byte per voxel
TOLERANCE = 1e-4  # distance of a value from an integer that scaling in the file's header may cause
RELATIVE_TOLERANCE = 1e-6  # the same, as a fraction of the value: a few steps of float32


def whole_values(array: NDArray[Any]) -> tuple[NDArray[Any], str]:
    """The label values of an array, rounded, and what else was found, or ''. The check and the loader use it.

    Args:
        array: Voxels, scaled as the file says.

    Returns:
        Integers from 0 to 65535 (uint16), of the array's shape; empty where there is a fault.

    Examples:
        >>> whole_values(np.array([0, 254.99998], dtype=np.float32))
        (array([  0, 255], dtype=uint16), '')
        >>> whole_values(np.array([0, 0.5]))[1]
        '0.5, expected integers'
    """
    nothing = np.empty(0, np.uint16)
    if array.dtype.kind == "f":
        if not np.isfinite(array).all():
            return nothing, "NaN or inf"
        rounded = np.rint(array)
        off = np.abs(rounded - array) > TOLERANCE + RELATIVE_TOLERANCE * np.abs(rounded)
        if off.any():
            return nothing, f"{float(array[off].flat[0]):g}, expected integers"
        array = rounded
    low, high = int(array.min()), int(array.max())
    if low < 0 or high > MAX_VALUE:
        return nothing, f"values {low} to {high}, expected 0 to {MAX_VALUE}"
    return array.astype(np.uint16), ""


def is_values(value: Any) -> bool:
    """Whether a value is a list of integers."""
    return isinstance(value, list | tuple) and all(is_integer(v) for v in value)


@dataclass(frozen=True)
class LabelMap:
    """The classes of a segmentation, the label value of each, and regions, if it learns these.

    Attributes:
        values: Label value of each class, ascending; class 0 is the background, value 0.
        merged: Every value above 0 is class 1, which is written as values[1].
        regions: Label values of each region, in the order in which they are painted; {} = none: classes are
            learned.
        order: Label value with which each region is painted.

    Raises:
        UserError: values that do not ascend from 0, or regions as `check_regions` refuses them.
    """

    values: tuple[int, ...]
    merged: bool = False
    regions: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    order: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        values = self.values
        if (
            not 2 <= len(values) <= MAX_CLASSES
            or list(values) != sorted({0, *values})
            or values[-1] > MAX_VALUE
        ):
            raise UserError(
                f"labels: found the values {brief(list(values))}, expected 0 and up to {MAX_CLASSES - 1} "
                f"more, ascending, at most {MAX_VALUE}"
            )
        if self.merged and (len(values) != 2 or self.regions):
            raise UserError("merge_foreground: found more than one class, expected background and foreground")
        if self.regions or self.order:
            check_regions(self.regions, self.order, values)

    @classmethod
    def of(cls, labels: Any) -> "LabelMap":
        """The map in plain form, checked.

        Args:
            labels: `values`, and where they are not the defaults `merged`, `regions` and `order`.

        Raises:
            UserError: for anything else.

        Examples:
            >>> LabelMap.of({"values": [0, 255]}).channels
            2
        """
        if isinstance(labels, LabelMap):
            return labels
        found = labels if isinstance(labels, Mapping) else {}
        regions = found.get("regions", {})
        if (
            not set(found) <= {"values", "merged", "regions", "order"}
            or not all(is_values(found.get(key, ())) for key in ("values", "order"))
            or not isinstance(found.get("merged", False), bool)
            or not isinstance(regions, Mapping)
            or not all(is_values(one) for one in regions.values())
        ):
            raise UserError(f"labels: found {brief(labels)}, expected values, and merged, regions and order")
        return cls(
            tuple(found.get("values", ())),
            found.get("merged", False),
            {name: tuple(one) for name, one in regions.items()},
            tuple(found.get("order", ())),
        )

    def plain(self) -> dict[str, Any]:
        """The plain form; entries at their default are left out."""
        regions = {name: list(values) for name, values in self.regions.items()}
        return {
            "values": list(self.values),
            **({"merged": True} if self.merged else {}),
            **({"regions": regions, "order": list(self.order)} if regions else {}),
        }

    @property
    def channels(self) -> int:
        """Number of outputs of the network: regions, or classes with the background."""
        return len(self.regions) or len(self.values)

    @property
    def is_identity(self) -> bool:
        """Whether the classes are the label values 0, 1, 2, ... themselves."""
        return not self.regions and not self.merged and self.values == tuple(range(len(self.values)))

    @property
    def largest(self) -> int:
        """The largest label value that results have."""
        return max(self.order or self.values)

    def unknown(self, values: Iterable[int]) -> list[int]:
        """Those of some label values that no class has, ascending."""
        return [] if self.merged else sorted(set(values) - set(self.values))

    def classes(self, array: NDArray[Any]) -> NDArray[np.uint8]:
        """The class of each voxel of a label as loaded.

        Raises:
            UserError: voxels that are not integers, or values that no class has.

        Examples:
            >>> LabelMap((0, 1, 2, 4)).classes(np.array([4.0, 0.0, 1.0]))
            array([3, 0, 1], dtype=uint8)
        """
        whole, fault = whole_values(array)
        if fault:
            raise UserError(f"label values: {fault}")
        table = np.full(MAX_VALUE + 1, len(self.values), np.uint16)
        table[list(self.values)] = np.arange(len(self.values))
        if self.merged:
            table[1:] = 1
        found = table[whole]
        if (found == len(self.values)).any():
            raise UserError(
                f"label values: {whole[found == len(self.values)].flat[0]}, expected one of "
                f"{', '.join(map(str, self.values))}"
            )
        return found.astype(np.uint8)

    def members(self) -> list[list[int]]:
        """The classes that each output covers: one for a class, several for a region."""
        if not self.regions:
            return [[c] for c in range(len(self.values))]
        return [[self.values.index(v) for v in values] for values in self.regions.values()]

    def described(self, classes: Sequence[int]) -> str:
        """The label values of some classes, as text.

        Examples:
            >>> LabelMap((0, 1, 2, 4)).described([1, 3]), LabelMap((0, 1), merged=True).described([1])
            ('1 4', 'above 0')
        """
        if self.merged and list(classes) == [1]:
            return "above 0"
        return " ".join(str(self.values[c]) for c in classes)

    def painted(self) -> list[int]:
        """The class with which each region is painted."""
        return [self.values.index(v) for v in self.order]


def recorded_labels(record: Mapping[str, Any]) -> dict[str, Any]:
    """The label map of a checkpoint's record, in plain form; of a record without one, the values 0, 1, 2, ...

    Raises:
        UserError: a record that holds no valid map.

    Examples:
        >>> recorded_labels({"num_classes": 3})
        {'values': [0, 1, 2]}
    """
    given = record.get("labels")
    found = LabelMap.of({"values": list(range(record["num_classes"]))} if given is None else given)
    if found.channels != record["num_classes"]:
        raise UserError(
            f"the checkpoint's record: found labels of {found.channels} outputs, expected "
            f"{record['num_classes']}, the network's"
        )
    return found.plain()

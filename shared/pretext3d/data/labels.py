"""Values in label files, and the classes that a network learns from them."""

import re
from collections import Counter
from typing import Any, NamedTuple

from pretext3d.checking import brief, is_whole
from pretext3d.errors import UserError

__all__ = ["MAX_CLASSES", "MAX_VALUE", "DeclaredLabels", "read_labels"]

MAX_VALUE = 65535  # largest value in a label file: two bytes per voxel
MAX_CLASSES = 256  # background included: one byte per voxel


class DeclaredLabels(NamedTuple):
    """What a dataset.json says of its labels.

    Attributes:
        names: Name of each label value; of a value that only regions name, `label 2`. {} where none is
            declared.
        regions: Label values of each region, in nnU-Net's order; {} where classes are declared.
        order: nnU-Net's regions_class_order: a label value per region; [] where none is given.
    """

    names: dict[int, str]
    regions: dict[str, list[int]]
    order: list[int]


def read_labels(declared: Any, order: Any, where: str) -> DeclaredLabels:
    """The labels of a dataset.json, checked.

    Args:
        declared: Value of its key `labels`.
        order: Value of its key `regions_class_order`; None = none.
        where: Path of the file, for messages.

    Raises:
        UserError: See `declared_labels`.

    Examples:
        >>> read_labels({"background": 0, "whole": [1, 2], "core": 2}, [1, 2], "dataset.json")
        DeclaredLabels(names={0: 'background', 1: 'label 1', 2: 'label 2'}, regions={'whole': [1, 2], 'core': [2]}, order=[1, 2])
    """  # noqa: E501
    expected = "expected {value: name} as in MSD, or {name: value} as in nnU-Net, with values 0 to 65535"
    if not isinstance(declared, dict):
        raise UserError(f"{where}: labels is a {type(declared).__name__}, {expected}")
    if "ignore" in declared:
        raise UserError(f"{where}: labels declares 'ignore', which is not supported; expected classes only")
    msd = all(isinstance(name, str) for name in declared.values())
    sets: list[tuple[str, list[int]]] = []
    for key, value in declared.items():
        name, given = (value, key) if msd else (key, value)
        number = int(given) if msd and re.fullmatch(r"[0-9]{1,5}", given) else given
        values = number if isinstance(number, list) else [number]
        if not values or not all(is_whole(v) and 0 <= v <= MAX_VALUE for v in values):
            raise UserError(f"{where}: labels: {brief(key)} is {brief(value)}, {expected}")
        if not name.isprintable():
            raise UserError(f"{where}: labels: found the name {brief(name)}, expected printable text")
        sets.append((name.strip(), values))
    names = [name for name, _ in sets if name]
    doubled = [name for name, count in Counter(names).items() if count > 1]
    if doubled:
        raise UserError(f"{where}: labels: found {brief(doubled[0])} twice, expected different names")
    singles = [values[0] for _, values in sets]
    used = sorted({value for _, values in sets for value in values} | {0})
    if len(used) > MAX_CLASSES:
        raise UserError(
            f"{where}: labels: found {len(used)} values, background included, expected at most {MAX_CLASSES}"
        )
    if any(len(values) > 1 for _, values in sets):
        regions = {name or f"region {i}": values for i, (name, values) in enumerate(sets) if values != [0]}
        if order is None:
            order = []
        if not isinstance(order, list) or not all(is_whole(v) for v in order):
            raise UserError(
                f"{where}: regions_class_order is {brief(order)}, expected a list of label values"
            )
        return DeclaredLabels({v: f"label {v}" if v else "background" for v in used}, regions, order)
    twice = [value for value, count in Counter(singles).items() if count > 1]
    if twice:
        raise UserError(f"{where}: labels: found the value {twice[0]} twice, expected different values")
    given_names = {values[0]: name for name, values in sets if name}
    return DeclaredLabels({v: given_names.get(v, f"label {v}" if v else "background") for v in used}, {}, [])

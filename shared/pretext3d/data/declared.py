"""The label values of a data set, as its dataset.json declares them or as its files have them."""

import logging
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from pretext3d.checking import brief, integer, is_integer
from pretext3d.data.labels import MAX_CLASSES, MAX_VALUE, LabelMap
from pretext3d.data.regions import ordered_regions
from pretext3d.errors import UserError

__all__ = [
    "NOTHING_DECLARED",
    "DeclaredLabels",
    "allowed_values",
    "choose_labels",
    "declared_or_named",
    "read_labels",
    "warn_missing",
]

logger = logging.getLogger(__name__)


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


NOTHING_DECLARED = DeclaredLabels({}, {}, [])


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
        if not values or not all(is_integer(v) and 0 <= v <= MAX_VALUE for v in values):
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
        if not isinstance(order, list) or not all(is_integer(v) for v in order):
            raise UserError(
                f"{where}: regions_class_order is {brief(order)}, expected a list of label values"
            )
        return DeclaredLabels({v: f"label {v}" if v else "background" for v in used}, regions, order)
    twice = [value for value, count in Counter(singles).items() if count > 1]
    if twice:
        raise UserError(f"{where}: labels: found the value {twice[0]} twice, expected different values")
    given_names = {values[0]: name for name, values in sets if name}
    return DeclaredLabels({v: given_names.get(v, f"label {v}" if v else "background") for v in used}, {}, [])


def declared_or_named(
    declared: DeclaredLabels, names: Mapping[int, str], found: Iterable[int]
) -> DeclaredLabels:
    """What dataset.json declares; where it declares nothing, the names that the label files state.

    Args:
        declared: What dataset.json declares.
        names: Names of label values in the files, such as segmentations of 3D Slicer; {} = none.
        found: Values in the label files.

    Examples:
        >>> declared_or_named(NOTHING_DECLARED, {5: "spleen"}, [0, 5, 7]).names
        {0: 'background', 5: 'spleen', 7: 'label 7'}
    """
    if declared.names or declared.regions or not names:
        return declared
    known = {0: "background", **{value: f"label {value}" for value in found if value}, **names}
    return DeclaredLabels(dict(sorted(known.items())), {}, [])


def allowed_values(declared: DeclaredLabels, known: LabelMap | None = None) -> list[int]:
    """The values that label files may hold; [] = any.

    Args:
        declared: What dataset.json declares.
        known: Label map of a trained network.

    Raises:
        UserError: dataset.json declares values that the trained network does not know.

    Examples:
        >>> allowed_values(DeclaredLabels({0: "background", 4: "ET"}, {}, []))
        [0, 4]
    """
    if known is None:
        return sorted({0, *declared.names} if declared.names else ())
    unknown = [f"{value} ({declared.names[value]})" for value in known.unknown(declared.names)]
    if unknown:
        raise UserError(
            f"labels: dataset.json declares the values {', '.join(unknown)}, expected those of the training: "
            f"{', '.join(map(str, known.values))}"
        )
    return [] if known.merged else list(known.values)


def choose_labels(
    declared: DeclaredLabels,
    found: Iterable[int],
    num_classes: int = 0,
    regions: Mapping[Any, Any] | None = None,
    order: Any = None,
    merge_foreground: bool = False,
    known: LabelMap | None = None,
) -> tuple[LabelMap, list[str]]:
    """The label map of a data set, and the name of each output: of the classes, or of the regions.

    Args:
        declared: What dataset.json declares.
        found: Values in the label files; used where nothing is declared.
        num_classes: Number of outputs; 0 = as the labels have. More classes than these get the values after
            the largest one.
        regions: Label values of each region; None = those of dataset.json, {} = none.
        order: See `ordered_regions`; None = that of dataset.json where the regions are from there.
        merge_foreground: All values above 0 are one class.
        known: Label map of a trained network, which is kept; the arguments before it have no effect.

    Raises:
        UserError: no value above 0; more than 255 of them; a num_classes that is smaller
            or above 256; wrong regions.

    Examples:
        >>> labels, names = choose_labels(DeclaredLabels({}, {}, []), [0, 255])
        >>> labels.values, names
        ((0, 255), ['background', 'label 255'])
    """
    given = {0: "background", **declared.names}
    if known is not None:
        names = [*known.regions] or [given.get(v, f"label {v}") for v in known.values]
        return known, names
    integer("num_classes", num_classes, 0, MAX_CLASSES)
    values = sorted({0, *declared.names} if declared.names else {0, *found})
    if len(values) < 2:
        raise UserError(
            f"labels: dataset.json declares {declared.names}, expected at least one value above 0"
        )
    if len(values) > MAX_CLASSES:
        raise UserError(
            f"labels: found {len(values)} different values in the label files, {values[1]} to {values[-1]}; "
            f"expected at most {MAX_CLASSES}, background included"
        )
    if regions is None and not merge_foreground:
        regions, order = declared.regions, declared.order if order is None and declared.order else order
    if merge_foreground and regions:
        raise UserError("merge_foreground: found True with regions, expected one of the two")
    if merge_foreground:
        labels, names = LabelMap((0, values[1]), merged=True), ["background", "foreground"]
    elif regions:
        painted, order = ordered_regions(regions, order, values)
        labels, names = LabelMap(tuple(values), False, painted, order), [*painted]
    else:
        if order is not None:
            raise UserError(f"regions_class_order: found {brief(order)} without regions, expected null")
        values += range(values[-1] + 1, values[-1] + 1 + num_classes - len(values))
        labels, names = LabelMap(tuple(values)), [given.get(v, f"label {v}") for v in values]
    if num_classes and num_classes != labels.channels:
        raise UserError(
            f"num_classes: found {num_classes}, expected {labels.channels}"
            f"{'' if labels.regions or labels.merged else ' or more'}: {names}, or 0 for these"
        )
    if not labels.is_identity:
        written = [f" (written as {value})" for value in labels.order] or [""] * len(names)
        each = zip(names, labels.members(), written, strict=True)
        outputs = [f"{name} is {labels.described(classes)}{text}" for name, classes, text in each]
        logger.info(
            "labels: the network's %s; results are written with the label values %s",
            "; ".join(outputs),
            ", ".join(map(str, sorted({0, *(labels.order or labels.values)}))),
        )
    return labels, names


def warn_missing(labels: LabelMap, names: Sequence[str], values: Iterable[Iterable[int]]) -> None:
    """One warning with the names of classes, or regions, that no training case has.

    Args:
        labels: Label map of the data set.
        names: Name of each output.
        values: Values in the label of each training case.
    """
    present = {value for one in values for value in one}
    if labels.merged or not present:
        return
    missing = [
        f"{name} (label value {labels.described(classes)})"
        for name, classes in zip(names, labels.members(), strict=True)
        if not any(labels.values[c] in present or c == 0 for c in classes)
    ]
    if missing:
        logger.warning("labels: no training case has %s: it cannot be learned", ", ".join(missing))

"""Regions: named sets of label values that may overlap, for example {WT: [1, 2, 4], TC: [1, 4], ET: [4]}.

A network has one sigmoid output per region. Its results become label values by painting the regions in turn,
each over the ones before, with one value per region: nnU-Net's regions_class_order.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from pretext3d.checking import brief, is_integer
from pretext3d.errors import UserError
from pretext3d.literals import is_literal

__all__ = ["check_regions", "check_sets", "ordered_regions"]


def check_regions(regions: Mapping[str, Sequence[int]], order: Sequence[int], values: Sequence[int]) -> None:
    """Make sure that regions are sets of the labels' values and that painting them gives each of them back.

    Painting gives a voxel of value v the value of the last region that has v; that value has to be in the
    same regions as v.

    Args:
        regions: Label values of each region, in the order in which they are painted.
        order: Value with which each region is painted.
        values: Values of the labels.

    Raises:
        UserError: names or sets as `check_sets` refuses them; an order of another length, or one that does
            not give back every region.
    """
    check_sets(regions, values)
    sets = list(regions.items())
    own = [is_integer(v) and v in one for v, (_, one) in zip(order, sets, strict=False)]
    if len(order) != len(sets) or not all(own):
        raise UserError(
            f"regions_class_order: found {brief(list(order))}, expected {len(sets)} label values, one of "
            f"each region: {brief(dict(sets))}"
        )
    for value in values:
        held = [i for i, (_, chosen) in enumerate(sets) if value in chosen]
        given = [i for i, (_, chosen) in enumerate(sets) if held and order[held[-1]] in chosen]
        if held != given:
            wrong = ", ".join(sets[i][0] for i in sorted({*held} ^ {*given}))
            raise UserError(
                f"regions_class_order: the regions {', '.join(regions)}, painted in turn with "
                f"{list(order)}, turn the label value {value} into {order[held[-1]]}, which changes {wrong}; "
                "expected an order that gives back every region, the larger ones first"
            )


def check_sets(regions: Any, values: Sequence[int]) -> None:
    """Make sure that regions are sets of the labels' values, with names.

    Args:
        regions: Label values of each region.
        values: Values of the labels; () = those of a network that has one class, and no regions.

    Raises:
        UserError: an empty name, the same one twice, `background`, or one that is not literal; a
            region without values, with 0, or with values that no label has.
    """
    if not isinstance(regions, Mapping) or not all(isinstance(v, list | tuple) for v in regions.values()):
        raise UserError(f"regions: found {brief(regions)}, expected sets of label values: {{WT: [1, 2, 3]}}")
    names = [str(name).strip().lower() for name in regions]
    if not is_literal(dict.fromkeys(regions)) or len({*names, "", "background"}) != len(names) + 2:
        raise UserError(
            f"regions: found the names {brief([*regions])}, expected different ones that MONAI leaves as "
            "they are (no $, @ or % at the beginning, no # or ::, no _name_), and none for the background"
        )
    known = ", ".join(str(v) for v in values if v)
    if regions and not known:
        raise UserError(
            f"regions: found {', '.join(regions)}, expected none: the network has one class, all label "
            "values above 0"
        )
    for name, chosen in regions.items():
        if not chosen or not all(is_integer(v) and v in values and v > 0 for v in chosen):
            raise UserError(
                f"regions: {name} is {brief(list(chosen))}, expected some of the label values {known}"
            )


def ordered_regions(
    regions: Mapping[Any, Any], order: Any, values: Sequence[int]
) -> tuple[dict[str, tuple[int, ...]], tuple[int, ...]]:
    """Regions in the order in which they are painted, and the value of each.

    Args:
        regions: Label values of each region.
        order: nnU-Net's regions_class_order, and so painted in the order of `regions`. None: larger regions
            first, each with its smallest value that no later region has (else its smallest).
        values: Values of the labels.

    Raises:
        UserError: See `check_regions`.

    Examples:
        >>> ordered_regions({"ET": [4], "TC": [1, 4], "WT": [1, 2, 4]}, None, [0, 1, 2, 4])
        ({'WT': (1, 2, 4), 'TC': (1, 4), 'ET': (4,)}, (2, 1, 4))
    """
    check_sets(regions, values)
    if order is not None and not (isinstance(order, list | tuple) and all(map(is_integer, order))):
        raise UserError(
            f"regions_class_order: found {brief(order)}, expected a list of label values, or null"
        )
    found = {name: tuple(chosen) for name, chosen in regions.items()}
    if order is None:
        sets = {name: set(chosen) for name, chosen in found.items()}
        names = sorted(sets, key=lambda name: -len(sets[name]))
        found = {name: found[name] for name in names}
        own = [
            sets[name] - set[int]().union(*(sets[n] for n in names[i + 1 :])) for i, name in enumerate(names)
        ]
        order = [min(one or sets[name]) for name, one in zip(names, own, strict=True)]
    check_regions(found, order, values)
    return found, tuple(order)

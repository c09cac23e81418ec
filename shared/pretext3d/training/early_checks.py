"""Settings of transforms, checked before any scan is read.

A transform checks its arguments when it is built, and MONAI builds it with the data set, after the cases:
these are found by reading every scan, which takes minutes to hours.
"""

from collections.abc import Mapping
from typing import Any

from monai.bundle import ConfigParser, ReferenceResolver
from monai.transforms import Transform

from pretext3d.training.overrides import component_class, walk
from pretext3d.training.workflow import running_parser

__all__ = ["build_transforms"]

LATE = {"cases", "network_def"}  # what reads scans, or is built from what they have


def build_transforms(parser: ConfigParser | None = None) -> list[str]:
    """Build every transform of a configuration whose arguments depend on no scan.

    MONAI takes these for the data sets later. A transform that needs to know the scans, such as their
    spacing, is built with the data set, as ever.

    Args:
        parser: Parser of the configuration; None = the running one's.

    Returns:
        The ids of the transforms that were built.

    Raises:
        UserError: what a transform says of its arguments.
    """
    parser = running_parser() if parser is None else parser
    if parser is None:
        return []
    found = [
        path for path, value in walk(parser.config) if _is_transform(value) and not _is_late(parser, path)
    ]
    for path in found:
        parser.get_parsed_content(path)
    return found


def _is_transform(value: Any) -> bool:
    """Whether a part of a configuration is a transform, and is built by its reference alone."""
    if not isinstance(value, Mapping) or value.get("_mode_", "default") != "default":
        return False
    kind = component_class(value.get("_target_"))
    return isinstance(kind, type) and issubclass(kind, Transform)


def _is_late(parser: ConfigParser, path: str) -> bool:
    """Whether a part refers, directly or by what it refers to, to the cases or the network."""
    seen: set[str] = set()
    todo = [path]
    while todo:
        name = todo.pop()
        if name in seen or name not in parser:
            continue
        seen.add(name)
        if name.split("::")[0] in LATE:
            return True
        texts = [value for _, value in walk(parser[name]) if isinstance(value, str)]
        todo += [found for text in texts for found in ReferenceResolver.match_refs_pattern(text)]
    return False

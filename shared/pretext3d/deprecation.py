"""Names that have changed: the former one works for a while, with a warning of version and replacement.

Functions, classes and arguments have MONAI's decorators, with this package's version. Keys of the bundles, of
which MONAI knows nothing, are in `RENAMED_KEYS`. What is removed is marked **Breaks** in CHANGELOG.md.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeVar

from pretext3d.errors import UserError
from pretext3d.version import __version__

__all__ = ["RENAMED_KEYS", "Renamed", "current_keys", "deprecated", "renamed_argument"]

Decorated = TypeVar("Decorated", bound=Callable[..., Any])
Value = TypeVar("Value")


class Renamed(NamedTuple):
    """A key that has another name now.

    Attributes:
        new: Name now.
        since: Version that renamed it.
        removed: Version from which the old name is refused.
    """

    new: str
    since: str
    removed: str


RENAMED_KEYS: dict[str, Renamed] = {}  # top-level keys by their former name; none has another name so far


def deprecated(since: str, removed: str, instead: str) -> Callable[[Decorated], Decorated]:
    """Decorator of a function or class that will be removed: a `FutureWarning`, later a `DeprecatedError`.

    Args:
        since: Version that deprecated it.
        removed: Version from which a call fails.
        instead: What takes its place.
    """
    from monai.utils.deprecate_utils import deprecated as decorator

    return decorator(since, removed, f"Use {instead} instead.", version_val=__version__)


def renamed_argument(old: str, new: str, since: str, removed: str) -> Callable[[Decorated], Decorated]:
    """Decorator of a function that takes `**kwargs`, one of whose arguments had another name.

    Args:
        old: Former name.
        new: Name now.
        since: Version that renamed it.
        removed: Version from which the former name fails.
    """
    from monai.utils.deprecate_utils import deprecated_arg

    text = f"Use `{new}` instead."
    return deprecated_arg(old, since, removed, text, version_val=__version__, new_name=new)


def current_keys(values: Mapping[str, Value]) -> dict[str, Value]:
    """Values by the names that their keys have in this version; a warning for each former name.

    Args:
        values: Values by keys, nested ones as `views::zoom`.

    Raises:
        UserError: a former name that is no longer taken, or both names of a key.

    Examples:
        >>> current_keys({"seed": 3})
        {'seed': 3}
    """
    found: dict[str, Value] = {}
    for key, value in values.items():
        name = _current(key)
        if name in found or (name != key and name in values):
            raise UserError(f"--{name}: found twice, once by its former name; expected it once")
        found[name] = value
    return found


def _current(key: str) -> str:
    """A key by its present name, with a warning for a former one; an error after its time."""
    old = re.split("::|#", key)[0]
    if old not in RENAMED_KEYS:
        return key
    from monai.utils.deprecate_utils import warn_deprecated
    from monai.utils.module import version_leq

    new, since, removed = RENAMED_KEYS[old]
    name = new + key.removeprefix(old)
    if version_leq(removed, __version__):
        raise UserError(f"--{key}: found a name that version {removed} has removed, expected --{name}")
    warn_deprecated(f"--{key}", f"has been --{name} since version {since}; {removed} removes the former name")
    return name

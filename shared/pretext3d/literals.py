"""Text in files that MONAI parses: it stays text, by quotation, or is refused.

MONAI evaluates what begins with `$`, replaces what begins with `%` and what is a reference (`@id`), resolves
relative ids (`@##id`, `%#id`) anywhere in a text, and writes `::` for `#`; all of this also in metadata.json.
An import (`$import x`) anywhere in a file is executed when the first entry is read. So names of folders,
classes and data sets, and values of a run from elsewhere, pass through `check_literal` before being written,
and what a user types as text becomes an entry by `literal`.
"""

import ast
import re
from collections.abc import Mapping
from typing import Any

from pretext3d.errors import UserError

__all__ = ["NOTHING", "check_literal", "is_constant", "is_literal", "is_literal_text", "literal"]

EXPANDED = re.compile(r"[$@%]|.*#|.*[@%]::", re.DOTALL)
NOTHING = "$None"  # MONAI drops an override that is None
SPECIAL_KEY = re.compile(r"_\w+_|.*::", re.DOTALL)  # _target_, _mode_, ..., and nested ids
EXPECTED = "expected text that MONAI does not expand: no $, @ or % at its beginning, no # in it"


def is_literal_text(text: str) -> bool:
    """Whether MONAI's configurations leave a text as it is, and every character of it can be shown.

    Examples:
        >>> [is_literal_text(name) for name in ("left kidney", "50 %", "$HOME", "@x", "%stenosis", "scan #3")]
        [True, True, False, False, False, False]
    """
    return EXPANDED.match(text) is None and text.isprintable()


def is_literal(value: Any) -> bool:
    """Whether a value is plain data: numbers, literal text, and lists and mappings of these.

    Examples:
        >>> is_literal({"window": [-175, 250]}), is_literal([{"_target_": "os.system"}])
        (True, False)
    """
    if isinstance(value, Mapping):
        keys = all(isinstance(key, str) and is_literal_text(key) for key in value)
        return keys and not any(map(SPECIAL_KEY.match, value)) and all(map(is_literal, value.values()))
    if isinstance(value, list | tuple):
        return all(map(is_literal, value))
    return is_literal_text(value) if isinstance(value, str) else isinstance(value, int | float | None)


def check_literal(value: Any, where: str, instead: str = "") -> Any:
    """The value, if it is plain data; see `is_literal`.

    Args:
        value: Text, number, or lists and mappings of these.
        where: Name of the value, for messages.
        instead: What the user can do, for messages.

    Raises:
        UserError: MONAI would evaluate or replace a part of it.

    Examples:
        >>> check_literal(["liver", "%stenosis"], "--labels")
        Traceback (most recent call last):
        pretext3d.errors.UserError: --labels: found '%stenosis', expected text that MONAI does not expand: ...
    """
    if is_literal(value):
        return value
    parts: list[Any] = []
    if isinstance(value, Mapping):
        parts = [part for pair in value.items() for part in pair]
    elif isinstance(value, list | tuple):
        parts = list(value)
    for part in parts:
        check_literal(part, where, instead)
    raise UserError(f"{where}: found {value!r}, {EXPECTED}{f'; {instead}' if instead else ''}")


def literal(text: str) -> str:
    r"""An entry of a configuration that MONAI's parser resolves to this text, whatever the text is.

    Text without special characters is its own entry; otherwise the entry is an expression, a quoted string
    without `@`, `%` and `#`, which MONAI replaces inside strings, too.

    Args:
        text: Text, as the name of a folder.

    Examples:
        >>> literal("scans/2024"), literal("$HOME"), literal("scan #3")
        ('scans/2024', "$'$HOME'", "$'scan \\x233'")
    """
    if EXPANDED.match(text) is None:
        return text
    return "$" + re.sub(r"[@%#]", lambda found: f"\\x{ord(found[0]):02x}", repr(text))


def is_constant(entry: object) -> bool:
    r"""Whether an entry is an expression that is constant: one text as `literal` quotes it, or None.

    Args:
        entry: Entry of a configuration, as a run has saved it.

    Examples:
        >>> is_constant("$'scan \\x233'"), is_constant("$None"), is_constant("$'a' + f()")
        (True, True, False)
    """
    if not isinstance(entry, str) or not entry.startswith("$"):
        return False
    try:
        value = ast.literal_eval(entry[1:])
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return False
    return entry == (literal(value) if isinstance(value, str) else NOTHING)

"""Markdown of generated pages: tables, and text and code in their cells."""

from collections.abc import Iterable, Sequence

__all__ = ["cell", "code", "table"]


def cell(text: str) -> str:
    """Plain text as one cell: no character of it is Markdown or HTML.

    Examples:
        >>> cell("a|b <x> 2 * 3"), cell("`a|b`")
        ('a&#124;b &lt;x> 2 &#42; 3', '<code>a&#124;b</code>')
    """
    parts = " ".join(text.split()).split("`")
    if len(parts) % 2 == 0:  # a backtick without its partner
        parts = ["&#96;".join(parts)]
    plain = {"<": "&lt;", "*": "&#42;", "_": "&#95;", "[": "&#91;", "|": "&#124;"}
    for index in range(0, len(parts), 2):
        parts[index] = "".join(plain.get(character, character) for character in parts[index])
    return "".join(part if index % 2 == 0 else code(part) for index, part in enumerate(parts))


def code(text: str) -> str:
    """Text as code in one cell of a table; '' stays empty."""
    if not text:
        return ""
    if "|" in text:  # a backslash before it would be shown
        return f"<code>{text.replace('&', '&amp;').replace('<', '&lt;').replace('|', '&#124;')}</code>"
    return f"`` {text} ``" if "`" in text else f"`{text}`"


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    r"""A table; its cells are Markdown.

    Examples:
        >>> table(["key", "type"], [["`a`", "text"]])
        '| key | type |\n|---|---|\n| `a` | text |\n'
    """
    lines = [heads, *rows]
    text = [f"| {' | '.join(line)} |" for line in lines]
    return "\n".join([text[0], "|" + "---|" * len(heads), *text[1:]]) + "\n"

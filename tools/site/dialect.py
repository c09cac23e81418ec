"""From CommonMark, which code hosts show, to Python-Markdown, which MkDocs uses.

Both write the same constructs differently: in Python-Markdown the content of a list's item is indented by
four spaces, whatever its marker, and a list, a table or a fenced block needs a blank line around it.
"""

import re

from markdown_it import MarkdownIt

__all__ = ["apart", "python_markdown"]

MARKER = re.compile(r" *(?:[-*+]|\d+[.)]) +")
PARAGRAPH_AND_LIST = re.compile(r"^([^\s\-*\d].*)\n(?=[-*] |\d+\. )", re.MULTILINE)
COMMENT = re.compile(r"^<!--.*?-->\n", re.MULTILINE | re.DOTALL)


def python_markdown(text: str) -> str:
    r"""A document in CommonMark with tables, as Python-Markdown reads it; comments are left out.

    Args:
        text: Text of the document.

    Examples:
        >>> python_markdown("may be\n1. one,\n   two\n")
        'may be\n\n1. one,\n    two\n'
    """
    text = COMMENT.sub("", text).replace("<details>", '<details markdown="1">')  # Markdown inside HTML
    lines = text.split("\n")
    tokens = MarkdownIt("commonmark").enable("table").parse(text)
    items: dict[int, list[tuple[int, int]]] = {}  # line to the items around it: first line, last line
    alone = set()  # lines that need a blank line before them: first ones, and those that follow
    for token in tokens:
        if token.map is None:
            continue
        first, end = token.map
        if token.type == "list_item_open":
            for line in range(first, end):
                items.setdefault(line, []).append((first, end))
        elif token.type.endswith("list_open") and token.level:  # a list in a list needs none
            continue
        elif token.type in ("bullet_list_open", "ordered_list_open", "table_open", "fence"):
            alone |= {first, end}
    written: list[str] = []
    for number, line in enumerate(lines):
        around = items.get(number, [])
        if number in alone and line.strip() and written and written[-1].strip():
            written.append("")
        written.append(_indented(line, number, around, lines))
    return "\n".join(written)


def apart(docstring: str) -> str:
    r"""A docstring with a blank line before each list that follows a line of text.

    Args:
        docstring: Text of the docstring, without indentation.

    Examples:
        >>> apart("Either\n- one\n- two\nArgs:\n    x: y\n")
        'Either\n\n- one\n- two\nArgs:\n    x: y\n'
    """
    return PARAGRAPH_AND_LIST.sub(r"\1\n\n", docstring)


def _indented(line: str, number: int, around: list[tuple[int, int]], lines: list[str]) -> str:
    """A line of a list's item, indented as Python-Markdown wants it."""
    if not around or not line.strip():
        return line
    offset, inner = 0, len(around)
    for first, _ in around:  # columns at which the content of the items begins
        marker = MARKER.match(lines[first], offset)
        width = marker.end() if marker else len(lines[first])
        if first == number and first == around[-1][0]:
            inner -= 1
            break
        offset = width
    blank = len(line) - len(line.lstrip(" "))
    return " " * 4 * inner + (line[min(offset, blank) :] if inner == len(around) else line[blank:])

"""Links of a document: paths in the repository, for code hosts; in the site they lead to its pages."""

import posixpath
import re
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

__all__ = ["rewritten"]

# what is inside a fence or between backticks is no link; a link's text may have backticks
PATTERN = re.compile(
    r"(?P<fence>^ *```.*?^ *```$)"
    r"|(?P<image>!?)\[(?P<text>(?:`[^`\n]*`|[^\]`])*)\]\((?P<target>[^)\s]+)\)"
    r"|(?P<code>`+[^`]*`+)",
    re.MULTILINE | re.DOTALL,
)


def rewritten(markdown: str, source: str, addresses: Mapping[str, str], root: Path) -> str:
    """A document whose relative links lead to the pages and files of the site.

    A link to a file of the repository that the site does not have becomes its text and path. One that leads
    nowhere stays, so that MkDocs reports it.

    Args:
        markdown: Text of the document.
        source: Its path in the repository.
        addresses: Path in the repository to address in the site, see `pages.addresses`.
        root: Folder of the repository.

    Examples:
        >>> known = {"README.md": "index.md", "docs/a.md": "a.md", "bundles/x": "methods/x.md"}
        >>> rewritten("[one](../README.md#test), [x](../bundles/x), `[a](b)`", "docs/a.md", known, Path("."))
        '[one](index.md#test), [x](methods/x.md), `[a](b)`'
    """
    here = posixpath.dirname(addresses[source])

    def replace(match: re.Match[str]) -> str:
        target = match["target"]
        if target is None or urlsplit(target).scheme or target.startswith("#"):
            return match[0]
        path, anchor_mark, anchor = target.partition("#")
        place = posixpath.normpath(posixpath.join(posixpath.dirname(source), path))
        address = addresses.get(place)
        if address is not None:
            address = posixpath.relpath(address, here or ".")
            return f"{match['image']}[{match['text']}]({address}{anchor_mark}{anchor})"
        if match["image"] or not (root / place).exists():
            return match[0]
        text = match["text"]
        return f"`{place}`" if place.endswith(text.strip("`")) else f"{text} (`{place}`)"

    return PATTERN.sub(replace, markdown)

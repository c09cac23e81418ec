"""Checks of the built pages: nothing is fetched from elsewhere, and every picture is there."""

import posixpath
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

__all__ = ["faults", "fetched"]

# elements that a browser fetches by itself, and the attribute with the address
FETCHED = {
    "script": "src", "img": "src", "iframe": "src", "source": "src", "video": "src", "audio": "src",
    "embed": "src", "object": "data", "link": "href", "use": "href", "image": "href",
}  # fmt: skip
LINKS = {
    "stylesheet",
    "icon",
    "preload",
    "modulepreload",
    "prefetch",
    "preconnect",
    "dns-prefetch",
    "manifest",
}


class _Reader(HTMLParser):
    """Collects what the elements of a page fetch."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self.in_style = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """As `HTMLParser` calls it."""
        given = {name: value or "" for name, value in attrs}
        self.in_style = tag == "style"
        name = FETCHED.get(tag)
        relations = set(given.get("rel", "").split())
        if name and given.get(name) and (tag != "link" or relations & LINKS):
            self.found.append(given[name])
        self.found += [part.split()[0] for part in given.get("srcset", "").split(",") if part.strip()]
        self.found += _in_css(given.get("style", ""))

    def handle_data(self, data: str) -> None:
        """As `HTMLParser` calls it."""
        if self.in_style:
            self.found += _in_css(data)
            self.in_style = False


def _in_css(text: str) -> list[str]:
    """The addresses that a style sheet fetches."""
    parts = text.split("url(")[1:]
    imports = text.split("@import ")[1:]
    return [part.split(")")[0].strip("\"' ") for part in parts] + [
        part.split(";")[0].strip("\"' ") for part in imports if not part.startswith("url(")
    ]


def fetched(html: str) -> list[str]:
    """What a browser fetches for a page by itself: scripts, styles, fonts, pictures, not links.

    Args:
        html: Text of the page.

    Examples:
        >>> fetched('<img src="a.png"><a href="https://monai.io">x</a><style>p{background:url(b.png)}</style>')
        ['a.png', 'b.png']
    """
    reader = _Reader()
    reader.feed(html)
    return reader.found


def faults(site: Path) -> Iterator[str]:
    """What is wrong with a built site, one line each: addresses of other hosts, and files that are missing.

    Args:
        site: Folder of the built site; its HTML pages and style sheets are read.
    """
    for page in sorted([*site.rglob("*.html"), *site.rglob("*.css")]):
        text = page.read_text()
        where = page.relative_to(site).as_posix()
        for address in fetched(text) if page.suffix == ".html" else _in_css(text):
            split = urlsplit(address)
            if split.scheme == "data" or not (split.path or split.netloc):
                continue
            if split.scheme or split.netloc:
                yield f"{where}: fetches {address}, expected a file of the site"
                continue
            path = unquote(split.path)
            place = posixpath.join("/", posixpath.dirname(where), path)
            if not (site / posixpath.normpath(place).lstrip("/")).is_file():
                yield f"{where}: {address} is not in the site"

"""Files outside docs/ that become pages or pictures of the site, and where each file is in it.

A page's *address* is its path in the site's sources, as MkDocs counts them: that of
`bundles/cpc/docs/README.md` is `methods/cpc.md`.
"""

from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from tools.site.api import api_sources

__all__ = ["ROOT", "addresses", "bundles", "completed_nav", "lessons", "outside", "source_of"]

ROOT = Path(__file__).resolve().parents[2]
SINGLE = {
    "README.md": "index.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
    "LICENSE": "LICENSE.txt",
}
PICTURES = (".png", ".jpg", ".svg")


def bundles(root: Path = ROOT) -> list[Path]:
    """The folders of the bundles, by name."""
    return sorted(path.parents[1] for path in root.glob("bundles/*/docs/README.md"))


def lessons(root: Path = ROOT) -> dict[str, str]:
    """The tutorials: path in the repository to address."""
    paths = sorted((root / "tutorials").glob("*.py"))
    return {f"tutorials/{path.name}": f"tutorials/{path.stem}.md" for path in paths if path.stem[0] != "_"}


def outside(root: Path = ROOT) -> dict[str, str]:
    """Files outside docs/ that the site shows: path in the repository to address.

    Args:
        root: Folder of the repository.

    Examples:
        >>> found = outside()
        >>> found["README.md"], found["bundles/cpc/docs/README.md"], found["bundles/cpc/docs/curves.png"]
        ('index.md', 'methods/cpc.md', 'methods/cpc/curves.png')
    """
    found = {name: address for name, address in SINGLE.items() if (root / name).is_file()}
    for bundle in bundles(root):
        found[f"bundles/{bundle.name}/docs/README.md"] = f"methods/{bundle.name}.md"
        for picture in sorted((bundle / "docs").iterdir()):
            if picture.suffix in PICTURES:
                found[picture.relative_to(root).as_posix()] = f"methods/{bundle.name}/{picture.name}"
    return found | lessons(root)


@cache
def addresses(root: Path = ROOT) -> dict[str, str]:
    """Where what a document may link to is in the site: path of a file or folder to address.

    A bundle's folder is its page, a module of the package that of the API reference. What is not here has
    no page.

    Args:
        root: Folder of the repository.

    Examples:
        >>> found = addresses()
        >>> found["docs/compare.md"], found["bundles/cpc"], "tests/conftest.py" in found
        ('compare.md', 'methods/cpc.md', False)
    """
    found = outside(root) | api_sources(root / "shared" / "pretext3d")
    found |= {f"bundles/{bundle.name}": f"methods/{bundle.name}.md" for bundle in bundles(root)}
    found |= {"tutorials": "tutorials/index.md"} if lessons(root) else {}
    names = [path.relative_to(root / "docs").as_posix() for path in documents(root)]
    found |= {f"docs/{name}": name for name in names}
    return found


def source_of(address: str, root: Path = ROOT) -> str | None:
    """The document of the repository that is the page at an address; None = it is made by the build.

    Args:
        address: Address of the page.
        root: Folder of the repository.

    Examples:
        >>> source_of("methods/cpc.md"), source_of("compare.md"), source_of("reference/keys.md")
        ('bundles/cpc/docs/README.md', 'docs/compare.md', None)
    """
    if (root / "docs" / address).is_file():
        return f"docs/{address}"
    return next((path for path, own in outside(root).items() if own == address), None)


def documents(root: Path) -> Iterator[Path]:
    """The files in docs/ that the site shows."""
    return (path for path in sorted((root / "docs").rglob("*")) if path.is_file() and path.suffix != ".csv")


def completed_nav(nav: list[Any], after: Mapping[str, list[Any]]) -> list[Any]:
    """The navigation with further entries, of which mkdocs.yml does not know how many there are.

    Args:
        nav: Navigation of mkdocs.yml: addresses, and mappings of a title to an address or a list of these.
        after: Further entries by the address that they follow.

    Returns:
        A new navigation.

    Examples:
        >>> completed_nav([{"Start": "index.md"}, "b.md"], {"index.md": ["a.md"]})
        [{'Start': 'index.md'}, 'a.md', 'b.md']
    """
    completed: list[Any] = []
    for entry in nav:
        address = entry
        if isinstance(entry, dict):
            ((title, address),) = entry.items()
            entry = {title: completed_nav(address, after) if isinstance(address, list) else address}
        completed.append(entry)
        completed += after.get(address, []) if isinstance(address, str) else []
    return completed

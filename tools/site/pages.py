"""Files outside docs/ that become pages or pictures of the site, and where each file is in it.

A page's *address* is its path in the site's sources, as MkDocs counts them: that of
`bundles/cpc/docs/README.md` is `methods/cpc.md`.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

__all__ = ["ROOT", "addresses", "outside", "with_studies"]

ROOT = Path(__file__).resolve().parents[2]
SINGLE = {
    "README.md": "index.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "LICENSE": "LICENSE.txt",
}
PICTURES = (".png", ".jpg", ".svg")


def bundles(root: Path = ROOT) -> list[Path]:
    """The folders of the bundles, by name."""
    return sorted(path.parents[1] for path in root.glob("bundles/*/docs/README.md"))


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
    return found


def addresses(root: Path = ROOT) -> dict[str, str]:
    """Where what a document may link to is in the site: path of a file or folder to address.

    A bundle's folder is its page. What is not here has no page.

    Args:
        root: Folder of the repository.

    Examples:
        >>> found = addresses()
        >>> found["docs/compare.md"], found["bundles/cpc"], "tests/conftest.py" in found
        ('compare.md', 'methods/cpc.md', False)
    """
    found = outside(root)
    found |= {f"bundles/{bundle.name}": f"methods/{bundle.name}.md" for bundle in bundles(root)}
    names = [path.relative_to(root / "docs").as_posix() for path in documents(root)]
    found |= {f"docs/{name}": name for name in names}
    return found


def documents(root: Path) -> Iterator[Path]:
    """The files in docs/ that the site shows."""
    return (path for path in sorted((root / "docs").rglob("*")) if path.is_file() and path.suffix != ".csv")


def with_studies(nav: list[Any], root: Path = ROOT) -> list[Any]:
    """The navigation with the report of every study after the page of the studies.

    Reports are written by `pretext3d compare --study`, so their number is not known in mkdocs.yml.

    Args:
        nav: Navigation of mkdocs.yml: addresses, and mappings of a title to an address or a list of these.
        root: Folder of the repository.

    Returns:
        A new navigation.
    """
    reports = [
        {f"Study: {path.parent.name}": path.relative_to(root / "docs").as_posix()}
        for path in sorted((root / "docs" / "studies").glob("*/RESULTS.md"))
    ]
    grown: list[Any] = []
    for entry in nav:
        if not isinstance(entry, dict):
            grown.append(entry)
            continue
        ((title, content),) = entry.items()
        grown.append({title: with_studies(content, root) if isinstance(content, list) else content})
        if content == "studies/README.md":
            grown += reports
    return grown

"""Pages that are made at build time, by address: keys, commands, messages, API, gallery."""

from pathlib import Path
from typing import Any

from tools.site import api, gallery, keys, pages, tutorials

__all__ = ["PACKAGE", "after", "generated", "titles"]

PACKAGE = pages.ROOT / "shared" / "pretext3d"


def titles(root: Path = pages.ROOT) -> dict[str, str]:
    """The title of each bundle's page by the bundle's name."""
    return {
        bundle.name: (bundle / "docs" / "README.md").read_text().split("\n", 1)[0].removeprefix("# ")
        for bundle in pages.bundles(root)
    }


def generated(pictures: bool, root: Path = pages.ROOT) -> dict[str, str]:
    """The pages: address to Markdown.

    Args:
        pictures: Whether the gallery has pictures.
        root: Folder of the repository.
    """
    from tools.site import commands, messages  # only a build needs what they import

    bundles, named = tuple(pages.bundles(root)), titles(root)
    found = {
        "reference/keys.md": keys.common_page(bundles),
        "reference/commands.md": commands.commands_page(),
        "reference/errors.md": messages.errors_page(PACKAGE),
        "gallery.md": gallery.gallery_page(named, pictures),
    }
    found |= {
        f"reference/keys/{bundle.name}.md": keys.bundle_page(bundle, named[bundle.name], bundles)
        for bundle in bundles
    }
    scripts = [root / path for path in pages.lessons(root)]
    found |= {"tutorials/index.md": tutorials.index_page(scripts)} if scripts else {}
    return found | api.api_pages(PACKAGE)


def after(root: Path = pages.ROOT) -> dict[str, list[Any]]:
    """Entries of the navigation whose number is not known in mkdocs.yml, by the address that they follow.

    Args:
        root: Folder of the repository.
    """
    reports = sorted((root / "docs" / "studies").glob("*/RESULTS.md"))
    lessons = list(pages.lessons(root).values())
    return {
        "index.md": [{"Tutorials": ["tutorials/index.md", *lessons]}] if lessons else [],
        "studies/README.md": [
            {f"Study: {path.parent.name}": path.relative_to(root / "docs").as_posix()} for path in reports
        ],
        "reference/keys.md": [{f"Keys of {name}": f"reference/keys/{name}.md"} for name in titles(root)],
        "reference/errors.md": [
            {"API": [{address.split("/")[-1][:-3]: address} for address in api.api_pages(PACKAGE)]}
        ],
    }

"""Pages of the API reference: one per package of `pretext3d`, written by mkdocstrings from the source.

The commands have a page of their own.
"""

from pathlib import Path

__all__ = ["api_pages", "api_sources"]


def packages(package: Path) -> dict[str, list[str]]:
    """The modules of each folder, by the folder's dotted name; without `commands` and `__init__`."""
    found: dict[str, list[str]] = {}
    for path in sorted(package.rglob("*.py")):
        parts = path.relative_to(package.parent).with_suffix("").parts
        if not parts[-1].startswith("__") and parts[1] != "commands":
            found.setdefault(".".join(parts[:-1]), []).append(".".join(parts))
    return found


def api_pages(package: Path) -> dict[str, str]:
    """The pages: address to Markdown.

    Args:
        package: Folder of the package.
    """
    return {
        f"reference/api/{name}.md": "\n".join(
            [f"# {name}\n", *(f"::: {module}\n    options:\n      heading_level: 2\n" for module in modules)]
        )
        for name, modules in packages(package).items()
    }


def api_sources(package: Path) -> dict[str, str]:
    """Where the package's folders and modules are in the site: path in the repository to address.

    Args:
        package: Folder of the package, `shared/pretext3d` in the repository.
    """
    found = {"shared/pretext3d/commands": "reference/commands.md"}
    for name, modules in packages(package).items():
        address = f"reference/api/{name}.md"
        found["shared/" + name.replace(".", "/")] = address
        found |= {f"shared/{module.replace('.', '/')}.py": address for module in modules}
    return found

"""Pages of the tutorials: scripts in jupytext's percent format, notebooks, too. They are not executed."""

from collections.abc import Iterable
from pathlib import Path

import jupytext

__all__ = ["index_page", "tutorial_page"]


def index_page(paths: Iterable[Path]) -> str:
    """The page that lists the tutorials by their headings.

    Args:
        paths: Paths of the scripts.
    """
    titles = {path.stem: tutorial_page(path).split("\n", 1)[0].lstrip("# ") for path in paths}
    listed = [f"- [{title}]({name}.md): `python tutorials/{name}.py`" for name, title in titles.items()]
    return (
        "# Tutorials\n\nScripts, and notebooks of jupytext's percent format; each takes about a minute.\n\n"
        + ("\n".join(listed) + "\n")
    )


def tutorial_page(path: Path) -> str:
    """A tutorial as Markdown: its text, and its code as blocks.

    Args:
        path: Path of the script.
    """
    cells = jupytext.read(path, fmt="py:percent").cells
    parts = [
        cell.source if cell.cell_type == "markdown" else f"```python\n{cell.source}\n```"
        for cell in cells
        if cell.source.strip()
    ]
    return "\n\n".join(parts) + "\n"

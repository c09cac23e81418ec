"""Pages of the tutorials: scripts in jupytext's percent format, notebooks, too. They are not executed."""

from pathlib import Path

import jupytext

__all__ = ["tutorial_page"]


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

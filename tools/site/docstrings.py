"""An extension of griffe, which reads docstrings for mkdocstrings: lists as Python-Markdown reads them."""

import sys
from pathlib import Path
from typing import Any

import griffe

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # griffe imports this file by its path

from tools.site.dialect import apart


class Lists(griffe.Extension):
    """A blank line before each list."""

    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        """As griffe calls it, for every object with or without a docstring."""
        if obj.docstring is not None:
            obj.docstring.value = apart(obj.docstring.value)

"""Pretext tasks that pre-train 3D medical-imaging networks without labels, as MONAI components."""

import os
from typing import TYPE_CHECKING

from pretext3d.version import __version__ as __version__

# Every training step on a CPU allocates its tensors again. With this, torch asks Linux for pages of 2 MiB,
# not 4 KiB: up to a fifth less time (tests/benchmarks/bench_huge_pages.py). It is read at the first tensor.
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")

if TYPE_CHECKING:
    from pretext3d.publishing.download import download as download
    from pretext3d.publishing.opening import load_pretrained as load_pretrained
else:
    LAZY = {"download": "pretext3d.publishing.download", "load_pretrained": "pretext3d.publishing.opening"}

    def __getattr__(name: str) -> object:
        """A function that is imported on first use, so that `import pretext3d` stays fast."""
        if name in LAZY:
            import importlib

            return getattr(importlib.import_module(LAZY[name]), name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

    def __dir__() -> list[str]:
        """The names of this module, those that are imported on first use too."""
        return sorted([*globals(), *LAZY])

"""Pretext tasks that pre-train 3D medical-imaging networks without labels, as MONAI components."""

from typing import TYPE_CHECKING

from pretext3d.version import __version__ as __version__

if TYPE_CHECKING:
    from pretext3d.publishing.download import download as download
else:

    def __getattr__(name: str) -> object:
        """`pretext3d.download`, imported on first use, so that `import pretext3d` stays fast."""
        if name == "download":
            from pretext3d.publishing.download import download

            return download
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

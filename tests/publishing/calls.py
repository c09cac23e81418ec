"""Downloads of the bundle `tiny` from a server, and what they left."""

from pathlib import Path

from pretext3d.publishing.download import download

from tests.publishing.server import FolderServer

ZIP = "tiny_v0.1.0.zip"


def get(server: FolderServer, there: Path, **options: object) -> Path:
    return download("tiny", server.url, there, progress=False, **options)  # type: ignore[arg-type]


def leftovers(there: Path) -> list[str]:
    return sorted(path.name for path in there.iterdir() if path.name.startswith("."))


def weights(there: Path) -> bytes:
    return (there / "tiny" / "models" / "model.pt").read_bytes()

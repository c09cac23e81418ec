"""A folder of packed bundles, and a server of it that never waits."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from pretext3d.publishing import transfer

from tests.publishing.archives import write_bundle, write_index
from tests.publishing.server import FolderServer, serving


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transfer, "PAUSE", 0.0)
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Packed bundles with their index."""
    write_bundle(tmp_path / "dist")
    write_index(tmp_path / "dist")
    return tmp_path / "dist"


@pytest.fixture
def server(folder: Path) -> Iterator[FolderServer]:
    with serving(folder) as server:
        yield server

"""Packed bundles as small as they can be, and ones that must not be unpacked."""

import json
import zipfile
from pathlib import Path

from pretext3d.publishing.index import INDEX, make_index

NOISE = bytes(range(256)) * 400  # 100 kB: more than one block of a transfer that dies early


def metadata(version: str) -> str:
    return json.dumps({"version": version, "changelog": {version: "first"}})


def write_bundle(
    folder: Path, name: str = "tiny", version: str = "0.1.0", extra: dict[str, bytes] | None = None
) -> Path:
    """A zip of a bundle with metadata, one file of weights, and `extra` members by their whole names."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}_v{version}.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{name}/configs/metadata.json", metadata(version))
        archive.writestr(f"{name}/models/model.pt", version.encode() + NOISE)
        for member, content in (extra or {}).items():
            archive.writestr(member, content)
    return path


def write_index(folder: Path, base_url: str = "", **changes: object) -> dict[str, dict[str, object]]:
    """The folder's index, each entry with `changes`."""
    index = {key: {**entry, **changes} for key, entry in make_index(folder, base_url).items()}
    (folder / INDEX).write_text(json.dumps(index))
    return index

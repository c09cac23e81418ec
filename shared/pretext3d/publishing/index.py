"""The index of a folder of packed bundles: `model_info.json`, as in MONAI's model zoo.

    {"vectorpose_v0.1.0": {"checksum": ..., "source": ..., "sha256": ..., "size": ..., "unpacked_size": ...}}

`checksum` (SHA-1) and `source` are the keys of the model zoo's entries. `source` is a file name next to the
index, or a URL. Sizes are in bytes. What this package downloads is checked against `sha256` and the sizes.
"""

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pretext3d.checking import closest_hint, integer
from pretext3d.errors import UserError
from pretext3d.files import sha256_of
from pretext3d.publishing.archive import (
    json_object,
    open_archive,
    split_archive_name,
    version_order,
)
from pretext3d.publishing.transfer import check_url, is_url

__all__ = ["INDEX", "Entry", "choose", "make_index", "read_index"]

INDEX = "model_info.json"
_FILE_NAME = re.compile(r"[\w.-]+\.zip", re.ASCII)


@dataclass(frozen=True)
class Entry:
    """One packed bundle of an index.

    Attributes:
        name: Name of the bundle.
        version: Version, three numbers.
        source: File name next to the index, or an http(s) URL.
        sha256: SHA-256 of the zip, in hexadecimal.
        size: Size of the zip in bytes; 0 = not given.
        unpacked_size: Size of its files in bytes; 0 = not given.
    """

    name: str
    version: str
    source: str
    sha256: str
    size: int = 0
    unpacked_size: int = 0


def make_index(folder: Path, base_url: str = "") -> dict[str, dict[str, Any]]:
    """The index of every packed bundle in a folder, by name and version.

    Args:
        folder: Folder of the zips.
        base_url: URL that they will be served from; '' = next to the index.

    Raises:
        UserError: a zip that cannot be read.
    """
    index: dict[str, dict[str, Any]] = {}
    zips = [(split_archive_name(path.name), path) for path in folder.glob("*.zip")]
    for key, path in sorted((key, path) for key, path in zips if key is not None):
        try:
            with open_archive(path) as archive:
                unpacked = sum(member.file_size for member in archive.infolist())
            with path.open("rb") as file:
                sha1 = hashlib.file_digest(file, "sha1").hexdigest()
        except OSError as error:
            raise UserError(f"{path}: is not a readable zip: {error}") from error
        index[f"{key[0]}_v{key[1]}"] = {
            "checksum": sha1,
            "source": f"{base_url.rstrip('/')}/{path.name}" if base_url else path.name,
            "sha256": sha256_of(path),
            "size": path.stat().st_size,
            "unpacked_size": unpacked,
        }
    return index


def read_index(text: bytes, where: str) -> list[Entry]:
    """The entries of an index.

    Args:
        text: Content of the file.
        where: Path or URL of the file, for messages.

    Raises:
        UserError: not JSON, or an invalid entry.
    """
    return [_entry(key, value, where) for key, value in json_object(text, where).items()]


def _entry(key: str, value: Any, where: str) -> Entry:
    """An entry of an index; an error for one that is not as `pack.py` writes it."""
    known = split_archive_name(f"{key}.zip")
    if known is None:
        raise UserError(f"{where}: found the key {key!r}, expected <name>_v<version>")
    value = value if isinstance(value, dict) else {}
    source, sha256 = value.get("source"), value.get("sha256")
    sizes = [value.get(name, 0) for name in ("size", "unpacked_size")]
    if not isinstance(source, str) or not (_FILE_NAME.fullmatch(source) or is_url(source)):
        raise UserError(
            f"{where}: {key}: source: found {source!r}, expected a file name next to the index, or an "
            "http(s) URL"
        )
    if is_url(source):
        check_url(source, f"{where}: {key}: source")
    if not isinstance(sha256, str) or not re.fullmatch(r"[0-9a-f]{64}", sha256):
        raise UserError(f"{where}: {key}: sha256: found {sha256!r}, expected 64 hexadecimal digits")
    for name, size in zip(("size", "unpacked_size"), sizes, strict=True):
        integer(f"{where}: {key}: {name}", size, minimum=0, expected="a number of bytes")
    return Entry(*known, source, sha256, *sizes)


def choose(entries: list[Entry], name: str, version: str | None, where: str) -> Entry:
    """The entry of a bundle: of the given version, or the newest.

    Raises:
        UserError: no such bundle or version; lists the available ones.
    """
    versions = {entry.version: entry for entry in entries if entry.name == name}
    if not versions:
        names = sorted({entry.name for entry in entries})
        hint = closest_hint(name, names, "did you mean {}?")
        hint = hint or f"expected one of {', '.join(names) or 'none'}"
        raise UserError(f"name: found {name!r}, which {where} does not have; {hint}")
    newest = max(versions, key=version_order)
    if (version or newest) not in versions:
        there = ", ".join(sorted(versions, key=version_order))
        raise UserError(f"version: found {version!r}, expected one of {there} for {name} in {where}")
    return versions[version or newest]

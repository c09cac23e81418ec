"""The zip of a bundle: its name, what may be in it, and unpacking it so that nothing else can come along.

A packed bundle is `<name>_v<version>.zip` with one top folder `<name>/`. `check_members` judges the whole
list of an archive before a byte of it is unpacked.
"""

import contextlib
import hashlib
import json
import re
import stat
import struct
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from pretext3d.errors import UserError
from pretext3d.files import sha256_of
from pretext3d.publishing.contents import bad_name, leftover, same_name

__all__ = [
    "MAX_UNPACKED_BYTES",
    "archive_name",
    "check_changelog",
    "check_members",
    "check_name",
    "check_version",
    "differing_files",
    "json_object",
    "open_archive",
    "read_metadata",
    "requirements",
    "split_archive_name",
    "unpack",
    "version_order",
]

MAX_FILES = 10_000
MAX_UNPACKED_BYTES = 4 * 2**30  # of an unpacked bundle
METADATA = "configs/metadata.json"
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
_VERSION = re.compile(r"\d+\.\d+\.\d+", re.ASCII)
_PACKAGE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")  # as a requirement's name
_PIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*")
# what zipfile and zlib make of damaged bytes, and of names that are no text
_DAMAGE = (
    zipfile.BadZipFile, zlib.error, struct.error, EOFError, NotImplementedError, OverflowError, RuntimeError,
    ValueError,
)  # fmt: skip


def check_name(name: str, where: str = "name") -> str:
    """The name, if a bundle may be called so.

    Raises:
        UserError: characters that a folder, a URL or MONAI's index would trip over: MONAI takes what follows
            the first `_v` for the version. Begins with `where`.
    """
    if not isinstance(name, str) or not _NAME.fullmatch(name) or "_v" in name:
        raise UserError(
            f"{where}: found {name!r}, expected a letter, then letters, digits and underscores, without '_v'"
        )
    return name


def check_version(version: Any, where: str = "version") -> str:
    """The version, if it is one: three numbers.

    Raises:
        UserError: it is none; begins with `where`.
    """
    if not isinstance(version, str) or not _VERSION.fullmatch(version):
        raise UserError(f"{where}: found {version!r}, expected three numbers, as 0.1.0")
    return version


def version_order(version: str) -> tuple[int, ...]:
    """What versions are sorted by: 0.10.0 comes after 0.9.0.

    >>> max(["0.9.0", "0.10.0"], key=version_order)
    '0.10.0'
    """
    return tuple(int(number) for number in version.split("."))


def archive_name(name: str, version: str) -> str:
    """The file name of a packed bundle.

    >>> archive_name("jigsaw", "0.1.0")
    'jigsaw_v0.1.0.zip'
    """
    return f"{name}_v{version}.zip"


def split_archive_name(file_name: str) -> tuple[str, str] | None:
    """Name and version of a packed bundle's file name; None for any other file.

    >>> split_archive_name("jigsaw_v0.1.0.zip")
    ('jigsaw', '0.1.0')
    """
    name, mark, version = file_name.removesuffix(".zip").partition("_v")
    known = file_name.endswith(".zip") and mark and _NAME.fullmatch(name) and _VERSION.fullmatch(version)
    return (name, version) if known else None


def json_object(text: bytes, where: str) -> dict[str, Any]:
    """A JSON object from a file's bytes.

    Raises:
        UserError: no JSON, nested without end, or no object; begins with `where`.
    """
    try:
        content = json.loads(text)
    except ValueError as error:
        raise UserError(f"{where}: is no JSON: {error}") from error
    except RecursionError as error:
        raise UserError(f"{where}: is nested too deeply, expected a plain JSON object") from error
    if not isinstance(content, dict):
        raise UserError(f"{where}: found {type(content).__name__}, expected a JSON object")
    return content


def read_metadata(path: Path) -> dict[str, Any]:
    """A bundle's metadata.json.

    Raises:
        UserError: not there, or no JSON object.
    """
    try:
        text = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: not found; expected a bundle's metadata") from error
    return json_object(text, str(path))


def check_changelog(metadata: Mapping[str, Any], where: str) -> str:
    """The version of a metadata.json, if its changelog tells of it.

    Raises:
        UserError: no version, no changelog by version, or one without this version; begins with `where`.
    """
    version = check_version(metadata.get("version"), f"{where}: version")
    changelog = metadata.get("changelog")
    if not isinstance(changelog, dict):
        found = type(changelog).__name__
        raise UserError(f"{where}: changelog: found {found}, expected an object with an entry a version")
    if version not in changelog:
        raise UserError(
            f"{where}: version: found {version}, expected one that `changelog` has: "
            f"{', '.join(changelog) or 'it is empty'}"
        )
    return version


def requirements(metadata: Mapping[str, Any], where: str = "metadata.json") -> list[str]:
    """What a bundle's metadata.json asks for, as pip takes it, in the order of the names.

    Raises:
        UserError: a name or version that pip would take for something else; begins with `where`.
    """
    others = metadata.get("required_packages_version")
    if not isinstance(others, dict | None):
        raise UserError(
            f"{where}: required_packages_version: found {type(others).__name__}, expected names and versions"
        )
    pins = {
        "monai": metadata.get("monai_version"),
        "torch": metadata.get("pytorch_version"),
        "numpy": metadata.get("numpy_version"),
        **(others or {}),
    }
    for name, version in pins.items():
        if not _PACKAGE.fullmatch(name):
            raise UserError(
                f"{where}: required_packages_version: found the name {name!r}, expected letters, digits "
                "and . _ -"
            )
        if not isinstance(version, str) or not _PIN.fullmatch(version):
            raise UserError(f"{where}: version of {name}: found {version!r}, expected one, as 1.2.3")
    return [f"{name}=={version}" for name, version in sorted(pins.items())]


@contextlib.contextmanager
def open_archive(path: Path) -> Iterator[zipfile.ZipFile]:
    """A zip to read from, while the block runs.

    Raises:
        UserError: it, or what the block reads of it, is damaged.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            yield archive
    except UserError:
        raise
    except _DAMAGE as error:
        raise UserError(f"{path.name}: is no whole zip: {' '.join(str(error).split())}") from error


def _complaint(member: zipfile.ZipInfo, name: str) -> str:
    """What is wrong with one member of an archive; '' for nothing."""
    raw = member.orig_filename  # zipfile cuts its own copy at a NUL and turns the system's separators round
    parts = PurePosixPath(raw).parts
    kind = stat.S_IFMT(member.external_attr >> 16)
    if bad := bad_name(raw):
        return bad
    if raw.startswith("/") or ".." in parts or "." in raw.split("/") or "//" in raw:
        return "a name that leads elsewhere"
    if not parts or parts[0] != name:
        return f"not in the folder {name}/"
    if len(parts) == 1 and not member.is_dir():
        return f"a file where the folder {name}/ should be"
    if len(parts) > 1 and (unexpected := leftover("/".join(parts[1:]), member.is_dir())):
        return unexpected
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        return "a link or device"
    if member.flag_bits & 1:
        return "encrypted"
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        return "packed by a method whose size cannot be told beforehand, expected stored or deflated"
    return ""


def check_members(
    archive: zipfile.ZipFile, name: str, max_bytes: int = MAX_UNPACKED_BYTES
) -> list[zipfile.ZipInfo]:
    """The files of a bundle's archive, if there is nothing in it but the folder `name/`.

    Args:
        archive: the open zip.
        name: of the bundle.
        max_bytes: of all files unpacked.

    Raises:
        UserError: names the first member that must not be there, or the size that is too much.
    """
    where = Path(str(archive.filename)).name
    members = archive.infolist()
    if len(members) > MAX_FILES:
        raise UserError(f"{where}: found {len(members)} files, expected {MAX_FILES} at most")
    for member in members:
        complaint = _complaint(member, name)
        if complaint:
            raise UserError(f"{where}: found {member.orig_filename!r}: {complaint}; nothing was unpacked")
    counts = Counter(same_name(member.filename.rstrip("/")) for member in members)
    twice = sorted(one for one, count in counts.items() if count > 1)
    files = [member for member in members if not member.is_dir()]
    taken = {same_name(member.filename) for member in files}
    inside = sorted(taken & {str(parent) for one in taken for parent in PurePosixPath(one).parents})
    if twice or inside:
        raise UserError(f"{where}: found {(twice + inside)[0]!r} twice; nothing was unpacked")
    size = sum(member.file_size for member in files)
    if size > max_bytes:
        raise UserError(
            f"{where}: found {size:,} bytes when unpacked, expected {max_bytes:,} at most; nothing was "
            "unpacked"
        )
    return files


def unpack(
    path: Path, folder: Path, name: str, version: str = "", max_bytes: int = MAX_UNPACKED_BYTES
) -> dict[str, str]:
    """Unpack a bundle's archive into a new folder.

    Args:
        path: the zip.
        folder: takes the place of the zip's top folder; must not be there yet.
        name: of the bundle.
        version: what its metadata must say; '' = any.
        max_bytes: see `check_members`.

    Returns:
        SHA-256 of each file, by its name in the folder.

    Raises:
        UserError: the zip is damaged or is not that bundle.
    """
    found: dict[str, str] = {}
    with open_archive(path) as archive:
        for member in check_members(archive, name, max_bytes):
            inner = str(PurePosixPath(member.filename).relative_to(name))
            target = folder / inner
            target.parent.mkdir(parents=True, exist_ok=True)
            digest = hashlib.sha256()
            with archive.open(member) as source, target.open("xb") as sink:
                while block := source.read(2**20):
                    digest.update(block)
                    sink.write(block)
            found[inner] = digest.hexdigest()
    if METADATA not in found:
        raise UserError(f"{path.name}: has no {name}/{METADATA}; expected a bundle")
    told = read_metadata(folder / METADATA).get("version")
    if version and told != version:
        raise UserError(f"{path.name}: version: found {told!r} in its metadata, expected {version!r}")
    return found


def differing_files(folder: Path, files: Mapping[str, str]) -> list[str]:
    """Files of a folder that are not those of `files` (names and SHA-256): changed, added, missing.

    Bytecode that Python has written, `__pycache__/*.pyc`, is not looked at.
    """
    here = {
        path.relative_to(folder).as_posix(): path
        for path in folder.rglob("*")
        if (path.is_file() or path.is_symlink())
        and not (path.parent.name == "__pycache__" and path.suffix == ".pyc")
    }
    changed = [name for name, path in here.items() if path.is_symlink() or files.get(name) != sha256_of(path)]
    return sorted({*changed, *(set(files) - set(here))})

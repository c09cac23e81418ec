"""The zip of a bundle: its name, its permitted content, and unpacking it without anything else.

A packed bundle is `<name>_v<version>.zip` with one top folder `<name>/`. `check_members` checks the complete
list of an archive before any byte is unpacked.
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
MAX_UNPACKED_BYTES = 4 * 2**30  # size of an unpacked bundle
METADATA = "configs/metadata.json"
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
_VERSION = re.compile(r"\d+\.\d+\.\d+", re.ASCII)
_PACKAGE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")  # name of a requirement
_PIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*")
# what zipfile and zlib raise for damaged bytes, and for names that are not text
_DAMAGE = (
    zipfile.BadZipFile, zlib.error, struct.error, EOFError, NotImplementedError, OverflowError, RuntimeError,
    ValueError,
)  # fmt: skip


def check_name(name: str, where: str = "name") -> str:
    """The name, if it is valid for a bundle.

    Raises:
        UserError: characters that a folder, a URL or MONAI's index cannot handle: MONAI takes what follows
            the first `_v` as the version. Begins with `where`.
    """
    if not isinstance(name, str) or not _NAME.fullmatch(name) or "_v" in name:
        raise UserError(
            f"{where}: found {name!r}, expected a letter, then letters, digits and underscores, without '_v'"
        )
    return name


def check_version(version: Any, where: str = "version") -> str:
    """The version, if it is valid: three numbers.

    Raises:
        UserError: it is not; begins with `where`.
    """
    if not isinstance(version, str) or not _VERSION.fullmatch(version):
        raise UserError(f"{where}: found {version!r}, expected three numbers, as 0.1.0")
    return version


def version_order(version: str) -> tuple[int, ...]:
    """The sort key of a version: 0.10.0 comes after 0.9.0.

    Examples:
        >>> max(["0.9.0", "0.10.0"], key=version_order)
        '0.10.0'
    """
    return tuple(int(number) for number in version.split("."))


def archive_name(name: str, version: str) -> str:
    """The file name of a packed bundle.

    Examples:
        >>> archive_name("jigsaw", "0.1.0")
        'jigsaw_v0.1.0.zip'
    """
    return f"{name}_v{version}.zip"


def split_archive_name(file_name: str) -> tuple[str, str] | None:
    """Name and version from a packed bundle's file name; None for any other file.

    Examples:
        >>> split_archive_name("jigsaw_v0.1.0.zip")
        ('jigsaw', '0.1.0')
    """
    name, mark, version = file_name.removesuffix(".zip").partition("_v")
    known = file_name.endswith(".zip") and mark and _NAME.fullmatch(name) and _VERSION.fullmatch(version)
    return (name, version) if known else None


def json_object(text: bytes, where: str) -> dict[str, Any]:
    """A JSON object from a file's bytes.

    Raises:
        UserError: not JSON, nested too deeply, or not an object; begins with `where`.

    Examples:
        >>> json_object(b'{"size": 3}', "model_info.json")
        {'size': 3}
    """
    try:
        content = json.loads(text)
    except ValueError as error:
        raise UserError(f"{where}: is not JSON: {error}") from error
    except RecursionError as error:
        raise UserError(f"{where}: is nested too deeply, expected a plain JSON object") from error
    if not isinstance(content, dict):
        raise UserError(f"{where}: found {type(content).__name__}, expected a JSON object")
    return content


def read_metadata(path: Path) -> dict[str, Any]:
    """A bundle's metadata.json.

    Raises:
        UserError: the file is missing, or not a JSON object.
    """
    try:
        text = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: not found; expected a bundle's metadata") from error
    return json_object(text, str(path))


def check_changelog(metadata: Mapping[str, Any], where: str) -> str:
    """The version of a metadata.json, if its changelog has an entry for it.

    Raises:
        UserError: no version, no changelog by version, or one without this version; begins with `where`.
    """
    version = check_version(metadata.get("version"), f"{where}: version")
    changelog = metadata.get("changelog")
    if not isinstance(changelog, dict):
        found = type(changelog).__name__
        raise UserError(f"{where}: changelog: found {found}, expected an object with an entry per version")
    if version not in changelog:
        raise UserError(
            f"{where}: version: found {version}, expected one that `changelog` has: "
            f"{', '.join(changelog) or 'it is empty'}"
        )
    return version


def requirements(metadata: Mapping[str, Any], where: str = "metadata.json") -> list[str]:
    """The requirements in a bundle's metadata.json, in pip's form, sorted by name.

    Raises:
        UserError: a name or version that pip would interpret differently; begins with `where`.

    Examples:
        >>> requirements({"monai_version": "1.5.0", "pytorch_version": "2.8.0", "numpy_version": "2.1.0"})
        ['monai==1.5.0', 'numpy==2.1.0', 'torch==2.8.0']
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
    """A zip, open for reading while the block runs.

    Raises:
        UserError: the zip, or what the block reads from it, is damaged.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            yield archive
    except UserError:
        raise
    except _DAMAGE as error:
        raise UserError(f"{path.name}: is not a complete zip: {' '.join(str(error).split())}") from error


def _complaint(member: zipfile.ZipInfo, name: str) -> str:
    """What is wrong with one member of an archive; '' for nothing."""
    raw = member.orig_filename  # zipfile cuts its own copy at a NUL and converts the system's separators
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
        return "packed by a method whose size is not known beforehand, expected stored or deflated"
    return ""


def check_members(
    archive: zipfile.ZipFile, name: str, max_bytes: int = MAX_UNPACKED_BYTES
) -> list[zipfile.ZipInfo]:
    """The files of a bundle's archive, if it contains nothing but the folder `name/`.

    Args:
        archive: Open zip.
        name: Name of the bundle.
        max_bytes: Limit on the total size of the unpacked files.

    Raises:
        UserError: names the first member that is not allowed, or the size if it is too large.
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
        path: Path of the zip.
        folder: Folder that replaces the zip's top folder; must not exist yet.
        name: Name of the bundle.
        version: Version that its metadata must have; '' = any.
        max_bytes: Limit on the unpacked size, see `check_members`.

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
    stated = read_metadata(folder / METADATA).get("version")
    if version and stated != version:
        raise UserError(f"{path.name}: version: found {stated!r} in its metadata, expected {version!r}")
    return found


def differing_files(folder: Path, files: Mapping[str, str]) -> list[str]:
    """Files of a folder that differ from `files` (names and SHA-256): changed, added or missing.

    Bytecode that Python has written, `__pycache__/*.pyc`, is ignored.
    """
    here = {
        path.relative_to(folder).as_posix(): path
        for path in folder.rglob("*")
        if (path.is_file() or path.is_symlink())
        and not (path.parent.name == "__pycache__" and path.suffix == ".pyc")
    }
    changed = [name for name, path in here.items() if path.is_symlink() or files.get(name) != sha256_of(path)]
    return sorted({*changed, *(set(files) - set(here))})

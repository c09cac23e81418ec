"""Downloads of packed bundles: checked against the index, and either complete or not there at all.

In the folder that a bundle is downloaded into, `.<name>_v<version>.<digits>.part` is the received part of
an interrupted transfer, `.<name>.draft` the bundle that is being unpacked, `.<name>.old` the one that is
being replaced, and `.<name>.lock` exists while a process works there.
"""

import contextlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urljoin

import filelock

from pretext3d.errors import UserError
from pretext3d.files import locked, sha256_of
from pretext3d.publishing.archive import (
    MAX_UNPACKED_BYTES,
    check_name,
    check_version,
    differing_files,
    json_object,
    unpack,
    version_order,
)
from pretext3d.publishing.index import INDEX, Entry, choose, read_index
from pretext3d.publishing.transfer import LIMITS, Limits, check_url, fetch, is_url, read_small

__all__ = ["download"]

RECORD = (
    ".download.json"  # in the bundle's folder: version, sha256, and the files that the download put there
)
MAX_EXCESS_BYTES = 2**20  # bytes by which an archive may exceed the index's size


def download(
    name: str,
    source: str | Path,
    output_dir: str | Path = ".",
    version: str | None = None,
    force: bool = False,
    progress: bool = True,
    limits: Limits = LIMITS,
) -> Path:
    """Download a packed bundle and unpack it.

    The zip is checked against the SHA-256 and the size in the index, and unpacked next to its target; only
    then is it moved there. Whatever fails, an earlier version stays. The next call resumes an interrupted
    transfer. A bundle that is already there, in the same version and unchanged, is not downloaded again.

    Args:
        name: Name of the bundle, e.g. vectorpose.
        source: URL or folder of the packed bundles and their index, or the index itself.
        output_dir: Folder that receives the bundle, as `output_dir/name`.
        version: Version, three numbers; None = the newest.
        force: Whether to replace a folder `output_dir/name` that has files from elsewhere, or a newer version
            than the index.
        progress: Whether to show a progress bar.
        limits: How slow a server may be.

    Returns:
        The bundle's folder.

    Raises:
        UserError: no such bundle or version, an interrupted transfer, a file that does not match the index or
            has content that no bundle has, or a folder in the way.
    """
    check_name(name)
    if version is not None:
        check_version(version)
    index = _index_of(str(source))
    entry = choose(read_index(read_small(index, limits), index), name, version, index)
    folder = Path(output_dir).expanduser()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _alone(folder, name):
            _recover(folder, name)
            if not _is_there(folder / name, entry, force or version is not None, force):
                part = folder / f".{name}_v{entry.version}.{entry.sha256[:12]}.part"
                _bring(_location(index, entry), part, entry, progress, limits)
                _install(part, folder, entry)
    except OSError as error:
        raise UserError(f"output_dir: {folder} cannot be written: {error}") from error
    return folder / name


@contextlib.contextmanager
def _alone(folder: Path, name: str) -> Iterator[None]:
    """Prevent other processes from downloading the same bundle to the same folder at the same time.

    Raises:
        UserError: another process does so.
    """
    path = folder / f".{name}.lock"
    if path.is_symlink():
        raise UserError(f"output_dir: {path}: found a link, expected a file or nothing")
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(locked(path, wait=False))
        except filelock.Timeout as error:
            raise UserError(f"output_dir: {folder}: another download of {name} is under way there") from error
        yield


def _index_of(source: str) -> str:
    """Path or URL of the index that a user means.

    Raises:
        UserError: not a URL, or a folder without an index.
    """
    if "://" in source:
        check_url(source)
    if source.endswith(".json"):
        return source
    if is_url(source):
        return source.rstrip("/") + "/" + INDEX
    folder = Path(source).expanduser()
    if not (folder / INDEX).is_file():
        raise UserError(f"source: {source}: has no {INDEX}; expected a folder or URL of packed bundles")
    return str(folder / INDEX)


def _location(index: str, entry: Entry) -> str:
    """Path or URL of an entry's zip; one without a scheme is relative to the index."""
    if is_url(entry.source):
        return entry.source
    return urljoin(index, entry.source) if is_url(index) else str(Path(index).with_name(entry.source))


def _bring(location: str, part: Path, entry: Entry, progress: bool, limits: Limits) -> None:
    """Fill `part`, and make sure that it matches the index."""
    if not entry.size:
        raise UserError(
            f"{entry.name}_v{entry.version}: size: found none in the index, expected a number of bytes"
        )
    if entry.size > MAX_UNPACKED_BYTES:
        raise UserError(
            f"{entry.name}_v{entry.version}: size: found {entry.size:,} in the index, expected at most "
            f"{MAX_UNPACKED_BYTES:,}"
        )
    for _ in range(2):
        resumed = part.is_file() and part.stat().st_size > 0
        fetch(location, part, entry.size, progress, limits)
        found = sha256_of(part)
        if found == entry.sha256:
            return
        part.unlink()
        if not resumed:  # the damage may be in what an earlier transfer left
            break
    raise UserError(f"{location}: sha256: found {found}, expected {entry.sha256} as the index says")


def _is_there(place: Path, entry: Entry, any_version: bool, force: bool) -> bool:
    """Whether exactly this bundle is there and unchanged.

    Args:
        place: Folder of the bundle.
        entry: Entry that the folder should match.
        any_version: Whether an older version may replace a newer one.
        force: Whether files from elsewhere may be removed.

    Raises:
        UserError: a replacement would destroy other files, or a newer version.
    """
    if not place.exists() and not place.is_symlink():
        return False
    if place.is_symlink() or not place.is_dir():
        raise UserError(f"output_dir: {place} is not a folder; expected a bundle or nothing")
    record: dict[str, object] = {}
    there = ""
    with contextlib.suppress(OSError, UserError):
        record = json_object((place / RECORD).read_bytes(), RECORD)
    files = record.get("files")
    known = {str(key): str(value) for key, value in files.items()} if isinstance(files, dict) else {}
    others = [one for one in differing_files(place, known) if one != RECORD]
    if not others and record.get("sha256") == entry.sha256:
        return True
    with contextlib.suppress(UserError):  # a record from elsewhere
        there = check_version(record.get("version"))
    if there and version_order(there) > version_order(entry.version) and not any_version:
        raise UserError(
            f"output_dir: {place}: found version {there}, expected none newer than the index's, "
            f"{entry.version}; give the version, or force, to go back to it"
        )
    lost = [one for one in others if (place / one).exists()]  # missing files are not lost by a replacement
    if lost and not force:
        raise UserError(
            f"output_dir: {place}: found {len(lost)} files that are not from a download ({lost[0]}), "
            "expected none; move them elsewhere, or give force"
        )
    return False


def _install(part: Path, folder: Path, entry: Entry) -> None:
    """Unpack next to the bundle's folder, then rename; the old bundle is restored if that fails."""
    place, draft, old = (folder / one for one in (entry.name, f".{entry.name}.draft", f".{entry.name}.old"))
    try:
        draft.mkdir()
        most = (
            min(entry.unpacked_size + MAX_EXCESS_BYTES, MAX_UNPACKED_BYTES)
            if entry.unpacked_size
            else MAX_UNPACKED_BYTES
        )
        files = unpack(part, draft, entry.name, entry.version, most)
        record = {"version": entry.version, "sha256": entry.sha256, "files": files}
        (draft / RECORD).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
        if place.exists():
            place.rename(old)
        try:
            draft.rename(place)
        except OSError:
            if old.exists():
                old.rename(place)
            raise
    except UserError:
        part.unlink(missing_ok=True)  # complete and yet refused: nothing to resume
        raise
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    shutil.rmtree(old, ignore_errors=True)
    for one in folder.glob(f".{entry.name}_v*.part"):  # of this transfer, and of versions never finished
        one.unlink()


def _recover(folder: Path, name: str) -> None:
    """Clean up after a killed call: remove its draft, restore the old bundle."""
    place, draft, old = (folder / one for one in (name, f".{name}.draft", f".{name}.old"))
    if draft.exists():
        shutil.rmtree(draft)
    if old.exists() and place.exists():
        shutil.rmtree(old)
    elif old.exists():
        old.rename(place)

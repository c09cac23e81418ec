"""Bytes of volume files: plain or compressed, read to their end and checked, without trusting a header.

A header may claim any size. Before memory is taken for the voxels, the claim is compared with the size of the
file: plain data must fill it exactly, and deflate (gzip, zlib) expands to at most 1032 times its size. A
compressed stream is read to its end, where its checksum and length are compared with the data. bzip2 has no
such limit: its data are expanded once and counted, before memory is taken for them.
"""

import bz2
import math
import os
import re
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import BufferedIOBase, RawIOBase
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pretext3d.checking import brief
from pretext3d.data.faults import UNREADABLE, BadFileError, amount

__all__ = [
    "MAX_VOXELS",
    "Stream",
    "check_size",
    "data_files",
    "open_stream",
    "pointer",
    "read_parts",
    "require",
]

MAX_VOXELS = 2**31  # of one file, over all channels: 8 GiB as float32; larger files are refused
MAX_EXPANSION = 1032  # of deflate: no stream gives more bytes than this many times its own
MAX_FILES = 10_000  # data files that one header names
BLOCK = 2**22  # bytes that are expanded at once
FIRST_READ, READ = 2**13, 2**18  # bytes read at once: a header's, then the voxels'
DEFLATE = ("gzip", "zlib")
EITHER = zlib.MAX_WBITS | 32  # zlib finds out whether a stream is gzip's or its own, and checks its trailer


class Stream:
    """The bytes of an open file from its current position, expanded.

    Args:
        file: File, opened for reading in binary mode.
        encoding: One of raw, gzip, zlib and bz2.
    """

    def __init__(self, file: RawIOBase | BufferedIOBase, encoding: str = "raw") -> None:
        self.file, self.encoding = file, encoding
        self.expander: Any = self._expander()
        self.pending, self.size = b"", FIRST_READ

    def _expander(self) -> Any:
        if self.encoding == "bz2":
            return bz2.BZ2Decompressor()
        return zlib.decompressobj(EITHER) if self.encoding in DEFLATE else None

    def read(self, count: int) -> bytes:
        """The next `count` bytes, fewer at the end."""
        buffer = bytearray(count)
        return bytes(buffer[: self.readinto(memoryview(buffer))])

    def readinto(self, view: memoryview) -> int:
        """Fill a buffer as far as the stream goes; returns the number of bytes.

        Raises:
            BadFileError: If the compressed stream is damaged or incomplete.
        """
        if self.encoding == "raw":
            return self._fill(view)
        filled = 0
        while filled < len(view):
            part = self._expand(min(BLOCK, len(view) - filled))
            if not part:
                break
            view[filled : filled + len(part)] = part
            filled += len(part)
        return filled

    def _fill(self, view: memoryview) -> int:
        filled = 0
        while filled < len(view):
            count = self.file.readinto(view[filled:])
            if not count:
                break
            filled += count
        return filled

    def _expand(self, limit: int) -> bytes:
        """Some of the next bytes, at most `limit`; b'' at the end of the stream."""
        while True:
            if self.expander.eof and not self._next_member():
                return b""
            data = self.pending
            ended = False
            if not data and getattr(self.expander, "needs_input", True):
                data, self.size = self.file.read(self.size), READ
                ended = not data
            try:
                part: bytes = self.expander.decompress(data, limit)
            except (zlib.error, OSError, ValueError) as error:
                checked = "check" in str(error)  # zlib's words of a wrong CRC-32 or length
                what = "do not have their checksum or length" if checked else "are damaged"
                raise BadFileError(UNREADABLE, f"the compressed data {what}") from None
            self.pending = getattr(self.expander, "unconsumed_tail", b"")
            if part:
                return part
            if ended and not self.expander.eof:
                raise BadFileError(UNREADABLE, "the compressed data end too early")

    def _next_member(self) -> bool:
        """Begin the next part of a file of several compressed parts; zeros may fill the end of a file."""
        rest = self.expander.unused_data
        while not rest.strip(b"\0"):
            rest = self.file.read(READ)
            if not rest:
                return False
        self.pending = rest.lstrip(b"\0")
        self.expander = self._expander()
        return True

    def expect_end(self) -> None:
        """Read to the end, where a compressed stream's checksum is.

        Raises:
            BadFileError: If there is more data, or the checksum or the length is wrong.
        """
        if self.read(1):
            raise BadFileError(UNREADABLE, "more data than its header states")


@contextmanager
def open_stream(path: str) -> Iterator[Stream]:
    """The bytes of a file, expanded if it is gzip's: by its content, whatever its name."""
    with Path(path).open("rb", buffering=0) as file:
        magic = file.read(2)
        file.seek(0)
        yield Stream(file, "gzip" if magic == b"\x1f\x8b" else "raw")


def check_size(
    shape: Sequence[int], itemsize: int, available: int, encoding: str = "raw", before: int = 0
) -> None:
    """Compare the size that a header states with the size of its file, before memory is taken for it.

    Args:
        shape: Sizes of all axes, channels included.
        itemsize: Bytes per number.
        available: Size of the file, or of the part of it that holds the data, bytes.
        encoding: Encoding of the data, see `Stream`.
        before: Bytes in front of the data, of an encoding within which a header lies.

    Raises:
        BadFileError: If the data cannot be, or are not, of that size; or for more than `MAX_VOXELS`.
    """
    count = 1
    for length in shape:
        count *= int(length)
    needed = count * itemsize + before
    text = "x".join(map(str, shape))
    if count < 1:
        raise BadFileError(UNREADABLE, f"no voxels, shape {text}")
    if encoding == "raw" and needed != available:
        more = "fewer" if available < needed else "more"
        raise BadFileError(
            UNREADABLE,
            f"{more} data than its header states: {amount(available)}, {text} voxels need {amount(needed)}",
        )
    if encoding in DEFLATE and needed > MAX_EXPANSION * available:
        raise BadFileError(
            UNREADABLE,
            f"its header states {text} voxels, {amount(needed)}, which {amount(available)} cannot hold",
        )
    if count > MAX_VOXELS:
        raise BadFileError(UNREADABLE, f"{text} voxels, more than {MAX_VOXELS:,} are not read")


def read_parts(
    files: Sequence[tuple[str, int]], dtype: np.dtype[Any], shape: Sequence[int], encoding: str, skip: int = 0
) -> NDArray[Any]:
    """The numbers in one file or in several files of equal size, the first axis fastest.

    Args:
        files: Files in their order, each with the offset of its data.
        dtype: Type of the numbers.
        shape: Shape of the array.
        encoding: Encoding of the data, see `Stream`.
        skip: Bytes to skip after expansion.

    Raises:
        BadFileError: For data that are damaged, or not of that size.
    """
    sizes = [Path(path).stat().st_size - offset for path, offset in files]
    check_size(shape, dtype.itemsize, sum(sizes), encoding, skip * len(files))
    each, rest = divmod(math.prod(map(int, shape)) * dtype.itemsize, len(files))
    if rest:
        raise BadFileError(UNREADABLE, f"{len(files)} data files, which do not divide {shape}")
    for path, offset in files if encoding == "bz2" else ():
        with Path(path).open("rb", buffering=0) as file:
            file.seek(offset)
            if _skipped(Stream(file, encoding), max(skip, 0) + each) < max(skip, 0) + each:
                raise BadFileError(UNREADABLE, f"fewer data than its header states in {Path(path).name}")
    array = np.empty(shape, dtype, order="F")
    flat = memoryview(array.reshape(-1, order="F").view(np.uint8))  # type: ignore[arg-type]
    for number, (path, offset) in enumerate(files):
        with Path(path).open("rb", buffering=0) as file:
            file.seek(offset)
            stream = Stream(file, encoding)
            short = _skipped(stream, skip) < skip
            if short or stream.readinto(flat[number * each : (number + 1) * each]) < each:
                raise BadFileError(UNREADABLE, f"fewer data than its header states in {Path(path).name}")
            stream.expect_end()
    return array


def _skipped(stream: Stream, count: int) -> int:
    """The number of bytes that were skipped, fewer than `count` at the end of the stream."""
    done = 0
    while done < count:
        step = len(stream.read(min(count - done, BLOCK)))
        if not step:
            break
        done += step
    return done


def data_files(header: str, named: str, listed: Sequence[str]) -> list[str]:
    """The files that a text header names: one, a LIST, or a pattern such as `s%03d.raw 1 40 1`.

    Args:
        header: Path of the header; the names are relative to its folder.
        named: The header's entry.
        listed: Lines that follow it, the names of a LIST.

    Raises:
        BadFileError: For an entry that names no file, more than `MAX_FILES`, or one outside the folder.

    Examples:
        >>> data_files("a/b.mhd", "b.raw", []), data_files("a/b.mhd", "s%02d.raw 2 3 1", [])
        (['a/b.raw'], ['a/s02.raw', 'a/s03.raw'])
    """
    folder, words = Path(header).parent, named.split()
    if words and words[0] == "LIST":
        names = [line.strip() for line in listed if line.strip()]
    elif len(words) >= 4 and "%" in words[0]:
        try:
            first, last, step = (int(word) for word in words[1:4])
            numbers = range(first, last + 1, step)
        except ValueError:
            numbers = range(0)
        if numbers[MAX_FILES:]:
            raise BadFileError(
                UNREADABLE, f"its header names more than {MAX_FILES:,} data files ({brief(named)})"
            )
        fits = re.fullmatch(r"[^%]*%0?[0-9]?d[^%]*", words[0])
        names = [words[0] % number for number in numbers] if fits else []
    else:
        names = [named] if named else []
    if not names or any("\0" in name for name in names):
        raise BadFileError(UNREADABLE, f"its header names no data file ({brief(named)})")
    if len(names) > MAX_FILES:
        raise BadFileError(
            UNREADABLE, f"its header names {len(names):,} data files, expected at most {MAX_FILES:,}"
        )
    for name in names:
        inside = os.path.normpath(name)
        if Path(inside).is_absolute() or Path(inside).parts[:1] == ("..",):
            detail = f"its header names {brief(name)}, expected a data file in the header's folder"
            raise BadFileError(UNREADABLE, detail)
    return [str(folder / name) for name in names]


def require(files: Sequence[str]) -> list[str]:
    """The files, all of which exist.

    Raises:
        BadFileError: If one does not; names it.
    """
    for path in files:
        if not Path(path).is_file():
            raise BadFileError(UNREADABLE, pointer(path) or f"its data file {Path(path).name} is missing")
    return list(files)


def pointer(path: str) -> str:
    """What to do where a file only points to its content, in git-annex or Git LFS; '' for any other file.

    Examples:
        >>> from tempfile import mkdtemp
        >>> path = Path(mkdtemp()) / "a.nii.gz"
        >>> _ = path.write_text("/annex/objects/MD5E-s9--0.nii.gz")
        >>> pointer(str(path))
        'a pointer of git-annex, not the content; git annex get downloads it'
    """
    annex = "a pointer of git-annex, not the content; git annex get downloads it"
    try:
        found = Path(path)
        if found.is_symlink() and not found.exists():
            return annex if "annex/objects" in str(found.readlink()).replace("\\", "/") else ""
        with found.open("rb") as file:
            start = file.read(64)
    except (OSError, ValueError):
        return ""
    if start.startswith(b"version ") and b"git-lfs" in start:
        return "a pointer of Git LFS, not the content; git lfs pull downloads it"
    return annex if start.startswith((b"/annex/objects/", b"../.git/annex/objects/")) else ""

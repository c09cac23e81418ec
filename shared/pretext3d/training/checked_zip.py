"""A zip whose members' checksums are those of the bytes that its reader has taken: the file is read once.

torch does not look at the checksums of a checkpoint, and `zipfile.ZipFile.testzip` reads the whole file for
them. Here they are computed while torch reads each tensor into its place: without a second reading, and
without a copy in memory.
"""

import io
import os
import struct
import zipfile
import zlib
from pathlib import Path
from typing import Any

__all__ = ["CheckedZip"]

BLOCK = 2**20  # bytes per reading: what was read is still in the processor's cache for its checksum
LOCAL_HEADER = struct.Struct("<4s22xHH")  # signature, lengths of name and extra field, which follow


class CheckedZip(io.FileIO):
    """A file for `torch.load` that keeps the checksum of every piece that is read into a buffer.

    Args:
        path: Path of the file.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path, "rb")
        self.size = os.fstat(self.fileno()).st_size
        self.taken: dict[int, tuple[int, int]] = {}  # position: number of bytes, their CRC-32

    def readinto(self, buffer: Any) -> int:
        """Fill a buffer, completely unless the file ends before. Returns the number of bytes."""
        view, start, count, crc = memoryview(buffer).cast("B"), self.tell(), 0, 0
        while count < len(view):
            read = super().readinto(view[count : count + BLOCK])
            if not read:
                break
            crc = zlib.crc32(view[count : count + read], crc)
            count += read
        self.taken[start] = count, crc
        return count

    def damaged(self, archive: zipfile.ZipFile) -> str | None:
        """The name of a member whose checksum is wrong; None where all are right.

        A member that was not taken as a whole, in one piece, is read here.

        Args:
            archive: Index of this file's members.
        """
        for member in archive.infolist():
            size, crc = self.taken.get(self._start(member), (-1, 0))
            right = crc == member.CRC if size == member.file_size else _is_whole(archive, member)
            if not right:
                return member.filename
        return None

    def _start(self, member: zipfile.ZipInfo) -> int:
        """The position of a member's first byte; -1 where its own header is damaged."""
        self.seek(member.header_offset)
        header = self.read(LOCAL_HEADER.size)
        if len(header) < LOCAL_HEADER.size:
            return -1
        signature, name, extra = LOCAL_HEADER.unpack(header)
        return member.header_offset + LOCAL_HEADER.size + name + extra if signature == b"PK\x03\x04" else -1


def _is_whole(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> bool:
    """Read a member in blocks; whether its checksum is right."""
    try:
        with archive.open(member) as file:
            while file.read(BLOCK):
                pass
    except zipfile.BadZipFile:
        return False
    return True

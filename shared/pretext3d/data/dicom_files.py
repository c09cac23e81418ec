"""DICOM files: which files are, what they hold, and their data sets, also without preamble or suffix.

Source: DICOM PS3.10 7.1 (preamble and file meta information), PS3.4 B.5 (SOP classes), PS3.5 A (transfer
syntaxes).
"""

import logging
import struct
import warnings
import zlib
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO

from pretext3d.data.faults import UNREADABLE, BadFileError, amount
from pretext3d.extras import not_installed

__all__ = [
    "begins_like_dicom",
    "is_dicom",
    "kind_of",
    "missing_decoder",
    "open_dataset",
]

SUFFIXES = (".dcm", ".dicom", ".ima")
HEAD = 256  # bytes by which a file is recognised
META = 2048  # bytes within which a file states that it is deflated
DEFLATED = b"1.2.840.10008.1.2.1.99"
BLOCK = 2**20  # bytes that are expanded at once
LARGEST_DEFLATED = 2**30  # bytes; a deflated file is expanded at once, also for its header

# What other than an image a SOP class stores, by the beginning of its UID after 1.2.840.10008. (PS3.4 B.5)
KINDS = {
    "1.3.10": "DICOMDIR",
    "5.1.4.1.1.481.1": "",  # RT Image: a projection
    "5.1.4.1.1.481.2": "RTDOSE",
    "5.1.4.1.1.481.3": "RTSTRUCT",
    "5.1.4.1.1.481": "RT",
    "5.1.4.34": "RT",
    "5.1.4.1.1.66.1": "REG",
    "5.1.4.1.1.66.3": "REG",
    "5.1.4.1.1.66.4": "SEG",
    "5.1.4.1.1.66.5": "SEG",
    "5.1.4.1.1.66.7": "SEG",
    "5.1.4.1.1.66": "raw data",
    "5.1.4.1.1.67": "RWV",
    "5.1.4.1.1.11": "PR",
    "5.1.4.1.1.88.59": "KO",
    "5.1.4.1.1.88": "SR",
    "5.1.4.1.1.9": "waveform",
    "5.1.4.1.1.104": "document",
}
MODALITIES = {
    "RTDOSE",
    "RTSTRUCT",
    "RTPLAN",
    "RTRECORD",
    "SEG",
    "REG",
    "PR",
    "KO",
    "SR",
}  # where no class is stated


def is_dicom(path: Path) -> bool:
    """True for a DICOM file: by its suffix, or, without a meaningful one, by how its content begins."""
    suffix = path.suffix.lower()
    if suffix in SUFFIXES:
        return True
    if (suffix and not suffix[1:].isdigit()) or path.name == "DICOMDIR":
        return False
    try:
        with path.open("rb") as file:
            return begins_like_dicom(file.read(HEAD))
    except OSError:
        return False


def begins_like_dicom(head: bytes) -> bool:
    """Whether a file's first 256 bytes are a preamble, or data elements without one.

    Elements are: two or more in ascending order, the first of group 0002 or 0008, in any of the encodings.

    Examples:
        >>> begins_like_dicom(bytes(128) + b"DICM"), begins_like_dicom(b"study,patient")
        (True, False)
        >>> begins_like_dicom(bytes.fromhex("0800 0500 0400 0000 41424344 0800 0800 0000 0000"))
        True
    """
    return head[128:132] == b"DICM" or any(
        _elements(head, order, explicit) for order in "<>" for explicit in (True, False)
    )


def _elements(head: bytes, order: str, explicit: bool) -> bool:
    """Whether the bytes are two or more data elements, in a byte order, with or without explicit types."""
    at, last, count = 0, (0, 0), 0
    while at + (12 if explicit else 8) <= len(head):
        tag = struct.unpack_from(f"{order}HH", head, at)
        if tag <= last or (not count and tag[0] not in (2, 8)) or tag[0] > 0x50:
            return False
        if explicit:
            kind = head[at + 4 : at + 6]
            if not (kind.isalpha() and kind.isupper()):
                return False
            long = kind in (b"OB", b"OW", b"SQ", b"UN", b"UT", b"UC", b"UR")
            length = struct.unpack_from(f"{order}I" if long else f"{order}H", head, at + (8 if long else 6))[
                0
            ]
            at += 12 if long else 8
        else:
            length = struct.unpack_from(f"{order}I", head, at + 4)[0]
            at += 8
        if length > 2**16 or length % 2:
            return length == 2**32 - 1 and count > 0
        at, last, count = at + length, tag, count + 1
    return count > 1


def hush() -> None:
    """Leave out pydicom's remarks about other people's files: they name no file."""
    warnings.filterwarnings("ignore", module=r"pydicom\b")
    logging.getLogger("pydicom").setLevel(logging.CRITICAL)


def open_dataset(file: BinaryIO, **settings: Any) -> Any:
    """A pydicom data set with its transfer syntax, also without preamble or file meta information.

    Args:
        file: File, opened in binary mode.
        settings: Further arguments of `pydicom.dcmread`.

    Raises:
        BadFileError: If the content is not DICOM.
    """
    import pydicom
    from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

    head = file.read(HEAD)
    file.seek(0)
    if not begins_like_dicom(head):
        raise BadFileError(UNREADABLE, "not DICOM" if head else "an empty file")
    if DEFLATED in file.read(META):
        check_deflated(file)
    file.seek(0)
    data = pydicom.dcmread(file, force=head[128:132] != b"DICM", **settings)
    if not data.file_meta.get("TransferSyntaxUID"):
        implicit, little = data.original_encoding
        explicit = ExplicitVRLittleEndian if little else ExplicitVRBigEndian
        data.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian if implicit else explicit
    return data


def kind_of(data: Any) -> str:
    """What a data set is if no image: RTDOSE, SEG, SR ...; '' for an image."""
    uid = str(data.get("SOPClassUID") or data.file_meta.get("MediaStorageSOPClassUID") or "")
    parts = uid.removeprefix("1.2.840.10008.").split(".")
    modality = str(data.get("Modality") or "")
    kinds = (KINDS.get(".".join(parts[:length])) for length in range(len(parts), 0, -1))
    kind = next((kind for kind in kinds if kind is not None), "")
    if kind == "RT" or (not kind and modality in MODALITIES and not (uid and data.get("Rows"))):
        kind = modality or kind
    return kind or ("" if data.get("Rows") else "without pixels")


def check_deflated(file: BinaryIO) -> None:
    """Make sure that a deflated file does not expand to more than `LARGEST_DEFLATED` bytes.

    Its data follow the file meta information, whose length is its first element.

    Raises:
        BadFileError: If it does, or does not state that length.
    """
    file.seek(132)
    length = file.read(12)
    if length[:8] != b"\x02\0\0\0UL\x04\0":
        raise BadFileError(UNREADABLE, "deflated, without the length of its file meta information")
    file.seek(int.from_bytes(length[8:], "little"), 1)
    expander, size = zlib.decompressobj(-zlib.MAX_WBITS), 0
    while block := file.read(META):
        while block:
            size += len(expander.decompress(block, BLOCK))
            block = expander.unconsumed_tail
            if size > LARGEST_DEFLATED:
                raise BadFileError(UNREADABLE, f"deflated, to more than {amount(LARGEST_DEFLATED)}")


@lru_cache
def missing_decoder(syntax: str) -> str:
    """Why voxels of a transfer syntax cannot be decoded, or ''."""
    from pydicom.pixels import get_decoder
    from pydicom.uid import UID

    name = UID(syntax).name
    try:
        if get_decoder(syntax).is_available:
            return ""
    except NotImplementedError:
        return f"compressed as {name}, for which there is no decoder"
    needs = "pylibjpeg-openjpeg with pylibjpeg" if name.startswith("High-Throughput") else "python-gdcm"
    return f"compressed as {name}: {not_installed(needs)}"

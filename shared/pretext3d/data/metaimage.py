"""MetaImage: .mha, and .mhd with its data files.

Read here and not by ITK, which takes spacing 1 and position 0 where a header states none. Positions are in
LPS: row n of TransformMatrix is the direction of axis n.

Source: https://itk.org/Wiki/ITK/MetaIO/Documentation
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pretext3d.data.faults import DIMENSIONS, GEOMETRY, UNREADABLE, BadFileError
from pretext3d.data.scan import Header, Scan, is_basis
from pretext3d.data.streams import check_size, data_files, read_parts, require

__all__ = ["named_files", "open_metaimage"]

MAX_HEADER = 2**16  # bytes
TYPES = {
    "MET_CHAR": "i1", "MET_UCHAR": "u1", "MET_SHORT": "i2", "MET_USHORT": "u2", "MET_INT": "i4",
    "MET_UINT": "u4", "MET_LONG": "i4", "MET_ULONG": "u4", "MET_LONG_LONG": "i8", "MET_ULONG_LONG": "u8",
    "MET_FLOAT": "f4", "MET_DOUBLE": "f8",
}  # fmt: skip
POSITION = ("Offset", "Position", "Origin")
DIRECTION = ("TransformMatrix", "Rotation", "Orientation")


def _parse(path: str) -> tuple[dict[str, str], int, list[str]]:
    """The entries of a header, the number of its bytes, and the lines of a LIST of data files."""
    with Path(path).open("rb") as file:
        start = file.read(MAX_HEADER)
    fields: dict[str, str] = {}
    position = 0
    while position < len(start):
        end = start.find(b"\n", position)
        end = len(start) if end < 0 else end
        name, equals, value = start[position:end].decode("utf-8", "replace").partition("=")
        position = end + 1
        if not equals and name.strip():
            break
        if name.strip():
            fields[name.strip()] = value.strip()
        if name.strip() == "ElementDataFile":
            listed = (
                start[position:].decode("utf-8", "replace").splitlines()
                if value.split()[:1] == ["LIST"]
                else []
            )
            return fields, position, listed
    raise BadFileError(UNREADABLE, "no MetaImage header with ElementDataFile in its first bytes")


def named_files(path: str) -> list[str]:
    """The data files of a header; [] where the data are in the same file.

    Raises:
        BadFileError: If the header cannot be read.
    """
    fields, _, listed = _parse(path)
    named = fields["ElementDataFile"]
    return [] if named.upper() == "LOCAL" else data_files(path, named, listed)


def open_metaimage(path: str) -> Scan:
    """A MetaImage file, its voxels unread.

    Raises:
        BadFileError: For a header that is damaged, or states no geometry.
    """
    fields, size, _ = _parse(path)
    kind = fields.get("ObjectType", "Image")
    if kind.lower() != "image":
        raise BadFileError(UNREADABLE, f"ObjectType {kind}, expected Image")
    if fields.get("BinaryData", "True").lower() != "true":
        raise BadFileError(UNREADABLE, "BinaryData False, expected binary voxels")
    sizes = [int(n) for n in _numbers(fields, ("DimSize",))]
    dims = len(sizes)
    if not 2 <= dims <= 4 or min(sizes) < 1 or fields.get("NDims", str(dims)) != str(dims):
        found = f"NDims {fields.get('NDims', '?')} and DimSize {fields['DimSize']}"
        raise BadFileError(DIMENSIONS if dims > 4 else UNREADABLE, f"{found} in its header")
    components = (
        int(_numbers(fields, ("ElementNumberOfChannels",), 1)[0])
        if "ElementNumberOfChannels" in fields
        else 1
    )
    if components < 1 or (components > 1 and dims == 4):
        raise BadFileError(DIMENSIONS, f"{dims}D with {components} components per voxel")
    dtype = _dtype(fields)
    affine = _geometry(fields, dims)
    inside = fields["ElementDataFile"].upper() == "LOCAL"
    files = [path] if inside else require(named_files(path))
    shape = ([components] if components > 1 else []) + sizes
    compressed = fields.get("CompressedData", "False").lower() == "true"
    parts = _parts(files, fields, size if inside else 0, shape, dtype)
    encoding = "zlib" if compressed else "raw"
    available = sum(Path(name).stat().st_size - offset for name, offset in parts)
    check_size(shape, dtype.itemsize, available, encoding)
    spatial = tuple(sizes[:3])
    channels = components if components > 1 else (sizes[3] if dims == 4 else 1)
    reading = partial(read_parts, parts, dtype, tuple(shape), encoding)

    def voxels() -> NDArray[Any]:
        array = reading()
        array = np.moveaxis(array, 0, -1) if components > 1 else array
        return array.reshape((*spatial, *(1,) * (3 - len(spatial)), channels), order="A")

    return Scan(Header((*spatial, 1)[:3], channels, affine, len(spatial)), voxels)


def _numbers(fields: dict[str, str], names: Sequence[str], count: int = 0) -> list[float]:
    """The numbers of the first of these entries that the header has."""
    name = next((n for n in names if n in fields), "")
    if not name:
        raise BadFileError(GEOMETRY if names[0] != "DimSize" else UNREADABLE, f"no {names[0]} in its header")
    try:
        found = [float(word) for word in fields[name].split()]
    except ValueError:
        found = []
    if not found or not np.isfinite(found).all() or (count and len(found) != count):
        raise BadFileError(UNREADABLE, f"{name} is {fields[name]!r} in its header")
    return found


def _dtype(fields: dict[str, str]) -> np.dtype[Any]:
    """The type of the stored numbers."""
    name = fields.get("ElementType", "not stated").removesuffix("_ARRAY")
    if name not in TYPES:
        raise BadFileError(UNREADABLE, f"voxels of type {name}, expected one real number per voxel")
    big = fields.get("BinaryDataByteOrderMSB", fields.get("ElementByteOrderMSB", "False")).lower() == "true"
    return np.dtype(TYPES[name]).newbyteorder(">" if big else "<")


def _geometry(fields: dict[str, str], dims: int) -> NDArray[np.float64]:
    """The affine (4, 4) in mm, RAS."""
    spacing = _numbers(fields, ("ElementSpacing",), dims)
    position = _numbers(fields, POSITION, dims)
    matrix = np.reshape(_numbers(fields, DIRECTION, dims * dims), (dims, dims))
    used = min(dims, 3)
    affine = np.eye(4)
    affine[:used, :used] = matrix[:used, :used].T @ np.diag(spacing[:used])
    affine[:used, 3] = position[:used]
    affine = np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine
    if not is_basis(affine) or min(spacing[:used]) <= 0:
        found = f"ElementSpacing {fields['ElementSpacing']}, or a TransformMatrix that is not a basis"
        raise BadFileError(GEOMETRY, found)
    return affine


def _parts(
    files: Sequence[str], fields: dict[str, str], begin: int, shape: Sequence[int], dtype: np.dtype[Any]
) -> list[tuple[str, int]]:
    """The files with the offsets of their data; HeaderSize -1: the data are the end of the file."""
    try:
        skipped = int(fields.get("HeaderSize", 0))
    except ValueError:
        raise BadFileError(UNREADABLE, f"HeaderSize {fields['HeaderSize']!r} in its header") from None
    if skipped < -1:
        raise BadFileError(UNREADABLE, f"HeaderSize {skipped} in its header")
    needed = int(np.prod(shape, dtype=object)) * dtype.itemsize // len(files)
    parts = []
    for path in files:
        offset = Path(path).stat().st_size - needed if skipped == -1 else begin + skipped
        if offset < begin:
            raise BadFileError(UNREADABLE, "fewer data than its header states")
        parts.append((path, offset))
    return parts

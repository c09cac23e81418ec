"""NRRD: .nrrd, .nhdr with its data files, and segmentations of 3D Slicer (.seg.nrrd).

pynrrd parses the header; the voxels are read and checked by `streams`. An axis without a space direction
holds channels (kind list, vector, RGB-color ...), wherever it is. A segmentation's header names its values.

Source: https://teem.sourceforge.net/nrrd/format.html
"""

import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pretext3d.data.faults import DIMENSIONS, GEOMETRY, UNREADABLE, BadFileError
from pretext3d.data.labels import MAX_VALUE
from pretext3d.data.scan import Header, Scan, is_basis
from pretext3d.data.streams import check_size, data_files, read_parts, require

__all__ = ["named_files", "open_nrrd"]

MAX_HEADER = 2**20  # bytes
SPACES = {  # the spaces that say where the patient lies, with the direction of their axes
    "right-anterior-superior": "RAS", "left-anterior-superior": "LAS", "left-posterior-superior": "LPS",
}  # fmt: skip
MILLIMETRES = {"mm": 1.0, "millimeter": 1.0, "millimeters": 1.0, "cm": 10.0, "m": 1000.0, "um": 0.001}
MILLIMETRES |= {"µm": 0.001, "μm": 0.001, "nm": 1e-6, "": 1.0}
ENCODINGS = {
    "raw": "raw", "gzip": "gzip", "gz": "gzip", "bzip2": "bz2", "bz2": "bz2",
    "ascii": "text", "text": "text", "txt": "text",
}  # fmt: skip
_SIGNED = {"char": 1, "short": 2, "short int": 2, "int": 4, "long long": 8, "long long int": 8, "longlong": 8}
TYPES = {"float": "f4", "double": "f8"} | {
    name: f"{kind}{size}"
    for plain, size in _SIGNED.items()
    for name, kind in ((plain, "i"), (f"signed {plain}", "i"), (f"unsigned {plain}", "u"), (f"u{plain}", "u"))
}
TYPES |= {
    f"{prefix}int{8 * size}{end}": f"{kind}{size}"
    for size in (1, 2, 4, 8)
    for prefix, kind in (("", "i"), ("u", "u"))
    for end in ("", "_t")
}
CHANNEL_KINDS = {"list", "vector", "point", "normal", "none", "???", "domain"}
TIME_KINDS = {"time"}


def _parse(path: str) -> tuple[dict[str, Any], int, list[str]]:
    """The fields of a header, the number of its bytes, and the lines of a LIST of data files."""
    import nrrd

    with Path(path).open("rb") as file:
        start = file.read(MAX_HEADER)
    if not start.startswith(b"NRRD"):
        raise BadFileError(UNREADABLE, "no NRRD header in its first bytes")
    end = re.search(rb"\r?\n\r?\n", start)
    size = end.end() if end else len(start)
    lines = start[:size].decode("utf-8", "replace").splitlines()
    listed: list[str] = []
    for number, line in enumerate(lines):
        if re.match(r"data ?file:\s*LIST\b", line):
            listed, lines = lines[number + 1 :], lines[: number + 1]
            break
    try:
        return dict(nrrd.read_header(iter(lines))), size, listed
    except Exception as error:  # pynrrd raises whatever its parsing meets
        known = type(error).__name__ == "NRRDError"
        detail = str(error) if known else "a line of its header cannot be read"
        raise BadFileError(UNREADABLE, " ".join(detail.split())) from None


def named_files(path: str) -> list[str]:
    """The data files of a detached header; [] where the data are in the same file.

    Raises:
        BadFileError: If the header cannot be read.
    """
    fields, _, listed = _parse(path)
    named = fields.get("data file", fields.get("datafile"))
    return [] if named is None else data_files(path, str(named), listed)


def open_nrrd(path: str) -> Scan:
    """A NRRD file, its voxels unread.

    Raises:
        BadFileError: For a header that is damaged, or states no geometry.
    """
    fields, size, listed = _parse(path)
    for name in ("dimension", "type", "encoding", "sizes"):
        if name not in fields:
            raise BadFileError(UNREADABLE, f"no field '{name}' in its header")
    sizes = [int(n) for n in fields["sizes"]]
    if len(sizes) != fields["dimension"] or min(sizes, default=0) < 1:
        raise BadFileError(UNREADABLE, f"sizes {sizes} of {fields['dimension']} dimensions in its header")
    names = _segments(fields)
    dtype = _dtype(fields)
    spatial, others, affine = _geometry(fields, sizes)
    if len(others) > 1:
        raise BadFileError(DIMENSIONS, f"{len(sizes)}D, expected 3D, or 4D with channels")
    kind = _kinds(fields, sizes)[others[0]] if others else ""
    if not kind and others and str(fields["space"]).lower().endswith(("-time", "t")):
        kind = "time"
    layers = sizes[others[0]] if others else 1
    time = f"{layers} time points" if kind in TIME_KINDS and layers > 1 else ""
    if kind and kind not in CHANNEL_KINDS | TIME_KINDS and not kind.endswith(("-color", "-vector")):
        raise BadFileError(DIMENSIONS, f"an axis of kind {kind}, expected channels")
    if names and layers > 1:
        raise BadFileError(
            UNREADABLE, f"overlapping segments in {layers} layers, expected one value per voxel"
        )
    named = fields.get("data file", fields.get("datafile"))
    files = [path] if named is None else require(data_files(path, str(named), listed))
    reading = partial(_read, files, fields, dtype, sizes, size if named is None else 0)
    _check(files, fields, dtype, sizes, size if named is None else 0)
    shape = tuple(sizes[a] for a in spatial)
    header = Header((*shape, 1)[:3], layers, affine, len(shape), time, "", names)
    order = [*spatial, *others]

    def voxels() -> NDArray[Any]:
        array = reading().transpose(order)
        return array.reshape((*shape, *(1,) * (3 - len(shape)), layers), order="A")

    return Scan(header, voxels)


def _dtype(fields: dict[str, Any]) -> np.dtype[Any]:
    """The type of the stored numbers."""
    code = TYPES.get(str(fields["type"]).lower())
    if code is None:
        raise BadFileError(UNREADABLE, f"voxels of type {fields['type']}, expected one real number per voxel")
    dtype = np.dtype(code)
    if dtype.itemsize > 1 and ENCODINGS.get(str(fields["encoding"]).lower()) != "text":
        endian: Any = {"little": "<", "big": ">"}.get(str(fields.get("endian", "")).lower())
        if endian is None:
            raise BadFileError(UNREADABLE, f"endian {fields.get('endian', 'not stated')} in its header")
        dtype = dtype.newbyteorder(endian)
    return dtype


def _kinds(fields: dict[str, Any], sizes: Sequence[int]) -> list[str]:
    kinds = [str(kind).lower() for kind in fields.get("kinds", [])]
    return kinds if len(kinds) == len(sizes) else [""] * len(sizes)


def _geometry(
    fields: dict[str, Any], sizes: Sequence[int]
) -> tuple[list[int], list[int], NDArray[np.float64]]:
    """The spatial axes, the other ones, and the affine (4, 4) in mm, RAS."""
    space = str(fields.get("space", "")).lower()
    axes = SPACES.get(space.removesuffix("-time"), space.upper() if len(space) == 3 else "")
    if space.upper() in ("RAST", "LAST", "LPST"):
        axes = space.upper()[:3]
    if axes not in SPACES.values():
        found = f"space {space}, which does not say how the patient lies" if space else "no space"
        raise BadFileError(GEOMETRY, f"{found} in its header")
    for name in ("space directions", "space origin"):
        if fields.get(name) is None:
            raise BadFileError(GEOMETRY, f"no {name} in its header")
    rows = fields["space directions"]
    given = [None if row is None or np.isnan(row).all() else np.asarray(row, dtype=float) for row in rows]
    origin = np.asarray(fields["space origin"], dtype=float)
    if len(given) != len(sizes) or origin.size < 3 or any(r is not None and r.size < 3 for r in given):
        raise BadFileError(GEOMETRY, f"space directions and space origin do not fit {len(sizes)} axes")
    kinds = _kinds(fields, sizes)
    timed = [
        kind in TIME_KINDS or (row is not None and row.size > 3 and not row[:3].any())
        for kind, row in zip(kinds, given, strict=True)
    ]
    spatial = [a for a, row in enumerate(given) if row is not None and not timed[a]]
    others = [a for a in range(len(sizes)) if a not in spatial]
    if len(spatial) not in (2, 3):
        raise BadFileError(GEOMETRY, f"{len(spatial)} axes with a space direction, expected 3")
    affine = np.eye(4)
    for column, axis in enumerate(spatial):
        affine[:3, column] = np.asarray(given[axis])[:3]
    affine[:3, 3] = origin[:3]
    if len(spatial) == 2:
        normal = np.cross(affine[:3, 0], affine[:3, 1])
        affine[:3, 2] = normal / (np.linalg.norm(normal) or 1)
    affine[:3] *= _unit(fields)
    signs = [1.0 if axes[w] == "RAS"[w] else -1.0 for w in range(3)]
    affine = np.diag([*signs, 1.0]) @ affine
    if not is_basis(affine):
        raise BadFileError(GEOMETRY, "its space directions are not a basis")
    return spatial, others, affine


def _unit(fields: dict[str, Any]) -> float:
    """Millimetres per unit of the space; mm where the header states none."""
    units = {str(unit).strip().lower() for unit in (fields.get("space units") or [])[:3]} or {""}
    scales = {MILLIMETRES.get(unit, 0.0) for unit in units}
    if len(scales) > 1 or 0.0 in scales:
        raise BadFileError(GEOMETRY, f"space units {', '.join(sorted(units))} in its header, expected mm")
    return scales.pop()


def _segments(fields: dict[str, Any]) -> dict[int, str]:
    """The names of the values in a segmentation of 3D Slicer; {} for any other file."""
    names: dict[int, str] = {}
    layers: dict[str, list[int]] = {}
    for key, found in fields.items():
        match = re.fullmatch(r"(Segment\d+_)LabelValue", key)
        if not match:
            continue
        try:
            value = int(str(found))
        except ValueError:
            raise BadFileError(UNREADABLE, f"{key} is {found!r}, expected an integer") from None
        if not 0 <= value <= MAX_VALUE:
            raise BadFileError(UNREADABLE, f"{key} is {value}, expected 0 to {MAX_VALUE}")
        name = str(fields.get(match[1] + "Name") or fields.get(match[1] + "ID") or f"segment {value}")
        layer = str(fields.get(match[1] + "Layer", "0"))
        layers.setdefault(layer, []).append(value)
        if len(layers) == 1 and value in names and names[value] != name:
            raise BadFileError(UNREADABLE, f"value {value} is both {names[value]} and {name} in its header")
        names[value] = name
    if len(layers) > 1:
        raise BadFileError(
            UNREADABLE, f"overlapping segments in {len(layers)} layers, expected one value per voxel"
        )
    return names


def _skips(fields: dict[str, Any]) -> tuple[int, int]:
    """Lines and bytes to skip; -1 bytes: the data are the end of the file."""
    lines, skipped = (
        int(fields.get(f"{name} skip", fields.get(f"{name}skip", 0))) for name in ("line", "byte")
    )
    if lines < 0 or skipped < -1:
        raise BadFileError(UNREADABLE, f"line skip {lines} and byte skip {skipped} in its header")
    return lines, skipped


def _parts(
    files: Sequence[str], fields: dict[str, Any], dtype: np.dtype[Any], sizes: Sequence[int], begin: int
) -> tuple[list[tuple[str, int]], str, int]:
    """Files with the offsets of their data, the encoding, and bytes to skip after expansion."""
    encoding = ENCODINGS.get(str(fields["encoding"]).lower(), "")
    if not encoding:
        raise BadFileError(UNREADABLE, f"encoding {fields['encoding']}, expected raw, gzip, bzip2 or ascii")
    lines, skip = _skips(fields)
    parts = []
    for path in files:
        offset = begin
        if lines:
            with Path(path).open("rb") as file:
                file.seek(begin)
                for _ in range(lines):
                    file.readline()
                offset = file.tell()
        if encoding == "raw" and skip == -1:
            needed = int(np.prod(sizes, dtype=object)) * dtype.itemsize // len(files)
            offset = Path(path).stat().st_size - needed
        elif encoding == "raw":
            offset += skip
        parts.append((path, offset))
    if min(offset for _, offset in parts) < begin:
        raise BadFileError(UNREADABLE, "fewer data than its header states")
    return parts, encoding, 0 if encoding == "raw" else max(skip, 0)


def _check(
    files: Sequence[str], fields: dict[str, Any], dtype: np.dtype[Any], sizes: Sequence[int], begin: int
) -> None:
    """Compare the sizes of the files with the header's."""
    parts, encoding, skip = _parts(files, fields, dtype, sizes, begin)
    available = sum(Path(path).stat().st_size - offset for path, offset in parts)
    check_size(sizes, dtype.itemsize, available, encoding, skip * len(parts))


def _read(
    files: Sequence[str], fields: dict[str, Any], dtype: np.dtype[Any], sizes: Sequence[int], begin: int
) -> NDArray[Any]:
    """The stored numbers, the axes as stored."""
    parts, encoding, skip = _parts(files, fields, dtype, sizes, begin)
    if encoding != "text":
        return read_parts(parts, dtype, tuple(sizes), encoding, skip)
    words: list[str] = []
    for path, offset in parts:
        with Path(path).open("rb") as file:
            file.seek(offset)
            words += file.read().decode("ascii", "replace").replace(",", " ").split()
    try:
        flat = np.array(words, dtype=dtype)
    except (ValueError, OverflowError):
        raise BadFileError(UNREADABLE, f"a number that is not {dtype.name} in its data") from None
    if flat.size != int(np.prod(sizes, dtype=object)):
        raise BadFileError(UNREADABLE, f"{flat.size} numbers, its header states {sizes}")
    return flat.reshape(sizes, order="F")

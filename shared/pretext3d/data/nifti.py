"""NIfTI-1 and NIfTI-2, single files (.nii, .nii.gz) and pairs (.hdr with .img): header, geometry, voxels.

nibabel parses the header; the voxels are read and checked by `streams`. The position is that of the sform or
of the qform. Where both are stated the sform is used, unless it is not a basis, or its spacing is not the
header's `pixdim` while the qform's is. Lengths in metres or micrometres become mm.

Source: https://nifti.nimh.nih.gov/pub/dist/src/niftilib/nifti1.h
"""

from functools import partial
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from nibabel.spatialimages import HeaderDataError
from numpy.typing import NDArray

from pretext3d.data.faults import DIMENSIONS, GEOMETRY, UNREADABLE, BadFileError
from pretext3d.data.scan import Header, Scan, corner_distance, is_basis
from pretext3d.data.streams import check_size, open_stream, read_parts, require

__all__ = ["image_like", "nifti_header", "nifti_pair", "open_nifti"]

FIRST = 540  # bytes of the longer header, NIfTI-2's
MILLIMETRES = {0: 1.0, 1: 1000.0, 2: 1.0, 3: 0.001}  # per unit of length; 0, not stated, is mm in practice
SECONDS = {8: "s", 16: "ms", 24: "us"}
SPECTRAL = {32: "Hz", 40: "ppm", 48: "rad/s"}
SFORM = ("srow_x", "srow_y", "srow_z")
QFORM = ("quatern_b", "quatern_c", "quatern_d", "qoffset_x", "qoffset_y", "qoffset_z")
FORMS = range(1, 6)  # codes of an sform or qform that is stated
AT_ODDS = 0.1  # voxels; sform and qform that place a corner further apart differ by more than rounding
SPACING_ERROR = 0.01  # relative; a spacing that differs more from `pixdim` is not its rounded value


def nifti_pair(path: str) -> tuple[str, str]:
    """The files of header and voxels: twice the same, or the .hdr and .img of a pair.

    Examples:
        >>> nifti_pair("a.nii"), nifti_pair("b.img.gz")
        (('a.nii', 'a.nii'), ('b.hdr.gz', 'b.img.gz'))
    """
    for one, other in ((".hdr", ".img"), (".img", ".hdr")):
        for end in ("", ".gz"):
            if path.lower().endswith(one + end):
                stem = path[: -len(one + end)]
                partner = stem + other + end
                for found in (partner, stem + other + ("" if end else ".gz")):
                    if Path(found).is_file():
                        partner = found
                        break
                return (path, partner) if one == ".hdr" else (partner, path)
    return path, path


def nifti_header(path: str) -> Any:
    """The header as stored, nibabel's `Nifti1Header` or `Nifti2Header`.

    Raises:
        BadFileError: If the file does not begin with such a header.
    """
    with open_stream(path) as stream:
        block = stream.read(FIRST)
    for kind, size in ((nib.Nifti1Header, 348), (nib.Nifti2Header, 540)):
        stated = (int.from_bytes(block[:4], order) for order in ("little", "big"))
        if len(block) >= size and size in stated:
            header = kind(block[:size], check=False)
            magic = bytes(header["magic"].item())
            if magic[:2] in (b"n+", b"ni"):
                return header
            raise BadFileError(GEOMETRY, "an ANALYZE file, which does not state orientation and position")
    detail = f"no NIfTI header in its first {min(len(block), FIRST)} bytes" if block else "the file is empty"
    raise BadFileError(UNREADABLE, detail)


def open_nifti(path: str) -> Scan:
    """A NIfTI file, its voxels unread.

    Raises:
        BadFileError: For a header that is damaged, or states no geometry.
    """
    first, second = nifti_pair(path)
    require([first, second])
    header = nifti_header(first)
    shape = _shape(header)
    dtype = _dtype(header)
    voxels = partial(_read, second, header, dtype, shape, first == second)
    _offset(second, header, dtype, shape, first == second)
    spatial = (*shape, 1, 1)[:3]
    affine, note = _world(header, spatial)
    scale = MILLIMETRES.get(int(header["xyzt_units"]) & 7)
    if scale is None:
        raise BadFileError(GEOMETRY, f"xyzt_units {int(header['xyzt_units'])} is no unit of length")
    affine[:3] *= scale
    channels = shape[3] if len(shape) == 4 else 1
    slope, intercept = _scaling(header)
    facts = Header(spatial, channels, affine, min(len(shape), 3), _time(header, channels), note)
    return Scan(facts, voxels, slope, intercept)


def _shape(header: Any) -> tuple[int, ...]:
    """The sizes of the axes, one to four of them."""
    count = int(header["dim"][0])
    sizes = [int(n) for n in header["dim"][1 : count + 1]] if 1 <= count <= 7 else []
    while len(sizes) > 4 and sizes[-1] == 1:
        sizes.pop()
    if not sizes or min(sizes) < 1:
        raise BadFileError(UNREADABLE, f"dimensions {header['dim'].tolist()} in its header")
    if len(sizes) > 4:
        raise BadFileError(DIMENSIONS, f"{len(sizes)}D, expected 3D, or 4D with channels last")
    return tuple(sizes)


def _dtype(header: Any) -> np.dtype[Any]:
    """The type of the stored numbers."""
    try:
        dtype: np.dtype[Any] = np.dtype(header.get_data_dtype())
    except (HeaderDataError, KeyError):
        raise BadFileError(UNREADABLE, f"voxels of the unknown type {int(header['datatype'])}") from None
    if dtype.fields or dtype.kind not in "iuf" or dtype.itemsize > 8:
        raise BadFileError(UNREADABLE, f"voxels of type {dtype}, expected one real number per voxel")
    if int(header["bitpix"]) != 8 * dtype.itemsize:
        found = f"{int(header['bitpix'])} bits per voxel, but type {dtype.name}"
        raise BadFileError(UNREADABLE, f"{found} in its header")
    return dtype


def _scaling(header: Any) -> tuple[float, float]:
    """Slope and intercept: value = stored * slope + intercept."""
    try:
        slope, intercept = header.get_slope_inter()
    except HeaderDataError:
        raise BadFileError(UNREADABLE, f"scaling intercept {float(header['scl_inter'])}") from None
    return (1.0, 0.0) if slope is None else (float(slope), float(intercept))


def _offset(path: str, header: Any, dtype: np.dtype[Any], shape: tuple[int, ...], single: bool) -> int:
    """Where the voxels begin in their file, whose size is compared with the header's."""
    stated, least = float(header["vox_offset"]), (header.single_vox_offset if single else 0)
    if not (np.isfinite(stated) and stated == int(stated) and stated >= least):
        raise BadFileError(UNREADABLE, f"vox_offset {stated:g} in its header, expected {least} or more")
    with open_stream(path) as stream:
        encoding = stream.encoding
    size, offset = Path(path).stat().st_size, int(stated)
    if encoding == "raw":
        check_size(shape, dtype.itemsize, size - offset)
    else:
        check_size(shape, dtype.itemsize, size, encoding, offset)
    return offset


def _read(path: str, header: Any, dtype: np.dtype[Any], shape: tuple[int, ...], single: bool) -> NDArray[Any]:
    """The stored numbers (i, j, k, c)."""
    offset = _offset(path, header, dtype, shape, single)
    with open_stream(path) as stream:
        encoding = stream.encoding
    raw = encoding == "raw"
    array = read_parts([(path, offset if raw else 0)], dtype, shape, encoding, 0 if raw else offset)
    return array.reshape((*shape, 1, 1, 1)[:4], order="F")


def _time(header: Any, frames: int) -> str:
    """What the header says of a fourth axis that is not channels; ''."""
    unit = int(header["xyzt_units"]) & 56
    step = float(header["pixdim"][4])
    if frames > 1 and unit in SECONDS:
        apart = f", {step:g} {SECONDS[unit]} apart" if np.isfinite(step) and step > 0 else ""
        return f"{frames} time points{apart}"
    return f"{frames} points of a spectrum in {SPECTRAL[unit]}" if frames > 1 and unit in SPECTRAL else ""


def _world(header: Any, shape: tuple[int, ...]) -> tuple[NDArray[np.float64], str]:
    """The affine (4, 4) in the header's unit, and which of two forms at odds was used; ''."""
    pixdim = np.abs(np.asarray(header["pixdim"][1:4], dtype=float))
    forms: dict[str, NDArray[np.float64]] = {}
    faults: dict[str, str] = {}
    for name, code in (("sform", "sform_code"), ("qform", "qform_code")):
        if int(header[code]) in FORMS:
            affine = np.asarray(header.get_sform() if name == "sform" else _qform(header), dtype=float)
            if not np.isfinite(affine).all():
                faults[name] = f"its {name} is not finite"
            elif not is_basis(affine):
                faults[name] = f"its {name} is singular"
            else:
                forms[name] = affine
    if not forms:
        reason = " and ".join(faults.values()) or "no orientation: sform_code and qform_code are 0"
        raise BadFileError(GEOMETRY, reason)
    if faults:
        name = next(iter(forms))
        return forms[name], f"{next(iter(faults.values()))}: the {name} is used"
    if len(forms) == 1:
        return next(iter(forms.values())), ""
    apart, _ = corner_distance(forms["sform"], forms["qform"], shape)
    off = {n: np.abs(np.linalg.norm(a[:3, :3], axis=0) / np.where(pixdim > 0, pixdim, 1) - 1).max()
           for n, a in forms.items()}  # fmt: skip
    used = "qform" if off["sform"] > SPACING_ERROR >= off["qform"] else "sform"
    if apart <= AT_ODDS:
        return forms["sform"], ""
    reason = ", whose spacing is the header's," if used == "qform" else ""
    return forms[
        used
    ], f"its sform and qform place it up to {apart:.3g} voxels apart: the {used}{reason} is used"


def _qform(header: Any) -> NDArray[np.float64]:
    """The qform's affine; negative spacings, and a first number of pixdim that is not set, count as plus."""
    copy = header.copy()
    copy["pixdim"][1:4] = np.abs(copy["pixdim"][1:4])
    if float(copy["pixdim"][0]) not in (-1.0, 1.0):
        copy["pixdim"][0] = 1  # as the standard says of 0
    try:
        affine: NDArray[np.float64] = np.asarray(copy.get_qform(), dtype=float)
    except (HeaderDataError, ValueError):
        return np.full((4, 4), np.nan)
    return affine


def image_like(array: NDArray[Any], affine: NDArray[np.float64], source: str) -> Any:
    """A NIfTI image with the position and units that a NIfTI file states: its forms, their codes, its pixdim.

    A form of the file that is not a position (not finite, singular) is left out.

    Args:
        array: Voxels (i, j, k), or (i, j).
        affine: Affine (4, 4), mm, used where the source is no NIfTI file of this shape.
        source: Path of the file from which the array was computed.

    Returns:
        nibabel's `Nifti1Image`.
    """
    known = source.lower().endswith((".nii", ".nii.gz", ".hdr", ".img", ".hdr.gz", ".img.gz"))
    try:
        stored = nifti_header(nifti_pair(source)[0]) if known else None
        if stored is None or _shape(stored)[:3] != array.shape:
            return _image_in_mm(array, affine)
    except (BadFileError, OSError):
        return _image_in_mm(array, affine)
    header = nib.Nifti1Header()
    header.set_data_dtype(array.dtype)
    header.set_data_shape(array.shape)
    for name in (*SFORM, *QFORM, "sform_code", "qform_code", "xyzt_units"):
        header[name] = stored[name]
    header["pixdim"][: array.ndim + 1] = stored["pixdim"][: array.ndim + 1]
    for name, found in (("sform", header.get_sform()), ("qform", _qform(header))):
        if int(header[f"{name}_code"]) not in FORMS or not is_basis(found):
            header[f"{name}_code"] = 0
    if not int(header["sform_code"]) and not int(header["qform_code"]):
        return _image_in_mm(array, affine)
    return nib.Nifti1Image(array, None, header)


def _image_in_mm(array: NDArray[Any], affine: NDArray[np.float64]) -> Any:
    """A NIfTI image in the scanner's coordinates."""
    image = nib.Nifti1Image(array, affine)
    image.set_sform(affine, 1)
    image.set_qform(affine, 1)
    return image

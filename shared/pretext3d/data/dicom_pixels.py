"""The voxels of DICOM frames as measured values, float32.

- Values are slope * stored + intercept, each frame with its own, or those of its modality lookup table.
- MONOCHROME1, where low values are bright, is inverted before, so that high is bright everywhere; not for CT
  and PET, whose values have a physical meaning that the interpretation does not change.
- Colour (RGB, YBR, palettes) has three channels, red, green and blue; 16-bit palettes give 8 bits.
- Padding, which a scanner writes where it measured nothing, becomes the lowest measured value of the volume
  where it lies outside the measured ones.

Source: DICOM PS3.3 C.11.1 (modality LUT), C.7.6.3.1.2 (photometric interpretation), C.7.5.1.1.2 (padding).
"""

import contextlib
import importlib.util
import os
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pretext3d.data.dicom_files import hush, open_dataset
from pretext3d.data.dicom_headers import Frame
from pretext3d.data.faults import UNREADABLE, BadFileError

__all__ = ["read_voxels"]

PHYSICAL = ("CT", "PT")  # modalities whose values are not inverted


def read_voxels(frames: Sequence[Frame]) -> NDArray[np.float32]:
    """The voxels of frames of one size (i, j, k, c), k in the order of the frames.

    Raises:
        BadFileError: If a file's voxels cannot be decoded, or have another size than its header names.
    """
    plane = frames[0].plane
    size = (plane.rows, plane.columns, *((plane.channels,) if plane.channels > 1 else ()))
    voxels = np.empty((len(frames), *size), dtype=np.float32)
    files: dict[str, dict[int, int]] = defaultdict(dict)
    for k, frame in enumerate(frames):
        files[frame.file][frame.number] = k
    unmeasured: dict[int, NDArray[np.uint8]] = {}
    low, high = np.inf, -np.inf
    for file, places in files.items():
        for number, (array, padding) in zip(sorted(places), decoded(file, sorted(places)), strict=True):
            if array.shape != size:
                raise BadFileError(
                    UNREADABLE, f"{Path(file).name}: voxels of another size than its header names"
                )
            voxels[places[number]] = array
            measured = voxels[places[number]]
            measured = measured if padding is None else measured[~padding]
            if measured.size:
                low, high = min(low, measured.min()), max(high, measured.max())
            if padding is not None:
                unmeasured[places[number]] = np.packbits(padding)
    for k, bits in unmeasured.items() if low <= high else ():
        padding = np.unpackbits(bits, count=voxels[k].size).reshape(size).astype(bool)
        outside = padding & ((voxels[k] < low) | (voxels[k] > high))
        voxels[k][outside] = low
    return voxels.reshape((*voxels.shape[:3], -1)).transpose(2, 1, 0, 3)


def decoded(file: str, numbers: Sequence[int]) -> Iterator[tuple[NDArray[Any], NDArray[np.bool_] | None]]:
    """Values (rows, columns[, channels]) and padding (True where nothing was measured) of some frames.

    Args:
        file: Path.
        numbers: Numbers of the frames, ascending.

    Raises:
        BadFileError: If they cannot be decoded.
    """
    hush()
    name = ""
    try:
        with Path(file).open("rb") as opened:
            data = open_dataset(opened)
        name = f" ({data.file_meta.TransferSyntaxUID.name})"
        for number, stored in zip(numbers, stored_frames(file, data, numbers), strict=True):
            yield as_values(stored, data, number)
    except (BadFileError, MemoryError, OSError):
        raise
    except Exception as error:  # a broken file, and each decoder, may raise anything
        detail = f"{Path(file).name}: its voxels{name} cannot be decoded"
        without_gdcm = importlib.util.find_spec("gdcm") is None  # which may decode what the others cannot
        raise BadFileError(UNREADABLE, detail, passing=without_gdcm) from error


def stored_frames(file: str, data: Any, numbers: Sequence[int]) -> Iterator[NDArray[Any]]:
    """Frames as stored, by pydicom; where its decoders cannot (JPEG of 12 bits), by GDCM, if installed."""
    from pydicom.pixels import get_decoder, iter_pixels

    syntax = data.file_meta.TransferSyntaxUID
    plugins = get_decoder(syntax).available_plugins if syntax.is_compressed else ()
    plugin = "pillow" if "pillow" in plugins else ""  # of a damaged file GDCM's prints what is wrong itself
    done = 0
    try:
        for stored in iter_pixels(data, indices=numbers, decoding_plugin=plugin):
            yield stored
            done += 1
    except Exception:
        rest = numbers[done:]
        if "gdcm" not in plugins:
            raise
        with quiet():
            try:
                frames = list(iter_pixels(data, indices=rest))
            except Exception:
                frames = list(gdcm_frames(file, data)[rest])
        yield from frames


def gdcm_frames(file: str, data: Any) -> NDArray[Any]:
    """All frames (frames, rows, columns) of a file with one value per pixel, by GDCM's own reader.

    Raises:
        ValueError: If GDCM cannot read them either.
    """
    import gdcm

    reader = gdcm.ImageReader()
    reader.SetFileName(file)
    if not reader.Read() or data.SamplesPerPixel != 1:
        raise ValueError(file)
    content = reader.GetImage().GetBuffer().encode("utf-8", "surrogateescape")
    kind = f"{'i' if data.PixelRepresentation else 'u'}{data.BitsAllocated // 8}"
    return np.frombuffer(content, dtype=kind).reshape(-1, data.Rows, data.Columns)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep a C library's own words from the process's standard error."""
    kept = os.dup(2)
    with open(os.devnull, "wb") as nowhere:  # noqa: PTH123
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def as_values(stored: NDArray[Any], data: Any, number: int) -> tuple[NDArray[Any], NDArray[np.bool_] | None]:
    """One frame's values and padding from its stored numbers."""
    from pydicom.pixels import apply_color_lut, apply_modality_lut

    photometric = str(data.get("PhotometricInterpretation") or "")
    if photometric == "PALETTE COLOR":
        colours = apply_color_lut(stored, data)
        return (colours >> 8 if colours.dtype == np.uint16 else colours), None
    if stored.ndim == 3 or stored.dtype.kind == "f":
        return stored, None
    padding = padding_of(stored, data)
    if photometric == "MONOCHROME1" and data.get("Modality") not in PHYSICAL:
        top = -1 if data.PixelRepresentation else 2 ** int(data.BitsStored) - 1
        stored = top - stored.astype(np.int64)
    if data.get("ModalityLUTSequence"):
        return apply_modality_lut(stored, data), padding
    slope, intercept = rescaling(data, number)
    return (stored if (slope, intercept) == (1.0, 0.0) else stored * slope + intercept), padding


def padding_of(stored: NDArray[Any], data: Any) -> NDArray[np.bool_] | None:
    """True where a frame is padding; None where no voxel is."""
    first = data.get("PixelPaddingValue")
    if not isinstance(first, int):
        return None
    limit = data.get("PixelPaddingRangeLimit")
    low, high = sorted((first, limit if isinstance(limit, int) else first))
    found = (stored >= low) & (stored <= high)
    return found if found.any() else None


def rescaling(data: Any, number: int) -> tuple[float, float]:
    """Slope and intercept of a frame: its own, the shared ones, or those of the file."""
    groups = [*(data.get("PerFrameFunctionalGroupsSequence") or [])[number : number + 1]]
    groups += data.get("SharedFunctionalGroupsSequence") or []
    for place in (*((g.get("PixelValueTransformationSequence") or [None])[0] for g in groups), data):
        if place is not None and place.get("RescaleSlope") is not None:
            return float(place.RescaleSlope), float(place.get("RescaleIntercept") or 0)
    return 1.0, 0.0

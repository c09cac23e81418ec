"""Pictures on disk, of the kinds that the tests need: Pillow writes no colours of 16 bits."""

import struct
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

EXIF_ORIENTATION = 274


def png16(path: Path, array: np.ndarray) -> str:
    """A PNG of 16 bits per value, of an array (rows, columns, 2 to 4): grey with alpha, RGB, RGBA."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows, columns, channels = array.shape
    header = struct.pack(">IIBBBBB", columns, rows, 16, {2: 4, 3: 2, 4: 6}[channels], 0, 0, 0)
    lines = b"".join(b"\0" + row.astype(">u2").tobytes() for row in array)
    parts = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(lines)) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + parts)
    return str(path)


def bomb(path: Path, side: int = 100_000) -> str:
    """A small PNG whose header declares side x side pixels."""
    Image.fromarray(np.zeros((2, 3), np.uint8)).save(path)
    data = bytearray(path.read_bytes())
    data[16:24] = struct.pack(">II", side, side)
    data[29:33] = struct.pack(">I", zlib.crc32(bytes(data[12:29])))
    path.write_bytes(data)
    return str(path)


def picture(path: Path, array: np.ndarray, orientation: int = 1, **options: object) -> str:
    """Any other picture, of an array (rows, columns) or (rows, columns, 3), with an EXIF orientation."""
    path.parent.mkdir(parents=True, exist_ok=True)
    exif = Image.Exif()
    exif[EXIF_ORIENTATION] = orientation
    Image.fromarray(array).save(path, exif=exif, **options)
    return str(path)


def colours(rows: int = 5, columns: int = 7, seed: int = 0, high: int = 255) -> np.ndarray:
    """Random colours (rows, columns, 3)."""
    dtype = np.uint8 if high < 256 else np.uint16
    return np.random.RandomState(seed).randint(1, high, (rows, columns, 3)).astype(dtype)


def photograph(rows: int = 48, columns: int = 64) -> np.ndarray:
    """Smooth colours, which JPEG keeps to a few grey values: red grows to the right, green downwards."""
    picture = np.zeros((rows, columns, 3), np.uint8)
    picture[..., 0] = np.linspace(10, 240, columns)
    picture[..., 1] = np.linspace(10, 240, rows)[:, None]
    picture[..., 2] = 90
    return picture

"""Pictures: PNG, JPEG and TIFF as arrays, and the content of their headers before decoding.

A picture has no spacing and no position in the patient. Both are nominal here: 1 mm, with columns towards the
patient's left and rows towards the back, as ITK reads a picture and as an axial slice is displayed. A picture
and an axial slice therefore go through the same transforms.

A file is read as a viewer shows it: its EXIF orientation is applied, CMYK and palettes become RGB, a palette
of greys becomes grey. Alpha is dropped: colours keep their stored values, even where a viewer would show a
background; `transparency` says where that matters. Values keep their 8, 16 or 32 bits. As a label, a picture
with a palette has its indices as classes, one that contains only 0 and 255 (a binary mask) is read as 0 and
1, and three equal channels are read as one.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "PICTURES",
    "PictureHeader",
    "is_picture",
    "picture_header",
    "read_label_picture",
    "read_picture",
    "transparency",
]

PICTURES = (".png", ".jpg", ".jpeg", ".tif", ".tiff")
JPEG = (".jpg", ".jpeg")
FORMATS = ("PNG", "JPEG", "TIFF")
OPAQUE = 255

MAX_PIXELS = 178_956_970  # 0.5 GB of RGB, Pillow's own limit: a file that declares more is not decoded

EXIF_ORIENTATION, FIRST_SWAPPED = 274, 5  # EXIF's tag; from 5 on, rows and columns are swapped
# modes by channels; what follows a semicolon in a mode is how its bits are stored
CHANNELS = {"1": 1, "L": 1, "LA": 1, "La": 1, "I": 1, "F": 1}
CHANNELS |= dict.fromkeys(("P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr"), 3)
BITS_PER_SAMPLE = 258  # TIFF's tag
WIDE = ("RGB;16", "RGBA;16", "RGBX;16")  # how Pillow unpacks 16 bits per colour; the byte order follows
SWAPPED = {"B": "L", "L": "B"}


class PictureHeader(NamedTuple):
    """Contents of a picture's header.

    Attributes:
        width: Number of columns, as shown (EXIF orientation applied).
        height: Number of rows, as shown.
        channels: Number of channels, 1 or 3.
        pages: Number of pictures in the file.
    """

    width: int
    height: int
    channels: int
    pages: int


def is_picture(path: str) -> bool:
    """True for a PNG, JPEG or TIFF file, by its name.

    Examples:
        >>> is_picture("eye_01.JPG"), is_picture("scan.nii.gz")
        (True, False)
    """
    return path.lower().endswith(PICTURES)


@contextmanager
def opened(path: str) -> Iterator[Any]:
    """The picture, not decoded yet.

    Raises:
        ValueError: If the file declares more than `MAX_PIXELS`, or is of another format.
    """
    from PIL import Image, UnidentifiedImageError

    # a file object, not its name: from a name Pillow maps a plain TIFF to memory, and scrambles a rotated one
    with Path(path).open("rb") as file:
        try:
            image = Image.open(file, formats=FORMATS)  # whatever its name says: no other decoder runs
        except UnidentifiedImageError:
            raise ValueError("its content is no PNG, JPEG or TIFF") from None
        except Image.DecompressionBombError:
            raise ValueError(f"it declares more than {MAX_PIXELS:,} pixels, which are not decoded") from None
        if image.width * image.height > MAX_PIXELS:
            size = f"{image.width}x{image.height}"
            raise ValueError(f"it declares {size} pixels; more than {MAX_PIXELS:,} are not decoded")
        yield image


def picture_header(path: str) -> PictureHeader:
    """Size, channels and pages of a picture.

    Raises:
        ValueError: For a file that is not a picture, one that is too large, or one of other colours.
    """
    with opened(path) as image:
        swapped = image.getexif().get(EXIF_ORIENTATION, 1) >= FIRST_SWAPPED and image.format != "TIFF"
        width, height = (
            reversed(image.size) if swapped else image.size
        )  # for a TIFF, Pillow gives the final size
        pages = getattr(image, "n_frames", 1) if image.format in ("TIFF", "PNG") else 1
        return PictureHeader(width, height, _channels(image), pages)


def _channels(image: Any) -> int:
    """The number of channels that a picture is read with.

    Raises:
        ValueError: For colours that are neither grey, RGB, CMYK nor a palette's.
    """
    mode = image.mode.split(";")[0]
    if mode not in CHANNELS:
        raise ValueError(f"colours in {mode}, expected grey, RGB, CMYK or a palette")
    if mode in ("P", "PA"):
        palette = np.reshape(image.getpalette("RGB"), (-1, 3))
        return 1 if (palette == palette[:, :1]).all() else 3
    return CHANNELS[mode]


def transparency(path: str) -> str:
    """What is lost where a picture's alpha is dropped; '' for one that is opaque everywhere.

    Raises:
        OSError: As `read_picture`.
        ValueError: As `read_picture`.
    """
    with opened(path) as image:
        if not image.has_transparency_data:
            return ""
        alpha = np.asarray(image.convert("RGBA").getchannel("A"))
    share = float((alpha < OPAQUE).mean())
    return (
        f"alpha, below {OPAQUE} in {share:.1%} of the pixels, is dropped: colours as stored" if share else ""
    )


def read_picture(path: str) -> NDArray[Any]:
    """The picture (columns i, rows j, channels), one channel or three, in the file's data type.

    Raises:
        OSError: For a file that is truncated.
        ValueError: For a file that is not a picture, one that is too large, or whose layout is not supported.
    """
    return _as_array(path, indices=False)


def read_label_picture(path: str) -> NDArray[Any]:
    """A label (columns i, rows j, 1) of class numbers; the module's docstring says how they are derived.

    Three channels that differ stay three: such a picture is not a label.

    Raises:
        OSError: As `read_picture`.
        ValueError: As `read_picture`, and for JPEG, which changes values.
    """
    if path.lower().endswith(JPEG):
        raise ValueError("JPEG changes the values of a label; expected PNG, TIFF or NIfTI")
    array = _as_array(path, indices=True)
    if (array == array[..., :1]).all():
        array = array[..., :1]
    if array.dtype == np.uint8 and array.max() == 255 and np.isin(array, (0, 255)).all():
        array = array // 255
    return array


def _as_array(path: str, indices: bool) -> NDArray[Any]:
    """The decoded picture (i, j, c); `indices`: a palette's indices instead of its colours."""
    from PIL import ImageOps

    with opened(path) as image:
        wide = _wide(image)
        if wide:
            array = _sixteen_bits(path, image, wide)
        else:
            shown, channels = ImageOps.exif_transpose(image), _channels(image)
            if shown.mode in ("LA", "La") or (channels == 1 and shown.mode in ("P", "PA") and not indices):
                shown = shown.convert("L")
            elif channels == 3 and not (indices and shown.mode == "P"):
                shown = shown.convert("RGB")
            array = np.asarray(shown)
    array = array.astype(np.uint8 if array.dtype == bool else array.dtype.newbyteorder("="), copy=False)
    return np.moveaxis(array.reshape(*array.shape[:2], -1), 0, 1)


def _wide(image: Any) -> str:
    """How Pillow would unpack 16 bits per colour, e.g. RGB;16B, of which it keeps the upper 8; '' for others.

    Raises:
        ValueError: For a layout of 16 bits other than pixel by pixel.
    """
    modes = {tile.args if isinstance(tile.args, str) else tile.args[0] for tile in image.tile if tile.args}
    found = [mode for mode in modes if isinstance(mode, str) and ";16" in mode]
    bits = image.tag_v2.get(BITS_PER_SAMPLE, (8,)) if image.format == "TIFF" else (8,)
    if found and found[0].startswith("LA"):
        raise ValueError("grey of 16 bits with alpha, of which 8 would be lost; expected it without alpha")
    if image.mode not in ("RGB", "RGBA", "RGBX") or not (found or max(bits) > 8):
        return ""
    if len(modes) > 1 or not found or found[0][:-1] not in WIDE:
        raise ValueError(f"colours of 16 bits stored as {sorted(modes)}; expected them pixel by pixel")
    return found[0]


def _sixteen_bits(path: str, image: Any, mode: str) -> NDArray[Any]:
    """RGB of 16 bits (rows, columns, 3), combined from two readings.

    Pillow keeps the upper byte of each value; with the byte order swapped, it keeps the lower one.
    """
    from PIL import ImageOps

    halves = [np.asarray(ImageOps.exif_transpose(image))[..., :3].astype(np.uint16)]
    order = SWAPPED.get(mode[-1]) or ("B" if sys.byteorder == "little" else "L")  # N: native order
    with opened(path) as again:
        tiles = []
        for tile in again.tile:
            other = mode[:-1] + order
            tiles.append(tile._replace(args=other if isinstance(tile.args, str) else (other, *tile.args[1:])))
        again.tile = tiles
        halves.append(np.asarray(ImageOps.exif_transpose(again))[..., :3].astype(np.uint16))
    return halves[0] << 8 | halves[1]

"""Reads 8-bit image files; cut files raise an error."""

import io
import re
import struct
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from rsclip_jax.data.codecs.limits import TooLarge, check_pixels
from rsclip_jax.data.types import MAX_PIXELS

cv2.setNumThreads(0)  # the pipeline has its own threads

# JPEG's markers: frame headers, the scan, and those without a length.
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_SCAN, _BARE = 0xDA, frozenset((0x00, 0x01, *range(0xD0, 0xDA), 0xFF))
JPEG_2000 = (b"\0\0\0\x0cjP", b"\xffO\xffQ")  # a file, a bare codestream
SUFFIXES = (".jpg", ".jpeg", ".png", ".tif", ".tiff", ".jp2", ".bmp", ".webp")
_RASTERS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+", *JPEG_2000)
# The bytes at the end of a whole file. libjpeg pads a cut JPEG with grey, and OpenCV
# before version 5 returns it as if it were whole, so the end is checked first.
_ENDS = {b"\xff\xd8": b"\xff\xd9", b"\x89P": b"IEND\xaeB`\x82"}


def read_image(path: Path, bands: int = 3, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """Reads an image as uint8 [h, w, bands]: RGB (grey is repeated), or 1 band of grey.

    max_pixels: see check_pixels. Raises ValueError naming a file that is unreadable,
    cut short, too large or not 8-bit, or that has colour where one band is expected.
    """
    data = path.read_bytes()
    if is_raster(data):
        # A model is loaded without GDAL, which takes a second to import.
        from rsclip_jax.data.codecs.pictures import read_picture

        return read_picture(path, bands, max_pixels).pixels
    return decode_image(data, str(path), bands, max_pixels)


def decode_other_mode(
    data: bytes, where: str, max_pixels: int = MAX_PIXELS
) -> Image.Image | None:
    """Pillow's picture of a file's bytes, if it is neither RGB nor grey; else None.

    It has alpha, a palette, one bit, CMYK, or grey of more than 8 bits. Files that
    Pillow cannot read are left to decode_image. where: as there. Raises TooLarge.
    """
    try:
        picture = Image.open(io.BytesIO(data))
        if picture.mode in ("RGB", "L"):
            return None
        check_pixels(picture.height, picture.width, where, max_pixels)
        picture.load()
    except TooLarge:
        raise
    except Exception:  # a damaged file can raise anything
        return None
    return picture


def is_raster(data: bytes) -> bool:
    """Whether a file is a TIFF or JPEG 2000, by its first bytes."""
    return data.startswith(_RASTERS)


def decode_image(
    data: bytes, where: str, bands: int = 3, max_pixels: int = MAX_PIXELS
) -> np.ndarray:
    """Like read_image, from a file's bytes; where: their name in errors."""
    end, size = _ENDS.get(data[:2]), told_size(data)
    if end is None or size is None or not data.rstrip(b"\0\n\r").endswith(end):
        return _read_slowly(data, where, bands, max_pixels)
    check_pixels(*size, where, max_pixels)
    flag = cv2.IMREAD_UNCHANGED
    if bands == 3:
        # No EXIF rotation: it would change a sensor's rows. 16 bits are kept and
        # refused below.
        flag = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION
        flag |= cv2.IMREAD_ANYDEPTH
    try:
        array = cv2.imdecode(np.frombuffer(data, np.uint8), flag)
    except cv2.error:  # a limit of its own
        array = None
    if array is None:
        return _read_slowly(data, where, bands, max_pixels)
    if bands != 3 and array.ndim == 3:
        array = array[..., _channels(data, array.shape[-1])]
    return check_bands(array, where, bands)


def told_size(data: bytes) -> tuple[int, int] | None:
    """(height, width) that a PNG or JPEG says it has; None where it says none.

    A JPEG says it in its first frame header: ITU-T T.81, B.2.2. None as well where a
    PNG's chunks are not as long as they say: OpenCV makes room for any length.
    """
    if data[:2] == b"\x89P":
        if data[12:16] != b"IHDR" or len(data) < 24 or not _has_chunks(data):
            return None
        width, height = struct.unpack_from(">II", data, 16)
        return height, width
    at = 2
    while (at := data.find(b"\xff", at)) >= 0 and at + 9 <= len(data):
        marker = data[at + 1]
        if marker in _FRAMES:
            height, width = struct.unpack_from(">HH", data, at + 5)
            return height, width
        if marker == _SCAN:
            return None
        at += 1  # fill bytes, and markers without a length
        if marker not in _BARE:
            at += 1 + int.from_bytes(data[at + 1 : at + 3], "big")
    return None


def _has_chunks(data: bytes) -> bool:
    """Whether the chunks of a PNG are in the file up to its end, IEND."""
    at = 8
    while at + 12 <= len(data):
        if data[at + 4 : at + 8] == b"IEND":
            return True
        at += 12 + int.from_bytes(data[at : at + 4], "big")
    return False


def _channels(data: bytes, count: int) -> list[int]:
    """The file's channels in its order: OpenCV has blue first, and three for grey."""
    if data[:2] == b"\x89P" and data[25:26] == b"\4":  # grey and alpha
        return [0, 3]
    return [2, 1, 0, *range(3, count)]


def _read_slowly(data: bytes, where: str, bands: int, max_pixels: int) -> np.ndarray:
    """Reads by Pillow, which refuses cut files but allows trailing bytes."""
    try:
        with Image.open(io.BytesIO(data)) as image:
            check_pixels(image.height, image.width, where, max_pixels)
            bits = max(
                getattr(image, "tag_v2", {}).get(258, (8,))
            )  # BitsPerSample of a TIFF
            deep = bits > 8 or image.mode[0] in "IF"
            wanted = image.convert("RGB") if bands == 3 and not deep else image
            array = np.array(wanted)
    except TooLarge:
        raise
    except Exception as error:  # a damaged file can raise anything
        why = re.sub(r" ?<_io\.BytesIO[^>]*>", "", str(error))
        raise ValueError(
            f"{where}: unreadable or cut image ({len(data):,} bytes; {why});"
            " fetch the file again"
        ) from error
    if deep:  # Pillow would clip or truncate them to 8
        raise ValueError(
            f"{where}: values of more than 8 bits, expected {bands} of uint8"
        )
    return check_bands(array, where, bands)


def check_bands(array: np.ndarray, where: str, bands: int) -> np.ndarray:
    """Returns [h, w] or [h, w, bands] as [h, w, bands]; raises unless it is 8-bit."""
    if array.ndim == 2:
        array = array[..., None]
    count = array.shape[-1]
    if array.dtype != np.uint8 or count != bands:
        way = "convert it to 8 bits"
        if array.dtype == np.uint8:
            way = "use the sensor that fits"
            if count > bands:
                way += ", or name the file's bands in a dataset's file_bands"
        raise ValueError(
            f"{where}: {count} bands of {array.dtype}, expected {bands} of uint8: {way}"
        )
    return array

"""Plain TIFFs: a short look at the tags proves that a fast decoder reads them right.

Every other TIFF is read by GDAL. Tags: TIFF 6.0; the place: GeoTIFF 1.1 (OGC 19-008r4).
"""

import enum
import functools
import html
import re
import struct
from collections.abc import Iterator
from typing import NamedTuple

import cv2
import numpy as np

from rsclip_jax.data.codecs.places import Transform

# OpenCV warns of unknown tags for every GeoTIFF. A file that it cannot read is read by
# GDAL, whose error is raised.
cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_FATAL)

# Beside these, tags that change nothing: resolution, software, date, author.
_HARMLESS = (282, 283, 296, 305, 306, 315)
_TYPES = {1: "B", 2: "s", 3: "H", 4: "I", 12: "d"}
_BYTES = {"B": 1, "s": 1, "H": 2, "I": 4, "d": 8}
_ABSENT = (0, 0, 0, 0)
_KINDS = {1: "u", 2: "i", 3: "f"}  # SampleFormat
# Compressions: none; LZW and both numbers of deflate, which OpenCV decodes.
_NONE, _BY_OPENCV = 1, (5, 8, 32946)
_OPENCV_DTYPES = ("u2", "i2", "f4")
_WORDS = re.compile(r'<Item name="([^"<]*)"( domain="[^"<]*")?>([^<]*)</Item>')
# Keys that, beside an EPSG code, define nothing else: model, raster type, citations;
# angles, the ellipsoid's axis and flattening, linear unit.
_KEYS_OF_A_CODE = {1024, 1025, 1026, 2048, 2049, 2054, 2057, 2059, 3072, 3073, 3076}
_LARGEST_TILE = 2**24  # pixels: decoders make room for what a tile says that it has
_UNITS = {1025: 1, 2054: 9102, 3076: 9001}  # pixels are areas, degree, metre


class _Tag(enum.IntEnum):
    """The tags that are understood, and thus may be in a plain file."""

    SUBFILE = 254
    WIDTH = 256
    HEIGHT = 257
    BITS = 258
    COMPRESSION = 259
    PHOTOMETRIC = 262
    DESCRIPTION = 270
    STRIPS = 273
    ORIENTATION = 274
    SAMPLES = 277
    ROWS = 278
    STRIP_BYTES = 279
    PLANAR = 284
    PREDICTOR = 317
    TILE_WIDTH = 322
    TILE_HEIGHT = 323
    TILES = 324
    TILE_BYTES = 325
    EXTRA = 338
    FORMAT = 339
    SCALE = 33550
    TIEPOINT = 33922
    KEYS = 34735
    DOUBLES = 34736
    TEXTS = 34737
    METADATA = 42112
    NODATA = 42113


_GEO = (_Tag.SCALE, _Tag.TIEPOINT, _Tag.KEYS, _Tag.DOUBLES, _Tag.TEXTS)
_KNOWN = frozenset((*_HARMLESS, *_Tag))


class Plain(NamedTuple):
    """The layout of a plain TIFF.

    dtype: in the file's byte order. rows: in a strip; 0 where OpenCV decodes. strips:
    (first byte, bytes). place: (crs, transform), None where the file has no place.
    nodata: the value of pixels without one, None where the file names none.
    """

    dtype: np.dtype
    shape: tuple[int, int, int]
    planar: bool
    rows: int
    strips: list[tuple[int, int]]
    tags: dict[str, str]
    place: tuple[str, Transform] | None
    nodata: int | None


class _NotPlain(Exception):
    """The file has something that GDAL must read."""


def look_at_tags(data: bytes) -> Plain | None:
    """Returns the layout of a TIFF, given its bytes; None unless it is plain.

    Plain are classic TIFFs of one page with all blocks, in 8, 16, 32 or 64 bits used in
    full, uncompressed in strips, or of one band of 16 bits or float32 in LZW or
    deflate; without a mask, alpha, scale, description of a band, orientation, nodata
    value of floats, or a place that needs more than a scale, a tie point and an EPSG
    code.
    """
    size = len(data)
    start = _STARTS.get(size)
    plain = _look_at_head(data[:start], size) if start else None
    if plain is None:
        plain = _look(data, size)
        if plain and plain.rows:
            if len(_STARTS) > 1000:
                _STARTS.clear()
            _STARTS[size] = plain.strips[0][0]
    return plain


# File size -> where the pixels of the last uncompressed file of this size began. The
# bands of a patch share all bytes before it, so that they are parsed once.
_STARTS: dict[int, int] = {}


def _look(data: bytes, size: int) -> Plain | None:
    try:
        return _describe(_Tags(data, size))
    except (_NotPlain, struct.error, KeyError, IndexError, UnicodeDecodeError):
        return None


_look_at_head = functools.lru_cache(maxsize=64)(_look)


def decode_plain(data: bytes, plain: Plain) -> np.ndarray | None:
    """The pixels [h, w, bands] in native byte order; None if the decoder fails."""
    height, width, bands = plain.shape
    native = plain.dtype.newbyteorder("=")
    if not plain.rows:
        try:
            array = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
        except cv2.error:
            return None
        if array is None or array.shape != (height, width):
            return None
        return array[..., None] if array.dtype == native else None
    stored = bytearray().join(data[at : at + n] for at, n in plain.strips)
    array = np.frombuffer(stored, plain.dtype)
    if plain.planar:
        array = array.reshape(bands, height, width).transpose(1, 2, 0)
    return np.ascontiguousarray(array.reshape(plain.shape), native)


class _Tags:
    """The tags of the only page of a classic TIFF; values are read when asked for.

    data: the file's first bytes, with all tags; size: that of the file.
    """

    def __init__(self, data: bytes, size: int):
        self.data, self.size = data, size
        self.order = {b"II": "<", b"MM": ">"}[data[:2]]
        magic, start = struct.unpack_from(f"{self.order}HI", data, 2)
        (count,) = struct.unpack_from(f"{self.order}H", data, start)
        end = start + 2 + 12 * count
        (more,) = struct.unpack_from(f"{self.order}I", data, end)
        if magic != 42 or more:
            raise _NotPlain
        rows = struct.iter_unpack(f"{self.order}HHII", data[start + 2 : end])
        self.start = start + 2
        self.entries = {
            tag: (kind, n, value, i) for i, (tag, kind, n, value) in enumerate(rows)
        }
        if not self.entries.keys() <= _KNOWN:
            raise _NotPlain

    def get(self, tag: int, *default: int, types: str = "BHI") -> tuple:
        """The values of a tag, which are of one of these types; without it the default.

        types: as in struct: unsigned integers, "d" for numbers, "s" for bytes.
        """
        if tag not in self.entries:
            if not default:
                raise _NotPlain
            return default
        kind, n, at, i = self.entries[tag]
        letter = _TYPES[kind]
        if letter not in types:
            raise _NotPlain
        if n * _BYTES[letter] <= 4:  # small values are in the entry itself
            at = self.start + 12 * i + 8
        return struct.unpack_from(f"{self.order}{n}{letter}", self.data, at)

    def text(self, tag: int) -> str:
        return self.get(tag, types="s")[0].rstrip(b"\0").decode()

    def one(self, tag: int, *default: int) -> int:
        """The value that a tag has, once or for each band."""
        kind, n, value, _ = self.entries.get(tag, _ABSENT)
        if n == 1 and kind == 4:
            return value
        if n == 1 and kind == 3:  # it fills the first half of four bytes
            return value & 0xFFFF if self.order == "<" else value >> 16
        values = set(self.get(tag, *default))
        if len(values) != 1:
            raise _NotPlain
        return values.pop()


def _describe(tags: _Tags) -> Plain:
    bands = tags.one(_Tag.SAMPLES, 1)
    shape = tags.one(_Tag.HEIGHT), tags.one(_Tag.WIDTH), bands
    bits, kind = tags.one(_Tag.BITS), _KINDS[tags.one(_Tag.FORMAT, 1)]
    if bits not in (8, 16, 32, 64) or (kind == "f" and bits < 32):
        raise _NotPlain
    dtype = np.dtype(f"{tags.order}{kind}{bits // 8}")
    colour = {1: 1, 2: 3}.get(tags.one(_Tag.PHOTOMETRIC), 0)  # grey, or RGB
    neutral = tags.one(_Tag.ORIENTATION, 1) == 1 and tags.one(_Tag.SUBFILE, 0) == 0
    if not neutral or not colour or bands < colour or any(tags.get(_Tag.EXTRA, 0)):
        raise _NotPlain
    planar = bands > 1 and tags.one(_Tag.PLANAR, 1) == 2
    rows, strips = _blocks(tags, shape, dtype, planar)
    place = _place_of(tags)
    nodata = _nodata_of(tags, dtype)
    return Plain(dtype, shape, planar, rows, strips, _words(tags), place, nodata)


def _blocks(
    tags: _Tags, shape: tuple[int, int, int], dtype: np.dtype, planar: bool
) -> tuple[int, list[tuple[int, int]]]:
    """(rows in a strip, or 0 where OpenCV decodes; [(first byte, bytes)])."""
    (height, width, bands), tiled = shape, _Tag.TILES in tags.entries
    rows = tags.one(_Tag.TILE_HEIGHT) if tiled else tags.one(_Tag.ROWS, height)
    wide = tags.one(_Tag.TILE_WIDTH) if tiled else width
    starts = tags.get(_Tag.TILES if tiled else _Tag.STRIPS)
    sizes = tags.get(_Tag.TILE_BYTES if tiled else _Tag.STRIP_BYTES)
    if not height * width * rows * wide or len(starts) != len(sizes):
        raise _NotPlain
    if tiled and rows * wide > _LARGEST_TILE:
        raise _NotPlain
    blocks = list(zip(starts, sizes, strict=True))
    count = -(-height // rows) * -(-width // wide) * (bands if planar else 1)
    inside = all(at and n and at + n <= tags.size for at, n in blocks)
    if len(blocks) != count or not inside:
        raise _NotPlain
    compression = tags.one(_Tag.COMPRESSION, _NONE)
    if compression == _NONE and not tiled:
        line = width * dtype.itemsize * (1 if planar else bands)
        full = [min(rows, height - top) * line for top in range(0, height, rows)]
        if list(sizes) != full * (bands if planar else 1):
            raise _NotPlain
        return rows, blocks
    known = compression in (_NONE, *_BY_OPENCV) and dtype.str[1:] in _OPENCV_DTYPES
    if bands > 1 or not known or tags.one(_Tag.PHOTOMETRIC) != 1:
        raise _NotPlain
    return 0, blocks


def _words(tags: _Tags) -> dict[str, str]:
    """The metadata in words. Raises _NotPlain where they are about a band."""
    words = {}
    if _Tag.DESCRIPTION in tags.entries:
        words["TIFFTAG_IMAGEDESCRIPTION"] = tags.text(_Tag.DESCRIPTION)
    if _Tag.METADATA in tags.entries:
        text = tags.text(_Tag.METADATA)
        if re.sub(r"</?GDALMetadata>|\s", "", _WORDS.sub("", text)):
            raise _NotPlain
        for name, domain, value in _WORDS.findall(text):
            if not domain:
                words[html.unescape(name)] = html.unescape(value)
    return words


def _nodata_of(tags: _Tags, dtype: np.dtype) -> int | None:
    if _Tag.NODATA not in tags.entries:
        return None
    text = tags.text(_Tag.NODATA).strip()
    if dtype.kind == "f":
        if text.lower() != "nan":  # GDAL compares rounded decimals
            raise _NotPlain
        return None  # NaN says it itself
    if not re.fullmatch(r"-?\d+", text):
        raise _NotPlain
    limits = np.iinfo(dtype)
    return int(text) if limits.min <= int(text) <= limits.max else None


def _place_of(tags: _Tags) -> tuple[str, Transform] | None:
    if not any(tag in tags.entries for tag in _GEO):
        return None
    numbers = (tags.get(tag, types="d") for tag in (_Tag.SCALE, _Tag.TIEPOINT))
    crs, transform = _read_place(*numbers, tags.get(_Tag.KEYS, types="H"))
    return crs, transform


@functools.lru_cache(maxsize=64)  # all bands of a patch share it
def _read_place(scale: tuple, tie: tuple, keys: tuple) -> tuple[str, Transform]:
    """(crs, transform) of a page. Raises _NotPlain unless its keys are a code."""
    values = dict(_key_values(keys))
    code = values.get({1: 3072, 2: 2048}[values[1024]], 0)
    units = all(values.get(key, unit) == unit for key, unit in _UNITS.items())
    simple = values.keys() <= _KEYS_OF_A_CODE and units and 1024 <= code < 32767
    if not simple or len(tie) != 6 or len(scale) < 2 or min(scale[:2]) <= 0:
        raise _NotPlain
    (wide, high), (column, row, _, x, y, _) = scale[:2], tie
    return f"EPSG:{code}", (wide, 0, x - column * wide, 0, -high, y + row * high)


def _key_values(keys: tuple) -> Iterator[tuple[int, int]]:
    """(key, value) of the directory of geographic keys."""
    for i in range(4, len(keys) - 3, 4):
        key, _, _, value = keys[i : i + 4]
        yield key, value

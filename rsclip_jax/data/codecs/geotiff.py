"""GeoTIFFs to arrays, and their ground footprints.

Bands are in one file, or in one file each. A footprint is read from three tags of the
first image, and from the keys of the third that name its CRS: GeoTIFF 1.1 (OGC
19-008r4).
"""

import functools
import io
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import cv2
import numpy as np
import tifffile

SUFFIXES = (".tif", ".tiff")
# OpenCV warns of unknown tags for every GeoTIFF. A file that it cannot read is read by
# tifffile, whose error is raised.
cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_FATAL)
_WIDTH, _HEIGHT, _SCALE, _TIEPOINT, _KEYS = 256, 257, 33550, 33922, 34735
_SIZES = {3: 2, 4: 4, 12: 8}  # bytes of a value: unsigned of 16 and 32 bits, double
_ORDERS: dict[str, Literal["little", "big"]] = {"<": "little", ">": "big"}
_EPSG_KEYS, _NOT_EPSG = (3072, 2048), 32767  # projected before geographic


class Footprint(NamedTuple):
    """The ground that a GeoTIFF covers, in its CRS; epsg 0: a CRS without a code."""

    path: Path
    epsg: int
    left: float
    top: float
    right: float
    bottom: float
    pixel: tuple[float, float]  # width and height

    def __str__(self) -> str:
        box = (self.left, self.bottom, self.right, self.top)
        numbers = ", ".join(f"{x:.10g}" for x in box)
        return f"{self.path} (EPSG:{self.epsg or '?'}, {numbers})"


def read_tif(path: Path, footprints: list[Footprint] | None = None) -> np.ndarray:
    """Reads a TIFF as [h, w, bands] in its own dtype, however its bands are stored.

    Its footprint, if its tags have one, is added to footprints. Raises ValueError
    naming a file that is unreadable or cut short.
    """
    if not path.exists():
        raise FileNotFoundError(f"{path} is missing: fetch it")
    try:
        data = path.read_bytes()
        with tifffile.TiffFile(io.BytesIO(data)) as file:
            # One page with all bands, or one page for each band.
            series = file.series[0]
            array, separate = series.asarray(), series.axes.endswith("YX")
    except Exception as error:  # damaged bytes make a decoder fail in any way
        raise ValueError(
            f"{path}: unreadable or cut TIFF ({path.stat().st_size:,} bytes; {error});"
            " fetch the file again"
        ) from error
    if footprints is not None:
        footprints += read_footprints(path, data)
    if array.ndim == 2:
        return array[..., None]
    if array.ndim != 3:
        raise ValueError(f"{path}: an array of shape {array.shape} is not one image")
    return np.ascontiguousarray(array.transpose(1, 2, 0)) if separate else array


def read_band_files(
    paths: Sequence[Path], footprints: list[Footprint] | None = None
) -> np.ndarray:
    """Reads one file for each band as [size, size, bands]; see stack_bands.

    footprints: as for read_tif. Raises ValueError naming a file that is not one square
    band, or has another dtype than the first.
    """
    bands = [_read_band(path, footprints) for path in paths]
    for path, band in zip(paths, bands, strict=True):
        if band.ndim != 2 or band.shape[0] != band.shape[1]:
            raise ValueError(f"{path}: {band.shape} pixels, expected one square band")
        if band.dtype != bands[0].dtype:
            raise ValueError(
                f"{path}: {band.dtype}, but {paths[0].name} is {bands[0].dtype}"
            )
    return stack_bands(bands)


def stack_bands(bands: Sequence[np.ndarray]) -> np.ndarray:
    """Stacks square bands as [size, size, bands], at the size of the finest band.

    Coarser bands are enlarged bilinearly.
    """
    size = max(len(band) for band in bands)
    out = np.empty((size, size, len(bands)), bands[0].dtype)
    for i, band in enumerate(bands):
        if len(band) != size:
            band = cv2.resize(band, (size, size), interpolation=cv2.INTER_LINEAR)
        out[..., i] = band
    return out


def _read_band(path: Path, footprints: list[Footprint] | None) -> np.ndarray:
    """Reads a TIFF of one band as [h, w].

    OpenCV takes a sixth of tifffile's time and releases Python's lock, and an archive
    has millions of such files. It inverts or stretches some 8-bit files, so tifffile
    reads those.
    """
    try:
        data = path.read_bytes()
        array = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    except (OSError, cv2.error):
        array = None
    if array is None or array.ndim != 2 or array.itemsize == 1:
        return read_tif(path, footprints)[..., 0]
    if footprints is not None:
        footprints += read_footprints(path, data)
    return array


def read_footprints(path: Path, data: bytes) -> list[Footprint]:
    """Reads the footprint of a file's first image: a list of one, or [] without tags.

    BigTIFFs, rotated axes and cut files give [], too. tifffile would take longer to
    read the tags than to decode a small band.
    """
    try:
        order, tags = _read_tags(data)
        side = [int.from_bytes(tags[t], _ORDERS[order]) for t in (_WIDTH, _HEIGHT)]
        georeference = (tags[t] for t in (_SCALE, _TIEPOINT, _KEYS))
        box = _read_box(*georeference, *side, order)
    except (KeyError, struct.error):
        return []
    return [Footprint(path, *values) for values in box]


def _read_tags(data: bytes) -> tuple[str, dict[int, bytes]]:
    """(byte order, {tag: its values}) of the tags that locate the image."""
    order = {b"II": "<", b"MM": ">"}[data[:2]]
    magic, start = struct.unpack_from(f"{order}HI", data, 2)
    if magic != 42:
        raise KeyError("no classic TIFF")
    (count,) = struct.unpack_from(f"{order}H", data, start)
    entries = data[start + 2 : start + 2 + 12 * count]
    tags = {}
    rows = struct.iter_unpack(f"{order}HHI4x", entries)
    for index, (tag, kind, n) in enumerate(rows):
        if tag in (_WIDTH, _HEIGHT, _SCALE, _TIEPOINT, _KEYS):
            size = n * _SIZES[kind]
            at = start + 2 + 12 * index + 8  # small values are in the entry itself
            if size > 4:
                (at,) = struct.unpack_from(f"{order}I", data, at)
            if at + size <= len(data):
                tags[tag] = data[at : at + size]
    return order, tags


@functools.lru_cache(maxsize=64)  # all bands of a patch share it
def _read_box(
    scale: bytes, tie: bytes, keys: bytes, width: int, height: int, order: str
) -> list[tuple]:
    """[(epsg, left, top, right, bottom, pixel)] from a page's tags, or []."""
    if len(tie) != 48:  # several tie points: not a regular grid
        return []
    wide, high, _ = struct.unpack(f"{order}3d", scale)
    i, j, _, x, y, _ = struct.unpack(f"{order}6d", tie)
    left, top = x - i * wide, y + j * high
    rows = np.frombuffer(keys, f"{order}u2").reshape(-1, 4).tolist()
    values = {key: value for key, _, _, value in rows[1:]}
    epsg = next((values[key] for key in _EPSG_KEYS if key in values), 0)
    epsg = 0 if epsg == _NOT_EPSG else epsg
    box = (left, top, left + width * wide, top - height * high)
    return [(epsg, *box, (wide, high))]


def check_same_location(
    footprints: Sequence[Footprint], max_shift: float, way: str = ""
) -> None:
    """Raises ValueError, naming two files, unless all cover the same ground.

    They must be in one CRS and overlap, and no edge may be farther than max_shift
    pixels (of the coarser file) from that of the finest file. way: text that names
    another way out.
    """
    if not footprints:
        return
    first = min(footprints, key=lambda f: f.pixel)
    for other in footprints:
        if first.epsg and other.epsg and first.epsg != other.epsg:
            fault = "are not in one CRS"
        elif first.epsg != other.epsg:
            continue  # one of the CRSs is not known
        elif not _overlap(first, other):
            fault = "do not overlap"
        elif (shift := _shift(first, other)) > max_shift * (1 + 1e-6):
            fault = f"are {shift:.3g} pixels apart, more than {max_shift:g}"
        else:
            continue
        raise ValueError(
            f"{other} and {first} {fault}, so they do not cover the same ground: pair"
            f" the right files{way}"
        )


def _overlap(a: Footprint, b: Footprint) -> bool:
    across = min(a.right, b.right) > max(a.left, b.left)
    return across and min(a.top, b.top) > max(a.bottom, b.bottom)


def _shift(a: Footprint, b: Footprint) -> float:
    """The largest distance between edges, in pixels of the coarser file."""
    x = max(abs(a.left - b.left), abs(a.right - b.right))
    y = max(abs(a.top - b.top), abs(a.bottom - b.bottom))
    return max(x / max(a.pixel[0], b.pixel[0]), y / max(a.pixel[1], b.pixel[1]))

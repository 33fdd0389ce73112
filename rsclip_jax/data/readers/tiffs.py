"""TIFFs of sensors to arrays: many bands in one file, or a file a band."""

import functools
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import tifffile

SUFFIXES = (".tif", ".tiff")
# GeoTIFF 1.1 (OGC 19-008r4): tags, and the keys of the third that name the CRS.
_SCALE, _TIEPOINT, _KEYS = 33550, 33922, 34735
_EPSG_KEYS, _NOT_EPSG = (3072, 2048), 32767  # projected before geographic


class Footprint(NamedTuple):
    """The ground that a GeoTIFF covers, in its CRS; epsg 0: a CRS without a number."""

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
    """[h, w, bands] of a TIFF, in its own dtype, whichever way its bands lie.

    What its tags say of its place, if anything, is added to footprints. Raises
    ValueError naming the file when it is unreadable or cut short.
    """
    try:
        with tifffile.TiffFile(path) as file:
            # A page of all bands, or (of one band each) a page a band.
            series = file.series[0]
            array, separate = series.asarray(), series.axes.endswith("YX")
            if footprints is not None:
                footprints += _footprints(path, file)
    except Exception as error:  # damaged bytes make a decoder fail in any way
        size = path.stat().st_size if path.exists() else 0
        raise ValueError(
            f"{path}: unreadable or cut TIFF ({size:,} bytes; {error}); fetch the file"
            " again, or --config.data.on_error=skip leaves such files out and counts"
            " them"
        ) from error
    if array.ndim == 2:
        return array[..., None]
    if array.ndim != 3:
        raise ValueError(f"{path}: an array of shape {array.shape} is not one image")
    return np.ascontiguousarray(array.transpose(1, 2, 0)) if separate else array


def _footprints(path: Path, file: tifffile.TiffFile) -> list[Footprint]:
    """The first page's one; none where it has no tags, or turned axes."""
    page: Any = file.pages[0]
    tags = [page.tags.get(code) for code in (_SCALE, _TIEPOINT, _KEYS)]
    if None in tags:
        return []
    raw = []  # tifffile's own reading of a tag would take three times as long
    for tag in tags:
        file.filehandle.seek(tag.valueoffset)
        raw.append(file.filehandle.read(tag.valuebytecount))
    side = page.imagewidth, page.imagelength
    return [Footprint(path, *box) for box in _read_box(*raw, *side, file.byteorder)]


@functools.lru_cache(maxsize=64)  # the bands of a patch have the same
def _read_box(
    scale: bytes, tie: bytes, keys: bytes, width: int, height: int, order: str
) -> list[tuple]:
    """[(epsg, left, top, right, bottom, pixel)] of a page's tags, or none."""
    if len(tie) != 48:  # several tie points: no grid of even pixels
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


def check_one_place(footprints: Sequence[Footprint], max_shift: float) -> None:
    """Raises ValueError, naming two files, unless all are of one place.

    They must be in one CRS and overlap, and no edge may lie farther from that of the
    finest than max_shift pixels, of the coarser of the two.
    """
    if not footprints:
        return
    first = min(footprints, key=lambda f: f.pixel)
    for other in footprints:
        if first.epsg and other.epsg and first.epsg != other.epsg:
            fault = "are not in one CRS"
        elif first.epsg != other.epsg:
            continue  # one of them is not known
        elif not _overlap(first, other):
            fault = "do not overlap"
        elif (shift := _shift(first, other)) > max_shift * (1 + 1e-6):
            fault = f"lie {shift:.3g} pixels apart, more than {max_shift:g}"
        else:
            continue
        raise ValueError(
            f"{other} and {first} {fault}, so they are not of one place: pair the right"
            " files, or --config.data.on_error=skip leaves such records out"
        )


def _overlap(a: Footprint, b: Footprint) -> bool:
    across = min(a.right, b.right) > max(a.left, b.left)
    return across and min(a.top, b.top) > max(a.bottom, b.bottom)


def _shift(a: Footprint, b: Footprint) -> float:
    """How far the edges lie apart at most, in pixels of the coarser."""
    x = max(abs(a.left - b.left), abs(a.right - b.right))
    y = max(abs(a.top - b.top), abs(a.bottom - b.bottom))
    return max(x / max(a.pixel[0], b.pixel[0]), y / max(a.pixel[1], b.pixel[1]))


def read_band_files(
    paths: Sequence[Path], footprints: list[Footprint] | None = None
) -> np.ndarray:
    """[size, size, bands] of a file a band; coarser bands are enlarged bilinearly.

    size is that of the finest band. footprints: as for read_tif. Raises ValueError
    naming the file that is not one square band, or of another dtype than the first.
    """
    bands = [read_tif(path, footprints)[..., 0] for path in paths]
    for path, band in zip(paths, bands, strict=True):
        if band.ndim != 2 or band.shape[0] != band.shape[1]:
            raise ValueError(f"{path}: {band.shape} pixels, expected one square band")
        if band.dtype != bands[0].dtype:
            raise ValueError(
                f"{path}: {band.dtype}, but {paths[0].name} is {bands[0].dtype}"
            )
    size = max(len(band) for band in bands)
    out = np.empty((size, size, len(bands)), bands[0].dtype)
    for i, band in enumerate(bands):
        if len(band) != size:
            band = cv2.resize(band, (size, size), interpolation=cv2.INTER_LINEAR)
        out[..., i] = band
    return out

"""GeoTIFFs and JPEG 2000 files to rasters. Bands are in one file, or in a file each."""

import os
from collections.abc import Collection, Sequence
from pathlib import Path

import cv2
import numpy as np

from rsclip_jax.data.codecs.gdal import locate_with_gdal, read_with_gdal
from rsclip_jax.data.codecs.images import JPEG_2000, is_raster
from rsclip_jax.data.codecs.limits import check_pixels
from rsclip_jax.data.codecs.places import Footprint
from rsclip_jax.data.codecs.plain_tiffs import Plain, decode_plain, look_at_tags
from rsclip_jax.data.codecs.raster import Raster
from rsclip_jax.data.types import MAX_PIXELS

SUFFIXES = (".tif", ".tiff", ".jp2")
_BESIDE = (".msk", ".aux.xml")  # GDAL reads a mask and metadata from such files
_WORLD = (".tfw", ".tifw", ".wld")  # and a place, where the file itself has none
_WHOLE = 2**26  # a larger file is not read into memory to look at its tags


def read_raster(
    path: Path,
    bands: int | None = None,
    beside: Collection[str] | None = None,
    max_pixels: int = MAX_PIXELS,
) -> Raster:
    """Reads a TIFF or JPEG 2000 file, however its bands are stored.

    A plain TIFF is decoded at once; GDAL takes ten times as long to open a file.
    bands: see read_with_gdal. beside: the names in the folder of files that may say
    more about it; None where the folder was not listed. max_pixels: see check_pixels.
    Raises FileNotFoundError, and ValueError naming a file that is unreadable, cut
    short, too large, or in a codec that is not there.
    """
    data, plain = _look(path, beside)
    if plain:
        height, width, count = plain.shape
        check_pixels(height, width, str(path), max_pixels, count)
    pixels = decode_plain(data, plain) if plain else None
    if plain is None or pixels is None:
        return read_with_gdal(path, _driver(data), bands, max_pixels)
    missing = None
    if plain.nodata is not None and (gone := pixels == plain.nodata).any():
        missing = gone
    places = _places(path, plain)
    return Raster(pixels, missing, plain.nodata, places=places, tags={**plain.tags})


def read_place(path: Path) -> Footprint | None:
    """Reads the grid of a file, None if it does not say where it lies.

    Raises as read_raster.
    """
    data, plain = _look(path)
    if not is_raster(data):
        return None
    places = _places(path, plain) if plain else locate_with_gdal(path, _driver(data))
    return places[0] if places else None


def _look(
    path: Path, beside: Collection[str] | None = None
) -> tuple[bytes, Plain | None]:
    """(bytes, or the first of a large file; the layout of a plain TIFF)."""
    try:
        with open(path, "rb", buffering=0) as file:
            whole = os.fstat(file.fileno()).st_size <= _WHOLE
            data = file.read() if whole else file.read(len(JPEG_2000[0]))
    except FileNotFoundError:
        raise FileNotFoundError(f"{path} is missing: fetch it") from None
    plain = look_at_tags(data)
    return data, None if plain and _has_more(path, plain, beside) else plain


def _driver(data: bytes) -> str:
    return "JP2OpenJPEG" if data.startswith(JPEG_2000) else "GTiff"


def _places(path: Path, plain: Plain) -> tuple[Footprint, ...]:
    if not plain.place:
        return ()
    return (Footprint(path, *plain.place, *plain.shape[:2]),)


def _has_more(path: Path, plain: Plain, beside: Collection[str] | None) -> bool:
    """Whether files beside a plain TIFF say more about it."""
    if beside is not None and not beside:
        return False
    name = str(path)
    names = [name + suffix for suffix in _BESIDE]
    if not plain.place:
        stem, _ = os.path.splitext(name)
        names += [stem + suffix for suffix in _WORLD]
    if beside is None:
        return any(map(os.path.exists, names))
    return any(os.path.basename(name) in beside for name in names)


def read_band_files(paths: Sequence[Path], max_pixels: int = MAX_PIXELS) -> Raster:
    """Reads one file for each band as [size, size, bands]; see stack_bands.

    A file may have another suffix than its path says, such as .TIF or .jp2. A pixel of
    an enlarged band is missing if one that it is made of is. Raises ValueError naming a
    file that is not one square band, or has another dtype than the first, and two files
    that could be a band's; FileNotFoundError naming a file that is missing.
    """
    # one listing of a patch's folder takes less time than a look for each name
    there = {folder: _names_in(folder) for folder in {path.parent for path in paths}}
    beside = {
        folder: [name for name in names if name.endswith((*_BESIDE, *_WORLD))]
        for folder, names in there.items()
    }
    paths = [_as_found(path, there[path.parent]) for path in paths]
    rasters = [read_raster(path, 1, beside[path.parent], max_pixels) for path in paths]
    first = rasters[0].pixels
    for path, raster in zip(paths, rasters, strict=True):
        height, width, bands = raster.pixels.shape
        if height != width or bands != 1:
            raise ValueError(
                f"{path}: {height} x {width} pixels of {bands} bands, expected one"
                " square band"
            )
        if raster.pixels.dtype != first.dtype:
            raise ValueError(
                f"{path}: {raster.pixels.dtype}, but {paths[0].name} is {first.dtype}"
            )
    return Raster(
        stack_bands([raster.pixels[..., 0] for raster in rasters]),
        _stack_missing(rasters),
        rasters[0].nodata,
        sum((raster.names for raster in rasters), ()),
        join_values([raster.scales for raster in rasters], 1.0),
        join_values([raster.offsets for raster in rasters], 0.0),
        sum((raster.places for raster in rasters), ()),
        rasters[0].tags,
    )


def _names_in(folder: Path) -> frozenset[str]:
    try:
        return frozenset(os.listdir(folder))
    except FileNotFoundError:
        return frozenset()  # the file that is missing is named when it is read


def _as_found(path: Path, names: Collection[str]) -> Path:
    """The path with the suffix that its file has. names: those in its folder."""
    if path.name in names:
        return path
    found = [name for name in sorted(names) if os.path.splitext(name)[0] == path.stem]
    rasters = [name for name in found if name.lower().endswith(SUFFIXES)]
    if len(rasters) > 1:
        raise ValueError(
            f"{path.parent}: {rasters[0]} and {rasters[1]} could both be the band of"
            f" {path.name}; keep one of them"
        )
    return path.with_name(rasters[0]) if rasters else path


def join_values(
    values: Sequence[tuple[float, ...] | None], default: float
) -> tuple[float, ...] | None:
    """The scales (or offsets) of files of one band; None if no file names any."""
    if not any(values):
        return None
    return tuple(value[0] if value else default for value in values)


def _stack_missing(rasters: Sequence[Raster]) -> np.ndarray | None:
    if all(raster.missing is None for raster in rasters):
        return None
    masks = [
        np.zeros(raster.pixels.shape[:2], np.float32)
        if raster.missing is None
        else raster.missing.reshape(raster.pixels.shape[:2]).astype(np.float32)
        for raster in rasters
    ]
    return stack_bands(masks) > 0


def stack_bands(bands: Sequence[np.ndarray]) -> np.ndarray:
    """Stacks square bands as [size, size, bands], at the size of the finest band.

    Coarser bands are enlarged bilinearly.
    """
    size = max(len(band) for band in bands)
    out = np.empty((size, size, len(bands)), bands[0].dtype)
    for i, band in enumerate(bands):
        out[..., i] = band if len(band) == size else _enlarge(band, size)
    return out


def _enlarge(band: np.ndarray, size: int) -> np.ndarray:
    linear = cv2.INTER_LINEAR
    if band.dtype in (np.uint8, np.uint16, np.int16, np.float32, np.float64):
        return cv2.resize(band, (size, size), interpolation=linear)
    # OpenCV enlarges no other integers.
    wide = cv2.resize(band.astype(np.float64), (size, size), interpolation=linear)
    return np.rint(wide) if band.dtype.kind in "iu" else wide

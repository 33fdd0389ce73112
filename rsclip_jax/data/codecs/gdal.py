"""Reads a raster by GDAL: every kind of TIFF, and JPEG 2000."""

import contextlib
import dataclasses
import logging
import re
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from rasterio.enums import ColorInterp, MaskFlags
from rasterio.errors import NotGeoreferencedWarning
from rasterio.transform import from_gcps
from rasterio.vrt import WarpedVRT
from rasterio.windows import Window

from rsclip_jax.data.codecs.limits import TooLarge, check_pixels
from rsclip_jax.data.codecs.places import Footprint, Transform, face_north
from rsclip_jax.data.codecs.raster import Raster, join_rasters
from rsclip_jax.data.types import MAX_PIXELS

# What GDAL reports becomes an error of ours or is of no consequence; a raster without
# a place is counted where it matters.
logging.getLogger("rasterio").setLevel(logging.CRITICAL)
warnings.filterwarnings("ignore", category=NotGeoreferencedWarning)

# A folder may have a million files: it is not listed, and files beside the raster
# (.msk, .aux.xml, .tfw) are looked up by name. Nothing is fetched.
OPTIONS = {"GDAL_DISABLE_READDIR_ON_OPEN": "TRUE", "PROJ_NETWORK": "OFF"}
_LACKS = re.compile(r"missing codec(?: of code)? (\w+)")
_UNABLE = re.compile(r"not supported|unsupported|cannot handle|can not handle", re.I)


def read_with_gdal(
    path: Path,
    driver: str,
    bands: int | None = None,
    max_pixels: int = MAX_PIXELS,
) -> Raster:
    """Reads a TIFF or JPEG 2000 file, north up; each page of several is a band.

    driver: GDAL's name of the format, so that it does not try every other one. bands:
    how many the caller expects, None for any. A last band that the file calls
    alpha masks the others unless that many bands need it. max_pixels: of all pages
    together; see check_pixels. Raises ValueError naming a file that is unreadable, cut
    short, too large, or in a codec that is not there.
    """
    with explaining(path), rasterio.Env(**OPTIONS), _opened(path, driver) as file:
        if not file.subdatasets:
            _check_size(file, path, max_pixels)
            return _read(file, path, bands)
        pages = _read_pages(file.subdatasets, path, max_pixels)
    return _join_pages(pages, path)


def locate_with_gdal(path: Path, driver: str) -> tuple[Footprint, ...]:
    """Reads only the grid of a file, north up; () if it does not say where it lies.

    Arguments and errors: see read_with_gdal.
    """
    with explaining(path), rasterio.Env(**OPTIONS), _opened(path, driver) as file:
        if not (located := locate(file)):
            return ()
        crs, transform = located
        shape = (file.height, file.width)
        if crs:
            turned, transform = face_north(np.empty((*shape, 0)), transform)
            shape = turned.shape[:2]
        return (Footprint(path, crs, transform, *shape),)


@contextlib.contextmanager
def explaining(path: Path) -> Iterator[None]:
    """Raises what goes wrong within as ValueError with the file and the way out."""
    try:
        yield
    except TooLarge:
        raise
    except Exception as error:  # damaged bytes make a decoder fail in any way
        raise ValueError(f"{path}: {_explain(error, path)}") from error


@contextlib.contextmanager
def _opened(
    name: Path | str, driver: str = "GTiff"
) -> Iterator[rasterio.DatasetReader]:
    with rasterio.open(str(name), driver=driver, sharing=False) as file:
        yield file


def _explain(error: Exception, path: Path) -> str:
    """What is wrong with a file, and the way out, from GDAL's error."""
    why = str(error.__cause__ or error).replace(str(path), path.name)
    if lacks := _LACKS.search(why):
        return (
            f"its compression ({lacks[1]}) is not in the GDAL of rasterio"
            f" {rasterio.__version__}: convert the file where it can be read, by"
            " gdal_translate -co COMPRESS=DEFLATE, or install a rasterio that has it,"
            " such as conda-forge's"
        )
    if _UNABLE.search(why):
        return f"GDAL cannot read this kind of file ({why}): convert it to GeoTIFF"
    kind = "JPEG 2000 file" if path.suffix.lower() == ".jp2" else "TIFF"
    size = f"{path.stat().st_size:,} bytes; " if path.is_file() else ""
    return f"unreadable or cut {kind} ({size}{why}); fetch the file again"


def _read_pages(names: Sequence[str], path: Path, max_pixels: int) -> list[Raster]:
    """Reads the pages of a file in their order."""
    pages = []
    for name in sorted(names, key=lambda name: int(name.split(":")[1])):
        with _opened(name) as file:
            _check_size(file, path, max_pixels, len(names))
            pages.append(_read(file, path, None))
    return pages


def _check_size(
    file: rasterio.DatasetReader, path: Path, max_pixels: int, pages: int = 1
) -> None:
    """Raises TooLarge for an image, or a tile of it, of too many pixels.

    A tile may say that it is larger than its image, and GDAL makes room for it.
    """
    height, width = file.height * pages, file.width  # as if the pages were one image
    check_pixels(height, width, str(path), max_pixels, file.count)
    for rows, columns in set(file.block_shapes):
        check_pixels(rows, columns, f"{path}: a tile", max_pixels)


def _join_pages(pages: Sequence[Raster], path: Path) -> Raster:
    """Makes bands of pages. Raises ValueError where they are not of one image."""
    kinds = {(page.pixels.shape, page.pixels.dtype.str) for page in pages}
    if len(kinds) > 1:
        found = ", ".join(f"{'x'.join(map(str, s))} {d}" for s, d in sorted(kinds))
        raise ValueError(
            f"{path}: its {len(pages)} pages are not bands of one image ({found}):"
            " keep one of them in the file"
        )
    return join_rasters(pages)


def _read(file: rasterio.DatasetReader, path: Path, bands: int | None) -> Raster:
    """Reads a whole file, north up."""
    raster = read_bands(file, bands)
    if not (located := locate(file)):
        return raster
    crs, transform = located
    pixels, missing = raster.pixels, raster.missing
    if crs:  # without a CRS there is no north
        if missing is not None:
            missing, _ = face_north(missing, transform)
        pixels, transform = face_north(pixels, transform)
    place = Footprint(path, crs, transform, *pixels.shape[:2])
    return dataclasses.replace(raster, pixels=pixels, missing=missing, places=(place,))


def read_bands(
    file: rasterio.DatasetReader,
    bands: int | None = None,
    *,
    view: WarpedVRT | None = None,
    window: Window | None = None,
    shape: tuple[int, int] | None = None,
) -> Raster:
    """Reads the bands of an open file, its rows as they are stored; no place.

    bands: see read_with_gdal. view: the file on another grid, from which pixels are
    read. window: the part that is read, None for all. shape: (height, width) to which
    GDAL thins it out.
    """
    colours, count = file.colorinterp, file.count
    converted = "SOURCE_COLOR_SPACE" in file.tags(ns="IMAGE_STRUCTURE")  # CMYK, Lab
    alpha = count > 1 and colours[-1] == ColorInterp.alpha
    masks = alpha and (converted or bands != count)
    kept = list(range(1, count if masks else count + 1))
    seen = file if view is None else view
    part = {"window": window, "out_shape": shape and (len(kept), *shape)}
    pixels = np.moveaxis(seen.read(kept, **part), 0, -1)
    missing = _missing(seen, kept, pixels, as_values=alpha and not masks, **part)
    scales, offsets = (
        tuple(v[i - 1] for i in kept) for v in (file.scales, file.offsets)
    )
    return Raster(
        np.ascontiguousarray(pixels),
        missing,
        seen.nodatavals[kept[0] - 1],
        tuple(file.descriptions[i - 1] or "" for i in kept),
        scales if any(value != 1 for value in scales) else None,
        offsets if any(offsets) else None,
        tags=dict(file.tags()),
        palette=_palette(file),
    )


def _missing(
    file: rasterio.DatasetReader | WarpedVRT,
    kept: Sequence[int],
    pixels: np.ndarray,
    *,
    as_values: bool,
    **part: Any,
) -> np.ndarray | None:
    """Where a file says that it has no value: [h, w, bands] or [h, w]; None: nowhere.

    as_values: alpha is a band of values, so that only the nodata value counts. part:
    window and out_shape, as the pixels were read.
    """
    # rasterio makes these lists anew each time
    all_flags, all_nodata = file.mask_flag_enums, file.nodatavals
    flags, values = ([a[i - 1] for i in kept] for a in (all_flags, all_nodata))
    if as_values:
        gone = np.stack([pixels[..., i] == v for i, v in enumerate(values)], -1)
        return gone if gone.any() else None
    if all(MaskFlags.all_valid in of_band for of_band in flags):
        return None
    only_nodata = all(of_band == [MaskFlags.nodata] for of_band in flags)
    if only_nodata and pixels.dtype.kind in "iu":
        limits = np.iinfo(pixels.dtype)
        whole = [float(v).is_integer() for v in values]
        fits = [limits.min <= v <= limits.max for v in values]
        if all(whole) and all(fits):
            # in the pixels' dtype this is sooner done than by GDAL's masks
            gone = pixels == np.array(values, pixels.dtype)
            return gone if gone.any() else None
    if all(MaskFlags.per_dataset in of_band for of_band in flags):
        shape = part["out_shape"] and part["out_shape"][1:]
        one = file.read_masks(kept[0], window=part["window"], out_shape=shape)
        gone = one == 0
    else:
        gone = np.moveaxis(file.read_masks(kept, **part) == 0, 0, -1)
    return gone if gone.any() else None


def locate(file: rasterio.DatasetReader) -> tuple[str, Transform] | None:
    """(crs, transform) of a file, also from its ground control points."""
    transform, crs = file.transform, file.crs
    points, their_crs = file.gcps
    if transform.is_identity and points:
        transform, crs = from_gcps(points), their_crs
    if transform.is_identity:
        return None
    code = crs.to_epsg() if crs else None
    name = f"EPSG:{code}" if code else (crs.to_wkt() if crs else "")
    a, b, c, d, e, f = transform[:6]
    return name, (a, b, c, d, e, f)


def _palette(file: rasterio.DatasetReader) -> np.ndarray | None:
    """Colours of a file of one band: its palette, or greys for fewer than 8 bits."""
    if file.count > 1 or file.dtypes[0] != "uint8":
        return None
    if file.colorinterp[0] == ColorInterp.palette:
        colours = file.colormap(1)
        table = np.zeros((256, 3), np.uint8)
        for number, colour in colours.items():
            table[number] = colour[:3]
        return table
    bits = int(file.tags(1, ns="IMAGE_STRUCTURE").get("NBITS", 8))
    if bits == 8:
        return None
    levels = np.arange(256) * 255 // (2**bits - 1)
    return np.minimum(levels, 255).astype(np.uint8)[:, None].repeat(3, -1)

"""Warps a raster onto the grid of another one."""

import dataclasses

import numpy as np
from rasterio.enums import Resampling
from rasterio.transform import Affine
from rasterio.warp import reproject

from rsclip_jax.data.codecs.places import Footprint
from rsclip_jax.data.codecs.raster import Raster


def warp_onto(raster: Raster, grid: Footprint | None, where: str) -> Raster:
    """Warps a raster bilinearly onto a grid; the dtype stays.

    A pixel of the grid that the raster does not cover, or covers with missing pixels,
    is missing. where: the raster's file. Raises ValueError naming it if it or the grid
    has no place, if they do not overlap, or if nothing leads from CRS to CRS.
    """
    place = raster.place
    if not (grid and place and grid.crs and place.crs):
        bare = where if not (place and place.crs) else "the file of the first sensor"
        raise ValueError(
            f"{where}: it cannot be warped onto the first sensor's grid, since {bare}"
            " does not say where it lies; write its CRS and transform into the file"
        )
    if (place.crs, *place[2:]) == (grid.crs, *grid[2:]):
        return raster
    values = _with_nan(raster)
    shape = (values.shape[0], grid.height, grid.width)
    warped = np.full(shape, np.nan, values.dtype)
    try:
        reproject(
            values,
            warped,
            src_transform=Affine(*place.transform),
            src_crs=place.crs,
            src_nodata=np.nan,
            dst_transform=Affine(*grid.transform),
            dst_crs=grid.crs,
            dst_nodata=np.nan,
            resampling=Resampling.bilinear,
        )
    except Exception as error:  # no public class has all of GDAL's errors
        raise ValueError(
            f"{place} cannot be warped onto the grid of {grid}, since there is no way"
            " between their coordinate systems: write the right ones into the files"
        ) from error
    pixels = np.ascontiguousarray(np.moveaxis(warped, 0, -1))
    missing = np.isnan(pixels)
    if missing.all():
        raise ValueError(f"{place} and {grid} do not overlap: pair the right files")
    dtype = raster.pixels.dtype
    if dtype.kind in "iu":
        limits = np.iinfo(dtype)
        whole = np.rint(np.where(missing, 0, pixels))
        pixels = whole.clip(limits.min, limits.max).astype(dtype)
    return dataclasses.replace(
        raster,
        pixels=pixels,
        missing=missing if missing.any() else None,
        places=(grid,),
    )


def _with_nan(raster: Raster) -> np.ndarray:
    """The pixels [bands, h, w] in floats that hold them, NaN where they are missing."""
    exact = np.float32 if raster.pixels.dtype.itemsize <= 2 else np.float64
    kind = raster.pixels.dtype
    values = raster.pixels.astype(kind if kind.kind == "f" else exact)
    if raster.missing is not None:
        values[raster.missing] = np.nan
    return np.ascontiguousarray(np.moveaxis(values, -1, 0))

"""8-bit pictures in TIFF and JPEG 2000 files."""

import dataclasses
from pathlib import Path

import numpy as np

from rsclip_jax.data.codecs.geotiff import read_raster
from rsclip_jax.data.codecs.images import check_bands
from rsclip_jax.data.codecs.raster import Raster


def read_picture(path: Path, bands: int = 3) -> Raster:
    """Reads a TIFF or JPEG 2000 file as images.read_image does, and what it says.

    A palette is looked up. The nodata value is a shade in one band and a missing pixel
    in all. Raises ValueError as read_image and read_raster do.
    """
    raster = read_raster(path, bands)
    pixels, missing, names = raster.pixels, raster.missing, raster.names
    if raster.palette is not None:
        pixels, names = raster.palette[pixels[..., 0]], ()
        if (pixels == pixels[..., :1]).all():
            pixels = pixels[..., :1]
    if bands == 3 and pixels.shape[-1] == 1:
        pixels, names = pixels.repeat(3, -1), ()
    if missing is not None and missing.ndim == 3:
        missing = np.asarray(missing.all(-1))
    pixels = check_bands(pixels, str(path), bands)
    return dataclasses.replace(
        raster, pixels=pixels, missing=missing, names=names, palette=None
    )

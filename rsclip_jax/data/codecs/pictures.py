"""8-bit pictures, with what a TIFF or JPEG 2000 file says of itself."""

import dataclasses
from pathlib import Path

import numpy as np

from rsclip_jax.data.codecs.geotiff import read_raster
from rsclip_jax.data.codecs.images import check_bands, decode_image, is_raster
from rsclip_jax.data.codecs.raster import Raster
from rsclip_jax.data.types import MAX_PIXELS


def read_picture(path: Path, bands: int = 3, max_pixels: int = MAX_PIXELS) -> Raster:
    """Reads an 8-bit picture as images.read_image does, and what its file says.

    The file's first bytes tell its format, whatever its suffix. A palette is looked up.
    The nodata value is a shade in one band and a missing pixel in all. Raises
    ValueError as read_image and read_raster do.
    """
    data = path.read_bytes()
    if not is_raster(data):
        return Raster(decode_image(data, str(path), bands, max_pixels))
    raster = read_raster(path, bands, max_pixels=max_pixels)
    return as_picture(raster, bands, str(path))


def as_picture(raster: Raster, bands: int, where: str) -> Raster:
    """Makes an 8-bit picture of what a TIFF or JPEG 2000 file holds; see read_picture.

    where: the file, for errors.
    """
    pixels, missing, names = raster.pixels, raster.missing, raster.names
    if raster.palette is not None:
        pixels, names = raster.palette[pixels[..., 0]], ()
        if (pixels == pixels[..., :1]).all():
            pixels = pixels[..., :1]
    if bands == 3 and pixels.shape[-1] == 1:
        pixels, names = pixels.repeat(3, -1), ()
    if missing is not None and missing.ndim == 3:
        missing = np.asarray(missing.all(-1))
    pixels = check_bands(pixels, where, bands)
    return dataclasses.replace(
        raster, pixels=pixels, missing=missing, names=names, palette=None
    )

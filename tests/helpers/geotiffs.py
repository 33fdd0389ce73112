"""GeoTIFFs: the tags that give one its location, and files that GDAL writes."""

import numpy as np
import rasterio
from rasterio.transform import Affine


def geo_tags(pixel=10.0, left=300000.0, top=5000040.0, epsg=32633, tie=(0.0, 0.0)):
    """The tags of a GeoTIFF; tie: the pixel that left and top are of."""
    model, key = (2, 2048) if epsg == 4326 else (1, 3072)
    keys = (1, 1, 0, 3, 1024, 0, 1, model, 1025, 0, 1, 1, key, 0, 1, epsg)
    return [
        (33550, "d", 3, (pixel, pixel, 0.0), True),
        (33922, "d", 6, (*tie, 0.0, left, top, 0.0), True),
        (34735, "H", len(keys), keys, True),
    ]


def north_up(left, top, pixel=10.0):
    """The transform of a grid whose upper left corner is at (left, top)."""
    return Affine(pixel, 0.0, left, 0.0, -pixel, top)


def write_by_gdal(path, array, *, names=None, **options):
    """Writes [h, w, bands] or [h, w] by GDAL; returns the path.

    names: the bands' descriptions; options: as for rasterio.open, such as crs,
    transform, nodata, compress.
    """
    bands = np.atleast_3d(array)
    height, width, count = bands.shape
    size = {"height": height, "width": width, "count": count, "dtype": array.dtype}
    with rasterio.open(path, "w", **{"driver": "GTiff", **size, **options}) as file:
        file.write(np.moveaxis(bands, -1, 0))
        if names:
            file.descriptions = names
    return path

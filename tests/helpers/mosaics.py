"""A scene of known tiles: the records of a dataset side by side, as a GeoTIFF."""

from pathlib import Path

import numpy as np
import rasterio
from rasterio.transform import Affine

TRANSFORM = Affine(10, 0, 600000, 0, -10, 5000000)


def write_mosaic(path: Path, arrays, columns: int, **settings) -> np.ndarray:
    """Writes arrays [h, w, bands] row by row; returns the mosaic [H, W, bands].

    settings: of rasterio.open, such as nodata. The rest of the last row has nodata.
    """
    side, _, bands = arrays[0].shape
    rows = -(-len(arrays) // columns)
    fill = settings.get("nodata", 0)
    shape = (rows * side, columns * side, bands)
    mosaic = np.full(shape, fill, arrays[0].dtype)
    for i, array in enumerate(arrays):
        y, x = side * (i // columns), side * (i % columns)
        mosaic[y : y + side, x : x + side] = array
    write_scene(path, mosaic, **settings)
    return mosaic


def write_scene(path: Path, array: np.ndarray, names=(), **settings) -> None:
    """Writes [h, w, bands] as a GeoTIFF of 10 m in UTM zone 32."""
    height, width, count = array.shape
    size = {"height": height, "width": width, "count": count}
    told = {"crs": "EPSG:32632", "transform": TRANSFORM, "dtype": array.dtype.name}
    with rasterio.open(path, "w", driver="GTiff", **size, **{**told, **settings}) as f:
        f.write(array.transpose(2, 0, 1))
        for i, name in enumerate(names, 1):
            f.set_band_description(i, name)

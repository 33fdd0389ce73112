"""Writes maps: Cloud-Optimized GeoTIFFs of a scene's cells, and areas as GeoJSON."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import rasterio.features
import rasterio.warp
from rasterio.transform import Affine

from rsclip_jax.data.codecs.places import Footprint
from rsclip_jax.io.files import replacing, write_text

_LONLAT = "EPSG:4326"
Colour = tuple[int, int, int]


def cell_grid(grid: Footprint, stride: int) -> Footprint:
    """The grid of squares of stride x stride pixels, as many as cover a grid."""
    a, b, c, d, e, f = grid.transform
    height, width = (-(-n // stride) for n in (grid.height, grid.width))
    return Footprint(
        grid.path, grid.crs, (a * stride, b, c, d, e * stride, f), height, width
    )


def write_cog(
    path: Path,
    array: np.ndarray,
    grid: Footprint,
    names: Sequence[str],
    *,
    nodata: float,
    colours: Mapping[int, Colour] | None = None,
    tags: Mapping[str, str] | None = None,
) -> None:
    """Writes [h, w, bands] on a grid as a Cloud-Optimized GeoTIFF, whole or not at all.

    names: the description of each band. colours: value -> colour, for one band of
    uint8. tags: of the file.
    """
    settings: dict[str, Any] = {
        "driver": "COG",
        "dtype": array.dtype.name,
        "height": grid.height,
        "width": grid.width,
        "count": array.shape[-1],
        "crs": grid.crs,
        "transform": Affine(*grid.transform),
        "nodata": nodata,
        "compress": "DEFLATE",
    }
    with (
        replacing(path) as temporary,
        rasterio.open(temporary, "w", **settings) as file,
    ):
        file.write(array.transpose(2, 0, 1))
        for i, name in enumerate(names, 1):
            file.set_band_description(i, name)
        if colours:
            file.write_colormap(1, {v: (*c, 255) for v, c in colours.items()})
        file.update_tags(**(tags or {}))


def write_areas(
    path: Path,
    classes: np.ndarray,
    grid: Footprint,
    names: Sequence[str],
    min_area: float,
) -> list[dict[str, Any]]:
    """Writes the areas of each class as GeoJSON, in degrees of WGS 84 (RFC 7946).

    Args:
        classes: uint8 [h, w], 0 for none and i for the i-th name from 1 on.
        min_area: in square units of the grid's CRS; smaller areas are left out.

    Returns the features: "class" and "area" in their properties.
    """
    side = abs(grid.transform[0] * grid.transform[4])
    features = []
    shapes = rasterio.features.shapes(
        classes, mask=classes > 0, transform=Affine(*grid.transform)
    )
    for shape, value in shapes:
        area = polygon_area(shape["coordinates"])
        if area < max(min_area, side / 2):
            continue
        moved = rasterio.warp.transform_geom(grid.crs, _LONLAT, shape, precision=7)
        told = {"class": names[int(value) - 1], "area": area}
        features.append({"type": "Feature", "properties": told, "geometry": moved})
    features.sort(key=lambda one: -one["properties"]["area"])
    collection = {"type": "FeatureCollection", "features": features}
    write_text(path, json.dumps(collection) + "\n")
    return features


def polygon_area(rings: Sequence[Sequence[tuple[float, float]]]) -> float:
    """The area of an outer ring less its holes, in squares of the coordinates' unit.

    >>> polygon_area([[(0, 0), (2, 0), (2, 3), (0, 3), (0, 0)]])
    6.0
    """
    areas = []
    for ring in rings:
        x, y = (np.array(line, float) for line in zip(*ring, strict=True))
        x, y = x - x[0], y - y[0]  # of coordinates far from zero the products lose bits
        areas.append(abs(float(x[:-1] @ y[1:] - x[1:] @ y[:-1])) / 2)
    return areas[0] - sum(areas[1:])

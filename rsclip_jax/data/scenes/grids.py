"""The grid of a scene: what it may be, and where a window of it lies."""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import rasterio
from rasterio.warp import transform_bounds
from rasterio.windows import Window

from rsclip_jax.data.codecs.gdal import locate
from rsclip_jax.data.codecs.places import Footprint, Transform

Box = tuple[float, float, float, float]  # left, bottom, right, top
_LONLAT = "EPSG:4326"


def grid_of(file: rasterio.DatasetReader, where: str) -> Footprint:
    """The grid of an open file.

    Raises ValueError naming where, for a file that does not say where it lies, or whose
    rows do not run from west to east, one below the other.
    """
    if file.transform.is_identity and file.gcps[0]:
        raise ValueError(
            f"{where}: its place is told by {len(file.gcps[0])} control points, which"
            " are no grid: make one by gdalwarp -tps, or open the product's folder"
        )
    if not (located := locate(file)):
        raise ValueError(
            f"{where}: does not say where it lies (it has no transform), so no place on"
            " the ground can be given: write one by gdal_edit.py -a_ullr"
        )
    crs, transform = located
    if not crs:
        raise ValueError(
            f"{where}: names no coordinate system: write it by gdal_edit.py -a_srs,"
            " such as -a_srs EPSG:32632"
        )
    _check_north_up(transform, where)
    return Footprint(Path(file.name), crs, transform, file.height, file.width)


def _check_north_up(transform: Transform, where: str) -> None:
    a, b, _, d, e, _ = transform
    if b or d:
        fault = f"its grid is rotated (b = {b:g}, d = {d:g} of its transform)"
    elif e > 0:
        fault = "its rows run from south to north"
    elif a < 0:
        fault = "its columns run from east to west"
    else:
        return
    raise ValueError(f"{where}: {fault}: warp it by gdalwarp IN.tif OUT.tif")


def window_transform(grid: Footprint, window: Window) -> Transform:
    """The transform of a window of a grid."""
    a, b, c, d, e, f = grid.transform
    x, y = window.col_off, window.row_off
    return (a, b, a * x + b * y + c, d, e, d * x + e * y + f)


def window_box(grid: Footprint, window: Window) -> Box:
    """The ground of a window, in the grid's CRS."""
    left, top = window_transform(grid, window)[2::3]
    a, *_, e, _ = grid.transform
    return left, top + e * window.height, left + a * window.width, top


def to_lonlat(crs: str, box: Box) -> Box:
    """The box (west, south, east, north) around a box of a CRS, in degrees of WGS 84.

    One that crosses the antimeridian has its west east of its east, as in GeoJSON.
    """
    if crs == _LONLAT:
        return box
    west, south, east, north = transform_bounds(crs, _LONLAT, *box, densify_pts=21)
    return west, south, east, north


def window_id(scene: str, grid: Footprint, window: Window) -> str:
    """An id that says a window's scene, row and column, and its box in the CRS."""
    box = "_".join(f"{x:.10g}" for x in window_box(grid, window))
    return f"{scene}/row_{window.row_off}_column_{window.col_off}/{box}"


def box_grid(where: Path, crs: str, box: Box, resolution: float) -> Footprint:
    """A grid around a box, whose edges are multiples of the resolution.

    Raises ValueError for a resolution that is not above 0.
    """
    if not resolution > 0:
        raise ValueError(f"resolution = {resolution} should be above 0")
    left, bottom = (math.floor(x / resolution) for x in box[:2])
    right, top = (math.ceil(x / resolution) for x in box[2:])
    start = left * resolution, top * resolution
    transform = (resolution, 0.0, start[0], 0.0, -resolution, start[1])
    return Footprint(where, crs, transform, top - bottom, right - left)


def utm_of(lons: Sequence[float], lats: Sequence[float], where: str) -> str:
    """The UTM zone of the middle of points in degrees, also across the antimeridian.

    Raises ValueError naming where, for points near a pole.
    """
    turned = np.exp(1j * np.radians(lons)).mean()
    lon, lat = float(np.degrees(np.angle(turned))), float(np.mean(lats))
    if not -80 <= lat <= 84:
        raise ValueError(
            f"{where}: lies at latitude {lat:.1f}, where there is no UTM: give crs=,"
            " such as 'EPSG:3413' in the north and 'EPSG:3031' in the south"
        )
    zone = int((lon + 180) // 6) % 60 + 1
    return f"EPSG:{(32600 if lat >= 0 else 32700) + zone}"

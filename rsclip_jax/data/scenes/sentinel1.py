"""Sentinel-1's ground range products (GRD), calibrated by their own annotation.

sigma0 = DN^2 / A^2, with A bilinear between the vectors of the calibration annotation
(Sentinel-1 Product Specification). Thermal noise is not subtracted, and relief is not
corrected.
"""

import re
from collections.abc import Sequence

import numpy as np
import rasterio
from rasterio.control import GroundControlPoint
from rasterio.warp import transform

from rsclip_jax.data.codecs.places import Footprint
from rsclip_jax.data.scenes.files import SceneFile, opening
from rsclip_jax.data.scenes.found import Target
from rsclip_jax.data.scenes.grd import Calibration, GrdLayer
from rsclip_jax.data.scenes.grids import box_grid, utm_of
from rsclip_jax.data.scenes.products import (
    Product,
    missing_bands,
    read_numbers,
    read_text,
)
from rsclip_jax.data.scenes.scene import Scene
from rsclip_jax.data.sensors import SENSORS, Sensor

MEASUREMENT = re.compile(r"measurement/(s1[a-d]-\w+-grd-([vh][vh])-.*)\.tiff", re.I)


def open_s1(product: Product, sensor: Sensor | None, target: Target) -> Scene:
    """Opens a GRD product on the target grid, or in UTM at its own pixel spacing.

    Raises ValueError naming the product, for a polarisation that it lacks, a sensor in
    another unit, and annotation of another layout.
    """
    sensor = sensor or SENSORS["s1_grd"]
    if sensor.unit != "dB":
        raise ValueError(
            f"{product.path}: sensor {sensor.name} is in {sensor.unit}, and the product"
            " becomes backscatter in dB: leave out the sensor, or give one in dB"
        )
    stems = _find_stems(product)
    if lacking := [band for band in sensor.bands if band not in stems]:
        raise ValueError(missing_bands(str(product.path), lacking, tuple(stems)))
    stems = {band: stems[band] for band in sensor.bands}
    spacing = max(_read_spacing(product, stem) for stem in stems.values())
    files = {
        band: SceneFile(product.gdal_name(f"measurement/{stem}.tiff"), band)
        for band, stem in stems.items()
    }
    tables = {band: _read_calibration(product, s) for band, s in stems.items()}
    first = files[sensor.bands[0]]
    points, crs, shape = _read_points(first, target)
    grid = target.grid or _grid_around(points, crs, target.resolution or spacing, first)
    layer = GrdLayer(files, tables, sensor, grid, points, shape, spacing)
    layer.check()
    return Scene(product.id, grid, {sensor.modality: layer})


def _find_stems(product: Product) -> dict[str, str]:
    """Polarisation -> the name that its measurement and annotation share."""
    found = [MEASUREMENT.fullmatch(name) for name in product.names]
    return {match[2].upper(): match[1] for match in found if match}


def _read_spacing(product: Product, stem: str) -> float:
    """The spacing of pixels in metres, by the annotation of a GRD product."""
    name = f"annotation/{stem}.xml"
    root, where = product.read_xml(name), f"{product.path}: {name}"
    if (kind := read_text(root, "productType", where)) != "GRD":
        raise ValueError(f"{where}: productType {kind}, expected GRD: fetch the GRD")
    names = ("rangePixelSpacing", "azimuthPixelSpacing")
    return max(read_numbers(read_text(root, name, where), where)[0] for name in names)


def _read_calibration(product: Product, stem: str) -> Calibration:
    name = f"annotation/calibration/calibration-{stem}.xml"
    root, where = product.read_xml(name), f"{product.path}: {name}"
    lines, pixels, values = [], [], []
    for vector in root.iter("calibrationVector"):
        lines += read_numbers(vector.findtext("line"), where)
        pixels.append(np.array(read_numbers(vector.findtext("pixel"), where)))
        values.append(np.array(read_numbers(vector.findtext("sigmaNought"), where)))
    same = [len(p) == len(v) > 0 for p, v in zip(pixels, values, strict=True)]
    steps = [np.diff(np.array(numbers)) for numbers in (lines, *pixels)]
    rising = all((step > 0).all() for step in steps)
    if not lines or len(lines) != len(pixels) or not all(same) or not rising:
        raise ValueError(
            f"{where}: its {len(pixels)} calibrationVectors are no table of sigmaNought"
            " by line and pixel: fetch the product again"
        )
    return Calibration(np.array(lines), pixels, values)


def _read_points(
    file: SceneFile, target: Target
) -> tuple[list[GroundControlPoint], str, tuple[int, int]]:
    """(control points in the target's CRS, that CRS, (lines, samples))."""
    with opening(file.path), rasterio.open(file.name, sharing=False) as data:
        points, source = data.gcps
        shape = data.height, data.width
    if not points or not source:
        raise ValueError(
            f"{file.name}: has no control points that say where it lies: fetch the"
            " product as it was published"
        )
    xs, ys = [p.x for p in points], [p.y for p in points]
    crs = target.grid.crs if target.grid else target.crs
    if not crs:
        lons, lats = transform(source, "EPSG:4326", xs, ys)
        crs = utm_of(lons, lats, file.name)
    xs, ys = transform(source, crs, xs, ys)
    placed = zip(points, xs, ys, strict=True)
    return [GroundControlPoint(p.row, p.col, x, y) for p, x, y in placed], crs, shape


def _grid_around(
    points: Sequence[GroundControlPoint], crs: str, resolution: float, file: SceneFile
) -> Footprint:
    xs, ys = [p.x for p in points], [p.y for p in points]
    box = min(xs), min(ys), max(xs), max(ys)
    return box_grid(file.path, crs, box, resolution)

"""Puts a raster into a sensor's order and unit, by what its file says of itself."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from rsclip_jax.data.codecs.notes import note
from rsclip_jax.data.codecs.raster import Raster
from rsclip_jax.data.codecs.scaling import apply_scaling
from rsclip_jax.data.sensors import Sensor
from rsclip_jax.data.sensors.names import find_bands
from rsclip_jax.data.types import Scaling


def order_bands(
    raster: Raster,
    sensor: Sensor,
    file_bands: Sequence[str],
    where: str,
    *,
    one_each: bool = False,
) -> Raster:
    """A raster with the bands of a sensor, by their names in the file or by position.

    file_bands: the order of the bands in the file, () for the sensor's order; the
    file's names may not contradict it. one_each: whether each band has a file, which is
    called by its band. Raises ValueError naming where, for names of other bands, and
    for another number of bands than file_bands has.
    """
    order = tuple(file_bands) or sensor.bands
    indices = find_bands(raster.names, sensor, order, where)
    if one_each and not file_bands:
        if indices is not None and list(indices) != list(range(len(indices))):
            raise ValueError(
                f"{where}: the files are those of {', '.join(order)}, but call their"
                f" bands {', '.join(raster.names)}; rename them, or correct the names"
            )
        return raster
    count = raster.pixels.shape[-1]
    if count > 1 and (indices is not None or sensor.unit != "8-bit"):
        note("by position" if indices is None else "by name", sensor.name)
    if indices is None:
        if not file_bands:
            return raster
        if count != len(order):
            raise ValueError(
                f"{where}: {count} bands, expected the {len(order)} {order}"
            )
        indices = tuple(order.index(band) for band in sensor.bands)
    return _pick(raster, indices)


def to_unit(
    raster: Raster, sensor: Sensor, given: Scaling | None, path: Path
) -> np.ndarray:
    """Pixels in the sensor's unit, of a raster in the sensor's order.

    given, path: see apply_scaling.
    """
    if raster.pixels.shape[-1] != len(sensor.bands):
        return raster.pixels  # check_array refuses it
    return apply_scaling(raster, sensor, given, path)


def _pick(raster: Raster, indices: Sequence[int]) -> Raster:
    """The bands at these indices."""
    if list(indices) == list(range(raster.pixels.shape[-1])):
        return raster
    some = list(indices)
    missing = raster.missing
    if missing is not None and missing.ndim == 3:
        missing = missing[..., some]
    return dataclasses.replace(
        raster,
        pixels=raster.pixels[..., some],
        missing=missing,
        names=tuple(raster.names[i] for i in some),
        scales=raster.scales and tuple(raster.scales[i] for i in some),
        offsets=raster.offsets and tuple(raster.offsets[i] for i in some),
    )

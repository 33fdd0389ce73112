"""What a file says of a sensor's bands: their order, and where they have no value."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from rsclip_jax.data.codecs.notes import note
from rsclip_jax.data.codecs.raster import Raster
from rsclip_jax.data.sensors import Sensor
from rsclip_jax.data.sensors.names import find_bands


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
        if count != len(order):
            raise ValueError(
                f"{where}: {count} bands, expected the {len(order)} of {sensor.name},"
                f" {', '.join(order)}: use the sensor that fits, or name the file's"
                " bands in the dataset's file_bands"
            )
        if not file_bands:
            return raster
        indices = tuple(order.index(band) for band in sensor.bands)
    return _pick(raster, indices)


def marked_missing(raster: Raster, sensor: Sensor) -> np.ndarray | None:
    """What a file marks as missing of a sensor's values, [h, w] or [h, w, bands].

    Where the file's nodata value is the sensor's, too, it is missing in all bands of a
    pixel, and a dark measurement in some, but for radar in dB.
    """
    missing = raster.missing
    if missing is None or missing.ndim == 2 or raster.nodata is None:
        return missing
    if raster.nodata == sensor.nodata and sensor.unit != "dB":
        return np.asarray(missing.all(axis=-1))
    return missing


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

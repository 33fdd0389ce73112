"""From a file's numbers to a sensor's unit: scale, offset and processing baseline."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from rsclip_jax.data.codecs.notes import note
from rsclip_jax.data.codecs.raster import Raster
from rsclip_jax.data.sensors import Sensor
from rsclip_jax.data.sensors.baseline import OFFSET, has_offset
from rsclip_jax.data.types import Scaling

# Tags give reflectance, or a temperature; units that are integers of them are
# (scale, offset) away.
_INTEGERS = {
    "DN": (1e-4, 0.0),
    "C2 SR": (2.75e-5, -0.2),
    "C2 ST": (0.00341802, 149.0),
}
# The thermal bands of "C2 TOA" are radiance: its tags say what the integers are.
_AS_STORED = ("8-bit", "C2 TOA")
_FEW = 0.05  # the share of values that may be below the lowest of an offset


def apply_scaling(
    raster: Raster, sensor: Sensor, given: Scaling | None, path: Path
) -> np.ndarray:
    """The pixels [h, w, bands] of a raster, in the sensor's order, in its unit.

    The first of these counts: `given` (of the dataset); the sensor's own scale and
    offset; the scales and offsets of the file's tags; a baseline of Sentinel-2 in its
    tags or names, see has_offset. Nodata and saturated values stay as they are. Raises
    ValueError naming the file if its values contradict its baseline.
    """
    if given is None and (sensor.scale, sensor.offset) != (1.0, 0.0):
        given = Scaling((sensor.scale,), (sensor.offset,))
    if given is None:
        given = _tags_scaling(raster, sensor)
    if given is None and has_offset(sensor, path, raster.tags):
        _check_offset(raster, sensor, path)
        given = Scaling(offset=(OFFSET,))
        note("offset", sensor.name)
    if given is None or given == Scaling():
        return raster.pixels
    return _scaled(raster.pixels, sensor, given, path)


def _tags_scaling(raster: Raster, sensor: Sensor) -> Scaling | None:
    """What the tags say, as numbers to the sensor's unit; None if they say nothing."""
    if sensor.unit in _AS_STORED or (raster.scales is None and raster.offsets is None):
        return None
    bands = raster.pixels.shape[-1]
    scale = np.array(raster.scales or (1.0,) * bands)
    offset = np.array(raster.offsets or (0.0,) * bands)
    if sensor.unit in _INTEGERS and not (scale == 1).all():
        step, start = _INTEGERS[sensor.unit]
        scale, offset = scale / step, (offset - start) / step
        is_whole = np.abs(offset - np.rint(offset)) < 1e-3
        scale = np.where(np.abs(scale - 1) < 1e-6, 1, scale)
        offset = np.where(is_whole & (scale == 1), np.rint(offset), offset)
    if (scale == 1).all() and not offset.any():
        return Scaling()
    return Scaling(tuple(scale.tolist()), tuple(offset.tolist()))


def _scaled(
    pixels: np.ndarray, sensor: Sensor, given: Scaling, path: Path
) -> np.ndarray:
    scale, offset = (_each(v, pixels, path) for v in (given.scale, given.offset))
    out = pixels * scale + offset
    if pixels.dtype.kind in "iu":
        for value in (sensor.nodata, sensor.saturated):
            if value is not None:
                gone = pixels == value
                if np.dtype(sensor.dtype).kind == "f":  # in some bands it is a number
                    gone = np.broadcast_to(gone.all(-1, keepdims=True), gone.shape)
                out[gone] = value
    return out.astype(np.float64 if sensor.dtype == "float64" else np.float32)


def _each(values: Sequence[float], pixels: np.ndarray, path: Path) -> np.ndarray:
    """One number for each band."""
    bands = pixels.shape[-1]
    if len(values) not in (1, bands):
        raise ValueError(
            f"{path}: {len(values)} numbers of scale or offset for {bands} bands; give"
            " one, or one for each band of the sensor"
        )
    return np.array(values)


def _check_offset(raster: Raster, sensor: Sensor, path: Path) -> None:
    """Raises ValueError if many values are below those that the offset allows."""
    known = raster.pixels != (sensor.nodata or 0)
    if (gone := raster.missing) is not None:
        known &= ~(gone if gone.ndim == known.ndim else gone[..., None])
    there = raster.pixels[known]
    share = (there < 0.9 * -OFFSET).mean() if there.size else 0
    if share > _FEW:
        raise ValueError(
            f"{path}: its product's name or metadata state a processing baseline of"
            f" 04.00 or later, whose DN are 1000 higher, but {100 * share:.3g} % of its"
            " values are below 900: if 1000 was subtracted already, say so by [offset]"
            f" {sensor.modality} = 0 in the dataset's file, and = {OFFSET:g} if not"
        )

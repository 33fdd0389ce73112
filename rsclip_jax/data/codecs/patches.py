"""Converts patches that other tools stored, in any dtype, to a sensor's arrays."""

import numpy as np

from rsclip_jax.data.codecs.checks import check_array, fill_missing
from rsclip_jax.data.sensors import COMPOSITES, Sensor, get_sensor, select_bands
from rsclip_jax.data.sensors.bands import make_composite
from rsclip_jax.data.types import Dataset

# torch stored uint16 DN as int16 or float32 before it had uint16; TFDS stores float32.
# 8-bit and half-precision types cannot hold DN.
_HOLD_DN = ("int16", "int32", "int64", "uint16", "float32", "float64")
# Reflectance is below 2, and no patch of DN is below 10 everywhere.
_LEAST_DN = 10


def as_sensor(
    array: np.ndarray,
    sensor: Sensor,
    file_bands: tuple[str, ...],
    where: str,
    max_nodata: float,
) -> np.ndarray:
    """Converts [h, w, file_bands] in a wider dtype to [h, w, bands], and checks it.

    file_bands: the order of the bands in the file; () for the sensor's order. Values of
    a sensor in DN are rounded. max_nodata: see check_array. Raises ValueError naming
    where.
    """
    if file_bands and array.shape[-1] == len(file_bands):
        array = select_bands(array, file_bands, sensor.bands)
    if max_nodata and array.ndim == 3 and array.size:  # integers hold no NaN
        array = fill_missing(array, sensor, where, max_nodata)
    if sensor.unit == "DN" and array.dtype != np.dtype(sensor.dtype):
        array = _whole_dn(array, sensor, where)
    return check_array(array, sensor, where)


def make_picture(dataset: Dataset, key: str, array: np.ndarray) -> np.ndarray:
    """Returns the composite `key`, uint8 [..., 3], of its sensor's array."""
    source, name = dataset.composites[key]
    bands = get_sensor(dataset.sensors[source]).bands
    return make_composite(array, bands, COMPOSITES[name])


def _whole_dn(array: np.ndarray, sensor: Sensor, where: str) -> np.ndarray:
    """Converts DN to the sensor's dtype. Raises ValueError if they cannot be DN."""
    if array.dtype not in _HOLD_DN:
        raise ValueError(
            f"{where}: dtype {array.dtype} holds no DN of {sensor.name}; expected one"
            f" of {', '.join(_HOLD_DN)}"
        )
    low, high = (array.min(), array.max()) if array.size else (0, 0)
    if not (low >= -0.5 and high <= np.iinfo(sensor.dtype).max):  # NaN neither
        raise ValueError(
            f"{where}: values from {low:g} to {high:g}, but {sensor.name} is in DN from"
            f" 0 to {np.iinfo(sensor.dtype).max}; convert them"
        )
    if array.dtype.kind == "f":
        whole = np.rint(array)
        if high < _LEAST_DN and not np.array_equal(whole, array):
            raise ValueError(
                f"{where}: no value is above {high:g}, so this looks like reflectance;"
                f" {sensor.name} is in DN: multiply by 10000"
            )
        array = whole
    return array.astype(sensor.dtype)

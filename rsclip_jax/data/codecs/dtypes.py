"""Values of other dtypes than the sensor's, read where they fit exactly."""

import numpy as np

from rsclip_jax.data.codecs.notes import note
from rsclip_jax.data.sensors import Sensor

# No patch of integers is below 100 everywhere, and no reflectance is above it, not even
# in per cent; reflectance from 0 to 1 is below 10.
_LEAST, _PER_CENT = 10, 100
# Sentinel-2's processing lowers DN by 1000, so dark water may fall below 0.
_LOWEST_DN = -1000


def check_dtype(array: np.ndarray, sensor: Sensor, where: str) -> None:
    """Raises ValueError for a dtype that cannot hold the values of a sensor."""
    wanted = np.dtype(sensor.dtype)
    if array.dtype == wanted:
        return
    # An 8-bit picture has been stretched, and half precision rounds DN.
    is_half = array.dtype == np.float16 and wanted.kind != "f"
    is_narrow = is_half or 1 in (array.dtype.itemsize, wanted.itemsize)
    if array.dtype.kind not in "iuf" or is_narrow:
        raise ValueError(
            f"{where}: dtype {array.dtype} ({_range_of(array)}) cannot hold the values"
            f" of {sensor.name}, which are {sensor.dtype} in {sensor.unit}; use the"
            " original data, not a picture of it"
        )


def fit_dtype(array: np.ndarray, sensor: Sensor, where: str) -> np.ndarray:
    """Converts an array [h, w, bands], without missing pixels, to the sensor's dtype.

    array: of a dtype that check_dtype allows. Whole numbers stay as they are, DN in
    floats are rounded, and DN a little below 0 become 0, which is noted. Raises
    ValueError naming where, for values that do not fit.
    """
    wanted = np.dtype(sensor.dtype)
    if array.dtype == wanted or not array.size:
        return array.astype(wanted, copy=False)
    if wanted.kind == "f":
        return _as_float(array, sensor, where)
    return _as_integer(array, sensor, where)


def _as_float(array: np.ndarray, sensor: Sensor, where: str) -> np.ndarray:
    """Casts to the sensor's float dtype; integers must stay what they are."""
    cast = array.astype(sensor.dtype)
    if array.dtype.kind != "f" and not np.array_equal(cast.astype(array.dtype), array):
        raise ValueError(
            f"{where}: {array.dtype} values ({_range_of(array)}) do not fit"
            f" {sensor.dtype}, the dtype of {sensor.name}; scale the values to"
            f" {sensor.unit} before casting them"
        )
    return cast


def _as_integer(array: np.ndarray, sensor: Sensor, where: str) -> np.ndarray:
    low, high = array.min(), array.max()
    info = np.iinfo(sensor.dtype)
    if array.dtype.kind == "f":
        whole = np.rint(array)
        if not np.array_equal(whole, array):
            _check_fraction(high, sensor, where)
        array, low, high = whole, np.rint(low), np.rint(high)
    if low < 0 <= info.min and sensor.unit == "DN" and low >= _LOWEST_DN:
        negative = array < 0
        if negative.mean() <= 0.5:
            note("negative", sensor.name, int(negative.sum()))
            array, low = np.where(negative, 0, array), 0
    if low < info.min or high > info.max:
        raise ValueError(
            f"{where}: {array.dtype} values from {low:g} to {high:g}, but {sensor.name}"
            f" is in {sensor.unit} from {info.min} to {info.max}: is it in another"
            " unit, or is its nodata value not stated in the file? Convert the values,"
            " or state it"
        )
    return array.astype(sensor.dtype)


def _check_fraction(high: float, sensor: Sensor, where: str) -> None:
    """Raises ValueError for fractions that are no integers of the sensor in floats."""
    if high >= _PER_CENT:
        return
    looks, factor = ("reflectance", 10000)
    if high >= _LEAST:
        looks, factor = "reflectance in per cent", 100
    way = "use the original integers"
    if sensor.unit == "DN":
        way = (
            f"multiply by {factor} (scale = {factor} for"
            f" {sensor.modality} in the dataset's file)"
        )
    raise ValueError(
        f"{where}: no value is above {high:g}, so this looks like {looks};"
        f" {sensor.name} is in {sensor.unit}: {way}"
    )


def _range_of(array: np.ndarray) -> str:
    if array.dtype.kind not in "iuf":
        return "no numbers"
    known = array[~np.isnan(array)] if array.dtype.kind == "f" else array
    return f"{known.min():.6g} to {known.max():.6g}" if known.size else "no number"

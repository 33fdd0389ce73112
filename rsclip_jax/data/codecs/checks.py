"""Checks of a sensor's arrays, and filling of missing pixels."""

import math

import numpy as np

from rsclip_jax.data.codecs.dtypes import check_dtype, fit_dtype
from rsclip_jax.data.codecs.notes import note
from rsclip_jax.data.codecs.radar import check_decibels
from rsclip_jax.data.sensors import Sensor

_DROP = "mask or drop the patch"


def check_array(
    array: np.ndarray,
    sensor: Sensor,
    where: str,
    max_nodata: float = 0.0,
    missing: np.ndarray | None = None,
) -> np.ndarray:
    """Checks an array [h, w, bands] of a sensor and returns it in the sensor's dtype.

    Its values must fit the dtype (see fit_dtype) and be in the sensor's valid range or
    nodata, but not only nodata. A share of missing pixels up to max_nodata is filled;
    see fill_missing. missing: what the file marks as missing, bool [h, w] or
    [h, w, bands]. Raises ValueError naming the file or record, what was found and what
    was expected.
    """
    if array.ndim != 3 or array.shape[-1] != len(sensor.bands):
        raise ValueError(
            f"{where}: an array of shape {array.shape} is not [h, w,"
            f" {len(sensor.bands)}]; sensor {sensor.name} has the bands"
            f" {sensor.bands}"
        )
    if missing is None and array.dtype == np.uint8 and _holds_all(sensor):
        return array
    check_dtype(array, sensor, where)
    if array.size:
        array = fill_missing(array, sensor, where, max_nodata, missing)
    array = fit_dtype(array, sensor, where)
    if array.size:
        _check_values(array, sensor, where)
    return array


def fill_missing(
    array: np.ndarray,
    sensor: Sensor,
    where: str,
    max_nodata: float,
    marked: np.ndarray | None = None,
) -> np.ndarray:
    """Returns a copy with missing pixels filled, or the array itself if there are none.

    A value is missing if find_missing says so. It gets the median of the band's other
    pixels in the patch: the sensor's mean would be a bright spot on a lake. At
    max_nodata 0 the sensor's nodata is kept as it is. Raises ValueError if more than
    the share max_nodata of the pixels is missing.
    """
    missing = find_missing(array, sensor, marked, nodata=max_nodata > 0)
    if missing is None:
        return array
    share = missing.any(axis=-1).mean()
    if share > max_nodata:
        allowed = f"{100 * max_nodata:.3g} %; {_DROP}"
        rest = f"and max_nodata={max_nodata:g} allows {allowed}"
        if not max_nodata:
            rest = f"a max_nodata above 0 fills a few, or {_DROP}"
        found = _describe(array, sensor, missing, marked)
        raise ValueError(f"{where}: {found}; {rest}")
    if missing.all(axis=(0, 1)).any():
        raise ValueError(f"{where}: a band of {sensor.name} is missing; {_DROP}")
    note("filled", sensor.name, int(missing.any(axis=-1).sum()), missing)
    out = array.copy()
    for i in np.flatnonzero(missing.any(axis=(0, 1))):
        hole = missing[..., i]
        out[hole, i] = np.median(array[~hole, i])
    return out


def find_missing(
    array: np.ndarray,
    sensor: Sensor,
    marked: np.ndarray | None = None,
    *,
    nodata: bool = True,
) -> np.ndarray | None:
    """The missing values of an array, bool [h, w, bands]; None if there are none.

    They are NaN or infinite, or marked (bool [h, w] or [h, w, bands]), or the sensor's
    saturated value or, with nodata, its nodata in all bands of a pixel: in some bands
    only these are measurements.
    """
    # of one band, a saturated pixel cannot be told from a missing one
    saturated = sensor.saturated if array.shape[-1] > 1 else None
    values = [
        v for v in (sensor.nodata if nodata else None, saturated) if v is not None
    ]
    if array.dtype.kind != "f" and not values and marked is None:
        return None
    low, high = float(array.min()), float(array.max())
    found = [v for v in values if low <= v <= high]
    is_finite = np.isfinite(low) and np.isfinite(high)
    if is_finite and not found and (marked is None or not marked.any()):
        return None
    missing = ~np.isfinite(array)
    if found:
        missing |= np.isin(array, found).all(axis=-1, keepdims=True)
    if marked is not None:
        missing |= marked if marked.ndim == array.ndim else marked[..., None]
    return missing if missing.any() else None


def _describe(
    array: np.ndarray, sensor: Sensor, missing: np.ndarray, marked: np.ndarray | None
) -> str:
    """How much of an array is missing, and how that shows."""
    ways = []
    if not np.isfinite(array).all():
        ways.append("NaN or infinite")
    if marked is not None and marked.any():
        ways.append("nodata or masked in the file")
    values = [v for v in (sensor.nodata, sensor.saturated) if v is not None]
    ways += [f"{v:g} in all bands" for v in values if (array == v).all(axis=-1).any()]
    share = 100 * missing.any(axis=-1).mean()
    return f"{share:.3g} % of the {sensor.name} pixels are missing ({', '.join(ways)})"


def _check_values(array: np.ndarray, sensor: Sensor, where: str) -> None:
    if array.dtype == np.uint8 and _holds_all(sensor):
        return
    # Every record is checked. The lowest and highest value show that an array is good;
    # only a bad one is examined more closely.
    low, high = array.min(), array.max()
    _check_not_empty(low, high, array, sensor, where)
    if sensor.unit == "dB":
        check_decibels(_some_pixels(array, sensor), sensor, where)
    if sensor.unit in _OTHER_UNITS:
        _check_unit(_some_pixels(array, sensor), sensor, where)
    if low < sensor.valid[0] or high > sensor.valid[1]:
        _check_range(array, sensor, where)


def _some_pixels(array: np.ndarray, sensor: Sensor) -> np.ndarray:
    """Evenly spread pixels [n, bands] that are not all nodata."""
    flat = array.reshape(-1, array.shape[-1])
    if sensor.nodata is not None:
        flat = flat[(flat != sensor.nodata).any(axis=-1)]
    return flat[:: max(1, len(flat) // _PIXELS)]


_TIMES = "reflectance * 10000"
# A unit -> lowest and highest median, what other values look like, and the way out.
_OTHER_UNITS = {
    "reflectance": (-1.0, 5.0, "DN", "scale = 0.0001"),
    "K": (100.0, math.inf, "degrees Celsius", "offset = 273.15"),
    # Collection 2's integers of reflectance -0.03 and -0.01: dark water is above it
    "C2 SR": (6000.0, math.inf, _TIMES, "scale = 3.63636 and offset = 7272.73"),
    "C2 TOA": (4500.0, math.inf, _TIMES, "scale = 5 and offset = 5000"),
}
_NO_MEDIAN = -900.0  # of any unit, but nodata values such as -999 and -9999 are below
_PIXELS = 1024  # enough for a median


def _check_unit(array: np.ndarray, sensor: Sensor, where: str) -> None:
    """Raises ValueError if the median of pixels is not one of the sensor's unit."""
    low, high, looks, way = _OTHER_UNITS[sensor.unit]
    known = array[array != sensor.nodata]
    median = np.median(known) if known.size else low
    if low <= median <= high:
        return
    found = f"{where}: the median of the {sensor.name} values is {median:.4g}, so this"
    if median < _NO_MEDIAN:
        raise ValueError(
            f"{found} looks like a nodata value: state it in the file's tags"
        )
    raise ValueError(
        f"{found} looks like {looks}, not like {sensor.unit} ({way} for"
        f" {sensor.modality} in the dataset's file converts them)"
    )


def _holds_all(sensor: Sensor) -> bool:
    """Whether all values of 8 bits are valid, as in a picture."""
    is_picture = sensor.dtype == "uint8" and sensor.valid == (0, 255)
    return is_picture and sensor.nodata is None and sensor.saturated is None


def check_nodata(array: np.ndarray, sensor: Sensor, where: str) -> None:
    """Raises ValueError for a patch that is all nodata."""
    if sensor.nodata is not None:
        _check_not_empty(array.min(), array.max(), array, sensor, where)


def _check_not_empty(low, high, array: np.ndarray, sensor: Sensor, where: str) -> None:
    if low == high == sensor.nodata:
        raise ValueError(
            f"{where}: all {array.shape[0] * array.shape[1]} pixels are"
            f" {sensor.nodata:g}, which is the nodata value of {sensor.name}; {_DROP}"
        )


def _check_range(array: np.ndarray, sensor: Sensor, where: str) -> None:
    """Raises ValueError unless all values outside the valid range are nodata."""
    low, high = sensor.valid
    outside = (array < low) | (array > high)
    if sensor.nodata is not None:
        outside &= array != sensor.nodata
    if not outside.any():
        return
    values = array[outside].astype(np.float64)
    extreme = values[np.maximum(low - values, values - high).argmax()]
    raise ValueError(
        f"{where}: {100 * outside.mean():.3g} % of the {sensor.name} values are outside"
        f" {low:g} to {high:g} {sensor.unit}, the farthest {extreme:g}: is it in"
        f" another unit, or is its nodata value different? Convert it, or {_DROP}"
    )

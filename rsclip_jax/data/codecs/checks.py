"""Checks of a sensor's arrays, and filling of missing pixels."""

import contextlib
import contextvars
from collections.abc import Iterator

import numpy as np

from rsclip_jax.data.sensors import Sensor


def check_array(
    array: np.ndarray, sensor: Sensor, where: str, max_nodata: float = 0.0
) -> np.ndarray:
    """Checks an array [h, w, bands] of a sensor and returns it.

    It must have the sensor's dtype, no NaN, and values in the sensor's valid range or
    nodata, but not only nodata. A share of missing pixels up to max_nodata is filled;
    see fill_missing. Raises ValueError naming the file or record, what was found and
    what was expected.
    """
    if array.ndim != 3 or array.shape[-1] != len(sensor.bands):
        raise ValueError(
            f"{where}: an array of shape {array.shape} is not [h, w,"
            f" {len(sensor.bands)}]; sensor {sensor.name} has the bands"
            f" {sensor.bands}"
        )
    if array.dtype != np.dtype(sensor.dtype):
        raise ValueError(
            f"{where}: dtype {array.dtype} ({_range_of(array)}), but sensor"
            f" {sensor.name} is {sensor.dtype} in {sensor.unit}; {_conversion(sensor)}"
        )
    if array.size:
        if max_nodata:
            array = fill_missing(array, sensor, where, max_nodata)
        _check_values(array, sensor, where)
    return array


Filled = list[
    tuple[str, int]
]  # (sensor's name, pixels) of each patch with missing pixels
_FILLED: contextvars.ContextVar[Filled | None] = contextvars.ContextVar(
    "filled", default=None
)


@contextlib.contextmanager
def noting_filled() -> Iterator[Filled]:
    """Records what fill_missing fills in this thread within the context."""
    noted: Filled = []
    token = _FILLED.set(noted)
    try:
        yield noted
    finally:
        _FILLED.reset(token)


_DROP = "mask or drop the patch"


def fill_missing(
    array: np.ndarray, sensor: Sensor, where: str, max_nodata: float
) -> np.ndarray:
    """Returns a copy with missing pixels filled, or the array itself if there are none.

    A pixel is missing if it is NaN or infinite in any band, or nodata in all bands. It
    gets the median of the band's other pixels in the patch: the sensor's mean would be
    a bright spot on a lake. Raises ValueError if more than the share max_nodata is
    missing.
    """
    low, high, nodata = array.min(), array.max(), sensor.nodata
    finite = np.isfinite(low) and np.isfinite(high)
    if finite and (nodata is None or not low <= nodata <= high):
        return array
    missing = ~np.isfinite(array)
    if nodata is not None:
        missing |= (array == nodata).all(axis=-1, keepdims=True)
    share = missing.any(axis=-1).mean()
    if share > max_nodata:
        raise ValueError(
            f"{where}: {100 * share:.3g} % of the {sensor.name} pixels are NaN or"
            f" nodata, and max_nodata={max_nodata:g} allows"
            f" {100 * max_nodata:.3g} %; {_DROP}"
        )
    if (noted := _FILLED.get()) is not None:
        noted.append((sensor.name, int(missing.any(axis=-1).sum())))
    out = array.copy()
    for i in np.flatnonzero(missing.any(axis=(0, 1))):
        hole = missing[..., i]
        out[hole, i] = np.median(array[~hole, i])
    return out


def _range_of(array: np.ndarray) -> str:
    known = array[~np.isnan(array)] if array.dtype.kind == "f" else array
    return f"{known.min():.6g} to {known.max():.6g}" if known.size else "no number"


def _conversion(sensor: Sensor) -> str:
    """How to convert another dtype without losing the values."""
    if sensor.unit == "DN":
        return "reflectance times 10000, rounded, is in DN"
    if sensor.dtype.startswith("float"):
        return f"numbers in {sensor.unit} can be cast with .astype('{sensor.dtype}')"
    return f"scale the values to {sensor.unit} before casting them"


def _check_values(array: np.ndarray, sensor: Sensor, where: str) -> None:
    if array.dtype == np.uint8 and sensor.valid == (0, 255) and sensor.nodata is None:
        return  # all values are valid
    # Every record is checked. The lowest and highest value (NaN if any value is) show
    # that an array is good; only a bad one is examined more closely.
    low, high = array.min(), array.max()
    if not (np.isfinite(low) and np.isfinite(high)):
        share = 100 * (1 - np.isfinite(array).mean())
        raise ValueError(
            f"{where}: {share:.3g} % of the {sensor.name} values are NaN or infinite;"
            f" a max_nodata above 0 fills a few, or {_DROP}"
        )
    _check_not_empty(low, high, array, sensor, where)
    if low < sensor.valid[0] or high > sensor.valid[1]:
        _check_range(array, sensor, where)
    if sensor.unit == "dB" and low >= 0:
        raise ValueError(
            f"{where}: no {sensor.name} value is below 0 dB, so this looks like linear"
            " power; convert it with 10 * log10(x)"
        )


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

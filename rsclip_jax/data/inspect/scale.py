"""The scale of a sensor's input, measured on a dataset in place of its row's."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from rsclip_jax.data.inspect.scan import look_at
from rsclip_jax.data.inspect.statistics import measure
from rsclip_jax.data.sampling import spread_indices
from rsclip_jax.data.sensors import Sensor, get_sensor
from rsclip_jax.data.types import READING, ReadOptions, Source

HOW = ("zscore", "percentile")
_PIXELS = 2**20  # of all records together, so that memory stays flat


@dataclasses.dataclass(frozen=True)
class Scale:
    """What an encoder sees: clip((x - mean) / std, -clip_sigma, clip_sigma), by band.

    records, pixels: of how many it was measured, those without a value included.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    clip_sigma: float
    records: int
    pixels: int


def measure_scale(
    source: Source,
    key: str,
    how: str,
    *,
    percentiles: Sequence[float] = (2.0, 98.0),
    records: int = 500,
    options: ReadOptions = READING,
) -> Scale:
    """The scale of one sensor key of a source; the same for the same records.

    how "zscore": each band's mean and standard deviation, clipped where the sensor's
    row clips. "percentile": the low and the high percentile become -1 and 1, and what
    lies beyond is clipped. Measured in the files' units on the pixels of `records`
    records (0: all), of more than 2**20 pixels on as many, both evenly spread; without
    NaN and the sensor's nodata. Raises ValueError for a band of one value or none.
    """
    sensor = get_sensor(source.dataset.sensors[key])
    places = spread_indices(len(source), records)
    share = max(_PIXELS // len(places), 1)
    looks = look_at(
        source,
        places,
        key,
        lambda array: _some_pixels(array, share),
        options=options,
    )
    parts = list(looks)
    where = f"{len(parts)} of {len(places)} records of {source.dataset.name}"
    if not parts:
        raise ValueError(f"{where} could be read: there is nothing to measure")
    pixels = np.concatenate(parts)
    scales = [
        _scale_of(pixels[:, i], sensor, how, percentiles, f"{band} in {where}")
        for i, band in enumerate(sensor.bands)
    ]
    mean, std = zip(*scales, strict=True)
    clip_sigma = sensor.clip_sigma if how == "zscore" else 1.0
    return Scale(mean, std, clip_sigma, len(parts), len(pixels))


def _some_pixels(array: np.ndarray, count: int) -> np.ndarray:
    """At most `count` of the pixels of [h, w, c], evenly spread: [n, c]."""
    flat = array.reshape(-1, array.shape[-1])
    return flat[spread_indices(len(flat), count)]


def _scale_of(
    values: np.ndarray, sensor: Sensor, how: str, percentiles, where: str
) -> tuple[float, float]:
    """(mean, std) of one band's values, or what maps its percentiles to -1 and 1."""
    x = values.astype(np.float64)
    if sensor.nodata is not None:
        x[x == sensor.nodata] = np.nan
    (row,) = measure(x[None, :, None]).rows(("",))
    if row["min"] is None:
        raise ValueError(f"{where} holds no value but NaN or nodata")
    if row["min"] == row["max"]:
        raise ValueError(
            f"{where} is constant: every value is {row['min']:g} {sensor.unit}, which"
            " has no scale"
        )
    if how == "zscore":
        return row["mean"], row["std"]
    low, high = np.percentile(x[np.isfinite(x)], percentiles).tolist()
    if low == high:
        raise ValueError(
            f"{where}: the percentiles {percentiles[0]:g} and {percentiles[1]:g} are"
            f" both {low:g} {sensor.unit}: take others, farther apart"
        )
    return (low + high) / 2, (high - low) / 2

"""Measures the scale of a sensor's input on a dataset, to replace the sensor's own."""

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
    """An encoder's input is clip((x - mean) / std, -clip_sigma, clip_sigma) per band.

    records, pixels: the numbers that it was measured on, including pixels without a
    value.
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
    """Measures the scale of one sensor key of a source, deterministically.

    Args:
      source: the records.
      key: the sensor key.
      how: "zscore" takes each band's mean and standard deviation, with the sensor's own
        clip_sigma; "percentile" maps the low and high percentile to -1 and 1 and clips
        beyond.
      percentiles: (low, high).
      records: the number of records, evenly spread; 0 takes all.
      options: how they are read.

    Returns:
      The scale in the files' units, over at most about 2**20 evenly spread pixels,
      without missing ones and the sensor's nodata.

    Raises:
      ValueError: for a band with a single value or none.
    """
    sensor = get_sensor(source.dataset.sensors[key])
    indices = spread_indices(len(source), records)
    share = max(_PIXELS // len(indices), 1)
    looks = look_at(
        source,
        indices,
        key,
        lambda array, missing: _some_pixels(array, missing, share),
        options=options,
    )
    parts = list(looks)
    where = f"{len(parts)} of {len(indices)} records of {source.dataset.name}"
    if not parts:
        raise ValueError(f"{where} could be read: the scale cannot be measured")
    pixels = np.concatenate(parts)
    scales = [
        _scale_of(pixels[:, i], sensor, how, percentiles, f"{band} in {where}")
        for i, band in enumerate(sensor.bands)
    ]
    mean, std = zip(*scales, strict=True)
    clip_sigma = sensor.clip_sigma if how == "zscore" else 1.0
    return Scale(mean, std, clip_sigma, len(parts), len(pixels))


def _some_pixels(
    array: np.ndarray, missing: np.ndarray | None, count: int
) -> np.ndarray:
    """At most `count` evenly spread pixels [n, c] of an image [h, w, c].

    With missing values they are floats, NaN where a value is missing.
    """
    flat = array.reshape(-1, array.shape[-1])
    some = spread_indices(len(flat), count)
    if missing is None:
        return flat[some]
    return np.where(missing.reshape(flat.shape)[some], np.nan, flat[some])


def _scale_of(
    values: np.ndarray, sensor: Sensor, how: str, percentiles, where: str
) -> tuple[float, float]:
    """A band's (mean, std), or the pair that maps its percentiles to -1 and 1."""
    x = values.astype(np.float64)
    if sensor.nodata is not None:
        x[x == sensor.nodata] = np.nan
    (row,) = measure(x[None, :, None]).rows(("",))
    if row["min"] is None:
        raise ValueError(f"{where} holds only NaN or nodata")
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
            f" both {low:g} {sensor.unit}: choose percentiles that are farther apart"
        )
    return (low + high) / 2, (high - low) / 2

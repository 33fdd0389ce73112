"""Finds Sentinel-2 DN that are 1000 higher than reflectance * 10000."""

from collections.abc import Sequence

import numpy as np

from rsclip_jax.data.inspect.scan import missing_values
from rsclip_jax.data.sampling import spread_indices
from rsclip_jax.data.sensors import get_sensor
from rsclip_jax.data.sensors.baseline import OFFSET, is_msi
from rsclip_jax.data.types import Source

# The darkest of all pixels and bands is a few DN above 0 in scenes with shade or water,
# or with a cirrus band, and noise is a few DN below it.
_LOW, _HIGH = 0.95 * -OFFSET, 1.1 * -OFFSET
_MOST, _SOME = 0.5, 0.1
_DIM = 500  # without a cirrus band haze and bright ground lift the darkest above it
_RECORDS, _MOST_PIXELS = 8, 2**24


def describe_offset(key: str, darkest: Sequence[float]) -> str:
    """What the darkest values of records say about an offset; "" if nothing.

    darkest: the lowest value of each record over all bands, without missing pixels.
    """
    dark = [x for x in darkest if x < _HIGH]
    at = sum(x >= _LOW for x in dark)
    dim = sum(_DIM <= x < _LOW for x in dark)
    if at <= dim or at < _SOME * len(dark):  # no offset leaves so many between 0 and it
        return ""
    way = (
        f"DN of processing baseline 04.00 and later are 1000 higher than reflectance *"
        f" 10000: [offset] {key} = {OFFSET:g} in the dataset's file lowers them"
    )
    if at > _MOST * len(dark):
        return f"the darkest pixels of all bands are at {min(dark):.0f} DN; {way}"
    return (
        f"the darkest pixels are at 1000 DN in {at} records and near 0 in"
        f" {len(dark) - at}, so two processing baselines are mixed; {way}; describe the"
        " two parts as two datasets"
    )


def suspect_offset(source: Source) -> list[str]:
    """A line for each sensor of a source whose DN look too high, by a few records."""
    found: list[str] = []
    if source.dataset.kind == "miniature":
        return found
    for key, name in source.dataset.sensors.items():
        if is_msi(get_sensor(name)) and key not in source.dataset.scaling:
            text = describe_offset(key, _look_for_darkest(source, key))
            found += [f"{source.spec}: {key}: {text}"] if text else []
    return found


def _look_for_darkest(source: Source, key: str) -> list[float]:
    """The darkest values of a few records; of fewer, where these are large."""
    found, pixels = [], 0
    for index in spread_indices(len(source), _RECORDS) if len(source) else []:
        try:
            array = source.read(index, (key,))[key]
        except (ValueError, OSError, KeyError):  # or the record lacks the sensor
            continue
        name = source.dataset.sensors[key]
        found.append(_darkest(array, missing_values(array, name, ())))
        pixels += array.size
        if pixels > _MOST_PIXELS:
            break
    return found


def _darkest(array: np.ndarray, missing: np.ndarray | None) -> float:
    """The lowest value of an array that is not missing; infinity without one."""
    there = array if missing is None else array[~missing]
    return float(there.min()) if there.size else np.inf

"""Selection of bands by name, and RGB composites of bands."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from rsclip_jax.data.sensors.spec import Sensor
from rsclip_jax.data.types import Composite


def select_bands(
    array: np.ndarray,
    source: tuple[str, ...],
    target: tuple[str, ...],
    fill: str = "error",
) -> np.ndarray:
    """Reorders the bands of [..., len(source)] to [..., len(target)].

    A target band that is missing in source is filled with zeros (fill "zero") or the
    mean of the other bands (fill "mean"), or raises an error (fill "error").

    Raises ValueError naming both lists.
    """
    if fill not in ("error", "zero", "mean"):
        raise ValueError(f"fill {fill!r} is not known; use 'error', 'zero' or 'mean'")
    if array.shape[-1] != len(source) or len(set(source)) != len(source):
        raise ValueError(
            f"an array of {array.shape[-1]} bands does not hold the distinct bands"
            f" {source}"
        )
    missing = [band for band in target if band not in source]
    if missing and fill == "error":
        raise ValueError(
            f"bands {missing} are missing: wanted {target}, found"
            f" {source}; fill='zero' or fill='mean' fills them in"
        )
    out = np.zeros((*array.shape[:-1], len(target)), array.dtype)
    for i, band in enumerate(target):
        if band in source:
            out[..., i] = array[..., source.index(band)]
        elif fill == "mean":
            out[..., i] = array.mean(axis=-1)
    return out


def make_composite(
    array: np.ndarray, bands: tuple[str, ...], composite: Composite
) -> np.ndarray:
    """uint8 RGB [..., 3] of [..., len(bands)] in the unit of the composite's sensor.

    Raises ValueError with both lists if one of its bands is not among `bands`.
    """
    rgb = select_bands(array, bands, composite.bands)
    scale = np.float32(255 / composite.divisor)
    if composite.low:
        rgb = rgb.astype(np.float32) - np.float32(composite.low)
    return (np.clip(rgb * scale, 0, 255) + np.float32(0.5)).astype(np.uint8)


# Wavelengths (um) of red, green and blue.
TRUE_COLOUR = (0.665, 0.56, 0.49)


def bands_near(sensor: Sensor, wanted: Sequence[float]) -> tuple[str, ...] | None:
    """The bands nearest to these wavelengths, if all are within 0.03 um."""
    bands = []
    for um in wanted:
        distance = np.abs(np.array(sensor.wavelengths) - um)
        if np.isnan(distance).all() or np.nanmin(distance) > 0.03:
            return None
        bands.append(sensor.bands[int(np.nanargmin(distance))])
    return tuple(bands) if len(set(bands)) == len(bands) else None


def band_indices(
    held: Sensor, bands: tuple[str, ...], unit: str, where: str
) -> tuple[int, ...]:
    """The index of each of `bands` in a sensor's arrays.

    where: who needs the bands, for the error. Raises ValueError with both lists and
    units if a band is missing or the units differ.
    """
    if held.unit != unit or not set(bands) <= set(held.bands):
        raise ValueError(
            f"{where} takes the bands {bands} in {unit}, and {held.name} holds"
            f" {held.bands} in {held.unit}"
        )
    return tuple(held.bands.index(band) for band in bands)


def sensor_part(sensor: Sensor, indices: Sequence[int]) -> Sensor:
    """The sensor with only some of its bands, by their indices."""
    per_band = ["bands", "wavelengths", "resolution"]
    per_band += ["mean", "std"] if sensor.mean else []
    parts: dict[str, Any] = {
        name: tuple(getattr(sensor, name)[i] for i in indices) for name in per_band
    }
    return dataclasses.replace(sensor, **parts)

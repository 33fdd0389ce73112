"""Moving bands by name, never by index, and pictures made of some."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from rsclip_jax.data.sensors.spec import Composite, Sensor


def select_bands(
    array: np.ndarray,
    source: tuple[str, ...],
    target: tuple[str, ...],
    fill: str = "error",
) -> np.ndarray:
    """Bands of [..., len(source)] in the order of target: [..., len(target)].

    A target band that source lacks is an error, or with fill "zero" zeros, or with fill
    "mean" the mean of the bands that are there. ValueError with both lists otherwise.
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
            f"bands {missing} are wanted but not there: wanted {target}, found"
            f" {source}; fill='zero' or 'mean' would make them up"
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

    ValueError with both lists where a band of it is not among `bands`.
    """
    rgb = select_bands(array, bands, composite.bands)
    scale = np.float32(255 / composite.divisor)
    return (np.clip(rgb * scale, 0, 255) + np.float32(0.5)).astype(np.uint8)


def band_places(
    held: Sensor, bands: tuple[str, ...], unit: str, where: str
) -> tuple[int, ...]:
    """Where each of `bands` stands in a sensor's arrays.

    ValueError with both lists and units where one is not there, or in another unit;
    where: what wants them.
    """
    if held.unit != unit or not set(bands) <= set(held.bands):
        raise ValueError(
            f"{where} takes the bands {bands} in {unit}, and {held.name} holds"
            f" {held.bands} in {held.unit}"
        )
    return tuple(held.bands.index(band) for band in bands)


def sensor_part(sensor: Sensor, places: Sequence[int]) -> Sensor:
    """The sensor with some of its bands only, by their places."""
    per_band = ("bands", "wavelengths", "resolution", "mean", "std")
    parts: dict[str, Any] = {
        name: tuple(getattr(sensor, name)[i] for i in places) for name in per_band
    }
    return dataclasses.replace(sensor, **parts)

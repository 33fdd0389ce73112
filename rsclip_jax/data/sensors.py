"""The table of sensors, and moving bands between them by name, never by index."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from rsclip_jax.lookup import look_up


@dataclasses.dataclass(frozen=True)
class Sensor:
    """Bands in file order, and how an encoder trained here normalises them.

    unit: "DN" (reflectance * 10000), "dB", "K" or "8-bit". wavelengths in micrometres
    (nan for radar) and resolution in metres, one a band. An encoder sees
    clip((x - mean) / std, -clip_sigma, clip_sigma).
    """

    name: str
    modality: str  # the key of a record and the word in results: rgb, s1, s2, ir
    bands: tuple[str, ...]
    unit: str
    dtype: str
    wavelengths: tuple[float, ...]
    resolution: tuple[float, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    clip_sigma: float = 5.0

    def __post_init__(self):
        for field in ("wavelengths", "resolution", "mean", "std"):
            if len(getattr(self, field)) != len(self.bands):
                raise ValueError(
                    f"sensor {self.name}: {len(getattr(self, field))} values of"
                    f" {field} for {len(self.bands)} bands"
                )


_NAN = float("nan")
_S2_BANDS = tuple("B01 B02 B03 B04 B05 B06 B07 B08 B8A B09 B10 B11 B12".split())
# ESA Sentinel-2 MSI: central wavelength (um), ground sampling (m), in _S2_BANDS order.
# fmt: off
_S2_UM = (0.443, 0.490, 0.560, 0.665, 0.705, 0.740, 0.783,
          0.842, 0.865, 0.945, 1.375, 1.610, 2.190)
_S2_M = (60.0, 10.0, 10.0, 10.0, 20.0, 20.0, 20.0,
         10.0, 20.0, 60.0, 60.0, 20.0, 20.0)
# fmt: on


def _without_b10(values: tuple) -> tuple:
    return tuple(v for v, band in zip(values, _S2_BANDS, strict=True) if band != "B10")


def _s2(name: str, bands: tuple, um: tuple, metres: tuple) -> Sensor:
    # One mean and std for all bands keep the spectrum's shape, as DN / 10000 does.
    n = len(bands)
    mean, std = (2000.0,) * n, (2000.0,) * n
    return Sensor(name, "s2", bands, "DN", "uint16", um, metres, mean, std)


_RGB_UM = (0.665, 0.560, 0.490)
_ROWS = (
    Sensor(
        "rgb",
        "rgb",
        ("R", "G", "B"),
        "8-bit",
        "uint8",
        _RGB_UM,
        (_NAN,) * 3,
        (127.5,) * 3,
        (64.0,) * 3,
    ),
    # SSL4EO-S12's statistics of Sentinel-1 GRD backscatter, clipped at two sigma as
    # there.
    Sensor(
        "s1_grd",
        "s1",
        ("VV", "VH"),
        "dB",
        "float32",
        (_NAN, _NAN),
        (10.0, 10.0),
        (-12.59, -20.26),
        (5.26, 5.91),
        clip_sigma=2.0,
    ),
    # Visualised SAR: one polarisation stretched to 8 bits by whoever made the file.
    Sensor(
        "s1_vh_8bit",
        "s1",
        ("VH",),
        "8-bit",
        "uint8",
        (_NAN,),
        (10.0,),
        (127.5,),
        (64.0,),
    ),
    _s2("s2_l1c", _S2_BANDS, _S2_UM, _S2_M),
    _s2("s2_l2a", _without_b10(_S2_BANDS), _without_b10(_S2_UM), _without_b10(_S2_M)),
    # Brightness temperature near 11 um, as Landsat's and ASTER's thermal bands give it.
    Sensor(
        "ir_bt",
        "ir",
        ("BT",),
        "K",
        "float32",
        (10.9,),
        (100.0,),
        (293.0,),
        (8.0,),
    ),
)
SENSORS: dict[str, Sensor] = {row.name: row for row in _ROWS}


def get_sensor(name: str) -> Sensor:
    """The row of that name; ValueError with the nearest and the list otherwise."""
    return look_up(SENSORS, name, "sensor")


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


RGB_BANDS = ("B04", "B03", "B02")  # Sentinel-2's red, green and blue


def sensor_part(sensor: Sensor, places: Sequence[int]) -> Sensor:
    """The sensor with some of its bands only, by their places."""
    per_band = ("bands", "wavelengths", "resolution", "mean", "std")
    parts: dict[str, Any] = {
        name: tuple(getattr(sensor, name)[i] for i in places) for name in per_band
    }
    return dataclasses.replace(sensor, **parts)


def composite(array: np.ndarray, bands: tuple[str, ...], divisor: float) -> np.ndarray:
    """uint8 RGB [h, w, 3] of a Sentinel-2 array: DN 0 to divisor become 0 to 255."""
    rgb = array[..., [bands.index(band) for band in RGB_BANDS]]
    scaled = np.minimum(rgb.astype(np.float32) * np.float32(255 / divisor), 255)
    return (scaled + 0.5).astype(np.uint8)


def check_array(array: np.ndarray, sensor: Sensor, where: str) -> np.ndarray:
    """The array, if it is [h, w, bands] of the sensor's dtype, without NaN, plausible.

    Raises ValueError naming the file or record, what was found and what was expected.
    """
    if array.ndim != 3 or array.shape[-1] != len(sensor.bands):
        raise ValueError(
            f"{where}: an array of shape {array.shape} is not [h, w,"
            f" {len(sensor.bands)}]; sensor {sensor.name} has the bands"
            f" {sensor.bands}"
        )
    if array.dtype != np.dtype(sensor.dtype):
        raise ValueError(
            f"{where}: dtype {array.dtype}, but sensor {sensor.name} is"
            f" {sensor.dtype} in {sensor.unit}; if it is in {sensor.unit}, convert it"
            f" with .astype('{sensor.dtype}')"
        )
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        share = 100 * (1 - np.isfinite(array).mean())
        raise ValueError(
            f"{where}: {share:.2g} % of the {sensor.name} values are NaN or infinite;"
            " mask or drop the patch (--config.data.on_error=skip drops it, counted)"
        )
    if sensor.unit == "dB" and array.size and array.min() >= 0:
        raise ValueError(
            f"{where}: no {sensor.name} value is below 0 dB, so this looks like linear"
            " power; convert it with 10 * log10(x)"
        )
    return array

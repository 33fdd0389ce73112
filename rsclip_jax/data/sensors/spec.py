"""Sensor: an entry of the table of sensors."""

import dataclasses
import math

import numpy as np

# Units that are known to checks and encoders; a custom sensor may have any other.
UNITS = {
    "DN": "reflectance * 10000",
    "reflectance": "0 to 1",
    "dB": "radar's backscatter",
    "linear": "radar's complex amplitude and power",
    "K": "temperature",
    "8-bit": "0 to 255 of a picture",
    "C2 SR": "Landsat Collection 2's integers of surface reflectance",
    "C2 TOA": "its integers of reflectance at the top of the atmosphere",
    "C2 ST": "its integers of surface temperature",
}

_DTYPES = ("uint8", "uint16", "int16", "float32", "float64")


@dataclasses.dataclass(frozen=True)
class Sensor:
    """The bands of a sensor in file order, and their normalisation.

    An encoder sees clip((x - mean) / std, -clip_sigma, clip_sigma). A custom sensor may
    lack mean and std where they are measured.

    Attributes:
        name: the name in SENSORS, or the path of a custom sensor's file.
        modality: the record key, also used in results: rgb, s1, s2, ir, ...
        unit: one of UNITS, or any other by its name.
        wavelengths: micrometres, for each band (nan for radar).
        resolution: metres, for each band (nan: any).
        level: the product's processing level.
        valid: lowest and highest value that a file can hold, in its unit.
        nodata: the value that marks missing pixels, if there is one.
        saturated: the value of saturated pixels, if there is one. Where all bands have
            it, the pixel is missing.
        scale, offset: a file's number * scale + offset is in `unit`.
    """

    name: str
    modality: str
    bands: tuple[str, ...]
    unit: str
    dtype: str
    wavelengths: tuple[float, ...]
    resolution: tuple[float, ...]
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    clip_sigma: float = 5.0
    level: str = ""
    valid: tuple[float, float] = (-math.inf, math.inf)
    nodata: float | None = None
    saturated: float | None = None
    scale: float = 1.0
    offset: float = 0.0

    def __post_init__(self):
        scale = () if not self.mean and not self.std else ("mean", "std")
        for field in ("wavelengths", "resolution", *scale):
            if len(getattr(self, field)) != len(self.bands):
                raise ValueError(
                    f"sensor {self.name}: {len(getattr(self, field))} values of"
                    f" {field} for {len(self.bands)} bands"
                )
        problem = _problem(self)
        if problem:
            raise ValueError(f"sensor {self.name}: {problem}")


def _problem(sensor: Sensor) -> str:
    """The fault of a sensor whose lists have equal lengths; "" if there is none."""
    if not sensor.bands or len(set(sensor.bands)) != len(sensor.bands):
        return f"bands {sensor.bands} should be distinct, and at least one"
    if not sensor.modality.isidentifier() or sensor.modality == "text":
        return (
            f"modality {sensor.modality!r} should be one word, the key of a record, and"
            " not 'text'"
        )
    if not all(s > 0 for s in sensor.std):
        return f"std {sensor.std} should be above 0"
    if not sensor.scale:
        return "scale should not be 0"
    if not sensor.clip_sigma > 0:
        return f"clip_sigma {sensor.clip_sigma} should be above 0"
    if len(sensor.valid) != 2 or not sensor.valid[0] < sensor.valid[1]:
        return f"valid {sensor.valid} should be a lowest and a highest value"
    return _dtype_problem(sensor)


def _dtype_problem(sensor: Sensor) -> str:
    """The fault of a sensor's dtype; "" if there is none."""
    try:
        dtype = np.dtype(sensor.dtype)
    except TypeError:
        return f"dtype {sensor.dtype!r} should be one of {', '.join(_DTYPES)}"
    if dtype.name not in _DTYPES:
        return (
            f"dtype {sensor.dtype!r} should be one of {', '.join(_DTYPES)}, in which"
            " images are resized; float32 holds files of other dtypes whose values fit"
        )
    if dtype.kind != "f" and (sensor.scale, sensor.offset) != (1.0, 0.0):
        return (
            f"dtype {sensor.dtype!r} with a scale or offset should be float32: it is of"
            " the values in `unit`, and files of any dtype are read into it"
        )
    return ""

"""What a row of the table of sensors is, and one of composites."""

import dataclasses
import math

import numpy as np

UNITS = {
    "DN": "reflectance * 10000",
    "reflectance": "0 to 1",
    "dB": "radar's backscatter",
    "linear": "radar's complex amplitude and power",
    "K": "temperature",
    "8-bit": "0 to 255 of a picture",
    "C2 SR": "Landsat Collection 2's integers of surface reflectance",
    "C2 TOA": "... of reflectance at the top of the atmosphere",
    "C2 ST": "... of surface temperature",
}


@dataclasses.dataclass(frozen=True)
class Sensor:
    """Bands in file order, and how an encoder trained here normalises them.

    name: of the row, or the path of a user's file. unit: one of UNITS. wavelengths in
    micrometres (nan for radar) and resolution in metres (nan: any), one a band. level:
    of the product. valid: lowest and highest value that a file can hold, in its unit;
    nodata: the value that stands for none. An encoder sees clip((x - mean) / std,
    -clip_sigma, clip_sigma).
    """

    name: str
    modality: str  # the key of a record and the word in results: rgb, s1, s2, ir, ...
    bands: tuple[str, ...]
    unit: str
    dtype: str
    wavelengths: tuple[float, ...]
    resolution: tuple[float, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    clip_sigma: float = 5.0
    level: str = ""
    valid: tuple[float, float] = (-math.inf, math.inf)
    nodata: float | None = None

    def __post_init__(self):
        for field in ("wavelengths", "resolution", "mean", "std"):
            if len(getattr(self, field)) != len(self.bands):
                raise ValueError(
                    f"sensor {self.name}: {len(getattr(self, field))} values of"
                    f" {field} for {len(self.bands)} bands"
                )
        problem = _problem(self)
        if problem:
            raise ValueError(f"sensor {self.name}: {problem}")


def _problem(row: Sensor) -> str:
    """What is wrong with a row whose lists have equal lengths; "" if nothing is."""
    if not row.bands or len(set(row.bands)) != len(row.bands):
        return f"bands {row.bands} should be distinct, and one at least"
    if not row.modality.isidentifier() or row.modality == "text":
        return (
            f"modality {row.modality!r} should be one word, the key of a record, and"
            " not 'text'"
        )
    if not all(s > 0 for s in row.std):
        return f"std {row.std} should be above 0"
    if not row.clip_sigma > 0:
        return f"clip_sigma {row.clip_sigma} should be above 0"
    if len(row.valid) != 2 or not row.valid[0] < row.valid[1]:
        return f"valid {row.valid} should be a lowest and a highest value"
    try:
        kind: str = np.dtype(row.dtype).kind
    except TypeError:
        kind = ""
    if kind not in ("u", "i", "f"):
        return f"dtype {row.dtype!r} should be an integer or float of numpy's"
    return ""


@dataclasses.dataclass(frozen=True)
class Composite:
    """An 8-bit RGB picture of three bands: clip(x / divisor, 0, 1) * 255.

    sensor: the row that it is made of; bands: its red, green and blue.
    """

    name: str
    sensor: str
    bands: tuple[str, str, str]
    divisor: float

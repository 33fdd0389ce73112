"""The offset of Sentinel-2's DN, by the processing baseline that a file states.

Since baseline 04.00 (January 2022, and in all of Collection 1) ESA adds 1000 to DN, so
that noise over dark ground is not cut off at 0 (Sentinel-2 Products Specification).
"""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from rsclip_jax.data.sensors.spec import Sensor

OFFSET = -1000.0
_PRODUCT = re.compile(r"S2[A-D]_MSIL(?:1C|2A)_\d{8}T\d{6}_N(\d{4})_")
_BASELINE = re.compile(r"(\d\d?)\.?(\d\d?)")  # 05.10, 0510, or 5.1 as a number
FIRST = 400
_OWN = 9000  # from N9000 on the processing is not ESA's; BigEarthNet v2 has N9999


def stated_baseline(path: Path, tags: Mapping[str, str]) -> int:
    """The baseline, such as 510 for 05.10, of a file's tags or names; 0 for none.

    A name counts if it is of the file, of a folder that it lies in, or in a tag.
    """
    for key, value in tags.items():
        if "PROCESSING_BASELINE" in key.upper() and (found := read_baseline(value)):
            return found
    return _of_products((*reversed(path.parts), *tags.values()))


def read_baseline(text: str) -> int:
    """A baseline, such as 510 of "05.10"; 0 for other text."""
    if not (match := _BASELINE.search(text)):
        return 0
    return 100 * int(match[1]) + int(match[2].ljust(2, "0"))


def has_offset(sensor: Sensor, path: Path, tags: Mapping[str, str]) -> bool:
    """Whether a file states a baseline whose DN are 1000 higher."""
    if not is_msi(sensor):
        return False
    return FIRST <= stated_baseline(path, tags) < _OWN


def is_msi(sensor: Sensor) -> bool:
    """Whether a sensor is Sentinel-2's, in DN."""
    return sensor.unit == "DN" and sensor.modality in ("s2", "nir")


def _of_products(names: Iterable[str]) -> int:
    for name in names:
        if match := _PRODUCT.search(name):
            return int(match[1])
    return 0

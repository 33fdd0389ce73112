"""Custom sensors: a TOML file describes the bands."""

import dataclasses
import difflib
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rsclip_jax.data.sensors.spec import UNITS, Sensor

_LONGEST = 100.0  # um: thermal infrared ends at 14, and radar has nan


def load_sensor(path: str | Path) -> Sensor:
    """Loads a custom sensor from a TOML file; its name is the path as given.

    The keys are the fields of Sensor except name; those from mean on are optional:

        modality = "ir"
        bands = ["SWIR1", "SWIR2"]
        unit = "DN"
        dtype = "uint16"
        wavelengths = [1.61, 2.19]  # um; nan for radar
        resolution = [20.0, 20.0]  # m
        mean = [2000, 2000]  # needed where they are not measured
        std = [1500, 1500]
        valid = [0, 20000]
        nodata = 0

    Any other unit than those of UNITS has its name; scale and offset make it of the
    files' numbers:

        unit = "W/(m2 sr um)"
        dtype = "float32"  # of the values in this unit, whatever the files have
        scale = 0.01

    Raises FileNotFoundError for a missing file, and ValueError naming it with all
    unknown or missing keys, or a value of a wrong type or length.
    """
    path = str(path)
    try:
        values = tomllib.loads(Path(path).read_text("utf-8-sig"))
    except FileNotFoundError:
        raise FileNotFoundError(f"{path}: this sensor file does not exist") from None
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: not a TOML file: {error}") from error
    fields = {f.name: f for f in dataclasses.fields(Sensor) if f.name != "name"}
    unknown = [key for key in values if key not in fields]
    needed = [k for k, f in fields.items() if f.default is dataclasses.MISSING]
    missing = [key for key in needed if key not in values]
    if unknown or missing:
        raise ValueError(
            f"{path}: unknown keys {unknown}, missing keys {missing}; a sensor has"
            f" {', '.join(fields)}"
        )
    read = {k: _read_value(path, k, v, fields[k].type) for k, v in values.items()}
    if problem := _unit_problem(read["unit"], read["wavelengths"]):
        raise ValueError(f"{path}: {problem}")
    return Sensor(path, **read)


def _unit_problem(unit: str, wavelengths: Sequence[float]) -> str:
    """The fault in a sensor's units; "" if there is none."""
    near = difflib.get_close_matches(unit.lower(), [u.lower() for u in UNITS], 1, 0.8)
    if unit not in UNITS and (near or not unit.strip()):
        known = ", ".join(f'"{name}" ({words})' for name, words in UNITS.items())
        return f'unit = "{unit}" is none of {known}; write one of them, or another name'
    if wrong := [um for um in wavelengths if um <= 0 or um > _LONGEST]:
        nm = f": {wrong[0]:g} nanometres would be {wrong[0] / 1000:g}"
        return (
            f"wavelengths = {list(wavelengths)} should be micrometres, above 0 and at"
            f" most {_LONGEST:g}, or nan for radar{nm if wrong[0] > 0 else ''}"
        )
    return ""


def _read_value(path: str, key: str, value: Any, kind: Any) -> Any:
    """Converts a TOML value to a field of Sensor: text, a number, or a tuple."""
    is_list = "tuple" in str(kind)
    one = str if kind is str or "str" in str(kind) else float
    items = value if is_list else [value]
    allowed = str if one is str else (int, float)
    if not isinstance(items, list) or not all(
        isinstance(item, allowed) and not isinstance(item, bool) for item in items
    ):
        word = "string" if one is str else "number"
        wanted = f"a list of {word}s" if is_list else f"a {word}"
        raise ValueError(f"{path}: {key} = {value!r} should be {wanted}")
    return tuple(map(one, items)) if is_list else one(value)

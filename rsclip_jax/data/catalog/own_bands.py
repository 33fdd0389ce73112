"""Scale, offset and composites in a custom dataset's TOML file."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rsclip_jax.data.sensors import COMPOSITES, Composite, Sensor, get_sensor
from rsclip_jax.data.sensors.bands import TRUE_COLOUR, bands_near
from rsclip_jax.data.types import Scaling
from rsclip_jax.io.lookup import look_up
from rsclip_jax.io.texts import shown

KEYS = ("composites", "scale", "offset")
_COLOURS = ("red", "green", "blue")
_TRUE_COLOUR = "true_colour"
# Reflectance from 0 to 0.3 in each unit, and a picture as it is.
_RANGES = {
    "DN": (0.0, 3000.0),
    "reflectance": (0.0, 0.3),
    "C2 SR": (7273.0, 18182.0),
    "C2 TOA": (5000.0, 20000.0),
    "8-bit": (0.0, 255.0),
}


def check_type(path: Path, key: str, value: Any) -> None:
    """Raises ValueError unless the table `key`, of KEYS, has values of its types."""
    if key == "composites":
        good = all(
            isinstance(v, dict) or (isinstance(v, str) and v) for v in _of(value)
        )
        wanted = "a table of names, or of tables such as {range = [0, 3000]}"
    else:
        good = all(
            _is_number(v) or (isinstance(v, list) and v and all(map(_is_number, v)))
            for v in _of(value)
        )
        wanted = "a table of numbers, or of lists of one number for each band"
    if not good or not value:
        raise ValueError(
            f"{path}: {key} = {shown(value, 300)} should be {wanted}, not empty"
        )


def _of(value: Any) -> list:
    return [*value.values()] if isinstance(value, dict) else [None]


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def read_scaling(
    path: Path, values: Mapping[str, Any], sensors: Mapping[str, str]
) -> dict[str, Scaling]:
    """{record key: Scaling} of the tables scale and offset.

    sensors: record key -> sensor. Raises ValueError for a scale of 0, for another
    number of values than bands, and for pictures, which have no unit.
    """
    tables = [values.get("scale", {}), values.get("offset", {})]
    found = {}
    for key in dict.fromkeys(k for table in tables for k in table):
        sensor = get_sensor(sensors[key])
        scale, offset = (
            _numbers(t.get(key, d)) for t, d in zip(tables, (1, 0), strict=True)
        )
        for name, numbers in (("scale", scale), ("offset", offset)):
            if len(numbers) not in (1, len(sensor.bands)):
                raise ValueError(
                    f"{path}: {name}.{key} has {len(numbers)} numbers, but"
                    f" {sensor.name} has {len(sensor.bands)} bands; give one number, or"
                    " one for each of them"
                )
        if not all(scale):
            raise ValueError(f"{path}: scale.{key} = {list(scale)} should not be 0")
        if sensor.unit == "8-bit":
            raise ValueError(
                f"{path}: {key} is {sensor.name}, a picture of 8 bits, which has no"
                " scale and offset; use a sensor in the unit that they give"
            )
        found[key] = Scaling(scale, offset)
    return found


def _numbers(value: Any) -> tuple[float, ...]:
    return tuple(map(float, value if isinstance(value, list) else [value]))


def read_composites(
    path: Path, values: Mapping[str, Any], sensors: Mapping[str, str]
) -> dict[str, tuple[str, str | Composite]]:
    """{record key: (the key that it is made of, name in COMPOSITES or composite)}.

    A value is a name in COMPOSITES, "true_colour", or a table with some of red, green,
    blue, range and sensor (a record key): the others are those of true colour.
    """
    found: dict[str, tuple[str, str | Composite]] = {}
    for key, value in values.get("composites", {}).items():
        if isinstance(value, str) and value != _TRUE_COLOUR:
            found[key] = _named(path, key, value, sensors)
        else:
            own = {} if isinstance(value, str) else value
            found[key] = _own(f"{path}: composites.{key}", own, sensors)
    return found


def _named(
    path: Path, key: str, name: str, sensors: Mapping[str, str]
) -> tuple[str, str]:
    try:
        made = look_up(COMPOSITES, name, "composite")
    except ValueError as error:
        raise ValueError(f"{path}: composites.{key}: {error}") from error
    keys = [k for k, sensor in sensors.items() if sensor == made.sensor]
    if not keys:
        raise ValueError(
            f"{path}: composites.{key} = {name!r} is made of {made.sensor}, and"
            f" sensors = {dict(sensors)} has none; a table such as {{red = ..., green ="
            " ..., blue = ..., range = [0, 3000]} makes one of your bands"
        )
    return keys[0], name


def _own(
    where: str, given: Mapping[str, Any], sensors: Mapping[str, str]
) -> tuple[str, Composite]:
    known = (*_COLOURS, "range", "sensor")
    if unknown := [k for k in given if k not in known]:
        raise ValueError(f"{where} has unknown keys {unknown}; it can have {known}")
    source = _source(where, given, sensors)
    sensor = get_sensor(sensors[source])
    near = bands_near(sensor, TRUE_COLOUR) or ("", "", "")
    bands = [given.get(c, b) for c, b in zip(_COLOURS, near, strict=True)]
    if wrong := [b for b in bands if b not in sensor.bands]:
        raise ValueError(
            f"{where}: {source} has the bands {', '.join(sensor.bands)}, and"
            f" {', '.join(repr(b) for b in wrong)} is none of them; name red, green and"
            " blue, where the sensor's wavelengths do not tell them"
        )
    low, high = _range(where, given, sensor)
    red, green, blue = bands
    name = f"{_TRUE_COLOUR} of {sensor.name}"
    return source, Composite(name, sensor.name, (red, green, blue), high - low, low)


def _source(where: str, given: Mapping[str, Any], sensors: Mapping[str, str]) -> str:
    """The record key that a composite is made of."""
    named = {given[c] for c in _COLOURS if c in given}
    held = {k: get_sensor(name) for k, name in sensors.items()}
    fits = [
        k
        for k, sensor in held.items()
        if named <= set(sensor.bands)
        and (len(named) == len(_COLOURS) or bands_near(sensor, TRUE_COLOUR))
    ]
    chosen = given.get("sensor", fits[0] if fits else next(iter(sensors)))
    if chosen not in sensors or (len(fits) > 1 and "sensor" not in given):
        raise ValueError(
            f"{where}: name the sensor that it is made of, as in sensor ="
            f' "{next(iter(fits or sensors))}"; sensors has {", ".join(sensors)}'
        )
    return chosen


def _range(where: str, given: Mapping[str, Any], sensor: Sensor) -> tuple[float, float]:
    """The values that are shown black and white."""
    found = given.get("range", _RANGES.get(sensor.unit))
    if found is None:
        raise ValueError(
            f"{where}: give range = [LOW, HIGH], the values in {sensor.unit} that are"
            " shown black and white"
        )
    good = isinstance(found, (list, tuple)) and len(found) == 2
    if not good or not all(map(_is_number, found)) or not found[0] < found[1]:
        raise ValueError(
            f"{where}: range = {found!r} should be the lowest and the highest value,"
            " such as [0, 3000]"
        )
    return float(found[0]), float(found[1])

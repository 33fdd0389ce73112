"""Finds a sensor's bands in a file by the names that the file gives its bands.

Names are those of ESA ("B02"), Earth Engine ("B2", "SR_B4"), SNAP ("Sigma0_VV_db"),
openEO, GDAL ("B2, central wavelength 490 nm") and STAC's common names ("nir08"), as
stackstac and odc-stac keep them.
"""

import functools
import re
from collections.abc import Mapping, Sequence

from rsclip_jax.data.sensors.spec import Sensor

# STAC's common names, old and new, in ESA's and USGS's numbering.
_WORDS = {
    "s2": {
        "coastal": "B01", "aerosol": "B01", "coastalaerosol": "B01", "blue": "B02",
        "green": "B03", "red": "B04", "rededge": "B05", "rededge1": "B05",
        "rededge2": "B06", "rededge3": "B07", "rededge071": "B05",
        "rededge075": "B06", "rededge078": "B07", "nir": "B08", "nir1": "B08",
        "nir08": "B8A", "nir2": "B8A", "narrownir": "B8A", "nirnarrow": "B8A",
        "nir09": "B09", "watervapor": "B09", "watervapour": "B09", "cirrus": "B10",
        "swir16": "B11", "swir1": "B11", "swir22": "B12", "swir2": "B12",
    },
    "landsat": {
        "coastal": "B1", "aerosol": "B1", "coastalaerosol": "B1", "blue": "B2",
        "green": "B3", "red": "B4", "nir": "B5", "nir08": "B5", "swir16": "B6",
        "swir1": "B6", "swir22": "B7", "swir2": "B7", "pan": "B8", "cirrus": "B9",
        "lwir": "B10", "lwir11": "B10", "tirs1": "B10", "lwir12": "B11",
        "tirs2": "B11",
    },
}  # fmt: skip
_COLOURS = {"red": "R", "green": "G", "blue": "B"}
_NUMBERED = {"b4": "R", "b3": "G", "b2": "B"}  # of Sentinel-2 and of Landsat 8
# A polarisation, also in words such as VVdB and Gamma0VH.
_RADAR = re.compile(r"(?:(?:sigma|gamma|beta)(?:0|nought)?)?([vh][vh])(?:0|db|lin)?")
_CODE = re.compile(r"b0?([1-9]|1[0-2]|8a)")


def find_bands(
    names: Sequence[str], sensor: Sensor, order: Sequence[str], where: str
) -> tuple[int, ...] | None:
    """The index in a file of each band of a sensor, by the names in the file.

    None if the file names none of its bands: they are then in the given order.

    Args:
        names: the file's names of its bands; "" where a band has none.
        sensor: the bands to find.
        order: the bands that are expected in the file, in order.
        where: the file, for errors.

    Raises ValueError with both lists if the names contradict the sensor or the order.
    """
    if not any(names) or _are_numbers(names, sensor):
        return None
    for table in _tables(sensor):
        known = [_look_up(name, table) for name in names]
        found = [known.count(band) for band in sensor.bands]
        if all(n == 1 for n in found):
            _check_order(known, sensor, order, where, names)
            return tuple(known.index(band) for band in sensor.bands)
    _check_contradiction(names, sensor, order, where)
    return None


def band_of(name: str, sensor: Sensor) -> str:
    """The band of a sensor that one name means; "" if it is none, or several."""
    found = {band for table in _tables(sensor) if (band := _look_up(name, table))}
    return found.pop() if len(found) == 1 else ""


def _check_order(
    known: Sequence[str], sensor: Sensor, order: Sequence[str], where: str, names
) -> None:
    """Raises ValueError if a dataset's own order of bands is not the file's."""
    if tuple(order) == sensor.bands or len(order) != len(names):
        return  # nobody has given another order
    wrong = any(k in sensor.bands and k != o for k, o in zip(known, order, strict=True))
    if wrong:
        raise ValueError(
            f"{where}: the file names its bands {_list(names)}, but the dataset's"
            f" file_bands says {_list(order)}; correct file_bands, or the names in the"
            " file"
        )


def _check_contradiction(
    names: Sequence[str], sensor: Sensor, order: Sequence[str], where: str
) -> None:
    """Raises ValueError for names of other bands than those at their places."""
    table = _tables(sensor)[0]
    known = [_look_up(name, table) for name in names]
    foreign = [n for n in names if _is_coded(sensor) and _is_code(n)]
    if not any(known) and not foreign:
        return  # words of no meaning here
    unnamed = [name == "" for name in names]
    in_place = len(order) == len(names) and all(
        k == o or none for k, o, none in zip(known, order, unnamed, strict=True)
    )
    if not in_place:
        raise ValueError(
            f"{where}: the file names its bands {_list(names)}, but {sensor.name} has"
            f" {_list(sensor.bands)}; use the sensor that fits, or correct the names in"
            " the file"
        )


def _list(names: Sequence[str]) -> str:
    return ", ".join(name or "(none)" for name in names)


@functools.cache
def _tables(sensor: Sensor) -> tuple[Mapping[str, str], ...]:
    """Tables {alias: band of the sensor}; the first has the sensor's own names."""
    own = {_joined(band): band for band in sensor.bands}
    if sensor.bands == ("R", "G", "B"):
        return {**own, **_COLOURS}, _NUMBERED
    kind = "landsat" if sensor.modality == "landsat" else "s2"
    if not _is_optical(sensor):
        return ({**own, **(_COLOURS if "R" in sensor.bands else {})},)
    for code in [*own]:
        if match := _CODE.fullmatch(code):
            own[f"b{match[1]}"] = own[code]
    words = {w: b for w, b in _WORDS[kind].items() if b in sensor.bands}
    return ({**own, **words},)


def _is_optical(sensor: Sensor) -> bool:
    """Whether the bands have ESA's or USGS's numbers."""
    numbered = all(_CODE.fullmatch(band.lower()) for band in sensor.bands)
    return numbered and sensor.modality in ("s2", "nir", "landsat")


def _is_coded(sensor: Sensor) -> bool:
    radar = all(_RADAR.fullmatch(band.lower()) for band in sensor.bands)
    return radar or _is_optical(sensor)


def _are_numbers(names: Sequence[str], sensor: Sensor) -> bool:
    """Whether names only count bands, as b1, b2 do where no band has a number."""
    counted = [f"b{i}" for i in range(1, len(names) + 1)]
    has_none = not any(_CODE.fullmatch(band.lower()) for band in sensor.bands)
    return has_none and [name.lower() for name in names] == counted


def _is_code(name: str) -> bool:
    """Whether a file calls a band by a polarisation or a number of ESA or USGS."""
    tokens = _tokens(name)
    return any(_RADAR.fullmatch(t) or _CODE.fullmatch(t) for t in tokens)


def _look_up(name: str, table: Mapping[str, str]) -> str:
    """The band that a name means; "" if it is not known, or names several."""
    if band := table.get(_joined(name)):
        return band
    found = set()
    for token in _tokens(name):
        if match := _CODE.fullmatch(token):
            found.add(table.get(f"b{match[1]}", ""))
        elif match := _RADAR.fullmatch(token):
            found.add(table.get(match[1], ""))
    return found.pop() if len(found) == 1 else ""


def _joined(name: str) -> str:
    joined = re.sub(r"[^a-z0-9]", "", name.lower())
    match = _CODE.fullmatch(joined)
    return f"b{match[1]}" if match else joined


def _tokens(name: str) -> list[str]:
    return re.split(r"[^a-z0-9]+", name.lower())

"""open_scene: opens satellite images as users have them."""

import dataclasses
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pystac
import rasterio

from rsclip_jax.data.codecs.images import SUFFIXES
from rsclip_jax.data.codecs.places import Footprint
from rsclip_jax.data.scenes.files import SceneFile, opening
from rsclip_jax.data.scenes.found import Found, Target, place_scene
from rsclip_jax.data.scenes.products import Product, missing_bands
from rsclip_jax.data.scenes.scene import Scene
from rsclip_jax.data.scenes.sentinel1 import MEASUREMENT, open_s1
from rsclip_jax.data.scenes.sentinel2 import METADATA, find_s2
from rsclip_jax.data.scenes.stac import as_item, find_item, told_by_collection
from rsclip_jax.data.sensors import Sensor, get_sensor
from rsclip_jax.data.sensors.names import band_of
from rsclip_jax.data.types import Scaling

Source = str | Path | Sequence[str | Path] | Mapping[str, Any] | pystac.Item
UNITS = {"dB": 0.0, "power": 10.0, "amplitude": 20.0}
# ASF's names of terrain-corrected scenes: gamma or sigma, then power, amplitude or dB.
_HYP3 = re.compile(r"_RTC\d+_[A-Z]_[GSgs]([PADpad])")
_GDALS = re.compile(r"/vsi|\w\w+:")  # an address, or a name that a driver of GDAL knows
_LETTERS = {"p": "power", "a": "amplitude", "d": "dB"}


def open_scene(
    source: Source,
    sensor: str = "",
    *,
    onto: Scene | Footprint | None = None,
    crs: str = "",
    resolution: float = 0.0,
    clear: bool = False,
    file_bands: Sequence[str] = (),
    scaling: Scaling | None = None,
    unit: str = "",
) -> Scene:
    """Opens a satellite image, of which windows are then read; see Scene.

    Args:
        source: a product as downloaded (.SAFE, or its .zip) of Sentinel-2 L1C or L2A
            or Sentinel-1 GRD; a file that GDAL reads (GeoTIFF, COG, VRT, JPEG 2000); a
            folder with a file for each band, or those files themselves, {band: file} or
            in the sensor's order; a STAC item, its JSON file or what that holds.
        sensor: a name of SENSORS or a sensor's TOML file. Products and items of known
            collections say it themselves; one given chooses among their bands.
        onto: the scene (or grid) onto whose grid this one is warped.
        crs, resolution: of the grid, where it is not the scene's own: "EPSG:32632", and
            the side of a pixel in its units.
        clear: whether pixels under clouds or their shadows count as not valid; needs
            Sentinel-2's scene classification.
        file_bands: the order of the bands in a file that does not name them, where it
            is not the sensor's.
        scaling: from the files' numbers to the sensor's unit, where they do not say it.
        unit: of radar, where the files do not say it: "dB", "power" or "amplitude".

    Raises:
        FileNotFoundError: for a file that is not there.
        ValueError: naming the file or argument, for what cannot be read or placed.
    """
    target = _target(onto, crs, resolution)
    given = get_sensor(sensor) if sensor else None
    if isinstance(source, str | Path) and (product := _as_product(source)):
        if file_bands or scaling or unit:
            raise ValueError(
                f"{source}: the product says its bands and units itself: leave out"
                " file_bands, scaling and unit"
            )
        return _open_product(product, given, target, clear)
    if item := as_item(source):
        told, said = told_by_collection(item)
        found = find_item(item, given or told or _ask_sensor(item.id))
        unit = unit or said
    else:
        if isinstance(source, str | Path):
            _check_there(str(source))
        given = given or _ask_sensor(source)
        files = _list_files(source, given)
        found = Found(_name_of(source, files), given, files)
    found = dataclasses.replace(
        found,
        file_bands=tuple(file_bands),
        scaling=scaling,
        decibels=_find_decibels(found.files, found.sensor, unit, scaling),
    )
    return place_scene(found, target, clear=clear)


def _target(onto: Scene | Footprint | None, crs: str, resolution: float) -> Target:
    if onto is not None and (crs or resolution):
        raise ValueError("give onto=, or crs= and resolution=, and not both")
    return Target(onto.grid if isinstance(onto, Scene) else onto, crs, resolution)


def _ask_sensor(source: object) -> Sensor:
    raise ValueError(
        f"{source}: does not say of which sensor it is: give sensor=, a name of"
        " rsclip_jax.data.sensors.SENSORS, such as 's2_l2a', or a TOML file"
    )


def _as_product(source: str | Path) -> Product | None:
    """The product that a path is, or lies in as its metadata; None for other files."""
    path = Path(source)
    if METADATA.fullmatch(path.name) or path.name == "manifest.safe":
        path = path.parent
    if path.suffix.lower() == ".zip" and path.is_file():
        return Product(path)
    if path.is_dir() and (path.suffix == ".SAFE" or _is_product(path)):
        return Product(path)
    return None


def _is_product(folder: Path) -> bool:
    """Whether a folder is a product under another name; what is below is not listed."""
    names = [path.name for path in folder.iterdir()]
    return "manifest.safe" in names or any(map(METADATA.fullmatch, names))


def _metadata(product: Product) -> str:
    return next((name for name in product.names if METADATA.fullmatch(name)), "")


def _open_product(
    product: Product, sensor: Sensor | None, target: Target, clear: bool
) -> Scene:
    if name := _metadata(product):
        return place_scene(find_s2(product, name, sensor), target, clear=clear)
    if any(map(MEASUREMENT.fullmatch, product.names)):
        if clear:
            raise ValueError("clear=True needs Sentinel-2; radar sees through clouds")
        return open_s1(product, sensor, target)
    raise ValueError(
        f"{product.path}: has neither MTD_MSIL1C.xml or MTD_MSIL2A.xml nor"
        " measurement/s1*-grd-*.tiff, so it is no Sentinel-2 L1C or L2A and no"
        " Sentinel-1 GRD as downloaded: fetch the whole product"
    )


def _list_files(source: Source, sensor: Sensor) -> tuple[SceneFile, ...]:
    """The file of a sensor, or its files in the order of its bands."""
    if isinstance(source, Mapping):
        named = {band: str(path) for band, path in source.items()}
        if lacking := [band for band in sensor.bands if band not in named]:
            raise ValueError(missing_bands("source", lacking, tuple(named)))
    elif isinstance(source, str | Path):
        if not Path(source).is_dir():
            return (SceneFile(str(source)),)
        named = _files_in(Path(source), sensor)
    else:
        assert isinstance(source, Sequence)
        if len(source) != len(sensor.bands):
            raise ValueError(
                f"source: {len(source)} files for the {len(sensor.bands)} bands of"
                f" {sensor.name}: give one for each, in the order of"
                f" {', '.join(sensor.bands)}"
            )
        named = dict(zip(sensor.bands, map(str, source), strict=True))
    for path in named.values():
        _check_there(path)
    return tuple(SceneFile(named[band], band) for band in sensor.bands)


def _files_in(folder: Path, sensor: Sensor) -> dict[str, str]:
    """{band: its file}, by the bands in the files' names."""
    found: dict[str, str] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() not in (*SUFFIXES, ".vrt"):
            continue
        band = band_of(path.stem, sensor)
        if band in found:
            raise ValueError(
                f"{folder}: {path.name} and {Path(found[band]).name} could both be"
                f" {band}: give the files as {{band: file}}"
            )
        if band:
            found[band] = str(path)
    if lacking := [band for band in sensor.bands if band not in found]:
        raise ValueError(missing_bands(str(folder), lacking, tuple(found)))
    return found


def _check_there(name: str) -> None:
    if _GDALS.match(name) or Path(name).exists():
        return
    raise FileNotFoundError(f"{name} is missing: fetch it")


def _name_of(source: Source, files: Sequence[SceneFile]) -> str:
    path = Path(source) if isinstance(source, str | Path) else files[0].path.parent
    return path.resolve().name if path.is_dir() else path.stem


def _find_decibels(
    files: Sequence[SceneFile], sensor: Sensor, unit: str, scaling: Scaling | None
) -> float:
    """The factor that makes dB of linear radar; 0 for values in dB, and no radar."""
    if unit and (unit not in UNITS or sensor.unit != "dB"):
        raise ValueError(
            f"unit = {unit!r}: should be {', '.join(map(repr, UNITS))}, of a sensor in"
            f" dB, and {sensor.name} is in {sensor.unit}"
        )
    if sensor.unit != "dB" or scaling is not None:
        return 0.0
    told = {unit} if unit else {_told_unit(file) for file in files}
    if len(told) > 1 or told == {""}:
        raise ValueError(
            f"{files[0].name}: does not say whether its backscatter is in dB or linear:"
            " give unit='dB', 'power' or 'amplitude'"
        )
    return UNITS[told.pop()]


def _told_unit(file: SceneFile) -> str:
    """The unit of a file of radar, by its bands or its name; "" if nothing says it."""
    if match := _HYP3.search(file.name):
        return _LETTERS[match[1].lower()]
    with opening(file.path), rasterio.open(file.name, sharing=False) as data:
        words = [*data.units, *data.descriptions]
    said = " ".join(word or "" for word in words)
    return "dB" if re.search(r"(?<![a-z])d[bB]\b|dB\b|_db\b", said) else ""

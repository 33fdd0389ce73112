"""Sentinel-2's products, L1C and L2A, by their metadata MTD_MSIL1C.xml, MTD_MSIL2A.xml.

Reflectance is (DN + offset) / quantification (Sentinel-2 Products Specification
Document), with an offset for each band since processing baseline 04.00.
"""

import re
from collections.abc import Mapping
from xml.etree import ElementTree

from rsclip_jax.data.scenes.files import SceneFile
from rsclip_jax.data.scenes.found import Found
from rsclip_jax.data.scenes.products import (
    Product,
    missing_bands,
    nearest_own,
    read_text,
)
from rsclip_jax.data.sensors import SENSORS, Sensor
from rsclip_jax.data.sensors.baseline import FIRST, read_baseline
from rsclip_jax.data.types import Scaling

METADATA = re.compile(r"MTD_MSIL(1C|2A)\.xml")
_IMAGE = re.compile(r"_(B\d[\dA]|SCL)(?:_(10|20|60)m)?$")
# The bands in the order of their numbers in the metadata.
_NUMBERED = SENSORS["s2_l1c"].bands
_OWN_METRES = dict(zip(_NUMBERED, SENSORS["s2_l1c"].resolution, strict=True))
_OWN_METRES["SCL"] = 20.0
_NODATA = 0.0
# A sensor's unit, in reflectance.
_STEPS = {"DN": 1e-4, "reflectance": 1.0}


def find_s2(product: Product, name: str, sensor: Sensor | None) -> Found:
    """The bands of a product, and how their DN become the sensor's unit.

    name: of the metadata in the product. sensor: None for all bands of the product's
    level. Raises ValueError naming the product, for a band that it lacks, a sensor of
    another level or unit, and metadata of another layout.
    """
    where = f"{product.path}: {name}"
    match = METADATA.fullmatch(name)
    level = f"L{match[1]}" if match else ""
    sensor = sensor or SENSORS[f"s2_{level.lower()}"]
    _check_sensor(sensor, level, where)
    root = product.read_xml(name)
    images = _find_images(product, root)
    if lacking := [band for band in sensor.bands if band not in images]:
        there = [band for band in _NUMBERED if band in images]
        raise ValueError(missing_bands(str(product.path), lacking, there))
    files = tuple(
        SceneFile(product.gdal_name(images[band]), band, _NODATA)
        for band in sensor.bands
    )
    classes = None
    if "SCL" in images:
        classes = SceneFile(product.gdal_name(images["SCL"]), "SCL", _NODATA)
    scaling = _read_scaling(root, sensor, level, where)
    return Found(product.id, sensor, files, scaling=scaling, classes=classes)


def _check_sensor(sensor: Sensor, level: str, where: str) -> None:
    if sensor.unit not in _STEPS or not set(sensor.bands) <= set(_NUMBERED):
        raise ValueError(
            f"{where}: sensor {sensor.name} has {', '.join(sensor.bands)} in"
            f" {sensor.unit}, and the product Sentinel-2's bands in reflectance: leave"
            " out the sensor, or give one of Sentinel-2"
        )
    if sensor.level not in ("", level):
        raise ValueError(
            f"{where}: sensor {sensor.name} is of {sensor.level}, and the product is"
            f" {level}: leave out the sensor, or give one of {level}"
        )


def _find_images(product: Product, root: ElementTree.Element) -> dict[str, str]:
    """Band -> its file: at the band's own resolution, or the nearest that is there."""
    found = []
    for element in root.iterfind(".//IMAGE_FILE"):
        name = (element.text or "").strip()
        match = _IMAGE.search(name)
        if match and f"{name}.jp2" in product.names:
            metres = float(match[2]) if match[2] else None
            found.append((match[1], metres, f"{name}.jp2"))
    tiles = {name.split("/")[1] for *_, name in found}
    if len(tiles) > 1:
        raise ValueError(
            f"{product.path}: holds {len(tiles)} tiles, as before December 2016: give"
            " the files of one, as {band: file}"
        )
    return nearest_own(found, _OWN_METRES)


def _read_scaling(
    root: ElementTree.Element, sensor: Sensor, level: str, where: str
) -> Scaling:
    """From DN to the sensor's unit, for each band."""
    kinds = {"L1C": ("", "RADIO"), "L2A": ("BOA_", "BOA")}
    prefix, offsets = kinds[level]
    step = float(read_text(root, f"{prefix}QUANTIFICATION_VALUE", where))
    found = _read_offsets(root, f"{offsets}_ADD_OFFSET", where)
    baseline = read_baseline(read_text(root, "PROCESSING_BASELINE", where))
    if lacking := [band for band in sensor.bands if found and band not in found]:
        raise ValueError(f"{where}: has no {offsets}_ADD_OFFSET of {lacking[0]}")
    if not found and baseline >= FIRST:
        raise ValueError(
            f"{where}: has no {offsets}_ADD_OFFSET, but its processing baseline is"
            " 04.00 or later: fetch the product again"
        )
    unit = _STEPS[sensor.unit] * step
    shifts = tuple(found.get(band, 0.0) / unit for band in sensor.bands)
    if set(shifts) == {0.0} and unit == 1:
        return Scaling()
    return Scaling((1 / unit,), shifts)


def _read_offsets(
    root: ElementTree.Element, tag: str, where: str
) -> Mapping[str, float]:
    """Band -> what is added to its DN; {} where the metadata has no offsets."""
    bands = dict(enumerate(_NUMBERED))
    for element in root.iterfind(".//Spectral_Information"):
        code = re.sub(r"^B(\d)$", r"B0\1", element.get("physicalBand", ""))
        bands[int(element.get("bandId", "-1"))] = code
    found = {}
    for element in root.iterfind(f".//{tag}"):
        number = int(element.get("band_id", "-1"))
        if number not in bands:
            raise ValueError(f"{where}: {tag} of an unknown band_id {number}")
        found[bands[number]] = float(element.text or "nan")
    return found

"""Items of STAC catalogues, by the names that their assets have there.

Earth Search calls Sentinel-2's bands by STAC's common names ("blue", "nir08"), the
Planetary Computer by ESA's ("B02", "B8A"), the Copernicus Data Space by both band and
resolution ("B02_10m"). The raster extension says an asset's scale, offset and nodata.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pystac

from rsclip_jax.data.scenes.files import SceneFile
from rsclip_jax.data.scenes.found import Found
from rsclip_jax.data.scenes.products import missing_bands, nearest_own
from rsclip_jax.data.sensors import SENSORS, Sensor
from rsclip_jax.data.sensors.names import band_of

# A collection's name -> its sensor, and the unit of radar where its page says it.
_COLLECTIONS = {
    "sentinel-2-l2a": ("s2_l2a", ""),
    "sentinel-2-c1-l2a": ("s2_l2a", ""),
    "sentinel-s2-l2a-cogs": ("s2_l2a", ""),
    "sentinel-2-l1c": ("s2_l1c", ""),
    "sentinel-2-c1-l1c": ("s2_l1c", ""),
    "sentinel-1-rtc": ("s1_grd", "power"),
    "landsat-c2-l2": ("landsat_oli_sr", ""),
}
# Whether the offset of Sentinel-2's DN is subtracted in the files. Where it is,
# raster:bands may still tell it.
_APPLIED = ("earthsearch:boa_offset_applied", "sentinel:boa_offset_applied")
_JSON = (".json", ".geojson")
_METRES = re.compile(r"_(\d+)m$")


def as_item(source: object) -> pystac.Item | None:
    """An item of a JSON file, of what it holds, or as it is; None for other sources.

    Raises FileNotFoundError, and ValueError naming JSON that is no item.
    """
    if isinstance(source, pystac.Item):
        return source
    if isinstance(source, Mapping) and "assets" in source:
        return _read(str(source.get("id", "source")), source)
    if isinstance(source, str | Path) and Path(source).suffix.lower() in _JSON:
        return _read(str(source), None)
    return None


def _read(name: str, fields: Mapping[str, Any] | None) -> pystac.Item:
    try:
        if fields is not None:
            return pystac.Item.from_dict(dict(fields))
        return pystac.Item.from_file(name)
    except FileNotFoundError:
        raise FileNotFoundError(f"{name} is missing: fetch it") from None
    except Exception as error:  # whatever a JSON file may hold
        raise ValueError(
            f"{name}: is no STAC item ({type(error).__name__}: {error}): give the JSON"
            " of one item, not of a collection or a search"
        ) from error


def told_by_collection(item: pystac.Item) -> tuple[Sensor | None, str]:
    """(sensor, unit of radar) of an item by its collection; (None, "") if unknown."""
    name, unit = _COLLECTIONS.get(item.collection_id or "", ("", ""))
    return (SENSORS[name], unit) if name else (None, "")


def find_item(item: pystac.Item, sensor: Sensor) -> Found:
    """The assets of an item that hold a sensor's bands.

    Raises ValueError naming the item, for a band that no asset holds.
    """
    files = _find_files(item, sensor)
    if lacking := [band for band in sensor.bands if band not in files]:
        where = f"{item.id} ({sensor.name})"
        raise ValueError(missing_bands(where, lacking, tuple(item.assets)))
    classes = next((a for n, a in item.assets.items() if _is_scl(n)), None)
    return Found(
        item.id,
        sensor,
        tuple(files[band] for band in sensor.bands),
        classes=_as_file(classes, "SCL", item) if classes else None,
        tags={key: str(value) for key, value in item.properties.items()},
    )


def _find_files(item: pystac.Item, sensor: Sensor) -> dict[str, SceneFile]:
    """Band -> its asset: at the band's own resolution where there are several."""
    found = []
    for name, asset in item.assets.items():
        match = _METRES.search(name)
        if band := band_of(name.removesuffix(match[0]) if match else name, sensor):
            metres = float(match[1]) if match else None
            found.append((band, metres, _as_file(asset, band, item)))
    own = dict(zip(sensor.bands, sensor.resolution, strict=True))
    return nearest_own(found, own)


def _is_scl(name: str) -> bool:
    return _METRES.sub("", name).lower() == "scl"


def _as_file(asset: pystac.Asset, band: str, item: pystac.Item) -> SceneFile:
    """What the raster extension says of an asset of one band, in each of its forms."""
    fields = dict(asset.extra_fields)
    for several in ("raster:bands", "bands"):
        fields |= next(iter(fields.get(several) or ()), {})
    told = {k: fields.get(f"raster:{k}", fields.get(k)) for k in ("scale", "offset")}
    nodata, scale, offset = fields.get("nodata"), told["scale"], told["offset"]
    if any(item.properties.get(key) is True for key in _APPLIED):
        offset = 0.0  # whatever the asset says
    href = asset.get_absolute_href() or asset.href
    return SceneFile(
        href,
        band,
        None if nodata is None else float(nodata),
        None if scale is None else float(scale),
        None if offset is None else float(offset),
    )

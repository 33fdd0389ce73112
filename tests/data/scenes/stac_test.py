"""Items of STAC catalogues: names of assets, scales and offsets, against the pixels."""

import copy
import json

import numpy as np
import pystac
import pytest
from rasterio.windows import Window

from rsclip_jax.data.scenes.opening import open_scene
from rsclip_jax.data.sensors import SENSORS
from rsclip_jax.data.types import Scaling
from tests.helpers.geotiffs import north_up, write_by_gdal
from tests.helpers.safe import METRES, draw_bands

EARTH_SEARCH = {
    "B01": "coastal", "B02": "blue", "B03": "green", "B04": "red", "B05": "rededge1",
    "B06": "rededge2", "B07": "rededge3", "B08": "nir", "B8A": "nir08", "B09": "nir09",
    "B11": "swir16", "B12": "swir22",
}  # fmt: skip
L2A = SENSORS["s2_l2a"].bands
FINE = [band for band in L2A if METRES[band] == 10]


def whole(scene):
    return scene.read(Window(0, 0, scene.width, scene.height))


def write(path, array, metres=10):
    place = {"crs": "EPSG:32632", "transform": north_up(6e5, 5e6, float(metres))}
    return write_by_gdal(path, array, **place)


def item_of(assets, collection="sentinel-2-l2a", **properties):
    return {
        "type": "Feature",
        "stac_version": "1.0.0",
        "stac_extensions": [],
        "id": "S2B_32TNS_20240607_0_L2A",
        "collection": collection,
        "geometry": None,
        "properties": {"datetime": "2024-06-07T10:15:59Z", **properties},
        "links": [],
        "assets": assets,
    }


def save(folder, item, name="item.json"):
    (folder / name).write_text(json.dumps(item))
    return folder / name


def s2_assets(folder, bands, names, fields=()):
    """Writes the files of bands; returns the assets that name them."""
    assets = {}
    for band, array in bands.items():
        if band in names:
            write(folder / f"{band}.tif", array, METRES[band])
            assets[names[band]] = {
                "href": f"./{band}.tif",
                **copy.deepcopy(dict(fields)),
            }
    return assets


def raster(**told):
    return {"raster:bands": [{"nodata": 0, "data_type": "uint16", **told}]}


def check_bands(record, bands, shift):
    for band in FINE:
        found = record["s2"][..., L2A.index(band)].astype(int)
        np.testing.assert_array_equal(found, bands[band].astype(int) + shift)


@pytest.mark.parametrize(
    ("names", "fields", "properties", "shift"),
    [
        # the Planetary Computer tells the baseline only, Earth Search more
        ("esa", {}, {"s2:processing_baseline": "05.10"}, -1000),
        ("esa", {}, {"s2:processing_baseline": "03.01"}, 0),
        ("common", raster(scale=1e-4, offset=-0.1), {}, -1000),
        (
            "common",
            raster(scale=1e-4, offset=0),
            {"s2:processing_baseline": "05.10"},
            0,
        ),
        (
            "common",
            raster(scale=1e-4, offset=-0.1),
            {
                "earthsearch:boa_offset_applied": False,
                "s2:processing_baseline": "05.10",
            },
            -1000,
        ),
        (
            "common",
            raster(scale=1e-4, offset=-0.1),
            {"earthsearch:boa_offset_applied": True, "s2:processing_baseline": "05.10"},
            0,
        ),
        (
            "common",
            {},
            {"earthsearch:boa_offset_applied": True, "s2:processing_baseline": "05.10"},
            0,
        ),
        # version 1.1 of STAC
        ("esa", {"raster:scale": 1e-4, "raster:offset": -0.1, "nodata": 0}, {}, -1000),
        (
            "esa",
            {"bands": [{"name": "x", "raster:scale": 1e-4, "raster:offset": -0.1}]},
            {},
            -1000,
        ),
    ],
)
def test_assets_become_reflectance_by_what_the_item_says(
    names, fields, properties, shift, tmp_path
):
    bands = draw_bands(low=1001)
    names = EARTH_SEARCH if names == "common" else {band: band for band in L2A}
    item = item_of(s2_assets(tmp_path, bands, names, fields), **properties)
    scene = open_scene(save(tmp_path, item))
    assert scene.id == item["id"]
    assert scene.sensors == {"s2": SENSORS["s2_l2a"]}
    record = whole(scene)
    assert record["valid"].all()
    check_bands(record, bands, shift)


def test_bands_and_resolutions_of_the_copernicus_data_space(tmp_path):
    bands = draw_bands(low=1001)
    assets = {}
    for metres in (60, 20, 10):
        for band in L2A:
            if metres >= METRES[band]:
                step = metres // METRES[band]
                name = f"{band}_{metres}m"
                write(tmp_path / f"{name}.tif", bands[band][::step, ::step], metres)
                assets[name] = {"href": f"./{name}.tif"}
    scl = np.full((60, 60), 9, np.uint8)
    scl[:, 10:] = 4
    write(tmp_path / "SCL.tif", scl, 20)
    assets["SCL_20m"] = {"href": "./SCL.tif"}
    path = save(tmp_path, item_of(assets, **{"s2:processing_baseline": "03.01"}))
    record = whole(open_scene(path, clear=True))
    check_bands(record, bands, 0)
    np.testing.assert_array_equal(record["scl"], scl.repeat(2, 0).repeat(2, 1))
    np.testing.assert_array_equal(record["valid"], record["scl"] == 4)


def test_nodata_of_the_item_is_missing(tmp_path):
    bands = {band: np.full_like(a, 3000) for band, a in draw_bands().items()}
    for band, metres in METRES.items():
        bands[band][: 300 // metres] = 0
    assets = s2_assets(tmp_path, bands, EARTH_SEARCH, raster(scale=1e-4, offset=-0.1))
    record = whole(open_scene(save(tmp_path, item_of(assets))))
    assert not record["valid"][:30].any()
    assert (record["s2"][30:] == 2000).all()


def test_an_offset_that_was_subtracted_already_is_found_out(tmp_path):
    bands = draw_bands(low=1, high=900)
    assets = s2_assets(tmp_path, bands, EARTH_SEARCH, raster(scale=1e-4, offset=-0.1))
    path = save(tmp_path, item_of(assets))
    with pytest.raises(ValueError, match=r"so that it\s+was subtracted already: give"):
        open_scene(path)
    check_bands(whole(open_scene(path, scaling=Scaling())), bands, 0)


def test_items_of_pystac_and_their_json_open_too(tmp_path):
    bands = draw_bands()
    assets = s2_assets(tmp_path, bands, EARTH_SEARCH)
    for asset in assets.values():
        asset["href"] = str(tmp_path / asset["href"])
    item = item_of(assets)
    for source in (item, pystac.Item.from_dict(item)):
        check_bands(whole(open_scene(source)), bands, 0)


def test_radar_of_a_known_collection_is_linear_power(tmp_path):
    power = np.full((20, 20, 1), 0.1, np.float32)
    assets = {
        b: {"href": str(write(tmp_path / f"{b}.tif", power))} for b in ("vv", "vh")
    }
    scene = open_scene(item_of(assets, "sentinel-1-rtc"))
    np.testing.assert_allclose(whole(scene)["s1"], -10, atol=1e-5)
    with pytest.raises(ValueError, match="whether its backscatter is in dB or linear"):
        open_scene(item_of(assets, "my-radar"), "s1_grd")


def test_landsat_of_collection_2_keeps_its_integers(tmp_path):
    names = ("coastal", "blue", "green", "red", "nir08", "swir16", "swir22")
    dn = np.random.default_rng(0).integers(7300, 30000, (30, 30, 7)).astype(np.uint16)
    assets = {}
    for i, name in enumerate(names):
        href = str(write(tmp_path / f"{name}.tif", dn[..., i], 30))
        assets[name] = {"href": href, **raster(scale=2.75e-5, offset=-0.2)}
    scene = open_scene(item_of(assets, "landsat-c2-l2"))
    np.testing.assert_array_equal(whole(scene)["landsat"], dn)


def test_a_missing_asset_or_file_is_named(tmp_path):
    bands = draw_bands()
    assets = s2_assets(tmp_path, bands, EARTH_SEARCH)
    lacking = {name: a for name, a in assets.items() if name not in ("nir08", "red")}
    with pytest.raises(ValueError, match=r"_0_L2A \(s2_l2a\): has no B04, B8A; found"):
        open_scene(save(tmp_path, item_of(lacking)))
    with pytest.raises(ValueError, match=r"_0_L2A: does not say of which sensor"):
        open_scene(save(tmp_path, item_of(assets, "my-collection")))
    (tmp_path / "B05.tif").unlink()
    with pytest.raises(ValueError, match=r"B05\.tif"):
        open_scene(save(tmp_path, item_of(assets)))


def test_what_is_no_item_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none\.json is missing"):
        open_scene(tmp_path / "none.json")
    (tmp_path / "cut.json").write_text('{"type": "Feature", "stac_ver')
    found = save(tmp_path, {"type": "FeatureCollection", "features": []}, "found.json")
    for path in (tmp_path / "cut.json", found):
        with pytest.raises(ValueError, match=rf"{path.name}: is no STAC item"):
            open_scene(path)

"""Sentinel-2's products in the public layout, against ESA's formula by hand."""

import shutil

import numpy as np
import pytest
from rasterio.windows import Window

from rsclip_jax.data.scenes.opening import open_scene
from rsclip_jax.data.scenes.tiles import tiles
from rsclip_jax.data.sensors import SENSORS
from tests.helpers.safe import EPSG, LEFT, METRES, TOP, draw_bands, write_s2

FINE = [band for band, metres in METRES.items() if metres == 10]


def whole(scene):
    return scene.read(Window(0, 0, scene.width, scene.height))


@pytest.mark.parametrize("level", ["L1C", "L2A"])
def test_dn_are_the_reflectance_of_the_formula(level, tmp_path):
    bands = draw_bands(low=1001)
    offsets = {band: -1000 + i for i, band in enumerate(METRES)}
    folder = write_s2(tmp_path, level, bands, offsets=offsets, step=20000)
    scene = open_scene(folder)
    sensor = SENSORS[f"s2_{level.lower()}"]
    assert scene.sensors == {"s2": sensor}
    assert (scene.id, scene.crs) == (folder.name[:-5], f"EPSG:{EPSG}")
    assert (scene.transform.a, scene.transform.c, scene.transform.f) == (10, LEFT, TOP)
    record = whole(scene)
    assert record["s2"].dtype == np.uint16
    assert record["valid"].all()
    for band in FINE:
        reflectance = (bands[band].astype(float) + offsets[band]) / 20000
        found = record["s2"][..., sensor.bands.index(band)]
        # DN are whole: half of one is 0.00005 of reflectance
        np.testing.assert_allclose(found / 10000, reflectance, atol=5.0001e-5)


def test_coarser_bands_are_those_of_their_own_resolution(tmp_path):
    """A plane keeps its values between the centres of coarse pixels."""
    bands = draw_bands(low=1001)
    for band, metres in METRES.items():
        at = metres * (np.arange(1200 // metres) + 0.5)
        bands[band] = np.rint(2000 + at[None] + 2 * at[:, None]).astype(np.uint16)
    record = whole(open_scene(write_s2(tmp_path, "L1C", bands)))
    at = 10 * (np.arange(120) + 0.5)
    expected = 1000 + at[None] + 2 * at[:, None]
    inside = slice(3, -3)  # half a pixel of 60 m has no neighbour
    for i, band in enumerate(METRES):
        found = record["s2"][inside, inside, i]
        np.testing.assert_allclose(found, expected[inside, inside], atol=1.01)
        assert METRES[band] == 10 or found.std() > 100


def test_before_2022_nothing_is_added(tmp_path):
    bands = draw_bands()
    folder = write_s2(tmp_path, "L1C", bands, offsets=None, baseline="0214")
    record = whole(open_scene(folder))
    np.testing.assert_array_equal(record["s2"][..., 1], bands["B02"])


def test_0_is_missing_and_not_mixed_into_its_neighbours(tmp_path):
    bands = {band: np.full_like(a, 3000) for band, a in draw_bands().items()}
    for band, metres in METRES.items():
        bands[band][: 300 // metres] = 0
    record = whole(open_scene(write_s2(tmp_path, "L2A", bands)))
    assert not record["valid"][:30].any()
    assert record["valid"][30:].all()
    assert (record["s2"][30:] == 2000).all()
    assert (record["s2"][:30] == 0).all()


def test_darker_than_the_offset_is_a_value(tmp_path):
    bands = {band: np.full_like(a, 3000) for band, a in draw_bands().items()}
    for band, metres in METRES.items():
        bands[band][: 900 // metres] = 900
    record = whole(open_scene(write_s2(tmp_path, "L2A", bands)))
    assert record["valid"].all()
    assert (record["s2"][:84] == 0).all()  # beyond it, coarse pixels are between two
    assert (record["s2"][96:] == 2000).all()


def test_clouds_of_the_classification_are_not_valid_where_asked(tmp_path):
    scl = np.full((60, 60), 4, np.uint8)  # vegetation
    codes = (0, 1, 2, 3, 5, 6, 7, 8, 9, 10, 11)
    for row, code in enumerate(codes):
        scl[row] = code
    folder = write_s2(tmp_path, "L2A", draw_bands(low=1001), scl=scl)
    record = whole(open_scene(folder))
    np.testing.assert_array_equal(record["scl"], scl.repeat(2, 0).repeat(2, 1))
    assert record["valid"].all()
    scene = open_scene(folder, clear=True)
    clear = np.isin(scl, (2, 4, 5, 6, 7, 11)).repeat(2, 0).repeat(2, 1)
    np.testing.assert_array_equal(whole(scene)["valid"], clear)
    part = scene.read(Window(13, 5, 20, 30))
    np.testing.assert_array_equal(part["valid"], clear[5:35, 13:33])
    assert [t.row for t in tiles(scene, 60, min_valid=0.99)] == [60, 60]
    edge = scene.read(Window(110, 100, 20, 20))
    assert edge["scl"][19, 19] == 0
    with pytest.raises(ValueError, match="clear=True needs a scene classification"):
        open_scene(write_s2(tmp_path, "L1C", draw_bands()), clear=True)


def test_zipped_and_by_its_metadata_a_product_is_the_same(tmp_path):
    folder = write_s2(tmp_path, "L2A", draw_bands(low=1001), scl=None)
    expected = whole(open_scene(folder))
    path = shutil.make_archive(str(tmp_path / "download"), "zip", tmp_path, folder.name)
    renamed = shutil.copytree(folder, tmp_path / folder.stem)
    for source in (path, folder / "MTD_MSIL2A.xml", renamed):
        record = whole(open_scene(source))
        assert record["id"] == expected["id"]
        np.testing.assert_array_equal(record["s2"], expected["s2"])


def test_a_sensor_chooses_among_the_bands(tmp_path):
    bands = draw_bands(low=1001)
    folder = write_s2(tmp_path, "L2A", bands)
    scene = open_scene(folder, "s2_nir")
    np.testing.assert_array_equal(whole(scene)["nir"][..., 0], bands["B08"] - 1000)
    folder = write_s2(tmp_path, "L1C", bands)
    record = whole(open_scene(folder, "s2_so2sat"))  # in reflectance
    expected = (bands["B02"] - 1000) / np.float32(10000)
    np.testing.assert_allclose(record["s2"][..., 0], expected, atol=1e-6)
    for sensor, said in [
        ("s2_l2a", "sensor s2_l2a is of L2A, and the product is L1C"),
        ("landsat_oli_sr", "sensor landsat_oli_sr has B1, .* in C2 SR"),
    ]:
        with pytest.raises(ValueError, match=said):
            open_scene(folder, sensor)


def test_a_product_that_lacks_something_says_what(tmp_path):
    folder = write_s2(tmp_path, "L1C", draw_bands())
    (image,) = folder.rglob("*_B11.jp2")
    data = image.read_bytes()
    image.unlink()
    with pytest.raises(ValueError, match=r"has no B11; found B01, .*B10, B12"):
        open_scene(folder)
    image.write_bytes(data[: len(data) // 2])
    with pytest.raises(ValueError, match=r"_B11\.jp2: unreadable or cut JPEG 2000"):
        whole(open_scene(folder))
    image.write_bytes(data)
    metadata = folder / "MTD_MSIL1C.xml"
    text = metadata.read_text()
    metadata.write_text(text[: len(text) // 2])
    with pytest.raises(ValueError, match=r"unreadable or cut XML .*fetch the product"):
        open_scene(folder)
    metadata.write_text(text.replace("QUANTIFICATION_VALUE", "QUANTITY"))
    with pytest.raises(ValueError, match=r"has no QUANTIFICATION_VALUE"):
        open_scene(folder)
    metadata.write_text(text.replace("RADIO_ADD_OFFSET", "RADIO"))
    with pytest.raises(ValueError, match=r"no RADIO_ADD_OFFSET, but its processing"):
        open_scene(folder)
    metadata.unlink()
    with pytest.raises(ValueError, match=r"has neither MTD_MSIL1C\.xml or"):
        open_scene(folder)


def test_a_product_of_several_tiles_is_refused(tmp_path):
    folder = write_s2(tmp_path, "L1C", draw_bands())
    (granule,) = (folder / "GRANULE").iterdir()
    other = granule.name.replace("T32TNS", "T32TNT")
    shutil.copytree(granule, granule.with_name(other))
    metadata = folder / "MTD_MSIL1C.xml"
    text = metadata.read_text()
    files = text[text.index("<Granule>") : text.index("</Granule_List>")]
    both = files + files.replace(granule.name, other)
    metadata.write_text(text.replace(files, both))
    with pytest.raises(ValueError, match="holds 2 tiles, as before December 2016"):
        open_scene(folder)


def test_a_zip_file_without_a_product_is_named(tmp_path):
    path = tmp_path / "a.zip"
    path.write_bytes(b"PK\3\4 cut")
    with pytest.raises(ValueError, match=r"a\.zip: unreadable or cut zip file"):
        open_scene(path)
    (tmp_path / "b").mkdir()
    (tmp_path / "b/c.txt").write_text("c")
    path = shutil.make_archive(str(tmp_path / "b"), "zip", tmp_path / "b")
    with pytest.raises(ValueError, match=r"b\.zip: holds 0 \.SAFE folders"):
        open_scene(path)


def test_a_product_of_nodata_only_is_refused(tmp_path):
    bands = {band: np.zeros_like(array) for band, array in draw_bands().items()}
    folder = write_s2(tmp_path, "L2A", bands)
    with pytest.raises(ValueError, match=r"none of its 120 x 120 pixels of s2_l2a"):
        open_scene(folder)

"""Scenes of GeoTIFF, COG, VRT and a file a band, against rasterio and by hand."""

import pickle
import tracemalloc
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import rasterio
from rasterio.shutil import copy as copy_raster
from rasterio.transform import Affine
from rasterio.windows import Window

import rsclip_jax
from rsclip_jax.data.codecs.geotiff import stack_bands
from rsclip_jax.data.scenes.opening import open_scene
from rsclip_jax.data.scenes.scene import LIMIT, join_scenes
from rsclip_jax.data.sensors import SENSORS
from rsclip_jax.data.types import Scaling
from tests.helpers.geotiffs import north_up, write_by_gdal

UTM = {"crs": "EPSG:32632", "transform": north_up(6e5, 5e6)}
L2A = SENSORS["s2_l2a"].bands


def drawn(height=70, width=90, bands=12, low=1, high=9000, dtype=np.uint16):
    rng = np.random.default_rng(height + bands)
    return rng.integers(low, high, (height, width, bands)).astype(dtype)


def write(path, array, **options):
    return write_by_gdal(path, array, **{**UTM, **options})


def whole(scene):
    return scene.read(Window(0, 0, scene.width, scene.height))


def test_a_window_has_the_files_pixels_and_place(tmp_path):
    array = drawn()
    path = write(tmp_path / "a.tif", array, tiled=True, blockxsize=16, blockysize=16)
    scene = rsclip_jax.open_scene(path, "s2_l2a")
    assert (scene.id, scene.crs, scene.height, scene.width) == (
        "a",
        "EPSG:32632",
        70,
        90,
    )
    assert scene.transform == UTM["transform"]
    assert scene.sensors == {"s2": SENSORS["s2_l2a"]}
    with rasterio.open(path) as file:
        assert scene.box == tuple(file.bounds)
    record = scene.read(Window(7, 20, 30, 40))
    np.testing.assert_array_equal(record["s2"], array[20:60, 7:37])
    assert record["s2"].dtype == np.uint16
    assert record["valid"].all()
    assert record["id"] == "a/row_20_column_7/600070_4999400_600370_4999800"


def test_beyond_its_edges_a_scene_has_no_value(tmp_path):
    array = drawn(20, 30)
    scene = open_scene(write(tmp_path / "a.tif", array), "s2_l2a")
    record = scene.read(Window(-3, 15, 40, 8))
    np.testing.assert_array_equal(record["s2"][:5, 3:33], array[15:])
    assert record["valid"].sum() == 5 * 30
    assert not record["s2"][~record["valid"]].any()
    with pytest.raises(ValueError, match=r"lies outside the scene of 20 x 30"):
        scene.read(Window(30, 0, 4, 4))
    with pytest.raises(ValueError, match="not of whole pixels"):
        scene.read(Window(0.5, 0, 4, 4))


def test_bands_are_found_by_name_and_scaled_as_the_tags_say(tmp_path):
    array = drawn(bands=12, low=1000)
    order = [*L2A[3:], *L2A[:3]]
    path = write(tmp_path / "a.tif", array, names=order)
    with rasterio.open(path, "r+") as file:
        file.scales, file.offsets = (1e-4,) * 12, (-0.1,) * 12
    record = whole(open_scene(path, "s2_l2a"))
    expected = array[..., [order.index(band) for band in L2A]] - 1000
    np.testing.assert_array_equal(record["s2"], expected)
    assert record["valid"].all()


def test_the_baseline_of_a_products_name_lowers_dn(tmp_path):
    folder = tmp_path / "S2B_MSIL2A_20240101T000000_N0510_R001_T32TNS_20240101T000000"
    folder.mkdir()
    array = drawn(low=1000)
    record = whole(open_scene(write(folder / "a.tif", array), "s2_l2a"))
    np.testing.assert_array_equal(record["s2"], array - 1000)
    given = open_scene(folder / "a.tif", "s2_l2a", scaling=Scaling())
    np.testing.assert_array_equal(whole(given)["s2"], array)


def test_nodata_in_all_bands_is_missing_and_in_some_a_dark_pixel(tmp_path):
    array = drawn()
    array[:10], array[30, 40, :3] = 0, 0
    record = whole(open_scene(write(tmp_path / "a.tif", array, nodata=0), "s2_l2a"))
    np.testing.assert_array_equal(~record["valid"], (array == 0).all(-1))
    np.testing.assert_array_equal(record["s2"], array)


def test_nodata_of_floats_becomes_nan(tmp_path):
    array = drawn(bands=1, low=250, high=300, dtype=np.float32)
    array[5:9] = -9999
    record = whole(open_scene(write(tmp_path / "a.tif", array, nodata=-9999), "ir_bt"))
    assert np.isnan(record["ir"][5:9]).all()
    assert (~record["valid"]).sum() == 4 * 90


def test_cogs_vrts_and_zipped_files_read_alike(tmp_path):
    array = drawn(600, 520, 3, high=256, dtype=np.uint8)
    path = write(tmp_path / "a.tif", array)
    cog, vrt = tmp_path / "cog.tif", tmp_path / "a.vrt"
    copy_raster(path, cog, driver="COG", compress="DEFLATE")
    copy_raster(path, vrt, driver="VRT")
    for other in (cog, vrt):
        record = open_scene(other, "rgb").read(Window(500, 37, 20, 90))
        np.testing.assert_array_equal(record["rgb"], array[37:127, 500:])


def test_alpha_masks_a_picture(tmp_path):
    array = drawn(bands=4, high=256, dtype=np.uint8)
    array[..., 3] = 255
    array[:7, :, 3] = 0
    path = write(tmp_path / "a.tif", array, photometric="RGB", alpha="YES")
    record = whole(open_scene(path, "rgb"))
    assert record["rgb"].shape == (70, 90, 3)
    assert not record["valid"][:7].any()
    assert record["valid"][7:].all()


def test_coarser_bands_are_enlarged_as_in_patches(tmp_path):
    fine, coarse = drawn(60, 60, 1), drawn(30, 30, 1)
    write(tmp_path / "x_B02_10m.tif", fine)
    write(tmp_path / "x_B05_20m.tif", coarse, transform=north_up(6e5, 5e6, 20.0))
    toml = tmp_path / "two.toml"
    toml.write_text(
        'modality = "s2"\nbands = ["B05", "B02"]\nunit = "DN"\ndtype = "uint16"\n'
        "wavelengths = [0.7, 0.49]\nresolution = [20, 10]\nnodata = 0\n"
    )
    scene = open_scene(tmp_path, str(toml))
    assert scene.transform == UTM["transform"]
    record = scene.read(Window(10, 8, 30, 40))
    expected = stack_bands([coarse[..., 0], fine[..., 0]])[8:48, 10:40]
    np.testing.assert_array_equal(record["s2"][..., 1], expected[..., 1])
    apart = record["s2"][..., 0].astype(int) - expected[..., 0]
    assert np.abs(apart).max() <= 1  # OpenCV and GDAL round halves differently
    assert (apart != 0).mean() < 0.1
    pair = open_scene(
        {"B02": tmp_path / "x_B02_10m.tif", "B05": tmp_path / "x_B05_20m.tif"},
        str(toml),
    )
    np.testing.assert_array_equal(pair.read(Window(10, 8, 30, 40))["s2"], record["s2"])


def test_two_scenes_join_on_one_grid_across_zones(tmp_path):
    """A plane in longitude and latitude keeps its values in another UTM zone."""
    lonlat = {"crs": "EPSG:4326", "transform": Affine(1e-4, 0, 9.0, 0, -1e-4, 45.02)}
    i, j = np.mgrid[:400, :400]
    plane = (250 + 0.05 * j + 0.1 * i).astype(np.float32)
    thermal = write(tmp_path / "t.tif", plane[..., None], **lonlat, nodata=-1)
    first = open_scene(
        write(tmp_path / "a.tif", drawn(60, 60), transform=north_up(500500, 4984000)),
        "s2_l2a",
    )
    scene = join_scenes(first, open_scene(thermal, "ir_bt", onto=first))
    record = scene.read(Window(5, 6, 20, 30))
    assert set(record) == {"id", "s2", "ir", "valid"}
    xs, ys = np.meshgrid(
        scene.box[0] + 10 * (5.5 + np.arange(20)),
        scene.box[3] - 10 * (6.5 + np.arange(30)),
    )
    lon, lat = rasterio.warp.transform(scene.crs, "EPSG:4326", xs.ravel(), ys.ravel())
    columns = (np.array(lon) - 9.0) / 1e-4 - 0.5
    rows = (45.02 - np.array(lat)) / 1e-4 - 0.5
    expected = (250 + 0.05 * columns + 0.1 * rows).reshape(30, 20)
    # GDAL places pixels within 1/8 of one
    np.testing.assert_allclose(record["ir"][..., 0], expected, atol=0.02)
    with pytest.raises(ValueError, match="two grids: open the later one with onto="):
        join_scenes(first, open_scene(thermal, "ir_bt"))
    with pytest.raises(ValueError, match=r"holds s2, as does a scene before it"):
        join_scenes(first, first)


def test_a_crs_and_a_resolution_make_a_grid(tmp_path):
    path = write(tmp_path / "a.tif", drawn(64, 64))
    scene = open_scene(path, "s2_l2a", crs="EPSG:32632", resolution=20)
    assert (scene.height, scene.width) == (32, 32)
    assert scene.transform == north_up(6e5, 5e6, 20.0)
    with pytest.raises(ValueError, match=r"crs = 'EPSG:32633'.*give the\s+resolution"):
        open_scene(path, "s2_l2a", crs="EPSG:32633")
    with pytest.raises(ValueError, match=r"resolution = -5 should be above 0"):
        open_scene(path, "s2_l2a", resolution=-5)


def test_radar_is_in_decibels_or_says_its_unit(tmp_path):
    db = np.linspace(-25, -5, 70 * 90 * 2).reshape(70, 90, 2).astype(np.float32)
    power = (10 ** (db.astype(np.float64) / 10)).astype(np.float32)
    power[:4] = 0
    pair = [
        write(tmp_path / f"x_{b}.tif", power[..., i : i + 1])
        for i, b in enumerate(("VV", "VH"))
    ]
    with pytest.raises(ValueError, match="whether its backscatter is in dB or linear"):
        open_scene(pair, "s1_grd")
    for source in (pair, tmp_path):
        record = whole(open_scene(source, "s1_grd", unit="power"))
        np.testing.assert_allclose(record["s1"][4:], db[4:], atol=1e-4)
        assert not record["valid"][:4].any()
        assert (record["s1"][:4] == 0).all()  # the sensor's nodata
    named = write(tmp_path / "db.tiff", db, names=("VV_dB", "VH_dB"))
    np.testing.assert_array_equal(whole(open_scene(named, "s1_grd"))["s1"], db)
    amplitude = write(tmp_path / "amplitude.tiff", np.sqrt(power))
    record = whole(open_scene(amplitude, "s1_grd", unit="amplitude"))
    np.testing.assert_allclose(record["s1"][4:], db[4:], atol=1e-4)
    with pytest.raises(ValueError, match="looks like linear power, not like dB"):
        open_scene(pair, "s1_grd", unit="dB")
    with pytest.raises(ValueError, match=r"unit = 'watt': should be 'dB', 'power'"):
        open_scene(pair, "s1_grd", unit="watt")


def test_asfs_names_say_the_unit(tmp_path):
    power = np.full((20, 20, 1), 0.1, np.float32)
    name = "S1A_IW_20200101T000000_DVP_RTC30_G_gpuned_FD6A"
    for band in ("VV", "VH"):
        write(tmp_path / f"{name}_{band}.tif", power)
    record = whole(open_scene(tmp_path, "s1_grd"))
    np.testing.assert_allclose(record["s1"], -10, atol=1e-5)


def test_a_window_that_would_take_too_much_memory_is_refused(tmp_path):
    path = tmp_path / "large.tif"
    size = {"height": 20000, "width": 20000, "count": 12, "dtype": "uint16"}
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        sparse_ok=True,
        tiled=True,
        blockxsize=512,
        blockysize=512,
        **size,
        **UTM,
    ) as file:
        file.write(drawn(512, 512).transpose(2, 0, 1), window=Window(0, 0, 512, 512))
    scene = open_scene(path, "s2_l2a")
    with pytest.raises(ValueError, match=r"read windows of up to \d+ x \d+") as error:
        scene.read(Window(0, 0, 10980, 10980))
    side = int(str(error.value).split()[-2])
    tracemalloc.start()
    scene.read(Window(0, 0, side, side))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert 0.3 * LIMIT / 2.7 < peak < LIMIT / 2.5  # the rest is GDAL's cache


def test_a_scene_goes_to_another_process(tmp_path):
    scene = open_scene(write(tmp_path / "a.tif", drawn()), "s2_l2a")
    whole(scene)
    again = pickle.loads(pickle.dumps(scene))
    np.testing.assert_array_equal(whole(again)["s2"], whole(scene)["s2"])


FAULTS = [
    ({"crs": None}, r"a\.tif: names no coordinate system.*-a_srs"),
    ({"transform": Affine.identity()}, "does not say where it lies"),
    ({"transform": Affine(9, 1, 6e5, 1, -9, 5e6)}, "its grid is rotated"),
    ({"transform": Affine(10, 0, 6e5, 0, 10, 5e6)}, "rows run from south to north"),
    ({"transform": Affine(-10, 0, 6e5, 0, -10, 5e6)}, "columns run from east to west"),
]


@pytest.mark.parametrize(("options", "said"), FAULTS)
def test_a_grid_that_cannot_be_used_is_named_with_the_way_out(options, said, tmp_path):
    path = write(tmp_path / "a.tif", drawn(), **options)
    with pytest.raises(ValueError, match=said):
        open_scene(path, "s2_l2a")


def test_a_scene_of_nodata_only_is_refused(tmp_path):
    path = write(tmp_path / "a.tif", np.zeros((600, 600, 12), np.uint16), nodata=0)
    with pytest.raises(ValueError, match=r"none of its 600 x 600 pixels of s2_l2a"):
        open_scene(path, "s2_l2a")
    array = np.zeros((600, 600, 12), np.uint16)
    array[599, 598] = 3000  # which the thinned image does not show
    assert open_scene(write(tmp_path / "b.tif", array, nodata=0), "s2_l2a").width == 600


def test_a_large_scene_is_looked_at_in_parts(tmp_path):
    array = np.full((1300, 1100, 2), 0.3, np.float32)  # linear power
    path = write(tmp_path / "b.tif", array, names=("VV_dB", "VH_dB"))
    with pytest.raises(ValueError, match="looks like linear"):
        open_scene(path, "s1_grd")
    array[:] = np.nan
    path = write(tmp_path / "c.tif", array, names=("VV_dB", "VH_dB"))
    with pytest.raises(ValueError, match="none of its 1,300 x 1,100 pixels"):
        open_scene(path, "s1_grd")
    array[700, 400] = -12  # between the parts
    path = write(tmp_path / "d.tif", array, names=("VV_dB", "VH_dB"))
    assert open_scene(path, "s1_grd").height == 1300


def test_what_is_not_there_or_not_the_sensors_is_named(tmp_path):
    path = write(tmp_path / "a.tif", drawn())
    with pytest.raises(ValueError, match="give sensor=, a name of"):
        open_scene(path)
    with pytest.raises(ValueError, match="12 bands, expected the 13 of s2_l1c"):
        open_scene(path, "s2_l1c")
    with pytest.raises(FileNotFoundError, match=r"none\.tif is missing"):
        open_scene(tmp_path / "none.tif", "s2_l2a")
    for sensor in ("", "s1_grd"):
        with pytest.raises(FileNotFoundError, match=r"S2\.SAFE is missing: fetch it"):
            open_scene(tmp_path / "S2.SAFE", sensor)
    with pytest.raises(ValueError, match=r"has no VH; found VV"):
        open_scene({"VV": path}, "s1_grd", unit="dB")
    with pytest.raises(ValueError, match=r"1 files for the 2 bands of s1_grd"):
        open_scene([path], "s1_grd", unit="dB")
    with pytest.raises(ValueError, match="give one file of one band"):
        open_scene(
            [path, write(tmp_path / "b.tif", drawn(bands=1))], "s1_grd", unit="dB"
        )
    far = open_scene(
        write(tmp_path / "f.tif", drawn(), transform=north_up(7e5, 5e6)), "s2_l2a"
    )
    with pytest.raises(ValueError, match="do not overlap: pair the right scenes"):
        open_scene(path, "s2_l2a", onto=far)
    with pytest.raises(ValueError, match="clear=True needs a scene classification"):
        open_scene(path, "s2_l2a", clear=True)


def test_a_cut_file_is_named(tmp_path):
    path = write(tmp_path / "a.tif", drawn(300, 300), compress="deflate", tiled=True)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(ValueError, match=r"a\.tif: unreadable or cut TIFF"):
        whole(open_scene(path, "s2_l2a"))


def test_arguments_that_exclude_each_other_are_refused(tmp_path):
    scene = open_scene(write(tmp_path / "a.tif", drawn()), "s2_l2a")
    with pytest.raises(ValueError, match=r"give onto=, or crs= and resolution="):
        open_scene(tmp_path / "a.tif", "s2_l2a", onto=scene, resolution=20)
    folder = tmp_path / "x.SAFE"
    folder.mkdir()
    with pytest.raises(ValueError, match="the product says its bands and units itself"):
        open_scene(folder, scaling=Scaling())


def test_decoded_blocks_are_kept(tmp_path):
    """A window is read again from GDAL's cache, though the file is damaged by then."""
    path = write(tmp_path / "a.tif", drawn(300, 300), compress="deflate", tiled=True)
    scene = open_scene(path, "s2_l2a")
    before = whole(scene)["s2"]
    with open(path, "r+b") as file:
        file.seek(4000)
        file.write(bytes(path.stat().st_size - 8000))
    np.testing.assert_array_equal(whole(scene)["s2"], before)
    with pytest.raises(ValueError, match=r"a\.tif: unreadable or cut TIFF"):
        open_scene(path, "s2_l2a")


@pytest.mark.parametrize("kind", ["bare", "alpha", "mask"])
def test_on_another_grid_only_what_a_picture_shows_is_valid(kind, tmp_path):
    """A picture of 20 m that covers the left of a scene, its first rows masked."""
    first = open_scene(write(tmp_path / "a.tif", drawn(60, 60)), "s2_l2a")
    picture = drawn(30, 10, 4 if kind == "alpha" else 3, low=1, high=256)
    shown = np.full((30, 10), 255, np.uint8)
    shown[:5] = 0
    options = {"transform": north_up(6e5, 5e6, 20.0), "photometric": "RGB"}
    if kind == "alpha":
        picture[..., 3] = shown
        options["alpha"] = "YES"
    path = write(tmp_path / "b.tif", picture.astype(np.uint8), **options)
    if kind == "mask":
        with rasterio.open(path, "r+") as file:
            file.write_mask(shown)
    record = whole(open_scene(path, "rgb", onto=first))
    expected = np.zeros((60, 60), bool)
    expected[0 if kind == "bare" else 10 :, :20] = True
    np.testing.assert_array_equal(record["valid"], expected)
    assert record["rgb"].shape == (60, 60, 3)
    assert not record["rgb"][~expected].any()


def test_threads_read_alike(tmp_path):
    array = drawn(128, 128)
    path = write(tmp_path / "a.tif", array, tiled=True, blockxsize=16, blockysize=16)
    scene = open_scene(path, "s2_l2a")
    windows = [Window(x, y, 32, 32) for y in range(0, 128, 32) for x in range(0, 96, 8)]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(scene.read, windows))
    for window, record in zip(windows, found, strict=True):
        rows, columns = window.toslices()
        np.testing.assert_array_equal(record["s2"], array[rows, columns])

"""Sentinel-1's GRD products in the public layout: calibration and place by hand."""

import numpy as np
import pytest
import rasterio
from rasterio.windows import Window

from rsclip_jax.data.scenes.grd import Calibration
from rsclip_jax.data.scenes.opening import open_scene
from rsclip_jax.data.scenes.scene import LIMIT, join_scenes
from rsclip_jax.data.scenes.tiles import read_tiles
from rsclip_jax.data.sensors import SENSORS
from tests.helpers.safe import (
    S1_NAME,
    S1_SHAPE,
    draw_bands,
    s1_ground,
    s1_table,
    write_s1,
    write_s2,
)


def plane(x, y, start=(600000.0, 5000000.0)):
    """sigma0 that is linear on the ground, about -10 dB."""
    return 0.1 + 1.5e-5 * (x - start[0]) + 1e-5 * (start[1] - y)


def draw(**start):
    rows, columns = np.mgrid[: S1_SHAPE[0], : S1_SHAPE[1]] + 0.5
    vv = plane(*s1_ground(rows, columns, **start), tuple(start.values()) or (6e5, 5e6))
    return {"vv": vv, "vh": vv / 4}


def centres(scene):
    a, _, c, _, e, f = scene.transform[:6]
    return np.meshgrid(
        c + a * (np.arange(scene.width) + 0.5), f + e * (np.arange(scene.height) + 0.5)
    )


def whole(scene):
    return scene.read(Window(0, 0, scene.width, scene.height))


def test_dn_become_sigma0_where_they_lie_on_the_ground(tmp_path):
    scene = open_scene(write_s1(tmp_path, draw()))
    assert scene.sensors == {"s1": SENSORS["s1_grd"]}
    assert (scene.id, scene.crs, scene.transform.a) == (S1_NAME, "EPSG:32632", 10)
    corners = s1_ground(np.array([0, 0, 300, 300]), np.array([0, 360, 0, 360]))
    left, _, _, top = scene.box
    assert left <= min(corners[0]) < left + 10
    assert top - 10 < max(corners[1]) <= top
    record = whole(scene)
    valid = record["valid"]
    assert valid.sum() == pytest.approx(300 * 360, rel=0.02)
    expected = 10 * np.log10(plane(*centres(scene)))
    # DN of about 100 are whole: half of one is 0.04 dB
    np.testing.assert_allclose(record["s1"][valid, 0], expected[valid], atol=0.06)
    np.testing.assert_allclose(record["s1"][valid, 1], expected[valid] - 6.02, atol=0.1)
    assert np.median(record["s1"][valid, 0] - expected[valid]) == pytest.approx(
        0, abs=0.003
    )
    assert (record["s1"][~valid] == 0).all()  # the sensor's nodata


def test_windows_are_parts_of_the_whole(tmp_path):
    scene = open_scene(write_s1(tmp_path, draw()))
    image = whole(scene)
    for tile, record in read_tiles(scene, 128, 100, edges="drop"):
        rows, columns = (slice(n, n + 128) for n in (tile.row, tile.column))
        both = record["valid"] & image["valid"][rows, columns]
        # GDAL places pixels within 1/8 of one, in each window anew
        assert (record["valid"] != image["valid"][rows, columns]).mean() < 0.01
        np.testing.assert_allclose(
            record["s1"][both], image["s1"][rows, columns][both], atol=0.06
        )
    corner = scene.read(Window(0, 0, 8, 8))  # the frame is turned
    assert not corner["valid"].any()


def test_a_table_is_bilinear_between_its_vectors():
    lines, pixels = np.array([-50.0, 40, 310]), np.array([0.0, 40, 80, 359])
    values = [s1_table(line, pixels) for line in lines]
    table = Calibration(lines, [pixels] * 3, values)
    rows, columns = np.arange(0, 300, 7), np.arange(0, 360, 11)
    expected = s1_table(rows[:, None], columns[None])
    np.testing.assert_allclose(table.at(rows, columns), expected, rtol=1e-12)
    # by hand: halfway between two vectors and two pixels
    table = Calibration(
        np.array([0.0, 10]),
        [np.array([0.0, 4])] * 2,
        [np.array([1.0, 3]), np.array([5.0, 15])],
    )
    np.testing.assert_allclose(table.at(np.array([5, 99]), np.array([2])), [[6], [10]])


def test_0_is_no_backscatter(tmp_path):
    sigmas = draw()
    sigmas["vv"][:, :100] = np.nan
    record = whole(open_scene(write_s1(tmp_path, sigmas)))
    assert record["valid"].sum() == pytest.approx(300 * 260, rel=0.02)
    nothing = {"vv": np.full(S1_SHAPE, np.nan), "vh": np.full(S1_SHAPE, np.nan)}
    with pytest.raises(ValueError, match=r"300 x 360 pixels are 0, which is no backsc"):
        open_scene(write_s1(tmp_path, nothing))


def test_radar_comes_onto_the_grid_of_sentinel_2(tmp_path):
    folder = write_s1(tmp_path, draw())
    bands = draw_bands(low=1001)
    s2 = open_scene(write_s2(tmp_path, "L2A", bands))
    scene = join_scenes(s2, open_scene(folder, onto=s2))
    record = whole(scene)
    assert record["s1"].shape == (120, 120, 2)
    expected = 10 * np.log10(plane(*centres(scene)))
    valid = record["valid"]
    assert 0.1 < valid.mean() < 1
    np.testing.assert_allclose(record["s1"][valid, 0], expected[valid], atol=0.06)


def test_a_crs_and_resolution_are_taken(tmp_path):
    scene = open_scene(write_s1(tmp_path, draw()), crs="EPSG:32633", resolution=20)
    assert (scene.crs, scene.transform.a) == ("EPSG:32633", 20)
    x, y = centres(scene)
    back = rasterio.warp.transform("EPSG:32633", "EPSG:32632", x.ravel(), y.ravel())
    expected = 10 * np.log10(plane(*(np.reshape(v, x.shape) for v in back)))
    record = whole(scene)
    valid = record["valid"]
    np.testing.assert_allclose(record["s1"][valid, 0], expected[valid], atol=0.06)


def test_across_the_antimeridian_a_frame_is_whole(tmp_path):
    x, y = rasterio.warp.transform("EPSG:4326", "EPSG:32660", [180.0], [17.0])
    start = {"left": x[0] - 2500, "top": y[0]}
    folder = write_s1(tmp_path, draw(**start), zone=60, **start)
    scene = open_scene(folder)
    west, _, east, _ = scene.lonlat
    assert west > 179.9
    assert east < -179.9
    record = whole(scene)
    valid = record["valid"]
    assert valid.sum() == pytest.approx(300 * 360, rel=0.02)
    x, y = centres(scene)
    if scene.crs == "EPSG:32601":
        x, y = rasterio.warp.transform(scene.crs, "EPSG:32660", x.ravel(), y.ravel())
        x, y = (np.reshape(v, valid.shape) for v in (x, y))
    expected = 10 * np.log10(plane(x, y, tuple(start.values())))
    np.testing.assert_allclose(record["s1"][valid, 0], expected[valid], atol=0.06)


def test_a_large_window_is_refused(tmp_path):
    scene = open_scene(write_s1(tmp_path, draw()))
    with pytest.raises(ValueError, match=r"read windows of up to \d+ x \d+"):
        scene.read(Window(0, 0, 10000, 10000))
    assert LIMIT == 256 * 2**20


def test_a_product_that_lacks_something_says_what(tmp_path):
    folder = write_s1(tmp_path, {"vv": draw()["vv"]})
    with pytest.raises(ValueError, match=r"has no VH; found VV"):
        open_scene(folder)
    with pytest.raises(ValueError, match="sensor s2_l1c is in DN"):
        open_scene(folder, "s2_l1c")
    with pytest.raises(ValueError, match="clear=True needs Sentinel-2"):
        open_scene(folder, clear=True)
    folder = write_s1(tmp_path, draw())
    (annotation,) = folder.glob("annotation/*-vv-*.xml")
    text = annotation.read_text()
    annotation.write_text(text.replace("GRD", "SLC"))
    with pytest.raises(ValueError, match="productType SLC, expected GRD"):
        open_scene(folder)
    annotation.write_text(text)
    (table,) = folder.glob("annotation/calibration/*-vv-*.xml")
    text = table.read_text()
    for wrong in (
        text.replace("<line>40</line>", "<line>400</line>"),
        text.replace("sigmaNought", "gamma"),
    ):
        table.write_text(wrong)
        with pytest.raises(ValueError, match="4 calibrationVectors are no table"):
            open_scene(folder)
    table.unlink()
    with pytest.raises(FileNotFoundError, match=r"calibration-s1a-iw-grd-vv.*missing"):
        open_scene(folder)

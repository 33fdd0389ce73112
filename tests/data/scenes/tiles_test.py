"""Tiles of a scene: each pixel once, places against rasterio's."""

import numpy as np
import pytest
import rasterio
from rasterio.transform import Affine
from rasterio.windows import Window
from rasterio.windows import bounds as window_bounds

from rsclip_jax.data.scenes.opening import open_scene
from rsclip_jax.data.scenes.tiles import read_tiles, tiles
from tests.helpers.geotiffs import write_by_gdal

# no round numbers: a pixel is 1/3 arc second
GRID = Affine(1 / 10800, 0, 11.123456789, 0, -1 / 10800, 48.987654321)


@pytest.fixture
def scene(tmp_path):
    array = np.arange(70 * 100).reshape(70, 100, 1) // 28
    array[:32, :40] = 0
    path = write_by_gdal(
        tmp_path / "a.tif", array.astype(np.uint8), crs="EPSG:4326", transform=GRID
    )
    return open_scene(path, "s1_vv_8bit")


def test_padded_tiles_hold_every_pixel_once(scene):
    seen = np.zeros((scene.height, scene.width), int)
    found = list(read_tiles(scene, 32))
    assert [(tile.row, tile.column) for tile, _ in found] == [
        (row, column) for row in (0, 32, 64) for column in (0, 32, 64, 96)
    ]
    image = scene.read(Window(0, 0, 100, 70))["s1"]
    for tile, record in found:
        rows, columns = np.nonzero(record["valid"])
        seen[tile.row + rows, tile.column + columns] += 1
        assert record["s1"].shape == (32, 32, 1)
        part = image[tile.row : tile.row + 32, tile.column : tile.column + 32]
        h, w = part.shape[:2]
        np.testing.assert_array_equal(record["s1"][:h, :w], part)
        assert record["id"] == tile.id
    assert (seen == 1).all()


@pytest.mark.parametrize(
    ("size", "stride", "edges", "rows", "columns"),
    [
        (32, 0, "drop", (0, 32), (0, 32, 64)),
        (32, 20, "drop", (0, 20), (0, 20, 40, 60)),
        (32, 20, "pad", (0, 20, 40), (0, 20, 40, 60, 80)),
        (35, 0, "pad", (0, 35), (0, 35, 70)),
        (70, 0, "drop", (0,), (0,)),
        (128, 0, "pad", (0,), (0,)),
    ],
)
def test_where_tiles_begin(scene, size, stride, edges, rows, columns):
    found = [(t.row, t.column) for t in tiles(scene, size, stride, edges=edges)]
    assert found == [(row, column) for row in rows for column in columns]


# rasterio multiplies by affine's older operator
@pytest.mark.filterwarnings("ignore:Use `@` matmul:PendingDeprecationWarning")
def test_places_agree_with_rasterio_to_a_millionth_of_a_pixel(scene):
    side = GRID.a
    for tile in tiles(scene, 32, 13):
        expected = window_bounds(tile.window, GRID)
        np.testing.assert_allclose(tile.box, expected, rtol=0, atol=1e-6 * side)
        assert tile.lonlat == tile.box
        assert tile.crs == "EPSG:4326"
    ids = [tile.id for tile in tiles(scene, 32)]
    assert len(set(ids)) == len(ids)
    assert ids[1].startswith("a/row_0_column_32/11.12641975_48.98469136_")


def test_boxes_in_degrees_are_around_the_tile(tmp_path):
    """rasterio's own transformation of a tile's corners lies inside."""
    grid = Affine(10, 0, 300000, 0, -10, 7800000)
    path = write_by_gdal(
        tmp_path / "a.tif",
        np.ones((64, 64, 1), np.uint8),
        crs="EPSG:32601",
        transform=grid,
    )
    scene = open_scene(path, "s1_vv_8bit")
    (tile,) = tiles(scene, 64)
    left, bottom, right, top = tile.box
    lon, lat = rasterio.warp.transform(
        "EPSG:32601",
        "EPSG:4326",
        [left, right, right, left],
        [top, top, bottom, bottom],
    )
    west, south, east, north = tile.lonlat
    np.testing.assert_allclose([west, east], [min(lon), max(lon)], atol=1e-6)
    np.testing.assert_allclose([south, north], [min(lat), max(lat)], atol=1e-6)
    assert scene.lonlat == tile.lonlat


def test_a_tile_across_the_antimeridian_has_its_west_in_the_east(tmp_path):
    x, y = rasterio.warp.transform("EPSG:4326", "EPSG:32601", [-180.0], [-17.0])
    path = write_by_gdal(
        tmp_path / "a.tif",
        np.ones((64, 64, 1), np.uint8),
        crs="EPSG:32601",
        transform=Affine(10, 0, x[0] - 320, 0, -10, y[0] + 320),
    )
    (tile,) = tiles(open_scene(path, "s1_vv_8bit"), 64)
    west, _, east, _ = tile.lonlat
    assert 179.99 < west < 180
    assert -180 < east < -179.99


def test_tiles_with_few_values_are_left_out(tmp_path):
    array = np.full((64, 64, 12), 3000, np.uint16)
    array[:32, :32], array[32:, :16] = 0, 0
    path = write_by_gdal(
        tmp_path / "a.tif",
        array,
        nodata=0,
        crs="EPSG:32632",
        transform=Affine(10, 0, 6e5, 0, -10, 5e6),
    )
    scene = open_scene(path, "s2_l2a")

    def starts(share):
        return [(t.row, t.column) for t in tiles(scene, 32, min_valid=share)]

    assert starts(0) == [(0, 0), (0, 32), (32, 0), (32, 32)]
    assert starts(0.5) == [(0, 32), (32, 0), (32, 32)]
    assert starts(0.51) == [(0, 32), (32, 32)]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"size": 0}, "size = 0 should be 1 or more"),
        ({"size": 8, "stride": -1}, "stride = -1 0 or more"),
        ({"size": 8, "edges": "crop"}, "edges = 'crop' is not known"),
        ({"size": 71, "edges": "drop"}, r"no tile of 71 pixels fits in 70 x 100"),
        ({"size": 8, "min_valid": 1.5}, "min_valid = 1.5 should be from 0 to 1"),
    ],
)
def test_settings_that_are_not_possible_are_named(scene, settings, said):
    with pytest.raises(ValueError, match=said):
        list(tiles(scene, **settings))

"""Footprints of GeoTIFFs, and pairs of files of one and of two locations."""

import numpy as np
import pytest
import rasterio
import tifffile
from rasterio.transform import Affine

from rsclip_jax.data.codecs.geotiff import read_band_files, read_raster
from rsclip_jax.data.codecs.places import check_same_location, face_north
from tests.helpers.geotiffs import geo_tags, north_up, write_by_gdal

# The same projection as EPSG:32633's, moved: a CRS without a code.
OWN = "+proj=tmerc +lat_0=0 +lon_0=14.5 +k=0.9996 +x_0=500000 +datum=WGS84 +units=m"


def geo_tif(path, side, pixel=10.0, **location):
    """A GeoTIFF of one band."""
    band = np.ones((side, side), np.uint16)
    tifffile.imwrite(path, band, extratags=geo_tags(pixel, **location))
    return path


def by_gdal(path, array, transform, crs="EPSG:32633", **options):
    return write_by_gdal(path, array, transform=transform, crs=crs, **options)


def matrix_tags(left, top, pixel=10.0, epsg=32633):
    """A place as Earth Engine writes it: ModelTransformationTag."""
    matrix = (pixel, 0, 0, left, 0, -pixel, 0, top, *(0,) * 7, 1.0)
    return [(34264, "d", 16, matrix, True), geo_tags(epsg=epsg)[2]]


def check_files(max_shift, *paths):
    found = read_band_files(paths).places
    assert [f.path for f in found] == list(paths)
    check_same_location(found, max_shift)


def test_files_of_one_location_pass_at_any_pixel_size(tmp_path):
    fine = geo_tif(tmp_path / "fine.tif", 12)
    coarse = geo_tif(tmp_path / "coarse.tif", 2, 60.0)
    near = geo_tif(tmp_path / "near.tif", 12, left=300010.0, top=5000030.0)
    check_files(1.0, fine, coarse)
    check_files(0.0, fine, coarse)
    check_files(1.0, coarse, near, fine)
    check_same_location([], 1.0)


@pytest.mark.parametrize(
    ("changed", "max_shift", "fault"),
    [
        ({"epsg": 32634}, np.inf, "are not in one CRS"),
        ({"left": 300000.0 + 120}, np.inf, "do not overlap"),
        ({"top": 5000040.0 - 120}, np.inf, "do not overlap"),
        ({"left": 300000.0 + 11}, 1.0, r"are 1\.1 pixels apart, more than 1"),
        ({"top": 5000040.0 + 25}, 1.0, r"are 2\.5 pixels apart"),
        ({"side": 14}, 1.0, "are 2 pixels apart"),  # other ground to the right
        ({"pixel": 12.0}, 1.0, "are 2 pixels apart"),  # 24 m of 12
    ],
)
def test_files_of_two_locations_are_named_with_their_footprints(
    tmp_path, changed, max_shift, fault
):
    one = geo_tif(tmp_path / "one.tif", 12)
    other = geo_tif(tmp_path / "other.tif", **{"side": 12, **changed})
    with pytest.raises(ValueError, match=fault) as error:
        check_files(max_shift, one, other)
    text = str(error.value)
    assert f"{one} (EPSG:32633, 300000, 4999920, 300120, 5000040)" in text
    assert f"{other} (EPSG:{changed.get('epsg', 32633)}, " in text
    assert text.endswith("do not cover the same ground: pair the right files")


def test_a_tiepoint_inside_the_image_and_a_large_allowed_shift(tmp_path):
    plain = geo_tif(tmp_path / "plain.tif", 12)
    far = geo_tif(tmp_path / "far.tif", 12, left=300050.0)
    check_files(5.0, plain, far)
    inner = {"left": 300030.0, "top": 5000020.0, "tie": (3.0, 2.0)}
    check_files(0.0, plain, geo_tif(tmp_path / "inner.tif", 12, **inner))


def test_a_file_without_a_place_or_a_crs_is_not_compared_with_one_that_has(tmp_path):
    plain = tmp_path / "plain.tif"
    tifffile.imwrite(plain, np.ones((12, 12), np.uint16))
    assert read_raster(plain).place is None
    a = read_raster(geo_tif(tmp_path / "a.tif", 12)).place
    bare = tmp_path / "b.tif"  # a scale and a tie point, and no CRS
    tags = geo_tags(left=0.0)[:2]
    tifffile.imwrite(bare, np.ones((12, 12), np.uint16), extratags=tags)
    b = read_raster(bare).place
    assert (a.crs, b.crs) == ("EPSG:32633", "")
    check_same_location([a, b], 1.0)
    far = tmp_path / "far.tif"
    by_gdal(far, np.ones((12, 12), np.uint16), north_up(9e5, 0, 10), crs=None)
    with pytest.raises(ValueError, match=r"\(no CRS, .* do not overlap"):
        check_same_location([read_raster(far).place, b], 1.0)


def bigtiff(path, left):
    ones = np.ones((12, 12), np.uint16)
    return by_gdal(path, ones, north_up(left, 5e6, 10), BIGTIFF="YES")


def earth_engine(path, left):
    ones = np.ones((12, 12), np.uint16)
    tifffile.imwrite(path, ones, extratags=matrix_tags(left, 5e6))
    return path


def own_crs(path, left):
    ones = np.ones((12, 12), np.uint16)
    return by_gdal(path, ones, north_up(left, 5e6, 10), OWN)


def points(path, left):
    """Ground control points at the corners."""
    xs, ys = (left, left + 120), (5e6, 5e6 - 120)
    gcps = [
        rasterio.control.GroundControlPoint(row, column, x, y)
        for row, y in zip((0, 12), ys, strict=True)
        for column, x in zip((0, 12), xs, strict=True)
    ]
    return by_gdal(path, np.ones((12, 12), np.uint16), None, gcps=gcps)


def world_file(path, left):
    tifffile.imwrite(path, np.ones((12, 12), np.uint16))
    path.with_suffix(".tfw").write_text(f"10\n0\n0\n-10\n{left + 5}\n4999995\n")
    return path


def rotated(path, left):
    turned = Affine(8, 6, left, 6, -8, 5e6)
    return by_gdal(path, np.ones((12, 12), np.uint16), turned)


@pytest.mark.parametrize(
    "write", [bigtiff, earth_engine, own_crs, points, world_file, rotated]
)
def test_every_way_to_state_a_place_is_checked(tmp_path, write):
    here, same, east = (
        read_raster(write(tmp_path / name, left)).place
        for name, left in (("a.tif", 3e5), ("b.tif", 3e5), ("c.tif", 4e5))
    )
    check_same_location([here, same], 0.0)
    with pytest.raises(ValueError, match="do not overlap"):
        check_same_location([here, east], np.inf)


def test_two_crss_without_a_code_are_told_apart(tmp_path):
    here = read_raster(own_crs(tmp_path / "a.tif", 3e5)).place
    ones = np.ones((12, 12), np.uint16)
    other = OWN.replace("14.5", "14.6")
    path = by_gdal(tmp_path / "b.tif", ones, north_up(3e5, 5e6, 10), other)
    with pytest.raises(ValueError, match="not in one CRS"):
        check_same_location([here, read_raster(path).place], np.inf)


@pytest.mark.parametrize("order", ["<", ">"])
def test_the_tags_are_those_of_gdal_and_tifffile(tmp_path, order):
    path = tmp_path / "a.tif"
    tags = [
        (33550, "d", 3, (20.0, 10.0, 0.0), True),
        (33922, "d", 6, (0.0, 0.0, 0.0, 5.5, 9.5, 0.0), True),
        (34735, "H", 12, (1, 1, 0, 2, 1024, 0, 1, 1, 3072, 0, 1, 3035), True),
    ]
    tifffile.imwrite(path, np.ones((7, 300), np.uint8), byteorder=order, extratags=tags)
    found = read_raster(path).place
    assert found.crs == "EPSG:3035"
    assert found.box == (5.5, 9.5 - 7 * 10, 5.5 + 300 * 20, 9.5)
    with rasterio.open(path) as file:
        assert found.crs == f"EPSG:{file.crs.to_epsg()}"
        assert found.box == file.bounds
        assert found.transform == file.transform[:6]
    with tifffile.TiffFile(path) as file:
        page = file.pages[0]
        assert found.pixel == page.tags[33550].value[:2]
        assert (page.imagewidth, page.imagelength) == (300, 7)


@pytest.mark.parametrize("turn", ["north", "south", "mirrored", "transposed"])
def test_rows_face_north_and_columns_east(tmp_path, turn):
    ground = np.arange(30, dtype=np.uint16).reshape(5, 6)
    north = Affine(10, 0, 3e5, 0, -20, 5e6)
    stored, transform = {
        "north": (ground, north),
        "south": (ground[::-1], Affine(10, 0, 3e5, 0, 20, 5e6 - 100)),
        "mirrored": (ground[:, ::-1], Affine(-10, 0, 3e5 + 60, 0, -20, 5e6)),
        "transposed": (ground.T, Affine(0, 10, 3e5, -20, 0, 5e6)),
    }[turn]
    raster = read_raster(by_gdal(tmp_path / "a.tif", stored, transform))
    np.testing.assert_array_equal(raster.pixels[..., 0], ground)
    assert raster.place.transform == north[:6]
    assert (raster.place.height, raster.place.width) == (5, 6)


def test_turning_keeps_each_pixel_where_it_is():
    array = np.random.default_rng(0).normal(size=(4, 5, 2))
    for matrix in ((2, 0.5, 7, 0.3, 3, 9), (-2, 1, 7, 1, 4, 9), (0.1, 2, 1, 3, 0.1, 2)):
        turned, new = face_north(array, matrix)
        a, b, c, d, e, f = new
        assert a > 0 > e
        inverse = ~Affine(*matrix)
        for row, column in np.ndindex(turned.shape[:2]):
            x = a * (column + 0.5) + b * (row + 0.5) + c
            y = d * (column + 0.5) + e * (row + 0.5) + f
            j = inverse.a * x + inverse.b * y + inverse.c
            i = inverse.d * x + inverse.e * y + inverse.f
            np.testing.assert_array_equal(turned[row, column], array[int(i), int(j)])


def test_a_pixel_in_metres(tmp_path):
    assert read_raster(geo_tif(tmp_path / "a.tif", 12)).place.metres == 10
    ones = np.ones((2, 2), np.uint16)
    grid = north_up(14, 60 + 1e-4, 1e-4)
    degrees = read_raster(by_gdal(tmp_path / "b.tif", ones, grid, "EPSG:4326")).place
    assert degrees.metres == pytest.approx(11.13 * np.sqrt(0.5), rel=1e-3)
    feet = by_gdal(tmp_path / "c.tif", ones, north_up(0, 9, 1), "EPSG:2263")
    assert read_raster(feet).place.metres == pytest.approx(0.3048, rel=1e-3)
    for name in ('LOCAL_CS["laboratory",UNIT["metre",1]]', "EPSG:4978"):
        other = read_raster(by_gdal(tmp_path / "d.tif", ones, north_up(0, 9, 1), name))
        assert other.place.crs
        assert other.place.metres is None


def test_real_pairs_show_one_location(real_data):
    root = real_data / "bigearthnet" / "BigEarthNet-v1.0"
    patches = [p for p in root.iterdir() if p.is_dir()]
    for patch in patches:
        found = read_band_files(sorted(patch.glob("*.tif"))).places
        assert len(found) == 12
        check_same_location(found, 1.0)

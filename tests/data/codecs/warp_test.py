"""Warping onto another grid, against interpolation by hand."""

import numpy as np
import pytest
import rasterio
from rasterio.transform import Affine

from rsclip_jax.data.codecs.geotiff import read_place, read_raster
from rsclip_jax.data.codecs.places import Footprint
from rsclip_jax.data.codecs.raster import Raster
from rsclip_jax.data.codecs.warp import warp_onto
from rsclip_jax.data.sensors import SENSORS
from rsclip_jax.data.sources.files import read_sensor
from tests.helpers.geotiffs import north_up, write_by_gdal

UTM, L1C = "EPSG:32633", SENSORS["s2_l1c"]


def grid(left, top, side, pixel=10.0, crs=UTM):
    return Footprint("grid.tif", crs, north_up(left, top, pixel)[:6], side, side)


def plane(place, dtype=np.float32):
    """Values that are linear in x and y, which bilinear interpolation keeps."""
    a, _, c, _, e, f = place.transform
    x = a * (np.arange(place.width) + 0.5) + c - 3e5
    y = e * (np.arange(place.height) + 0.5) + f - 5e6
    array = np.stack([x[None] + 2 * y[:, None], 9 + x[None] - y[:, None]], -1)
    return np.rint(array).astype(dtype) if dtype != np.float32 else array.astype(dtype)


def test_a_shifted_grid_gets_the_values_between_pixels():
    source, wanted = grid(3e5, 5e6, 16), grid(3e5 + 44, 5e6 - 38, 6)
    out = warp_onto(Raster(plane(source), places=(source,)), wanted, "a.tif")
    np.testing.assert_allclose(out.pixels, plane(wanted), atol=1e-3)
    assert out.missing is None
    assert out.place == wanted


def test_degrees_and_metres_of_one_place_meet(tmp_path):
    """A hill in UTM, found at the same longitude and latitude."""
    place = grid(3e5, 5e6, 64)
    y, x = np.mgrid[:64, :64]
    hill = np.exp(-((x - 40) ** 2 + (y - 20) ** 2) / 50).astype(np.float32)[..., None]
    (lon,), (lat,) = rasterio.warp.transform(UTM, "EPSG:4326", [3e5 + 405], [5e6 - 205])
    pixel = 1e-4
    wanted = grid(lon - 10.5 * pixel, lat + 10.5 * pixel, 21, pixel, "EPSG:4326")
    out = warp_onto(Raster(hill, places=(place,)), wanted, "a.tif").pixels[..., 0]
    assert np.unravel_index(np.nanargmax(out), out.shape) == (10, 10)
    assert out[10, 10] == pytest.approx(1, abs=0.02)


def test_what_is_not_covered_or_missing_is_missing():
    source = grid(3e5, 5e6, 16)
    pixels = plane(source, np.int16)
    gone = np.zeros((16, 16), bool)
    gone[8, 8] = True
    pixels[gone] = -32768
    raster = Raster(pixels, gone, places=(source,))
    wanted = grid(3e5 + 20, 5e6 - 20, 16)  # two pixels on
    out = warp_onto(raster, wanted, "a.tif")
    want = np.zeros((16, 16), bool)
    want[14:] = want[:, 14:] = want[6, 6] = True
    np.testing.assert_array_equal(out.missing.all(-1), want)
    assert out.pixels.dtype == np.int16
    np.testing.assert_array_equal(out.pixels[~want], plane(wanted, np.int16)[~want])


def test_the_same_grid_changes_nothing():
    place = grid(3e5, 5e6, 8)
    raster = Raster(plane(place), places=(place,))
    assert warp_onto(raster, place._replace(path="b.tif"), "a.tif") is raster


def test_places_that_are_unknown_or_apart_are_named():
    place = grid(3e5, 5e6, 8)
    raster = Raster(plane(place), places=(place,))
    with pytest.raises(ValueError, match=r"^a\.tif: .* first sensor does not say"):
        warp_onto(raster, None, "a.tif")
    with pytest.raises(ValueError, match=r"^a\.tif: .* since a\.tif does not say"):
        warp_onto(Raster(plane(place)), place, "a.tif")
    with pytest.raises(ValueError, match="do not overlap"):
        warp_onto(raster, grid(4e5, 5e6, 8), "a.tif")
    lab = grid(0, 0, 8, crs='LOCAL_CS["laboratory",UNIT["metre",1]]')
    with pytest.raises(ValueError, match="no way between their coordinate systems"):
        warp_onto(Raster(plane(lab), places=(lab,)), place, "a.tif")


@pytest.mark.parametrize("options", [{}, {"compress": "zstd"}])
def test_a_place_is_read_without_the_pixels(tmp_path, options):
    up = rasterio.Affine(10, 0, 3e5, 0, 10, 5e6)
    for transform in (north_up(3e5, 5e6), up):
        path = write_by_gdal(
            tmp_path / "a.tif",
            np.ones((4, 6), np.uint16),
            crs=UTM,
            transform=transform,
            **options,
        )
        assert read_place(path) == read_raster(path).place
    assert read_place(path).transform[4] == -10
    (tmp_path / "a.png").write_bytes(b"\x89PNG")
    assert read_place(tmp_path / "a.png") is None


def test_undeclared_nodata_is_not_mixed_with_the_values_beside_it(tmp_path):
    first, second = grid(3e5 + 42, 5e6 - 42, 8), grid(3e5, 5e6, 16)
    paths = [tmp_path / "a.tif", tmp_path / "b.tif"]
    array = np.full((16, 16, 13), 3000, np.uint16)
    array[:6] = 0
    for path, place in zip(paths, (first, second), strict=True):
        where = {"crs": UTM, "transform": Affine(*place.transform)}
        write_by_gdal(path, array[-place.height :, -place.width :], **where)
    with pytest.raises(ValueError, match=r"b\.tif: 25 % of the s2_l1c pixels are miss"):
        read_sensor(paths[1], L1C, onto=paths[0])
    assert (read_sensor(paths[1], L1C, onto=paths[0], max_nodata=0.3) == 3000).all()
    same = read_sensor(paths[1], L1C, onto=paths[1])  # nothing is warped
    np.testing.assert_array_equal(same, array)

"""TIFFs against tifffile's own reading, and damaged files."""

import numpy as np
import pytest
import tifffile

from rsclip_jax.data.codecs.geotiff import read_band_files, read_raster
from rsclip_jax.data.sensors import SENSORS
from rsclip_jax.data.sources.files import read_sensor

S2, L2A, S1 = SENSORS["s2_l1c"], SENSORS["s2_l2a"], SENSORS["s1_grd"]


def noise(*shape, dtype=np.uint16):
    return np.random.default_rng(0).integers(0, 9000, shape).astype(dtype)


@pytest.mark.parametrize("planar", ["contig", "separate"])
@pytest.mark.parametrize("compression", [None, "zlib"])
def test_bands_are_last_however_they_are_stored(tmp_path, planar, compression):
    want = noise(8, 6, 13)
    stored = want if planar == "contig" else want.transpose(2, 0, 1)
    path = tmp_path / "a.tif"
    tifffile.imwrite(
        path,
        stored,
        planarconfig=planar,
        photometric="minisblack",
        compression=compression,
    )
    np.testing.assert_array_equal(read_raster(path).pixels, want)


def test_one_page_per_band_is_read(tmp_path):
    want = noise(8, 6, 13)
    tifffile.imwrite(tmp_path / "a.tif", want.transpose(2, 0, 1))
    np.testing.assert_array_equal(read_raster(tmp_path / "a.tif").pixels, want)


def write(path, array):
    tifffile.imwrite(path, array, photometric="minisblack", planarconfig="contig")


def write_bands(folder, sides, dtype=np.uint16):
    paths = []
    for i, side in enumerate(sides):
        paths.append(folder / f"b{i}.tif")
        tifffile.imwrite(paths[-1], np.full((side, side), i + 1, dtype))
    return paths


def test_coarse_bands_are_enlarged_to_the_finest(tmp_path):
    paths = write_bands(tmp_path, (12, 6, 2))
    out = read_band_files(paths).pixels
    assert out.shape == (12, 12, 3)
    assert out.dtype == np.uint16
    np.testing.assert_array_equal(out[..., 1], 2)  # a constant stays


def test_enlarging_is_bilinear_between_pixel_centres(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", np.array([[0, 100], [0, 100]], np.float32))
    tifffile.imwrite(tmp_path / "fine.tif", np.zeros((4, 4), np.float32))
    got = read_band_files([tmp_path / "a.tif", tmp_path / "fine.tif"]).pixels[0, :, 0]
    np.testing.assert_allclose(got, [0, 25, 75, 100])  # ends repeat


def test_the_finest_band_is_unchanged(tmp_path):
    want = noise(12, 12)
    tifffile.imwrite(tmp_path / "a.tif", want)
    (coarse,) = write_bands(tmp_path, (6,))
    got = read_band_files([tmp_path / "a.tif", coarse]).pixels
    np.testing.assert_array_equal(got[..., 0], want)


@pytest.mark.parametrize("cut", [0, 4, 300, -10])
def test_cut_files_are_named(tmp_path, cut):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, noise(20, 20))
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(ValueError, match=r"a\.tif: unreadable or cut TIFF"):
        read_raster(path)


def test_missing_mixed_and_oblong_bands_are_named(tmp_path):
    paths = write_bands(tmp_path, (6, 6))
    with pytest.raises(FileNotFoundError, match=r"none\.tif is missing"):
        read_band_files([paths[0], tmp_path / "none.tif"])
    tifffile.imwrite(tmp_path / "f.tif", np.zeros((6, 6), np.float32))
    with pytest.raises(ValueError, match=r"f\.tif: float32, but b0\.tif is uint16"):
        read_band_files([paths[0], tmp_path / "f.tif"])
    tifffile.imwrite(tmp_path / "o.tif", np.zeros((6, 5), np.uint16))
    with pytest.raises(ValueError, match=r"o\.tif: 6 x 5 pixels of 1 bands, expected"):
        read_band_files([tmp_path / "o.tif"])


def test_bands_in_another_order_are_moved_by_name(tmp_path):
    order = (*[b for b in S2.bands if b != "B8A"], "B8A")  # EuroSAT's
    array = noise(8, 8, 13)
    write(tmp_path / "a.tif", array)
    got = read_sensor(tmp_path / "a.tif", S2, order)
    np.testing.assert_array_equal(got[..., 8], array[..., 12])
    np.testing.assert_array_equal(got[..., 9], array[..., 8])
    with pytest.raises(ValueError, match=r"a\.tif: 13 bands, .* 12 of s2_l2a, .*B12"):
        read_sensor(tmp_path / "a.tif", L2A)


def test_nonnegative_signed_integers_are_read_as_unsigned(tmp_path):
    array = noise(8, 8, 13, dtype=np.int16)
    write(tmp_path / "a.tif", array)
    got = read_sensor(tmp_path / "a.tif", S2)
    assert got.dtype == np.uint16
    np.testing.assert_array_equal(got, array)
    array[0, 0, 0] = -1001
    write(tmp_path / "a.tif", array)
    with pytest.raises(ValueError, match="int16 values from -1001"):
        read_sensor(tmp_path / "a.tif", S2)


def test_real_chips_are_read_as_by_tifffile(real_data):
    """Sen1Floods11 stores bands separately, with B8A ninth as in SENSORS."""
    path = real_data / "sen1floods11" / "S2" / "Spain_7370579_S2Hand.tif"
    want = tifffile.imread(path).transpose(1, 2, 0)
    np.testing.assert_array_equal(read_sensor(path, S2), want)


@pytest.mark.parametrize("photometric", ["minisblack", "miniswhite"])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("options", [{}, {"compression": "zlib", "tile": (16, 16)}])
@pytest.mark.parametrize(
    "dtype", ["uint8", "int8", "uint16", "int16", "float32", "float64", "uint32"]
)
def test_a_band_has_the_files_values(tmp_path, dtype, options, order, photometric):
    want = (1000 * np.random.default_rng(0).normal(size=(24, 24))).astype(dtype)
    path = tmp_path / "band.tif"
    tifffile.imwrite(path, want, photometric=photometric, byteorder=order, **options)
    found = read_band_files([path]).pixels
    assert found.dtype == want.dtype
    np.testing.assert_array_equal(found[..., 0], want)


def test_a_band_cut_anywhere_is_refused(tmp_path):
    whole, cut = tmp_path / "band.tif", tmp_path / "cut.tif"
    tifffile.imwrite(whole, noise(24, 24))
    data = whole.read_bytes()
    for end in range(0, len(data), 13):
        cut.write_bytes(data[:end])
        with pytest.raises(ValueError, match=r"cut\.tif: unreadable or cut TIFF"):
            read_band_files([cut])


def test_opencv_prints_no_warnings_about_geographic_tags(tmp_path, capfd):
    path = tmp_path / "band.tif"
    scale = (33550, "d", 3, (10.0, 10.0, 0.0), True)
    tifffile.imwrite(path, noise(8, 8), extratags=[scale])
    read_band_files([path])
    assert capfd.readouterr() == ("", "")


def test_real_bands_are_read_as_by_tifffile(real_data):
    paths = sorted((real_data / "bigearthnet").rglob("*_B0[1-8].tif"))
    assert len(paths) > 50
    for path in paths:
        np.testing.assert_array_equal(
            read_band_files([path]).pixels[..., 0], tifffile.imread(path)
        )

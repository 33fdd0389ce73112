"""8-bit pictures in TIFF and JPEG 2000 files, against Pillow and by hand."""

import numpy as np
import pytest
import tifffile
from PIL import Image

from rsclip_jax.data.codecs.images import read_image
from rsclip_jax.data.codecs.pictures import read_picture
from tests.helpers.geotiffs import write_by_gdal


def noise(*shape):
    return np.random.default_rng(0).integers(1, 256, shape, np.uint8)


@pytest.mark.parametrize("count", [3, 4, 13])
def test_a_page_for_each_band_is_read(tmp_path, count):
    array = noise(count, 8, 6)
    options = {"photometric": "minisblack", "metadata": None}
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        for page in array:
            file.write(page, **options)
    got = read_image(tmp_path / "a.tif", count)
    np.testing.assert_array_equal(got, np.moveaxis(array, 0, -1))


@pytest.mark.parametrize("planar", ["contig", "separate"])
@pytest.mark.parametrize("count", [2, 3, 4])
def test_bands_that_the_file_calls_grey_are_read(tmp_path, count, planar):
    array = noise(8, 6, count)
    stored = array if planar == "contig" else np.moveaxis(array, -1, 0)
    layout = {"photometric": "minisblack", "planarconfig": planar, "metadata": None}
    tifffile.imwrite(tmp_path / "a.tif", stored, **layout)
    np.testing.assert_array_equal(read_image(tmp_path / "a.tif", count), array)


@pytest.mark.parametrize("mode", ["1", "L", "P", "YCbCr", "CMYK"])
def test_modes_of_pillow_become_rgb(tmp_path, mode):
    picture = Image.fromarray(noise(9, 11, 3))
    picture = picture.quantize(16) if mode == "P" else picture.convert(mode)
    picture.save(tmp_path / "a.tif")
    with Image.open(tmp_path / "a.tif") as saved:
        want = np.asarray(saved.convert("RGB")).astype(int)
    assert np.abs(read_image(tmp_path / "a.tif").astype(int) - want).max() <= 1


def test_white_may_be_zero(tmp_path):
    array = noise(8, 6)
    tifffile.imwrite(tmp_path / "a.tif", array, photometric="miniswhite")
    for bands in (1, 3):
        np.testing.assert_array_equal(
            read_image(tmp_path / "a.tif", bands)[..., 0], 255 - array
        )


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_greys_of_few_bits_span_all_shades(tmp_path, bits):
    array = noise(8, 8) % 2**bits
    path = write_by_gdal(tmp_path / "a.tif", array, nbits=bits)
    want = array.astype(int) * 255 // (2**bits - 1)
    np.testing.assert_array_equal(read_image(path, 1)[..., 0], want)


def test_jpeg_2000_pictures_are_read(tmp_path):
    array = noise(32, 32, 3)
    options = {"driver": "JP2OpenJPEG", "quality": 100, "reversible": True}
    path = write_by_gdal(tmp_path / "a.jp2", array, **options)
    np.testing.assert_array_equal(read_image(path), array)


def test_a_shade_of_one_band_is_no_missing_pixel(tmp_path):
    array = noise(8, 8, 3)
    array[0, 0, 2] = array[4, 4] = 0
    path = write_by_gdal(tmp_path / "a.tif", array, nodata=0)
    want = np.zeros((8, 8), bool)
    want[4, 4] = True
    np.testing.assert_array_equal(read_picture(path).missing, want)


@pytest.mark.parametrize("name", ["a.tif", "a.jp2", "a.png"])
@pytest.mark.parametrize("kind", ["TIFF", "PNG", "WEBP"])
def test_the_first_bytes_tell_the_format(tmp_path, name, kind):
    array = noise(8, 8, 3)
    options = {"lossless": True} if kind == "WEBP" else {}
    Image.fromarray(array).save(tmp_path / name, format=kind, **options)
    np.testing.assert_array_equal(read_picture(tmp_path / name).pixels, array)


def test_other_counts_and_types_are_refused(tmp_path):
    path = write_by_gdal(tmp_path / "a.tif", noise(8, 8, 2))
    with pytest.raises(ValueError, match=r"a\.tif: 2 bands of uint8, expected 3 of"):
        read_image(path)
    path = write_by_gdal(tmp_path / "b.tif", noise(8, 8, 3).astype(np.uint16))
    with pytest.raises(ValueError, match=r"b\.tif: 3 bands of uint16, expected 3 of"):
        read_image(path)

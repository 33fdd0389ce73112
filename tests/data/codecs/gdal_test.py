"""What a raster says about itself, against GDAL's own reading."""

import warnings

import numpy as np
import pytest
import rasterio
import tifffile
from rasterio.enums import ColorInterp

from rsclip_jax.data.codecs.gdal import read_with_gdal
from rsclip_jax.data.codecs.geotiff import read_band_files, read_raster
from tests.helpers.geotiffs import north_up, write_by_gdal

GRID = {"crs": "EPSG:32633", "transform": north_up(3e5, 5e6)}


def noise(*shape, dtype=np.uint16, high=4000):
    return np.random.default_rng(0).integers(1, high, shape).astype(dtype)


def masked(path):
    """GDAL's own view: pixels [h, w, bands], and where they are missing."""
    with rasterio.open(path) as file:
        found = file.read(masked=True)
    return np.moveaxis(found.data, 0, -1), np.moveaxis(np.ma.getmaskarray(found), 0, -1)


def missing_of(raster):
    """The missing values as [h, w, bands]."""
    missing = raster.missing
    if missing is None:
        return np.zeros(raster.pixels.shape, bool)
    return np.broadcast_to(missing.reshape(*missing.shape[:2], -1), raster.pixels.shape)


def check_as_gdal(path, bands=None):
    raster, (pixels, missing) = read_raster(path, bands), masked(path)
    np.testing.assert_array_equal(raster.pixels, pixels)
    assert raster.pixels.dtype == pixels.dtype
    gone = missing_of(raster) | ~np.isfinite(raster.pixels)  # NaN says it itself
    np.testing.assert_array_equal(gone, missing)
    return raster


@pytest.mark.parametrize("value", [0, -99, -9999.0, -3.4028234663852886e38, np.nan])
def test_the_nodata_value_of_floats_marks_missing_pixels(tmp_path, value):
    array = -noise(8, 8, 2, dtype=np.float32)
    array[2:4, :, 0] = array[3:5, :, 1] = value
    path = write_by_gdal(tmp_path / "a.tif", array, nodata=value)
    raster = read_raster(path)
    want = np.zeros(array.shape, bool)
    want[2:4, :, 0] = want[3:5, :, 1] = True
    np.testing.assert_array_equal(missing_of(raster) | np.isnan(raster.pixels), want)
    check_as_gdal(path)


@pytest.mark.parametrize(("dtype", "value"), [("u2", 65535), ("u2", 0), ("i2", -32768)])
@pytest.mark.parametrize("options", [{}, {"compress": "zstd"}])
def test_the_nodata_value_of_integers_marks_missing_pixels(
    tmp_path, dtype, value, options
):
    array = noise(8, 8, 3, dtype=np.dtype(dtype))
    array[2:4] = value
    array[5, 5, 1] = value
    raster = check_as_gdal(
        write_by_gdal(tmp_path / "a.tif", array, nodata=value, **options)
    )
    assert raster.missing.sum() == 2 * 8 * 3 + 1
    assert raster.nodata == value
    array[array == value] = 7  # it names a value that no pixel has
    raster = check_as_gdal(write_by_gdal(tmp_path / "b.tif", array, nodata=value))
    assert raster.missing is None


@pytest.mark.parametrize("internal", ["YES", "NO"])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_a_mask_inside_or_beside_the_file_marks_missing_pixels(
    tmp_path, internal, dtype
):
    path, mask = tmp_path / "a.tif", noise(8, 8) > 1000
    write_by_gdal(path, noise(8, 8, 2, dtype=dtype, high=99))
    with (
        rasterio.Env(GDAL_TIFF_INTERNAL_MASK=internal),
        rasterio.open(path, "r+") as file,
    ):
        file.write_mask(mask)
    assert (tmp_path / "a.tif.msk").exists() == (internal == "NO")
    raster = check_as_gdal(path)
    np.testing.assert_array_equal(raster.missing, ~mask)


def test_alpha_masks_the_bands_before_it_unless_so_many_bands_are_wanted(tmp_path):
    array = noise(8, 8, 4, dtype=np.uint8, high=255)
    array[:3, :, 3] = 0
    path = write_by_gdal(tmp_path / "a.tif", array)  # four bands of bytes: RGBA
    for bands in (3, None):
        raster = read_raster(path, bands)
        np.testing.assert_array_equal(raster.pixels, array[..., :3])
        np.testing.assert_array_equal(raster.missing, array[..., 3] == 0)
    raster = read_raster(path, 4)  # red, green, blue and near infrared
    np.testing.assert_array_equal(raster.pixels, array)
    assert raster.missing is None
    path = write_by_gdal(tmp_path / "b.tif", array, nodata=array[5, 5, 1])
    raster = read_raster(path, 4)
    np.testing.assert_array_equal(raster.missing, array == array[5, 5, 1])


def test_south_up_rows_take_their_mask_along(tmp_path):
    array = noise(6, 4, 1, dtype=np.float32)
    array[0, 1:] = -99
    up = rasterio.Affine(10, 0, 3e5, 0, 10, 5e6 - 60)
    path = write_by_gdal(
        tmp_path / "a.tif", array[::-1], nodata=-99, crs=GRID["crs"], transform=up
    )
    raster = read_raster(path)
    np.testing.assert_array_equal(raster.pixels, array)
    np.testing.assert_array_equal(raster.missing, array == -99)
    assert raster.place.transform == north_up(3e5, 5e6)[:6]


def test_names_scales_offsets_and_metadata_are_given_out(tmp_path):
    path = write_by_gdal(tmp_path / "a.tif", noise(4, 4, 2), names=("VH", "VV"), **GRID)
    with rasterio.open(path, "r+") as file:
        file.scales, file.offsets = (1e-4, 1e-4), (-0.1, -0.2)
        file.update_tags(PROCESSING_BASELINE="05.10")
    raster = read_raster(path)
    assert raster.names == ("VH", "VV")
    assert raster.scales == (1e-4, 1e-4)
    assert raster.offsets == (-0.1, -0.2)
    assert raster.tags["PROCESSING_BASELINE"] == "05.10"
    bare = read_raster(write_by_gdal(tmp_path / "b.tif", noise(4, 4, 2)))
    assert (bare.names, bare.scales, bare.offsets) == (("", ""), None, None)


def test_metadata_in_a_file_beside_the_raster_counts(tmp_path):
    path = write_by_gdal(tmp_path / "a.tif", noise(4, 4), **GRID)
    assert read_raster(path).names == ("",)
    (tmp_path / "a.tif.aux.xml").write_text(
        '<PAMDataset><PAMRasterBand band="1"><Description>B8A</Description>'
        "<NoDataValue>7</NoDataValue></PAMRasterBand></PAMDataset>"
    )
    raster = read_raster(path)
    assert (raster.names, raster.nodata) == (("B8A",), 7)


@pytest.mark.parametrize("bits", [1, 4, 7, 10, 12, 14, 15])
def test_samples_of_few_bits_have_gdals_values(tmp_path, bits):
    dtype = np.uint8 if bits < 8 else np.uint16
    array = noise(9, 9, dtype=dtype, high=2**bits) if bits > 1 else noise(9, 9) % 2
    array = array.astype(dtype)
    path = write_by_gdal(tmp_path / "a.tif", array, nbits=bits)
    np.testing.assert_array_equal(check_as_gdal(path).pixels[..., 0], array)
    np.testing.assert_array_equal(read_band_files([path]).pixels[..., 0], array)


@pytest.mark.parametrize("nodata", [None, 7])
def test_absent_blocks_are_empty_or_missing(tmp_path, nodata):
    path, part = tmp_path / "a.tif", noise(16, 16)
    tiles = {"tiled": True, "blockxsize": 16, "blockysize": 16, "sparse_ok": True}
    size = {"height": 32, "width": 32, "count": 1, "dtype": "uint16"}
    with rasterio.open(path, "w", "GTiff", **size, **tiles, nodata=nodata) as file:
        file.write(part, 1, window=((0, 16), (0, 16)))
    raster = check_as_gdal(path)
    assert (raster.pixels[16:] == (nodata or 0)).all()
    assert (raster.missing is None) == (nodata is None)


@pytest.mark.parametrize("orientation", range(2, 9))
def test_the_orientation_tag_turns_no_reader(tmp_path, orientation):
    """As in GDAL; other decoders turn such a file, and a sensor's rows with it."""
    path, array = tmp_path / "a.tif", noise(4, 6)
    tags = [(274, "H", 1, orientation, True)]
    tifffile.imwrite(path, array, extratags=tags, metadata=None)
    np.testing.assert_array_equal(check_as_gdal(path).pixels[..., 0], array)


def test_pages_are_bands_in_their_order(tmp_path):
    path, array = tmp_path / "a.tif", noise(13, 8, 6)  # the tenth page sorts before 2
    tifffile.imwrite(path, array)
    with rasterio.open(path) as file:
        assert len(file.subdatasets) == 13
    np.testing.assert_array_equal(read_raster(path).pixels, np.moveaxis(array, 0, -1))


def test_pages_of_several_images_are_refused(tmp_path):
    path = tmp_path / "a.tif"
    with tifffile.TiffWriter(path) as file:
        file.write(noise(8, 8))
        file.write(noise(4, 4))
    with pytest.raises(ValueError, match=r"a\.tif: its 2 pages are not bands of one"):
        read_raster(path)


def test_overviews_are_no_pages(tmp_path):
    path = write_by_gdal(tmp_path / "a.tif", noise(64, 64), **GRID)
    with rasterio.open(path, "r+") as file:
        file.build_overviews([2, 4])
    assert check_as_gdal(path).pixels.shape == (64, 64, 1)


@pytest.mark.parametrize("codec", ["lzw", "zstd", "lerc", "lzma", "packbits", "webp"])
@pytest.mark.parametrize("dtype", ["uint16", "float32"])
def test_every_codec_of_gdal_is_read(tmp_path, codec, dtype):
    dtype = "uint8" if codec == "webp" else dtype
    options = {"predictor": 3} if (codec, dtype) == ("zstd", "float32") else {}
    options |= {"webp_lossless": True} if codec == "webp" else {}
    array = noise(16, 16, 3, dtype=np.dtype(dtype), high=250)
    path = write_by_gdal(tmp_path / "a.tif", array, compress=codec, **options)
    np.testing.assert_array_equal(check_as_gdal(path).pixels, array)


def test_jpeg_2000_is_read(tmp_path):
    array = noise(32, 32, 3)
    options = {"driver": "JP2OpenJPEG", "quality": 100, "reversible": True}
    path = write_by_gdal(tmp_path / "a.JP2", array, **options, **GRID)
    raster = read_raster(path)
    np.testing.assert_array_equal(raster.pixels, array)
    assert raster.place.crs == "EPSG:32633"
    path.write_bytes(path.read_bytes()[:900])
    with pytest.raises(ValueError, match=r"a\.JP2: unreadable or cut .*fetch the file"):
        read_raster(path)


def test_a_codec_that_is_not_there_is_named_and_not_called_damage(tmp_path):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, noise(16, 16), compression="jpegxl")
    with pytest.raises(ValueError, match=r"a\.tif: its compression \(JXL\)") as error:
        read_raster(path)
    assert "conda-forge" in str(error.value)
    assert "fetch" not in str(error.value)


def test_nothing_is_written_beside_a_file_nor_printed(tmp_path, capfd):
    path = write_by_gdal(tmp_path / "a.tif", noise(8, 8), nbits=12)
    with warnings.catch_warnings(record=True) as caught:
        read_raster(path)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(ValueError, match="unreadable or cut"):
        read_raster(path)
    assert caught == []
    assert [p.name for p in tmp_path.iterdir()] == ["a.tif"]
    assert capfd.readouterr() == ("", "")


def test_a_coarse_bands_missing_pixels_grow_with_it(tmp_path):
    coarse, fine = noise(4, 4), noise(8, 8)
    coarse[0, 0] = 0
    paths = [
        write_by_gdal(tmp_path / f"{name}.tif", array, nodata=0, compress="lzw")
        for name, array in (("coarse", coarse), ("fine", fine))
    ]
    raster = read_band_files(paths)
    want = np.zeros((8, 8, 2), bool)
    want[:3, :3, 0] = True  # all that the corner takes part in
    np.testing.assert_array_equal(raster.missing, want)


@pytest.mark.parametrize("dtype", ["int8", "int32", "uint32", "int64"])
def test_coarse_bands_of_integers_that_opencv_lacks_are_enlarged(tmp_path, dtype):
    bands = [noise(side, side, dtype=np.dtype(dtype), high=99) for side in (4, 8)]
    paths = [tmp_path / "a.tif", tmp_path / "b.tif"]
    for path, band in zip(paths, bands, strict=True):
        tifffile.imwrite(path, band)
    got = read_band_files(paths).pixels
    assert got.dtype == dtype
    np.testing.assert_array_equal(got[..., 1], bands[1])
    assert bands[0].min() <= got[..., 0].min() <= got[..., 0].max() <= bands[0].max()


def test_colour_bands_keep_their_meaning(tmp_path):
    path = write_by_gdal(tmp_path / "a.tif", noise(4, 4, 2))
    with rasterio.open(path, "r+") as file:
        file.colorinterp = (ColorInterp.gray, ColorInterp.alpha)
    assert read_with_gdal(path, "GTiff", 1).pixels.shape == (4, 4, 1)
    assert read_with_gdal(path, "GTiff", 2).pixels.shape == (4, 4, 2)

"""The fast decoder against GDAL, over a generated matrix of files."""

import io
import itertools
import struct

import numpy as np
import pytest
import rasterio
import tifffile

from rsclip_jax.data.codecs.geotiff import read_raster
from rsclip_jax.data.codecs.plain_tiffs import decode_plain, look_at_tags
from tests.helpers.geotiffs import geo_tags, north_up, write_by_gdal

DTYPES = ("uint8", "int8", "uint16", "int16", "uint32", "int32", "float32", "float64")
CODECS = ("none", "lzw", "deflate", "zstd", "packbits", "lerc")
HEIGHT, WIDTH = 21, 19  # multiples of no block


def values(dtype, bands, high=None):
    """Smooth and rough values, so that predictors and codecs have work to do."""
    y, x, b = np.mgrid[:HEIGHT, :WIDTH, :bands]
    rough = np.random.default_rng(bands).integers(0, 40, y.shape)
    array = (3 * y + 5 * x + 20 * b + rough) % 120
    if np.dtype(dtype).itemsize > 1:
        array = array * 37 % (high or 4000)
    return (array + 0.25).astype(dtype) if dtype[0] == "f" else array.astype(dtype)


def by_gdal():
    """(name, array, options of GDAL) of every file that it writes."""
    axes = itertools.product(
        DTYPES, (1, 2, 3, 13), CODECS, (1, 2, 3), (False, True), ("band", "pixel")
    )
    for dtype, bands, codec, predictor, tiled, interleave in axes:
        if predictor > 1 and codec not in ("lzw", "deflate", "zstd"):
            continue
        if predictor == 3 and dtype[0] != "f":
            continue
        if (bands == 1 and interleave == "pixel") or (dtype == "int8" == codec):
            continue
        order = ("LITTLE", "BIG")[(bands + tiled + len(dtype)) % 2]
        options = {"tiled": tiled, "interleave": interleave, "endianness": order}
        options |= {"blockxsize": 16, "blockysize": 16} if tiled else {"blockysize": 8}
        options |= {"predictor": predictor} if predictor > 1 else {}
        options |= {"compress": codec} if codec != "none" else {}
        yield f"{dtype}-{bands}-{codec}", values(dtype, bands), options
    for bits, bands, codec in itertools.product(range(9, 16), (1, 3), CODECS[:3]):
        options = {"nbits": bits} | ({"compress": codec} if codec != "none" else {})
        yield f"{bits} bits-{bands}-{codec}", values("uint16", bands, 2**bits), options


def compare(path, files):
    """Writes and reads the files; returns (number, that of plain ones)."""
    count, fast = 0, 0
    for name, array, options in files:
        write_by_gdal(path, array, **options)
        with rasterio.open(path) as file:
            want = np.moveaxis(file.read(), 0, -1)
        found = read_raster(path)
        np.testing.assert_array_equal(found.pixels, want, err_msg=f"{name} {options}")
        assert found.pixels.dtype == want.dtype, (name, options)
        assert found.pixels.flags.writeable
        count += 1
        fast += look_at_tags(path.read_bytes()) is not None
    return count, fast


@pytest.mark.slow
def test_every_file_has_gdals_values(tmp_path):
    count, fast = compare(tmp_path / "a.tif", by_gdal())
    assert count >= 900
    assert fast == 87  # uncompressed strips, and single bands of 16 bits or float32


def test_a_sample_of_the_files_has_gdals_values(tmp_path):
    count, fast = compare(tmp_path / "a.tif", itertools.islice(by_gdal(), 0, None, 11))
    assert count > 50
    assert fast > 7


def test_bands_of_uncompressed_and_packed_files_are_decoded_fast(tmp_path):
    path = tmp_path / "a.tif"
    for dtype, codec in itertools.product(("uint16", "float32"), CODECS[:3]):
        options = {"compress": codec} if codec != "none" else {}
        write_by_gdal(path, values(dtype, 1), **options)
        assert look_at_tags(path.read_bytes()), (dtype, codec)
    write_by_gdal(path, values("uint16", 13))
    assert look_at_tags(path.read_bytes())


NOT_PLAIN = {
    "nodata": {"nodata": -99.5},
    "mask": {},
    "scale": {},
    "names": {"names": ("VV",)},
    "bits": {"nbits": 12},
    "bigtiff": {"BIGTIFF": "YES"},
    "codec": {"compress": "zstd"},
    "orientation": {},
    "bare place": {},
    "unknown tag": {},
    "pages": {},
}


@pytest.mark.parametrize("kind", NOT_PLAIN)
def test_what_needs_gdal_is_not_plain(tmp_path, kind):
    path, array = tmp_path / "a.tif", values("float32", 1)
    array = array.astype(np.uint16) if kind == "bits" else array
    tags = {
        "orientation": [(274, "H", 1, 3, True)],
        "bare place": geo_tags()[:2],
        "unknown tag": [(65000, "s", 2, "x", True)],
    }.get(kind)
    if tags or kind == "pages":
        pages = np.stack([array[..., 0]] * 2) if kind == "pages" else array[..., 0]
        tifffile.imwrite(path, pages, extratags=tags or (), metadata=None)
    else:
        write_by_gdal(path, array, **NOT_PLAIN[kind])
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(path, "r+") as file:
        if kind == "mask":
            file.write_mask(array[..., 0] > 9)
        elif kind == "scale":
            file.scales = (0.01,)
    assert look_at_tags(path.read_bytes()) is None
    write_by_gdal(path, array)
    assert look_at_tags(path.read_bytes())


@pytest.mark.parametrize("compress", [None, "lzw"])
def test_a_wrong_byte_gives_gdals_reading_or_an_error_with_the_name(tmp_path, compress):
    """The look at the tags is not led astray by damaged ones."""
    path = tmp_path / "damaged.tif"
    options = {"crs": "EPSG:32633", "transform": north_up(3e5, 5e6)}
    options |= {"compress": compress} if compress else {}
    write_by_gdal(path, values("uint16", 1)[:5, :5], **options)
    data = path.read_bytes()
    for at in range(0, len(data), 3):
        damaged = bytearray(data)
        damaged[at] ^= 0xFF
        if not (plain := look_at_tags(bytes(damaged))):
            continue
        pixels = decode_plain(bytes(damaged), plain)
        path.write_bytes(damaged)
        if pixels is None:
            continue
        try:
            with rasterio.open(path) as file:
                want = file.read(1)
        except rasterio.RasterioIOError:
            continue  # GDAL checks more; no value was guessed
        np.testing.assert_array_equal(pixels[..., 0], want, err_msg=str(at))


def test_bytes_cut_anywhere_are_not_plain(tmp_path):
    path = write_by_gdal(tmp_path / "a.tif", values("uint16", 1))
    data = path.read_bytes()
    assert look_at_tags(data)
    for end in range(len(data)):
        assert look_at_tags(data[:end]) is None
    assert look_at_tags(b"no TIFF at all") is None
    assert look_at_tags(struct.pack("<2sHI", b"II", 42, 2**32 - 1)) is None


def test_files_of_one_size_are_not_taken_for_each_other(tmp_path):
    """The bytes before the pixels are parsed once for all files that share them."""
    files, array = [], values("uint16", 1)
    for i in range(6):
        path = tmp_path / f"{i}.tif"
        place = {"crs": "EPSG:32633", "transform": north_up(3e5 + 10 * (i % 3), 5e6)}
        write_by_gdal(path, array + i, nodata=100 + i % 2, **place)
        files.append(path)
    assert len({path.stat().st_size for path in files}) == 1
    for path in files + files[::-1]:
        raster = read_raster(path)
        with rasterio.open(path) as file:
            np.testing.assert_array_equal(raster.pixels[..., 0], file.read(1))
            assert raster.nodata == file.nodata
            assert raster.place.transform == file.transform[:6]


def test_a_tile_larger_than_any_decoder_should_make_room_for_is_not_plain():
    out = io.BytesIO()
    options = {"tile": (16, 16), "compression": "lzw"}
    tifffile.imwrite(out, np.ones((16, 16), np.uint16), **options)
    data = out.getvalue()
    for side, plain in ((16, True), (4096, True), (4112, False)):
        tags = bytearray(data)
        for tag in (322, 323):  # width and height of a tile
            at = data.index(struct.pack("<HHI", tag, 4, 1))
            struct.pack_into("<I", tags, at + 8, side)
        assert (look_at_tags(bytes(tags)) is not None) == plain

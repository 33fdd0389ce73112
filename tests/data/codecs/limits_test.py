"""No road decodes an image that says it has more pixels than max_pixels."""

import io

import cv2
import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import rasterio
import tifffile
from PIL import Image

from rsclip_jax.data.codecs.geotiff import read_band_files, read_raster
from rsclip_jax.data.codecs.images import decode_image, read_image, told_size
from rsclip_jax.data.codecs.limits import TooLarge, check_pixels
from rsclip_jax.data.codecs.pictures import read_picture
from rsclip_jax.data.datasets import open_source
from rsclip_jax.data.pipeline.tolerant import Tolerant
from rsclip_jax.data.types import OpenOptions, ReadOptions
from tests.helpers.tars import write_tar

FORMS = ("png", "jpg", "webp", "bmp", "tif", "jp2")


def pixels(h=20, w=30, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (h, w, 3), np.uint8)


def image(form, h=20, w=30, **options):
    out, name = io.BytesIO(), {"jpg": "jpeg", "tif": "tiff", "jp2": "jpeg2000"}
    Image.fromarray(pixels(h, w)).save(out, name.get(form, form), **options)
    return out.getvalue()


def test_pixels_are_counted_once_for_sixteen_bands():
    check_pixels(20, 30, "a", 600, 16)
    with pytest.raises(TooLarge, match=r"a: says .* 20 x 30 pixels of 17 bands, more"):
        check_pixels(20, 30, "a", 600, 17)
    with pytest.raises(TooLarge, match=r"65,536 x 4,097 pixels, .* = 268,435,456: cut"):
        check_pixels(2**16, 2**12 + 1, "a")
    check_pixels(2**16, 2**12, "a")


@pytest.mark.parametrize("form", FORMS)
def test_files_of_every_kind_are_read_up_to_the_limit(tmp_path, form):
    path = tmp_path / f"a.{form}"
    path.write_bytes(image(form))
    assert read_image(path, max_pixels=600).shape == (20, 30, 3)
    for read in (read_image, lambda *a, **k: read_picture(*a, **k).pixels):
        with pytest.raises(TooLarge, match=rf"a\.{form}: .* 20 x 30 pixels.* = 599"):
            read(path, max_pixels=599)


@pytest.mark.parametrize("form", ["png", "jpg", "bmp"])
def test_the_size_is_looked_at_before_the_pixels_are(form):
    """Cut within its pixels the file is refused for its size, and not as cut."""
    whole = image(form)
    cut = whole[: len(whole) * 2 // 3] + (whole[-8:] if form == "png" else b"")
    with pytest.raises(TooLarge):
        decode_image(cut, "a", max_pixels=599)
    with pytest.raises(ValueError, match="unreadable or cut"):
        decode_image(cut, "a", max_pixels=600)


@pytest.mark.parametrize(
    "options",
    [
        {"planarconfig": "contig"},  # by our own reader
        {"compression": "zlib", "planarconfig": "separate"},  # by GDAL
        {"tile": (16, 16), "planarconfig": "separate"},
    ],
)
def test_rasters_are_read_up_to_the_limit(tmp_path, options):
    path, bands = tmp_path / "a.tif", 5
    shape = (
        (bands, 20, 30) if options["planarconfig"] == "separate" else (20, 30, bands)
    )
    tifffile.imwrite(
        path, np.ones(shape, np.uint16), photometric="minisblack", **options
    )
    assert read_raster(path, max_pixels=600).pixels.shape == (20, 30, bands)
    with pytest.raises(TooLarge, match=r"a\.tif: .* 20 x 30 pixels of 5 bands"):
        read_raster(path, max_pixels=599)


def test_a_band_for_opencv_and_files_of_one_band_are_read_up_to_the_limit(tmp_path):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, np.ones((20, 20), np.uint16), compression="lzw")
    assert read_band_files([path, path], 400).pixels.shape == (20, 20, 2)
    with pytest.raises(TooLarge):
        read_band_files([path, path], 399)


def test_pages_count_together(tmp_path):
    path = tmp_path / "a.tif"
    with tifffile.TiffWriter(path) as file:
        for i in range(3):
            file.write(pixels(seed=i)[..., 0], compression="zlib", metadata=None)
    assert read_raster(path, max_pixels=1800).pixels.shape == (20, 30, 3)
    with pytest.raises(TooLarge):
        read_raster(path, max_pixels=1799)


def written_by_opencv(form, *flags):
    return cv2.imencode(form, pixels(), list(flags))[1].tobytes()


@pytest.mark.parametrize(
    "data",
    [
        image("png"),
        image("jpg"),
        image("jpg", progressive=True),
        image("jpg", exif=Image.Exif(), comment=b"\xff\xc0\0\x0b\x08\0\1\0\1"),
        written_by_opencv(".jpg", cv2.IMWRITE_JPEG_PROGRESSIVE, 1),
        written_by_opencv(".jpg", cv2.IMWRITE_JPEG_RST_INTERVAL, 2),
        image("jpg")[:2] + b"\xff\xff\xff" + image("jpg")[3:],  # fill bytes
    ],
)
def test_the_size_that_a_file_says_is_the_one_that_it_is_decoded_to(data):
    assert told_size(data) == (20, 30) == decode_image(data, "a").shape[:2]


@pytest.mark.parametrize("form", ["png", "jpg"])
def test_a_file_that_says_no_size_is_no_error(form):
    whole = image(form)
    for end in range(2, 700):
        assert told_size(whole[:end]) in (None, (20, 30))
    assert told_size(b"\xff\xd8\xff\xda" + bytes(20)) is None
    with pytest.raises(ValueError, match="a: unreadable"):
        decode_image(whole[:2] + bytes(100), "a")


def write_folders(root):
    for name in ("Lake", "River"):
        (root / "set" / name).mkdir(parents=True)
        for form in ("png", "tif"):
            (root / "set" / name / f"{name}_{form}.{form}").write_bytes(image(form))
        (root / "set" / name / f"{name}_big.jpg").write_bytes(image("jpg", 21))
    (root / "mine.toml").write_text(
        'reader = "class_folders"\nfolder = "set"\ntask = "single"\n'
        'templates = ["a photo of a {c}."]\n[sensors]\nrgb = "rgb"\n'
    )
    return root / "mine.toml", ["River/River_big", "Lake/Lake_big"]


def write_parquet(root):
    cells = [{"bytes": image("png", 20 + i // 3), "path": f"{i}.png"} for i in range(4)]
    table = pyarrow.table({"id": [str(i) for i in range(4)], "photo": cells})
    pyarrow.parquet.write_table(table, root / "t.parquet")
    (root / "mine.toml").write_text(
        'reader = "parquet"\ntable = "t.parquet"\ntask = "none"\n'
        '[columns]\nid = "id"\nrgb = "photo"\n[sensors]\nrgb = "rgb"\n'
    )
    return root / "mine.toml", ["3"]


def write_webdataset(root):
    folder = root / "wds" / "train"
    folder.mkdir(parents=True)
    members = {f"{i}.png": image("png", 20 + i // 3) for i in range(4)}
    write_tar(folder / "0.tar", members)
    (folder / "nshards.txt").write_text("1")
    return "wds:wds", ["train/0/3"]


@pytest.mark.parametrize("write", [write_folders, write_parquet, write_webdataset])
def test_a_record_of_too_many_pixels_is_a_bad_record(tmp_path, write, capsys):
    name, large = write(tmp_path)
    options = {"max_pixels": 600}
    source = open_source(str(name), tmp_path, **options)
    assert source.max_pixels == 600
    with pytest.raises(TooLarge, match="max_pixels = 600"):
        [source[i] for i in range(len(source))]
    skipped = tmp_path / "skipped.txt"
    tolerant = Tolerant(source, ReadOptions(on_error="skip", skipped=skipped))
    masks = {source.ids[i]: tolerant[i]["mask"] for i in range(len(source))}
    assert sorted(id_ for id_, good in masks.items() if not good) == sorted(large)
    listed = [line.split("\t")[1] for line in skipped.read_text().splitlines()]
    assert sorted(listed) == sorted(large)
    every = open_source(str(name), tmp_path)
    assert all(every[i]["rgb"].shape[1] == 30 for i in range(len(every)))


def test_the_grid_onto_which_a_file_is_warped_counts(tmp_path):
    place = {"crs": "EPSG:32632", "transform": rasterio.Affine(10, 0, 0, 0, -10, 0)}
    for key, side in (("rgb", 20), ("s1", 10)):
        (tmp_path / "set" / key).mkdir(parents=True)
        bands, dtype = (3, "uint8") if key == "rgb" else (2, "float32")
        profile = {"driver": "GTiff", "count": bands, "dtype": dtype, **place}
        path = tmp_path / "set" / key / "a.tif"
        with rasterio.open(path, "w", height=side, width=side, **profile) as file:
            file.write(np.full((bands, side, side), 7 if bands == 3 else -9, dtype))
    (tmp_path / "mine.toml").write_text(
        'reader = "paired_folders"\nfolder = "set"\ntask = "none"\nreproject = true\n'
        '[sensors]\nrgb = "rgb"\ns1 = "s1_grd"\n[subfolders]\nrgb = "rgb"\ns1 = "s1"\n'
    )
    source = open_source(str(tmp_path / "mine.toml"), max_pixels=399)
    with pytest.raises(TooLarge, match=r"rgb.a\.tif: .* 20 x 20 pixels"):
        source.read(0, ["s1"])


def test_the_limit_is_a_number_of_pixels():
    with pytest.raises(ValueError, match="max_pixels = 0 should be 1 or more"):
        OpenOptions(max_pixels=0)


def test_more_bands_than_any_sensor_has_are_refused():
    check_pixels(1, 1, "a", bands=4096)
    with pytest.raises(TooLarge, match=r"a: says that it has 4,097 bands, and 4,096"):
        check_pixels(1, 1, "a", bands=4097)


def test_a_tile_larger_than_its_image_counts(tmp_path):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, pixels(), tile=(64, 64), compression="zlib")
    assert read_raster(path, max_pixels=64 * 64).pixels.shape == (20, 30, 3)
    with pytest.raises(TooLarge, match=r"a\.tif: a tile: says .* 64 x 64 pixels, more"):
        read_raster(path, max_pixels=64 * 64 - 1)


def test_a_chunk_of_a_png_longer_than_the_file_is_read_by_pillow_alone():
    whole = image("png")
    assert told_size(whole) == (20, 30)
    at = whole.index(b"IDAT") - 4
    longer = whole[:at] + (len(whole)).to_bytes(4, "big") + whole[at + 4 :]
    assert told_size(longer) is None
    np.testing.assert_array_equal(decode_image(longer, "a"), pixels())

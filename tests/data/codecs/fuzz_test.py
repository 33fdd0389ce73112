"""Tars and pictures, changed at random: refused by name, or read as what they say.

tests/weights/README.md has the counts, the longest time and the most memory.
"""

import io
import struct
import tarfile

import numpy as np
import pytest
import tifffile
from PIL import Image, UnidentifiedImageError

from rsclip_jax.data.codecs.geotiff import read_raster
from rsclip_jax.data.codecs.images import read_image
from rsclip_jax.data.codecs.tars import walk_tar
from tests.helpers.fuzz import COUNTS, check_arrays, check_changed

MOST = 2**20  # pixels


def read_members(path) -> dict[str, np.ndarray]:
    whole = path.read_bytes()
    return {
        name: np.frombuffer(whole[at : at + size], np.uint8)
        for name, at, size in walk_tar(path)
    }


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("form", ["pax", "gnu"])
def test_tars(tmp_path, form, count):
    rng = np.random.default_rng(0)
    out = io.BytesIO()
    formats = {"pax": tarfile.PAX_FORMAT, "gnu": tarfile.GNU_FORMAT}
    with tarfile.open(fileobj=out, mode="w", format=formats[form]) as tar:
        for name in ("a.cls", "deep/" * 25 + "a.png", "größe.txt"):
            info = tarfile.TarInfo(name)
            info.size, info.mtime = 24, 1.5
            tar.addfile(info, io.BytesIO(rng.bytes(24)))
    whole, path = out.getvalue().rstrip(b"\0"), tmp_path / "changed.tar"
    whole += bytes(-len(whole) % 512 + 1024)
    path.write_bytes(whole)
    check = check_arrays(whole, read_members(path))
    check_changed(f"tar, {form}", path, whole, read_members, check, count)


def pixels(h=12, w=16):
    return np.random.default_rng(0).integers(0, 256, (h, w, 3), np.uint8)


def written(form, **options) -> bytes:
    out = io.BytesIO()
    Image.fromarray(pixels()).save(out, form, **options)
    return out.getvalue()


def read_picture(path) -> dict[str, np.ndarray]:
    return {"": read_image(path, max_pixels=MOST)}


def check_most(found, data):
    assert found[""].size <= 16 * MOST


def check_picture(found, data):
    """The pixels of a picture are of the size that Pillow finds in its header."""
    array = found[""]
    assert array.dtype == np.uint8
    assert array.shape[-1] == 3
    assert array.size <= 3 * MOST
    try:
        image = Image.open(io.BytesIO(data))
    except UnidentifiedImageError:  # OpenCV reads it all the same
        return
    assert array.shape[:2] == (image.height, image.width)


def says_short(data: bytes) -> bool:
    """Whether a PNG has only small numbers as its sides and as its chunks' lengths."""
    at = 8
    while at + 8 <= len(data):
        (length,) = struct.unpack_from(">I", data, at)
        if length > 2**16:
            return False
        at += 12 + length
    return max(struct.unpack_from(">II", data.ljust(24, b"\0"), 16)) <= 2**16


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize(
    ("form", "whole"),
    [
        ("png", written("png")),
        ("jpg", written("jpeg")),
        ("jpg, progressive", written("jpeg", progressive=True)),
    ],
)
def test_pictures(tmp_path, form, whole, count):
    path = tmp_path / f"changed.{form[:3]}"
    little = says_short if form == "png" else lambda data: True
    check_changed(
        form, path, whole, read_picture, check_picture, count, harmless=little
    )


def tiff(bands=3, **options) -> tuple[bytes, np.ndarray]:
    out, array = io.BytesIO(), pixels()[..., :bands].astype(np.uint16).squeeze()
    tifffile.imwrite(out, array, photometric="minisblack", metadata=None, **options)
    return out.getvalue(), array.reshape(*array.shape[:2], bands)


def says_little(data: bytes) -> bool:
    """Whether a TIFF has only small numbers in its tags: sizes, counts and places."""
    order = "<" if data[:2] == b"II" else ">"
    try:
        (start,) = struct.unpack_from(f"{order}I", data, 4)
        (count,) = struct.unpack_from(f"{order}H", data, start)
        for i in range(count):
            at = start + 2 + 12 * i
            tag, kind, length = struct.unpack_from(f"{order}HHI", data, at)
            letters = "HH" if kind == 3 and length < 3 else "I"
            values = struct.unpack_from(f"{order}{letters}", data, at + 8)
            if length > 64 or max(values) > (64 if tag == 277 else 4096):
                return False
    except struct.error:
        pass  # cut short
    return True


def read_bands(path) -> dict[str, np.ndarray]:
    return {"": read_raster(path, max_pixels=MOST).pixels}


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize(
    ("form", "options"),
    [
        ("tif, plain", {"planarconfig": "contig", "rowsperstrip": 6}),
        ("tif, tiles", {"planarconfig": "contig", "tile": (16, 16)}),
        ("tif, lzw", {"bands": 1, "compression": "lzw"}),
        ("tif, deflate", {"planarconfig": "contig", "compression": "zlib"}),
    ],
)
def test_rasters(tmp_path, form, options, count):
    whole, array = tiff(**options)
    path = tmp_path / "changed.tif"
    path.write_bytes(whole)
    np.testing.assert_array_equal(read_bands(path)[""], array)
    most, check = 16 * 8 * MOST, check_most
    if "plain" in form:  # its pixels lie in it as they are
        check = check_arrays(whole, {"": array}, most)
    check_changed(form, path, whole, read_bands, check, count, harmless=says_little)

"""Where GeoTIFFs say that they lie: of one place or not."""

import io

import numpy as np
import pytest
import tifffile

from rsclip_jax.data.codecs.footprints import check_one_place, read_footprints
from rsclip_jax.data.codecs.geotiff import read_band_files, read_tif
from tests.helpers.geotiffs import geo_tags


def geo_tif(path, side, pixel=10.0, **place):
    """A GeoTIFF of one band."""
    band = np.ones((side, side), np.uint16)
    tifffile.imwrite(path, band, extratags=geo_tags(pixel, **place))
    return path


def check_places(max_shift, *paths):
    found = []
    read_band_files(paths, found)
    assert [f.path for f in found] == list(paths)
    check_one_place(found, max_shift)


def test_files_of_one_place_pass_at_any_pixel_size(tmp_path):
    fine = geo_tif(tmp_path / "fine.tif", 12)
    coarse = geo_tif(tmp_path / "coarse.tif", 2, 60.0)
    near = geo_tif(tmp_path / "near.tif", 12, left=300010.0, top=5000030.0)
    check_places(1.0, fine, coarse)
    check_places(0.0, fine, coarse)
    check_places(1.0, coarse, near, fine)
    check_one_place([], 1.0)


@pytest.mark.parametrize(
    ("changed", "max_shift", "fault"),
    [
        ({"epsg": 32634}, np.inf, "are not in one CRS"),
        ({"left": 300000.0 + 120}, np.inf, "do not overlap"),
        ({"top": 5000040.0 - 120}, np.inf, "do not overlap"),
        ({"left": 300000.0 + 11}, 1.0, r"lie 1\.1 pixels apart, more than 1"),
        ({"top": 5000040.0 + 25}, 1.0, r"lie 2\.5 pixels apart"),
        ({"side": 14}, 1.0, "lie 2 pixels apart"),  # other ground to the right
        ({"pixel": 12.0}, 1.0, "lie 2 pixels apart"),  # 24 m of 12
    ],
)
def test_files_of_two_places_are_both_named_with_what_they_say(
    tmp_path, changed, max_shift, fault
):
    one = geo_tif(tmp_path / "one.tif", 12)
    other = geo_tif(tmp_path / "other.tif", **{"side": 12, **changed})
    with pytest.raises(ValueError, match=fault) as error:
        check_places(max_shift, one, other)
    text = str(error.value)
    assert f"{one} (EPSG:32633, 300000, 4999920, 300120, 5000040)" in text
    assert f"{other} (EPSG:{changed.get('epsg', 32633)}, " in text
    assert text.endswith("not of one place: pair the right files")


def test_a_tiepoint_within_the_image_and_a_large_shift_that_is_allowed(tmp_path):
    plain = geo_tif(tmp_path / "plain.tif", 12)
    far = geo_tif(tmp_path / "far.tif", 12, left=300050.0)
    check_places(5.0, plain, far)
    inner = {"left": 300030.0, "top": 5000020.0, "tie": (3.0, 2.0)}
    check_places(0.0, plain, geo_tif(tmp_path / "inner.tif", 12, **inner))


def test_what_the_tags_do_not_tell_is_not_guessed(tmp_path):
    plain, found = tmp_path / "plain.tif", []
    tifffile.imwrite(plain, np.ones((12, 12), np.uint16))
    read_tif(plain, found)
    assert found == []
    read_tif(geo_tif(tmp_path / "a.tif", 12), found)
    read_tif(geo_tif(tmp_path / "b.tif", 12, epsg=32767, left=0.0), found)
    assert [f.epsg for f in found] == [32633, 0]
    check_one_place(found, 1.0)  # one of the two has a CRS of its own
    read_tif(geo_tif(tmp_path / "c.tif", 12, epsg=4326), found)
    assert found[-1].epsg == 4326


@pytest.mark.parametrize("order", ["<", ">"])
def test_the_tags_are_those_of_tifffile(tmp_path, order):
    path = tmp_path / "a.tif"
    tags = [
        (33550, "d", 3, (20.0, 10.0, 0.0), True),
        (33922, "d", 6, (0.0, 0.0, 0.0, 5.5, 9.5, 0.0), True),
        (34735, "H", 8, (1, 1, 0, 1, 3072, 0, 1, 3035), True),
    ]
    tifffile.imwrite(path, np.ones((7, 300), np.uint8), byteorder=order, extratags=tags)
    (found,) = read_footprints(path, path.read_bytes())
    assert found.epsg == 3035
    box = found.left, found.top, found.right, found.bottom
    assert box == (5.5, 9.5, 5.5 + 300 * 20, 9.5 - 7 * 10)
    with tifffile.TiffFile(path) as file:
        page = file.pages[0]
        assert found.pixel == page.tags[33550].value[:2]
        assert (page.imagewidth, page.imagelength) == (300, 7)


def test_bytes_that_tell_no_place_tell_none(tmp_path):
    path = geo_tif(tmp_path / "a.tif", 12)
    data = path.read_bytes()
    assert len(read_footprints(path, data)) == 1
    for end in range(len(data)):
        found = read_footprints(path, data[:end])
        assert found == [] or found == read_footprints(path, data)
    big = io.BytesIO()
    tifffile.imwrite(big, np.ones((4, 4), np.uint16), bigtiff=True)
    assert read_footprints(path, big.getvalue()) == []
    assert read_footprints(path, b"no TIFF at all") == []


def test_the_real_pairs_are_of_one_place(real_data):
    root = real_data / "bigearthnet" / "BigEarthNet-v1.0"
    patches = [p for p in root.iterdir() if p.is_dir()]
    for patch in patches:
        files, found = sorted(patch.glob("*.tif")), []
        read_band_files(files, found)
        assert len(found) == 12
        check_one_place(found, 1.0)

"""TIFFs against tifffile's own reading, damaged files, and footprints."""

import io

import numpy as np
import pytest
import tifffile

from rsclip_jax.data.codecs.geotiff import (
    check_same_location,
    read_band_files,
    read_footprints,
    read_tif,
)
from rsclip_jax.data.sensors import SENSORS
from rsclip_jax.data.sources.files import read_sensor
from tests.helpers.geotiffs import geo_tags

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
    np.testing.assert_array_equal(read_tif(path), want)


def test_one_page_per_band_is_read(tmp_path):
    want = noise(8, 6, 13)
    tifffile.imwrite(tmp_path / "a.tif", want.transpose(2, 0, 1))
    np.testing.assert_array_equal(read_tif(tmp_path / "a.tif"), want)


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
    out = read_band_files(paths)
    assert out.shape == (12, 12, 3)
    assert out.dtype == np.uint16
    np.testing.assert_array_equal(out[..., 1], 2)  # a constant stays


def test_enlarging_is_bilinear_between_pixel_centres(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", np.array([[0, 100], [0, 100]], np.float32))
    tifffile.imwrite(tmp_path / "fine.tif", np.zeros((4, 4), np.float32))
    got = read_band_files([tmp_path / "a.tif", tmp_path / "fine.tif"])[0, :, 0]
    np.testing.assert_allclose(got, [0, 25, 75, 100])  # ends repeat


def test_the_finest_band_is_unchanged(tmp_path):
    want = noise(12, 12)
    tifffile.imwrite(tmp_path / "a.tif", want)
    (coarse,) = write_bands(tmp_path, (6,))
    got = read_band_files([tmp_path / "a.tif", coarse])
    np.testing.assert_array_equal(got[..., 0], want)


@pytest.mark.parametrize("cut", [0, 4, 300, -10])
def test_cut_files_are_named(tmp_path, cut):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, noise(20, 20))
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(ValueError, match=r"a\.tif: unreadable or cut TIFF"):
        read_tif(path)


def test_missing_mixed_and_oblong_bands_are_named(tmp_path):
    paths = write_bands(tmp_path, (6, 6))
    with pytest.raises(FileNotFoundError, match=r"none\.tif is missing"):
        read_band_files([paths[0], tmp_path / "none.tif"])
    tifffile.imwrite(tmp_path / "f.tif", np.zeros((6, 6), np.float32))
    with pytest.raises(ValueError, match=r"f\.tif: float32, but b0\.tif is uint16"):
        read_band_files([paths[0], tmp_path / "f.tif"])
    tifffile.imwrite(tmp_path / "o.tif", np.zeros((6, 5), np.uint16))
    with pytest.raises(ValueError, match=r"o\.tif: \(6, 5\) pixels"):
        read_band_files([tmp_path / "o.tif"])


def test_bands_in_another_order_are_moved_by_name(tmp_path):
    order = (*[b for b in S2.bands if b != "B8A"], "B8A")  # EuroSAT's
    array = noise(8, 8, 13)
    write(tmp_path / "a.tif", array)
    got = read_sensor(tmp_path / "a.tif", S2, order)
    np.testing.assert_array_equal(got[..., 8], array[..., 12])
    np.testing.assert_array_equal(got[..., 9], array[..., 8])
    with pytest.raises(ValueError, match=r"a\.tif.*\(8, 8, 13\).*B12"):
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
    found = read_band_files([path])
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
            read_band_files([path])[..., 0], tifffile.imread(path)
        )


# Footprints.


def geo_tif(path, side, pixel=10.0, **location):
    """A GeoTIFF of one band."""
    band = np.ones((side, side), np.uint16)
    tifffile.imwrite(path, band, extratags=geo_tags(pixel, **location))
    return path


def check_folders(max_shift, *paths):
    found = []
    read_band_files(paths, found)
    assert [f.path for f in found] == list(paths)
    check_same_location(found, max_shift)


def test_files_of_one_location_pass_at_any_pixel_size(tmp_path):
    fine = geo_tif(tmp_path / "fine.tif", 12)
    coarse = geo_tif(tmp_path / "coarse.tif", 2, 60.0)
    near = geo_tif(tmp_path / "near.tif", 12, left=300010.0, top=5000030.0)
    check_folders(1.0, fine, coarse)
    check_folders(0.0, fine, coarse)
    check_folders(1.0, coarse, near, fine)
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
        check_folders(max_shift, one, other)
    text = str(error.value)
    assert f"{one} (EPSG:32633, 300000, 4999920, 300120, 5000040)" in text
    assert f"{other} (EPSG:{changed.get('epsg', 32633)}, " in text
    assert text.endswith("do not cover the same ground: pair the right files")


def test_a_tiepoint_inside_the_image_and_a_large_allowed_shift(tmp_path):
    plain = geo_tif(tmp_path / "plain.tif", 12)
    far = geo_tif(tmp_path / "far.tif", 12, left=300050.0)
    check_folders(5.0, plain, far)
    inner = {"left": 300030.0, "top": 5000020.0, "tie": (3.0, 2.0)}
    check_folders(0.0, plain, geo_tif(tmp_path / "inner.tif", 12, **inner))


def test_missing_tags_are_not_guessed(tmp_path):
    plain, found = tmp_path / "plain.tif", []
    tifffile.imwrite(plain, np.ones((12, 12), np.uint16))
    read_tif(plain, found)
    assert found == []
    read_tif(geo_tif(tmp_path / "a.tif", 12), found)
    read_tif(geo_tif(tmp_path / "b.tif", 12, epsg=32767, left=0.0), found)
    assert [f.epsg for f in found] == [32633, 0]
    check_same_location(found, 1.0)  # one of the two has a CRS of its own
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


def test_bytes_without_a_location_give_no_footprint(tmp_path):
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


def test_real_pairs_show_one_location(real_data):
    root = real_data / "bigearthnet" / "BigEarthNet-v1.0"
    patches = [p for p in root.iterdir() if p.is_dir()]
    for patch in patches:
        files, found = sorted(patch.glob("*.tif")), []
        read_band_files(files, found)
        assert len(found) == 12
        check_same_location(found, 1.0)

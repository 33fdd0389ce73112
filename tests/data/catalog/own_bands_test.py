"""Scale, offset and composites in a dataset's file."""

import numpy as np
import pytest
import tifffile

from rsclip_jax.data.datasets import open_source

TOP = 'reader = "folder"\nfolder = "files"\n'
LANDSAT = TOP + '[sensors]\nlandsat = "landsat_oli_sr"\n'


def opened(folder, text):
    (folder / "mine.toml").write_text(text)
    return open_source(folder / "mine.toml")


@pytest.fixture(name="array", scope="module")
def _array():
    return np.random.default_rng(0).integers(7000, 20000, (6, 5, 7), np.uint16)


@pytest.fixture(name="folder")
def _folder(tmp_path, array):
    (tmp_path / "files").mkdir()
    path = tmp_path / "files/a.tif"
    tifffile.imwrite(path, array, photometric="minisblack", planarconfig="contig")
    return tmp_path


def stretch(array, low, high):
    return np.clip((array.astype(float) - low) / (high - low) * 255, 0, 255)


def test_a_composite_has_the_bands_and_the_range_that_are_named(folder, array):
    line = 'rgb = {red = "B6", green = "B5", blue = "B4", range = [8000, 15000]}'
    source = opened(folder, f"{LANDSAT}[composites]\n{line}")
    assert list(source.dataset.sensors) == ["rgb", "landsat"]
    want = stretch(array[..., [5, 4, 3]], 8000, 15000)
    for record in (source[0], source.read(0, ("rgb",))):
        assert record["rgb"].dtype == np.uint8
        np.testing.assert_allclose(record["rgb"], want, atol=0.51)


@pytest.mark.parametrize("value", ['"true_colour"', "{range = [7273, 18182]}"])
def test_a_sensor_with_red_green_and_blue_needs_no_more(folder, array, value):
    source = opened(folder, f"{LANDSAT}[composites]\nrgb = {value}")
    # reflectance 0 to 0.3, as USGS scales Collection 2
    reflectance = array[..., [3, 2, 1]] * 2.75e-5 - 0.2
    np.testing.assert_allclose(source[0]["rgb"], stretch(reflectance, 0, 0.3), atol=0.6)


SAR = TOP + '[sensors]\ns1 = "s1_grd"\n'


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (LANDSAT + '[composites]\nrgb = {red = "B04"}', "'B04' is none of them; name"),
        (
            LANDSAT + "[composites]\nrgb = {range = [9, 1]}",
            r"range = \[9, 1\] should be",
        ),
        (LANDSAT + "[composites]\nrgb = {range = 1}", "range = 1 should be the lowest"),
        (LANDSAT + '[composites]\nrgb = {reds = "B4"}', r"unknown keys \['reds'\]"),
        (LANDSAT + '[composites]\nrgb = {sensor = "s2"}', "name the sensor that it is"),
        (LANDSAT + "[composites]\nrgb = 1", "should be a table of names, or of tables"),
        (LANDSAT + '[composites]\nrgb = "s2_l1c_rgb"', "has none; a table such as"),
        (SAR + '[composites]\nrgb = "true_colour"', "name red, green and blue, where"),
        (
            SAR + '[composites]\nrgb = {red = "VV", green = "VH", blue = "VV"}',
            r"give range = \[LOW, HIGH\], the values in dB",
        ),
        (SAR + "[scale]\ns1 = 0", r"scale\.s1 = \[0\.0\] should not be 0"),
        (SAR + "[scale]\ns1 = [1, 2, 3]", r"scale\.s1 has 3 numbers, .* 2 bands"),
        (SAR + '[scale]\ns1 = "x"', "should be a table of numbers, or of lists of one"),
        (SAR + "[offset]\ns1 = []", "should be a table of numbers"),
        (SAR + "[offset]\ns2 = 1", r"offset has unknown keys \['s2'\]"),
        (TOP + '[sensors]\nrgb = "rgb"\n[scale]\nrgb = 2', "a picture of 8 bits"),
    ],
)
def test_each_fault_is_named(tmp_path, text, words):
    with pytest.raises(ValueError, match=rf"mine\.toml: .*{words}"):
        opened(tmp_path, text)

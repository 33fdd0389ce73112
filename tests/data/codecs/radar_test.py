"""Radar's unit, told by the distribution of its values."""

import numpy as np
import pytest

from rsclip_jax.data.codecs.checks import check_array
from rsclip_jax.data.sensors import SENSORS

S1 = SENSORS["s1_grd"]


def scene(level=(-11.0, -18.0), looks=4.4, side=40, seed=0):
    """Backscatter in dB: two levels of ground, with speckle of so many looks."""
    rng = np.random.default_rng(seed)
    speckle = rng.gamma(looks, 1 / looks, (side, side, len(level)))
    db = np.array(level) + 10 * np.log10(speckle)
    db[: side // 3] += rng.uniform(-6, 3)
    return db.astype(np.float32)


SCENES = {
    "land": scene(),
    "sea": scene((-20.0, -27.0)),
    "city": scene((-2.0, -9.0)),
    "smooth": scene(looks=100),
    "smooth sea": scene((-22.0, -29.0), looks=100),
}


@pytest.mark.parametrize("name", SCENES)
def test_decibels_are_read_as_they_are(name):
    array = SCENES[name]
    assert check_array(array, S1, "a.tif") is array


def test_a_bright_city_of_one_band_is_in_decibels():
    array = scene((2.0, -4.0), looks=2)
    assert np.median(array) > -3.5
    assert check_array(array, S1, "a.tif") is array
    array[:10] = 0  # outside the swath, and the file does not say so
    assert check_array(array, S1, "a.tif") is array


UNITS = {
    "linear power, .* 10 \\* log10": lambda db: 10 ** (db / 10),
    "linear amplitude, .* 20 \\* log10": lambda db: 10 ** (db / 20),
    "dB / 10, .*scale = 10 for s1": lambda db: db / 10,
    "dB \\* 100, .*scale = 0.01 for s1": lambda db: 100 * db,
    "dB \\* 10, .*scale = 0.1 for s1": lambda db: 10 * db,
    "digital numbers, .*calibrate": lambda db: 900 * 10 ** (db / 20),
}


# The amplitude of the sea is as low as the power of land.
CASES = [(name, w) for name in ("land", "smooth", "sea") for w in UNITS]


@pytest.mark.parametrize(
    ("name", "words"), [c for c in CASES if c[0] != "sea" or "amplitude" not in c[1]]
)
def test_each_other_unit_is_named_with_the_conversion_that_fits(name, words):
    array = UNITS[words](SCENES[name]).astype(np.float32)
    with pytest.raises(ValueError, match=rf"a\.tif: the median .* like {words}"):
        check_array(array, S1, "a.tif")


@pytest.mark.parametrize("words", [w for w in UNITS if "linear" in w])
@pytest.mark.parametrize("value", [-1e-6, -0.02, 0])
@pytest.mark.parametrize("share", [1, 60])  # pixels of 1600
def test_a_few_values_below_0_do_not_make_decibels(words, value, share):
    array = UNITS[words](SCENES["land"]).astype(np.float32)
    array.reshape(-1, 2)[:: 1600 // share] = value
    with pytest.raises(ValueError, match=words):
        check_array(array, S1, "a.tif")


def test_noise_around_0_of_calm_water_in_power_is_not_decibels():
    rng = np.random.default_rng(0)
    array = rng.normal(0, 1e-3, (20, 20, 2)).astype(np.float32)
    with pytest.raises(ValueError, match="looks like linear"):
        check_array(array, S1, "a.tif")


def test_whole_decibels_times_100_in_int16_and_numbers_in_uint16_are_named():
    array = np.rint(100 * SCENES["land"]).astype(np.int16)
    with pytest.raises(ValueError, match=r"scale = 0\.01 for s1 in the dataset's file"):
        check_array(array, S1, "a.tif")
    array = np.rint(900 * 10 ** (SCENES["land"] / 20)).astype(np.uint16)
    with pytest.raises(ValueError, match="looks like digital numbers"):
        check_array(array, S1, "a.tif")


def test_a_fill_value_of_most_pixels_is_named():
    array = SCENES["land"].copy()
    array[:25] = -99
    with pytest.raises(ValueError, match="looks like a nodata value of -99"):
        check_array(array, S1, "a.tif")


def test_one_constant_power_is_refused():
    with pytest.raises(ValueError, match="looks like linear"):
        check_array(np.full((2, 2, 2), 0.1, np.float32), S1, "vv.tif")

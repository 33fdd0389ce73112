"""Values of other dtypes than the sensor's: read where they fit."""

import dataclasses

import numpy as np
import pytest

from rsclip_jax.data.codecs.checks import check_array
from rsclip_jax.data.codecs.notes import noting
from rsclip_jax.data.sensors import SENSORS

L1C = SENSORS["s2_l1c"]
WIDE = ("int16", "int32", "uint32", "int64", "float32", "float64")


def scene(seed=0, low=1, high=9000):
    rng = np.random.default_rng(seed)
    return rng.integers(low, high, (9, 8, 13), np.int16)


@pytest.mark.parametrize("dtype", WIDE)
@pytest.mark.parametrize("name", ["s2_l1c", "landsat_oli_tirs_toa"])
def test_integers_of_a_sensor_are_read_from_dtypes_that_hold_them(dtype, name):
    sensor = SENSORS[name]
    want = scene()[..., : len(sensor.bands)]
    got = check_array(want.astype(dtype), sensor, "p.tif")
    assert got.dtype == np.uint16
    np.testing.assert_array_equal(got, want)


def test_dn_that_were_resampled_as_floats_are_rounded():
    want = scene()
    got = check_array((want + 0.4).astype("float32"), L1C, "p.tif")
    np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("dtype", ["int16", "int32", "float32"])
def test_dn_a_little_below_0_become_0_and_are_noted(dtype):
    array = scene().astype(dtype)
    array[1, 2, 3], array[4, 5, 6:8] = -13, -1000
    with noting() as notes:
        got = check_array(array, L1C, "p.tif")
    np.testing.assert_array_equal(got, np.maximum(array, 0))
    assert notes == [("negative", "s2_l1c", 3, None)]
    # what rounds to 0 is no value below it
    array = np.where(array < 0, -0.4, array)
    with noting() as notes:
        got = check_array(array, L1C, "p.tif")
    assert (notes, got[1, 2, 3]) == ([], 0)


@pytest.mark.parametrize(
    ("change", "dtype", "words"),
    [
        (
            lambda x: x.clip(0, 255),
            "uint8",
            "dtype uint8 .*cannot hold .* uint16 in DN",
        ),
        (lambda x: x.clip(0, 127), "int8", "dtype int8 .* not a picture"),
        (lambda x: x, "float16", "dtype float16 .*cannot hold"),
        (lambda x: x > 0, "bool", r"dtype bool \(no numbers\) cannot hold"),
        (lambda x: x, "complex64", "dtype complex64 .*cannot hold"),
        (lambda x: x / 1e4, "float32", "looks like reflectance; .* multiply by 10000"),
        (lambda x: x / 100, "float32", "in per cent; .* multiply by 100 .scale = 100 "),
        (lambda x: x / 1e4 - 0.1, "float64", r"reflectance.*scale = 10000 for s2"),
        (
            lambda x: x.astype(int) + 60_000,
            "int32",
            "int32 values from .* DN from 0 to 65535",
        ),
        (
            lambda x: np.where(x < 90, -9999, x),
            "int16",
            "from -9999 .*nodata value not",
        ),
        (lambda x: np.where(x < 90, -1001, x), "int32", "from -1001 to"),
        (lambda x: -(x % 30), "float32", "values from -29 to 0"),
    ],
)
def test_what_does_not_fit_is_refused_for_what_it_is(change, dtype, words):
    with pytest.raises(ValueError, match=rf"p\.tif: .*{words}") as error:
        check_array(change(scene()).astype(dtype), L1C, "p.tif")
    good_dn = dtype in WIDE and "reflectance" not in words
    assert not good_dn or "10000" not in str(error.value)


def test_a_sensor_that_is_not_dn_has_no_values_below_0():
    sensor = SENSORS["landsat_oli_sr"]
    array = scene()[..., :7]
    array[1, 2, 3] = -13
    with pytest.raises(ValueError, match=r"from -13 to .* C2 SR from 0 to 65535"):
        check_array(array, sensor, "p.tif")
    signed = dataclasses.replace(L1C, dtype="int16", valid=(-20000, 20000))
    array = scene()
    array[1, 2, 3] = -13
    got = check_array(array.astype("int64"), signed, "p.tif")
    assert (got.dtype, got[1, 2, 3]) == (np.int16, -13)


@pytest.mark.parametrize("dtype", ["float16", "float64", "int16", "int32"])
def test_floats_are_read_from_dtypes_that_hold_them(dtype):
    db = -np.random.default_rng(0).integers(4, 30, (9, 8, 2))
    got = check_array(db.astype(dtype), SENSORS["s1_grd"], "p.tif")
    assert got.dtype == np.float32
    np.testing.assert_array_equal(got, db)
    sensor = dataclasses.replace(SENSORS["ir_bt"], valid=(0, 1e12), unit="counts")
    large = np.full((2, 2, 1), 2**24 + 1, np.int64)
    with pytest.raises(ValueError, match="do not fit float32"):
        check_array(large, sensor, "p.tif")


def test_missing_pixels_of_floats_are_filled_before_dn_are_rounded():
    array = scene().astype(np.float32)
    array[3, 4] = np.nan
    with pytest.raises(ValueError, match=r"1\.39 % .*NaN"):
        check_array(array, L1C, "p.tif")
    got = check_array(array, L1C, "p.tif", 0.02)
    want = np.nanmedian(array, axis=(0, 1))
    np.testing.assert_array_equal(got[3, 4], np.rint(want))

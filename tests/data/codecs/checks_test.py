"""Checks of arrays, and filling of missing pixels."""

import dataclasses

import numpy as np
import pytest

from rsclip_jax.data.codecs.checks import check_array, find_missing
from rsclip_jax.data.codecs.notes import noting
from rsclip_jax.data.sensors import SENSORS


def test_a_good_array_is_returned_unchanged():
    array = np.full((3, 4, 2), -12.5, np.float32)
    assert check_array(array, SENSORS["s1_grd"], "a.tif") is array


@pytest.mark.parametrize("shape", [(4, 4, 12), (4, 4, 14), (4, 4), (1, 4, 4, 13)])
def test_a_wrong_band_count_names_the_file_the_shape_and_the_bands(shape):
    with pytest.raises(ValueError, match=r"p_7\.tif: an array of shape") as error:
        check_array(np.zeros(shape, np.uint16), SENSORS["s2_l1c"], "p_7.tif")
    assert str(shape) in str(error.value)
    assert "[h, w, 13]" in str(error.value)
    assert "'B8A', 'B09'" in str(error.value)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_one_bad_value_names_the_file_its_share_and_the_way_out(value):
    array = np.zeros((10, 10, 2), np.float32)
    array[3, 4, 1] = value
    with pytest.raises(ValueError, match=r"chip\.tif: 1 % of the s1_grd") as error:
        check_array(array, SENSORS["s1_grd"], "chip.tif")
    assert "NaN or infinite" in str(error.value)
    assert "mask or drop the patch" in str(error.value)


def test_values_that_the_unit_cannot_hold_are_refused_with_share_and_extreme():
    kelvin = np.full((10, 10, 1), 290, np.float32)
    kelvin[:3] = 21.5
    kelvin[0, 0] = -30
    with pytest.raises(ValueError, match=r"lst\.tif: 30 % of the ir_bt") as error:
        check_array(kelvin, SENSORS["ir_bt"], "lst.tif")
    assert "outside 100 to 1000 K, the farthest -30" in str(error.value)
    assert "mask or drop the patch" in str(error.value)
    radar = np.full((10, 10, 2), -12, np.float32)
    radar[3, 4, 1] = -9999
    radar[3, 5, 1] = 101
    with pytest.raises(ValueError, match=r"1 % of the s1_grd .*farthest -9999:"):
        check_array(radar, SENSORS["s1_grd"], "vh.tif")
    radar[3, 4, 1] = -150  # the ends are within
    radar[3, 5, 1] = 100
    assert check_array(radar, SENSORS["s1_grd"], "vh.tif") is radar


def test_clouds_glint_and_saturated_pixels_pass():
    array = np.full((4, 4, 13), 28_001, np.uint16)
    array[0, 0, 1:], array[1, 1] = 65_535, 0
    assert check_array(array, SENSORS["s2_l1c"], "p.tif") is array
    array[0, 0] = 65_535  # all bands: no ground is so bright
    with pytest.raises(ValueError, match=r"6\.25 % of .* \(0 in all .*, 65535 in all"):
        check_array(array, SENSORS["s2_l1c"], "p.tif")
    filled = check_array(array, SENSORS["s2_l1c"], "p.tif", 0.2)
    assert (filled == 28_001).all()
    one = np.full((4, 4, 1), 65_535, np.uint16)
    assert check_array(one, SENSORS["s2_nir"], "nir.tif") is one  # may be saturated


@pytest.mark.parametrize("name", ["s2_l1c", "s2_l2a", "landsat_oli_sr", "landsat_st"])
def test_a_patch_of_only_nodata_is_refused(name):
    sensor = SENSORS[name]
    array = np.zeros((5, 6, len(sensor.bands)), np.uint16)
    with pytest.raises(
        ValueError, match=r"p\.tif: all 30 pixels are 0, .* nodata"
    ) as e:
        check_array(array, sensor, "p.tif")
    assert "mask or drop the patch" in str(e.value)
    array[2, 3, 0] = 8000
    assert check_array(array, sensor, "p.tif") is array


def test_nodata_outside_the_valid_range_is_allowed():
    sensor = dataclasses.replace(SENSORS["ir_bt"], nodata=-9999.0)
    array = np.full((10, 10, 1), 290, np.float32)
    array[:5] = -9999
    assert check_array(array, sensor, "lst.tif") is array
    array[9, 9] = -9998
    with pytest.raises(ValueError, match=r"lst\.tif: 1 % of .*farthest -9998:"):
        check_array(array, sensor, "lst.tif")
    with pytest.raises(ValueError, match="all 100 pixels are -9999"):
        check_array(np.full((10, 10, 1), -9999, np.float32), sensor, "lst.tif")


def test_a_black_picture_is_allowed():
    array = np.zeros((4, 4, 3), np.uint8)
    assert check_array(array, SENSORS["rgb"], "night.jpg") is array


# Missing pixels.


def with_holes(name, *holes):
    """(noise, mask of its holes); holes: (row, column, band, or None for all bands)."""
    sensor = SENSORS[name]
    rng, n = np.random.default_rng(0), len(sensor.bands)
    array = rng.uniform(-25, -5, (10, 10, n)).astype(np.float32)
    if sensor.dtype == "uint16":
        array = rng.integers(200, 5000, (10, 10, n), np.uint16)
    where = np.zeros(array.shape, bool)
    for y, x, band in holes:
        where[y, x, slice(None) if band is None else band] = True
    return array, where


def test_missing_pixels_get_the_bands_median_and_others_are_kept():
    array, holes = with_holes("s1_grd", (0, 0, 0), (4, 7, 1), (4, 8, None))
    spoiled = array.copy()
    spoiled[holes] = [np.nan, np.inf, np.nan, -np.inf]
    before = spoiled.copy()
    out = check_array(spoiled, SENSORS["s1_grd"], "p.tif", 0.03)
    np.testing.assert_array_equal(out[~holes], array[~holes])
    for band in range(2):
        hole = holes[..., band]
        assert hole.sum() == 2
        want = np.float32(sorted(array[~hole, band])[48] / 2) + np.float32(
            sorted(array[~hole, band])[49] / 2
        )
        np.testing.assert_allclose(out[hole, band], want, rtol=1e-6)
    np.testing.assert_array_equal(spoiled, before)  # the array that was given stays
    with pytest.raises(
        ValueError,
        match=r"p\.tif: 3 % of the s1_grd pixels .*max_nodata=0\.02 allows 2 %; mask",
    ):
        check_array(spoiled, SENSORS["s1_grd"], "p.tif", 0.02)
    with pytest.raises(ValueError, match=r"3 % of the .* max_nodata above 0 fills"):
        check_array(spoiled, SENSORS["s1_grd"], "p.tif")


def test_only_nodata_in_all_bands_is_missing():
    sensor = SENSORS["s2_l1c"]
    array, holes = with_holes("s2_l1c", (1, 1, None), (2, 2, None))
    array[5, 5, 10] = 0  # dark, and no hole
    spoiled = np.where(holes, np.uint16(0), array)
    out = check_array(spoiled, sensor, "p.tif", 0.02)
    assert out.dtype == np.uint16
    np.testing.assert_array_equal(out[~holes], array[~holes])
    rest = spoiled.reshape(100, 13)[~holes[..., 0].ravel()]
    median = np.sort(rest, axis=0)[48:50].mean(0)
    assert np.abs(out[1, 1] - median).max() < 1
    np.testing.assert_array_equal(out[1, 1], out[2, 2])
    assert check_array(spoiled, sensor, "p.tif") is spoiled  # 0: read as it is
    with pytest.raises(
        ValueError, match=r"2 % .* s2_l1c pixels .* \(0 in all bands\).* allows 1"
    ):
        check_array(spoiled, sensor, "p.tif", 0.01)


def test_nodata_beyond_the_valid_range_is_filled_before_values_are_checked():
    sensor = dataclasses.replace(SENSORS["ir_bt"], nodata=-9999.0)
    array = np.full((10, 10, 1), 290, np.float32)
    array[0, 0] = -9999
    assert (check_array(array, sensor, "p.tif", 0.01) == 290).all()
    array[0, 1] = 5
    with pytest.raises(ValueError, match="outside 100 to 1000 K"):
        check_array(array, sensor, "p.tif", 0.5)


def test_a_complete_patch_is_unchanged_and_an_empty_one_refused():
    array, _ = with_holes("s1_grd")
    assert check_array(array, SENSORS["s1_grd"], "p.tif", 0.1) is array
    with pytest.raises(ValueError, match=r"100 % of the s1_grd pixels"):
        check_array(np.full_like(array, np.nan), SENSORS["s1_grd"], "p.tif", 0.99)
    array[..., 1] = np.nan  # one of its bands
    with pytest.raises(ValueError, match=r"100 % of the s1_grd pixels"):
        check_array(array, SENSORS["s1_grd"], "p.tif", 0.99)


@pytest.mark.parametrize("name", ["s1_grd", "s2_l1c"])
def test_what_a_file_marks_is_missing_whatever_its_value(name):
    sensor = SENSORS[name]
    array, marked = with_holes(name, (1, 1, None), (2, 5, 1))
    with pytest.raises(ValueError, match=r"2 % .*\(nodata or masked in the file\)"):
        check_array(array, sensor, "p.tif", 0, marked)
    with noting() as notes:
        out = check_array(array, sensor, "p.tif", 0.02, marked)
    np.testing.assert_array_equal(out[~marked], array[~marked])
    rest = np.where(marked, np.nan, array)
    want = np.broadcast_to(np.nanmedian(rest, axis=(0, 1)), array.shape)
    np.testing.assert_allclose(out[marked], want[marked], atol=1, rtol=0)
    ((kind, noted, count, mask),) = notes
    assert (kind, noted, count) == ("filled", name, 2)
    np.testing.assert_array_equal(mask, marked)
    whole = marked.any(axis=-1)  # one mask for all bands
    np.testing.assert_array_equal(
        find_missing(array, sensor, whole),
        whole[..., None].repeat(len(sensor.bands), 2),
    )
    assert find_missing(array, sensor, np.zeros((10, 10), bool)) is None


def test_notes_are_of_this_context_only():
    array, marked = with_holes("s1_grd", (1, 1, None))
    with noting() as outer:
        with noting() as inner:
            check_array(array, SENSORS["s1_grd"], "p.tif", 0.02, marked)
        assert len(inner) == 1
    assert outer == []


@pytest.mark.parametrize(
    ("name", "good", "bad", "words"),
    [
        ("landsat_oli_sr", 7100, 1500, r".*\* 10000, .*3\.63636 and offset = 7272\.73"),
        ("landsat_oli_toa", 4900, 900, r".*\* 10000, .*scale = 5 and offset = 5000"),
        ("ir_bt", 210, 21, r"degrees Celsius, .*offset = 273\.15 for ir"),
        ("ir_bt", 210, -9999, "a nodata value: state it in the file's tags"),
    ],
)
def test_another_unit_of_most_values_is_named_before_the_range(name, good, bad, words):
    sensor = SENSORS[name]
    shape = (6, 6, len(sensor.bands))
    array = np.full(shape, good, sensor.dtype)  # dark water, or a cloud's top
    assert check_array(array, sensor, "a.tif") is array
    kind = np.int16 if bad < 0 else sensor.dtype
    with pytest.raises(ValueError, match=rf"^a\.tif: the median .* like {words}"):
        check_array(np.full(shape, bad, kind), sensor, "a.tif")


def test_0_decibels_in_both_polarisations_is_no_measurement():
    array, sensor = np.full((4, 4, 2), -12, np.float32), SENSORS["s1_grd"]
    array[0, 0] = 0
    array[1, 1, 0] = 0  # a corner reflector
    assert check_array(array, sensor, "a.tif") is array  # the file does not say so
    filled = check_array(array, sensor, "a.tif", 0.1)
    assert (filled[0, 0] == -12).all()
    assert filled[1, 1, 0] == 0


@pytest.mark.parametrize(
    ("unit", "good", "bad", "words"),
    [
        ("reflectance", 0.2, 2000, r"looks like DN, .*scale = 0\.0001 for ir"),
        ("K", 290, 21.5, r"looks like degrees Celsius, .*offset = 273\.15 for ir"),
    ],
)
def test_a_custom_sensors_values_in_another_unit_are_refused(unit, good, bad, words):
    open_ended = {"valid": (-np.inf, np.inf), "unit": unit}
    sensor = dataclasses.replace(SENSORS["ir_bt"], **open_ended)
    array = np.full((6, 6, 1), good, np.float32)
    array[0] = bad  # a fire, or ice
    assert check_array(array, sensor, "a.tif") is array
    array[:4] = bad
    with pytest.raises(ValueError, match=words):
        check_array(array, sensor, "a.tif")

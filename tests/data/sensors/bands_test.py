"""Selecting bands by name, and RGB composites."""

import dataclasses

import numpy as np
import pytest

from rsclip_jax.data.sensors import COMPOSITES, SENSORS, select_bands
from rsclip_jax.data.sensors.bands import band_indices, make_composite

# The same 13 bands in other people's files: EuroSAT, BigEarthNet and any sorted folder
# put B8A last.
SORTED = tuple("B01 B02 B03 B04 B05 B06 B07 B08 B09 B10 B11 B12 B8A".split())
L1C = tuple("B01 B02 B03 B04 B05 B06 B07 B08 B8A B09 B10 B11 B12".split())


# Composites.


def test_a_composite_is_three_bands_cut_at_its_divisor():
    sensor = SENSORS["s2_l2a"]
    array = np.zeros((1, 3, 12), np.uint16)
    for band, values in {
        "B04": (1000, 9, 0),
        "B03": (2000, 8, 7),
        "B02": (65535, 4, 3),
    }.items():
        array[0, :, sensor.bands.index(band)] = values
    rgb = make_composite(array, sensor.bands, COMPOSITES["s2_l2a_rgb"])
    assert rgb.dtype == np.uint8
    assert rgb[0].tolist() == [[128, 255, 255], [1, 1, 1], [0, 1, 0]]


def test_composites_use_bands_of_their_sensor():
    divisors = {"s2_l1c_rgb": 3558, "s2_l2a_rgb": 2000, "eurosat_rgb": 2750}
    divisors["s2_so2sat_rgb"] = 3558 / 10000
    assert {
        name: composite.divisor for name, composite in COMPOSITES.items()
    } == divisors
    for name, composite in COMPOSITES.items():
        assert composite.name == name
        sensor = SENSORS[composite.sensor]
        of = dict(zip(sensor.bands, sensor.wavelengths, strict=True))
        assert tuple(of[b] for b in composite.bands) == SENSORS["rgb"].wavelengths


def test_a_composite_of_a_missing_band_is_refused():
    with pytest.raises(ValueError, match=r"bands \['B02'\] are missing"):
        make_composite(
            np.zeros((1, 1, 2), np.uint16), ("B04", "B03"), COMPOSITES["s2_l1c_rgb"]
        )


# Bands by name.


@pytest.mark.parametrize(
    ("held", "wanted", "indices"),
    [
        (("VH", "VV"), "s1_grd", (1, 0)),
        (("HH", "VH", "VV"), "s1_grd", (2, 1)),
        (L1C, "s2_l2a", (*range(10), 11, 12)),
        (SORTED, "s2_l1c", (*range(8), 12, 8, 9, 10, 11)),
    ],
)
def test_band_indices_are_found_by_name(held, wanted, indices):
    target = SENSORS[wanted]
    values = dict.fromkeys(("wavelengths", "resolution", "mean", "std"))
    values = {key: (1.0,) * len(held) for key in values}
    sensor = dataclasses.replace(target, name="held", bands=held, **values)
    assert band_indices(sensor, target.bands, target.unit, "x") == indices


@pytest.mark.parametrize(
    ("held", "wanted", "words"),
    [
        ("s2_l2a", "s2_l1c", r"x takes the bands .*'B10'.* in DN, and s2_l2a holds"),
        ("s1_vh_8bit", "s1_grd", r"\('VV', 'VH'\) in dB, .*\('VH',\) in 8-bit"),
        ("ir_bt", "landsat_st", r"\('B10',\) in C2 ST, and ir_bt holds \('BT',\) in K"),
    ],
)
def test_missing_bands_are_refused_with_both_lists(held, wanted, words):
    sensor = SENSORS[wanted]
    with pytest.raises(ValueError, match=words):
        band_indices(SENSORS[held], sensor.bands, sensor.unit, "x")


def test_bands_are_selected_by_name_and_not_by_index():
    values = dict(zip(SORTED, range(13), strict=True))
    array = np.arange(13, dtype=np.uint16).reshape(1, 1, 13)
    out = select_bands(array, SORTED, L1C)
    assert out.dtype == np.uint16
    assert out.ravel().tolist() == [values[b] for b in L1C]
    assert out[0, 0, 8] == 12  # B8A, last in the file; by index B09 would lie here
    back = select_bands(out, L1C, SORTED)
    np.testing.assert_array_equal(back, array)


def test_a_composite_is_three_bands_of_thirteen():
    array = np.random.default_rng(0).integers(0, 9000, (4, 5, 13), np.uint16)
    out = select_bands(array, L1C, ("B04", "B03", "B02"))
    np.testing.assert_array_equal(out, array[..., [3, 2, 1]])


def test_the_result_does_not_share_memory_with_the_source():
    array = np.ones((2, 2, 2), np.float32)
    select_bands(array, ("VV", "VH"), ("VV", "VH"))[:] = 5
    assert array.max() == 1


def test_a_missing_band_is_refused_unless_a_fill_is_chosen():
    array = np.array([[[2.0, 6.0]]], np.float32)
    with pytest.raises(ValueError, match=r"bands \['B10'\] are missing") as error:
        select_bands(array, ("B02", "B03"), ("B03", "B10"))
    assert "('B03', 'B10')" in str(error.value)
    assert "('B02', 'B03')" in str(error.value)
    zero = select_bands(array, ("B02", "B03"), ("B03", "B10"), fill="zero")
    assert zero.ravel().tolist() == [6, 0]
    mean = select_bands(array, ("B02", "B03"), ("B03", "B10"), fill="mean")
    assert mean.ravel().tolist() == [6, 4]


def test_an_unknown_fill_lists_the_choices():
    with pytest.raises(ValueError, match=r"fill 'nan'.*'error', 'zero' or 'mean'"):
        select_bands(np.zeros((1, 1, 1)), ("VH",), ("VH",), fill="nan")


@pytest.mark.parametrize("source", [("VV",), ("VV", "VV"), ("VV", "VH", "HH")])
def test_names_that_do_not_fit_the_array_are_refused(source):
    with pytest.raises(ValueError, match="array of 2 bands does not hold"):
        select_bands(np.zeros((1, 1, 2)), source, ("VV",))

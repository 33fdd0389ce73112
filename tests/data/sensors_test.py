"""The sensor table against other sources; bands by name; arrays refused by file."""

import dataclasses
import math

import numpy as np
import pytest
from PIL import Image

from rsclip_jax.data import miniature
from rsclip_jax.data.bands import band_places, make_composite
from rsclip_jax.data.checks import check_array
from rsclip_jax.data.sensor_file import load_sensor
from rsclip_jax.data.sensors import (
    COMPOSITES,
    SENSORS,
    Sensor,
    get_sensor,
    select_bands,
)

# The same 13 bands in other people's files: EuroSAT, BigEarthNet and any sorted folder
# put B8A last.
SORTED = tuple("B01 B02 B03 B04 B05 B06 B07 B08 B09 B10 B11 B12 B8A".split())
L1C = tuple("B01 B02 B03 B04 B05 B06 B07 B08 B8A B09 B10 B11 B12".split())


# The table.


def test_bands_are_in_the_order_that_others_rely_on():
    assert SENSORS["rgb"].bands == ("R", "G", "B")
    assert SENSORS["s1_grd"].bands == ("VV", "VH")
    assert SENSORS["s2_l1c"].bands == L1C
    assert SENSORS["s2_l2a"].bands == tuple(b for b in L1C if b != "B10")
    assert SENSORS["s1_vh_8bit"].bands == ("VH",)
    assert SENSORS["ir_bt"].bands == ("BT",)


def test_every_row_is_found_under_its_own_name():
    assert [row.name for row in SENSORS.values()] == list(SENSORS)
    assert all(get_sensor(name) is row for name, row in SENSORS.items())


def test_wavelengths_are_those_that_the_miniature_is_drawn_with():
    row = SENSORS["s2_l1c"]
    np.testing.assert_array_equal(row.wavelengths, miniature._WAVELENGTH)
    of = dict(zip(row.bands, row.wavelengths, strict=True))
    assert of["B8A"] == 0.865
    assert of["B09"] == 0.945
    assert [of[b] for b in ("B04", "B03", "B02")] == list(SENSORS["rgb"].wavelengths)


def test_l2a_is_l1c_band_for_band():
    l1c, l2a = SENSORS["s2_l1c"], SENSORS["s2_l2a"]
    for field in ("wavelengths", "resolution", "mean", "std"):
        of = dict(zip(l1c.bands, getattr(l1c, field), strict=True))
        assert getattr(l2a, field) == tuple(of[b] for b in l2a.bands)


def test_so2sats_ten_bands_are_the_land_bands_in_its_authors_order():
    row, l1c = SENSORS["s2_so2sat"], SENSORS["s2_l1c"]
    assert row.bands == tuple("B02 B03 B04 B05 B06 B07 B08 B8A B11 B12".split())
    for field in ("wavelengths", "resolution"):
        of = dict(zip(l1c.bands, getattr(l1c, field), strict=True))
        assert getattr(row, field) == tuple(of[b] for b in row.bands)


def test_ground_sampling_is_ten_twenty_and_sixty_metres():
    row = SENSORS["s2_l1c"]
    metres = {m: set() for m in row.resolution}
    for band, m in zip(row.bands, row.resolution, strict=True):
        metres[m].add(band)
    assert metres == {
        10.0: {"B02", "B03", "B04", "B08"},
        20.0: {"B05", "B06", "B07", "B8A", "B11", "B12"},
        60.0: {"B01", "B09", "B10"},
    }


def test_radar_has_no_wavelength_and_ssl4eos_statistics():
    row = SENSORS["s1_grd"]
    assert all(math.isnan(um) for um in row.wavelengths)
    assert row.mean == (-12.59, -20.26)
    assert row.std == (5.26, 5.91)
    assert row.clip_sigma == 2.0


def test_landsat_bands_are_at_their_published_wavelengths():
    """USGS's band edges in um, and its pixel sizes, by the bands' own numbers."""
    edges = {
        "B1": (0.43, 0.45),
        "B2": (0.45, 0.51),
        "B3": (0.53, 0.59),
        "B4": (0.64, 0.67),
        "B5": (0.85, 0.88),
        "B6": (1.57, 1.65),
        "B7": (2.11, 2.29),
        "B8": (0.50, 0.68),
        "B9": (1.36, 1.38),
        "B10": (10.60, 11.19),
        "B11": (11.50, 12.51),
    }
    rows = {"landsat_oli_sr": 7, "landsat_oli_toa": 9, "landsat_oli_tirs_toa": 11}
    for name, count in rows.items():
        row = SENSORS[name]
        assert row.bands == tuple(edges)[:count]
        for band, um, metres in zip(
            row.bands, row.wavelengths, row.resolution, strict=True
        ):
            assert edges[band][0] <= um <= edges[band][1]
            assert metres == {"B8": 15, "B10": 100, "B11": 100}.get(band, 30)
    assert SENSORS["landsat_st"].wavelengths[0] == pytest.approx((10.6 + 11.19) / 2)


@pytest.mark.parametrize("name", ["s2_l1c", "s2_l2a", "s2_so2sat", "landsat_oli_sr"])
def test_wavelengths_ascend_where_bands_are_sorted_by_them(name):
    assert list(SENSORS[name].wavelengths) == sorted(SENSORS[name].wavelengths)


@pytest.mark.parametrize(
    ("name", "scale", "offset", "mean", "spread"),
    [
        ("s2_l2a", 1e-4, 0, 0.2, 0.2),
        ("s2_so2sat", 1, 0, 0.2, 0.2),
        ("landsat_oli_sr", 2.75e-5, -0.2, 0.2, 0.2),
        ("landsat_oli_toa", 2e-5, -0.1, 0.2, 0.2),
        ("landsat_st", 0.00341802, 149, 293, 8),
        ("ir_bt", 1, 0, 293, 8),
    ],
)
def test_scales_are_the_same_physical_ones_by_the_agencies_factors(
    name, scale, offset, mean, spread
):
    row = SENSORS[name]
    np.testing.assert_allclose(np.array(row.mean) * scale + offset, mean, rtol=1e-4)
    np.testing.assert_allclose(np.array(row.std) * scale, spread, rtol=1e-3)


def test_thermal_radiance_is_plancks_at_293_kelvin():
    row = SENSORS["landsat_oli_tirs_toa"]
    for band in ("B10", "B11"):
        i = row.bands.index(band)
        um = row.wavelengths[i]
        # 2 h c^2 and h c / k in W um^4 / (m2 sr) and um K
        radiance = 1.191043e8 / um**5 / (math.exp(14387.77 / (um * 293)) - 1)
        assert (radiance - 0.1) / 3.342e-4 == pytest.approx(row.mean[i], rel=2e-3)


@pytest.mark.parametrize("name", SENSORS)
def test_a_row_says_what_its_files_can_hold(name):
    row = SENSORS[name]
    low, high = row.valid
    if row.dtype != "float32":
        info = np.iinfo(row.dtype)
        assert info.min <= low < high <= info.max
        assert (row.unit == "8-bit") == (row.dtype == "uint8")
    typical = np.clip(np.array(row.mean), low, high).astype(row.dtype)
    array = np.broadcast_to(typical, (4, 4, len(row.bands)))
    assert check_array(array, row, "typical") is array
    assert (row.level == "") == (row.unit in ("8-bit", "K"))


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("bands", ("VV", "VV"), "should be distinct"),
        ("std", (1.0, 0.0), "should be above 0"),
        ("clip_sigma", 0.0, "clip_sigma 0.0 should be above 0"),
        ("valid", (5.0, 5.0), "lowest and a highest"),
        ("valid", (math.nan, 5.0), "lowest and a highest"),
        ("dtype", "float33", "'float33' should be an integer or float"),
        ("dtype", "complex64", "'complex64' should be an integer or float"),
        ("modality", "my sensor", "'my sensor' should be one word"),
    ],
)
def test_a_row_that_makes_no_sense_is_refused(field, value, words):
    with pytest.raises(ValueError, match=f"sensor s1_grd: .*{words}"):
        dataclasses.replace(SENSORS["s1_grd"], **{field: value})


@pytest.mark.parametrize("name", SENSORS)
def test_no_row_divides_by_zero_and_modalities_are_the_words_in_results(name):
    row = SENSORS[name]
    assert min(row.std) > 0
    assert row.modality in ("rgb", "s1", "s2", "ir", "nir", "cir", "landsat")
    np.dtype(row.dtype)


def test_the_statistics_fit_what_the_miniature_holds(monkeypatch):
    monkeypatch.setitem(miniature.SIZES["miniature"], "val", 60)
    arrays = miniature.open_miniature("miniature", "val").arrays
    for key, name in (("s1", "s1_grd"), ("s2", "s2_l1c"), ("ir", "ir_bt")):
        row = SENSORS[name]
        z = (arrays[key].astype(np.float64) - row.mean) / row.std
        assert abs(z.mean()) < 1
        assert 0.3 < z.std() < 2


def test_a_row_with_a_value_too_few_is_refused():
    with pytest.raises(ValueError, match=r"sensor odd: 1 values of std for 2 bands"):
        Sensor(
            "odd",
            "s1",
            ("VV", "VH"),
            "dB",
            "float32",
            wavelengths=(1.0, 1.0),
            resolution=(10.0, 10.0),
            mean=(0.0, 0.0),
            std=(1.0,),
        )


def test_an_unknown_sensor_gets_the_nearest_name_and_the_list():
    with pytest.raises(ValueError, match="unknown sensor 's2_l1'") as error:
        get_sensor("s2_l1")
    text = str(error.value)
    assert "did you mean 's2_l1c'" in text
    assert all(name in text for name in SENSORS)


# A sensor of the user's.

SWIR = """
modality = "ir"
bands = ["SWIR1", "SWIR2"]
unit = "DN"
dtype = "uint16"
wavelengths = [1.61, 2.19]
resolution = [20, 20.0]
mean = [2000, 2000]
std = [1500, 1500]
"""


def write_sensor(tmp_path, text):
    path = tmp_path / "swir.toml"
    path.write_text(text, "utf-8")
    return path


def test_a_file_is_a_sensor_whose_name_is_its_path(tmp_path):
    extra = 'level = "L3"\nvalid = [0, 20000]\nnodata = 0\nclip_sigma = 3\n'
    path = write_sensor(tmp_path, SWIR + extra)
    row = load_sensor(path)
    assert row == Sensor(
        str(path),
        "ir",
        ("SWIR1", "SWIR2"),
        "DN",
        "uint16",
        (1.61, 2.19),
        (20.0, 20.0),
        (2000.0, 2000.0),
        (1500.0, 1500.0),
        clip_sigma=3.0,
        level="L3",
        valid=(0.0, 20000.0),
        nodata=0.0,
    )
    assert get_sensor(str(path)) == row
    assert get_sensor(str(path)) is get_sensor(str(path))  # read once
    array = np.full((2, 2, 2), 20001, np.uint16)
    with pytest.raises(ValueError, match=r"a\.tif: 100 % of .*outside 0 to 20000"):
        check_array(array, row, "a.tif")


def test_what_may_be_left_out_has_the_defaults_of_a_row(tmp_path):
    row = load_sensor(write_sensor(tmp_path, SWIR))
    assert (row.clip_sigma, row.level, row.nodata) == (5.0, "", None)
    assert row.valid == (-math.inf, math.inf)


def test_radars_wavelengths_are_nan_in_toml_too(tmp_path):
    text = SWIR.replace("[1.61, 2.19]", "[nan, nan]")
    row = load_sensor(write_sensor(tmp_path, text))
    assert all(math.isnan(um) for um in row.wavelengths)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            SWIR + "gain = 2\nname = 'x'",
            r"unknown keys \['gain', 'name'\], missing keys",
        ),
        (
            SWIR.replace("unit", "units"),
            r"\['units'\], missing keys \['unit'\]; a sens",
        ),
        (
            SWIR.replace('unit = "DN"', ""),
            r"unknown keys \[\], missing keys \['unit'",
        ),
        (SWIR.replace("[1500, 1500]", "[1500]"), "1 values of std for 2 bands"),
        (
            SWIR.replace("[1500, 1500]", "1500"),
            "std = 1500 should be a list of numbers",
        ),
        (SWIR.replace("[1500, 1500]", '["a", 1]'), "std = .* a list of numbers"),
        (SWIR.replace("[1500, 1500]", "[true, 1]"), "std = .* a list of numbers"),
        (SWIR.replace('["SWIR1", "SWIR2"]', '"SWIR1"'), "bands = .* a list of strings"),
        (SWIR.replace('"DN"', "1"), "unit = 1 should be a string"),
        (SWIR.replace('"DN"', '"dn"'), r'unit = "dn" is none of "DN" \(refl.*"K" \(te'),
        (
            SWIR.replace("1.61, 2.19", "1610, 2190"),
            r"= \[1610\.0, 2190\.0\] .*micrometres.*: 1610 nanometres would be 1\.61$",
        ),
        (SWIR.replace("1.61", "-1"), "micrometres, above 0 and .* nan for radar$"),
        (SWIR + "nodata = [0]", r"nodata = \[0\] should be a number"),
        (SWIR + "valid = [0]", "lowest and a highest"),
        (SWIR.replace("uint16", "uint12"), "dtype 'uint12'"),
        (SWIR.replace("SWIR2", "SWIR1"), "should be distinct"),
        ("bands = [", "not a TOML file: "),
        (SWIR + SWIR, "not a TOML file: "),
    ],
)
def test_a_wrong_file_is_named_with_what_is_wrong(tmp_path, text, words):
    path = write_sensor(tmp_path, text)
    with pytest.raises(ValueError, match=words) as error:
        get_sensor(str(path))
    assert str(path) in str(error.value)


def test_bytes_that_are_no_text_are_no_sensor(tmp_path):
    path = tmp_path / "swir.toml"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match=r"swir\.toml: not a TOML file"):
        load_sensor(path)


def test_a_missing_file_is_named(tmp_path):
    path = tmp_path / "none.toml"
    with pytest.raises(FileNotFoundError, match="there is no such sensor file") as err:
        get_sensor(str(path))
    assert str(path) in str(err.value)


# Composites.


def test_a_composite_is_three_bands_cut_at_its_divisor():
    row = SENSORS["s2_l2a"]
    array = np.zeros((1, 3, 12), np.uint16)
    for band, values in {
        "B04": (1000, 9, 0),
        "B03": (2000, 8, 7),
        "B02": (65535, 4, 3),
    }.items():
        array[0, :, row.bands.index(band)] = values
    rgb = make_composite(array, row.bands, COMPOSITES["s2_l2a_rgb"])
    assert rgb.dtype == np.uint8
    assert rgb[0].tolist() == [[128, 255, 255], [1, 1, 1], [0, 1, 0]]


def test_composites_are_of_bands_that_their_sensor_has():
    divisors = {"s2_l1c_rgb": 3558, "s2_l2a_rgb": 2000, "eurosat_rgb": 2750}
    divisors["s2_so2sat_rgb"] = 3558 / 10000
    assert {name: row.divisor for name, row in COMPOSITES.items()} == divisors
    for name, row in COMPOSITES.items():
        assert row.name == name
        sensor = SENSORS[row.sensor]
        of = dict(zip(sensor.bands, sensor.wavelengths, strict=True))
        assert tuple(of[b] for b in row.bands) == SENSORS["rgb"].wavelengths


def test_a_composite_of_a_band_that_is_not_there_is_refused():
    with pytest.raises(ValueError, match=r"bands \['B02'\] are wanted"):
        make_composite(
            np.zeros((1, 1, 2), np.uint16), ("B04", "B03"), COMPOSITES["s2_l1c_rgb"]
        )


# Bands by name.


@pytest.mark.parametrize(
    ("held", "wanted", "places"),
    [
        (("VH", "VV"), "s1_grd", (1, 0)),
        (("HH", "VH", "VV"), "s1_grd", (2, 1)),
        (L1C, "s2_l2a", (*range(10), 11, 12)),
        (SORTED, "s2_l1c", (*range(8), 12, 8, 9, 10, 11)),
    ],
)
def test_places_are_found_by_name(held, wanted, places):
    row = SENSORS[wanted]
    values = dict.fromkeys(("wavelengths", "resolution", "mean", "std"))
    values = {key: (1.0,) * len(held) for key in values}
    sensor = dataclasses.replace(row, name="held", bands=held, **values)
    assert band_places(sensor, row.bands, row.unit, "x") == places


@pytest.mark.parametrize(
    ("held", "wanted", "words"),
    [
        ("s2_l2a", "s2_l1c", r"x takes the bands .*'B10'.* in DN, and s2_l2a holds"),
        ("s1_vh_8bit", "s1_grd", r"\('VV', 'VH'\) in dB, .*\('VH',\) in 8-bit"),
        ("ir_bt", "landsat_st", r"\('B10',\) in C2 ST, and ir_bt holds \('BT',\) in K"),
    ],
)
def test_places_that_are_not_there_are_refused_with_both_lists(held, wanted, words):
    row = SENSORS[wanted]
    with pytest.raises(ValueError, match=words):
        band_places(SENSORS[held], row.bands, row.unit, "x")


def test_bands_come_by_name_and_not_by_place():
    values = dict(zip(SORTED, range(13), strict=True))
    array = np.arange(13, dtype=np.uint16).reshape(1, 1, 13)
    out = select_bands(array, SORTED, L1C)
    assert out.dtype == np.uint16
    assert out.ravel().tolist() == [values[b] for b in L1C]
    assert out[0, 0, 8] == 12  # B8A, last in the file; by place B09 would lie here
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
    with pytest.raises(ValueError, match=r"bands \['B10'\] are wanted") as error:
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


# Arrays.


def test_a_good_array_comes_back_as_it_is():
    array = np.full((3, 4, 2), -12.5, np.float32)
    assert check_array(array, SENSORS["s1_grd"], "a.tif") is array


@pytest.mark.parametrize("shape", [(4, 4, 12), (4, 4, 14), (4, 4), (1, 4, 4, 13)])
def test_a_wrong_band_count_names_the_file_the_shape_and_the_bands(shape):
    with pytest.raises(ValueError, match=r"p_7\.tif: an array of shape") as error:
        check_array(np.zeros(shape, np.uint16), SENSORS["s2_l1c"], "p_7.tif")
    assert str(shape) in str(error.value)
    assert "[h, w, 13]" in str(error.value)
    assert "'B8A', 'B09'" in str(error.value)


@pytest.mark.parametrize("dtype", [np.float32, np.int16, np.uint8])
def test_a_wrong_dtype_names_the_file_and_the_unit(dtype):
    with pytest.raises(ValueError, match=r"p\.tif: dtype .* s2_l1c is uint16 in DN"):
        check_array(np.zeros((2, 2, 13), dtype), SENSORS["s2_l1c"], "p.tif")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_one_bad_value_names_the_file_its_share_and_the_way_out(value):
    array = np.zeros((10, 10, 2), np.float32)
    array[3, 4, 1] = value
    with pytest.raises(ValueError, match=r"chip\.tif: 0\.5 % of the s1_grd") as error:
        check_array(array, SENSORS["s1_grd"], "chip.tif")
    assert "NaN or infinite" in str(error.value)
    assert "mask or drop the patch" in str(error.value)


def test_values_that_the_unit_cannot_hold_are_refused_with_share_and_extreme():
    celsius = np.full((10, 10, 1), 21.5, np.float32)
    celsius[0, 0] = -30
    with pytest.raises(ValueError, match=r"lst\.tif: 100 % of the ir_bt") as error:
        check_array(celsius, SENSORS["ir_bt"], "lst.tif")
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
    array[0, 0], array[1, 1] = 65_535, 0
    assert check_array(array, SENSORS["s2_l1c"], "p.tif") is array


@pytest.mark.parametrize("name", ["s2_l1c", "s2_l2a", "landsat_oli_sr", "landsat_st"])
def test_a_patch_of_nothing_but_nodata_is_refused(name):
    row = SENSORS[name]
    array = np.zeros((5, 6, len(row.bands)), np.uint16)
    with pytest.raises(
        ValueError, match=r"p\.tif: all 30 pixels are 0, .* nodata"
    ) as e:
        check_array(array, row, "p.tif")
    assert "mask or drop the patch" in str(e.value)
    array[2, 3, 0] = 8000
    assert check_array(array, row, "p.tif") is array


def test_nodata_outside_the_valid_range_is_no_wrong_value():
    row = dataclasses.replace(SENSORS["ir_bt"], nodata=-9999.0)
    array = np.full((10, 10, 1), 290, np.float32)
    array[:5] = -9999
    assert check_array(array, row, "lst.tif") is array
    array[9, 9] = -9998
    with pytest.raises(ValueError, match=r"lst\.tif: 1 % of .*farthest -9998:"):
        check_array(array, row, "lst.tif")
    with pytest.raises(ValueError, match="all 100 pixels are -9999"):
        check_array(np.full((10, 10, 1), -9999, np.float32), row, "lst.tif")


def test_a_dark_picture_is_a_picture():
    array = np.zeros((4, 4, 3), np.uint8)
    assert check_array(array, SENSORS["rgb"], "night.jpg") is array


def test_linear_power_is_told_from_decibels():
    with pytest.raises(ValueError, match="looks like linear"):
        check_array(np.full((2, 2, 2), 0.1, np.float32), SENSORS["s1_grd"], "vv.tif")


# Real files.


def read_eurosat(path):
    """A 13-band file of EuroSAT: uncompressed and interleaved behind its header."""
    return np.frombuffer(path.read_bytes(), "<u2", 64 * 64 * 13, 748).reshape(
        64, 64, 13
    )


def test_eurosats_jpegs_are_its_composite(real_data):
    pictures = {p.stem: p for p in (real_data / "eurosat_rgb").glob("*/*/*.jpg")}
    off = {name: [] for name in (*COMPOSITES, "order")}
    for path in sorted((real_data / "eurosat_ms").glob("*/*.tif")):
        array = read_eurosat(path)
        sorted_in = select_bands(array, SORTED, L1C)
        check_array(sorted_in, SENSORS["s2_l1c"], str(path))
        with Image.open(pictures[path.stem]) as image:
            rgb = np.array(image).astype(int)
        for name, row in COMPOSITES.items():
            made = make_composite(sorted_in, L1C, row)
            off[name].append(np.abs(made - rgb).mean())
            np.testing.assert_array_equal(made, make_composite(array, SORTED, row))
        made = make_composite(sorted_in, L1C, COMPOSITES["eurosat_rgb"])
        off["order"].append(np.abs(made[..., ::-1] - rgb).mean())
    assert len(off["eurosat_rgb"]) == 140
    assert max(off["eurosat_rgb"]) < 6  # grey levels, the JPEG's losses
    for fault in ("s2_l1c_rgb", "s2_l2a_rgb", "order"):
        assert np.mean(off[fault]) > 6


def read_band(path):
    """[120, 120] of any ground sampling, by repeating pixels."""
    with Image.open(path) as image:
        array = np.array(image)
    return np.kron(array, np.ones((120 // len(array),) * 2, array.dtype))


def test_a_real_bigearthnet_patch_sorts_into_the_row_by_name(real_data):
    folder = real_data / "bigearthnet" / "BigEarthNet-v1.0"
    patch = min(p for p in folder.iterdir() if p.is_dir())
    files = {p.stem.rsplit("_", 1)[1]: p for p in sorted(patch.glob("*.tif"))}
    row = SENSORS["s2_l2a"]
    assert list(files)[-1] == "B8A"  # the trap: a sorted folder is not in band order
    assert set(files) == set(row.bands)
    stack = np.stack([read_band(p) for p in files.values()], -1)
    array = select_bands(stack, tuple(files), row.bands)
    check_array(array, row, str(patch))
    for i, band in enumerate(row.bands):
        np.testing.assert_array_equal(array[..., i], read_band(files[band]))
    with pytest.raises(ValueError, match="'B10'"):
        select_bands(stack, tuple(files), SENSORS["s2_l1c"].bands)


def test_a_real_radar_patch_fits_its_row_and_statistics(real_data):
    folder = real_data / "bigearthnet" / "BigEarthNet-S1-v1.0"
    row = SENSORS["s1_grd"]
    for patch in sorted(p for p in folder.iterdir() if p.is_dir()):
        bands = [read_band(patch / f"{patch.name}_{b}.tif") for b in row.bands]
        array = check_array(np.stack(bands, -1), row, patch.name)
        z = (array - np.array(row.mean)) / row.std
        assert np.abs(z.mean((0, 1))).max() < 3
        assert array[..., 0].mean() > array[..., 1].mean()  # VV is above VH


# Missing pixels.


def with_holes(name, *holes):
    """(array of noise, where each hole of `holes` = (row, column, band or None) is)."""
    row = SENSORS[name]
    rng, n = np.random.default_rng(0), len(row.bands)
    array = rng.uniform(-25, -5, (10, 10, n)).astype(np.float32)
    if row.dtype == "uint16":
        array = rng.integers(200, 5000, (10, 10, n), np.uint16)
    where = np.zeros(array.shape, bool)
    for y, x, band in holes:
        where[y, x, slice(None) if band is None else band] = True
    return array, where


def test_few_missing_pixels_get_the_band_s_median_and_the_others_stay():
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
    with pytest.raises(ValueError, match=r"2 % of the .* values .*max_nodata\) fills"):
        check_array(spoiled, SENSORS["s1_grd"], "p.tif")


def test_nodata_in_all_bands_is_missing_and_in_some_it_is_a_value():
    row = SENSORS["s2_l1c"]
    array, holes = with_holes("s2_l1c", (1, 1, None), (2, 2, None))
    array[5, 5, 10] = 0  # dark, and no hole
    spoiled = np.where(holes, np.uint16(0), array)
    out = check_array(spoiled, row, "p.tif", 0.02)
    assert out.dtype == np.uint16
    np.testing.assert_array_equal(out[~holes], array[~holes])
    rest = spoiled.reshape(100, 13)[~holes[..., 0].ravel()]
    median = np.sort(rest, axis=0)[48:50].mean(0)
    assert np.abs(out[1, 1] - median).max() < 1
    np.testing.assert_array_equal(out[1, 1], out[2, 2])
    assert check_array(spoiled, row, "p.tif") is spoiled  # 0: read as it is
    with pytest.raises(
        ValueError, match=r"2 % .* s2_l1c pixels .* nodata, .* allows 1"
    ):
        check_array(spoiled, row, "p.tif", 0.01)


def test_nodata_beyond_the_valid_range_is_filled_before_values_are_checked():
    row = dataclasses.replace(SENSORS["ir_bt"], nodata=-9999.0)
    array = np.full((10, 10, 1), 290, np.float32)
    array[0, 0] = -9999
    assert (check_array(array, row, "p.tif", 0.01) == 290).all()
    array[0, 1] = 5
    with pytest.raises(ValueError, match="outside 100 to 1000 K"):
        check_array(array, row, "p.tif", 0.5)


def test_a_whole_patch_is_passed_on_and_a_missing_one_refused():
    array, _ = with_holes("s1_grd")
    assert check_array(array, SENSORS["s1_grd"], "p.tif", 0.1) is array
    with pytest.raises(ValueError, match=r"100 % of the s1_grd pixels"):
        check_array(np.full_like(array, np.nan), SENSORS["s1_grd"], "p.tif", 0.99)
    array[..., 1] = np.nan  # one of its bands
    with pytest.raises(ValueError, match=r"100 % of the s1_grd pixels"):
        check_array(array, SENSORS["s1_grd"], "p.tif", 0.99)

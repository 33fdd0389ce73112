"""The sensor table against other sources; bands by name; arrays refused by file."""

import math

import numpy as np
import pytest
from PIL import Image

from rsclip_jax.data import miniature
from rsclip_jax.data.sensors import (
    SENSORS,
    Sensor,
    check_array,
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


# Bands by name.


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
    assert "--config.data.on_error=skip" in str(error.value)


# Real files.


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

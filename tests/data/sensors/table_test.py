"""The sensor table against other sources and real files."""

import dataclasses
import math

import numpy as np
import pytest
from PIL import Image

from rsclip_jax.data.codecs.checks import check_array
from rsclip_jax.data.miniature import scenes
from rsclip_jax.data.miniature.materials import WAVELENGTH
from rsclip_jax.data.sensors import (
    COMPOSITES,
    SENSORS,
    Sensor,
    get_sensor,
    select_bands,
)
from rsclip_jax.data.sensors.bands import make_composite

# The same 13 bands in other people's files: EuroSAT, BigEarthNet and any sorted folder
# put B8A last.
SORTED = tuple("B01 B02 B03 B04 B05 B06 B07 B08 B09 B10 B11 B12 B8A".split())
L1C = tuple("B01 B02 B03 B04 B05 B06 B07 B08 B8A B09 B10 B11 B12".split())


def test_bands_are_in_the_documented_order():
    assert SENSORS["rgb"].bands == ("R", "G", "B")
    assert SENSORS["s1_grd"].bands == ("VV", "VH")
    assert SENSORS["s2_l1c"].bands == L1C
    assert SENSORS["s2_l2a"].bands == tuple(b for b in L1C if b != "B10")
    assert SENSORS["s1_vh_8bit"].bands == ("VH",)
    assert SENSORS["ir_bt"].bands == ("BT",)


def test_every_sensor_is_found_by_its_name():
    assert [sensor.name for sensor in SENSORS.values()] == list(SENSORS)
    assert all(get_sensor(name) is sensor for name, sensor in SENSORS.items())


def test_wavelengths_are_those_of_the_miniature():
    sensor = SENSORS["s2_l1c"]
    np.testing.assert_array_equal(sensor.wavelengths, WAVELENGTH)
    of = dict(zip(sensor.bands, sensor.wavelengths, strict=True))
    assert of["B8A"] == 0.865
    assert of["B09"] == 0.945
    assert [of[b] for b in ("B04", "B03", "B02")] == list(SENSORS["rgb"].wavelengths)


def test_l2a_is_l1c_band_for_band():
    l1c, l2a = SENSORS["s2_l1c"], SENSORS["s2_l2a"]
    for field in ("wavelengths", "resolution", "mean", "std"):
        of = dict(zip(l1c.bands, getattr(l1c, field), strict=True))
        assert getattr(l2a, field) == tuple(of[b] for b in l2a.bands)


def test_so2sats_ten_bands_are_in_its_authors_order():
    sensor, l1c = SENSORS["s2_so2sat"], SENSORS["s2_l1c"]
    assert sensor.bands == tuple("B02 B03 B04 B05 B06 B07 B08 B8A B11 B12".split())
    for field in ("wavelengths", "resolution"):
        of = dict(zip(l1c.bands, getattr(l1c, field), strict=True))
        assert getattr(sensor, field) == tuple(of[b] for b in sensor.bands)


def test_ground_sampling_is_ten_twenty_and_sixty_metres():
    sensor = SENSORS["s2_l1c"]
    metres = {m: set() for m in sensor.resolution}
    for band, m in zip(sensor.bands, sensor.resolution, strict=True):
        metres[m].add(band)
    assert metres == {
        10.0: {"B02", "B03", "B04", "B08"},
        20.0: {"B05", "B06", "B07", "B8A", "B11", "B12"},
        60.0: {"B01", "B09", "B10"},
    }


def test_radar_has_no_wavelength_and_ssl4eos_statistics():
    sensor = SENSORS["s1_grd"]
    assert all(math.isnan(um) for um in sensor.wavelengths)
    assert sensor.mean == (-12.59, -20.26)
    assert sensor.std == (5.26, 5.91)
    assert sensor.clip_sigma == 2.0


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
        sensor = SENSORS[name]
        assert sensor.bands == tuple(edges)[:count]
        for band, um, metres in zip(
            sensor.bands, sensor.wavelengths, sensor.resolution, strict=True
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
def test_scales_agree_in_physical_units(name, scale, offset, mean, spread):
    sensor = SENSORS[name]
    np.testing.assert_allclose(np.array(sensor.mean) * scale + offset, mean, rtol=1e-4)
    np.testing.assert_allclose(np.array(sensor.std) * scale, spread, rtol=1e-3)


def test_the_thermal_scale_is_plancks_radiance_at_293_kelvin():
    sensor = SENSORS["landsat_oli_tirs_toa"]
    for band in ("B10", "B11"):
        i = sensor.bands.index(band)
        um = sensor.wavelengths[i]
        # 2 h c^2 and h c / k in W um^4 / (m2 sr) and um K
        radiance = 1.191043e8 / um**5 / (math.exp(14387.77 / (um * 293)) - 1)
        assert (radiance - 0.1) / 3.342e-4 == pytest.approx(sensor.mean[i], rel=2e-3)


@pytest.mark.parametrize("name", SENSORS)
def test_valid_ranges_and_nodata_fit_the_dtype(name):
    sensor = SENSORS[name]
    low, high = sensor.valid
    if sensor.dtype != "float32":
        info = np.iinfo(sensor.dtype)
        assert info.min <= low < high <= info.max
        assert (sensor.unit == "8-bit") == (sensor.dtype == "uint8")
    typical = np.clip(np.array(sensor.mean), low, high).astype(sensor.dtype)
    array = np.broadcast_to(typical, (4, 4, len(sensor.bands)))
    assert check_array(array, sensor, "typical") is array
    assert (sensor.level == "") == (sensor.unit in ("8-bit", "K"))


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("bands", ("VV", "VV"), "should be distinct"),
        ("std", (1.0, 0.0), "should be above 0"),
        ("clip_sigma", 0.0, "clip_sigma 0.0 should be above 0"),
        ("valid", (5.0, 5.0), "lowest and a highest"),
        ("valid", (math.nan, 5.0), "lowest and a highest"),
        ("dtype", "float33", "'float33' should be one of uint8, uint16"),
        ("dtype", "complex64", "'complex64' should be one of uint8, uint16"),
        ("dtype", "int32", "float32 holds files of other dtypes whose values fit"),
        ("dtype", "uint32", "'uint32' should be one of"),
        ("dtype", "int8", "'int8' should be one of"),
        ("dtype", "float16", "'float16' should be one of"),
        ("scale", 0.0, "scale should not be 0"),
        ("modality", "my sensor", "'my sensor' should be one word"),
    ],
)
def test_an_invalid_sensor_is_refused(field, value, words):
    with pytest.raises(ValueError, match=f"sensor s1_grd: .*{words}"):
        dataclasses.replace(SENSORS["s1_grd"], **{field: value})


@pytest.mark.parametrize("name", SENSORS)
def test_no_std_is_zero_and_modalities_are_those_in_results(name):
    sensor = SENSORS[name]
    assert min(sensor.std) > 0
    assert sensor.modality in ("rgb", "s1", "s2", "ir", "nir", "cir", "landsat")
    np.dtype(sensor.dtype)


def test_the_statistics_fit_the_miniature(monkeypatch):
    monkeypatch.setitem(scenes.SIZES["miniature"], "val", 60)
    arrays = scenes.open_miniature("miniature", "val").arrays
    for key, name in (("s1", "s1_grd"), ("s2", "s2_l1c"), ("ir", "ir_bt")):
        sensor = SENSORS[name]
        z = (arrays[key].astype(np.float64) - sensor.mean) / sensor.std
        assert abs(z.mean()) < 1
        assert 0.3 < z.std() < 2


def test_a_sensor_with_too_few_values_is_refused():
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


def test_the_error_for_an_unknown_sensor_has_the_nearest_name_and_the_list():
    with pytest.raises(ValueError, match="unknown sensor 's2_l1'") as error:
        get_sensor("s2_l1")
    text = str(error.value)
    assert "did you mean 's2_l1c'" in text
    assert all(name in text for name in SENSORS)


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
        for name, composite in COMPOSITES.items():
            made = make_composite(sorted_in, L1C, composite)
            off[name].append(np.abs(made - rgb).mean())
            np.testing.assert_array_equal(
                made, make_composite(array, SORTED, composite)
            )
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


def test_a_real_bigearthnet_patch_is_sorted_by_band_name(real_data):
    folder = real_data / "bigearthnet" / "BigEarthNet-v1.0"
    patch = min(p for p in folder.iterdir() if p.is_dir())
    files = {p.stem.rsplit("_", 1)[1]: p for p in sorted(patch.glob("*.tif"))}
    sensor = SENSORS["s2_l2a"]
    assert list(files)[-1] == "B8A"  # the trap: a sorted folder is not in band order
    assert set(files) == set(sensor.bands)
    stack = np.stack([read_band(p) for p in files.values()], -1)
    array = select_bands(stack, tuple(files), sensor.bands)
    check_array(array, sensor, str(patch))
    for i, band in enumerate(sensor.bands):
        np.testing.assert_array_equal(array[..., i], read_band(files[band]))
    with pytest.raises(ValueError, match="'B10'"):
        select_bands(stack, tuple(files), SENSORS["s2_l1c"].bands)


def test_a_real_radar_patch_fits_its_sensor_and_statistics(real_data):
    folder = real_data / "bigearthnet" / "BigEarthNet-S1-v1.0"
    sensor = SENSORS["s1_grd"]
    for patch in sorted(p for p in folder.iterdir() if p.is_dir()):
        bands = [read_band(patch / f"{patch.name}_{b}.tif") for b in sensor.bands]
        array = check_array(np.stack(bands, -1), sensor, patch.name)
        z = (array - np.array(sensor.mean)) / sensor.std
        assert np.abs(z.mean((0, 1))).max() < 3
        assert array[..., 0].mean() > array[..., 1].mean()  # VV is above VH

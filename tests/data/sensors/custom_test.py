"""Custom sensors from TOML files."""

import math

import numpy as np
import pytest
import tifffile

from rsclip_jax.data.codecs.checks import check_array
from rsclip_jax.data.datasets import open_source
from rsclip_jax.data.sensors import Sensor, get_sensor
from rsclip_jax.data.sensors.custom import load_sensor

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


def test_a_custom_sensor_has_its_path_as_name(tmp_path):
    extra = 'level = "L3"\nvalid = [0, 20000]\nnodata = 0\nclip_sigma = 3\n'
    path = write_sensor(tmp_path, SWIR + extra)
    sensor = load_sensor(path)
    assert sensor == Sensor(
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
    assert get_sensor(str(path)) == sensor
    assert get_sensor(str(path)) is get_sensor(str(path))  # read once
    array = np.full((2, 2, 2), 20001, np.uint16)
    with pytest.raises(ValueError, match=r"a\.tif: 100 % of .*outside 0 to 20000"):
        check_array(array, sensor, "a.tif")


def test_optional_keys_have_the_defaults_of_sensor(tmp_path):
    sensor = load_sensor(write_sensor(tmp_path, SWIR))
    assert (sensor.clip_sigma, sensor.level, sensor.nodata) == (5.0, "", None)
    assert sensor.valid == (-math.inf, math.inf)


def test_mean_and_std_may_be_left_out_together(tmp_path):
    text = SWIR.replace("mean = [2000, 2000]\n", "")
    with pytest.raises(ValueError, match="0 values of mean for 2 bands"):
        load_sensor(write_sensor(tmp_path, text))
    sensor = load_sensor(
        write_sensor(tmp_path, text.replace("std = [1500, 1500]\n", ""))
    )
    assert (sensor.mean, sensor.std) == ((), ())


def test_files_of_any_unit_are_read_by_its_scale_and_offset(tmp_path):
    text = SWIR.replace('"DN"', '"W/(m2 sr um)"').replace("uint16", "float32")
    write_sensor(tmp_path, text + "scale = 0.01\noffset = -2\nvalid = [-2, 200]\n")
    (tmp_path / "files").mkdir()
    counts = np.arange(96, dtype=np.uint16).reshape(6, 8, 2) * 100
    tifffile.imwrite(
        tmp_path / "files/a.tif",
        counts,
        photometric="minisblack",
        planarconfig="contig",
    )
    lines = 'reader = "folder"\nfolder = "files"\n[sensors]\nir = "swir.toml"\n'
    (tmp_path / "mine.toml").write_text(lines)
    got = open_source(tmp_path / "mine.toml")[0]["ir"]
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, counts * 0.01 - 2, rtol=1e-6)
    (tmp_path / "mine.toml").write_text(lines + "[scale]\nir = 0.02")
    got = open_source(tmp_path / "mine.toml")[0]["ir"]  # the dataset's own counts
    np.testing.assert_allclose(got, counts * 0.02, rtol=1e-6)


def test_radar_has_nan_wavelengths_in_toml(tmp_path):
    text = SWIR.replace("[1.61, 2.19]", "[nan, nan]")
    sensor = load_sensor(write_sensor(tmp_path, text))
    assert all(math.isnan(um) for um in sensor.wavelengths)


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
        (SWIR.replace('unit = "DN"', ""), r"unknown keys \[\], missing keys \['unit'"),
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
        (SWIR.replace("uint16", "int32"), "'int32' should be one of .*float32 holds"),
        (SWIR.replace('"DN"', '"reflectanse"'), "is none of .* or another name"),
        (SWIR + "scale = 0.1", "'uint16' with a scale or offset should be float32"),
        (SWIR + 'scale = "x"', "scale = 'x' should be a number"),
        (SWIR.replace("SWIR2", "SWIR1"), "should be distinct"),
        ("bands = [", "not a TOML file: "),
        ("bands = " + "[" * 3000, "not a TOML file: "),
        (SWIR + SWIR, "not a TOML file: "),
    ],
)
def test_each_fault_of_a_sensor_file_is_named(tmp_path, text, words):
    path = write_sensor(tmp_path, text)
    with pytest.raises(ValueError, match=words) as error:
        get_sensor(str(path))
    assert str(path) in str(error.value)


def test_a_binary_file_is_refused(tmp_path):
    path = tmp_path / "swir.toml"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match=r"swir\.toml: not a TOML file"):
        load_sensor(path)


def test_a_missing_file_is_named(tmp_path):
    path = tmp_path / "none.toml"
    with pytest.raises(
        FileNotFoundError, match="this sensor file does not exist"
    ) as err:
        get_sensor(str(path))
    assert str(path) in str(err.value)

"""Bands found by the names in a file."""

import dataclasses

import pytest

from rsclip_jax.data.sensors import SENSORS
from rsclip_jax.data.sensors.names import find_bands

S1, L1C, L2A, LANDSAT, RGB, NIR = (
    SENSORS[name]
    for name in ("s1_grd", "s2_l1c", "s2_l2a", "landsat_oli_sr", "rgb", "s2_nir")
)
EARTH_ENGINE = "B1 B2 B3 B4 B5 B6 B7 B8 B8A B9 B11 B12".split()
STAC = (
    "coastal blue green red rededge1 rededge2 rededge3 nir nir08 nir09 swir16 swir22"
).split()
GDAL = [
    f"{band}, central wavelength {um} nm"
    for band, um in zip(
        EARTH_ENGINE,
        (443, 490, 560, 665, 705, 740, 783, 842, 865, 945, 1610, 2190),
        strict=True,
    )
]
MONTHS = [f"2020_06_{band}_median" for band in L2A.bands]
SNAP = ["Sigma0_VV_db", "Sigma0_VH_db"]
USGS = [f"SR_B{i}" for i in range(1, 8)]
WORDS = ["Coastal", "Blue", "Green", "Red", "NIR", "SWIR1", "SWIR2"]

KNOWN = [
    (L2A, list(L2A.bands)),
    (L2A, EARTH_ENGINE),
    (L2A, STAC),
    (L2A, GDAL),
    (L2A, MONTHS),
    (S1, ["vv", "vh"]),
    (S1, SNAP),
    (S1, ["Gamma0_VV", "Intensity_VH"]),
    (S1, ["VVdB", "VHdB"]),
    (S1, ["sigma0VV_asc", "sigma0VH_asc"]),
    (LANDSAT, USGS),
    (LANDSAT, WORDS),
    (RGB, ["red", "green", "blue"]),
    (RGB, ["B4", "B3", "B2"]),
    (NIR, ["B8"]),
]


def find(names, sensor, order=()):
    return find_bands(names, sensor, order or sensor.bands, "a.tif")


@pytest.mark.parametrize(("sensor", "names"), KNOWN)
def test_each_tools_names_are_known_in_any_order(sensor, names):
    n = len(names)
    assert find(names, sensor) == tuple(range(n))
    assert find(names[::-1], sensor) == tuple(range(n))[::-1]
    assert find(["angle", *names], sensor) == tuple(range(1, n + 1))  # more bands


@pytest.mark.parametrize(
    "names", [("", ""), ("a", "b"), ("Band 1", "Band 2"), ("b1", "b2")]
)
def test_names_without_a_meaning_leave_the_position(names):
    assert find(names, S1) is None


def test_names_of_some_bands_must_stand_at_their_places():
    assert find(("VV", ""), S1) is None
    with pytest.raises(
        ValueError, match=r"names its bands VH, \(none\), but s1_grd has"
    ):
        find(("VH", ""), S1)


@pytest.mark.parametrize(
    ("sensor", "names"),
    [
        (S1, ("HH", "HV")),
        (S1, ("VV", "VV/VH")),
        (S1, ("B4", "B8")),
        (S1, ("B2", "B1")),
        (S1, ("HHdB", "HVdB")),
        (L1C, L2A.bands),  # B10 is missing
        (L2A, ("VV", "VH")),
        (NIR, ("B8", "B3", "nir")),  # twice
        (NIR, ("B8A",)),
    ],
)
def test_names_that_contradict_the_sensor_are_refused_with_both_lists(sensor, names):
    with pytest.raises(ValueError, match=r"^a\.tif: the file names its bands") as error:
        find(names, sensor)
    assert ", ".join(names) in str(error.value)
    assert ", ".join(sensor.bands) in str(error.value)


def test_a_datasets_order_and_the_files_names_must_agree():
    order = (*L2A.bands[:8], *L2A.bands[9:], "B8A")
    want = tuple(order.index(band) for band in L2A.bands)
    assert find(order, L2A, order) == want
    with pytest.raises(ValueError, match=r"file_bands says B01, .*, B8A; correct"):
        find(L2A.bands, L2A, order)


def test_a_custom_sensors_names_are_its_own():
    sensor = dataclasses.replace(S1, bands=("SWIR 1", "T"), modality="x")
    assert find(("t", "swir_1"), sensor) == (1, 0)
    assert find(("B11", "B10"), sensor) is None  # nobody knows whose numbers

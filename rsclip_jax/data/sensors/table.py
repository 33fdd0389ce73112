"""The tables of sensors and of RGB composites of their bands."""

import functools
from typing import Any

from rsclip_jax.data.sensors.custom import load_sensor
from rsclip_jax.data.sensors.spec import Sensor
from rsclip_jax.data.types import Composite
from rsclip_jax.io.lookup import look_up

_NAN = float("nan")
_S2_BANDS = tuple("B01 B02 B03 B04 B05 B06 B07 B08 B8A B09 B10 B11 B12".split())
# ESA Sentinel-2 MSI: central wavelength (um), ground sampling (m), in _S2_BANDS order.
# fmt: off
_S2_UM = (0.443, 0.490, 0.560, 0.665, 0.705, 0.740, 0.783,
          0.842, 0.865, 0.945, 1.375, 1.610, 2.190)
_S2_M = (60.0, 10.0, 10.0, 10.0, 20.0, 20.0, 20.0,
         10.0, 20.0, 60.0, 60.0, 20.0, 20.0)
# Landsat 8-9's bands B1 to B11 in the order of the files: B8 is panchromatic, B9
# cirrus, B10 and B11 thermal. NASA measured OLI's centres (Barsi et al. 2014, Remote
# Sensing 6, 10232); TIRS's are the middle of USGS's band edges (10.60-11.19 and
# 11.50-12.51 um). Ground sampling by USGS: 30 m, B8 15 m, thermal 100 m (distributed
# at 30 m).
_LANDSAT_BANDS = tuple(f"B{i}" for i in range(1, 12))
_LANDSAT_UM = (0.443, 0.482, 0.561, 0.655, 0.865, 1.609, 2.201,
               0.590, 1.373, 10.895, 12.005)
_LANDSAT_M = (30.0,) * 7 + (15.0, 30.0, 100.0, 100.0)
# fmt: on

_EIGHT_BIT: dict[str, Any] = {"unit": "8-bit", "dtype": "uint8", "valid": (0.0, 255.0)}
# ESA writes DN from 1 to 32767, 0 for missing pixels and 65535 for saturated ones.
# Every DN is valid, since clouds and glint are far above 10000 and resampled saturated
# pixels can have any value. Pixels that are saturated in all bands are missing, and a
# patch that is all nodata is refused.
_DN: dict[str, Any] = {
    "unit": "DN",
    "dtype": "uint16",
    "valid": (0.0, 65535.0),
    "nodata": 0.0,
    "saturated": 65535.0,
}
# USGS gives 7273 to 43636 as the range of surface reflectance (0 to 1), but snow,
# clouds and deep shade are outside of it. 0 is fill.
_C2: dict[str, Any] = {"dtype": "uint16", "valid": (1.0, 65535.0), "nodata": 0.0}
# Values in Celsius are below this range and sensor counts above it; the coldest cloud
# tops and the hottest fires are within it.
_KELVIN = (100.0, 1000.0)
# Values below the radar's noise floor depend on how a file was clipped, and corner
# reflectors reach tens of dB. The nodata values -9999 and -32768 are outside the range.
_DECIBEL = (-150.0, 100.0)


def _without_b10(values: tuple) -> tuple:
    return tuple(v for v, band in zip(values, _S2_BANDS, strict=True) if band != "B10")


def _without_60m(values: tuple) -> tuple:
    return tuple(v for v, m in zip(values, _S2_M, strict=True) if m < 60)


def _s2(name: str, level: str, bands: tuple, um: tuple, metres: tuple) -> Sensor:
    # One mean and std for all bands keep the spectrum's shape, as DN / 10000 does.
    flat = (2000.0,) * len(bands)
    return Sensor(
        name,
        "s2",
        bands,
        wavelengths=um,
        resolution=metres,
        mean=flat,
        std=flat,
        level=level,
        **_DN,
    )


def _landsat(
    name: str, unit: str, level: str, count: int, mean: tuple, std: tuple
) -> Sensor:
    return Sensor(
        name,
        "landsat",
        _LANDSAT_BANDS[:count],
        unit,
        wavelengths=_LANDSAT_UM[:count],
        resolution=_LANDSAT_M[:count],
        mean=mean,
        std=std,
        level=level,
        **_C2,
    )


def _picture(
    name: str, modality: str, bands: tuple, um: tuple, metres: float
) -> Sensor:
    n = len(bands)
    return Sensor(
        name,
        modality,
        bands,
        wavelengths=um,
        resolution=(metres,) * n,
        mean=(127.5,) * n,
        std=(64.0,) * n,
        **_EIGHT_BIT,
    )


# Reflectance 0.2 +- 0.2, as for Sentinel-2, by USGS's scales of Collection 2:
# DN * 2.75e-5 - 0.2 (surface), DN * 2e-5 - 0.1 (top of atmosphere). Thermal radiance,
# DN * 3.342e-4 + 0.1 W/(m2 sr um) on Landsat 8, is that of 293 +- 8 K.
_TOA_MEAN, _TOA_STD = (15000.0,) * 9, (10000.0,) * 9
_TIRS_MEAN, _TIRS_STD = (25600.0, 24000.0), (3200.0, 2800.0)
_RGB_UM = (0.665, 0.560, 0.490)
_SENSORS = (
    _picture("rgb", "rgb", ("R", "G", "B"), _RGB_UM, _NAN),
    # SSL4EO-S12's statistics of Sentinel-1 GRD backscatter, and its clipping at two
    # sigma.
    Sensor(
        "s1_grd",
        "s1",
        ("VV", "VH"),
        "dB",
        "float32",
        (_NAN, _NAN),
        (10.0, 10.0),
        (-12.59, -20.26),
        (5.26, 5.91),
        clip_sigma=2.0,
        level="GRD",
        valid=_DECIBEL,
        nodata=0.0,  # no ground has exactly 0 dB in both polarisations
    ),
    # Visualised SAR: one polarisation stretched to 8 bits by whoever made the file.
    _picture("s1_vv_8bit", "s1", ("VV",), (_NAN,), 10.0),
    _picture("s1_vh_8bit", "s1", ("VH",), (_NAN,), 10.0),
    _s2("s2_l1c", "L1C", _S2_BANDS, _S2_UM, _S2_M),
    _s2(
        "s2_l2a",
        "L2A",
        _without_b10(_S2_BANDS),
        _without_b10(_S2_UM),
        _without_b10(_S2_M),
    ),
    # So2Sat LCZ42's ten bands of DN / 10000; L1C, since blue is brighter than red in
    # the published means, as at the top of the atmosphere.
    Sensor(
        "s2_so2sat",
        "s2",
        _without_60m(_S2_BANDS),
        "reflectance",
        "float32",
        _without_60m(_S2_UM),
        _without_60m(_S2_M),
        (0.2,) * 10,
        (0.2,) * 10,
        level="L1C",
        valid=(0.0, 6.5535),
        nodata=0.0,
    ),
    # So2Sat LCZ42's channels in its authors' order: the complex amplitudes, then the
    # powers and the off-diagonal element of the Lee-filtered covariance. The SSL4EO-S12
    # group published the statistics of its training set (zhu-xlab/FGMAE); powers have a
    # long tail.
    Sensor(
        "s1_so2sat",
        "s1",
        tuple("VH_re VH_im VV_re VV_im VH_lee VV_lee C_re C_im".split()),
        "linear",
        "float32",
        (_NAN,) * 8,
        (10.0,) * 8,
        (-3.6e-5, -7.7e-6, 5.9e-5, 2.5e-5, 0.0442, 0.2576, 7.6e-4, 1.35e-3),
        (0.1756, 0.1756, 0.46, 0.456, 2.856, 8.3248, 2.4499, 1.4647),
        level="SLC",
    ),
    # Near infrared only: Sentinel-2's wide band.
    Sensor(
        "s2_nir",
        "nir",
        ("B08",),
        wavelengths=(0.842,),
        resolution=(10.0,),
        mean=(2000.0,),
        std=(2000.0,),
        level="L2A",
        **_DN,
    ),
    # Colour infrared: near infrared, red and green shown as red, green and blue.
    _picture("cir_8bit", "cir", ("NIR", "R", "G"), (0.842, 0.665, 0.560), _NAN),
    # A thermal camera's picture, 8 to 14 um.
    _picture("ir_8bit", "ir", ("IR",), (11.0,), _NAN),
    _landsat("landsat_oli_sr", "C2 SR", "L2SP", 7, (14545.0,) * 7, (7273.0,) * 7),
    _landsat("landsat_oli_toa", "C2 TOA", "L1TP", 9, _TOA_MEAN, _TOA_STD),
    _landsat(
        "landsat_oli_tirs_toa",
        "C2 TOA",
        "L1TP",
        11,
        _TOA_MEAN + _TIRS_MEAN,
        _TOA_STD + _TIRS_STD,
    ),
    # Landsat's surface temperature, DN * 0.00341802 + 149 K. Mean and std are those of
    # 293 +- 8 K.
    Sensor(
        "landsat_st",
        "ir",
        ("B10",),
        "C2 ST",
        wavelengths=(10.895,),
        resolution=(100.0,),
        mean=(42130.0,),
        std=(2341.0,),
        level="L2SP",
        **_C2,
    ),
    # Brightness temperature near 11 um, as Landsat's and ASTER's thermal bands give it.
    Sensor(
        "ir_bt",
        "ir",
        ("BT",),
        "K",
        "float32",
        (10.9,),
        (100.0,),
        (293.0,),
        (8.0,),
        valid=_KELVIN,
    ),
)
SENSORS: dict[str, Sensor] = {sensor.name: sensor for sensor in _SENSORS}

_TRUE_COLOUR = ("B04", "B03", "B02")
_COMPOSITES = (
    # Zavras et al. (arXiv 2402.09816) make the RGB of L1C and of L2A with these.
    Composite("s2_l1c_rgb", "s2_l1c", _TRUE_COLOUR, 3558.0),
    Composite("s2_l2a_rgb", "s2_l2a", _TRUE_COLOUR, 2000.0),
    Composite("s2_so2sat_rgb", "s2_so2sat", _TRUE_COLOUR, 0.3558),
    # The JPEGs that come with EuroSAT.
    Composite("eurosat_rgb", "s2_l1c", _TRUE_COLOUR, 2750.0),
)
COMPOSITES: dict[str, Composite] = {made.name: made for made in _COMPOSITES}


_load_once = functools.cache(load_sensor)  # get_sensor is called for every record


def get_sensor(name: str) -> Sensor:
    """Returns a sensor of SENSORS, or the one in a file whose path ends in .toml.

    Raises ValueError for an unknown name, with the nearest name and the list; for a
    file see load_sensor.
    """
    if str(name).endswith(".toml"):
        return _load_once(str(name))
    return look_up(SENSORS, name, "sensor")

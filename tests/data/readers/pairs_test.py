"""Unlabelled pairs: SSL4EO-S12 and Sen1Floods11, real and written here."""

import functools
import shutil

import numpy as np
import pytest
import tifffile

from rsclip_jax.data.datasets import open_source
from rsclip_jax.data.sensors import SENSORS
from tests.helpers.geotiffs import write_by_gdal
from tests.helpers.packs import pack_archive

S2_FILES = [b.replace("B0", "B") for b in SENSORS["s2_l1c"].bands]


def write(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    layout = {"planarconfig": "contig"} if array.ndim == 3 else {}
    tifffile.imwrite(path, array, photometric="minisblack", **layout)


def write_ssl4eo(root, locations):
    """Locations with two seasons; the earlier scene's satellite sorts last."""
    for location in locations:
        for season, date in enumerate(("20200101", "20200601")):
            for i, band in enumerate(S2_FILES):
                value = 1000 * season + i + int(location)
                array = np.full((12, 12), value, np.uint16)
                scene = f"{date}T054639_{date}T054831_T43RCP"
                write(root / "s2c" / location / scene / f"{band}.tif", array)
            for i, band in enumerate(("VV", "VH")):
                array = np.full((12, 12), -10.0 * (season + 1) - i, np.float32)
                scene = f"S1{'BA'[season]}_IW_GRDH_1SDV_{date}T010800_{date}T010825_1"
                write(root / "s1" / location / scene / f"{band}.tif", array)


@pytest.fixture
def ssl4eo(tmp_path):
    write_ssl4eo(tmp_path / "ssl4eo_s12", ("0000001", "0000002"))
    return tmp_path


def test_parts_of_a_pack_are_those_of_the_archive(tmp_path):
    root, out = tmp_path / "archive", tmp_path / "out"
    write_ssl4eo(root / "ssl4eo_s12", [f"{i:07}" for i in range(20)])
    pack_archive("ssl4eo_s12", root, out, ("train",), shard_mb=1)
    for part in ("[:50%]", "[50%:]", "[:20%]"):
        want = open_source("ssl4eo_s12", root, f"train{part}").ids
        assert want
        assert open_source("ssl4eo_s12", out, f"train{part}").ids == want


def test_seasons_of_a_location_are_paired_in_order(ssl4eo):
    source = open_source("ssl4eo_s12", ssl4eo)
    assert source.ids == ["0000001/0", "0000001/1", "0000002/0", "0000002/1"]
    for i in range(4):
        record, (location, season) = source[i], source.ids[i].split("/")
        want = 1000 * int(season) + np.arange(13) + int(location)
        np.testing.assert_array_equal(record["s2"][3, 4], want)
        np.testing.assert_array_equal(
            record["s1"][0, 0], [-10 * (int(season) + 1), -10 * (int(season) + 1) - 1]
        )
        assert record["label"] == -1


def test_all_seasons_of_a_location_are_in_one_split(ssl4eo):
    seen: dict[str, set[str]] = {}
    for split in ("train", "val", "test"):
        try:
            source = open_source("ssl4eo_s12", ssl4eo, split)
        except FileNotFoundError:
            continue
        for name in source.ids:
            seen.setdefault(name.split("/")[0], set()).add(split)
    assert set(seen) == {"0000001", "0000002"}
    assert all(len(splits) == 1 for splits in seen.values())


def test_band_files_with_other_suffixes_are_read(ssl4eo):
    record = open_source("ssl4eo_s12", ssl4eo)[0]
    for path in (ssl4eo / "ssl4eo_s12").rglob("*.tif"):
        if path.stem in ("B8A", "VH"):
            path.rename(path.with_suffix(".TIF"))
        elif path.stem == "B4":
            options = {"driver": "JP2OpenJPEG", "quality": 100, "reversible": True}
            write_by_gdal(path.with_suffix(".jp2"), tifffile.imread(path), **options)
            path.unlink()
    found = open_source("ssl4eo_s12", ssl4eo)[0]
    np.testing.assert_array_equal(found["s2"], record["s2"])
    np.testing.assert_array_equal(found["s1"], record["s1"])
    for path in (ssl4eo / "ssl4eo_s12").rglob("B4.jp2"):
        shutil.copy(path, path.with_suffix(".TIFF"))
    with pytest.raises(ValueError, match=r"B4\.TIFF and B4\.jp2 could both be the ba"):
        open_source("ssl4eo_s12", ssl4eo)[0]


def test_a_scene_without_a_date_is_named(ssl4eo):
    scenes = ssl4eo / "ssl4eo_s12" / "s1" / "0000001"
    next(scenes.iterdir()).rename(scenes / "spring")
    with pytest.raises(ValueError, match=r"spring: no date in the name"):
        open_source("ssl4eo_s12", ssl4eo)


def test_hidden_folders_and_files_are_no_locations_or_chips(ssl4eo):
    for sub in ("s1", "s2c", "s1/0000001", "s2c/0000002"):
        (ssl4eo / "ssl4eo_s12" / sub / ".ipynb_checkpoints").mkdir()
    assert len(open_source("ssl4eo_s12", ssl4eo)) == 4
    root = ssl4eo / "sen1floods11"
    for folder in ("S1Hand", "S2Hand"):
        for name in ("Ghana_1", "._Ghana_1"):
            write(root / folder / f"{name}_{folder}.tif", np.zeros((4, 4), np.uint8))
    assert open_source("sen1floods11", ssl4eo).ids == ["Ghana_1"]


def test_a_location_without_a_partner_is_named(ssl4eo):
    (ssl4eo / "ssl4eo_s12" / "s1" / "0000009").mkdir()
    with pytest.raises(ValueError, match=r"no partner: .*0000009"):
        open_source("ssl4eo_s12", ssl4eo)
    assert len(open_source("ssl4eo_s12", ssl4eo, on_error="skip")) == 4


def test_a_missing_sensor_is_named(tmp_path):
    (tmp_path / "ssl4eo_s12" / "s1").mkdir(parents=True)
    with pytest.raises(FileNotFoundError, match=r"s2c: this sensor's folder"):
        open_source("ssl4eo_s12", tmp_path)
    (tmp_path / "sen1floods11" / "S1Hand").mkdir(parents=True)
    with pytest.raises(FileNotFoundError, match="no folder S2Hand or S2"):
        open_source("sen1floods11", tmp_path)


def test_chips_are_paired_by_name(tmp_path):
    root = tmp_path / "sen1floods11"
    s2 = np.random.default_rng(0).integers(0, 5000, (8, 8, 13)).astype(np.int16)
    s1 = np.full((8, 8, 2), -12, np.float32)
    write(root / "S2Hand" / "Ghana_1_S2Hand.tif", s2)
    write(root / "S1Hand" / "Ghana_1_S1Hand.tif", s1)
    write(root / "S1Hand" / "Ghana_2_S1Hand.tif", s1)
    with pytest.raises(ValueError, match="Ghana_2_S1Hand"):
        open_source("sen1floods11", tmp_path)
    source = open_source("sen1floods11", tmp_path, on_error="skip")
    assert source.ids == ["Ghana_1"]
    np.testing.assert_array_equal(source[0]["s2"], s2)


def test_chips_with_an_uppercase_suffix_are_read(tmp_path):
    root = tmp_path / "sen1floods11"
    s2 = np.full((8, 8, 13), 700, np.uint16)
    write(root / "S2Hand" / "Ghana_1_S2Hand.TIF", s2)
    write(root / "S1Hand" / "Ghana_1_S1Hand.TIFF", np.full((8, 8, 2), -12, np.float32))
    with pytest.raises(ValueError, match=r"no partner: .*Ghana_1_S2Hand\.TIF"):
        open_source("sen1floods11", tmp_path)
    path = root / "S1Hand" / "Ghana_1_S1Hand.TIFF"
    path.rename(path.with_suffix(".Tif"))
    np.testing.assert_array_equal(open_source("sen1floods11", tmp_path)[0]["s2"], s2)


def test_real_locations(real_data):
    """B10 is cirrus, dark everywhere; B8A is as bright as B08 beside it."""
    record = open_source("ssl4eo_s12", real_data)[0]
    bands = SENSORS["s2_l1c"].bands
    means = dict(zip(bands, record["s2"].mean(axis=(0, 1)), strict=True))
    assert means["B10"] < 50
    assert 0.7 < means["B8A"] / means["B08"] < 1.4
    assert record["s1"].shape == (264, 264, 2)
    chip = open_source("sen1floods11", real_data)[0]
    means = dict(zip(bands, chip["s2"].mean(axis=(0, 1)), strict=True))
    assert means["B10"] < 100
    assert 0.7 < means["B8A"] / means["B08"] < 1.4


def test_real_radar_with_holes_is_read_if_max_nodata_allows_it(real_data, tmp_path):
    """0.2 % of this chip is NaN; its partner here is from another country."""
    root = tmp_path / "sen1floods11"
    chip = real_data / "sen1floods11_s1only" / "S1" / "Nigeria_812045_S1Hand.tif"
    other = real_data / "sen1floods11" / "S2" / "Spain_7370579_S2Hand.tif"
    for path, name in ((chip, "S1Hand"), (other, "S2Hand")):
        (root / name).mkdir(parents=True)
        shutil.copy(path, root / name / f"Nigeria_812045_{name}.tif")
    opened = functools.partial(open_source, "sen1floods11", tmp_path)
    with pytest.raises(ValueError, match=r"0\.221 % of the s1_grd pixels are missing"):
        opened().read(0, ("s1",))
    with pytest.raises(ValueError, match=r"0\.221 %.*max_nodata=0\.001 allows 0\.1 %"):
        opened(max_nodata=0.001).read(0, ("s1",))
    s1 = opened(max_nodata=0.01).read(0, ("s1",))["s1"]
    stored = np.moveaxis(tifffile.imread(chip), 0, -1)
    hole = np.isnan(stored)
    np.testing.assert_array_equal(s1[~hole], stored[~hole])
    for band in range(2):
        median = np.nanmedian(stored[..., band])
        assert set(s1[hole[..., band], band]) == {np.float32(median)}
    with pytest.raises(ValueError, match=r"S2Hand\.tif \(EPSG:4326.* do not overlap"):
        opened(max_nodata=0.01).read(0, ("s1", "s2"))

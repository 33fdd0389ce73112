"""GEO-Bench's sets in their WebDataset mirror, written here as it is."""

import io
import json

import numpy as np
import pytest

from rsclip_jax.data.catalog.corine import CODES
from rsclip_jax.data.datasets import open_source
from rsclip_jax.data.sensors import SENSORS
from tests.helpers.tars import write_tar

NAMES = (
    "01 - Coastal aerosol,02 - Blue,03 - Green,04 - Red,05 - Vegetation Red Edge,"
    "06 - Vegetation Red Edge,07 - Vegetation Red Edge,08 - NIR,"
    "08A - Vegetation Red Edge,09 - Water vapour,10 - SWIR - Cirrus,11 - SWIR,12 - SWIR"
).split(",")
OF = dict(zip(SENSORS["s2_l1c"].bands, NAMES, strict=True))
# of EuroSAT's bands, of which B10 is nearly black
MEANS = {band: 1000 + 50 * i for i, band in enumerate(SENSORS["s2_l1c"].bands)}
MEANS["B10"] = 12
IN_FILES = "B01 B02 B03 B04 B05 B06 B07 B08 B09 B10 B11 B12 B8A".split()


def members_of(sid, bands, label):
    data = io.BytesIO()
    np.savez(data, **bands)
    told = {"label": label, "bands_order": list(bands)}
    meta = json.dumps(told).encode()
    return {f"{sid}.bands.npz": data.getvalue(), f"{sid}.meta.json": meta}


def write_set(root, name, samples, splits):
    """samples: id -> (bands, label), in a tar each."""
    folder = root / "classification_v1.0_wds" / name
    folder.mkdir(parents=True, exist_ok=True)
    for i, (sid, (bands, label)) in enumerate(samples.items()):
        write_tar(folder / f"shard_{i:05d}.tar", members_of(sid, bands, label))
    (folder / "default_partition.json").write_text(json.dumps(splits))
    return folder


def flat(value, side, dtype="int16"):
    return np.full((side, side), value, dtype)


def eurosat(mended=False):
    order = SENSORS["s2_l1c"].bands if mended else IN_FILES
    return {n: flat(MEANS[b], 64) for n, b in zip(NAMES, order, strict=True)}


@pytest.mark.parametrize("mended", [False, True])
def test_the_bands_of_m_eurosat_are_put_right(tmp_path, mended):
    samples = {f"id_{i}": (eurosat(mended), i) for i in (8, 3)}
    splits = {"train": ["id_8"], "valid": ["id_3"], "test": []}
    write_set(tmp_path, "m-eurosat", samples, splits)
    source = open_source("m_eurosat", tmp_path)
    assert source.ids == ["train/id_8", "val/id_3"]
    for record, name in zip(source, ("River", "Highway"), strict=True):
        assert source.classes[record["label"]] == name
        got = dict(zip(SENSORS["s2_l1c"].bands, record["s2"][0, 0], strict=True))
        assert got == MEANS
        rgb = np.round(np.array([MEANS[b] for b in ("B04", "B03", "B02")]) * 255 / 2750)
        np.testing.assert_array_equal(record["rgb"][5, 7], rgb)
    assert source.read(0, ("rgb",)).keys() == {"id", "label", "rgb"}
    assert open_source("m_eurosat", tmp_path, "val").ids == ["val/id_3"]
    with pytest.raises(FileNotFoundError, match="no split 'test'; it has train, val"):
        open_source("m_eurosat", tmp_path, "test")


def test_the_copy_of_m_eurosat_is_told_by_all_samples(tmp_path):
    """A cloud of ice, which B10 sees best, leaves its names as the others have them."""
    bands = eurosat(mended=True)
    bands[OF["B10"]] = flat(2 * MEANS["B09"], 64)
    samples = {"id_0": (bands, 0), **{f"id_{i}": (eurosat(True), 1) for i in (1, 2, 3)}}
    folder = write_set(tmp_path, "m-eurosat", samples, {"train": list(samples)})
    record = open_source("m_eurosat", tmp_path)[0]
    got = dict(zip(SENSORS["s2_l1c"].bands, record["s2"][0, 0], strict=True))
    assert got == {**MEANS, "B10": 2 * MEANS["B09"]}
    (folder / "default_partition.json").write_text('{"train": ["id_0"], "test": ["x"]}')
    bands[OF["B10"]] = bands[OF["B09"]]
    write_tar(folder / "shard_00000.tar", members_of("id_0", bands, 0))
    source = open_source("m_eurosat", tmp_path, "train")
    with pytest.raises(ValueError, match=r"m-eurosat: .* is 1 times as bright as"):
        source[0]


def test_labels_of_m_bigearthnet_are_the_43_classes_by_code(tmp_path):
    bands = {
        OF[b]: flat(100 + i, 120, "float32")
        for i, b in enumerate(SENSORS["s2_l2a"].bands)
    }
    hot = [int(name in ("Pastures", "Sea and ocean")) for name in CODES]
    samples = {"id_1": (bands, hot), "id_2": (bands, [2] * 43)}
    write_set(tmp_path, "m-bigearthnet", samples, {"train": ["id_1", "id_2"]})
    source = open_source("m_bigearthnet", tmp_path)
    record = source[0]
    found = {source.classes[i] for i in np.flatnonzero(record["label"])}
    assert found == {"Pastures", "Sea and ocean"}
    np.testing.assert_array_equal(record["s2"][3, 4], 100 + np.arange(12))
    assert record["s2"].dtype == np.uint16
    with pytest.raises(ValueError, match=r"id_2: label .* expected 43 numbers 0 and 1"):
        source[1]


def test_m_so2sat_has_both_sensors(tmp_path):
    radar = (
        "01 - VH.Real,02 - VH.Imaginary,03 - VV.Real,04 - VV.Imaginary,"
        "05 - VH.LEE Filtered,06 - VV.LEE Filtered,07 - VH.LEE Filtered.Real,"
        "08 - VV.LEE Filtered.Imaginary"
    ).split(",")
    bands = {name: flat(0.01 * (i + 1), 32, "float32") for i, name in enumerate(radar)}
    optical = SENSORS["s2_so2sat"].bands
    bands |= {OF[b]: flat(0.1 + 0.01 * i, 32, "float32") for i, b in enumerate(optical)}
    write_set(tmp_path, "m-so2sat", {"id_0": (bands, 16)}, {"test": ["id_0"]})
    record = open_source("m_so2sat", tmp_path, "test")[0]
    assert record["label"] == 16
    np.testing.assert_allclose(record["s1"][0, 0], 0.01 * np.arange(1, 9), rtol=1e-5)
    np.testing.assert_allclose(
        record["s2"][0, 0], 0.1 + 0.01 * np.arange(10), rtol=1e-5
    )


@pytest.mark.parametrize("dtype", ["uint8", "int16", "float32"])
def test_m_pv4ger_is_a_picture_by_the_names_of_its_bands(tmp_path, dtype):
    values = {"Blue": 3, "Green": 2, "Red": 1}
    bands = {name: flat(v, 320, dtype) for name, v in values.items()}
    samples = {"50.8,7.1": (bands, 1)}  # ids hold dots
    write_set(tmp_path, "m-pv4ger", samples, {"train": ["50.8,7.1"]})
    record = open_source("m_pv4ger", tmp_path)[0]
    assert (record["label"], record["rgb"].dtype) == (1, np.uint8)
    np.testing.assert_array_equal(record["rgb"][0, 0], [1, 2, 3])


def test_a_cut_sample_is_named(tmp_path):
    whole = {"a": (eurosat(), 0), "b": (eurosat(), 1)}
    folder = write_set(tmp_path, "m-eurosat", whole, {"train": ["a", "b"]})
    members = members_of("a", eurosat(), 0)
    members["a.bands.npz"] = members["a.bands.npz"][:4000]
    write_tar(folder / "shard_00000.tar", members)
    source = open_source("m_eurosat", tmp_path)
    with pytest.raises(ValueError, match=r"00000\.tar: train/a: its bands are unread"):
        source[0]
    assert source[1]["s2"].shape == (64, 64, 13)


def test_faults_are_named(tmp_path):
    bands = {key: value for key, value in eurosat().items() if key != "04 - Red"}
    samples = {"a": (eurosat(), 0), "b": (bands, 1), "c": (eurosat(), 10)}
    folder = write_set(tmp_path, "m-eurosat", samples, {"train": ["a", "b", "c", "d"]})
    with pytest.raises(ValueError, match="1 listed samples are in no tar: d; fetch"):
        open_source("m_eurosat", tmp_path)
    source = open_source("m_eurosat", tmp_path, on_error="skip")
    assert source.ids == ["train/a", "train/b", "train/c"]
    with pytest.raises(
        ValueError, match=r"00001\.tar: train/b: .* unreadable .*04 - R"
    ):
        source[1]
    with pytest.raises(
        ValueError, match="train/c: label 10, expected a number below 10"
    ):
        source[2]
    write_tar(folder / "shard_00009.tar", {"a.meta.pkl": b"x"})
    with pytest.raises(
        ValueError, match=r"a\.meta\.pkl is a pickle, .*; fetch the mir"
    ):
        open_source("m_eurosat", tmp_path)
    (folder / "default_partition.json").write_text('{"train": ["a", "a"]}')
    with pytest.raises(ValueError, match="a sample is listed twice"):
        open_source("m_eurosat", tmp_path)
    (folder / "default_partition.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"partition\.json is missing"):
        open_source("m_eurosat", tmp_path)


def test_a_sample_that_is_in_two_tars_is_refused(tmp_path):
    samples = {"a": (eurosat(), 0), "b": (eurosat(), 1)}
    folder = write_set(tmp_path, "m-eurosat", samples, {"train": ["a", "b"]})
    write_tar(folder / "shard_00001.tar", members_of("a", eurosat(), 1))
    with pytest.raises(ValueError, match=r"00001\.tar: a\..* is also in .*00000\.tar"):
        open_source("m_eurosat", tmp_path)

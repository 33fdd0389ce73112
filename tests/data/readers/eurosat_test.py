"""EuroSAT-SAR, alone and beside EuroSAT's 13 bands, in their public layouts."""

import numpy as np
import pytest
import tifffile

from rsclip_jax.data.catalog.datasets import DATASETS
from rsclip_jax.data.datasets import open_source
from rsclip_jax.data.sensors import SENSORS

CLASSES = DATASETS["eurosat_sar"].classes


def s1_of(seed, side=64):
    return np.random.default_rng(seed).normal(-40, 2, (side, side, 2)).astype("float32")


def s2_of(seed):
    s2 = np.random.default_rng(seed).integers(500, 3000, (64, 64, 13)).astype(np.uint16)
    s2[..., 9] //= 100  # B10 in the file's order, in which B8A is last
    return s2


def write(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    tifffile.imwrite(path, array, photometric="minisblack", planarconfig="contig")


@pytest.fixture
def archives(tmp_path):
    for i, name in enumerate(CLASSES):
        for n in (1, 2):
            stem = f"{name}/{name}_{n}.tif"
            write(tmp_path / "EuroSAT-SAR" / stem, s1_of(10 * i + n))
            write(tmp_path / "EuroSAT_MS" / stem, s2_of(10 * i + n))
    return tmp_path


def test_radar_alone(archives):
    source = open_source("eurosat_sar", archives)
    assert source.ids == [f"{c}/{c}_{n}" for c in CLASSES for n in (1, 2)]
    for i in (0, 7, 19):
        record = source[i]
        assert record.keys() == {"id", "label", "s1"}
        assert record["label"] == i // 2
        file = archives / "EuroSAT-SAR" / f"{record['id']}.tif"
        np.testing.assert_array_equal(record["s1"], tifffile.imread(file))


def test_copernicus_benchs_layout_is_read(archives):
    folder = archives / "eurosat_s1" / "all_imgs"
    folder.parent.mkdir()
    (archives / "EuroSAT-SAR").rename(folder)
    assert len(open_source("eurosat_sar", archives)) == 20


@pytest.mark.parametrize("above", ["", "l2_eurosat_s1s2"])
def test_copernicus_benchs_lists_are_its_splits(archives, above):
    """eurosat_s1.zip, which its page has in l2_eurosat_s1s2."""
    folder = archives / "root" / above / "eurosat_s1"
    folder.mkdir(parents=True)
    (archives / "EuroSAT-SAR").rename(folder / "all_imgs")
    write_lists(folder)
    source = open_source("eurosat_sar", archives / "root", "val")
    assert source.ids == [f"{c}/{c}_{n}" for c in CLASSES[:2] for n in (1, 2)]
    assert source.split_rule == "eurosat-*.txt"
    np.testing.assert_array_equal(source[0]["s1"], s1_of(1))


def test_pairs_have_equal_class_and_stem(archives):
    source = open_source("eurosat_s1_s2", archives)
    assert source.ids == open_source("eurosat_sar", archives).ids
    bands = SENSORS["s2_l1c"].bands
    b8a, b10 = bands.index("B8A"), bands.index("B10")
    for i in (0, 7, 19):
        record, label = source[i], i // 2
        seed = 10 * label + i % 2 + 1
        assert record["label"] == label
        np.testing.assert_array_equal(record["s1"], s1_of(seed))
        file, s2 = s2_of(seed), record["s2"]
        np.testing.assert_array_equal(s2[..., b8a], file[..., 12])
        np.testing.assert_array_equal(s2[..., b10], file[..., 9])
        assert s2[..., b10].mean() < 50
        assert s2[..., b8a].mean() > 1000
        rgb = np.clip(file[..., [3, 2, 1]] / 2750, 0, 1) * 255
        assert np.abs(record["rgb"] - rgb).max() <= 0.5 + 1e-3


def write_lists(folder):
    """Writes lists like torchgeo's, of the JPEGs' names."""
    for split, classes in {"train": CLASSES[4:], "val": CLASSES[:2]}.items():
        lines = [f"{c}_{n}.jpg" for c in classes for n in (1, 2)]
        (folder / f"eurosat-{split}.txt").write_text("\n".join(lines))
    lines = [f"{c}_{n}.jpg" for c in CLASSES[2:4] for n in (1, 2)]
    (folder / "eurosat-test.txt").write_text("\n".join(lines))


@pytest.mark.parametrize("listed", [False, True])
def test_pairs_have_the_splits_of_either_sensor(archives, listed):
    if listed:
        write_lists(archives)
        pairs = open_source("eurosat_s1_s2", archives, "test")
        assert pairs.ids == [f"{c}/{c}_{n}" for c in CLASSES[2:4] for n in (1, 2)]
        assert pairs.split_rule == "eurosat-*.txt"
    for split in ("train", "val", "test", "train[:50%]"):
        ids = [
            open_source(name, archives, split).ids
            for name in ("eurosat_sar", "eurosat_ms", "eurosat_s1_s2")
        ]
        assert ids[0] == ids[1] == ids[2]


@pytest.mark.parametrize("below", ["", "eurosat_s1_s2"])
def test_lists_in_a_folder_of_the_pairs_define_the_splits(archives, below):
    root = archives / "root"
    (root / "eurosat_s1_s2").mkdir(parents=True)
    for tree in ("EuroSAT-SAR", "EuroSAT_MS"):
        (archives / tree).rename(root / "eurosat_s1_s2" / tree)
    write_lists(root / below)
    ids = open_source("eurosat_s1_s2", root, "val").ids
    assert ids == [f"{c}/{c}_{n}" for c in CLASSES[:2] for n in (1, 2)]


def test_an_incomplete_or_absent_listed_pair_is_named_once(archives, capsys):
    write_lists(archives)
    half, none = (f"{c}/{c}_1.tif" for c in CLASSES[:2])
    (archives / "EuroSAT-SAR" / half).unlink()
    for tree in ("EuroSAT-SAR", "EuroSAT_MS"):
        (archives / tree / none).unlink()
    with pytest.raises(ValueError, match=rf"no partner: .*{half}"):
        open_source("eurosat_s1_s2", archives, "val")
    source = open_source("eurosat_s1_s2", archives, "val", on_error="skip")
    assert source.ids == [f"{c}/{c}_2" for c in CLASSES[:2]]
    said = capsys.readouterr().out
    assert f"1 of its images are absent: {CLASSES[1]}_1;" in said


def test_only_the_requested_sensors_are_read(archives):
    source = open_source("eurosat_s1_s2", archives)
    whole = source[0]
    (archives / "EuroSAT-SAR" / f"{source.ids[0]}.tif").unlink()
    record = source.read(0, ("rgb",))
    assert record.keys() == {"id", "label", "rgb"}
    np.testing.assert_array_equal(record["rgb"], whole["rgb"])


@pytest.mark.parametrize("tree", ["EuroSAT-SAR", "EuroSAT_MS"])
def test_a_missing_partner_is_named_or_left_out(archives, capsys, tree):
    (archives / tree / "River" / "River_2.tif").unlink()
    other = {"EuroSAT-SAR": "EuroSAT_MS", "EuroSAT_MS": "EuroSAT-SAR"}[tree]
    match = rf"1 file\(s\) have no partner: .*{other}/River/River_2\.tif"
    with pytest.raises(ValueError, match=match):
        open_source("eurosat_s1_s2", archives)
    source = open_source("eurosat_s1_s2", archives, on_error="skip")
    assert len(source) == 19
    assert "River/River_2" not in source.ids
    assert "River_2.tif; left out" in capsys.readouterr().out


def test_a_missing_folder_is_named(archives):
    (archives / "EuroSAT_MS").rename(archives / "elsewhere")
    with pytest.raises(FileNotFoundError, match=r"none of eurosat_ms, EuroSAT_MS"):
        open_source("eurosat_s1_s2", archives)
    with pytest.raises(FileNotFoundError, match=r"folder that holds .*EuroSAT-SAR"):
        open_source("eurosat_s1_s2")


def test_radar_in_linear_power_is_refused(archives):
    write(archives / "EuroSAT-SAR" / "River" / "River_1.tif", 10 ** (s1_of(0) / 10))
    source = open_source("eurosat_sar", archives)
    with pytest.raises(ValueError, match=r"River_1\.tif: .*looks like linear power"):
        source[source.ids.index("River/River_1")]

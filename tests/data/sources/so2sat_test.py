"""So2Sat LCZ42 in the layout it is downloaded in, written here."""

import concurrent.futures
import functools
import pickle

import h5py
import numpy as np
import pytest

from rsclip_jax.data.catalog.datasets import DATASETS
from rsclip_jax.data.datasets import open_source
from rsclip_jax.data.inspect.scan import scan
from rsclip_jax.data.pack.write import pack_source
from rsclip_jax.data.sensors import SENSORS
from tests.helpers.packs import assert_same_source

FILES = {"train": "training", "val": "validation", "test": "testing"}
SIZES = {"training": 40, "validation": 6, "testing": 5}


def make(seed, n, side=32):
    """{dataset: float64 array} of a file: complex radar, reflectance, one-hot zones."""
    rng = np.random.default_rng(seed)
    return {
        "sen1": rng.normal(0, 0.3, (n, side, side, 8)),
        "sen2": rng.integers(1, 4000, (n, side, side, 10)) / 10000,
        "label": np.eye(17)[rng.integers(0, 17, n)],
    }


def write(path, arrays, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        for name, array in arrays.items():
            file.create_dataset(name, data=array, **options)


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    root = tmp_path_factory.mktemp("so2sat")
    for seed, (name, n) in enumerate(SIZES.items()):
        write(root / "so2sat" / f"{name}.h5", make(seed, n))
    return root


@pytest.fixture
def broken(tmp_path):
    """Writes a training file of four records with a test's faults."""

    def write_broken(arrays, **options):
        write(tmp_path / "so2sat" / "training.h5", make(9, 4) | arrays, **options)
        return tmp_path

    return write_broken


# Pixels and labels.


@pytest.mark.parametrize(("split", "file"), FILES.items())
def test_records_are_those_of_the_file(archive, split, file):
    source = open_source("so2sat", archive, split)
    assert source.ids == [f"{split}/{i:06d}" for i in range(SIZES[file])]
    with h5py.File(archive / "so2sat" / f"{file}.h5") as want:
        for i in (0, 3, -1):
            record = source[i]
            assert record.keys() == {"id", "label", "s1", "s2", "rgb"}
            assert record["id"] == source.ids[i]
            assert record["label"] == np.flatnonzero(want["label"][i])
            for key, name in (("s1", "sen1"), ("s2", "sen2")):
                assert want[name].dtype == np.float64
                assert record[key].dtype == np.float32
                np.testing.assert_array_equal(
                    record[key], want[name][i].astype(np.float32)
                )
            red_green_blue = want["sen2"][i][..., [2, 1, 0]]
            rgb = np.clip(red_green_blue / 0.3558, 0, 1) * 255
            assert np.abs(record["rgb"] - rgb).max() <= 0.5 + 1e-3


def test_bands_and_zones_are_in_the_authors_order():
    s1 = "VH_re VH_im VV_re VV_im VH_lee VV_lee C_re C_im".split()
    assert list(SENSORS["s1_so2sat"].bands) == s1
    assert SENSORS["s2_so2sat"].bands[7:] == ("B8A", "B11", "B12")
    zones = DATASETS["so2sat"].classes
    assert len(zones) == 17
    assert zones[0] == "Compact high-rise"
    assert zones[9] == "Heavy industry"
    assert zones[10] == "Dense trees"
    assert zones[16] == "Water"


def test_only_the_requested_sensors_are_read(broken):
    """The radar of record 1 is NaN, which is an error only if the radar is read."""
    sen1 = make(9, 4)["sen1"]
    sen1[1] = np.nan
    source = open_source("so2sat", broken({"sen1": sen1}))
    whole = source[0]
    record = source.read(0, ("rgb",))
    assert record.keys() == {"id", "label", "rgb"}
    np.testing.assert_array_equal(record["rgb"], whole["rgb"])
    assert source.read(1, ("s2",)).keys() == {"id", "label", "s2"}
    assert source.read(1, ()).keys() == {"id", "label"}
    with pytest.raises(ValueError, match=r"training\.h5: record 1, sen1: 100 %"):
        source[1]


def test_threads_and_a_pickled_copy_read_the_same(archive):
    source = open_source("so2sat", archive)
    want = [source[i] for i in range(len(source))]
    order = np.random.default_rng(0).permutation(4 * len(source)) % len(source)
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        for i, found in zip(order, pool.map(source.__getitem__, order), strict=True):
            np.testing.assert_array_equal(found["s2"], want[i]["s2"])
            assert found["label"] == want[i]["label"]
    assert_same_source(pickle.loads(pickle.dumps(source)), source)


# Splits.


def test_all_is_every_file_in_order(archive):
    ids = open_source("so2sat", archive).ids
    assert len(ids) == len(set(ids)) == sum(SIZES.values())
    assert [i.split("/")[0] for i in ids] == ["train"] * 40 + ["val"] * 6 + ["test"] * 5


def test_parts_of_a_split_are_by_hash_of_the_index(archive):
    whole = open_source("so2sat", archive, "train").ids
    parts = [open_source("so2sat", archive, f"train[{p}]") for p in (":60%", "60%:")]
    assert sorted(parts[0].ids + parts[1].ids) == whole
    assert len(parts[0]) > len(parts[1]) > 0
    with h5py.File(archive / "so2sat" / "training.h5") as file:
        index = int(parts[1].ids[2].split("/")[1])
        want = file["sen2"][index].astype(np.float32)
    np.testing.assert_array_equal(parts[1][2]["s2"], want)


@pytest.mark.parametrize("way", ["random", "block", "culture_10"])
@pytest.mark.parametrize("top", ["so2sat", "m1613658"])
def test_version_3_has_a_dataset_for_each_way_to_split(tmp_path, top, way):
    for seed, name in enumerate(("training", "testing")):
        write(tmp_path / top / way / f"{name}.h5", make(seed, 3, side=2))
    source = open_source(f"so2sat_{way}", tmp_path)
    assert [i.split("/")[0] for i in source.ids] == ["train"] * 3 + ["test"] * 3
    with pytest.raises(FileNotFoundError, match=r"no validation\.h5.*'train\[90%:\]'"):
        open_source(f"so2sat_{way}", tmp_path, "val")


def test_a_folder_without_its_files_is_named(tmp_path):
    (tmp_path / "So2Sat-LCZ42").mkdir()
    with pytest.raises(FileNotFoundError, match=r"LCZ42: no training\.h5 or valid"):
        open_source("so2sat", tmp_path)


# Faults.


def test_a_cut_file_is_named_on_opening(broken):
    root = broken({})
    path = root / "so2sat" / "training.h5"
    whole = path.read_bytes()
    for kept in (len(whole) - 1, len(whole) // 2, 3):
        path.write_bytes(whole[:kept])
        with pytest.raises(ValueError, match=rf"training\.h5: unread.*\({kept:,} byt"):
            open_source("so2sat", root, "train")


def test_a_damaged_record_is_named_on_access(broken):
    root = broken({}, chunks=True, compression="gzip", fletcher32=True)
    path = root / "so2sat" / "training.h5"
    with h5py.File(path) as file:
        sen2 = file["sen2"]
        chunk = sen2.id.get_chunk_info(sen2.id.get_num_chunks() - 1)
    data = bytearray(path.read_bytes())
    data[chunk.byte_offset + 9] ^= 0xFF
    path.write_bytes(data)
    source = open_source("so2sat", root)
    source[0]
    with pytest.raises(ValueError, match=r"record 3: sen2 is unreadable .*; fetch"):
        source[3]
    found = scan(source, range(4))
    assert list(found.unreadable) == [3]


@pytest.mark.parametrize(
    ("arrays", "found"),
    [
        ({"sen1": np.zeros((4, 2, 2, 2))}, r"'sen1': \(4, 2, 2, 2\)"),
        ({"label": np.zeros((4, 10))}, r"'label': \(4, 10\)"),
        ({"label": np.zeros((3, 17))}, r"'label': \(3, 17\)"),
        ({"sen2": np.zeros((4, 10))}, r"'sen2': \(4, 10\)"),
    ],
)
def test_a_file_of_another_kind_is_refused_with_both_sides(broken, arrays, found):
    with pytest.raises(ValueError, match=rf"holds .*{found}.*expected .*17\]"):
        open_source("so2sat", broken(arrays))


def test_a_file_without_labels_is_refused(tmp_path):
    arrays = make(0, 2)
    del arrays["label"]
    write(tmp_path / "so2sat" / "testing.h5", arrays)
    with pytest.raises(ValueError, match=r"testing\.h5: holds .*label \[n, 17\]"):
        open_source("so2sat", tmp_path)


@pytest.mark.parametrize("hot", [np.zeros(17), np.ones(17), 0.5 * np.eye(17)[3]])
def test_a_label_that_is_not_one_hot_is_named(broken, hot):
    label = np.eye(17)[[1, 2, 3, 4]]
    label[2] = hot
    source = open_source("so2sat", broken({"label": label}))
    assert [source[i]["label"] for i in (0, 1, 3)] == [1, 2, 4]
    with pytest.raises(ValueError, match=r"training\.h5: record 2: its label .*one-ho"):
        source[2]


def test_digital_numbers_in_place_of_reflectance_are_refused(broken):
    source = open_source("so2sat", broken({"sen2": 10000 * make(9, 4)["sen2"]}))
    with pytest.raises(
        ValueError, match=r"record 0, sen2: .*looks like DN, not like reflectance"
    ):
        source[0]


def test_a_few_missing_pixels_are_filled_if_allowed(broken):
    arrays = make(9, 4)
    arrays["sen1"][1, 3, 4] = np.nan
    arrays["sen2"][1, 5, 6, 2] = np.nan
    root = broken(arrays)
    with pytest.raises(ValueError, match=r"record 1, sen1: .*max_nodata above 0 fills"):
        open_source("so2sat", root)[1]
    few = open_source("so2sat", root, max_nodata=0.0005)
    with pytest.raises(ValueError, match=r"sen1: 0\.0977 %.*allows 0\.05 %"):
        few[1]
    record = open_source("so2sat", root, max_nodata=0.01)[1]
    for key, name, y, x in (("s1", "sen1", 3, 4), ("s2", "sen2", 5, 6)):
        want = arrays[name][1].astype(np.float32)
        hole = np.isnan(want)
        median = np.nanmedian(want, axis=(0, 1))
        np.testing.assert_allclose(record[key][~hole], want[~hole])
        got = record[key][y, x][hole[y, x]]
        np.testing.assert_allclose(got, median[hole[y, x]], rtol=1e-6)
    assert record["rgb"][5, 6, 0] == np.round(np.float32(255 / 0.3558) * median[2])


# Through the rest.


def test_inspect_and_pack_read_it(archive, tmp_path):
    """Packed by another process, which opens the file itself."""
    train = functools.partial(open_source, "so2sat", archive, "train", packed=False)
    source = train()
    source[0]
    found = scan(source, range(8))
    assert not found.unreadable
    assert len(found.all_labels) == 40
    pack_source(
        source,
        train,
        tmp_path / "so2sat" / "train",
        half=open_source("so2sat", archive, "train[:50%]").ids,
        provenance={},
        workers=1,
    )
    assert_same_source(open_source("so2sat", tmp_path, "train"), source)
    for part in ("train[:30%]", "train[30%:]"):
        want = open_source("so2sat", archive, part)
        assert_same_source(open_source("so2sat", tmp_path, part), want)

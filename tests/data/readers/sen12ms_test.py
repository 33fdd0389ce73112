"""SEN12MS in the layout it is downloaded in, written here."""

import functools
import itertools

import numpy as np
import pytest
import tifffile

from rsclip_jax.data.catalog.classes import SEN12MS_NAMES
from rsclip_jax.data.datasets import open_source
from rsclip_jax.data.inspect.scan import scan
from rsclip_jax.data.pack.write import pack_source
from rsclip_jax.data.readers.sen12ms import IGBP, read_largest, read_present
from rsclip_jax.data.sensors import SENSORS
from tests.helpers.packs import assert_same_source, pack_archive

BANDS = SENSORS["s2_l1c"].bands
SPRING, OTHER = "ROIs1158_spring_s2_0_p30", "ROIs1158_spring_s2_0_p31"
WINTER = "ROIs2017_winter_s2_108_p7"
DAMAGED = "ROIs1868_summer_s2_146_p202"
# {IGBP number: pixels} of 100, in the first band of each patch's map
COVER = {
    # forest 45, water 40, savanna 10, snow 5: forest is the largest of the ten classes,
    # though no number has more pixels than water's
    SPRING: {1: 20, 3: 20, 5: 5, 17: 40, 8: 9, 9: 1, 15: 5},
    OTHER: {12: 31, 13: 38, 14: 31},
    WINTER: {15: 96, 16: 4},
    DAMAGED: {10: 100},
}
PRESENT = {
    SPRING: {"Forest", "Savanna", "Water"},
    OTHER: {"Croplands", "Urban/Built-up"},
    WINTER: {"Snow/Ice"},
}
LARGEST = {SPRING: "Forest", OTHER: "Croplands", WINTER: "Snow/Ice"}


def file_of(root, name, key="s2"):
    """<season>/<key>_<scene>/<season>_<key>_<scene>_<p>.tif, as the archives unpack."""
    roi, season, _, scene, patch = name.split("_")
    top = root / "SEN12MS" / f"{roi}_{season}" / f"{key}_{scene}"
    return top / f"{roi}_{season}_{key}_{scene}_{patch}.tif"


def write(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    tifffile.imwrite(path, array, photometric="minisblack", planarconfig="contig")


def write_map(path, cover, side=10):
    """Writes the 4-band map: IGBP, and three LCCS bands with other numbers."""
    igbp = np.repeat(list(cover), list(cover.values())).reshape(side, side)
    rest = [np.full_like(igbp, number) for number in (42, 9, 27)]
    write(path, np.stack([igbp, *rest], -1).astype(np.uint16))


def write_patch(root, name, seed):
    rng = np.random.default_rng(seed)
    s2 = rng.integers(500, 4000, (10, 10, 13)).astype(np.uint16)
    s2[..., 10] = rng.integers(1, 30, (10, 10))  # cirrus sees no ground
    write(file_of(root, name), s2)
    s1 = rng.normal(-15, 4, (2, 10, 10)).astype(np.float32)
    s1 -= s1.max() + 1
    if name == DAMAGED:
        s1[0, 3, 3] = np.nan
    path = file_of(root, name, "s1")
    path.parent.mkdir(parents=True, exist_ok=True)
    tifffile.imwrite(path, s1, photometric="minisblack", planarconfig="separate")
    write_map(file_of(root, name, "lc"), COVER.get(name, {1: 100}))


@pytest.fixture
def archive(tmp_path):
    for seed, name in enumerate(COVER):
        write_patch(tmp_path, name, seed)
    return tmp_path


def test_files_with_an_uppercase_suffix_are_read(archive):
    before = open_source("sen12ms", archive)[1]
    for path in sorted((archive / "SEN12MS").rglob("*.tif")):
        path.rename(path.with_suffix(".TIF"))
    after = open_source("sen12ms", archive)[1]
    assert after["id"] == before["id"]
    np.testing.assert_array_equal(after["s2"], before["s2"])


def write_lists(root, **lists):
    for kind, names in lists.items():
        text = "".join(f"{name}.tif\n" for name in names)
        (root / "SEN12MS" / f"{kind}_list.txt").write_text(text)


# Pixels.


def test_pixels_are_those_of_the_files(archive):
    source = open_source("sen12ms", archive)
    assert source.ids == sorted(COVER.keys() - {DAMAGED})
    for i, name in enumerate(source.ids):
        record = source[i]
        assert record["id"] == name
        s2 = tifffile.imread(file_of(archive, name))
        np.testing.assert_array_equal(record["s2"], s2)
        s1 = tifffile.imread(file_of(archive, name, "s1"))
        np.testing.assert_array_equal(record["s1"], np.moveaxis(s1, 0, -1))
        assert record["s1"].dtype == np.float32
        rgb = np.clip(s2[..., [3, 2, 1]] / 3558, 0, 1) * 255
        assert np.abs(record["rgb"] - rgb).max() <= 0.5 + 1e-3


def test_b8a_is_the_ninth_band_and_b10_the_eleventh(archive):
    s2 = open_source("sen12ms", archive)[0]["s2"]
    means = dict(zip(BANDS, s2.mean(axis=(0, 1)), strict=True))
    assert BANDS[8] == "B8A"
    assert means["B10"] < 50
    assert means["B8A"] > 1000


def test_radar_in_double_precision_is_read(archive):
    path = file_of(archive, SPRING, "s1")
    s1 = tifffile.imread(path).astype(np.float64) - 1e-12
    tifffile.imwrite(path, s1, photometric="minisblack", planarconfig="separate")
    found = open_source("sen12ms", archive)[0]["s1"]
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, np.moveaxis(s1, 0, -1).astype(np.float32))


def test_only_the_requested_sensors_are_read(archive):
    source = open_source("sen12ms_multi", archive)
    whole = source[0]
    file_of(archive, SPRING, "s1").unlink()
    record = source.read(0, ("rgb",))
    assert record.keys() == {"id", "label", "rgb"}
    np.testing.assert_array_equal(record["rgb"], whole["rgb"])
    file_of(archive, SPRING).unlink()
    record = source.read(0, ())
    np.testing.assert_array_equal(record["label"], whole["label"])
    with pytest.raises(FileNotFoundError, match=rf"{SPRING}\.tif is missing"):
        source[0]


def test_a_cut_file_is_named(archive):
    path = file_of(archive, OTHER)
    path.write_bytes(path.read_bytes()[:-500])
    source = open_source("sen12ms", archive)
    with pytest.raises(ValueError, match=rf"{OTHER}\.tif: unreadable or cut"):
        source[source.ids.index(OTHER)]


def test_the_damaged_patch_is_left_out_with_and_without_lists(archive):
    """Its radar holds NaN. Only older lists than the toolbox's have it."""
    assert DAMAGED not in open_source("sen12ms", archive).ids
    write_lists(archive, train=[SPRING, DAMAGED], test=[WINTER])
    assert open_source("sen12ms", archive).ids == [SPRING, WINTER]


# Labels.


def test_the_ten_classes_partition_the_17_numbers():
    assert list(IGBP) == list(SEN12MS_NAMES)
    numbers = sorted(n for of in IGBP.values() for n in of)
    assert numbers == list(range(1, 18))


def test_labels_follow_hand_counted_shares(archive):
    single = open_source("sen12ms", archive)
    multi = open_source("sen12ms_multi", archive)
    nine = open_source("sen12ms_multi_9", archive)
    assert len(single.dataset.classes) == len(multi.dataset.classes) == 10
    assert nine.dataset.classes == tuple(c for c in IGBP if c != "Snow/Ice")
    for i, name in enumerate(single.ids):
        assert single.dataset.classes[single[i]["label"]] == LARGEST[name]
        for source, left_out in ((multi, set()), (nine, {"Snow/Ice"})):
            label = source[i]["label"]
            assert label.dtype == np.uint8
            found = {source.dataset.classes[k] for k in np.flatnonzero(label)}
            assert found == PRESENT[name] - left_out


def test_labels_equal_the_authors_probability_labels(tmp_path):
    """The authors sum a vector of the 17 shares, indexed from 0."""
    rng, path = np.random.default_rng(0), tmp_path / "lc.tif"
    names = list(IGBP)
    for _ in range(20):
        few = rng.choice(np.arange(1, 18), 6, replace=False)
        band = rng.choice(few, (64, 64), p=rng.dirichlet(np.full(6, 0.7)))
        write(path, np.stack([band] * 4, -1).astype(np.uint16))
        lc = np.bincount(band.ravel(), minlength=18)[1:] / band.size
        sums = [lc[:5].sum(), lc[5:7].sum(), lc[7:9].sum(), lc[9], lc[10]]
        sums += [lc[11] + lc[13], lc[12], lc[14], lc[15], lc[16]]
        want = tuple(n for n, share in zip(names, sums, strict=True) if share >= 0.1)
        assert read_present(path) == want
        assert read_largest(path) == (names[int(np.argmax(sums))],)


@pytest.mark.parametrize(
    ("cover", "largest", "present"),
    [
        ({17: 50, 2: 50}, "Forest", ("Forest", "Water")),  # the first of equal ones
        ({10: 10, 0: 90}, "Grassland", ("Grassland",)),
        ({10: 9, 255: 91}, "Grassland", ()),
    ],
)
def test_ties_and_unclassified_pixels(tmp_path, cover, largest, present):
    write_map(tmp_path / "lc.tif", cover)
    assert read_largest(tmp_path / "lc.tif") == (largest,)
    assert read_present(tmp_path / "lc.tif") == present


def test_a_map_without_classes_or_of_another_kind_is_named(archive):
    source = open_source("sen12ms_multi", archive)
    write_map(file_of(archive, SPRING, "lc"), {18: 1, 5: 99})
    with pytest.raises(ValueError, match=r"lc_0_p30\.tif: 18 in .* not an IGBP class"):
        source[0]
    write_map(file_of(archive, SPRING, "lc"), {0: 100})
    with pytest.raises(ValueError, match=r"lc_0_p30\.tif: no pixel has a class"):
        source[0]


# Splits.


def touch_scenes(root, scenes, patches=3):
    """Makes empty files: opening a split does not read them."""
    both = itertools.product(range(scenes), range(patches))
    names = [f"ROIs1970_fall_s2_{scene}_p{patch}" for scene, patch in both]
    for name in names:
        for key in ("s1", "s2", "lc"):
            path = file_of(root, name, key)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
    return names


def scenes_of(source):
    return {name.rsplit("_", 1)[0] for name in source.ids}


def test_lists_make_the_splits_and_val_is_scenes_of_the_training_list(tmp_path):
    names = touch_scenes(tmp_path, 120)
    write_lists(tmp_path, train=names[60:], test=names[:60])
    splits = {s: open_source("sen12ms", tmp_path, s) for s in ("train", "val", "test")}
    assert splits["test"].ids == sorted(names[:60])
    rules = {source.split_rule for source in splits.values()}
    assert rules == {"train_list.txt, test_list.txt"}
    assert sorted(splits["train"].ids + splits["val"].ids) == sorted(names[60:])
    assert not scenes_of(splits["train"]) & scenes_of(splits["val"])
    assert 3 <= len(scenes_of(splits["val"])) <= 20  # of 100, 10 by chance
    assert open_source("sen12ms", tmp_path).ids == sorted(names)


def test_without_lists_a_hash_of_the_scene_makes_the_splits(tmp_path):
    names = touch_scenes(tmp_path, 100)
    splits = [open_source("sen12ms", tmp_path, s) for s in ("train", "val", "test")]
    assert sorted(name for s in splits for name in s.ids) == sorted(names)
    found = [scenes_of(split) for split in splits]
    assert sum(map(len, found)) == 100
    assert 55 <= len(found[0]) <= 85


def test_a_part_of_a_split_has_whole_scenes(tmp_path):
    names = touch_scenes(tmp_path, 60)
    write_lists(tmp_path, train=names[30:], test=names[:30])
    whole = open_source("sen12ms", tmp_path, "train")
    parts = [open_source("sen12ms", tmp_path, f"train[{p}]") for p in (":70%", "70%:")]
    assert sorted(parts[0].ids + parts[1].ids) == whole.ids
    assert not scenes_of(parts[0]) & scenes_of(parts[1])
    assert len(parts[0]) > len(parts[1]) > 0


def test_lists_may_be_in_splits_and_name_the_radar_file(archive):
    (archive / "SEN12MS" / "splits").mkdir()
    for kind, name in (("train", SPRING), ("test", WINTER)):
        path = archive / "SEN12MS" / "splits" / f"{kind}_list.txt"
        path.write_text(f"{name.replace('_s2_', '_s1_')}\r\n\n")
    assert open_source("sen12ms", archive, "test").ids == [WINTER]
    assert open_source("sen12ms", archive).ids == [SPRING, WINTER]


def test_a_listed_patch_that_is_absent_is_named_or_left_out(archive, capsys):
    gone = "ROIs1158_spring_s2_0_p99"
    write_lists(archive, train=[SPRING, gone], test=[WINTER])
    absent = rf"train_list\.txt: 1 of its images are absent: {gone};"
    with pytest.raises(ValueError, match=absent):
        open_source("sen12ms", archive, "train")
    assert open_source("sen12ms", archive, "test").ids == [WINTER]
    assert open_source("sen12ms", archive, on_error="skip").ids == [SPRING, WINTER]
    assert f"{gone}; left out" in capsys.readouterr().out


def test_faults_of_lists_are_named_by_line(archive):
    write_lists(archive, train=[SPRING, OTHER, SPRING], test=[WINTER])
    again = r"train_list\.txt: line 3, .*p30\.tif, is in line 1 of train_list"
    with pytest.raises(ValueError, match=again):
        open_source("sen12ms", archive, "train")
    write_lists(archive, train=[SPRING], test=[WINTER, SPRING])
    with pytest.raises(ValueError, match=r"test_list\.txt: line 2.*of train_list"):
        open_source("sen12ms", archive, "train")
    write_lists(archive, train=[SPRING, "p31"], test=[])
    with pytest.raises(ValueError, match=r"line 2, 'p31\.tif', is not a patch's file"):
        open_source("sen12ms", archive, "train")
    write_lists(archive, train=[SPRING])
    (archive / "SEN12MS" / "test_list.txt").unlink()
    with pytest.raises(FileNotFoundError, match=r"no test_list\.txt beside train_l"):
        open_source("sen12ms", archive, "test")


@pytest.mark.parametrize("listed", [False, True])
@pytest.mark.parametrize("key", ["s1", "lc"])
def test_a_missing_partner_is_an_error_or_left_out(archive, capsys, key, listed):
    if listed:
        write_lists(archive, train=[SPRING, OTHER], test=[WINTER])
    file_of(archive, SPRING, key).unlink()
    with pytest.raises(ValueError, match=rf"no partner: .*{SPRING}\.tif"):
        open_source("sen12ms", archive)
    source = open_source("sen12ms", archive, on_error="skip")
    assert source.ids == [OTHER, WINTER]
    assert SPRING in capsys.readouterr().out


def test_a_sensor_that_was_not_unpacked_is_named(archive):
    for path in (archive / "SEN12MS").glob("ROIs*/lc_*/*.tif"):
        path.unlink()
    with pytest.raises(FileNotFoundError, match=r"no patches ROIs\*/lc_\*/"):
        open_source("sen12ms", archive)


# Through the rest.


def test_inspect_and_pack_read_it(archive, tmp_path_factory):
    opener = functools.partial(open_source, "sen12ms_multi", archive)
    found = scan(opener(), range(3))
    assert not found.unreadable
    assert np.sum(found.all_labels) == sum(map(len, PRESENT.values()))
    out = tmp_path_factory.mktemp("packed")
    write_lists(archive, train=[SPRING, OTHER], test=[WINTER])
    test = functools.partial(opener, "test", packed=False)
    folder = out / "sen12ms_multi" / "test"
    pack_source(test(), test, folder, half=None, provenance={}, workers=1)
    assert_same_source(open_source("sen12ms_multi", out, "test"), test())


@pytest.mark.parametrize("listed", [False, True])
def test_parts_of_a_pack_are_those_of_the_archive(tmp_path, listed):
    root, out = tmp_path / "archive", tmp_path / "out"
    names = [f"ROIs1158_spring_s2_{i}_p{j}" for i in range(30) for j in (1, 2)]
    for i, name in enumerate(names):
        write_patch(root, name, i)
    if listed:
        for kind, some in (("train", names[2:]), ("test", names[:2])):
            lines = "".join(f"{name}.tif\n" for name in some)
            (root / "SEN12MS" / f"{kind}_list.txt").write_text(lines)
    splits = ("train", "val")
    pack_archive("sen12ms", root, out, splits, shard_mb=1)
    sizes = []
    for split, part in itertools.product(splits, ("", "[:50%]", "[50%:]", "[:80%]")):
        want = open_source("sen12ms", root, split + part)
        assert open_source("sen12ms", out, split + part).ids == want.ids
        sizes.append(len(want))
    assert min(sizes) > 0
    beside = out / "sen12ms" / "train" / "hash_keys.txt"
    beside.write_text(beside.read_text().replace("spring", "summer"))
    with pytest.raises(ValueError, match=rf"{beside} has changed since it was packed"):
        open_source("sen12ms", out, "train[:50%]")

"""Class folders and pairs: splits, order and faults."""

import hashlib
import re

import numpy as np
import pytest

from rsclip_jax.data.catalog.datasets import CIFAR10_CLASSES, DATASETS
from rsclip_jax.data.codecs.images import SUFFIXES
from rsclip_jax.data.readers.folders import (
    HASH_SPLITS,
    class_folder_entries,
    files_there,
    find_classes,
    hash_percent,
    paired_folder_entries,
    parse_split,
)
from rsclip_jax.data.types import SPLIT_NAMES, SPLITS

CLASSES = ("forest", "river", "lake")


def touch(*paths):
    """Makes empty files: listing a folder does not open them."""
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def ids(folder, split="all", classes=CLASSES):
    return [e.id for e in class_folder_entries(folder, split, classes).entries]


@pytest.fixture
def flat(tmp_path):
    """<class>/<image>, 200 images per class, without split folders."""
    touch(*(tmp_path / c / f"{c}_{i}.jpg" for c in CLASSES for i in range(200)))
    return tmp_path


@pytest.fixture
def divided(tmp_path):
    """<split>/<class>/<image> with train and val only."""
    for split, n in (("train", 40), ("val", 10)):
        touch(*(tmp_path / split / c / f"{i}.png" for c in CLASSES for i in range(n)))
    return tmp_path


# The split's own notation.


@pytest.mark.parametrize(
    ("split", "parts"),
    [
        ("train", ("train", 0, 100)),
        ("all", ("all", 0, 100)),
        ("val[:90%]", ("val", 0, 90)),
        ("test[90%:]", ("test", 90, 100)),
        ("train[10%:20%]", ("train", 10, 20)),
        ("train[:]", ("train", 0, 100)),
    ],
)
def test_a_split_is_a_name_and_a_range_of_percent(split, parts):
    assert parse_split(split) == parts


@pytest.mark.parametrize(
    "split",
    [
        "",
        "dev",
        "Train",
        "train[:90]",
        "train[90:]",
        "train[:90%",
        "train[90%]",
        "train [:90%]",
        "train[:9.5%]",
        "train[-10%:]",
        # nothing, or more than there is: the files of another split
        "train[:0%]",
        "train[90%:10%]",
        "train[:200%]",
        "train[100%:]",
    ],
)
def test_any_other_split_is_refused_with_the_choices(tmp_path, split):
    touch(tmp_path / "forest" / "1.jpg")
    pattern = re.escape(f"split {split!r} is not known; use train, val, test or all")
    with pytest.raises(ValueError, match=pattern):
        class_folder_entries(tmp_path, split, ("forest",))


# The split by hash.


def test_the_hash_is_the_documented_one():
    for key in ("forest/forest_1", "River/River_17", "東京/é"):
        digits = hashlib.sha256(key.encode("utf-8")).hexdigest()[:8]
        assert hash_percent(key) == pytest.approx(int(digits, 16) / 16**8 * 100)
    # of sha256 "5feceb66...": 0x5feceb66 / 2^32
    assert hash_percent("0") == pytest.approx(37.4708, abs=1e-4)


def test_hash_splits_hold_every_file_once_in_about_their_shares(flat):
    parts = {s: set(ids(flat, s)) for s in HASH_SPLITS}
    whole = ids(flat)
    assert len(whole) == len(set(whole)) == 600
    assert set.union(*parts.values()) == set(whole)
    assert sum(map(len, parts.values())) == 600
    for split, share in (("train", 0.70), ("val", 0.15), ("test", 0.15)):
        assert len(parts[split]) / 600 == pytest.approx(share, abs=0.05)
        low, high = HASH_SPLITS[split]
        assert all(low <= hash_percent(i) < high for i in parts[split])


def test_a_files_split_does_not_depend_on_other_files_and_classes(flat):
    before = {s: set(ids(flat, s)) for s in HASH_SPLITS}
    for i in range(0, 200, 3):
        (flat / "river" / f"river_{i}.jpg").unlink()
    touch(*(flat / "forest" / f"A_new_{i}.jpg" for i in range(50)))
    touch(*(flat / "beach" / f"{i}.jpg" for i in range(50)))
    for split, old in before.items():
        now = set(ids(flat, split, ("beach", "lake", "river", "forest")))
        assert all(i.startswith("river/") for i in old - now)
        assert {i for i in now if i.startswith("lake/")} == {
            i for i in old if i.startswith("lake/")
        }
        assert all(i.startswith(("beach/", "forest/A_new_")) for i in now - old)


def test_a_files_split_depends_on_its_class_and_not_on_its_suffix(tmp_path):
    touch(*(tmp_path / "jpg" / "forest" / f"{i}.jpg" for i in range(60)))
    touch(*(tmp_path / "png" / "forest" / f"{i}.PNG" for i in range(60)))
    touch(*(tmp_path / "other" / "lake" / f"{i}.jpg" for i in range(60)))
    first = ids(tmp_path / "jpg", "train", ("forest",))
    assert first == ids(tmp_path / "png", "train", ("forest",))
    other = ids(tmp_path / "other", "train", ("lake",))
    assert [i.split("/")[1] for i in first] != [i.split("/")[1] for i in other]


@pytest.mark.parametrize("split", ["train", "val", "test", "all"])
def test_parts_of_a_hash_split_are_disjoint_and_complete(flat, split):
    whole = set(ids(flat, split))
    low = set(ids(flat, f"{split}[:60%]"))
    middle = set(ids(flat, f"{split}[60%:90%]"))
    high = set(ids(flat, f"{split}[90%:]"))
    assert low | middle | high == whole
    assert len(low) + len(middle) + len(high) == len(whole)
    assert len(low) > len(middle) > len(high) > 0


# Split folders.


def test_split_folders_define_the_splits_where_they_exist(divided):
    assert len(ids(divided, "train")) == 120
    assert len(ids(divided, "val")) == 30
    assert ids(divided, "all") == ids(divided, "train") + ids(divided, "val")
    assert all(i.startswith("val/") for i in ids(divided, "val"))


def test_a_missing_split_is_named_with_the_existing_ones(divided):
    with pytest.raises(FileNotFoundError, match="no split 'test'") as error:
        ids(divided, "test")
    assert str(divided) in str(error.value)
    assert "it has train, val" in str(error.value)
    assert "'train[90%:]'" in str(error.value)
    assert ids(divided, "train[90%:]")  # the way out works


def test_parts_of_a_split_folder_are_disjoint_and_complete(divided):
    low, high = ids(divided, "train[:70%]"), ids(divided, "train[70%:]")
    assert not set(low) & set(high)
    assert sorted(low + high) == sorted(ids(divided, "train"))
    assert len(low) / 120 == pytest.approx(0.7, abs=0.15)


def test_a_part_of_a_split_folder_is_the_files_below_that_percent(divided):
    part = ids(divided, "val[:50%]")
    whole = ids(divided, "val")
    assert part == [i for i in whole if hash_percent(i.removeprefix("val/")) < 50]


# Class folders.


def test_entries_are_in_class_order_then_by_name(tmp_path):
    touch(
        *(tmp_path / c / n for c in CLASSES for n in ("b_10.jpg", "a.png", "b_9.tif"))
    )
    entries = class_folder_entries(tmp_path, "all", ("river", "forest", "lake")).entries
    assert [e.id for e in entries] == [
        f"{c}/{n}" for c in ("river", "forest", "lake") for n in ("a", "b_10", "b_9")
    ]
    assert [e.label for e in entries[::3]] == ["river", "forest", "lake"]
    assert entries[1].files == {"rgb": tmp_path / "river" / "b_10.jpg"}


def test_only_images_of_known_classes_are_listed(tmp_path):
    touch(
        tmp_path / "forest" / "1.JPG",
        tmp_path / "forest" / "2.jpeg",
        tmp_path / "forest" / "labels.txt",
        tmp_path / "forest" / "Thumbs.db",
        tmp_path / "forest" / ".DS_Store",
        tmp_path / "glacier" / "1.jpg",
        tmp_path / "readme.md",
    )
    assert ids(tmp_path, "all", ("forest",)) == ["forest/1", "forest/2"]


def test_missing_and_found_class_folders_are_named(tmp_path):
    touch(tmp_path / "forest" / "1.jpg", tmp_path / "glacier" / "1.jpg")
    with pytest.raises(FileNotFoundError, match=r"class\(es\) river, lake") as error:
        ids(tmp_path)
    assert str(tmp_path) in str(error.value)
    assert "found forest, glacier" in str(error.value)


def test_a_class_missing_in_one_split_folder_is_found(divided):
    for path in (divided / "val" / "lake").iterdir():
        path.unlink()
    (divided / "val" / "lake").rmdir()
    assert len(ids(divided, "train")) == 120
    for split in ("val", "all"):
        with pytest.raises(FileNotFoundError, match=r"val: no folder .* lake; found"):
            ids(divided, split)


def test_an_empty_folder_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="found no folders"):
        ids(tmp_path)


# Pairs.

SENSORS = {"rgb": "s2_rgb", "s1": "s1_vh"}


def test_pairs_are_joined_by_name_without_suffix(tmp_path):
    touch(*(tmp_path / "s2_rgb" / f"{i}.jpg" for i in (2, 1, 3)))
    touch(*(tmp_path / "s1_vh" / f"{i}.png" for i in (3, 2, 1)))
    listing = paired_folder_entries(tmp_path, "all", SENSORS)
    entries, stray = listing.entries, listing.stray
    assert stray == []
    assert [e.id for e in entries] == ["1", "2", "3"]
    assert entries[1].files == {
        "rgb": tmp_path / "s2_rgb" / "2.jpg",
        "s1": tmp_path / "s1_vh" / "2.png",
    }
    assert {e.label for e in entries} == {""}


def test_files_without_a_partner_are_strays_on_either_side(tmp_path):
    touch(*(tmp_path / "s2_rgb" / f"{i}.png" for i in "abc"))
    touch(*(tmp_path / "s1_vh" / f"{i}.png" for i in "bcd"))
    listing = paired_folder_entries(tmp_path, "all", SENSORS)
    entries, stray = listing.entries, listing.stray
    assert [e.id for e in entries] == ["b", "c"]
    assert stray == [tmp_path / "s2_rgb" / "a.png", tmp_path / "s1_vh" / "d.png"]


def test_pairs_are_split_by_hash_and_by_split_folder(tmp_path):
    flat, divided = tmp_path / "flat", tmp_path / "divided"
    for sub in SENSORS.values():
        touch(*(flat / sub / f"{i}.png" for i in range(100)))
        touch(*(divided / "train" / sub / f"{i}.png" for i in range(9)))
        touch(*(divided / "val" / sub / f"{i}.png" for i in range(4)))
    parts = [paired_folder_entries(flat, s, SENSORS).entries for s in HASH_SPLITS]
    assert sorted(int(e.id) for part in parts for e in part) == list(range(100))
    for part, (low, high) in zip(parts, HASH_SPLITS.values(), strict=True):
        assert part
        assert all(low <= hash_percent(e.id) < high for e in part)
    entries = paired_folder_entries(divided, "val", SENSORS).entries
    assert [e.id for e in entries] == [f"val/{i}" for i in range(4)]
    assert len(paired_folder_entries(divided, "all", SENSORS).entries) == 13


def test_a_missing_sensor_folder_is_named(tmp_path):
    touch(tmp_path / "s2_rgb" / "1.png")
    with pytest.raises(FileNotFoundError, match=r"s1_vh: this sensor's folder"):
        paired_folder_entries(tmp_path, "all", SENSORS)


# Folders within a class's or a sensor's folder.


def test_images_in_folders_within_a_class_folder_belong_to_the_class(tmp_path):
    """As torchvision's ImageFolder has it."""
    names = ["lake/b.jpg", "lake/a/x.JPG", "lake/c/d/y.tif", "lake/.hid/z.jpg"]
    names += ["lake/__MACOSX/a.jpg", "lake/a/._x.jpg", "lake/a/x.txt", "river/1/x.jp2"]
    touch(*(tmp_path / "photos" / name for name in names))
    (tmp_path / "photos" / "lake" / "loop").symlink_to(tmp_path / "photos")
    wanted = ["lake/a/x", "lake/b", "lake/c/d/y", "river/1/x"]
    assert ids(tmp_path / "photos", classes=("lake", "river")) == wanted
    parts = [ids(tmp_path / "photos", s, ("lake", "river")) for s in SPLITS]
    assert sorted(sum(parts, [])) == wanted  # noqa: RUF017
    assert find_classes(tmp_path / "photos", SPLIT_NAMES) == ("lake", "river")


def test_pairs_in_folders_are_joined_by_their_paths(tmp_path):
    touch(*(tmp_path / s / "a" / "1.tif" for s in ("rgb", "s1")))
    touch(tmp_path / "rgb" / "2.tif", tmp_path / "s1" / "b" / "2.tif")
    listing = paired_folder_entries(tmp_path, "all", {"rgb": "rgb", "s1": "s1"})
    assert [e.id for e in listing.entries] == ["a/1"]
    assert sorted(p.parent.name for p in listing.stray) == ["b", "rgb"]


@pytest.mark.parametrize("name", ["train", "Test", "validation"])
def test_split_folders_below_the_classes_are_refused(tmp_path, name):
    touch(tmp_path / "lake" / name / "1.jpg")
    way = rf"a folder '{name}' is in it; .* move lake/{name} to {name}/lake"
    with pytest.raises(ValueError, match=way):
        ids(tmp_path, classes=("lake",))
    with pytest.raises(ValueError, match=way):
        paired_folder_entries(tmp_path, "all", {"rgb": "lake"})


@pytest.mark.parametrize(
    ("paths", "classes"),
    [
        (["learn/sea/1.jpg", "learn/ice/1.jpg", "check/sea/2.jpg"], ""),  # splits
        (["images/sea/1.jpg", "images/ice/1.jpg"], ""),  # one level too high
        (["sea/a/1.jpg", "ice/b/1.jpg"], "ice sea"),
        (["sea/a/1.jpg", "ice/a/1.jpg", "ice/2.jpg"], "ice sea"),
    ],
)
def test_folders_above_the_classes_are_not_taken_for_classes(tmp_path, paths, classes):
    touch(*(tmp_path / path for path in paths))
    if classes:
        assert find_classes(tmp_path, SPLIT_NAMES) == tuple(classes.split())
        return
    with pytest.raises(ValueError, match=r"hold no images but folders, .*sea; if th"):
        find_classes(tmp_path, SPLIT_NAMES)


def test_what_a_folder_without_images_holds_is_named(tmp_path):
    touch(*(tmp_path / "sea" / f"{i}.npy" for i in range(3)), tmp_path / "sea/a.HDF")
    with pytest.raises(ValueError, match=r"files are \.npy \(3\), \.HDF \(1\), and im"):
        find_classes(tmp_path, SPLIT_NAMES)
    assert files_there(tmp_path).endswith("images are " + ", ".join(SUFFIXES))


# Real folders.


def test_real_resisc45_is_split_by_hash(real_data):
    folder, classes = real_data / "resisc45", DATASETS["resisc45"].classes
    whole = ids(folder, "all", classes)
    parts = [ids(folder, s, classes) for s in HASH_SPLITS]
    assert len(whole) == 45 * 20
    assert sorted(i for part in parts for i in part) == sorted(whole)
    shares = np.array([len(part) for part in parts]) / len(whole)
    assert np.abs(shares - (0.70, 0.15, 0.15)).max() < 0.05


def test_real_cifar10_has_split_folders_of_equal_classes(real_data):
    folder = real_data / "cifar10"
    entries = class_folder_entries(folder, "val", CIFAR10_CLASSES).entries
    counts = {c: sum(e.label == c for e in entries) for c in CIFAR10_CLASSES}
    assert set(counts.values()) == {100}
    with pytest.raises(FileNotFoundError, match="no split 'test'; it has train, val"):
        class_folder_entries(folder, "test", CIFAR10_CLASSES)


def test_real_pairs_are_complete(real_data):
    folder = real_data / "sentinel_pairs"
    for split, n in (("train", 160), ("val", 40), ("all", 200)):
        listing = paired_folder_entries(folder, split, SENSORS)
        entries, stray = listing.entries, listing.stray
        assert (len(entries), stray) == (n, [])
        assert all(e.files["rgb"].name == e.files["s1"].name for e in entries)

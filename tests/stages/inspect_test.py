"""Stage inspect on folders written here, with planted faults, and on real samples."""

import os
import re

import h5py
import numpy as np
import pytest
from PIL import Image

from rsclip_jax.data.catalog.datasets import DATASETS
from rsclip_jax.data.codecs.records import decode_record
from rsclip_jax.data.datasets import open_source
from rsclip_jax.data.sources import packed
from tests.helpers.caption_sets import listed, write_set
from tests.helpers.inspected import inspect_set, picture, save
from tests.helpers.packs import pack_archive
from tests.helpers.runs import few_scenes

CLASSES = DATASETS["stl10"].classes


@pytest.fixture
def photos(tmp_path):
    """data root of class folders: 2 + i training images of class i, one to validate."""
    folder = tmp_path / "data" / "STL-10"
    for i, name in enumerate(CLASSES):
        for j in range(2 + i):
            save(folder / "train" / name / f"{name}_{j}.png", picture(100 * i + j))
        save(folder / "val" / name / f"{name}_99.png", picture(100 * i + 99))
    return folder


def test_of_a_pack_only_the_sampled_records_are_read(tmp_path, photos, monkeypatch):
    root, out, ids = photos.parent, tmp_path / "out", []
    pack_archive("stl10", root, out, ("train", "val"), shard_mb=1)

    def decode(data):
        record = decode_record(data)
        ids.append(record["id"])
        return record

    monkeypatch.setattr(packed, "decode_record", decode)
    found = inspect_set(tmp_path / "w", "stl10", out, samples=5)
    want = inspect_set(tmp_path / "v", "stl10", root, samples=5)
    assert len(set(ids)) == 10
    assert sum(found["splits"]["train"]["classes"]) == 65
    for summary in (found, want):
        del summary["data_root"], summary["contact_sheet"], summary["splits"]["test"]
    assert found == want


def test_counts_are_the_folders_and_bands_as_numpy_finds_them(tmp_path, photos, capsys):
    found = inspect_set(tmp_path / "w", "stl10", photos.parent)
    for split in ("train", "val"):
        listed = [len(os.listdir(photos / split / name)) for name in CLASSES]
        assert found["splits"][split]["classes"] == listed
        assert found["splits"][split]["records"] == sum(listed)
        assert found["splits"][split]["read"] == sum(listed)
    values = np.stack([np.array(Image.open(p)) for p in photos.rglob("*.png")])
    for i, row in enumerate(found["sensors"]["rgb"]["statistics"]):
        band = values[..., i].astype(np.float64)
        assert (row["band"], row["min"]) == ("RGB"[i], band.min())
        np.testing.assert_allclose(row["mean"], band.mean(), rtol=1e-12)
        np.testing.assert_allclose(row["std"], band.std(), rtol=1e-12)
    assert found["sensors"]["rgb"]["shapes"] == {"24x24": len(values)}
    assert found["sensors"]["rgb"]["dtypes"] == {"uint8": len(values)}
    assert found["unreadable"] == found["identical_images"] == []
    said = capsys.readouterr().out
    assert "split test is not read" in said
    assert "it has train, val" in said
    (line,) = (x for x in said.splitlines() if x.startswith("  truck"))
    assert line.split() == ["truck", str(1 + len(CLASSES)), "1"]
    assert not (tmp_path / "w/inspect/stl10/unreadable.txt").exists()


def test_the_sheet_shows_the_files_own_pixels(tmp_path, photos):
    inspect_set(tmp_path / "w", "stl10", photos.parent)
    sheet = np.array(Image.open(tmp_path / "w/inspect/stl10/contact_sheet.png"))
    tile = picture(99).repeat(5, 0).repeat(5, 1)  # airplane of val: 24 to 120 pixels
    corners = np.argwhere((sheet == tile[0, 0]).all(-1))
    same = [np.array_equal(sheet[y : y + 120, x : x + 120], tile) for y, x in corners]
    assert sum(same) == 1


@pytest.mark.parametrize("on_error", ["raise", "skip"])
def test_unreadable_files_are_counted_named_and_listed(
    tmp_path, photos, capsys, on_error
):
    bad = photos / "train" / "bird"
    whole = tmp_path / "whole.jpg"
    save(whole, picture(5, 64), quality=95)
    (bad / "bird_0.png").unlink()
    (bad / "bird_0.jpg").write_bytes(whole.read_bytes()[:2000])
    (bad / "bird_1.png").write_bytes(b"")
    found = inspect_set(tmp_path / "w", "stl10", photos.parent, on_error=on_error)
    lost = ["train/bird/bird_0", "train/bird/bird_1"]
    assert [x["id"] for x in found["unreadable"]] == lost
    assert "cut image (2,000 bytes" in found["unreadable"][0]["error"]
    train = found["splits"]["train"]
    assert (train["unreadable"], train["read"]) == (2, train["records"] - 2)
    said = capsys.readouterr().out
    assert "2 records could not be read, all listed in" in said
    assert all(name in said for name in lost)
    lines = (tmp_path / "w/inspect/stl10/unreadable.txt").read_text().splitlines()
    assert [line.split("\t")[:2] for line in lines] == [["train", n] for n in lost]


def test_a_set_without_one_readable_record_is_still_reported(tmp_path, photos, capsys):
    for path in photos.rglob("*.png"):
        path.write_bytes(path.read_bytes()[:50])
    found = inspect_set(tmp_path / "w", "stl10", photos.parent)
    records = sum(found["splits"][s]["records"] for s in ("train", "val"))
    assert len(found["unreadable"]) == records
    assert found["contact_sheet"] == ""
    assert f"{records} records could not be read" in capsys.readouterr().out


def test_leaks_between_splits_and_copies_within_one_are_told_apart(
    tmp_path, photos, capsys
):
    river, lake = photos / "train" / "ship", photos / "val" / "truck"
    save(lake / "truck_7.png", picture(100 * CLASSES.index("ship")))
    save(river / "ship_copy.png", picture(100 * CLASSES.index("ship") + 1))
    (photos / "train" / "bird" / "bird_0.png").write_bytes(b"")  # moves places
    found = inspect_set(tmp_path / "w", "stl10", photos.parent)
    leak, copy = found["identical_images"]
    assert leak == {
        "key": "rgb",
        "ids": {"train": ["train/ship/ship_0"], "val": ["val/truck/truck_7"]},
    }
    assert copy["ids"] == {"train": ["train/ship/ship_1", "train/ship/ship_copy"]}
    said = capsys.readouterr().out
    assert "1 rgb image more than once in two splits, a leak" in said
    assert "train:train/ship/ship_0 = val:val/truck/truck_7" in said
    assert "1 rgb image more than once within one split" in said


def test_a_split_with_two_files_of_one_name_is_not_read(tmp_path, photos, capsys):
    save(photos / "train" / "ship" / "ship_1.jpg", picture(7))
    found = inspect_set(tmp_path / "w", "stl10", photos.parent)
    assert found["duplicate_ids"] == []
    told = found["splits"]["train"]["missing"]
    assert "ship_1.jpg" in told
    assert "ship_1.png" in told
    assert f"split train is not read: {told}" in capsys.readouterr().out


def test_empty_classes_other_shapes_and_constant_bands_are_said(
    tmp_path, photos, capsys
):
    for split in ("train", "val"):
        for path in (photos / split / "dog").iterdir():
            path.unlink()
    for path in photos.rglob("*.png"):
        array = np.array(Image.open(path))
        array[..., 1] = 9
        save(path, array)
    save(photos / "val" / "ship" / "large.png", np.full((30, 20, 3), 9, np.uint8))
    found = inspect_set(tmp_path / "w", "stl10", photos.parent)
    assert found["classes_without_example"] == ["dog"]
    assert found["sensors"]["rgb"]["shapes"]["30x20"] == 1
    said = capsys.readouterr().out
    (line,) = (x for x in said.splitlines() if x.startswith("  dog"))
    assert line.split() == ["dog", "none", "none"]
    assert "classes without an example: dog" in said
    assert "rgb (rgb): G is constant: every value is 9" in said
    assert "30x20 (1)" in said


def test_the_lists_that_made_the_split_are_said_and_what_they_lack(tmp_path, capsys):
    folder, classes = tmp_path / "data/EuroSAT_RGB", DATASETS["eurosat_rgb"].classes
    for i, name in enumerate(classes):
        for j in range(3):
            save(folder / name / f"{name}_{j}.png", picture(10 * i + j, side=64))
    for j, split in enumerate(("train", "val")):
        lines = [f"{name}_{j}.jpg" for name in classes]
        lines += ["River_77.jpg"] if split == "val" else []
        (tmp_path / "data" / f"eurosat-{split}.txt").write_text("\n".join(lines))
    found = inspect_set(tmp_path / "w", "eurosat_rgb", tmp_path / "data")
    assert found["splits"]["train"]["split_rule"] == "eurosat-*.txt"
    assert found["splits"]["train"]["records"] == len(classes)
    assert "1 of its images are absent: River_77" in found["splits"]["val"]["left_out"]
    assert "no split 'test'" in found["splits"]["test"]["missing"]
    assert "\nsplit by eurosat-*.txt\n" in capsys.readouterr().out


def test_unpaired_files_are_named_and_the_pairs_inspected(tmp_path, capsys):
    base = tmp_path / "data" / "sentinel_pairs" / "train"
    for i in range(4):
        save(base / "s2_rgb" / f"{i}.png", picture(i))
        save(base / "s1_vh" / f"{i}.png", picture(50 + i, bands=1))
    save(base / "s2_rgb" / "alone.png", picture(9))
    found = inspect_set(tmp_path / "w", "sentinel_pairs", tmp_path / "data")
    assert found["splits"]["train"]["records"] == 4
    assert "1 file(s) have no partner" in found["splits"]["train"]["left_out"]
    said = capsys.readouterr().out
    assert str(base / "s2_rgb" / "alone.png") in said
    assert "(no labels)" in said
    assert found["sensors"]["s1"]["bands"] == ["VH"]


def test_captions_are_counted_and_shown(tmp_path, capsys):
    long = "and a long road " * 20
    images = [
        listed("a", "train", "a lake", "a lake", "blue water"),
        listed("b", "train", "a lake"),
        listed("c", "train", "a wood", f"a wood {long}"),
        listed("d", "val", "a lake"),
        listed("e", "train", " "),
    ]
    write_set(tmp_path, "rsicd", images)
    found = inspect_set(tmp_path / "w", "rsicd", tmp_path)
    splits = found["splits"]
    assert "e.jpg has no caption" in splits["train"]["left_out"]
    assert splits["train"]["records"] == splits["train"]["read"] == 3
    assert splits["train"]["captions"] == {
        "captions": 6,
        "different": 4,
        "an_image": {"1": 1, "2": 1, "3": 1},
        "different_an_image": {"1": 1, "2": 2},
        "mean_tokens": (4 + 4 + 4 + 4 + 4 + 84) / 6,
        "most_tokens": 84,
        "cut": 1,
        "shared": 1,
    }
    assert splits["val"]["captions"]["captions"] == 1
    said = capsys.readouterr().out
    for row in (
        r"captions +6 +1",
        r"for each image +1 to 3, mean 2\.0 +1",
        r"distinct, for each image +1 to 2, mean 1\.7 +1",
        r"tokens, mean +17\.3 +4\.0",
        r"longer than 77 tokens +1 +0",
    ):
        assert re.search(rf"^  {row}$", said, re.MULTILINE), row
    # a row of three images (the fourth is val's) with their captions under them
    with Image.open(tmp_path / "w/inspect/rsicd/contact_sheet.png") as sheet:
        assert 120 + 5 * 13 < sheet.height < 400


@pytest.mark.parametrize("name", ["miniature", "miniature_multi"])
def test_every_sensor_of_the_miniature(tmp_path, name, capsys):
    with few_scenes():
        found = inspect_set(tmp_path / "w", name)
        sources = {s: open_source(name, split=s) for s in ("train", "val", "test")}
        records = {
            s: [source[i] for i in range(len(source))] for s, source in sources.items()
        }
    for split, those in records.items():
        labels = np.array([r["label"] for r in those], int)
        want = labels.sum(0) if labels.ndim == 2 else np.bincount(labels, minlength=10)
        assert found["splits"][split]["classes"] == want.tolist()
    every = [r for those in records.values() for r in those]
    for key, sensor in found["sensors"].items():
        stacked = np.stack([r[key] for r in every]).astype(np.float64)
        rows = sensor["statistics"]
        assert len(rows) == len(sensor["bands"]) == stacked.shape[-1]
        for i, row in enumerate(rows):
            assert row["max"] == stacked[..., i].max()
            np.testing.assert_allclose(row["mean"], stacked[..., i].mean(), rtol=1e-12)
            np.testing.assert_allclose(row["std"], stacked[..., i].std(), rtol=1e-10)
    said = capsys.readouterr().out
    assert "nothing odd was found" in said
    assert "of all records" in said
    assert "K " in said


def test_reflectance_is_said_to_more_than_one_decimal(tmp_path, capsys):
    """So2Sat's HDF5 files: every second pixel 0.123 and 0.457."""
    sen2 = np.full((3, 32, 32, 10), 0.123)
    sen2[:, ::2] = 0.457
    (tmp_path / "so2sat").mkdir()
    with h5py.File(tmp_path / "so2sat" / "training.h5", "w") as file:
        file["sen1"] = np.random.default_rng(0).normal(0, 0.3, (3, 32, 32, 8))
        file["sen2"] = sen2
        file["label"] = np.eye(17)[[3, 3, 16]]
    found = inspect_set(tmp_path / "w", "so2sat", tmp_path)
    assert found["splits"]["train"]["classes"] == [0, 0, 0, 2, *[0] * 12, 1]
    assert found["sensors"]["s2"]["unit"] == "reflectance"
    said = capsys.readouterr().out
    (line,) = (x for x in said.splitlines() if x.split()[:2] == ["s2", "B8A"])
    assert line.split()[2:6] == ["0.12", "0.29", "0.46", "0.17"]


def test_samples_are_what_is_read_and_said(tmp_path, photos, capsys):
    found = inspect_set(tmp_path / "w", "stl10", photos.parent, samples=20)
    assert [found["splits"][s]["read"] for s in ("train", "val")] == [20, len(CLASSES)]
    for split in ("train", "val"):  # the labels are those of all records
        records = found["splits"][split]["records"]
        assert sum(found["splits"][split]["classes"]) == records
    assert found["sensors"]["rgb"]["shapes"] == {"24x24": 20 + len(CLASSES)}
    read = next(x for x in capsys.readouterr().out.splitlines() if x[:4] == "read")
    assert read.split() == ["read", "20", str(len(CLASSES))]


def test_one_workdir_serves_one_set_after_the_other(tmp_path, photos):
    first = inspect_set(tmp_path / "w", "stl10", photos.parent, samples=5)
    again = inspect_set(tmp_path / "w", "stl10", photos.parent, samples=5)
    assert first == again
    kept = tmp_path / "w" / "inspect" / "stl10"
    before = {p.name: p.read_bytes() for p in kept.iterdir()}
    with few_scenes():
        other = inspect_set(tmp_path / "w", "miniature", samples=5, on_error="skip")
    assert other["dataset"] == "miniature"
    assert {p.name: p.read_bytes() for p in kept.iterdir()} == before
    assert set(before) == {"summary.json", "contact_sheet.png"}


@pytest.mark.parametrize(
    ("dataset", "root", "samples", "words"),
    [
        ("eurosat_rbg", "", 0, r"config\.dataset: unknown.*mean 'eurosat_rgb'"),
        ("eurosat_rgb", "", 0, r"set root to the folder that"),
        (
            "eurosat_rgb",
            "nowhere",
            0,
            r"root = nowhere is not a folder",
        ),
        ("miniature", "", -1, r"config\.inspect\.samples = -1 is below 0; 0 reads all"),
    ],
)
def test_bad_settings_are_named(tmp_path, dataset, root, samples, words):
    with pytest.raises((ValueError, FileNotFoundError), match=words):
        inspect_set(tmp_path / "w", dataset, root, samples)


def test_a_subset_of_many_classes_is_drawn_on_real_images(tmp_path, real_data):
    found = inspect_set(tmp_path / "w", "resisc45", real_data, samples=100)
    counts = np.sum([s["classes"] for s in found["splits"].values()], 0)
    listed = [
        len(os.listdir(real_data / "resisc45" / name))
        for name in DATASETS["resisc45"].classes
    ]
    assert counts.tolist() == listed
    assert found["unreadable"] == []
    with Image.open(tmp_path / "w/inspect/resisc45/contact_sheet.png") as sheet:
        assert 20 * 128 < sheet.height < 21 * 200

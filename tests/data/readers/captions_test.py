"""Captioned datasets in their archives' layouts against the JSON; planted faults."""

import hashlib
import json

import numpy as np
import pytest
from PIL import Image

from rsclip_jax.data.datasets import open_source
from rsclip_jax.data.pipeline.texts import read_captions
from rsclip_jax.data.sources.wrappers import TiledSource, Wrapper
from tests.helpers.caption_sets import LAYOUTS, listed, write_set

SPLITS = ("train", "val", "test")


def rewrite(base, name, change):
    """Changes the JSON's list of images."""
    path = base / LAYOUTS[name][1]
    data = json.loads(path.read_text())
    change(data["images"])
    path.write_text(json.dumps(data))


def six(suffix, splits=SPLITS):
    return [
        listed(
            f"airport_{i}",
            splits[i % len(splits)],
            f" A plane , number {i} . ",
            "many planes .",
            "many planes .",
            suffix=suffix,
        )
        for i in range(6)
    ]


@pytest.mark.parametrize("name", ["rsicd", "ucm_captions", "sydney_captions"])
def test_records_are_those_of_the_json(tmp_path, name):
    images = six(LAYOUTS[name][3])
    base = write_set(tmp_path, name, images)
    for split in (*SPLITS, "all"):
        want = [x for x in images if split in ("all", x["split"])]
        source = open_source(name, tmp_path, split)
        assert source.ids == [x["filename"].split(".")[0] for x in want]
        for record, image in zip(source, want, strict=True):
            i = int(record["id"].split("_")[1])
            plane = f"A plane , number {i} ."
            assert record["captions"] == (plane, "many planes .", "many planes .")
            assert record["label"] == -1
            path = base / LAYOUTS[name][2] / image["filename"]
            np.testing.assert_array_equal(record["rgb"], np.array(Image.open(path)))
    captions = read_captions(source)
    assert captions == [record["captions"] for record in source]


def test_rsicds_json_may_be_in_its_own_folder(tmp_path):
    base = write_set(tmp_path, "rsicd", six(".jpg"))
    (base / "annotations_rsicd").mkdir()
    path = base / "dataset_rsicd.json"
    path.rename(base / "annotations_rsicd" / path.name)
    assert len(open_source("rsicd", tmp_path)) == 6


def test_images_that_were_converted_are_found_by_stem(tmp_path):
    base = write_set(tmp_path, "ucm_captions", six(".tif"))
    for path in (base / "imgs").iterdir():
        Image.open(path).save(path.with_suffix(".png"))
        path.unlink()
    source = open_source("ucm_captions", tmp_path)
    assert source[3]["rgb"][0, 0].tolist() == [9, 40, 200]


def test_rsitmds_val_is_a_fifth_of_train_by_hash(tmp_path):
    stems = [f"park_{i}" for i in range(400)]
    images = [listed(s, "train", "a park", suffix=".tif") for s in stems]
    images += [listed(f"pond_{i}", "test", "a pond", suffix=".tif") for i in range(5)]
    write_set(tmp_path, "rsitmd", images, side=1)
    found = {s: open_source("rsitmd", tmp_path, s).ids for s in (*SPLITS, "all")}
    digests = {s: hashlib.sha256(f"val/{s}".encode()).hexdigest()[:8] for s in stems}
    val = [s for s in stems if int(digests[s], 16) < 0.2 * 2**32]
    assert found["val"] == val
    assert 60 < len(val) < 100
    assert found["train"] == [s for s in stems if s not in val]
    assert found["test"] == [f"pond_{i}" for i in range(5)]
    assert found["all"] == [x["filename"].removesuffix(".tif") for x in images]
    halves = [open_source("rsitmd", tmp_path, f"train[{h}]") for h in (":50%", "50%:")]
    assert sorted([*halves[0].ids, *halves[1].ids]) == sorted(found["train"])
    assert all(130 < len(half) < 190 for half in halves)


# Faults. Image 2 is the first of split test, image 5 the second.


def drop_file(base, images):
    del images
    (base / "RSICD_images" / "airport_2.jpg").unlink()


def empty_sentence(base, images):
    images[2]["sentences"][1]["raw"] = "  "


def no_sentence(base, images):
    images[2]["sentences"] = []


def only_empty(base, images):
    for sentence in images[2]["sentences"]:
        sentence["raw"] = ""


def twice_in_test(base, images):
    images[5]["filename"] = "airport_2.jpg"


def train_s_again_in_test(base, images):
    images[2]["filename"] = "airport_0.jpg"


FAULTS = [
    (drop_file, r"airport_2\.jpg is not in .*RSICD_images", ["airport_5"]),
    (
        empty_sentence,
        r"airport_2\.jpg has an empty sentence",
        ["airport_2", "airport_5"],
    ),
    (no_sentence, r"airport_2\.jpg has no caption", ["airport_5"]),
    (only_empty, r"airport_2\.jpg has no caption", ["airport_5"]),
    (twice_in_test, "airport_2 is listed twice", ["airport_2"]),
    (train_s_again_in_test, "airport_0 is listed twice", ["airport_5"]),
]


@pytest.mark.parametrize(("plant", "words", "left"), FAULTS)
def test_a_fault_is_named_or_left_out(tmp_path, capsys, plant, words, left):
    base = write_set(tmp_path, "rsicd", six(".jpg"))
    rewrite(base, "rsicd", lambda images: plant(base, images))
    way_out = rf"RSICD: 1 fault\(s\) in split 'test': {words}; .*on_error='skip'"
    with pytest.raises(ValueError, match=way_out):
        open_source("rsicd", tmp_path, "test")
    assert open_source("rsicd", tmp_path, "train").ids == ["airport_0", "airport_3"]
    source = open_source("rsicd", tmp_path, "test", on_error="skip")
    assert source.ids == left
    assert all("" not in record["captions"] for record in source)
    assert all(record["captions"] for record in source)
    assert "1 fault(s) in split 'test'" in capsys.readouterr().out


def test_many_faults_are_counted_and_few_are_shown(tmp_path):
    base = write_set(tmp_path, "rsicd", six(".jpg"))
    for path in (base / "RSICD_images").iterdir():
        path.unlink()
    with pytest.raises(ValueError, match=r"6 fault\(s\) in split 'all': .*; \.\.\.;"):
        open_source("rsicd", tmp_path)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"images": [{"filename": "a.jpg", "spl', "cut short, or not a captions file"),
        ("[]", "expected {'images'"),
        ("[" * 3000, "nested too deeply to be read.*expected {'images'"),
        ('{"images": {"a.jpg": 1}}', "expected {'images'"),
        ('{"annotations": []}', "KeyError: 'images'"),
        (
            json.dumps({"images": [listed("a", "val", "x"), {"filename": "b"}]}),
            r"images\[1\]: KeyError: 'sentences'",
        ),
        (
            json.dumps({"images": [listed("a", "restval", "x")]}),
            r"split 'restval', exp",
        ),
        (
            json.dumps({"images": [{**listed("a", "val", "x"), "sentences": ["x"]}]}),
            "TypeError",
        ),
        (
            json.dumps({"images": [{**listed("a", "val", "x"), "filename": 7}]}),
            "not text in {'filename': 7",
        ),
    ],
)
@pytest.mark.parametrize("on_error", ["raise", "skip"])
def test_a_json_in_another_format_is_refused(tmp_path, text, words, on_error):
    base = write_set(tmp_path, "rsicd", six(".jpg"))
    (base / "dataset_rsicd.json").write_text(text)
    with pytest.raises(ValueError, match=words) as error:
        open_source("rsicd", tmp_path, "val", on_error=on_error)
    assert str(base / "dataset_rsicd.json") in str(error.value)


def test_a_binary_json_is_refused(tmp_path):
    base = write_set(tmp_path, "rsicd", six(".jpg"))
    (base / "dataset_rsicd.json").write_bytes(b'{"images": "\xff\xfe\x00')
    with pytest.raises(ValueError, match="cut short, or not a captions file"):
        open_source("rsicd", tmp_path)


@pytest.mark.parametrize("lost", ["dataset_rsicd.json", "RSICD_images"])
def test_a_missing_file_or_folder_is_named(tmp_path, lost):
    base = write_set(tmp_path, "rsicd", six(".jpg"))
    (base / lost).rename(base / "elsewhere")
    with pytest.raises(FileNotFoundError, match=rf"RSICD: no {lost}"):
        open_source("rsicd", tmp_path)


def test_a_split_without_images_is_named(tmp_path):
    write_set(tmp_path, "rsicd", six(".jpg", ("train", "val")))
    with pytest.raises(FileNotFoundError, match="no images in split 'test' of rsicd"):
        open_source("rsicd", tmp_path, "test")


def test_captioned_images_are_not_tiled(tmp_path):
    write_set(tmp_path, "rsicd", six(".jpg"))
    with pytest.raises(
        ValueError, match="captions describe whole images; leave out the tile"
    ):
        TiledSource(open_source("rsicd", tmp_path), 4)


class Damaged(Wrapper):
    """A source whose first record cannot be read."""

    def read(self, index, keys):
        if index == 0:
            raise ValueError("shard 0: record 0 is damaged")
        return super().read(index, keys)


def test_captions_of_unreadable_records_can_be_left_out(tmp_path):
    write_set(tmp_path, "rsicd", six(".jpg"))
    source = open_source("rsicd", tmp_path)
    with pytest.raises(ValueError, match="record 0 is damaged"):
        read_captions(Damaged(source))
    assert read_captions(Damaged(source), "skip") == read_captions(source)[1:]

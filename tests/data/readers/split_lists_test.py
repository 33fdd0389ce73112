"""Official split lists define the splits, and each of their faults is named."""

import numpy as np
import pytest
from PIL import Image

from rsclip_jax.data.catalog.datasets import DATASETS
from rsclip_jax.data.datasets import open_source
from rsclip_jax.data.readers.folders import HASH_SPLITS
from rsclip_jax.data.readers.split_lists import find_lists, read_lists
from rsclip_jax.data.sources.digests import split_digest
from rsclip_jax.data.sources.wrappers import Subset, TiledSource

CLASSES = DATASETS["eurosat_rgb"].classes
N = 6  # images a class
SHARES = {"train": range(1, 4), "val": range(4, 5), "test": range(5, 7)}


def write_list(folder, name, lines):
    (folder / name).write_text("".join(f"{line}\n" for line in lines))


def touch_images(folder, classes=CLASSES, suffix="jpg"):
    for c in classes:
        (folder / c).mkdir(parents=True)
        for i in range(1, N + 1):
            (folder / c / f"{c}_{i}.{suffix}").touch()


def make_lists(folder, name="eurosat-{}.txt", shares=SHARES):
    """Like torchgeo's: one JPEG's name per line, not ordered by class."""
    for split, numbers in shares.items():
        lines = [f"{c}_{i}.jpg" for i in numbers for c in reversed(CLASSES)]
        write_list(folder, name.format(split), lines)


@pytest.fixture
def root(tmp_path):
    touch_images(tmp_path / "EuroSAT_RGB")
    return tmp_path


def expected(split):
    return [f"{c}/{c}_{i}" for c in CLASSES for i in SHARES[split]]


@pytest.mark.parametrize("below", ["", "EuroSAT_RGB"])
def test_lists_define_the_splits_beside_or_in_the_datasets_folder(root, below):
    hashed = open_source("eurosat_rgb", root, "train")
    assert hashed.split_rule == ""
    make_lists(root / below)
    sources = {s: open_source("eurosat_rgb", root, s) for s in SHARES}
    for split, source in sources.items():
        assert source.ids == expected(split)
        assert source.split_rule == "eurosat-*.txt"
    assert set(hashed.ids) != set(sources["train"].ids)
    assert split_digest(hashed) != split_digest(sources["train"])
    assert sorted(open_source("eurosat_rgb", root).ids) == sorted(
        i for s in sources.values() for i in s.ids
    )


def test_the_spatial_split_is_a_dataset_that_needs_its_lists(root):
    make_lists(root)
    with pytest.raises(FileNotFoundError, match=r"eurosat-spatial-train\.txt"):
        open_source("eurosat_rgb_spatial", root, "train")
    spatial = {"train": (6, 5, 4), "val": (3,), "test": (2, 1)}
    make_lists(root, "eurosat-spatial-{}.txt", spatial)
    source = open_source("eurosat_rgb_spatial", root, "val")
    assert source.ids == [f"{c}/{c}_3" for c in CLASSES]
    assert open_source("eurosat_rgb", root, "val").ids == expected("val")


def test_spatial_lists_alone_leave_the_plain_dataset_to_the_hash(root):
    make_lists(root, "eurosat-spatial-{}.txt")
    parts = [open_source("eurosat_rgb", root, s) for s in HASH_SPLITS]
    assert {p.split_rule for p in parts} == {""}
    assert sum(map(len, parts)) == N * len(CLASSES)


def test_lists_of_jpegs_serve_the_tiffs_in_torchgeos_folders(tmp_path):
    below = "ds/images/remote_sensing/otherDatasets/sentinel_2/tif"
    touch_images(tmp_path / below, suffix="tif")
    make_lists(tmp_path)
    assert open_source("eurosat_ms", tmp_path, "test").ids == expected("test")


@pytest.mark.parametrize(
    ("name", "folder", "lists", "image"),
    [
        ("resisc45", "NWPU-RESISC45", "resisc45", "{}_001.jpg"),
        ("ucmerced", "UCMerced_LandUse/Images", "uc_merced", "{}00.tif"),
    ],
)
def test_other_datasets_lists_are_found_in_torchgeos_folders(
    tmp_path, name, folder, lists, image
):
    classes = DATASETS[name].classes
    for c in classes:
        path = tmp_path / folder / c / image.format(c)
        path.parent.mkdir(parents=True)
        path.touch()
    for split, part in (("train", classes[:20]), ("val", classes[20:])):
        write_list(tmp_path, f"{lists}-{split}.txt", [image.format(c) for c in part])
    source = open_source(name, tmp_path, "val")
    stems = [image.format(c).split(".")[0] for c in classes[20:]]
    assert [id_.split("/")[1] for id_ in source.ids] == stems
    with pytest.raises(FileNotFoundError, match="no split 'test'; it has train, val"):
        open_source(name, tmp_path, "test")


def test_parts_of_a_list_are_disjoint_and_complete(root):
    make_lists(root)
    low = open_source("eurosat_rgb", root, "train[:60%]").ids
    high = open_source("eurosat_rgb", root, "train[60%:]").ids
    assert low
    assert high
    assert sorted(low + high) == sorted(expected("train"))


def test_an_image_in_no_list_is_in_no_split(root):
    make_lists(root, shares={"train": [1], "test": [2]})
    assert len(open_source("eurosat_rgb", root)) == 2 * len(CLASSES)


# Faults.


def test_absent_images_are_named_with_their_list(root, capsys):
    make_lists(root)
    for i in (1, 2):
        (root / "EuroSAT_RGB" / "River" / f"River_{i}.jpg").unlink()
    with pytest.raises(ValueError, match="2 of its images are absent") as error:
        open_source("eurosat_rgb", root, "train")
    assert f"{root / 'eurosat-train.txt'}: 2 of its" in str(error.value)
    assert "River_1, River_2" in str(error.value)
    assert "on_error='skip' leaves" in str(error.value)
    assert open_source("eurosat_rgb", root, "val").ids == expected("val")
    source = open_source("eurosat_rgb", root, "train", on_error="skip")
    assert len(source) == len(expected("train")) - 2
    assert "2 of its images are absent: River_1, River_2" in capsys.readouterr().out


def test_an_image_twice_in_a_list_is_named(root):
    make_lists(root)
    with (root / "eurosat-val.txt").open("a") as file:
        file.write("Forest_4.jpg\n\n")
    with pytest.raises(ValueError, match=r"eurosat-val\.txt: 1 .* twice.*Forest_4"):
        open_source("eurosat_rgb", root, "train")


def test_an_image_in_two_lists_is_named_for_any_split(root):
    make_lists(root)
    with (root / "eurosat-test.txt").open("a") as file:
        file.write("Forest_1.jpg\n")
    for split in ("val", "train", "all"):
        with pytest.raises(ValueError, match=r"train\.txt and .*test\.txt .*Forest_1"):
            open_source("eurosat_rgb", root, split)


def test_an_empty_list_is_an_error(root):
    make_lists(root)
    (root / "eurosat-val.txt").write_text("\n")
    with pytest.raises(ValueError, match=r"eurosat-val\.txt: the list is empty"):
        open_source("eurosat_rgb", root, "val")


def test_lists_beside_split_folders_are_refused(tmp_path):
    touch_images(tmp_path / "eurosat_rgb" / "train")
    assert open_source("eurosat_rgb", tmp_path, "train")
    make_lists(tmp_path)
    with pytest.raises(ValueError, match="split the dataset in two ways"):
        open_source("eurosat_rgb", tmp_path, "train")


def test_an_ambiguous_name_needs_its_class(tmp_path):
    known = ["forest/1", "lake/1", "lake/2"]
    write_list(tmp_path, "a-train.txt", ["1.jpg"])
    lists = find_lists([tmp_path / "nowhere", tmp_path], "a-{split}.txt")
    assert lists == {"train": tmp_path / "a-train.txt"}
    with pytest.raises(ValueError, match="'1' could be any of forest/1, lake/1"):
        read_lists(lists, known)
    write_list(tmp_path, "a-train.txt", ["lake/1.jpg", "sea/2", "2.tar"])
    found, absent = read_lists(lists, known)
    assert found == {"train": {"lake/1"}}
    assert absent == {"train": ["sea/2", "2.tar"]}


# What is recorded, and Food-101.


def test_wrappers_keep_the_split_rule(tmp_path):
    folder = tmp_path / "eurosat_rgb"
    for c in CLASSES:
        (folder / c).mkdir(parents=True)
        for i in range(1, N + 1):
            flat = np.full((64, 64, 3), i, np.uint8)
            Image.fromarray(flat).save(folder / c / f"{c}_{i}.png")
    make_lists(tmp_path)
    source = open_source("eurosat_rgb", tmp_path, "val")
    assert source[0]["rgb"].max() == 4
    assert TiledSource(source, 32).split_rule == source.split_rule != ""
    assert Subset(source, [0]).split_rule == source.split_rule


def test_food101_is_split_by_its_meta_folder(tmp_path):
    """images/<class>/<id>.jpg; a line "<class>/<id>", without suffix."""
    dataset, base = DATASETS["food101"], tmp_path / "food-101"
    rng = np.random.default_rng(0)
    pixels = {}
    for i, c in enumerate(dataset.classes):
        (base / "images" / c).mkdir(parents=True)
        for number in (1005649 + i, 7):  # numbers repeat in other classes
            image = rng.integers(0, 256, (3, 4, 3), np.uint8)
            Image.fromarray(image).save(base / "images" / c / f"{number}.jpg")
            pixels[f"{c}/{number}"] = base / "images" / c / f"{number}.jpg"
    with pytest.raises(FileNotFoundError, match=r"meta/train\.txt"):
        open_source("food101", tmp_path, "train")
    (base / "meta").mkdir()
    train = [f"{c}/{1005649 + i}" for i, c in enumerate(dataset.classes)]
    write_list(base / "meta", "train.txt", train)
    write_list(base / "meta", "test.txt", [f"{c}/7" for c in dataset.classes])
    source = open_source("food101", tmp_path, "train")
    assert source.ids == train
    assert [source[i]["label"] for i in range(101)] == list(range(101))
    with Image.open(pixels[source.ids[17]]) as image:
        np.testing.assert_allclose(source[17]["rgb"], np.asarray(image), atol=2)
    assert open_source("food101", tmp_path, "test").ids[0] == "apple_pie/7"
    with pytest.raises(FileNotFoundError, match="no split 'val'; it has train, test"):
        open_source("food101", tmp_path, "val")


def test_lists_with_a_byte_order_mark_and_blank_lines_are_read(root):
    make_lists(root)
    before = {split: open_source("eurosat_rgb", root, split).ids for split in SHARES}
    for path in root.glob("eurosat-*.txt"):
        text = path.read_bytes().replace(b"\n", b"\r\n\r\n")
        path.write_bytes(b"\xef\xbb\xbf" + text)
    after = {split: open_source("eurosat_rgb", root, split).ids for split in SHARES}
    assert after == before

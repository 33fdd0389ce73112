"""fMoW-rgb as downloaded: the label's box, the csv's images, whole locations."""

import csv
import json

import numpy as np
import pytest
from PIL import Image

from rsclip_jax.data.catalog.datasets import DATASETS
from rsclip_jax.data.datasets import open_source
from tests.helpers.packs import pack_archive

CLASSES = DATASETS["fmow_rgb"].classes
SEQUENCES = {"airport": (3, 1), "multi-unit_residential": (2,), "zoo": (1, 1)}


def image_of(name, height=60, width=100):
    seed = sum(map(ord, name))
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def box_json(path, category, box, as_list=True):
    entry = {"ID": 0, "category": category, "box": list(box)}
    boxes = [entry] if as_list else entry
    path.write_text(json.dumps({"gsd": 0.5, "bounding_boxes": boxes}))


def make_fmow(folder, splits=("train", "val"), sequences=SEQUENCES, boxes=False):
    """Writes images and .json files in fMoW's layout.

    The images are lossless in spite of their name, so that pixels can be compared.
    """
    for split in splits:
        for name, times in sequences.items():
            for location, count in enumerate(times):
                at = folder / split / name / f"{name}_{location}"
                at.mkdir(parents=True)
                for time in range(count):
                    for kind in ("rgb", "msrgb"):
                        stem = f"{name}_{location}_{time}_{kind}"
                        pixels = image_of(split + stem)
                        Image.fromarray(pixels).save(at / f"{stem}.jpg", "PNG")
                        if boxes:
                            box_json(at / f"{stem}.json", name, (20, 30, 50, 6))


def write_csv(path, header, rows):
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([header, *rows])


def ids(root, split, **options):
    return open_source("fmow_rgb", root, split, **options).ids


@pytest.mark.parametrize("folder", ["fmow-rgb", "fMoW-rgb", "fmow_rgb/fmow", "fmow"])
def test_split_folders_are_read_whole_without_the_multispectral_jpegs(tmp_path, folder):
    make_fmow(tmp_path / folder)
    for path in list((tmp_path / folder).rglob("*.jpg")):
        path.with_name(f"._{path.name}").touch()  # which macOS leaves beside a copy
    source = open_source("fmow_rgb", tmp_path, "train")
    assert source.ids == [
        f"train/{name}/{name}_{location}/{name}_{location}_{time}_rgb"
        for name, times in SEQUENCES.items()
        for location, count in enumerate(times)
        for time in range(count)
    ]
    labels = [CLASSES[source[i]["label"]] for i in range(len(source))]
    assert labels == [id_.split("/")[1] for id_ in source.ids]
    pixels = image_of("trainairport_0_2_rgb")
    np.testing.assert_array_equal(source[2]["rgb"], pixels)
    assert len(ids(tmp_path, "all")) == 2 * len(source)
    assert source.split_rule == ""


def test_test_images_without_labels_are_not_a_split(tmp_path):
    make_fmow(tmp_path / "fmow")
    (tmp_path / "fmow" / "test" / "0000018").mkdir(parents=True)
    (tmp_path / "fmow" / "test" / "0000018" / "0000018_0_rgb.jpg").touch()
    with pytest.raises(FileNotFoundError, match=r"no split 'test' \(.*has no class"):
        ids(tmp_path, "test")
    assert len(ids(tmp_path, "all")) == 16
    (tmp_path / "fmow" / "val").rename(tmp_path / "fmow" / "old")
    (tmp_path / "fmow" / "train").rename(tmp_path / "fmow" / "older")
    with pytest.raises(FileNotFoundError, match=r"no csv .* and no class folders"):
        ids(tmp_path, "all")


# The box.


@pytest.mark.parametrize("as_list", [True, False])
@pytest.mark.parametrize(
    ("box", "rows", "columns"),
    [  # of 60 x 100; around it on both sides half of this share of its side:
        ((20, 30, 50, 6), (27, 39), (17, 73)),  # 0.15 of 50; at 6 / 60 = 0.1, 1 of 6
        ((40, 20, 9, 24), (18, 46), (31, 58)),  # 2 of 9; at 24 / 60 = 0.4, 0.2 of 24
        ((0, 0, 100, 60), (0, 60), (0, 100)),
        ((90, 50, 20, 20), (47, 60), (85, 100)),  # over the edges: cut there
    ],
)
def test_the_box_is_read_with_the_baselines_context(
    tmp_path, box, rows, columns, as_list
):
    make_fmow(tmp_path / "fmow", ("train",), {"zoo": (1,)})
    path = tmp_path / "fmow" / "train" / "zoo" / "zoo_0" / "zoo_0_0_rgb.json"
    box_json(path, "zoo", box, as_list)
    source = open_source("fmow_rgb", tmp_path, "train")
    whole = image_of("trainzoo_0_0_rgb")
    expected = whole[rows[0] : rows[1], columns[0] : columns[1]]
    np.testing.assert_array_equal(source[0]["rgb"], expected)


@pytest.mark.parametrize(
    ("stated", "box"),
    [
        ((200, 120), (40, 20, 18, 48)),  # the image is half as large as it was
        ((300, 180), (60, 30, 27, 72)),
        ((199, 121), (40, 20, 18, 48)),  # sides are rounded
        ((100, 60), (20, 10, 9, 24)),
    ],
)
def test_the_box_is_scaled_to_an_image_that_was_made_smaller(tmp_path, stated, box):
    make_fmow(tmp_path / "fmow", ("train",), {"zoo": (1,)})
    path = tmp_path / "fmow" / "train" / "zoo" / "zoo_0" / "zoo_0_0_rgb.json"
    boxes = [{"category": "zoo", "box": list(box)}]
    told = {"img_width": stated[0], "img_height": stated[1], "bounding_boxes": boxes}
    path.write_text(json.dumps(told))
    shape = open_source("fmow_rgb", tmp_path, "train")[0]["rgb"].shape
    # 24 of 60 rows with 0.2 of 24 around, 9 of 100 columns with 2 of 9 around
    assert np.abs(np.subtract(shape, (28, 27, 3))).max() <= 2, shape


def test_a_part_of_the_image_that_the_json_describes_is_refused(tmp_path):
    make_fmow(tmp_path / "fmow", ("train",), {"zoo": (1,)})
    path = tmp_path / "fmow" / "train" / "zoo" / "zoo_0" / "zoo_0_0_rgb.json"
    told = {"bounding_boxes": [{"category": "zoo", "box": [0, 0, 9, 9]}]}
    words = r"rgb\.json: says img_width 110 and img_height 60, .* 100 x 60 pixels"
    path.write_text(json.dumps({"img_width": 110, "img_height": 60, **told}))
    with pytest.raises(ValueError, match=words):
        open_source("fmow_rgb", tmp_path, "train")[0]
    path.write_text(json.dumps({"img_width": 0, "img_height": 60, **told}))
    with pytest.raises(ValueError, match="no readable bounding_boxes"):
        open_source("fmow_rgb", tmp_path, "train")[0]


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_a_csv_with_a_byte_order_mark_and_blank_lines_is_read(tmp_path, mark):
    make_fmow(tmp_path / "fmow")
    path = tmp_path / "fmow" / "train_62classes.csv"
    path.write_bytes(mark + b"category,location_id,image_id\r\n\r\nzoo,1,0\r\n,,\r\n")
    assert ids(tmp_path, "train") == ["train/zoo/zoo_1/zoo_1_0_rgb"]


def test_the_box_of_the_label_is_read_among_several(tmp_path):
    make_fmow(tmp_path / "fmow", ("train",), {"zoo": (1,)})
    path = tmp_path / "fmow" / "train" / "zoo" / "zoo_0" / "zoo_0_0_rgb.json"
    boxes = [
        {"category": "false_detection", "box": [0, 0, 10, 10]},
        {"category": "zoo", "box": [0, 0, 100, 60]},
    ]
    path.write_text(json.dumps({"bounding_boxes": boxes}))
    record = open_source("fmow_rgb", tmp_path, "train")[0]
    assert record["rgb"].shape == (60, 100, 3)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"bounding_boxes": [{"box": [200, 0, 5, 5]}]}', "lies outside the image"),
        ('{"bounding_boxes": [{"box": [5, 5, 0, 5]}]}', "lies outside the image"),
        ('{"bounding_boxes": []}', "no readable bounding_boxes"),
        ('{"bounding_boxes": [{"box": [1, 2, 3]}]}', "no readable bounding_boxes"),
        ('{"gsd": 1', "no readable bounding_boxes"),
    ],
)
def test_a_damaged_json_is_an_error_of_its_record(tmp_path, text, message):
    make_fmow(tmp_path / "fmow", ("train",), boxes=True)
    path = tmp_path / "fmow" / "train" / "zoo" / "zoo_0" / "zoo_0_0_rgb.json"
    path.write_text(text)
    source = open_source("fmow_rgb", tmp_path, "train")
    source[0]
    with pytest.raises(ValueError, match=rf"zoo_0_0_rgb\.json: .*{message}") as error:
        source[6]
    assert "fetch " in str(error.value)


# The csv.

COLUMNS = ("category", "location_id", "image_id", "timestamp", "polygon")
ROWS = [
    ("zoo", 1, 0, "2016-02-04T20:24:45Z", "POLYGON ((1 2, 3 4))"),
    ("airport", 0, 2, "2015-05-24T14:34:20Z", "POLYGON ((1 2, 3 4))"),
]
LISTED = ["zoo/zoo_1/zoo_1_0_rgb", "airport/airport_0/airport_0_2_rgb"]


@pytest.mark.parametrize("above", [False, True])
@pytest.mark.parametrize("name", ["train_62classes.csv", "train.csv"])
def test_a_csv_lists_the_images_of_a_split(tmp_path, name, above):
    folder = tmp_path / "fmow_rgb" / "fmow"
    make_fmow(folder)
    write_csv((folder.parent if above else folder) / name, COLUMNS, ROWS)
    source = open_source("fmow_rgb", tmp_path, "train")
    assert source.ids == [f"train/{x}" for x in LISTED]
    assert [CLASSES[source[i]["label"]] for i in (0, 1)] == ["zoo", "airport"]
    assert source.split_rule == name
    with pytest.raises(
        FileNotFoundError, match=rf"{name}: no split 'val'; it has train"
    ):
        ids(tmp_path, "val")
    assert ids(tmp_path, "all") == source.ids


def test_satmaes_csv_is_read_by_column_index(tmp_path):
    """Columns are label, path on the author's disk, time; the header is ignored."""
    make_fmow(tmp_path / "fmow")
    path = "/atlas/u/someone/train/fmow/{}/{}.jpg"
    header = ("label", "whatever", "time")
    for split in ("train", "val"):
        rows = [(61, path.format(split, x), "2016") for x in LISTED]
        write_csv(tmp_path / "fmow" / f"{split}_62classes.csv", header, rows)
    rows = [(61, f"fmow/val/{LISTED[1]}.jpg", "2016")]
    write_csv(tmp_path / "fmow" / "val_62classes.csv", header, rows)
    assert ids(tmp_path, "val") == [f"val/{LISTED[1]}"]
    rows.append((0, "elsewhere/a.jpg", "2016"))
    write_csv(tmp_path / "fmow" / "val_62classes.csv", header, rows)
    with pytest.raises(ValueError, match=r"val_62classes\.csv: .*elsewhere/a\.jpg"):
        ids(tmp_path, "val")


def test_a_missing_column_is_named_with_the_existing_ones(tmp_path):
    make_fmow(tmp_path / "fmow")
    sheet = tmp_path / "fmow" / "train_62classes.csv"
    write_csv(sheet, ("category", "place", "image_id"), [("zoo", 1, 0)])
    with pytest.raises(ValueError, match="no column location_id; it has") as error:
        ids(tmp_path, "train")
    assert str(sheet) in str(error.value)
    assert "category, place, image_id" in str(error.value)


def test_absent_files_are_counted_and_the_first_are_named(tmp_path, capsys):
    make_fmow(tmp_path / "fmow")
    sheet = tmp_path / "fmow" / "train_62classes.csv"
    lost = [("zoo", 1, k, "", "") for k in range(1, 9)]
    write_csv(sheet, COLUMNS, [*ROWS, *lost])
    with pytest.raises(ValueError, match="8 of its images are absent") as error:
        ids(tmp_path, "train")
    first = ", ".join(f"train/zoo/zoo_1/zoo_1_{k}_rgb.jpg" for k in range(1, 6))
    assert f"{sheet}: 8" in str(error.value)
    assert f"absent: {first}, ...;" in str(error.value)
    kept = ids(tmp_path, "train", on_error="skip")
    assert kept == [f"train/{x}" for x in LISTED]
    assert "8 of its images are absent" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (("zoo", 1, 0, "", ""), r"zoo_1_0_rgb\.jpg occurs twice"),
        (("volcano", 1, 0, "", ""), "category 'volcano' is not one of fMoW's 62"),
        (("zoo", 1), "line 4: cut short"),
    ],
)
def test_a_bad_row_is_named(tmp_path, row, message):
    make_fmow(tmp_path / "fmow")
    write_csv(tmp_path / "fmow" / "train_62classes.csv", COLUMNS, [*ROWS, row])
    with pytest.raises(ValueError, match=rf"train_62classes\.csv.*{message}"):
        ids(tmp_path, "train")


def test_the_images_of_a_location_are_all_in_one_part(tmp_path):
    make_fmow(tmp_path / "fmow", ("train",), {"zoo": (3,) * 20})
    parts = [ids(tmp_path, s) for s in ("train[:60%]", "train[60%:]")]
    locations = [{id_.rsplit("/", 1)[0] for id_ in part} for part in parts]
    assert all(locations)
    assert not locations[0] & locations[1]
    whole = ids(tmp_path, "train")
    assert sorted(parts[0] + parts[1]) == sorted(whole)
    # a pack's parts, too; also of an old pack, without a file of hash keys
    out = tmp_path / "out"
    pack_archive("fmow_rgb", tmp_path, out, ("train",), shard_mb=1)
    folder = out / "fmow_rgb" / "train"
    keys = (folder / "hash_keys.txt").read_text().split()
    assert keys == [id_.removeprefix("train/").rsplit("/", 1)[0] for id_ in whole]
    for _ in range(2):
        for i, split in enumerate(("train[:60%]", "train[60%:]")):
            assert open_source("fmow_rgb", out, split).ids == parts[i]
        manifest = json.loads((folder / "manifest.json").read_text())
        manifest.pop("files", None)
        (folder / "manifest.json").write_text(json.dumps(manifest))

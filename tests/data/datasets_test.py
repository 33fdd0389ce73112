"""open_source on every dataset: records, folders, tiles and errors."""

import json
import re

import numpy as np
import pytest
import tifffile
from PIL import Image

from rsclip_jax.data.catalog.datasets import CIFAR10_CLASSES, DATASETS
from rsclip_jax.data.codecs.checks import check_array
from rsclip_jax.data.datasets import get_dataset, open_source
from rsclip_jax.data.miniature import scenes as miniature
from rsclip_jax.data.open.locate import find_folder
from rsclip_jax.data.sensors import COMPOSITES, SENSORS
from rsclip_jax.data.sources.digests import split_digest
from rsclip_jax.data.sources.wrappers import TiledSource
from tests.conftest import REPO
from tests.helpers.coordinate_scenes import Scenes
from tests.helpers.runs import SIZES, few_scenes

REAL = {  # records, height and width
    ("eurosat_rgb", "train"): (6000, 64),
    ("eurosat_rgb", "val"): (1000, 64),
    ("resisc45", "all"): (900, 256),
    ("cifar10", "val"): (1000, 32),
    ("imagenette", "all"): (600, 224),
    ("sentinel_pairs", "train"): (160, 256),
    ("sentinel_pairs", "val"): (40, 256),
}


@pytest.fixture(scope="module", autouse=True)
def small():
    """The miniature's splits with few scenes."""
    with few_scenes():
        yield


def labels_of(source):
    return np.stack([np.asarray(source[i]["label"]) for i in range(len(source))])


def save(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)


def noise(*shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def make_cifar10(folder, images=3):
    """Class folders without split folders; the value of each image is its number."""
    for label, name in enumerate(CIFAR10_CLASSES):
        for i in range(images):
            flat = np.full((32, 32, 3), 10 * label + i, np.uint8)
            save(folder / name / f"{i}.png", flat)


def make_pairs(folder, names, seed=0):
    for i, name in enumerate(names):
        save(folder / "s2_rgb" / f"{name}.png", noise(8, 8, 3, seed=seed + i))
        save(folder / "s1_vh" / f"{name}.png", noise(8, 8, seed=100 + seed + i))


# The rows.


@pytest.mark.parametrize("name", DATASETS)
def test_a_dataset_is_consistent(name):
    dataset = DATASETS[name]
    assert dataset.name == name
    assert get_dataset(name) is dataset
    for key, sensor in dataset.sensors.items():
        assert SENSORS[sensor].modality == key
    assert len(dataset.classes) == len(dataset.classnames)
    assert (dataset.task in ("none", "captions")) == (not dataset.classes)
    assert bool(dataset.folders) == (dataset.kind != "miniature")
    if dataset.kind == "paired_folders":
        assert dataset.subfolders.keys() == dataset.sensors.keys()


def test_class_names_match_their_folders():
    dataset = DATASETS["eurosat_rgb"]
    names = dict(zip(dataset.classes, dataset.classnames, strict=True))
    assert names["SeaLake"] == "lake or sea"
    assert names["HerbaceousVegetation"] == "brushland or shrubland"
    dataset = DATASETS["resisc45"]
    names = dict(zip(dataset.classes, dataset.classnames, strict=True))
    assert names["thermal_power_station"] == "thermal power station"


# Names that are refused.


def test_a_composite_is_made_of_the_named_sensor():
    made = 0
    for dataset in DATASETS.values():
        for key, (source, name) in dataset.composites.items():
            assert COMPOSITES[name].sensor == dataset.sensors[source], dataset.name
            assert dataset.sensors[key] == "rgb"
            made += 1
    assert made >= 5


def test_the_composite_of_13_bands_is_eurosats_jpeg(real_data):
    """Within what JPEG loses: B04, B03 and B02 by name, DN 2750 white."""
    bands, jpegs = (open_source(n, real_data) for n in ("eurosat_ms", "eurosat_rgb"))
    assert len(bands) == 140
    index_of = {name.split("/", 1)[1]: i for i, name in enumerate(jpegs.ids)}
    for i in range(0, 140, 7):
        record, photo = bands[i], jpegs[index_of[bands.ids[i]]]
        assert record["label"] == photo["label"]
        off = record["rgb"].astype(float) - photo["rgb"]
        assert np.abs(off).mean() < 6
        assert abs(off.mean()) < 1.5


def test_eurosats_ninth_file_band_is_not_b8a(real_data):
    """B8A is last in the files, and shows the same near infrared as B08."""
    source = open_source("eurosat_ms", real_data)
    bands = SENSORS["s2_l1c"].bands
    for i in range(0, 140, 14):
        folder = real_data / "eurosat_ms" / source.ids[i]
        file = tifffile.imread(folder.with_suffix(".tif"))
        s2 = source[i]["s2"]
        np.testing.assert_array_equal(s2[..., bands.index("B8A")], file[..., 12])
        np.testing.assert_array_equal(s2[..., bands.index("B10")], file[..., 9])
        assert s2[..., bands.index("B10")].mean() < 50


@pytest.mark.parametrize("name", ["miniature", "cifar10"])
def test_an_unknown_split_lists_the_choices(tmp_path, name):
    (tmp_path / "cifar10").mkdir()
    with pytest.raises(ValueError, match=r"'dev'.*train, val, test"):
        open_source(name, tmp_path, "dev")


def test_a_split_without_images_is_an_error(tmp_path):
    for name in CIFAR10_CLASSES:
        (tmp_path / "cifar10" / "val" / name).mkdir(parents=True)
    with pytest.raises(FileNotFoundError, match="no images in split 'val' of cifar10"):
        open_source("cifar10", tmp_path, "val")


# Where a set lies.


@pytest.mark.parametrize("folder", ["cifar10", "CIFAR-10", "CIFAR-10-images"])
@pytest.mark.parametrize("kind", ["path", "text"])
def test_a_dataset_is_found_by_its_name_or_its_public_folder_name(
    tmp_path, folder, kind
):
    make_cifar10(tmp_path / folder)
    source = open_source("cifar10", str(tmp_path) if kind == "text" else tmp_path)
    assert len(source) == 30
    assert find_folder(DATASETS["cifar10"], tmp_path) == tmp_path / folder


@pytest.mark.parametrize(
    ("name", "folder"),
    [
        ("eurosat_rgb", "EuroSAT_RGB"),
        ("eurosat_rgb", "2750"),
        ("resisc45", "NWPU-RESISC45"),
        ("imagenette", "imagenette2-320"),
        ("aid", "AID"),
        ("rsscn7", "RSSCN7"),
        ("rsscn7", "RSSCN7-master"),
        ("patternnet", "PatternNet/images"),
        ("cifar100", "CIFAR-100"),
        ("stl10", "STL-10"),
    ],
)
def test_unpacked_downloads_are_found(tmp_path, name, folder):
    dataset = DATASETS[name]
    side = dataset.size or 4
    for i, c in enumerate(dataset.classes):
        flat = np.full((side, side, 3), i, np.uint8)
        save(tmp_path / folder / c / f"{c}_1.jpg", flat)
    source = open_source(name, tmp_path)
    assert source.ids == [f"{c}/{c}_1" for c in dataset.classes]
    assert labels_of(source).tolist() == list(range(len(dataset.classes)))


def test_uc_merceds_tifs_of_odd_sizes_are_read_pixel_for_pixel(tmp_path):
    """As it unpacks: a readme beside Images, uncompressed 8-bit RGB tifs."""
    root = tmp_path / "UCMerced_LandUse"
    dataset = DATASETS["ucmerced"]
    sizes = [(256, 256), (257, 253), (242, 256)]
    for label, name in enumerate(dataset.classes):
        for i, size in enumerate(sizes):
            image = noise(*size, 3, seed=10 * label + i)
            save(root / "Images" / name / f"{name}{i:02}.tif", image)
    (root / "readme.txt").write_text("UC Merced Land Use Dataset")
    source = open_source("ucmerced", tmp_path)
    assert len(source) == 21 * 3
    for index in (0, 1, 2, 37, 62):
        label, i = divmod(index, 3)
        record = source[index]
        name = dataset.classes[label]
        assert record["id"] == f"{name}/{name}{i:02}"
        assert record["label"] == label
        expected = noise(*sizes[i], 3, seed=10 * label + i)
        np.testing.assert_array_equal(record["rgb"], expected)
    file = root / "Images" / "beach" / "beach01.tif"
    file.write_bytes(file.read_bytes()[:-1000])
    with pytest.raises(ValueError, match=r"beach01\.tif: unreadable or cut"):
        source[source.ids.index("beach/beach01")]


@pytest.mark.parametrize("splits", [(), ("train", "test")])
def test_cifar100s_class_train_is_not_a_split(tmp_path, splits):
    names = DATASETS["cifar100"].classes
    flat = np.zeros((32, 32, 3), np.uint8)
    for split in splits or ("",):
        for name in names:
            save(tmp_path / "cifar100" / split / name / "0.png", flat)
    source = open_source("cifar100", tmp_path)
    assert labels_of(source).tolist() == list(range(100)) * max(len(splits), 1)
    train = open_source("cifar100", tmp_path, "train")
    trains = [id for id in train.ids if id.split("/")[-2] == "train"]
    if splits:
        assert len(train) == 100
        assert trains == ["train/train/0"]
    else:
        assert 50 < len(train) < 90  # 70 per cent, by hash
        parts = [open_source("cifar100", tmp_path, s) for s in ("val", "test")]
        assert sum(map(len, [train, *parts])) == 100
    (tmp_path / "cifar100" / (splits or ("",))[0] / "apple" / "0.png").unlink()
    (tmp_path / "cifar100" / (splits or ("",))[0] / "apple").rmdir()
    with pytest.raises(
        FileNotFoundError, match=r"no folder for the class\(es\) apple;"
    ):
        open_source("cifar100", tmp_path)


def test_imagenets_splits_are_folders_of_files_with_a_capital_suffix(tmp_path):
    dataset = DATASETS["imagenet"]
    for synset in dataset.classes:
        for split in ("train", "val"):
            (tmp_path / "imagenet" / split / synset).mkdir(parents=True)
    for i, label in enumerate((0, 744, 999)):
        name = f"ILSVRC2012_val_0000000{i}.JPEG"
        folder = tmp_path / "imagenet" / "val" / dataset.classes[label]
        folder.mkdir(exist_ok=True)
        image = Image.fromarray(np.full((8, 8, 3), 50 * i, np.uint8))
        image.save(folder / name, "JPEG")
    source = open_source("imagenet", tmp_path, "val")
    assert labels_of(source).tolist() == [0, 744, 999]
    assert source.ids[1] == "val/n04008634/ILSVRC2012_val_00000001"
    assert source.dataset.classnames[source[1]["label"]] == "projectile"
    with pytest.raises(FileNotFoundError, match="no images in split 'train'"):
        open_source("imagenet", tmp_path, "train")


def test_imagenets_validation_images_in_one_folder_are_refused(tmp_path):
    """The archive unpacks without class folders."""
    save(tmp_path / "imagenet" / "val" / "a.jpg", np.zeros((4, 4, 3), np.uint8))
    with pytest.raises(FileNotFoundError, match=r"val: no folder for .*n01440764"):
        open_source("imagenet", tmp_path, "val")


def test_a_flat_test_folder_is_not_a_labelled_split(tmp_path):
    """ImageNet's test images are in one folder beside train and val."""
    dataset = DATASETS["imagenet"]
    base = tmp_path / "ILSVRC" / "Data" / "CLS-LOC"
    flat = np.zeros((4, 4, 3), np.uint8)
    for split in ("train", "val"):
        for synset in dataset.classes:
            (base / split / synset).mkdir(parents=True)
        save(base / split / dataset.classes[7] / f"{split}_1.jpg", flat)
    save(base / "test" / "ILSVRC2012_test_00000001.jpg", flat)
    source = open_source("imagenet", tmp_path, "all")
    assert source.ids == [f"{s}/{dataset.classes[7]}/{s}_1" for s in ("train", "val")]
    with pytest.raises(
        FileNotFoundError, match=r"no split 'test' \(.* has no class folders"
    ):
        open_source("imagenet", tmp_path, "test")
    (base / "test" / dataset.classes[0]).mkdir()  # some classes are not none
    with pytest.raises(FileNotFoundError, match=r"test: no folder for the class"):
        open_source("imagenet", tmp_path, "all")


def test_a_class_is_known_by_its_folder_and_not_by_its_index(tmp_path):
    """One folder has another dataset's spelling, or another name: no class may take
    its label.
    """
    dataset = DATASETS["aid"]
    for i, name in enumerate(dataset.classes):
        folder = {"BareLand": "bare_land"}.get(name, name)
        save(tmp_path / "AID" / folder / "1.jpg", np.full((4, 4, 3), 8 * i, np.uint8))
    for i, record in enumerate(open_source("aid", tmp_path)):
        assert record["label"] == i
        assert np.abs(record["rgb"].astype(int) - 8 * i).max() <= 2
    (tmp_path / "AID" / "bare_land").rename(tmp_path / "AID" / "bare_soil")
    with pytest.raises(
        FileNotFoundError, match=r"class\(es\) BareLand; found .*bare_s"
    ):
        open_source("aid", tmp_path)


def test_the_folder_with_the_datasets_name_comes_first(tmp_path):
    make_cifar10(tmp_path / "cifar10", images=1)
    make_cifar10(tmp_path / "CIFAR-10", images=2)
    assert len(open_source("cifar10", tmp_path)) == 10


# Records.


def test_a_record_holds_its_id_label_and_image(tmp_path):
    make_cifar10(tmp_path / "cifar10")
    source = open_source("cifar10", tmp_path)
    assert (source.dataset, source.split) == (DATASETS["cifar10"], "all")
    for index in (0, 7, 29, -1):
        record = source[index]
        label, number = divmod(index % 30, 3)
        assert record.keys() == {"id", "label", "rgb"}
        assert record["id"] == source.ids[index] == f"{CIFAR10_CLASSES[label]}/{number}"
        assert record["label"] == label
        assert record["rgb"].dtype == np.uint8
        np.testing.assert_array_equal(
            record["rgb"], np.full((32, 32, 3), 10 * label + number)
        )
    with pytest.raises(IndexError):
        source[30]


def test_a_file_is_read_on_access(tmp_path):
    make_cifar10(tmp_path / "cifar10")
    (tmp_path / "cifar10" / "bird" / "1.png").write_bytes(b"no image")
    source = open_source("cifar10", tmp_path)
    assert len(source) == 30
    at = source.ids.index("bird/1")
    assert source[at - 1]["label"] == 2
    with pytest.raises(ValueError, match=r"bird/1\.png: unreadable"):
        source[at]


@pytest.mark.parametrize(("name", "split"), REAL)
def test_real_records_have_the_keys_types_shapes_and_labels_of_their_dataset(
    real_data, name, split
):
    source = open_source(name, real_data, split)
    dataset, (n, side) = source.dataset, REAL[name, split]
    assert len(source) == len(set(source.ids)) == n
    for index in np.linspace(0, n - 1, 10).astype(int):
        record = source[index]
        assert record.keys() == {"id", "label", *dataset.sensors}
        assert record["id"] == source.ids[index]
        for key, sensor in dataset.sensors.items():
            channels = len(SENSORS[sensor].bands)
            assert record[key].shape == (side, side, channels)
            assert record[key].dtype == np.uint8
            assert record[key].std() > 0
        if dataset.task == "none":
            assert record["label"] == -1
        else:
            folder = record["id"].split("/")[-2]
            assert dataset.classes[record["label"]] == folder


def test_real_labels_are_balanced(real_data):
    source = open_source("eurosat_rgb", real_data, "val[:10%]")
    labels = labels_of(source)
    assert len(labels) == len(source)
    assert np.bincount(labels, minlength=10).min() > 0


def test_real_classes_look_like_their_names(real_data):
    source = open_source("eurosat_rgb", real_data, "val")

    def brightness(name):
        found = [i for i, key in enumerate(source.ids) if f"/{name}/" in key][:20]
        return np.mean([source[i]["rgb"].mean() for i in found])

    assert brightness("Industrial") > brightness("Forest")
    assert brightness("Industrial") > brightness("SeaLake")


# Pairs.


def test_pairs_hold_each_sensors_file_with_the_same_name(tmp_path):
    make_pairs(tmp_path / "sentinel_pairs", ["b", "a"])
    source = open_source("sentinel_pairs", tmp_path)
    assert source.ids == ["a", "b"]
    record = source[1]  # "b" was written first
    np.testing.assert_array_equal(record["rgb"], noise(8, 8, 3, seed=0))
    np.testing.assert_array_equal(record["s1"][..., 0], noise(8, 8, seed=100))
    assert record["s1"].shape == (8, 8, 1)
    assert record["label"] == -1


def test_a_missing_partner_is_named_or_left_out_and_counted(tmp_path, capsys):
    folder = tmp_path / "sentinel_pairs"
    make_pairs(folder, ["a", "b", "c"])
    (folder / "s1_vh" / "b.png").unlink()
    with pytest.raises(ValueError, match=r"1 file\(s\) have no partner") as error:
        open_source("sentinel_pairs", tmp_path)
    assert str(folder / "s2_rgb" / "b.png") in str(error.value)
    assert "on_error='skip' leaves" in str(error.value)
    source = open_source("sentinel_pairs", tmp_path, on_error="skip")
    assert source.ids == ["a", "c"]
    out = capsys.readouterr().out
    assert out.startswith("warning: 1 file(s) have no partner")
    assert "b.png; left out" in out


def test_many_missing_partners_are_counted_and_the_first_named(tmp_path):
    folder = tmp_path / "sentinel_pairs"
    make_pairs(folder, [f"p{i}" for i in range(9)])
    for i in range(8):
        (folder / "s2_rgb" / f"p{i}.png").unlink()
    with pytest.raises(ValueError, match=r"8 file\(s\).*p0\.png, .*p4\.png, \.\.\.;"):
        open_source("sentinel_pairs", tmp_path)


def test_a_colour_image_in_place_of_radar_is_refused(tmp_path):
    folder = tmp_path / "sentinel_pairs"
    make_pairs(folder, ["a"])
    save(folder / "s1_vh" / "a.png", noise(8, 8, 3))
    source = open_source("sentinel_pairs", tmp_path)
    with pytest.raises(ValueError, match=r"s1_vh/a\.png: 3 bands of uint8, expected 1"):
        source[0]


# The miniature.


@pytest.mark.parametrize(
    "name", ["miniature", "miniature_multi", "miniature_aerial", "miniature_natural"]
)
def test_a_miniature_dataset_needs_no_files(name):
    source = open_source(name, split="val")
    dataset = source.dataset
    assert len(source) == len(source.ids) == SIZES["val"]
    record = source[3]
    assert record.keys() == {"id", "label", *dataset.sensors}
    assert record["id"] == source.ids[3] == f"{name}/val/000003"
    for key, sensor in dataset.sensors.items():
        assert check_array(record[key], SENSORS[sensor], name) is record[key]
    if dataset.task == "multi":
        assert record["label"].dtype == np.uint8
        assert record["label"].shape == (len(dataset.classes),)
    else:
        assert isinstance(record["label"], int)
    labels = labels_of(source)
    assert labels.shape == (SIZES["val"], *np.shape(record["label"]))
    assert set(np.unique(labels)) == set(range(2 if dataset.task == "multi" else 10))


def test_a_miniature_source_is_the_miniature():
    source = open_source("miniature", split="test")
    again = miniature.open_miniature("miniature", "test")
    for i in (0, 17, len(source) - 1):
        for key in ("rgb", "s1", "s2", "ir", "label"):
            np.testing.assert_array_equal(source[i][key], again[i][key])


def test_a_split_of_the_miniature_is_drawn_once(monkeypatch):
    open_source("miniature", split="test")

    def draw(*args):
        raise AssertionError(f"{args} drawn again")

    monkeypatch.setattr(miniature, "open_miniature", draw)
    assert len(open_source("miniature", split="test")) == SIZES["test"]


# Digests.


def test_the_digest_depends_on_dataset_examples_and_order(tmp_path):
    make_cifar10(tmp_path / "cifar10", images=12)
    parts = ("all", "train", "val", "test", "train[:50%]", "train[50%:]")
    digests = [split_digest(open_source("cifar10", tmp_path, s)) for s in parts]
    assert len(set(digests)) == len(parts)
    assert all(len(d) == 16 for d in digests)
    assert digests[0] == split_digest(open_source("cifar10", tmp_path, "all"))
    source = open_source("cifar10", tmp_path)
    source.ids = source.ids[::-1]
    assert split_digest(source) not in digests


def test_the_digest_depends_on_the_files_and_not_on_their_folder(tmp_path):
    for root in ("here", "there"):
        make_cifar10(tmp_path / root / "cifar10")
    here, there = (
        split_digest(open_source("cifar10", tmp_path / root))
        for root in ("here", "there")
    )
    assert here == there
    (tmp_path / "there" / "cifar10" / "cat" / "2.png").unlink()
    assert split_digest(open_source("cifar10", tmp_path / "there")) != here


def test_the_same_ids_in_another_dataset_have_another_digest():
    scenes, others = Scenes(3, 4, 4), Scenes(3, 4, 4)
    others.dataset = DATASETS["sentinel_pairs"]
    assert split_digest(scenes) != split_digest(others)
    assert split_digest(TiledSource(scenes, 2)) != split_digest(scenes)


# Files of another size; missing pixels.


def test_an_image_of_another_size_is_named(tmp_path):
    make_cifar10(tmp_path / "cifar10")
    save(tmp_path / "cifar10" / "bird" / "1.png", noise(32, 31, 3))
    source = open_source("cifar10", tmp_path)
    at = source.ids.index("bird/1")
    with pytest.raises(
        ValueError, match=r"bird/1\.png: 32 x 31 pixels, .* of cifar10 have 32 x 32: .*"
    ):
        source[at]
    assert source[at - 1]["rgb"].shape == (32, 32, 3)


@pytest.mark.parametrize("share", [-0.1, 1.0, float("nan")])
def test_a_max_nodata_out_of_range_is_refused(share):
    with pytest.raises(ValueError, match=r"max_nodata = .* below 1"):
        open_source("miniature", split="val", max_nodata=share)


def test_a_composite_fills_pixels_missing_in_all_bands_and_keeps_dark_ones(tmp_path):
    """This does not depend on the composite's bands."""
    root, name = tmp_path / "BigEarthNet-v1.0", "S2A_MSIL2A_20170613T101031_0_0"
    (root / name).mkdir(parents=True)
    for i, band in enumerate(SENSORS["s2_l2a"].bands):
        array = np.full((120, 120), 1000 + i, np.uint16)
        array[0, 0] = 0  # missing
        if band in ("B02", "B03", "B04"):
            array[5, 5] = 0  # dark, and there in infrared
        tifffile.imwrite(root / name / f"{name}_{band}.tif", array)
    text = json.dumps({"labels": ["Pastures"]})
    (root / name / f"{name}_labels_metadata.json").write_text(text)
    source = open_source("bigearthnet_s2", tmp_path, max_nodata=0.01)
    for keys in (("rgb",), ("rgb", "s2")):
        rgb = source.read(0, keys)["rgb"]
        assert (rgb[5, 5] == 0).all()
        np.testing.assert_array_equal(rgb[0, 0], rgb[60, 60])
    plain = open_source("bigearthnet_s2", tmp_path).read(0, ("rgb",))["rgb"]
    assert (plain[0, 0] == 0).all()


@pytest.mark.parametrize(
    ("name", "folder", "has", "lacks"),
    [
        ("cifar10", "CIFAR-10-images", ("train", "test"), "val"),
        ("imagenette", "imagenette2", ("train", "val"), "test"),
    ],
)
def test_the_readme_names_the_splits_of_the_public_downloads(
    tmp_path, name, folder, has, lacks
):
    """The small config's splits are those of the layout that its results are for."""
    for split in has:
        for label in get_dataset(name).classes:
            class_folder = tmp_path / folder / split / label
            class_folder.mkdir(parents=True)
            Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(class_folder / "0.png")
    readme = (REPO / "configs/README.md").read_text()
    command = readme.partition("The same run on these")[2].split("```")[1]
    named = set(re.findall(rf"{name}:(\w+)", command))
    assert named == {has[1]}
    for split in ("train", *named):
        assert len(open_source(name, tmp_path, split)) == 10
    with pytest.raises((FileNotFoundError, ValueError), match=has[1]):
        open_source(name, tmp_path, lacks)

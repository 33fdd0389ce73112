"""Datasets that TFDS's code writes here as array_record, without TensorFlow."""

import itertools
import json
import pickle
import re
import subprocess
import sys

import numpy as np
import pytest
import tensorflow_datasets as tfds
import tifffile
from PIL import Image

from configs import inspect, pack
from rsclip_jax.data.catalog.datasets import DATASETS
from rsclip_jax.data.catalog.prompts import PHOTO_TEMPLATES
from rsclip_jax.data.datasets import get_dataset, open_source
from rsclip_jax.data.sensors import SENSORS
from rsclip_jax.data.sources.digests import split_digest
from rsclip_jax.data.specs import DatasetSpec
from rsclip_jax.main import run_stages
from tests.helpers.bigearthnet import SIDES

FILE_BANDS = "B01 B02 B03 B04 B05 B06 B07 B08 B09 B10 B11 B12 B8A".split()
CLASSES = DATASETS["eurosat_rgb"].classes
F = tfds.features
tfds.disable_progress_bar()


class Prepared(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """A builder of given features and examples; called as its subclass is."""

    VERSION = tfds.core.Version("2.0.0")
    pkg_dir_path = None
    features: dict
    examples: dict

    def _info(self):
        return tfds.core.DatasetInfo(
            builder=self, features=F.FeaturesDict(self.features)
        )

    def _split_generators(self, dl_manager):
        return {name: iter(enumerate(e)) for name, e in self.examples.items()}

    def _generate_examples(self):
        raise AssertionError("the examples are given")


def prepare(root, name, features, examples, *, config="", file_format="array_record"):
    """Writes root/<name>/[<config>/]2.0.0; examples: {split: [example]}."""
    body = {"name": name, "features": features, "examples": examples}
    if config:
        body["BUILDER_CONFIGS"] = [tfds.core.BuilderConfig(name=config)]
    kind = type("Made", (Prepared,), body, skip_registration=True)
    builder = kind(data_dir=str(root), file_format=file_format)
    builder.download_and_prepare()


def shipped(name):
    """The features of the builder that TFDS ships under this name."""
    return dict(tfds.builder(name, data_dir="nowhere").info.features)


def s2(i, side=64, bands=13):
    """Whole DN as float32, as TFDS keeps EuroSAT's and BigEarthNet's."""
    rng = np.random.default_rng(i)
    return rng.integers(1, 9000, (side, side, bands)).astype(np.float32)


EUROSAT = list(itertools.product(CLASSES, range(1, 4)))  # 30 files


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """eurosat/all and eurosat/rgb, and the latter's files in class folders."""
    root = tmp_path_factory.mktemp("tfds")
    wide, photos = [], []
    for i, (name, n) in enumerate(EUROSAT):
        path = root / "EuroSAT_RGB" / name / f"{name}_{n}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(s2(i)[..., :3].astype(np.uint8)).save(path)
        file = {"label": name, "filename": path.name}
        wide.append({**file, "sentinel2": s2(i)})
        photos.append({**file, "image": str(path)})
    for config, rows in (("all", wide), ("rgb", photos)):
        features = shipped(f"eurosat/{config}")
        prepare(root, "eurosat", features, {"train": rows}, config=config)
    return root


def test_records_equal_the_written_ones_with_bands_moved_by_name(root):
    source = open_source("tfds:eurosat/all", root)
    dataset = source.dataset
    assert dataset.sensors == {"rgb": "rgb", "s2": "s2_l1c"}
    assert (dataset.name, dataset.task) == ("tfds:eurosat/all", "single")
    assert len(source) == 30
    ids = [f"{name}/{name}_{n}" for name, n in EUROSAT]
    assert sorted(source.ids) == sorted(ids)
    for index, id_ in enumerate(source.ids):
        record, want = source[index], s2(ids.index(id_))
        assert record["id"] == id_
        assert CLASSES[record["label"]] == id_.split("/")[0]
        assert record["s2"].dtype == np.uint16
        for i, band in enumerate(SENSORS["s2_l1c"].bands):
            file = want[..., FILE_BANDS.index(band)]
            np.testing.assert_array_equal(record["s2"][..., i], file, err_msg=band)
        rgb = np.clip(want[..., [3, 2, 1]].astype(np.float64) / 2750, 0, 1) * 255
        np.testing.assert_array_equal(record["rgb"], np.floor(rgb + 0.5))
    assert set(source.read(0, ("rgb",))) == {"id", "label", "rgb"}


def test_names_templates_and_splits_are_the_archives(root):
    """The same ids by the same hash as EuroSAT's class folders."""
    for split in ("train", "val", "test", "train[:50%]"):
        folders = open_source("eurosat_rgb", root, split)
        for name in ("tfds:eurosat/rgb", "tfds:eurosat/all"):
            source = open_source(name, root, split)
            assert sorted(source.ids) == sorted(folders.ids)
            for field in ("classes", "classnames", "templates"):
                want = getattr(folders.dataset, field)
                assert getattr(source.dataset, field) == want
    rgb = open_source("tfds:eurosat/rgb", root, "train")
    folders = open_source("eurosat_rgb", root, "train")
    for i, id_ in enumerate(rgb.ids):
        want = folders[folders.ids.index(id_)]
        np.testing.assert_array_equal(rgb[i]["rgb"], want["rgb"])
        assert rgb[i]["label"] == want["label"]


def test_a_config_must_be_named_if_there_are_several(root):
    with pytest.raises(ValueError, match="prepared as all, rgb: name one, such as tf"):
        open_source("tfds:eurosat", root)


def test_a_source_pickles(root):
    source = open_source("tfds:eurosat/rgb", root)
    again = pickle.loads(pickle.dumps(source))
    np.testing.assert_array_equal(again[7]["rgb"], source[7]["rgb"])


def test_reading_needs_no_tensorflow_and_others_no_tfds(root):
    """CI has no TensorFlow, and importing it is slow."""
    code = (
        "import sys; from rsclip_jax.data.datasets import open_source;"
        "assert 'tensorflow_datasets' not in sys.modules;"
        f"open_source('tfds:eurosat/rgb', {str(root)!r})[0];"
        "assert 'tensorflow' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def photos(tmp_path, n, first=0):
    rows = []
    for i in range(first, first + n):
        path = tmp_path / f"{i}.png"
        Image.fromarray(np.full((5, 7, 3), i, np.uint8)).save(path)
        rows.append({"label": i % 3, "image": str(path)})
    return rows


PHOTO = {
    "image": F.Image(shape=(None, None, 3)),
    "label": F.ClassLabel(names=["oil_tank", "river", "sea_ice"]),
}


def test_a_builders_splits_are_used(tmp_path):
    parts = {"train": 6, "validation": 3, "test": 2}
    examples = {
        split: photos(tmp_path, n, 10 * k) for k, (split, n) in enumerate(parts.items())
    }
    prepare(tmp_path, "places", PHOTO, examples)
    for k, (split, n) in enumerate((("train", 6), ("val", 3), ("test", 2))):
        source = open_source("tfds:places", tmp_path, split)
        assert source.ids == [f"{split}/{i:07d}" for i in range(n)]
        found = [source[i] for i in range(n)]
        values = sorted(int(r["rgb"][0, 0, 0]) for r in found)
        assert values == list(range(10 * k, 10 * k + n))
        assert all(r["label"] == r["rgb"][0, 0, 0] % 3 for r in found)
    dataset = open_source("tfds:places", tmp_path).dataset
    assert dataset.classes == ("oil_tank", "river", "sea_ice")
    assert dataset.classnames == ("oil tank", "river", "sea ice")
    assert dataset.templates == PHOTO_TEMPLATES
    assert len(open_source("tfds:places", tmp_path)) == 11
    prepare(tmp_path, "two", PHOTO, {s: examples[s] for s in ("train", "test")})
    with pytest.raises(FileNotFoundError, match="no split 'val'; it has train, test"):
        open_source("tfds:two", tmp_path, "val")


def test_without_file_names_a_hash_of_the_number_splits(tmp_path):
    prepare(tmp_path, "plain", PHOTO, {"train": photos(tmp_path, 40)})
    splits = [open_source("tfds:plain", tmp_path, s) for s in ("train", "val", "test")]
    ids = [id_ for source in splits for id_ in source.ids]
    assert sorted(ids) == [f"{i:07d}" for i in range(40)]
    assert all(len(source) < 40 for source in splits)


@pytest.mark.parametrize(
    ("name", "dataset", "suffix"),
    [("resisc45", "resisc45", "jpg"), ("uc_merced", "ucmerced", "tif")],
)
def test_the_shipped_builders_have_the_catalogs_classes(
    tmp_path, name, dataset, suffix
):
    want, rows = DATASETS[dataset], []
    side = {"resisc45": 256, "uc_merced": 250}[name]
    for k, label in enumerate(want.classes[:3]):
        path = tmp_path / f"{label}_00{k}.png"
        Image.fromarray(np.full((side, side, 3), k, np.uint8)).save(path)
        file = f"{label}_00{k}.{suffix}"
        rows.append({"label": label, "filename": file, "image": str(path)})
    prepare(tmp_path, name, shipped(name), {"train": rows})
    source = open_source(f"tfds:{name}", tmp_path)
    for field in ("classes", "classnames", "templates", "task", "sensors"):
        assert getattr(source.dataset, field) == getattr(want, field)
    for i, id_ in enumerate(source.ids):
        k = int(id_[-1])
        assert id_ == f"{want.classes[k]}/{want.classes[k]}_00{k}"
        assert source[i]["label"] == k
        assert (source[i]["rgb"] == k).all()


def test_a_missing_label_is_not_the_last_class(tmp_path):
    rows = photos(tmp_path, 2)
    rows[0]["label"] = rows[1]["label"] = -1
    prepare(tmp_path, "unlabelled", PHOTO, {"train": rows})
    with pytest.raises(ValueError, match="label -1 is not a number from 0 to 2"):
        open_source("tfds:unlabelled", tmp_path)[0]


# BigEarthNet


def big_example(i, labels):
    bands = {}
    for k, band in enumerate(SENSORS["s2_l2a"].bands):
        side = SIDES.get(band, 60)
        bands[band] = s2(100 * i + k, side, 1)[..., 0]
    corners = dict.fromkeys(("lrx", "lry", "ulx", "uly"), 0)
    texts = dict.fromkeys(("acquisition_date", "projection", "tile_source"), "")
    meta = {"coordinates": corners, **texts}
    return {**bands, "labels": labels, "filename": f"S2A_{i}", "metadata": meta}


@pytest.fixture
def bigearthnet(tmp_path):
    """bigearthnet/all, and the same pixels as BigEarthNet's own files."""
    labels = [["Pastures", "Airports"], ["Estuaries", "Sea and ocean"]]
    rows = [big_example(i, names) for i, names in enumerate(labels)]
    features = shipped("bigearthnet/all")
    prepare(tmp_path, "bigearthnet", features, {"train": rows}, config="all")
    for row in rows:
        folder = tmp_path / "BigEarthNet-v1.0" / row["filename"]
        folder.mkdir(parents=True)
        for band in SENSORS["s2_l2a"].bands:
            path = folder / f"{folder.name}_{band}.tif"
            tifffile.imwrite(path, row[band].astype(np.uint16))
        text = json.dumps({"labels": row["labels"]})
        (folder / f"{folder.name}_labels_metadata.json").write_text(text)
    return tmp_path


@pytest.mark.parametrize(
    ("suffix", "dataset"),
    [("", "bigearthnet_43_s2"), ("#19", "bigearthnet_s2"), ("#5", "bigearthnet_5_s2")],
)
def test_bigearthnet_equals_its_original_files(bigearthnet, suffix, dataset):
    found = open_source(f"tfds:bigearthnet/all{suffix}", bigearthnet)
    want = open_source(dataset, bigearthnet)
    assert sorted(found.ids) == want.ids
    for field in ("task", "sensors", "classes", "classnames", "templates"):
        assert getattr(found.dataset, field) == getattr(want.dataset, field)
    for i, id_ in enumerate(found.ids):
        record, other = found[i], want[want.ids.index(id_)]
        for key in ("s2", "rgb", "label"):
            np.testing.assert_array_equal(record[key], other[key], strict=True)
    assert open_source(f"tfds:bigearthnet{suffix}", bigearthnet).ids == found.ids


def test_a_few_missing_pixels_are_filled_if_allowed(tmp_path):
    example = big_example(0, ["Pastures"])
    example["B02"][7, 8] = np.nan
    example["B01"][:] = 500
    example["B01"][0, 0] = np.nan  # of a coarse band: 9 x 9 of the finest
    features = shipped("bigearthnet/all")
    prepare(tmp_path, "bigearthnet", features, {"train": [example]}, config="all")
    name = "tfds:bigearthnet/all"
    with pytest.raises(ValueError, match=r"0\.562 % .*NaN or infinite"):
        open_source(name, tmp_path)[0]
    with pytest.raises(ValueError, match=r"S2A_0: .* allows 0\.1 %"):
        open_source(name, tmp_path, max_nodata=0.001)[0]
    s2 = open_source(name, tmp_path, max_nodata=0.01)[0]["s2"]
    assert s2.dtype == np.uint16
    bands = SENSORS["s2_l2a"].bands
    np.testing.assert_array_equal(s2[..., bands.index("B01")], 500)
    want = np.where(
        np.isnan(example["B02"]), np.nanmedian(example["B02"]), example["B02"]
    )
    np.testing.assert_array_equal(s2[..., bands.index("B02")], want.astype(np.uint16))


# What cannot be read


def test_the_error_for_an_unprepared_dataset_has_the_command(tmp_path):
    command = r"tfds\.builder\('resisc45', data_dir='.*', file_format='array_record'\)"
    with pytest.raises(FileNotFoundError, match=rf"holds none of resisc45.*{command}"):
        open_source("tfds:resisc45", tmp_path)
    (tmp_path / "resisc45").mkdir()
    with pytest.raises(
        FileNotFoundError, match=rf"no version with a .*{command}\.down"
    ):
        open_source("tfds:resisc45", tmp_path)
    with pytest.raises(
        FileNotFoundError, match=r"set root to the folder that holds res"
    ):
        open_source("tfds:resisc45")


def test_another_file_format_is_named(tmp_path):
    prepare(tmp_path, "places", PHOTO, {"train": photos(tmp_path, 3)})
    path = tmp_path / "places" / "2.0.0" / "dataset_info.json"
    info = json.loads(path.read_text())
    for form in ("tfrecord", None):  # older ones do not say it
        info["fileFormat"] = form
        path.write_text(json.dumps({k: v for k, v in info.items() if v}))
        words = "prepared as tfrecord, .*file_format='array_record'"
        with pytest.raises(ValueError, match=words):
            open_source("tfds:places", tmp_path)


def test_unknown_features_are_listed(tmp_path):
    features = {"sentinel2": F.Tensor(shape=(4, 4, 10), dtype=np.float32)}
    rows = [{"sentinel2": s2(0, 4, 10)}]
    prepare(tmp_path, "so2sat", features, {"train": rows}, config="all")
    with pytest.raises(
        ValueError, match="has the features sentinel2: neither an 8-bit"
    ):
        open_source("tfds:so2sat/all", tmp_path)
    with pytest.raises(ValueError, match="'#19' and '#5' choose among BigEarthNet's"):
        open_source("tfds:so2sat/all#19", tmp_path)


def test_a_damaged_record_and_a_missing_file_are_named(tmp_path):
    examples = photos(tmp_path, 20)
    rng = np.random.default_rng(0)
    for example in examples:
        noise = rng.integers(0, 256, (99, 98, 3), np.uint8)
        Image.fromarray(noise).save(example["image"])  # which takes 29 kB each
    prepare(tmp_path, "places", PHOTO, {"train": examples})
    (path,) = (tmp_path / "places" / "2.0.0").glob("*array_record*")
    data = bytearray(path.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 40] = bytes(40)
    path.write_bytes(data)
    source = open_source("tfds:places", tmp_path)
    faults = []
    for i in range(20):
        try:
            assert source[i]["rgb"].shape == (99, 98, 3)
        except ValueError as error:
            faults.append(str(error))
    assert 0 < len(faults) < 5
    words = (
        r"places/2\.0\.0: record \d+ of 'train' is damaged .* prepare the files again"
    )
    assert all(re.search(words, fault) for fault in faults)
    path.unlink()
    with pytest.raises(FileNotFoundError, match=r"array_record-00000-of-00001 is miss"):
        open_source("tfds:places", tmp_path)


# Runs


@pytest.mark.parametrize(
    ("spec", "want"),
    [
        ("tfds:eurosat/all:train", ("tfds:eurosat/all", "train", 0)),
        ("tfds:bigearthnet/all#19:val:60", ("tfds:bigearthnet/all#19", "val", 60)),
    ],
)
def test_specs(spec, want):
    assert DatasetSpec.parse(spec) == DatasetSpec(*want)


def test_a_pack_has_the_same_records_ids_and_dataset(root, tmp_path):
    name, out = "tfds:eurosat/all", tmp_path / "out"
    config = pack.get_config()
    config.update(dataset=name, data_root=str(root), progress=False)
    config.pack.update(out=str(out), workers=1)
    run_stages(config.lock(), tmp_path / "w")
    dataset, packed = get_dataset(name, root), get_dataset(name, out)
    for field in ("name", "task", "sensors", "classes", "classnames", "templates"):
        assert getattr(packed, field) == getattr(dataset, field)
    for split in ("train", "test", "all", "train[:50%]"):
        found, want = open_source(name, out, split), open_source(name, root, split)
        assert split_digest(found) == split_digest(want)
        for i in range(0, len(want), 5):
            for key in ("s2", "rgb", "label"):
                np.testing.assert_array_equal(found[i][key], want[i][key])


def test_inspect_reports_the_contents(root, tmp_path, capsys):
    config = inspect.get_config()
    config.update(dataset="tfds:eurosat/rgb", data_root=str(root), progress=False)
    run_stages(config.lock(), tmp_path / "w")
    assert "SeaLake" in capsys.readouterr().out

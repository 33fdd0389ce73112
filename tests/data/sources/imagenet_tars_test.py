"""ImageNet's tars, written by tarfile in the layout they are downloaded in."""

import io
import pickle
import tarfile
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pytest

from rsclip_jax.data.catalog.datasets import DATASETS
from rsclip_jax.data.datasets import open_source

CLASSES = DATASETS["imagenet"].classes
USED = (CLASSES[3], CLASSES[0], CLASSES[999])  # not in the order of the tar


def jpeg(seed):
    noise = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), np.uint8)
    pixels = cv2.resize(noise, (40, 30), interpolation=cv2.INTER_CUBIC)
    return cv2.imencode(".jpg", pixels)[1].tobytes()


def tar_of(files):
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return data.getvalue()


@pytest.fixture
def images():
    """{split: {synset: {image: bytes}}}: three per class in train, two in val."""
    train = {
        s: {f"{s}_{n}": jpeg(10 * i + n) for n in (30, 1, 2)}
        for i, s in enumerate(USED)
    }
    numbers = {s: [4 * i + 1, 4 * i + 3] for i, s in enumerate(USED)}
    val = {
        s: {f"ILSVRC2012_val_{n:08d}": jpeg(500 + n) for n in of}
        for s, of in numbers.items()
    }
    return {"train": train, "val": val}


@pytest.fixture
def root(tmp_path, images):
    folder = tmp_path / "imagenet"
    folder.mkdir()
    tars = {
        f"{s}.tar": tar_of({f"{n}.JPEG": x for n, x in of.items()})
        for s, of in images["train"].items()
    }
    (folder / "ILSVRC2012_img_train.tar").write_bytes(tar_of(tars))
    val = {n: x for of in images["val"].values() for n, x in of.items()}
    flat = tar_of({f"{n}.JPEG": val[n] for n in sorted(val)})
    (folder / "ILSVRC2012_img_val.tar").write_bytes(flat)
    lines = [f"{n},{s} 1 2 3 4" for s, of in images["val"].items() for n in of]
    text = "\n".join(["ImageId,PredictionString", *lines])
    (folder / "LOC_val_solution.csv").write_text(text)
    return tmp_path


@pytest.mark.parametrize("split", ["train", "val"])
def test_images_and_labels_are_those_of_the_tars(root, images, split):
    source = open_source("imagenet", root, split)
    want = [
        (f"{split}/{s}/{n}", CLASSES.index(s), images[split][s][n])
        for s in sorted(USED, key=CLASSES.index)
        for n in sorted(images[split][s])
    ]
    assert source.ids == [id_ for id_, _, _ in want]
    for record, (id_, label, data) in zip(source, want, strict=True):
        assert (record["id"], record["label"]) == (id_, label)
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB)
        np.testing.assert_array_equal(record["rgb"], pixels)


def test_ids_and_parts_equal_those_of_unpacked_folders(root, images, tmp_path):
    for split, of_class in images.items():
        for s in CLASSES:
            folder = tmp_path / "unpacked" / "imagenet" / split / s
            folder.mkdir(parents=True)
            for n, data in of_class.get(s, {}).items():
                (folder / f"{n}.JPEG").write_bytes(data)
    for split in ("train", "val", "all", "train[:50%]", "train[50%:]"):
        want = open_source("imagenet", tmp_path / "unpacked", split)
        assert open_source("imagenet", root, split).ids == want.ids


def test_threads_and_other_processes_read_the_same(root):
    source = open_source("imagenet", root, "train")
    again = pickle.loads(pickle.dumps(source))
    with ThreadPoolExecutor(4) as pool:
        for i, record in enumerate(pool.map(again.__getitem__, range(len(source)))):
            np.testing.assert_array_equal(record["rgb"], source[i]["rgb"])


def test_one_tar_is_enough(root):
    (root / "imagenet" / "ILSVRC2012_img_val.tar").unlink()
    source = open_source("imagenet", root, "all")
    assert len(source) == 9
    assert source.read(0, ()) == {"id": source.ids[0], "label": 0}  # no image
    with pytest.raises(FileNotFoundError, match="no tar of split 'val'; it has train"):
        open_source("imagenet", root, "val")
    with pytest.raises(FileNotFoundError, match="no tar of split 'test'"):
        open_source("imagenet", root, "test")


def test_faults_of_the_solution_are_named(root):
    path = root / "imagenet" / "LOC_val_solution.csv"
    whole = path.read_text().splitlines()
    faults = {
        "\n".join(whole[:-1]): "no line for ILSVRC2012_val_",
        "\n".join([*whole[:-1], whole[-1].split(",")[0]]): "a line without ImageId",
        "\n".join(x.replace(USED[0], "n0") for x in whole): "'n0' is not a class of",
        "\n".join([*whole, whole[-1]]): "is listed twice",
    }
    for text, fault in faults.items():
        path.write_text(text)
        with pytest.raises(ValueError, match=fault):
            open_source("imagenet", root, "val")
    path.unlink()
    with pytest.raises(FileNotFoundError, match=r"val_solution\.csv does not exist"):
        open_source("imagenet", root, "val")
    assert len(open_source("imagenet", root, "train")) == 9


def test_a_cut_tar_is_named_with_the_byte(root):
    path = root / "imagenet" / "ILSVRC2012_img_train.tar"
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(ValueError, match=r"img_train\.tar: cut short: it ends at byte"):
        open_source("imagenet", root, "train")


def test_a_damaged_image_is_named_with_its_tar(root):
    path = root / "imagenet" / "ILSVRC2012_img_val.tar"
    data = bytearray(path.read_bytes())
    data[512:700] = bytes(188)  # of the first image
    path.write_bytes(data)
    first = open_source("imagenet", root, "val").ids.index(
        f"val/{USED[0]}/ILSVRC2012_val_00000001"
    )
    with pytest.raises(ValueError, match=r"img_val\.tar: ILSVRC2012_val_0+1\.JPEG"):
        open_source("imagenet", root, "val")[first]


@pytest.mark.parametrize("part", ["train", "val"])
def test_an_image_that_is_in_a_tar_twice_is_refused(root, images, part):
    path = root / "imagenet" / f"ILSVRC2012_img_{part}.tar"
    with tarfile.open(path, "a") as tar:
        first = tar.getmembers()[0]
        tar.addfile(first, io.BytesIO(bytes(first.size)))
    with pytest.raises(
        ValueError, match=rf"{part}\.tar: '{first.name}' is in it twice"
    ):
        open_source("imagenet", root, part)

"""CIFAR and STL-10 as downloaded: pixels, axis order, labels, and refused pickles.

The pickles are put together opcode by opcode as Python 2 wrote the real ones.
"""

import os
import pickle
import struct

import numpy as np
import pytest

from rsclip_jax.data.catalog.datasets import DATASETS
from rsclip_jax.data.datasets import open_source
from rsclip_jax.data.readers.folders import hash_percent

BATCHES = [f"data_batch_{i}" for i in range(1, 6)]
N = 12  # images a file


def draw(count, classes, side=32, seed=0):
    """(images [n, side, side, 3], labels); swapped axes would be noticed."""
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (count, side, side, 3), np.uint8)
    return images, rng.integers(0, classes, count)


def rows_of(images):
    """CIFAR's rows: all red, row by row, then green, then blue; by plain loops."""
    return [
        bytes(
            int(image[y, x, channel])
            for channel in range(3)
            for y in range(32)
            for x in range(32)
        )
        for image in images
    ]


def text(value):
    return b"U" + bytes([len(value)]) + value.encode()


def python2_pickle(entries):
    """Protocol 2 of {text: list of ints or texts, or uint8 [n, 3072]}."""
    out = b"\x80\x02}q\x01("
    for key, value in entries.items():
        out += text(key)
        if isinstance(value, np.ndarray):
            out += (
                b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85"
                b"U\x01b\x87R(K\x01J" + struct.pack("<i", len(value)) + b"M\x00\x0c\x86"
                b"cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R(K\x03U\x01|NNN"
                b"J\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89T"
            )
            out += struct.pack("<i", value.size) + value.tobytes() + b"tb"
        else:
            items = [
                text(v) if isinstance(v, str) else b"K" + bytes([v]) for v in value
            ]
            out += b"](" + b"".join(items) + b"e"
    return out + b"u."


def as_rows(images):
    return np.frombuffer(b"".join(rows_of(images)), np.uint8).reshape(-1, 3072)


def make_cifar10_py(folder, files):
    folder.mkdir(parents=True)
    names = list(DATASETS["cifar10"].classes)
    for file, (images, labels) in files.items():
        batch = {
            "batch_label": [f"of {file}"],
            "labels": [int(label) for label in labels],
            "data": as_rows(images),
            "filenames": [f"some_{i}.png" for i in range(len(labels))],
        }
        (folder / file).write_bytes(python2_pickle(batch))
    (folder / "batches.meta").write_bytes(python2_pickle({"label_names": names}))


def make_cifar10_bin(folder, files):
    folder.mkdir(parents=True)
    for file, (images, labels) in files.items():
        parts = zip(labels, rows_of(images), strict=True)
        data = b"".join(bytes([label]) + row for label, row in parts)
        (folder / f"{file}.bin").write_bytes(data)
    names = DATASETS["cifar10"].classes
    (folder / "batches.meta.txt").write_text("\n".join(names) + "\n\n")


def make_cifar100_py(folder, files):
    folder.mkdir(parents=True)
    for file, (images, labels) in files.items():
        batch = {
            "fine_labels": [int(label) for label in labels],
            "coarse_labels": [int(label) // 5 for label in labels],
            "data": as_rows(images),
        }
        (folder / file).write_bytes(python2_pickle(batch))
    names = list(DATASETS["cifar100"].classes)
    meta = {"coarse_label_names": ["fish"], "fine_label_names": names}
    (folder / "meta").write_bytes(python2_pickle(meta))


def make_cifar100_bin(folder, files):
    folder.mkdir(parents=True)
    for file, (images, labels) in files.items():
        parts = zip(labels, rows_of(images), strict=True)
        data = b"".join(bytes([label // 5, label]) + row for label, row in parts)
        (folder / f"{file}.bin").write_bytes(data)
    names = DATASETS["cifar100"].classes
    (folder / "fine_label_names.txt").write_text("\n".join(names) + "\n")


def cifar10_files():
    return {
        file: draw(N, 10, seed=i) for i, file in enumerate([*BATCHES, "test_batch"])
    }


def check(source, images, labels):
    assert len(source) == len(labels)
    dataset = source.dataset
    for i, (image, label) in enumerate(zip(images, labels, strict=True)):
        record = source[i]
        assert record["label"] == label
        assert record["id"] == f"{source.split}/{dataset.classes[label]}/{i:05d}"
        assert record["rgb"].dtype == np.uint8
        assert record["rgb"].flags.c_contiguous
        np.testing.assert_array_equal(record["rgb"], image)


@pytest.mark.parametrize("below", ["", "cifar10"])
@pytest.mark.parametrize(
    ("make", "folder"),
    [
        (make_cifar10_py, "cifar-10-batches-py"),
        (make_cifar10_bin, "cifar-10-batches-bin"),
    ],
)
def test_cifar10_is_read_from_its_downloads(tmp_path, make, folder, below):
    files = cifar10_files()
    make(tmp_path / below / folder, files)
    train = open_source("cifar10", tmp_path, "train")
    check(
        train,
        np.concatenate([files[b][0] for b in BATCHES]),
        np.concatenate([files[b][1] for b in BATCHES]),
    )
    check(open_source("cifar10", tmp_path, "test"), *files["test_batch"])
    assert len(open_source("cifar10", tmp_path)) == 6 * N
    low = open_source("cifar10", tmp_path, "train[:50%]")
    percents = [hash_percent(i.removeprefix("train/")) for i in train.ids]
    kept = [i for i, p in zip(train.ids, percents, strict=True) if p < 50]
    assert low.ids == kept
    index = train.ids.index(kept[-1])
    np.testing.assert_array_equal(low[len(kept) - 1]["rgb"], train[index]["rgb"])
    with pytest.raises(FileNotFoundError, match="no split 'val'; it has train, test"):
        open_source("cifar10", tmp_path, "val")


@pytest.mark.parametrize(
    ("make", "folder"),
    [(make_cifar100_py, "cifar-100-python"), (make_cifar100_bin, "cifar-100-binary")],
)
def test_cifar100_is_read_by_its_fine_labels(tmp_path, make, folder):
    files = {s: draw(N, 100, seed=i) for i, s in enumerate(("train", "test"))}
    make(tmp_path / folder, files)
    for split, (images, labels) in files.items():
        check(open_source("cifar100", tmp_path, split), images, labels)


def test_labels_follow_the_archives_class_names(tmp_path):
    """The names are in another order, as a rebuilt archive might have them."""
    files = cifar10_files()
    folder = tmp_path / "cifar-10-batches-bin"
    make_cifar10_bin(folder, files)
    names = DATASETS["cifar10"].classes
    (folder / "batches.meta.txt").write_text("\n".join(reversed(names)))
    images, labels = files["test_batch"]
    check(open_source("cifar10", tmp_path, "test"), images, 9 - labels)
    (folder / "batches.meta.txt").write_text("\n".join(("plane", *names[1:])))
    with pytest.raises(ValueError, match=r"meta\.txt: classes plane, .*airplane"):
        open_source("cifar10", tmp_path, "test")


def make_stl10(folder, images, labels, split):
    folder.mkdir(parents=True, exist_ok=True)
    data = b"".join(  # column by column, as its page says, by Fortran's order
        image[..., channel].tobytes(order="F")
        for image in images
        for channel in (0, 1, 2)
    )
    (folder / f"{split}_X.bin").write_bytes(data)
    (folder / f"{split}_y.bin").write_bytes(bytes(int(n) + 1 for n in labels))
    names = DATASETS["stl10"].classes
    (folder / "class_names.txt").write_text("\n".join(names) + "\n")


def test_stl10_is_stored_column_by_column(tmp_path):
    """A bright top edge must not become the left one."""
    images, labels = draw(5, 10, side=96)
    images[0] = 0
    images[0, :8, :, 0] = 200  # red along the top
    make_stl10(tmp_path / "stl10_binary", images, labels, "train")
    make_stl10(tmp_path / "stl10_binary", images[::-1], labels[::-1], "test")
    train = open_source("stl10", tmp_path, "train")
    check(train, images, labels)
    assert train[0]["rgb"][:8].mean() > 60
    assert train[0]["rgb"][8:].max() == 0
    raw = (tmp_path / "stl10_binary" / "train_X.bin").read_bytes()
    assert raw[:8] == bytes([200] * 8)  # the first column's top: 8 bright rows
    assert raw[8:16] == bytes(8)
    check(open_source("stl10", tmp_path, "test"), images[::-1], labels[::-1])


# Faults.


def test_a_cut_file_is_named(tmp_path):
    folder = tmp_path / "cifar-10-batches-bin"
    make_cifar10_bin(folder, cifar10_files())
    path = folder / "data_batch_3.bin"
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(ValueError, match=r"data_batch_3\.bin: .*is cut"):
        open_source("cifar10", tmp_path, "train")
    open_source("cifar10", tmp_path, "test")
    path.unlink()
    with pytest.raises(FileNotFoundError, match=r"data_batch_3\.bin is missing"):
        open_source("cifar10", tmp_path, "train")


def test_a_label_out_of_range_is_named(tmp_path):
    files = cifar10_files()
    files["test_batch"][1][3] = 10
    make_cifar10_py(tmp_path / "cifar-10-batches-py", files)
    with pytest.raises(ValueError, match=r"test_batch: 12 images .* to 10; .* of 10"):
        open_source("cifar10", tmp_path, "test")
    images, labels = draw(3, 10, side=96)
    make_stl10(tmp_path / "stl10_binary", images, labels[:2], "train")
    with pytest.raises(ValueError, match=r"train_X\.bin: 3 images with 2 labels"):
        open_source("stl10", tmp_path, "train")


class Evil:
    def __reduce__(self):
        return os.mkdir, ("made",)


@pytest.mark.parametrize("file", ["data_batch_1", "batches.meta"])
def test_a_pickle_that_would_run_code_is_refused(tmp_path, monkeypatch, file):
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "cifar-10-batches-py"
    make_cifar10_py(folder, cifar10_files())
    (folder / file).write_bytes(pickle.dumps({"labels": [], "data": Evil()}, 2))
    with pytest.raises(ValueError, match=rf"{file}: .*mkdir.*was not run"):
        open_source("cifar10", tmp_path, "train")
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "cannot be read"),
        (b"\x80\x02}q\x01(U\x04dat", "cannot be read"),
        (pickle.dumps([1, 2], 2), "a list, expected a dict"),
        (pickle.dumps({"labels": [0]}, 2), "holds labels; expected uint8 data"),
        (python2_pickle({"data": np.zeros((1, 3072), np.uint8)}), "holds data; exp"),
    ],
)
def test_a_damaged_pickle_is_named(tmp_path, data, message):
    folder = tmp_path / "cifar-10-batches-py"
    make_cifar10_py(folder, cifar10_files())
    (folder / "test_batch").write_bytes(data)
    with pytest.raises(ValueError, match=f"test_batch: {message}"):
        open_source("cifar10", tmp_path, "test")

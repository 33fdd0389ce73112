"""Packs hold the archive's records bit for bit."""

import functools
import itertools
import json
import struct

import numpy as np
import pytest

from rsclip_jax.data.codecs.records import decode_record, encode_record
from rsclip_jax.data.datasets import get_dataset, open_source
from rsclip_jax.data.pack.plan import make_plan
from rsclip_jax.data.pack.write import pack_source
from rsclip_jax.data.pipeline.augment import Augment
from rsclip_jax.data.pipeline.batches import train_batches
from rsclip_jax.data.sources.wrappers import TiledSource
from rsclip_jax.data.types import ReadOptions
from tests.helpers.pack_sources import Numbers, pack_numbers
from tests.helpers.packs import (
    assert_same_record,
    assert_same_source,
    make_archive,
    noise,
    open_numbers,
    pack_archive,
    save,
    shards_of,
    shas,
)

# The format.


def test_a_records_bytes_follow_the_docstring():
    record = Numbers(3)[1]
    data = encode_record(record)
    (length,) = struct.unpack("<I", data[:4])
    header = json.loads(data[4 : 4 + length])
    assert header["fields"] == {"id": "scene/1"}
    assert header["arrays"]["s2"] == ["<u2", [6, 6, 13]]
    offset = 4 + length
    for key, (dtype, shape) in header["arrays"].items():
        assert offset % 16 == 0
        count = int(np.prod(shape))
        values = np.frombuffer(data[offset:][: count * np.dtype(dtype).itemsize], dtype)
        np.testing.assert_array_equal(values.reshape(shape), record[key])
        offset += -(-values.nbytes // 16) * 16
    assert offset == len(data)


def test_byte_order_and_memory_layout_do_not_change_the_bytes():
    plain = np.arange(24, dtype="<u2").reshape(2, 3, 4)
    odd = np.asfortranarray(plain.astype(">u2"))
    assert encode_record({"s2": odd}) == encode_record({"s2": plain})
    fields = {"id": "å/1", "label": np.int64(3)}
    assert decode_record(encode_record(fields)) == {"id": "å/1", "label": 3}


# What a pack gives.


@pytest.mark.parametrize("layout", ["hash", "split folders", "pairs"])
def test_a_pack_equals_its_archive_in_every_split_and_part(tmp_path, layout):
    name, splits = make_archive(layout, tmp_path / "archive")
    out = tmp_path / "out"
    assert pack_archive(name, tmp_path / "archive", out, splits)
    parts = ("", "[:90%]", "[90%:]", "[:30%]", "[30%:60%]")
    compared = 0
    for split, part in itertools.product((*splits, "all"), parts):
        try:
            want = open_source(name, tmp_path / "archive", split + part)
        except FileNotFoundError:
            with pytest.raises(FileNotFoundError, match="no records in split"):
                open_source(name, out, split + part)
            continue
        assert_same_source(open_source(name, out, split + part), want)
        compared += 1
    assert compared > 2 * len(splits)


def test_arrays_and_listed_datasets_keep_their_splits(tmp_path):
    root, out = tmp_path / "archive", tmp_path / "out"
    arrays = root / "cifar-10-batches-bin"
    arrays.mkdir(parents=True)
    (arrays / "batches.meta.txt").write_text("\n".join(get_dataset("cifar10").classes))
    for i, name in enumerate((*(f"data_batch_{i}" for i in range(1, 6)), "test_batch")):
        rows = noise(i, 20, 3073)
        rows[:, 0] %= 10
        (arrays / f"{name}.bin").write_bytes(rows.tobytes())
    classes = get_dataset("resisc45").classes
    for c, i in itertools.product(classes, range(4)):
        save(root / "NWPU-RESISC45" / c / f"{c}_{i}.png", noise(i, 5, 4, 3))
    for split, kept in (("train", (0, 3)), ("test", (1,))):
        lines = [f"{c}_{i}.jpg\n" for c in classes for i in kept]
        (root / f"resisc45-{split}.txt").write_text("".join(lines))
    for name in ("cifar10", "resisc45"):
        pack_archive(name, root, out, ("train",))
        for split in ("train", "train[:60%]", "train[60%:]"):
            want = open_source(name, root, split)
            assert_same_source(open_source(name, out, split), want)
    pack_archive("resisc45", root, out, ("test",))
    for split in ("train", "train[:60%]", "all"):
        assert open_source("resisc45", out, split).split_rule == "resisc45-*.txt"


def test_a_class_named_like_a_split_is_not_a_split_folder(tmp_path):
    root, out = tmp_path / "archive", tmp_path / "out"
    for name in get_dataset("cifar100").classes:
        for i in range(12 if name == "train" else 1):
            save(root / "cifar100" / name / f"{i}.png", noise(i, 32, 32, 3))
    pack_archive("cifar100", root, out, ("train",), shard_mb=1)
    for split in ("train[:50%]", "train[50%:]"):
        want = open_source("cifar100", root, split)
        assert open_source("cifar100", out, split).ids == want.ids
        assert any(id_.startswith("train/") for id_ in want.ids)


@pytest.mark.parametrize("compression", ["none", "zstd"])
def test_every_dtype_and_label_is_restored(tmp_path, compression):
    want = Numbers(50)
    pack_source(
        want,
        functools.partial(Numbers, 50),
        tmp_path / "numbers" / "train",
        half=None,
        provenance={},
        shard_mb=0.02,
        compression=compression,
    )
    assert len(shards_of(tmp_path)) > 3
    assert_same_source(open_numbers(tmp_path), want)


def test_tiles_are_cut_from_packed_scenes(tmp_path):
    pack_numbers(tmp_path, 10)
    found = TiledSource(open_numbers(tmp_path), 3)
    assert_same_source(found, TiledSource(Numbers(10), 3))


@pytest.mark.parametrize("threads", [1, 3])
def test_batches_equal_the_archives_bit_for_bit(tmp_path, threads):
    pack_numbers(tmp_path, 40, side=12)

    def batches(source, threads):
        augment = Augment((0.3, 1.0), flip_ud=True, rotate=True, jitter=0.4)
        stream = train_batches(
            [source],
            sizes={"rgb": 8, "s2": 12, "s1": 6},
            augment=augment,
            seed=5,
            options=ReadOptions(16, threads),
        )
        return list(itertools.islice(stream, 6))

    want = batches(Numbers(40, side=12), 1)
    found = batches(open_numbers(tmp_path), threads)
    for a, b in zip(found, want, strict=True):
        assert_same_record(a, b)


def test_the_manifest_describes_the_pack(tmp_path):
    pack_numbers(tmp_path, 30)
    folder = tmp_path / "numbers" / "train"
    manifest = json.loads((folder / "manifest.json").read_text())
    assert [s["file"] for s in manifest["shards"]] == [
        p.name for p in shards_of(tmp_path)
    ]
    assert [s["sha256"] for s in manifest["shards"]] == shas(tmp_path)
    assert sum(s["records"] for s in manifest["shards"]) == manifest["records"] == 30
    assert manifest["sensors"]["s1"] == {
        "sensor": "s1_grd",
        "bands": ["VV", "VH"],
        "dtype": "float32",
        "unit": "dB",
    }
    assert manifest["provenance"] == {"source": "made"}
    assert manifest["classnames"] == ["an a", "a b", "a c"]
    assert (folder / "ids.txt").read_text().split() == Numbers(30).ids
    assert not (folder / "skipped.txt").exists()


def test_the_bytes_do_not_depend_on_the_number_of_processes(tmp_path):
    pack_numbers(tmp_path / "one", 60, workers=1)
    pack_numbers(tmp_path / "two", 60, workers=2, delay=0.001)
    assert len(shas(tmp_path / "one")) > 2
    assert shas(tmp_path / "one") == shas(tmp_path / "two")


def test_zstd_is_used_if_all_images_are_8_bit(tmp_path):
    root, settings = tmp_path, {"shard_mb": 1, "on_error": "raise"}
    name, _ = make_archive("hash", root)
    auto = functools.partial(make_plan, compression="auto", **settings)
    assert auto(open_source(name, root)).compression == "zstd"
    assert auto(Numbers(5)).compression == "none"

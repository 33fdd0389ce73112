"""Reading packs: damaged packs, and packs of other data."""

import functools
import json
import random

import pytest
from array_record.python.array_record_module import ArrayRecordWriter

from rsclip_jax.data.codecs.records import encode_record
from rsclip_jax.data.datasets import get_dataset, open_source
from rsclip_jax.data.pack.files import as_text, describe
from rsclip_jax.data.sources.packed import open_packed
from rsclip_jax.data.types import OpenOptions
from rsclip_jax.io.files import write_json, write_text
from tests.helpers.pack_sources import ROW, Numbers, pack_numbers
from tests.helpers.packs import (
    assert_same_record,
    make_archive,
    open_numbers,
    pack_archive,
    shards_of,
    shas,
)


def test_the_error_for_a_flipped_byte_names_shard_and_record(tmp_path):
    pack_numbers(tmp_path, 60)
    path, want = shards_of(tmp_path)[1], Numbers(60)
    good, before = path.read_bytes(), shas(tmp_path)
    record = open_numbers(tmp_path)._shards[0]["records"] + 2
    at = good.find(want[record]["s2"].tobytes())
    assert at > 0
    bad = bytearray(good)
    bad[at + 50] ^= 4
    path.write_bytes(bad)
    source = open_numbers(tmp_path)
    with pytest.raises(ValueError, match=rf"{path}: record 2 \(scene/{record}\) is"):
        source[record]
    assert_same_record(source[record + 1], want[record + 1])
    path.unlink()
    with pytest.raises(FileNotFoundError, match=rf"{path} is missing; run configs/pa"):
        open_numbers(tmp_path)
    assert pack_numbers(tmp_path, 60)
    assert shas(tmp_path) == before


def test_no_flipped_byte_changes_a_record(tmp_path):
    pack_numbers(tmp_path, 12, shard_mb=10)
    (path,) = shards_of(tmp_path)
    good, rng, found = path.read_bytes(), random.Random(0), 0
    want = [encode_record(Numbers(12)[i]) for i in range(12)]
    end = good.rstrip(b"\0")
    for _ in range(60):
        bad = bytearray(good)
        bad[rng.randrange(len(end))] ^= 1 << rng.randrange(8)
        path.write_bytes(bad)
        source = open_numbers(tmp_path)
        for i in range(12):
            try:
                record = source[i]
            except ValueError as error:
                found += f"{path}: record {i} (scene/{i}) is damaged" in str(error)
            else:
                assert encode_record(record) == want[i]
    assert found > 20


class Reading:
    """A shard's reader that counts the bytes of the entries that it gives."""

    def __init__(self, reader):
        self.reader, self.sizes = reader, []

    def read(self, indices):
        found = self.reader.read(indices)
        self.sizes += map(len, found)
        return found


@pytest.mark.parametrize(
    "keys", [("rgb",), ("s1",), ("s1", "rgb"), ("rgb", "s2", "s1"), ()]
)
def test_only_the_sensors_that_are_asked_for_are_read(tmp_path, keys):
    pack_numbers(tmp_path, 10)
    source, want = open_numbers(tmp_path), Numbers(10)
    source._reader = functools.cache(
        lambda shard, open_=source._open_shard: Reading(open_(shard))
    )
    for index in (7, 0, -1):
        record = source.read(index, keys)
        assert set(record) == {"id", "label", *keys}
        made = want[index % 10]
        assert_same_record(record, {key: made[key] for key in record})
    sizes = source._reader(0).sizes
    nbytes = {key: want[0][key].nbytes for key in keys}
    assert len(sizes) == 3 * len(keys)
    for got, held in zip(sorted(sizes), sorted([*nbytes.values()] * 3), strict=True):
        assert held < got < held + 256


def pack_as_before(source, folder):
    """A pack of the first format: one entry a record, no files beside."""
    folder.mkdir(parents=True)
    path = folder / "part-00000-of-00001.array_record"
    writer = ArrayRecordWriter(str(path), "group_size:1,uncompressed")
    for i in range(len(source)):
        writer.write(encode_record(source[i]))
    writer.close()
    write_text(folder / "ids.txt", as_text(source.ids))
    shard = {"file": path.name, "records": len(source), "bytes": path.stat().st_size}
    manifest = describe(source, source.ids, None, {})
    manifest |= {"format": "rsclip_jax packed 1", "shards": [shard]}
    write_json(folder / "manifest.json", manifest, sort_keys=False)


def test_a_pack_of_the_first_format_is_read(tmp_path):
    want = Numbers(5)
    pack_as_before(want, tmp_path / "numbers" / "train")
    source = open_numbers(tmp_path)
    for i in range(5):
        assert_same_record(source[i], want[i])
        assert_same_record(source.read(i, ("rgb",)), want[i])
        assert (source.read(i, ())["label"] == want[i]["label"]).all()


def test_a_cut_shard_and_other_ids_are_refused(tmp_path):
    pack_numbers(tmp_path, 60)
    path = shards_of(tmp_path)[2]
    whole = path.read_bytes()
    path.write_bytes(whole[:-100])
    with pytest.raises(ValueError, match=rf"{path}: [\d,]+ bytes, but [\d,]+ were"):
        open_numbers(tmp_path)
    path.write_bytes(whole)
    ids = path.parent / "ids.txt"
    ids.write_text(ids.read_text().replace("scene/3\n", ""))
    with pytest.raises(ValueError, match=r"ids\.txt: 59 ids, not the 60 that were"):
        open_numbers(tmp_path)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("sensors", "s1", "bands"), r"\['VH', 'VV'\].* expects .*\['VV', 'VH'\]"),
        (("classes",), r"packed with classes \['c', 'b', 'a'\], but .*\['a', 'b', 'c'"),
    ],
)
def test_a_pack_with_other_bands_or_classes_is_refused(tmp_path, change, words):
    pack_numbers(tmp_path, 10)
    path = tmp_path / "numbers" / "train" / "manifest.json"
    manifest = json.loads(path.read_text())
    inner = functools.reduce(lambda d, k: d[k], change[:-1], manifest)
    inner[change[-1]].reverse()
    path.write_text(json.dumps(manifest))
    with pytest.raises(ValueError, match=words):
        open_numbers(tmp_path)


@pytest.mark.parametrize(("packed", "now"), [(0.0, 0.2), (0.2, 0.0), (0.1, 0.2)])
def test_a_pack_with_another_max_nodata_is_refused(tmp_path, packed, now):
    pack_numbers(tmp_path, 10, max_nodata=packed)
    words = (
        rf"max_nodata {packed:g}, .* max_nodata = {now:g} now; set it to {packed:g},"
    )
    with pytest.raises(ValueError, match=words):
        open_packed(ROW, tmp_path, "train", OpenOptions(max_nodata=now))
    options = OpenOptions(max_nodata=packed)
    assert len(open_packed(ROW, tmp_path, "train", options)) == 10


def test_max_nodata_does_not_matter_for_8_bit_images(tmp_path):
    name, splits = make_archive("split folders", tmp_path / "archive")
    pack_archive(name, tmp_path / "archive", tmp_path, splits)
    assert len(open_source(name, tmp_path, "val", max_nodata=0.3)) == 80


def test_a_split_that_is_not_packed_is_named(tmp_path):
    pack_numbers(tmp_path, 10)
    with pytest.raises(FileNotFoundError, match=r"'test' is not packed; train are"):
        open_numbers(tmp_path, "test")
    words = r"'train\[:50%\]' cannot be read.* did not make .* pack it again"
    with pytest.raises(ValueError, match=words):
        open_numbers(tmp_path, "train[:50%]")
    assert open_packed(ROW, "", "train") is None
    assert open_packed(get_dataset("resisc45"), tmp_path, "train") is None

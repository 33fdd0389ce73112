"""Reading packs: damaged packs, and packs of other data."""

import functools
import json
import random

import pytest

from rsclip_jax.data.codecs.records import encode_record
from rsclip_jax.data.datasets import get_dataset, open_source
from rsclip_jax.data.sources.packed import open_packed
from rsclip_jax.data.types import OpenOptions
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

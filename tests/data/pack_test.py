"""Packs: what the archive gives, to the bit; kills, faults and full disks."""

import contextlib
import dataclasses
import fcntl
import functools
import hashlib
import itertools
import json
import os
import random
import re
import signal
import struct
import subprocess
import sys
import time

import numpy as np
import pytest
from PIL import Image

from rsclip_jax.data.classes import STL10_NAMES
from rsclip_jax.data.datasets import get_dataset, open_source
from rsclip_jax.data.pack import make_plan, pack_source, write_all
from rsclip_jax.data.pipeline import train_batches
from rsclip_jax.data.readers import packed
from rsclip_jax.data.readers.packed import decode_record, encode_record, open_packed
from rsclip_jax.data.sources import split_digest
from rsclip_jax.data.transforms import Augment
from rsclip_jax.data.views import TiledSource
from tests.conftest import REPO
from tests.data.pack_sources import ROW, Numbers, pack_numbers


def assert_same_record(found, want):
    assert list(found) == list(want)
    for key, value in want.items():
        if isinstance(value, np.ndarray):
            assert found[key].dtype == value.dtype
            np.testing.assert_array_equal(found[key], value)
        else:
            assert found[key] == value


def assert_same_source(found, want):
    assert found.dataset == want.dataset
    assert found.split == want.split
    assert found.ids == want.ids
    assert len(found) == len(want) == len(want.ids)
    assert split_digest(found) == split_digest(want)
    assert getattr(found, "split_rule", "") == getattr(want, "split_rule", "")
    for i in range(len(want)):
        assert_same_record(found[i], want[i])


def open_numbers(folder, split="train"):
    return open_packed(ROW, folder, split)


def shards_of(folder):
    return sorted((folder / "numbers" / "train").glob("*.array_record"))


def shas(folder):
    return [hashlib.sha256(p.read_bytes()).hexdigest() for p in shards_of(folder)]


def pack_archive(name, root, out, splits=("train", "val", "test"), **options):
    """What stage pack does, for the archive in root."""

    def opener(split):
        return functools.partial(open_source, name, root, split, packed=False)

    def half(split):
        try:
            return opener(f"{split}[:50%]")().ids
        except ValueError:
            return None

    for split in splits:
        pack_source(
            opener(split)(),
            opener(split),
            out / name / split,
            half=half(split),
            provenance={},
            **{"shard_mb": 0.002, **options},
        )
    return write_all(opener("all")(), half("all"), out / name)


def save(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)


def noise(seed, *shape):
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def make_archive(layout, root):
    """An archive without split folders, with them, or of pairs; its dataset's name."""
    if layout == "pairs":
        for split, i in itertools.product(("train", "val"), range(12)):
            folder = root / "sentinel_pairs" / split
            save(folder / "s2_rgb" / f"{i}.png", noise(i, 8, 8, 3))
            save(folder / "s1_vh" / f"{i}.png", noise(100 + i, 8, 8))
        return "sentinel_pairs", ("train", "val")
    tops = ("train", "val") if layout == "split folders" else ("",)
    for top, name, i in itertools.product(tops, STL10_NAMES, range(8)):
        save(root / "STL-10" / top / name / f"{i}.png", noise(i, 5, 4, 3))
    return "stl10", tops if tops[0] else ("train", "val", "test")


# The format.


def test_a_record_s_bytes_are_what_the_docstring_says():
    record = Numbers(3)[1]
    data = encode_record(record)
    (length,) = struct.unpack("<I", data[:4])
    header = json.loads(data[4 : 4 + length])
    assert header["fields"] == {"id": "scene/1"}
    assert header["arrays"]["s2"] == ["<u2", [6, 6, 13]]
    place = 4 + length
    for key, (dtype, shape) in header["arrays"].items():
        assert place % 16 == 0
        count = int(np.prod(shape))
        values = np.frombuffer(data[place:][: count * np.dtype(dtype).itemsize], dtype)
        np.testing.assert_array_equal(values.reshape(shape), record[key])
        place += -(-values.nbytes // 16) * 16
    assert place == len(data)


def test_any_order_of_bytes_and_memory_is_written_the_same():
    plain = np.arange(24, dtype="<u2").reshape(2, 3, 4)
    odd = np.asfortranarray(plain.astype(">u2"))
    assert encode_record({"s2": odd}) == encode_record({"s2": plain})
    fields = {"id": "å/1", "label": np.int64(3)}
    assert decode_record(encode_record(fields)) == {"id": "å/1", "label": 3}


# What a pack gives.


@pytest.mark.parametrize("layout", ["hash", "split folders", "pairs"])
def test_a_pack_is_its_archive_in_every_split_and_part(tmp_path, layout):
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


def test_arrays_and_listed_sets_are_packed_by_their_own_splits(tmp_path):
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


def test_a_class_that_is_called_as_a_split_is_no_split_folder(tmp_path):
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
def test_every_dtype_and_label_comes_back(tmp_path, compression):
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
def test_batches_are_the_archive_s_to_the_bit(tmp_path, threads):
    pack_numbers(tmp_path, 40, side=12)

    def batches(source, threads):
        augment = Augment((0.3, 1.0), flip_ud=True, rotate=True, jitter=0.4)
        stream = train_batches(
            [source],
            sizes={"rgb": 8, "s2": 12, "s1": 6},
            batch_size=16,
            augment=augment,
            seed=5,
            threads=threads,
        )
        return list(itertools.islice(stream, 6))

    want = batches(Numbers(40, side=12), 1)
    found = batches(open_numbers(tmp_path), threads)
    for a, b in zip(found, want, strict=True):
        assert_same_record(a, b)


def test_the_manifest_says_what_is_there(tmp_path):
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


def test_the_bytes_depend_on_no_process(tmp_path):
    pack_numbers(tmp_path / "one", 60, workers=1)
    pack_numbers(tmp_path / "two", 60, workers=2, delay=0.001)
    assert len(shas(tmp_path / "one")) > 2
    assert shas(tmp_path / "one") == shas(tmp_path / "two")


def test_zstd_is_taken_where_all_images_are_8_bit(tmp_path):
    root, settings = tmp_path, {"shard_mb": 1, "on_error": "raise"}
    name, _ = make_archive("hash", root)
    auto = functools.partial(make_plan, compression="auto", **settings)
    assert auto(open_source(name, root)).compression == "zstd"
    assert auto(Numbers(5)).compression == "none"


# Kills.


def start(folder, n, **options):
    arguments = json.dumps({"folder": str(folder), "n": n, **options})
    return subprocess.Popen(
        [sys.executable, "-m", "tests.data.pack_sources", arguments],
        cwd=REPO,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def wait_for_all(process):
    """Until no process of the killed one's group is there; it had workers."""
    process.wait()
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        try:
            os.killpg(process.pid, 0)
        except ProcessLookupError:
            process.communicate()
            return
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    raise AssertionError("the workers of a killed run live on")


def wait_for_writing(process, folder, started):
    """Until the run has written something, or is over."""
    while process.poll() is None:
        # a file can go between its listing and our look
        with contextlib.suppress(FileNotFoundError):
            if any(p.stat().st_mtime > started for p in folder.rglob("*.array_*")):
                return
        time.sleep(0.01)


def test_kills_at_any_moment_lose_and_double_nothing(tmp_path):
    n, cut, rng = 240, tmp_path / "cut", random.Random(0)
    pack_numbers(tmp_path / "whole", n, shard_mb=0.006)
    kept = []
    for kill in range(6):
        started = time.time()
        process = start(cut, n, delay=0.02, shard_mb=0.006)
        if kill > 1:  # the first two: at any moment, starting included
            wait_for_writing(process, cut, started)
        time.sleep(rng.uniform(0.1, 0.8))
        process.send_signal(signal.SIGKILL)
        wait_for_all(process)
        kept.append({p.name: p.stat().st_mtime_ns for p in cut.rglob("*.array_record")})
    counts = [len(shards) for shards in kept]
    assert 0 < counts[3] < len(shas(tmp_path / "whole"))  # it came in the middle
    process = start(cut, n, shard_mb=0.006)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    times = {p.name: p.stat().st_mtime_ns for p in shards_of(cut)}
    # All but the shards in hand when it was killed, one a worker, are as they were.
    assert sum(times[name] != kept[-1][name] for name in kept[-1]) <= 2
    assert shas(cut) == shas(tmp_path / "whole")
    assert_same_source(open_numbers(cut), Numbers(n))
    assert not list(cut.rglob("*.tmp"))


def test_whole_shards_are_kept_and_cut_ones_made_anew(tmp_path):
    pack_numbers(tmp_path, 60)
    want, paths = shas(tmp_path), shards_of(tmp_path)
    folder = paths[0].parent
    assert not pack_numbers(tmp_path, 60)  # done before
    before = [p.stat().st_mtime_ns for p in paths]
    (folder / "manifest.json").unlink()
    progress = folder / "progress.jsonl"
    # what kills leave: a cut line, a shard that no line notes, half a shard, a rest
    lines = progress.read_text().splitlines(keepends=True)
    noted = {json.loads(x)["file"]: x for x in lines[1:]}
    ours = [noted[paths[0].name], noted[paths[1].name], noted[paths[2].name][:20]]
    progress.write_text(lines[0] + "".join(ours))
    paths[1].write_bytes(paths[1].read_bytes()[:-5])
    (folder / f"{paths[3].name}.tmp").write_bytes(b"half")
    assert pack_numbers(tmp_path, 60)
    after = [p.stat().st_mtime_ns for p in paths]
    assert after[0] == before[0]
    assert all(a > b for a, b in zip(after[1:], before[1:], strict=True))
    assert shas(tmp_path) == want
    assert not list(folder.glob("*.tmp"))


def test_a_worker_that_dies_ends_the_run(tmp_path):
    with pytest.raises(ValueError, match="a packing process died"):
        pack_numbers(tmp_path, 60, deadly=55, delay=0.002)
    assert not list(tmp_path.rglob("*.tmp"))
    assert not list(tmp_path.rglob("manifest.json"))
    kept = shas(tmp_path)
    assert kept
    assert pack_numbers(tmp_path, 60)
    assert shas(tmp_path)[: len(kept)] == kept
    assert_same_source(open_numbers(tmp_path), Numbers(60))


def test_an_error_stops_the_other_workers(tmp_path):
    started = time.monotonic()
    with pytest.raises(ValueError, match=r"scene/3\.tif: cut"):
        pack_numbers(tmp_path, 128, shard_mb=9, broken=(3,), delay=0.3)
    assert time.monotonic() - started < 12  # the other shard would take 19 s
    assert not list(tmp_path.rglob("*.tmp"))


def pack_as(folder, source, opened_again):
    """Packs a source that its workers open as another."""
    told = {"half": None, "provenance": {}}
    pack_source(source, opened_again, folder / "train", **told)


def test_an_archive_that_changes_meanwhile_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"numbers:train: 21 records now, and not the"):
        pack_as(tmp_path, Numbers(20), functools.partial(Numbers, 21))


def test_two_runs_do_not_pack_into_one_folder(tmp_path):
    folder = tmp_path / "numbers" / "train"
    folder.mkdir(parents=True)
    with open(folder / ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(ValueError, match="another process packs into it"):
            pack_numbers(tmp_path, 10)
    assert pack_numbers(tmp_path, 10)


def test_another_archive_or_setting_does_not_continue_a_pack(tmp_path):
    pack_numbers(tmp_path, 60)
    words = r"records 60, now 61.*: changed is the archive \(its"
    with pytest.raises(ValueError, match=words):
        pack_numbers(tmp_path, 61)
    words = r"begun with shards \d+, now 1: changed is --config\.pack\.shard_mb or"
    with pytest.raises(ValueError, match=words):
        pack_numbers(tmp_path, 60, shard_mb=1)
    words = r"with max_nodata 0\.0, now 0\.1: changed is --config\.data\.max_nodata;"
    with pytest.raises(ValueError, match=words):
        pack_numbers(tmp_path, 60, max_nodata=0.1)


# Bad input, full disks.


def test_an_unreadable_record_ends_the_run_or_is_listed(tmp_path):
    broken = (0, 7, 41)
    with pytest.raises(ValueError, match=r"scene/0\.tif: cut"):  # the first one read
        pack_numbers(tmp_path, 60, broken=broken)
    with pytest.raises(ValueError, match=r"scene/41\.tif: cut"):
        pack_numbers(tmp_path / "other", 60, broken=(41,))
    assert not list(tmp_path.rglob("*.tmp"))
    assert not list(tmp_path.rglob("manifest.json"))
    pack_numbers(tmp_path, 60, broken=broken, on_error="skip")
    folder = tmp_path / "numbers" / "train"
    assert (folder / "skipped.txt").read_text().splitlines() == [
        f"scene/{i}\tscene/{i}.tif: cut short" for i in broken
    ]
    manifest = json.loads((folder / "manifest.json").read_text())
    assert (manifest["skipped"], manifest["records"]) == (3, 57)
    source, whole = open_numbers(tmp_path), Numbers(60)
    left = [i for i in range(60) if i not in broken]
    assert source.ids == [whole.ids[i] for i in left]
    for place, i in enumerate(left):
        assert_same_record(source[place], whole[i])


@pytest.mark.parametrize("old", [False, True])
def test_labels_are_told_without_the_records(tmp_path, monkeypatch, old):
    broken = (0, 7, 41)
    pack_numbers(tmp_path, 60, broken=broken, on_error="skip")
    path = tmp_path / "numbers" / "train" / "manifest.json"
    if old:  # a pack of before there was such a file
        manifest = json.loads(path.read_text())
        del manifest["files"]
        path.write_text(json.dumps(manifest))
    else:
        monkeypatch.setattr(packed, "decode_record", None)
    whole, found = Numbers(60), open_numbers(tmp_path)
    for place, i in enumerate(i for i in range(60) if i not in broken):
        record, want = found.read(place, ()), whole[i]
        assert record["id"] == want["id"]
        assert record["label"].dtype == want["label"].dtype
        np.testing.assert_array_equal(record["label"], want["label"])
        assert ("s2" in record) == old


def test_a_set_without_a_readable_record_is_no_pack(tmp_path):
    with pytest.raises(ValueError, match=r"no record of numbers:train is readable"):
        pack_numbers(tmp_path, 5, broken=range(5), on_error="skip")


def test_an_id_that_is_there_twice_is_named(tmp_path):
    source = Numbers(8)
    source.ids[5] = source.ids[2]
    with pytest.raises(ValueError, match=r"the id 'scene/2' is there twice; rename"):
        pack_source(source, Numbers, tmp_path / "train", half=None, provenance={})


class Linear(Numbers):
    """Radar in linear power, which the sensor's row does not allow."""

    def __getitem__(self, index):
        record = super().__getitem__(index)
        return {**record, "s1": 10 ** (record["s1"] / 10)}


def test_what_a_sensor_does_not_allow_is_not_packed(tmp_path):
    with pytest.raises(ValueError, match=r"scene/0 \(s1\): no s1_grd value is below 0"):
        pack_as(tmp_path, Linear(8), functools.partial(Linear, 8))


def test_a_full_disk_names_the_file_and_the_space(tmp_path):
    # A shard of 1.4 MB under a limit of 0.8; the error comes as it does from a disk.
    process = start(tmp_path, 40, side=32, shard_mb=0.7, file_limit=800_000)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    last = errors.strip().splitlines()[-1]
    assert re.search(r"part-00000-of-0000\d\.array_record", last), last
    assert re.search(r"needs up to 0\.00\d+ GB in all, and [\d.e+]+ GB are free", last)
    assert not list(tmp_path.rglob("*.tmp"))
    assert not list(tmp_path.rglob("*.array_record"))
    assert pack_numbers(tmp_path, 40, side=32, shard_mb=0.7)
    assert_same_source(open_numbers(tmp_path), Numbers(40, side=32))


def test_memory_is_flat_in_the_number_of_records(tmp_path):
    def peak(n):
        folder = tmp_path / str(n)
        process = start(folder, n, side=120, shard_mb=1000, workers=1)
        out, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors
        assert len(shards_of(folder)) == min(8, max(1, n // 64))
        size = sum(p.stat().st_size for p in shards_of(folder))
        return int(out) * 1024, size

    (small, small_size), (large, large_size) = peak(60), peak(240)
    assert large_size - small_size > 90e6
    assert large - small < 20e6


# Damage.


def test_a_flipped_byte_names_shard_and_record(tmp_path):
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
def test_a_pack_of_other_bands_or_classes_is_refused(tmp_path, change, words):
    pack_numbers(tmp_path, 10)
    path = tmp_path / "numbers" / "train" / "manifest.json"
    manifest = json.loads(path.read_text())
    inner = functools.reduce(lambda d, k: d[k], change[:-1], manifest)
    inner[change[-1]].reverse()
    path.write_text(json.dumps(manifest))
    with pytest.raises(ValueError, match=words):
        open_numbers(tmp_path)


@pytest.mark.parametrize(("packed", "now"), [(0.0, 0.2), (0.2, 0.0), (0.1, 0.2)])
def test_a_pack_of_another_max_nodata_is_refused(tmp_path, packed, now):
    pack_numbers(tmp_path, 10, max_nodata=packed)
    row = dataclasses.replace(ROW, max_nodata=now)
    words = rf"max_nodata {packed:g}, .*\) is {now:g}; set it to {packed:g}, or"
    with pytest.raises(ValueError, match=words):
        open_packed(row, tmp_path, "train")
    row = dataclasses.replace(ROW, max_nodata=packed)
    assert len(open_packed(row, tmp_path, "train")) == 10


def test_max_nodata_is_nothing_to_8_bit_images(tmp_path):
    name, splits = make_archive("split folders", tmp_path / "archive")
    pack_archive(name, tmp_path / "archive", tmp_path, splits)
    assert len(open_source(name, tmp_path, "val", max_nodata=0.3)) == 80


def test_a_split_that_is_not_packed_is_named(tmp_path):
    pack_numbers(tmp_path, 10)
    with pytest.raises(FileNotFoundError, match=r"'test' is not packed .*train are"):
        open_numbers(tmp_path, "test")
    words = r"'train\[:50%\]' cannot be read, as no hash .* pack it again"
    with pytest.raises(ValueError, match=words):
        open_numbers(tmp_path, "train[:50%]")
    assert open_packed(ROW, "", "train") is None
    assert open_packed(get_dataset("resisc45"), tmp_path, "train") is None

"""Packing that is killed, changed or cannot write ends in a whole pack or an error."""

import contextlib
import fcntl
import functools
import json
import os
import random
import re
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from rsclip_jax.data.pack.write import pack_source
from rsclip_jax.data.sources import packed
from tests.conftest import REPO
from tests.helpers.pack_sources import Numbers, pack_numbers
from tests.helpers.packs import (
    assert_same_record,
    assert_same_source,
    open_numbers,
    shards_of,
    shas,
)


def start(folder, n, **options):
    arguments = json.dumps({"folder": str(folder), "n": n, **options})
    return subprocess.Popen(
        [sys.executable, "-m", "tests.helpers.pack_sources", arguments],
        cwd=REPO,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def wait_for_all(process):
    """Waits until the killed run's workers have ended."""
    process.wait()
    deadline = time.monotonic() + 120
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
    """Waits until the run has written something or has ended."""
    while process.poll() is None:
        # a file can go between its listing and our look
        with contextlib.suppress(FileNotFoundError):
            if any(p.stat().st_mtime > started for p in folder.rglob("*.array_*")):
                return
        time.sleep(0.01)


@pytest.mark.slow
def test_kills_at_any_moment_neither_lose_nor_repeat_records(tmp_path):
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
    _, errors = process.communicate(timeout=240)
    assert process.returncode == 0, errors
    times = {p.name: p.stat().st_mtime_ns for p in shards_of(cut)}
    # All but the shards in hand when it was killed, one a worker, are as they were.
    assert sum(times[name] != kept[-1][name] for name in kept[-1]) <= 2
    assert shas(cut) == shas(tmp_path / "whole")
    assert_same_source(open_numbers(cut), Numbers(n))
    assert not list(cut.rglob("*.tmp"))


def test_whole_shards_are_kept_and_cut_ones_rewritten(tmp_path):
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
    """Packs a source; the workers open another one."""
    told = {"half": None, "provenance": {}}
    pack_source(source, opened_again, folder / "train", **told)


def test_an_archive_that_changes_during_packing_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"numbers:train: 21 records now, 20 when"):
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
    words = r"records 60, now 61.*: the archive \(its .* changed"
    with pytest.raises(ValueError, match=words):
        pack_numbers(tmp_path, 61)
    words = r"begun with shards \d+, now 1: shard_mb, or the size .* changed"
    with pytest.raises(ValueError, match=words):
        pack_numbers(tmp_path, 60, shard_mb=1)
    words = r"with max_nodata 0\.0, now 0\.1: max_nodata changed;"
    with pytest.raises(ValueError, match=words):
        pack_numbers(tmp_path, 60, max_nodata=0.1)


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
    for index, i in enumerate(left):
        assert_same_record(source[index], whole[i])


@pytest.mark.parametrize("old", [False, True])
def test_labels_are_read_without_the_records(tmp_path, monkeypatch, old):
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
    for index, i in enumerate(i for i in range(60) if i not in broken):
        record, want = found.read(index, ()), whole[i]
        assert record["id"] == want["id"]
        assert record["label"].dtype == want["label"].dtype
        np.testing.assert_array_equal(record["label"], want["label"])
        assert ("rgb" in record) == old


def test_a_dataset_without_a_readable_record_is_not_packed(tmp_path):
    with pytest.raises(ValueError, match=r"no record of numbers:train is readable"):
        pack_numbers(tmp_path, 5, broken=range(5), on_error="skip")


def test_a_repeated_id_is_named(tmp_path):
    source = Numbers(8)
    source.ids[5] = source.ids[2]
    with pytest.raises(ValueError, match=r"the id 'scene/2' occurs twice; rename"):
        pack_source(source, Numbers, tmp_path / "train", half=None, provenance={})


class Linear(Numbers):
    """Radar in linear power, which the sensor does not allow."""

    def __getitem__(self, index):
        record = super().__getitem__(index)
        return {**record, "s1": 10 ** (record["s1"] / 10)}


def test_invalid_values_are_not_packed(tmp_path):
    with pytest.raises(ValueError, match=r"scene/0 \(s1\): .* looks like linear power"):
        pack_as(tmp_path, Linear(8), functools.partial(Linear, 8))


def test_the_error_for_a_full_disk_names_the_file_and_the_space(tmp_path):
    # A shard of 1.4 MB under a limit of 0.8; the error comes as it does from a disk.
    process = start(tmp_path, 40, side=32, shard_mb=0.7, file_limit=800_000)
    _, errors = process.communicate(timeout=240)
    assert process.returncode == 1
    last = errors.strip().splitlines()[-1]
    # both shards are too large, and either of the two workers may fail first
    assert re.search(r"part-0000[01]-of-00002\.array_record", last), last
    assert re.search(r"needs up to 0\.00\d+ GB in all, and [\d.e+]+ GB are free", last)
    assert not list(tmp_path.rglob("*.tmp"))
    assert not list(tmp_path.rglob("*.array_record"))
    assert pack_numbers(tmp_path, 40, side=32, shard_mb=0.7)
    assert_same_source(open_numbers(tmp_path), Numbers(40, side=32))


def test_memory_does_not_grow_with_the_number_of_records(tmp_path):
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

"""The lock of a workdir, with real processes; one that is killed holds nothing."""

import contextlib
import errno
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time

import pytest

from rsclip_jax.io import run_lock
from rsclip_jax.io.paths import as_path
from rsclip_jax.io.run_lock import Holder, Pace, WorkdirHeld, hold, read_holder
from tests.conftest import REPO
from tests.helpers.object_store import BUCKET, environment, serving

HOLD = """
import pathlib, sys, time
from rsclip_jax.io import run_lock
from rsclip_jax.io.paths import as_path
if sys.argv[2] == "beat":
    run_lock._flock = lambda file: False
pace = run_lock.Pace(0.1, 1.0, 0.1)
with run_lock.hold(pathlib.Path(sys.argv[1]), processes=2, pace=pace):
    print("held", flush=True)
    time.sleep(60)
"""
QUICK = Pace(beat=0.1, stale=1.0, settle=0.1)
KINDS = ("os", "beat")


@pytest.fixture(params=KINDS)
def kind(request, monkeypatch):
    """Locks of the operating system, and a file system that has none."""
    if request.param == "beat":
        monkeypatch.setattr(run_lock, "_flock", lambda file: False)
    return request.param


@contextlib.contextmanager
def another_run(workdir, kind):
    """Another process that holds a workdir."""
    command = [sys.executable, "-c", HOLD, str(workdir), kind]
    with subprocess.Popen(command, cwd=REPO, stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"held\n"
        yield process
        process.kill()


def contents(folder):
    return {p.name: p.read_bytes() for p in folder.iterdir() if p.name != "lock.json"}


def test_a_held_workdir_is_refused_by_name_and_left_as_it_is(tmp_path, kind):
    (tmp_path / "results.jsonl").write_text("{}\n")
    with another_run(tmp_path, kind) as process:
        before = contents(tmp_path)
        words = (
            rf"{re.escape(str(tmp_path))} is in use by another run: pid {process.pid}"
            r" on \S+ since \d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC, 2 processes \(-c .*\);"
            r" wait for it, or stop it there, or choose another --workdir"
        )
        with pytest.raises(WorkdirHeld, match=words), hold(tmp_path, pace=QUICK):
            pytest.fail("two hold it")
        assert contents(tmp_path) == before
        assert read_holder(tmp_path / "lock.json").pid == process.pid


def test_a_killed_holder_lets_go_at_once(tmp_path, kind):
    said = []
    with another_run(tmp_path, kind) as process:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        started = time.monotonic()
        with hold(tmp_path, log=said.append, pace=QUICK):
            assert time.monotonic() - started < 0.9  # not after it became stale
            assert read_holder(tmp_path / "lock.json").pid == os.getpid()
    (line,) = said
    assert f"the run that left it (pid {process.pid} on" in line
    assert list(tmp_path.iterdir()) == []


def test_a_released_workdir_is_free_and_has_no_lock(tmp_path, kind):
    for _ in range(2):
        with hold(tmp_path / "run", log=pytest.fail, pace=QUICK):
            assert (tmp_path / "run" / "lock.json").exists()
            (tmp_path / "run" / "a").touch()
        assert [p.name for p in (tmp_path / "run").iterdir()] == ["a"]


def test_a_workdir_that_stays_empty_is_removed(tmp_path):
    with pytest.raises(KeyError), hold(tmp_path / "run"):
        raise KeyError("within")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "content", [b"", b'{"pid": 12', b"\xff\xfe\x00", b"[]", b'{"pid": [1], "x": 2}']
)
def test_a_damaged_file_neither_holds_nor_hides_a_holder(tmp_path, content):
    path = tmp_path / "lock.json"
    path.write_bytes(content)
    with hold(tmp_path, log=lambda line: None):
        path.write_bytes(content)
        words = "in use by another run: pid "
        with pytest.raises(WorkdirHeld, match=words), hold(tmp_path):
            pytest.fail("two hold it")
        assert path.read_bytes() == content


def test_a_file_system_without_locks_is_noticed(monkeypatch, tmp_path):
    def refuse(file, flags):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(run_lock.fcntl, "flock", refuse)
    with hold(tmp_path, pace=QUICK):
        first = read_holder(tmp_path / "lock.json")
        time.sleep(0.4)
        assert read_holder(tmp_path / "lock.json").beat > first.beat


def test_a_heartbeat_of_another_host_that_has_stopped_is_taken_over(tmp_path, kind):
    earlier = Holder(1, "another-host", "2026-01-01 00:00:00 UTC", "train", 4, "t", 7)
    (tmp_path / "lock.json").write_text(json.dumps(vars(earlier)))
    said, started = [], time.monotonic()
    with hold(tmp_path, log=said.append, pace=QUICK):
        waited = time.monotonic() - started
    assert (waited > 1.0) == (kind == "beat")
    assert "pid 1 on another-host since 2026-01-01 00:00:00 UTC, 4 proc" in said[-1]


def test_a_heartbeat_of_another_host_that_goes_on_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(run_lock, "_flock", lambda file: False)
    path, stop = tmp_path / "lock.json", threading.Event()

    def live():
        beat = 0
        while not stop.wait(0.1):
            beat += 1
            run_lock._write(path, Holder(1, "another-host", "s", "c", 1, "t", beat))

    run_lock._write(path, Holder(1, "another-host", "s", "c", 1, "t"))
    thread = threading.Thread(target=live)
    thread.start()
    try:
        with (
            pytest.raises(WorkdirHeld, match="pid 1 on another-host since s"),
            hold(tmp_path, log=lambda line: None, pace=QUICK),
        ):
            pytest.fail("two hold it")
    finally:
        stop.set()
        thread.join()


def test_of_two_that_take_a_free_heartbeat_at_once_one_is_refused(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(run_lock, "_flock", lambda file: False)
    outcomes, barrier = [], threading.Barrier(2)

    def start():
        barrier.wait()
        try:
            with hold(tmp_path, log=lambda line: None, pace=Pace(0.1, 5.0, 0.5)):
                outcomes.append("held")
                for _ in range(1200):  # until the other has its answer
                    if len(outcomes) == 2:
                        break
                    time.sleep(0.1)
        except WorkdirHeld:
            outcomes.append("refused")

    threads = [threading.Thread(target=start) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["held", "refused"]


def test_a_run_that_was_taken_over_while_it_stood_still_ends(tmp_path):
    with another_run(tmp_path, "beat") as process:
        run_lock._write(tmp_path / "lock.json", Holder(7, "b", "now", "c", 1, "other"))
        assert process.wait(120) == 1
    assert read_holder(tmp_path / "lock.json").pid == 7


def test_a_store_has_a_heartbeat(tmp_path):
    with serving(tmp_path / "log") as variables, environment(variables):
        path = as_path(f"gs://{BUCKET}/run")
        with hold(path, log=pytest.fail, pace=QUICK):
            first = read_holder(path / "lock.json")
            assert first.pid == os.getpid()
            with (
                pytest.raises(WorkdirHeld, match=rf"gs://.* in use .*pid {first.pid}"),
                hold(path, log=lambda line: None, pace=QUICK),
            ):
                pytest.fail("two hold it")
            assert read_holder(path / "lock.json").token == first.token
        assert not path.exists()

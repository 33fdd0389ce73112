"""The watchdog's words; whole jobs that it ends are in tests/processes_test.py."""

import dataclasses
import os
import pathlib
import socket
import subprocess
import sys
import threading
import time

import pytest

from rsclip_jax.io.files import write_json
from rsclip_jax.train import watchdog
from rsclip_jax.train.watchdog import (
    Beat,
    Watchdog,
    describe,
    describe_peers,
    find_behind,
    read_beats,
)


def beat(process, step=0, what="training align", changed=100.0, **more):
    return Beat(process, os.getpid(), socket.gethostname(), what, step, changed, **more)


def test_those_with_the_fewest_steps_are_behind():
    beats = [beat(0, 6), beat(1, 5), beat(2, 6), beat(3, 5)]
    assert [b.process for b in find_behind(beats)] == [1, 3]
    text = describe(beats)
    assert text.startswith("behind: process 1 (host ")
    assert text.index("process 3") < text.index("ahead: process 0")


def test_with_different_work_the_first_to_stop_is_behind():
    beats = [beat(0, 6), beat(1, 40, "encoding x:val", changed=99.0)]
    assert [b.process for b in find_behind(beats)] == [1]


def test_nobody_is_behind_equals():
    beats = [beat(0, 6), beat(1, 6)]
    assert find_behind(beats) == []
    assert describe(beats).startswith("all are equally far: process 0 ")


def test_heartbeats_are_read_back_and_damaged_ones_left_out(tmp_path):
    for one in (beat(1, 3), beat(0, 4)):
        write_json(tmp_path / f"{one.process}.json", dataclasses.asdict(one))
    (tmp_path / "2.json").write_text('{"process": 2, "pi')
    assert read_beats(tmp_path) == [beat(0, 4), beat(1, 3)]


def test_only_a_process_of_this_host_can_be_known_to_be_gone():
    assert not beat(0).is_gone()
    nobody = 2**22 + 1  # above the largest pid of Linux
    assert Beat(0, nobody, socket.gethostname()).is_gone()
    assert not Beat(0, nobody, "another host").is_gone()


def ended(process, **more):
    """The heartbeat of a process of this host that is not there any more."""
    return Beat(process, 2**22 + process, socket.gethostname(), written=1.0, **more)


def test_who_left_for_another_is_not_the_missing_one(tmp_path):
    for one in (beat(0, written=1.0), ended(1, leaving=True), ended(2)):
        write_json(tmp_path / "processes" / f"{one.process}.json", vars(one))
    told = describe_peers(tmp_path)
    assert told.startswith("missing: process 2 (host ")
    assert "process 1" not in told
    dog = Watchdog(tmp_path / "processes", 1000)
    # each has been silent for longer than those that are gone may be
    dog._seen = {i: (1.0, time.monotonic() - 5 * dog.period) for i in range(3)}
    assert [one.process for one in dog._look()[1]] == [2]
    dog._stacks.close()


def test_a_killed_process_that_still_gives_its_memory_back_is_waited_for(tmp_path):
    """Its connections close first, and others ask before it is gone."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=-1) as peer:
        late = dataclasses.replace(beat(1), pid=peer.pid)
        for one in (beat(0), late):
            write_json(tmp_path / "processes" / f"{one.process}.json", vars(one))
        ends = threading.Timer(0.3, peer.kill)
        ends.start()
        assert describe_peers(tmp_path).startswith("missing: process 1 (host ")
        ends.join()


def test_one_process_alone_is_not_watched(tmp_path):
    with watchdog.watching(tmp_path, 1.0), watchdog.during("training"):
        watchdog.beat(1)
        assert not list(tmp_path.iterdir())


class Away(type(pathlib.Path())):  # type: ignore[misc]
    """A folder of a store that raises errors of its own kind when it is listed."""

    asked = 0

    def glob(self, pattern):
        Away.asked += 1
        raise RuntimeError("503")


def test_a_store_that_is_away_for_a_while_does_not_end_the_watch(tmp_path):
    """A watch that has ended would end the process, by the last alarm that it set."""
    dog = Watchdog(Away(tmp_path), 1000)
    dog.period, Away.asked = 0.01, 0
    dog._seen[1] = (1.0, 0.0)
    dog.start()
    try:
        until = time.monotonic() + 60
        while Away.asked < 3 and dog._thread.is_alive() and time.monotonic() < until:
            time.sleep(0.01)
        assert dog._thread.is_alive()
        assert Away.asked >= 3
        assert dog._seen == {}  # a peer is not silent because it was not heard
    finally:
        dog.stop()
        dog._stacks.close()
    assert describe([]) == "the heartbeats cannot be read"
    assert describe_peers(Away(tmp_path)) == ""


@pytest.mark.parametrize("minutes", [-1, float("nan")])
def test_minutes_below_none_are_refused_also_in_one_process(tmp_path, minutes):
    with pytest.raises(ValueError, match="minutes = "):
        watchdog.watching(tmp_path, minutes).__enter__()

import os
import signal
import subprocess
import sys
import threading

import pytest

from rsclip_jax.io.lock import locked, make_lock, make_open_lock
from tests.conftest import REPO

HOLD = """
import sys, time, pathlib
from rsclip_jax.io.lock import locked
with locked(pathlib.Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""

FORK = """
import os, sys, time, pathlib
from rsclip_jax.io.lock import make_open_lock
lock = make_open_lock(pathlib.Path(sys.argv[1]))
with lock:
    child = os.fork()
    if child:
        time.sleep(0.3)
        print("freed", flush=True)
if child:
    os.waitpid(child, 0)
else:
    with lock:
        print("held", flush=True)
"""


def test_another_process_waits_until_a_killed_one_has_let_go(tmp_path):
    path, waited = tmp_path / ".lock", []
    command = [sys.executable, "-c", HOLD, str(path)]
    with subprocess.Popen(command, cwd=REPO, stdout=subprocess.PIPE) as holder:
        assert holder.stdout.readline() == b"held\n"
        with (
            pytest.raises(BlockingIOError, match="lock is held by another process"),
            locked(path, wait=False),
        ):
            pytest.fail("two hold it")

        def kill():
            waited.append(True)
            os.kill(holder.pid, signal.SIGKILL)

        with locked(path, on_wait=kill):
            assert waited == [True]
    with locked(path, wait=False, on_wait=kill):  # free again: nobody waits
        pass


def test_threads_take_turns(tmp_path):
    path, file = tmp_path / ".lock", tmp_path / "count"
    file.write_text("0")

    def add():
        for _ in range(20):
            with locked(path):
                file.write_text(str(int(file.read_text()) + 1))

    threads = [threading.Thread(target=add) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert file.read_text() == "80"


@pytest.mark.parametrize("path", ["absent/.lock", "folder"])
def test_a_lock_that_cannot_be_made_raises_at_once(tmp_path, path):
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError, match=path), locked(tmp_path / path):
        pass


def test_an_error_within_frees_the_lock(tmp_path):
    with pytest.raises(KeyError), locked(tmp_path / ".lock"):
        raise KeyError("within")
    with locked(tmp_path / ".lock", wait=False):
        pass


def add_to(file, lock, times=200):
    for _ in range(times):
        with lock:
            file.write_text(str(int(file.read_text()) + 1))


def test_open_locks_exclude_each_other_and_the_others(tmp_path):
    path, file = tmp_path / ".lock", tmp_path / "count"
    file.write_text("0")
    with make_open_lock(path), pytest.raises(BlockingIOError), locked(path, wait=False):
        pass
    locks = [make_open_lock(path), make_open_lock(path), make_lock(path)]
    threads = [threading.Thread(target=add_to, args=(file, one)) for one in locks]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert file.read_text() == "600"


def test_a_forked_process_does_not_share_its_parent_s_open_lock(tmp_path):
    """In a process of its own: JAX's threads here are in the way of a fork."""
    command = [sys.executable, "-c", FORK, str(tmp_path / ".lock")]
    done = subprocess.run(
        command, cwd=REPO, capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.split() == ["freed", "held"]


def test_an_open_lock_s_file_is_closed_with_it(tmp_path):
    count = len(os.listdir("/proc/self/fd"))
    locks = [make_open_lock(tmp_path / f"{i}") for i in range(8)]
    assert len(os.listdir("/proc/self/fd")) == count + 8
    del locks
    assert len(os.listdir("/proc/self/fd")) == count

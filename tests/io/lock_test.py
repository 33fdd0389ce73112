import os
import signal
import subprocess
import sys
import threading

import pytest

from rsclip_jax.io.lock import locked
from tests.conftest import REPO

HOLD = """
import sys, time, pathlib
from rsclip_jax.io.lock import locked
with locked(pathlib.Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
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

"""Freed memory is kept, so that its pages are not cleared again for each step."""

import os
import subprocess
import sys

from rsclip_jax.train import host_memory
from tests.conftest import REPO

SCRIPT = """
import ctypes
import resource
import sys
from rsclip_jax.train import host_memory
host_memory._ACCELERATORS = ()
print(sys.argv[1] == "keep" and host_memory.keep_freed())
libc, size = ctypes.CDLL(None), 2**27
libc.malloc.restype = ctypes.c_void_p
def use():
    block = ctypes.c_void_p(libc.malloc(ctypes.c_size_t(size)))
    libc.memset(block, 1, ctypes.c_size_t(size))
    libc.free(block)
use()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5):
    use()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def run(how, **variables):
    env = {k: v for k, v in os.environ.items() if not k.startswith("MALLOC_")}
    out = subprocess.run(
        [sys.executable, "-c", SCRIPT, how],
        cwd=REPO, env={**env, **variables}, capture_output=True, text=True, check=True,
        timeout=280,
    ).stdout.split()  # fmt: skip
    return out[0] == "True", int(out[1])


def test_freed_blocks_are_used_again_without_new_pages():
    kept, faults = run("keep")
    assert kept
    _, usual = run("leave")
    assert faults < 100 < usual  # pages of 4 KiB, or of 2 MiB where the system has them


def test_a_variable_of_the_users_goes_before():
    assert not run("keep", MALLOC_ARENA_MAX="4")[0]


def test_an_accelerators_host_keeps_its_own_ways(tmp_path, monkeypatch):
    (tmp_path / "nvidia0").touch()
    monkeypatch.setattr(host_memory, "_ACCELERATORS", (f"{tmp_path}/nvidia[0-9]*",))
    assert not host_memory.keep_freed()

"""Huge pages: when a command asks for them, and that it then has them."""

import os
import subprocess
import sys

import pytest

from rsclip_jax.train.host_memory import HUGE, VARIABLE, wants_huge_pages
from tests.conftest import REPO

# A block as large as a workspace, used and freed; the fault of each page is counted.
SCRIPT = """
import ctypes, os, resource, sys
from rsclip_jax.train import host_memory
wants = host_memory.wants_huge_pages
host_memory.wants_huge_pages = lambda environ: wants(environ, sys.argv[2], ())
host_memory.use_huge_pages()
libc, size = ctypes.CDLL(None), 2**27
libc.malloc.restype = ctypes.c_void_p
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5):
    block = ctypes.c_void_p(libc.malloc(ctypes.c_size_t(size)))
    libc.memset(block, 1, ctypes.c_size_t(size))
    libc.free(block)
faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
print(os.getpid(), os.environ.get("GLIBC_TUNABLES"), sys.argv[1], faults)
"""


def system(tmp_path, text="always [madvise] never\n"):
    path = tmp_path / "enabled"
    path.write_text(text)
    return str(path)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("always [madvise] never\n", True),
        ("[always] madvise never\n", False),  # they are there without being asked for
        ("always madvise [never]\n", False),
    ],
)
def test_they_are_asked_for_where_the_system_gives_them_on_request(
    tmp_path, text, wanted
):
    path = system(tmp_path, text)
    assert wants_huge_pages({}, path, ()) == wanted


def test_not_for_an_accelerator_nor_against_the_users_choice(tmp_path):
    path = system(tmp_path)
    assert not wants_huge_pages({VARIABLE: "glibc.malloc.check=0"}, path, ())
    assert not wants_huge_pages({}, str(tmp_path / "none"), ())
    (tmp_path / "nvidia0").touch()
    assert not wants_huge_pages({}, path, (f"{tmp_path}/nvidia[0-9]*",))


def run(tmp_path, **variables):
    env = {k: v for k, v in os.environ.items() if k != VARIABLE}
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, "an argument", system(tmp_path)],
        cwd=REPO, env={**env, **variables}, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    out, _ = process.communicate(timeout=280)
    assert process.returncode == 0
    pid, tunables, argument = out.split()[0], out.split()[1], out.split()[2:4]
    assert (int(pid), argument) == (process.pid, ["an", "argument"])
    return tunables, int(out.split()[-1])


def test_the_command_goes_on_in_the_same_process_with_huge_pages(tmp_path):
    tunables, faults = run(tmp_path)
    assert tunables == HUGE
    usual, many = run(tmp_path, **{VARIABLE: "glibc.malloc.check=0"})
    assert usual == "glibc.malloc.check=0"
    with open("/sys/kernel/mm/transparent_hugepage/enabled") as file:
        on_request = "[madvise]" in file.read()
    # 163,840 pages of 4 KiB, or 320 of 2 MiB
    assert faults < many / 10 if on_request else faults <= 1.5 * many

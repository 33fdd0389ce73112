"""Memory in pages of 2 MiB on a Linux host, for programs that XLA runs on its CPU."""

import glob
import os
import sys
from collections.abc import Mapping

VARIABLE = "GLIBC_TUNABLES"
HUGE = "glibc.malloc.hugetlb=1"  # malloc asks for huge pages; glibc 2.35 and newer
_SYSTEM = "/sys/kernel/mm/transparent_hugepage/enabled"
# Device files of GPUs and TPUs.
_ACCELERATORS = ("/dev/nvidia[0-9]*", "/dev/kfd", "/dev/accel*", "/dev/vfio/[0-9]*")


def use_huge_pages() -> None:
    """Starts this command again with huge pages, where that makes it faster.

    XLA for CPU asks for a program's whole workspace at each call and frees it after;
    glibc gives it back, and the system clears each page of 4 KiB again: a quarter of
    the CPU time of a small model's step. Keeping what is freed (mallopt) is no way out:
    it grew the process 2.5 times. glibc reads its variable only at the start, so the
    command replaces itself; the process stays the same. Call it before anything else.
    """
    if wants_huge_pages(os.environ):
        os.environ[VARIABLE] = HUGE
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def wants_huge_pages(
    environ: Mapping[str, str],
    system: str = _SYSTEM,
    accelerators: tuple[str, ...] = _ACCELERATORS,
) -> bool:
    """Whether huge pages have to be asked for, can be had, and serve a CPU's work.

    A variable of glibc's that is set is the user's choice, or this command's own.
    """
    if VARIABLE in environ or any(map(glob.glob, accelerators)):
        return False
    try:
        with open(system) as file:
            return "[madvise]" in file.read()
    except OSError:  # another system, or a kernel without them
        return False

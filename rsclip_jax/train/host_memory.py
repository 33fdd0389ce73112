"""How the C library keeps the memory that a program frees, on a Linux host."""

import ctypes
import glob
import os
import sys

# mallopt's numbers, from glibc's malloc.h.
_TRIM_THRESHOLD, _MMAP_MAX, _ARENA_MAX = -1, -4, -8
# Device files of GPUs and TPUs.
_ACCELERATORS = ("/dev/nvidia[0-9]*", "/dev/kfd", "/dev/accel*", "/dev/vfio/[0-9]*")


def keep_freed() -> bool:
    """Makes malloc keep freed memory for the next request; whether it does.

    XLA for CPU asks for a program's whole workspace at each call and frees it after.
    By default glibc returns blocks of this size to the system, which then clears each
    of their pages again: a quarter of the CPU time of a small model's step. The process
    stays as large as it once was.

    Call it before threads start. It does nothing where the work is an accelerator's, or
    where a variable of glibc's says how to keep memory.
    """
    if not sys.platform.startswith("linux") or any(map(glob.glob, _ACCELERATORS)):
        return False
    if any(name.startswith(("MALLOC_", "GLIBC_TUNABLES")) for name in os.environ):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except AttributeError:  # another C library, such as musl
        return False
    # one arena, because only the first can hold blocks of more than 64 MB
    options = ((_ARENA_MAX, 1), (_MMAP_MAX, 0), (_TRIM_THRESHOLD, 2**31 - 1))
    return all(bool(mallopt(*option)) for option in options)

"""One lock for files that several processes or threads write."""

import contextlib
import os
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path

import filelock

try:
    import fcntl
except ImportError:  # not on Windows
    fcntl = None  # type: ignore[assignment]


def make_lock(path: Path) -> filelock.BaseFileLock:
    """The lock of the file `path`, which `with` holds; see locked.

    Raises OSError if the file cannot be created.
    """
    # without permission to create the file, filelock would retry silently for ever
    with open(path, "a", encoding="utf-8"):
        pass
    return filelock.FileLock(path)


class _OpenLock:
    """A lock whose file stays open: holding it takes 2 us, and filelock's 70.

    The same lock as filelock's of that file. Threads that share one do not wait for
    each other.
    """

    def __init__(self, path: Path):
        self._path, self._pid = path, 0

    def __enter__(self) -> None:
        if self._pid != os.getpid():  # a fork's file has its parent's lock
            self._file = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o666)
            self._pid = os.getpid()
            weakref.finalize(self, os.close, self._file)
        fcntl.flock(self._file, fcntl.LOCK_EX)

    def __exit__(self, *error: object) -> None:
        if self._pid == os.getpid():
            fcntl.flock(self._file, fcntl.LOCK_UN)


def make_open_lock(path: Path) -> contextlib.AbstractContextManager:
    """As make_lock, for a lock that one thread at a time holds many times.

    Where the file system or Windows has no such lock, it is make_lock's.
    """
    lock = make_lock(path)
    if fcntl is None:
        return lock
    try:
        with (found := _OpenLock(path)):
            return found
    except OSError:
        return lock


@contextlib.contextmanager
def locked(
    path: Path, *, wait: bool = True, on_wait: Callable[[], None] = lambda: None
) -> Iterator[None]:
    """Holds the lock file `path`; a killed process releases it.

    Args:
        path: a file used for nothing else, in an existing folder. It is not removed.
        wait: whether to wait for another holder or raise BlockingIOError.
        on_wait: called once before waiting.

    Raises OSError if the file cannot be created.
    """
    lock = make_lock(path)
    try:
        lock.acquire(blocking=False)
    except filelock.Timeout:
        if not wait:
            raise BlockingIOError(f"{path} is held by another process") from None
        on_wait()
        lock.acquire()
    try:
        yield
    finally:
        lock.release()

"""One lock for files that several processes or threads write."""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import filelock


def make_lock(path: Path) -> filelock.BaseFileLock:
    """The lock of the file `path`, which `with` holds; see locked.

    Holding one lock many times takes less time than locked. Raises OSError if the file
    cannot be created.
    """
    # without permission to create the file, filelock would retry silently for ever
    with open(path, "a", encoding="utf-8"):
        pass
    return filelock.FileLock(path)


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

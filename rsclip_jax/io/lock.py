"""One lock for files that several processes or threads write."""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import filelock


@contextlib.contextmanager
def locked(
    path: Path, *, wait: bool = True, on_wait: Callable[[], None] = lambda: None
) -> Iterator[None]:
    """Holds the lock file `path`; a process that is killed releases it.

    Args:
        path: a file of its own, in a folder that exists. It stays there.
        wait: whether to wait for another holder, or to raise BlockingIOError.
        on_wait: called once before waiting.

    Raises OSError where the file cannot be created.
    """
    # filelock would try again for ever, without a word, where it may not create it
    with open(path, "a", encoding="utf-8"):
        pass
    lock = filelock.FileLock(path)
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

"""Bad records: hints in their errors, and the list of those that are skipped."""

import contextlib
import functools
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from rsclip_jax.data.types import Record, Source
from rsclip_jax.io.files import write_text
from rsclip_jax.io.lock import make_open_lock
from rsclip_jax.io.paths import is_remote

_HINT = "on_error='skip' leaves such records out"


@contextlib.contextmanager
def suggest_skip() -> Iterator[None]:
    """Adds a hint to errors of a record that is read with on_error "raise".

    The readers do not add it: they do not know whether an error will be raised.
    """
    try:
        yield
    except (ValueError, OSError) as error:
        if _HINT not in getattr(error, "__notes__", ()):  # raised again for a tile
            error.add_note(_HINT)
        raise


def error_text(error: BaseException) -> str:
    """The message of an error, with the hint of suggest_skip if it has one."""
    noted = _HINT in getattr(error, "__notes__", ())
    return f"{error}; {_HINT}" if noted else str(error)


def first_record(source: Source, on_error: str) -> Record:
    """Reads the first record; with on_error "skip", the first that can be read."""
    if on_error != "skip":
        with suggest_skip():
            return source[0]
    for i in range(len(source)):
        with contextlib.suppress(ValueError, OSError):
            return source[i]
    raise ValueError(f"no record of {source.spec} is readable")


def leave_out(text: str, way: str, on_error: str) -> None:
    """Prints a warning with on_error "skip"; else raises ValueError."""
    if on_error != "skip":
        raise ValueError(f"{text}; {way}, or on_error='skip' leaves them out")
    print(f"warning: {text}; left out", flush=True)


class SkippedList:
    """The file that lists skipped records, one line each: "spec, id, reason" with tabs.

    Any number of threads, processes and resumed runs append to it, each record once.
    Adding a record reads only the lines that others have appended since, so the cost is
    linear in the number of records.
    """

    def __init__(self, path: Path):
        self.path = path
        self._keys: set[str] = set()
        self._end = 0  # offset in the file up to which lines have been read
        self._lock = threading.Lock()

    def add(self, spec: str, record_id: str, reason: str) -> None:
        """Lists a record of "dataset:split", unless it is listed already."""
        key = f"{spec}\t{record_id}"
        with self._lock:
            if key in self._keys:
                return
            if is_remote(self.path):
                self._add_remote(key, reason)
                return
            with self._file_lock, open(self.path, "a+b") as file:
                cut = self._read_new(file)
                if key not in self._keys:
                    line = _line(key, reason)
                    file.write(("\n" * cut + line).encode())
                    self._keys.add(key)
                self._end = file.tell()

    @functools.cached_property
    def _file_lock(self) -> contextlib.AbstractContextManager:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        return make_open_lock(self.path.with_name(f"{self.path.name}.lock"))

    def _add_remote(self, key: str, reason: str) -> None:
        """As add, in an object store, which is written anew for each record.

        Processes that add at the same moment can lose each other's lines there.
        """
        text = self.path.read_text() if self.path.exists() else ""
        self._keys = {line.rpartition("\t")[0] for line in text.splitlines()}
        if key not in self._keys:
            write_text(self.path, text + _line(key, reason))
            self._keys.add(key)

    def _read_new(self, file: BinaryIO) -> bool:
        """Reads the lines after _end; returns whether a kill has cut the last one."""
        file.seek(self._end)
        text = file.read().decode()
        self._keys.update(line.rpartition("\t")[0] for line in text.splitlines())
        return bool(text) and not text.endswith("\n")


def _line(key: str, reason: str) -> str:
    return f"{key}\t{' '.join(reason.split())}\n"


def count_skipped(path: Path) -> int:
    """The number of records in the list; 0 if there is no file."""
    return path.read_text(encoding="utf-8").count("\n") if path.exists() else 0

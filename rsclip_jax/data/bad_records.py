"""Records that cannot be read: the way on, and skipped.txt, the list with reasons."""

import contextlib
import fcntl
from collections.abc import Iterator
from pathlib import Path

_WAY_ON = "on_error='skip' (--config.data.on_error=skip) leaves such records out"


@contextlib.contextmanager
def suggest_skip() -> Iterator[None]:
    """A note on the error of a record that is read with on_error "raise".

    The readers do not know whether such an error ends anything, nor who asks them.
    """
    try:
        yield
    except (ValueError, OSError) as error:
        if _WAY_ON not in getattr(error, "__notes__", ()):  # raised again for a tile
            error.add_note(_WAY_ON)
        raise


def in_words(error: BaseException) -> str:
    """What an error says, with the note that it may have."""
    noted = _WAY_ON in getattr(error, "__notes__", ())
    return f"{error}; {_WAY_ON}" if noted else str(error)


def note_skipped(path: Path, place: str, record_id: str, reason: str) -> None:
    """Adds the line "place, id, reason" (tabs between), unless the record is there.

    place: "dataset:split". The file is kept from run to run, so that a training that
    was continued has one list; threads and processes may write at the same time.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    start = f"{place}\t{record_id}\t"
    with open(path, "a+", encoding="utf-8") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.seek(0)
        if not any(line.startswith(start) for line in file):
            file.write(f"{start}{' '.join(reason.split())}\n")


def count_skipped(path: Path) -> int:
    """How many records are listed; 0 without the file."""
    return path.read_text(encoding="utf-8").count("\n") if path.exists() else 0

"""skipped.txt: what a stage could not read, each record once, with the reason."""

import fcntl
from pathlib import Path


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

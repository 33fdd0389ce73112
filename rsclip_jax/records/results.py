"""results.jsonl: every reported number of every stage, one JSON object a line."""

import json
from collections.abc import Iterable
from pathlib import Path

from rsclip_jax.io.files import write_text

FIELDS = tuple(
    "stage dataset split sensor task metric value n step prompts checkpoint"
    " split_digest".split()
)


def read_results(path: Path) -> list[dict]:
    """All whole lines; one cut short by a kill is left out."""
    if not path.exists():
        return []
    records = []
    for line in path.read_text().splitlines():
        try:
            records.append(json.loads(line, parse_constant=_no_number))
        except json.JSONDecodeError:
            continue
    return records


def count_cut(path: Path) -> int:
    """How many lines are not whole, such as one cut short by a kill."""
    if not path.exists():
        return 0
    lines = [line for line in path.read_text().splitlines() if line]
    return len(lines) - len(read_results(path))


def _no_number(_: str) -> None:
    """For NaN and infinities, which are no JSON."""


def start_stage(path: Path, stage: str) -> None:
    """Takes out what an unfinished run of this stage wrote: it will report again."""
    kept = [r for r in read_results(path) if r["stage"] != stage]
    write_text(path, "".join(_line(r) for r in kept))


def append_results(path: Path, records: Iterable[dict]) -> None:
    """Adds records. Raises ValueError for one that lacks a field, or has NaN."""
    lines = []
    for record in records:
        missing = [field for field in FIELDS if field not in record]
        if missing:
            raise ValueError(f"a result lacks {missing}: {record}")
        lines.append(_line(record))
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        file.write("".join(lines))


def _line(record: dict) -> str:
    # In ASCII: no character is cut in two by a kill, or taken for a line break.
    try:
        return json.dumps(record, allow_nan=False) + "\n"
    except ValueError as error:
        raise ValueError(f"a result has a value that JSON has not: {record}") from error

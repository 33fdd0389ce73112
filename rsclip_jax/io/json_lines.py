"""Files of one JSON object a line, such as results.jsonl and metrics.jsonl.

Lines are appended all or none. A kill can cut the last line of a file; that line is no
damage and is left out. Any other line that is not an object is an error that names the
file and the line.
"""

import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from rsclip_jax.io.files import naming, write_bytes, write_text
from rsclip_jax.io.paths import is_remote


def read_json_lines(path: Path, *, strict: bool = True) -> list[dict[str, Any]]:
    """The objects of a file; [] if there is none.

    strict: whether a damaged line raises ValueError or is left out, as a cut one is.
    """
    return [values for _, _, values in _lines(path, strict)]


def number_lines(path: Path) -> list[tuple[int, dict[str, Any]]]:
    """(number from 1, object) for each line, as read_json_lines."""
    return [(number, values) for number, _, values in _lines(path)]


def count_cut(path: Path) -> int:
    """1 if a kill has cut the last line of a file short, else 0."""
    _, tail = _split(_read(path))
    return int(bool(tail) and _parse(tail) is None)


def keep_lines(path: Path, wanted: Callable[[Mapping[str, Any]], bool]) -> None:
    """Removes unwanted lines; the others stay byte for byte."""
    kept = [line for _, line, values in _lines(path) if wanted(values)]
    write_text(path, "".join(f"{line}\n" for line in kept))


def append_lines(path: Path, lines: Iterable[str]) -> None:
    """Appends lines, given without line breaks, all or none; creates the file.

    A last line that a kill has cut short is removed first, so that it does not damage
    the next one.
    """
    data = "".join(f"{line}\n" for line in lines).encode()
    if is_remote(path):
        whole, tail = _split(_read(path))
        write_bytes(path, whole + _mended(tail) + data)
        return
    with naming(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab+") as file:
            size = file.tell()
            tail = _last_part(file, size)
            end = size - len(tail)
            if (mended := _mended(tail)) != tail:
                file.truncate(end)
                data = mended + data
            try:
                file.write(data)
                file.flush()
            except OSError:  # such as a full disk: none of it
                file.truncate(end if mended != tail else size)
                raise


def _mended(tail: bytes) -> bytes:
    """What stays of a last line without its line break: all, or nothing."""
    return tail + b"\n" if tail and _parse(tail) is not None else b""


def _last_part(file: Any, size: int) -> bytes:
    """What follows the last line break of a file."""
    part = b""
    while size > 0 and b"\n" not in part:
        start = max(0, size - 4096)
        file.seek(start)
        part, size = file.read(size - start) + part, start
    return part.rpartition(b"\n")[2]


def _lines(path: Path, strict: bool = True) -> list[tuple[int, str, dict[str, Any]]]:
    """(its number from 1, line, its object) for each line."""
    whole, tail = _split(_read(path))
    found, lines = [], whole.split(b"\n")[:-1]
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        values = _parse(line)
        if values is not None:
            found.append((number, line.decode(), values))
        elif strict:
            raise ValueError(
                f"{path}, line {number}: {_problem(line)}; restore the file from a"
                " copy, or remove that line"
            )
    if tail and (values := _parse(tail)) is not None:
        found.append((len(lines) + 1, tail.decode(), values))
    return found


def _read(path: Path) -> bytes:
    return path.read_bytes() if path.exists() else b""


def _split(data: bytes) -> tuple[bytes, bytes]:
    """(the lines with their line breaks, what follows the last one)."""
    end = data.rfind(b"\n") + 1
    return data[:end], data[end:]


def _parse(line: bytes) -> dict[str, Any] | None:
    try:
        values = json.loads(line.decode(), parse_constant=_no_number)
    except (ValueError, RecursionError):  # also for bytes that are not UTF-8
        return None
    return values if isinstance(values, dict) else None


def _problem(line: bytes) -> str:
    try:
        text = line.decode()
    except UnicodeDecodeError as error:
        return f"not UTF-8 (byte {error.start + 1})"
    start = text.strip()[:60]
    try:
        json.loads(text)
    except (ValueError, RecursionError) as error:
        return f"not JSON ({error}): {start!r}"
    return f"not a JSON object: {start!r}"


def _no_number(_: str) -> None:
    """For NaN and infinities, which are not JSON."""

"""Text files as people save them, and values that are short enough for a message."""

import codecs
import csv
import io
from collections.abc import Iterator, Sequence
from pathlib import Path

_UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_CELL = 2**31 - 1  # characters of a cell
_SHOWN = 100  # characters of a value in a message
_ROOM = 700  # characters of a list in a message


def decode_text(data: bytes, where: str) -> str:
    """UTF-8 text without a byte order mark, which Excel and Notepad write.

    where: the file's name in errors. Raises ValueError for another encoding.
    """
    if data.startswith(_UTF16):
        raise ValueError(f"{where}: saved as UTF-16; save the file as UTF-8")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{where}: not UTF-8 (byte {error.start} is"
            f" 0x{error.object[error.start]:02x}); save the file as UTF-8"
        ) from error


def read_text(path: Path) -> str:
    """As decode_text, from a file."""
    return decode_text(path.read_bytes(), str(path))


def read_lines(path: Path) -> list[tuple[int, str]]:
    """(number, text) of the lines that are not blank, without spaces at their ends."""
    lines = read_text(path).replace("\r\n", "\n").replace("\r", "\n").split("\n")
    return [(i, line.strip()) for i, line in enumerate(lines, 1) if line.strip()]


def read_csv(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Yields (line, cells without spaces at their ends) of the rows that are not blank.

    Raises ValueError naming the file, and the line where it is not a csv.
    """
    # for the whole process: csv has no other way, and its 131,072 are few for a polygon
    csv.field_size_limit(_CELL)
    reader = csv.reader(io.StringIO(read_text(path), newline=""), strict=True)
    try:
        for row in reader:
            if any(cells := [cell.strip() for cell in row]):
                yield reader.line_num, cells
    except csv.Error as error:
        raise ValueError(f"{path}, line {reader.line_num}: {error}") from error


def shown(value: object, length: int = _SHOWN) -> str:
    """A value as repr writes it, cut to a length where it is longer."""
    try:
        return clip(repr(value), length)
    except RecursionError:  # of lists in lists, without end
        return f"a deeply nested {type(value).__name__}"


def clip(text: str, length: int = _SHOWN) -> str:
    """A text, or where it is longer its two ends and its number of characters."""
    if len(text) <= length:
        return text
    head = length // 2
    return f"{text[:head]}...{text[head - length :]} ({len(text):,} characters)"


def first_of(things: Sequence, between: str = ", ", most: int = 5) -> str:
    """The first things as text: so many at most, or as many as a message has room for.

    Each is cut to that room, and "..." stands for those that are left out.
    """
    listed: list[str] = []
    for thing in things[:most]:
        text = clip(str(thing), _ROOM)
        if listed and len(text) + sum(map(len, listed)) > _ROOM:
            break
        listed.append(text)
    return between.join(listed + ["..."] * (len(listed) < len(things)))

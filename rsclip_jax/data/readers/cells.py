"""Labels in the cells of a table's column: read as what they are, or refused.

Text and whole numbers are labels, and bytes are text in UTF-8. None, NaN and the words
that programs write for them are missing. Lists hold several labels; lists of 0 and 1 of
one length are multi-hot vectors, which need the classes. Anything else is refused, as
are other types written as text: "['a', 'b']" and "b'a'" are what Python prints.
"""

import itertools
import math
import re
from collections.abc import Callable, Collection, Sequence
from typing import Any, NamedTuple

from rsclip_jax.io.texts import clip, shown

# What programs write for a missing value. "None" and "NA" could be classes: listing
# them in `classes` makes them labels.
MISSING = frozenset(
    "nan NaN NAN -nan <NA> NA N/A n/a #N/A NaT null NULL None".split(),
)
_PRINTED_BYTES = re.compile(r"""b(['"]).*\1""", re.DOTALL)
_PRINTED_LIST = re.compile(r"""\[.*\]|\{.*\}|\(\s*['"].*\)|array\(.*\)""", re.DOTALL)
_DECIMAL = re.compile(r"[-+]?(\d+\.\d*|\.\d+|\d+)([eE][-+]?\d+)?")
_WHOLE = re.compile(r"([-+]?\d+)(\.0*)?")


class Column(NamedTuple):
    """A column of a table.

    Attributes:
        name: its name.
        type: its type as the file says it; "" for a csv, whose cells are all text.
        cells: what it holds, row by row.
        lines: the line of each row, for errors.
        classes: the names of its numbers, where the file has them.
    """

    name: str
    type: str
    cells: Sequence[Any]
    lines: Sequence[int]
    classes: tuple[str, ...] = ()

    def __str__(self) -> str:
        kind = f" of type {clip(self.type, 80)}" if self.type else ""
        return f"column {shown(self.name)}{kind}"


def plain_text(cell: Any) -> str | None:
    """A cell as text without spaces at its ends: "" if missing, None if it is neither.

    Text, bytes in UTF-8 and whole numbers are text; True and False are not.
    """
    if cell is None or (isinstance(cell, float) and math.isnan(cell)):
        return ""
    if isinstance(cell, bytes):
        try:
            return cell.decode("utf-8").strip()
        except UnicodeDecodeError:
            return None
    if isinstance(cell, float) and cell.is_integer():
        return str(int(cell))
    if isinstance(cell, int) and not isinstance(cell, bool):
        return str(cell)
    return cell.strip() if isinstance(cell, str) else None


def is_missing(cell: Any) -> bool:
    """Whether a cell of labels is missing, and not a list or text without a label."""
    text = plain_text(cell)
    return text in MISSING or (text == "" and not isinstance(cell, str | bytes))


def texts_of(where: str, column: Column) -> list[str]:
    """A column's cells as texts, "" where one is missing: paths, splits, ids.

    Raises ValueError for a cell that is no text, naming its line and type.
    """
    found = []
    for line, cell in zip(column.lines, column.cells, strict=True):
        text = plain_text(cell)
        if text is None:
            raise ValueError(
                f"{where}, line {line}: {shown(cell)} in {column} is no text; write the"
                " column as text"
            )
        found.append(text)
    return found


def labels_of(
    where: str, column: Column, separator: str, classes: Sequence[str]
) -> list[tuple[str, ...]]:
    """The labels of each row: one or, with a separator, any number; () if missing.

    Args:
        where: the table, for errors.
        column: the labels.
        separator: what separates labels in a text; "" for one label a row.
        classes: the classes, where they are known.

    Raises ValueError naming line, cell and type of a cell that holds no label, and the
    way out.
    """
    known = set(classes)
    rows = [
        _split(f"{where}, line {line}", column, cell, separator)
        for line, cell in zip(column.lines, column.cells, strict=True)
    ]
    if separator and _is_multi_hot(column, rows):
        return _hot_labels(where, column, rows, classes)
    read = _reader(column, known)
    found = []
    for line, parts in zip(column.lines, rows, strict=True):
        at = f"{where}, line {line}"
        found.append(tuple(filter(None, (read(at, part) for part in parts))))
    found = _without_points(found, known)
    if not classes and not column.classes:
        _check_undivided(where, column, found, separator)
    return found


def _split(where: str, column: Column, cell: Any, separator: str) -> Sequence[Any]:
    """The parts of a cell, each a label or missing."""
    if isinstance(cell, list | tuple):
        if not separator:
            raise ValueError(
                f'{where}: a list of labels in {column}; set task = "multi"'
            )
        return cell
    if separator and isinstance(cell, bytes):
        cell = plain_text(cell) or cell
    if (
        separator
        and isinstance(cell, str)
        and not _PRINTED_LIST.fullmatch(cell.strip())
    ):
        return cell.split(separator)
    return [cell]


def _reader(column: Column, known: Collection[str]) -> Callable[[str, Any], str]:
    """A function from (where, part of a cell) to its label; "" where it is missing."""

    def read(where: str, part: Any) -> str:
        text = plain_text(part)
        if column.classes and text and isinstance(part, int | float):
            return _name_of(where, column, int(text))
        if text is not None and text in known:
            return text
        if text is None:
            what = _MEASURED if isinstance(part, float) else _OTHER
            raise _no_label(where, column, part, what)
        if _PRINTED_BYTES.fullmatch(text):
            raise _no_label(where, column, part, _BYTES)
        if text in MISSING:
            return ""
        if _PRINTED_LIST.fullmatch(text):
            raise _no_label(where, column, part, _LIST)
        if _DECIMAL.fullmatch(text) and not _WHOLE.fullmatch(text):
            raise _no_label(where, column, part, _MEASURED)
        return text

    return read


_OTHER = "neither: write text"
_BYTES = "bytes written as text: decode them"
_LIST = (
    "a list written as text: join its labels by a separator, or save the table as"
    " parquet with a column of lists"
)
_MEASURED = "a measured number: write the class's name"


def _no_label(where: str, column: Column, cell: Any, what: str) -> ValueError:
    return ValueError(
        f"{where}: {shown(cell)} in {column} is no label: labels are text or whole"
        f" numbers, and this is {what}"
    )


def _name_of(where: str, column: Column, number: int) -> str:
    """The name of a number; "" for -1, which stands for a missing label."""
    if number == -1:
        return ""
    if not 0 <= number < len(column.classes):
        raise ValueError(
            f"{where}: label {number} in {column}, for which the file names the classes"
            f" 0 to {len(column.classes) - 1}; correct one of the two"
        )
    return column.classes[number]


def _without_points(
    rows: list[tuple[str, ...]], known: Collection[str]
) -> list[tuple[str, ...]]:
    """Whole numbers written with a point, as pandas does beside missing ones: 2.0."""
    texts = {text for row in rows for text in row if text not in known}
    whole = {text: m[1] for text in texts if (m := _WHOLE.fullmatch(text))}
    if len(whole) < len(texts) or not any("." in text for text in whole):
        return rows
    return [tuple(whole.get(text, text) for text in row) for row in rows]


def _is_multi_hot(column: Column, rows: Sequence[Sequence[Any]]) -> bool:
    """Whether all rows are as many numbers 0 and 1, and not lists of label numbers.

    A list of label numbers names none of them twice, and would be in order.
    """
    there = [row for row in rows if any(plain_text(part) != "" for part in row)]
    full = [[_bit(part) for part in row] for row in there]
    lengths = {len(row) for row in full}
    if column.classes or len(lengths) != 1 or lengths == {1}:
        return False
    return all(map(all, full)) and any(row != ["0", "1"] for row in full)


def _bit(part: Any) -> str:
    """ "0" or "1"; "" for anything else."""
    text = plain_text(int(part) if isinstance(part, bool) else part)
    return text if text in ("0", "1") else ""


def _hot_labels(
    where: str, column: Column, rows: Sequence[Sequence[Any]], classes: Sequence[str]
) -> list[tuple[str, ...]]:
    length = max(map(len, rows))
    if len(classes) != length:
        given = f"classes has {len(classes)} names" if classes else "classes is not set"
        raise ValueError(
            f"{where}: {column} holds vectors of {length} numbers 0 and 1, and {given};"
            " list the classes in the vectors' order"
        )
    hot = [[_bit(part) == "1" for part in row] for row in rows]
    return [tuple(itertools.compress(classes, row)) for row in hot]


def _check_undivided(
    where: str, column: Column, rows: Sequence[Sequence[str]], separator: str
) -> None:
    """Raises ValueError for labels that hold what separates labels elsewhere.

    A comma separates only if its parts are labels, too: "Beaches, dunes, sands" is one.
    """
    labels = dict.fromkeys(label for row in rows for label in row)
    for mark in ";|,\t":
        if mark == separator:
            continue
        for label in labels:
            parts = [part.strip() for part in label.split(mark)]
            is_several = mark != "," or not labels.keys().isdisjoint(parts)
            if len(parts) > 1 and is_several:
                way = f"separator = {mark!r}"
                way = way if separator else f'task = "multi" with {way}'
                line = next(
                    n for n, row in zip(column.lines, rows, strict=True) if label in row
                )
                raise ValueError(
                    f"{where}, line {line}: {shown(label)} in {column} looks like"
                    f" {len(parts)} labels; set {way}, or list the classes if it is one"
                )

"""Tables of paths and labels: csv (UTF-8, commas) and parquet, including GeoParquet.

Each row is a record. Each sensor has a column of paths; columns of labels, splits and
ids are optional. A geometry column is not read.
"""

import csv
import dataclasses
import io
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from rsclip_jax.data.readers.folders import first_of, in_split, parse_split
from rsclip_jax.data.types import Entry, Listing, tail_of
from rsclip_jax.io.lookup import look_up


@dataclasses.dataclass(frozen=True)
class Row:
    """A row of a table. line: its line in a csv file, or its number in parquet."""

    line: int
    id: str
    files: dict[str, str]  # sensor's key -> path
    labels: tuple[str, ...]  # one, or several, or none
    split: str


def read_table(
    path: Path,
    reader: str,
    folder: Path,
    columns: Mapping[str, str],
    *,
    separator: str,
    splits: Mapping[str, str],
) -> list[Row]:
    """Reads and checks all rows of a table; whether the images exist is not checked.

    Args:
        path: the table.
        reader: "csv" or "parquet".
        folder: what the paths are relative to.
        columns: "label", "split", "id" or a record key -> column. Without "id", the
            path in the first of these columns is the id.
        separator: what separates several labels in a cell; "" for one label. A parquet
            column may hold lists instead.
        splits: train, val, test -> the table's name of the split.

    Raises:
        FileNotFoundError: for a missing table.
        ValueError: naming file and line, for a file that is not a table, lacks a
            column, a path or a label, or repeats an id.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: this table does not exist")
    read = {"csv": _read_csv, "parquet": _read_parquet}[reader]
    words = {word: name for name, word in splits.items()}
    rows = [
        _row(path, folder, columns, line, cells, separator, words)
        for line, cells in read(path, tuple(dict.fromkeys(columns.values())))
    ]
    if not rows:
        raise ValueError(f"{path}: the table has no rows")
    _check_ids(path, rows, "id" in columns)
    return rows


def table_entries(path: Path, rows: Sequence[Row], split: str) -> Listing:
    """Lists a split in the table's order; files that do not exist are absent.

    Without a column of splits a hash of the id makes them. Raises FileNotFoundError for
    a split without a row, naming the splits that the table has.
    """
    name, _, _ = parse_split(split)
    given = bool(rows[0].split)
    wanted = in_split(split, made=given)
    if given and name != "all":
        count = Counter(row.split for row in rows)
        if name not in count:
            held = ", ".join(f"{s} ({n} rows)" for s, n in count.items())
            raise FileNotFoundError(
                f"{path}: no row of split {name!r}; it has {held}. Use one of them or a"
                f" part, such as '{next(iter(count))}[90%:]'"
            )
        rows = [row for row in rows if row.split == name]
    kept = [row for row in rows if wanted(tail_of(row.id))]
    absent = set(_absent(file for row in kept for file in row.files.values()))
    if absent:
        kept = [row for row in kept if absent.isdisjoint(row.files.values())]
    entries = [
        Entry(
            row.id,
            row.labels[0] if row.labels else "",
            {key: Path(file) for key, file in row.files.items()},
            row.labels,
        )
        for row in kept
    ]
    return Listing(entries, absent={path: sorted(absent)} if absent else {})


def check_labels(path: Path, rows: Iterable[Row], classes: Sequence[str]) -> None:
    """Raises ValueError for an unknown label, naming its line and the nearest class."""
    known = dict.fromkeys(classes)
    for row in rows:
        try:
            for label in row.labels:
                look_up(known, label, "label")
        except ValueError as error:
            raise ValueError(f"{path}, line {row.line}: {error}") from None


def _row(path, folder, columns, line, cells, separator, words) -> Row:
    where = f"{path}, line {line}"
    keys = [key for key in columns if key not in ("label", "split", "id")]
    for key in (*keys, *(k for k in ("split", "id") if k in columns)):
        if not _text(cells[columns[key]]):
            raise ValueError(f"{where}: nothing in column {columns[key]!r}")
    files = {key: os.path.join(folder, _text(cells[columns[key]])) for key in keys}
    labels: tuple[str, ...] = ()
    if "label" in columns:
        labels = _labels(where, columns["label"], cells[columns["label"]], separator)
    split = _text(cells[columns["split"]]) if "split" in columns else ""
    if split and split not in words:
        raise ValueError(
            f"{where}: split {split!r} is not one of {', '.join(words)}; name it in a"
            f" table [splits] of the dataset's TOML file, such as val = {split!r}"
        )
    id_ = _text(cells[columns["id"] if "id" in columns else columns[keys[0]]])
    return Row(line, id_, files, labels, words.get(split, ""))


def _labels(where: str, column: str, cell: object, separator: str) -> tuple[str, ...]:
    """The labels in a cell: one, or with a separator any number."""
    if isinstance(cell, list) and not separator:
        raise ValueError(
            f'{where}: a list of labels in column {column!r}; set task = "multi"'
        )
    if separator:
        parts = cell if isinstance(cell, list) else _text(cell).split(separator)
        return tuple(filter(None, (_text(part) for part in parts)))
    if not _text(cell):
        raise ValueError(f"{where}: no label in column {column!r}")
    return (_text(cell),)


def _text(cell: object) -> str:
    return "" if cell is None else str(cell).strip()


def _check_ids(path: Path, rows: Sequence[Row], has_column: bool) -> None:
    lines: dict[str, list[int]] = {}
    for row in rows:
        lines.setdefault(row.id, []).append(row.line)
    twice = {id_: at for id_, at in lines.items() if len(at) > 1}
    if twice:
        shown = first_of(
            [f"{id_!r} in lines {first_of(at)}" for id_, at in twice.items()], "; "
        )
        way = (
            "give each row its own id"
            if has_column
            else "name a column of ids (columns.id), or put all labels of an image into"
            ' one row (task = "multi")'
        )
        raise ValueError(f"{path}: {len(twice)} id(s) occur twice: {shown}; {way}")


def _absent(files: Iterable[str]) -> Iterable[str]:
    """The files that do not exist, found by listing each folder once."""
    listed: dict[str, set[str]] = {}
    for file in files:
        folder, name = os.path.split(file)
        if folder not in listed:
            listed[folder] = set(os.listdir(folder)) if os.path.isdir(folder) else set()
        if name not in listed[folder]:
            yield file


def _read_csv(path: Path, wanted: Sequence[str]) -> Iterable[tuple[int, dict]]:
    """Yields (line, {column: cell}) for each row that is not blank."""
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{path}: not UTF-8 (byte {error.start} is"
            f" 0x{error.object[error.start]:02x}); save the table as UTF-8"
        ) from error
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    header = [name.strip() for name in next(reader, [])]
    _check_columns(path, wanted, header)
    try:
        for cells in reader:
            if len(cells) not in (0, len(header)):
                raise ValueError(
                    f"{path}, line {reader.line_num}: {len(cells)} cells, but the"
                    f" header has {len(header)}; is the file cut short, or a comma"
                    " not in quotes?"
                )
            if cells:
                yield reader.line_num, dict(zip(header, cells, strict=True))
    except csv.Error as error:
        raise ValueError(f"{path}, line {reader.line_num}: {error}") from error


def _read_parquet(path: Path, wanted: Sequence[str]) -> Iterable[tuple[int, dict]]:
    import pyarrow.parquet  # slow to import, and needed only here

    try:
        names = pyarrow.parquet.read_schema(path).names
        _check_columns(path, wanted, names)
        rows = pyarrow.parquet.read_table(path, columns=list(wanted)).to_pylist()
    except (OSError, pyarrow.ArrowException) as error:
        size = path.stat().st_size
        raise ValueError(
            f"{path}: unreadable or cut parquet file ({size:,} bytes; {error})"
        ) from error
    return enumerate(rows, 1)


def _check_columns(path: Path, wanted: Sequence[str], there: Sequence[str]) -> None:
    if missing := [name for name in wanted if name not in there]:
        raise ValueError(
            f"{path}: no column {', '.join(map(repr, missing))}; it has"
            f" {', '.join(map(repr, there)) or 'none'} (a csv has commas between them)"
        )
    if twice := [name for name in wanted if list(there).count(name) > 1]:
        raise ValueError(f"{path}: column {twice[0]!r} occurs twice")

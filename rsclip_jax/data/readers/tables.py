"""Tables of paths and labels: csv (UTF-8, commas) and parquet, including GeoParquet.

Each row is a record. Each sensor has a column of paths; columns of labels, splits and
ids are optional. A geometry column is not read.
"""

import dataclasses
import json
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rsclip_jax.data.readers.cells import Column, is_missing, labels_of, texts_of
from rsclip_jax.data.readers.folders import in_split, parse_split
from rsclip_jax.data.types import Entry, Listing, tail_of
from rsclip_jax.io.lookup import look_up
from rsclip_jax.io.texts import clip, first_of, read_csv, shown


@dataclasses.dataclass(frozen=True)
class Row:
    """A row of a table.

    Attributes:
        line: its line in a csv file, or its number in parquet.
        files: sensor's key -> path; a key whose cell is blank is not there.
        labels: one, or several, or none.
        is_labelled: whether its labels are known; they may be none.
        split: train, val or test; "" without a column of splits.
    """

    line: int
    id: str
    files: dict[str, str]
    labels: tuple[str, ...]
    is_labelled: bool
    split: str


class Table(NamedTuple):
    """A table that was read.

    Attributes:
        rows: its rows.
        classes: the names of the label's numbers, where the file has them.
        images: record key -> column that holds the images themselves.
    """

    rows: list[Row]
    classes: tuple[str, ...]
    images: dict[str, str]


_OTHERS = ("label", "split", "id")  # columns of no sensor


def read_table(
    path: Path,
    reader: str,
    folder: Path,
    columns: Mapping[str, str],
    *,
    separator: str,
    splits: Mapping[str, str],
    classes: Sequence[str] = (),
) -> Table:
    """Reads and checks all rows of a table; whether the images exist is not checked.

    Args:
        path: the table.
        reader: "csv" or "parquet".
        folder: what the paths are relative to.
        columns: "label", "split", "id" or a record key -> column. Paths may be those of
            Windows, with backslashes. Without "id", the path in the first of these
            columns is the id. A parquet column of images {bytes, path}, as Hugging
            Face's datasets write, holds the images.
        separator: what separates several labels in a cell; "" for one label. A parquet
            column may hold lists instead.
        splits: train, val, test -> the table's name of the split.
        classes: the classes in label order, where they are known.

    Raises:
        FileNotFoundError: for a missing table.
        ValueError: naming file and line, for a file that is not a table, lacks a
            column, a path or a split, holds a cell that is no label (see cells.py), or
            repeats an id.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: this table does not exist{_several(path)}")
    read = {"csv": _read_csv, "parquet": _read_parquet}[reader]
    found, images = read(path, tuple(dict.fromkeys(columns.values())))
    lines = next(iter(found.values())).lines
    if not lines:
        raise ValueError(f"{path}: the table has no rows")
    texts = _texts(path, columns, found)
    labels: list[tuple[str, ...]] = [()] * len(lines)
    known = [False] * len(lines)
    if "label" in columns:
        labels, known = _labels(path, found[columns["label"]], separator, classes)
    held = {k: c for k, c in columns.items() if c in images and k not in _OTHERS}
    ids = _ids(path, columns, texts, held, lines)
    names = _split_names(path, columns, texts, splits, lines)
    rows = [
        Row(
            line,
            ids[i],
            _files(path, folder, columns, texts, held, line, i),
            labels[i],
            known[i],
            names[i],
        )
        for i, line in enumerate(lines)
    ]
    _check_ids(path, rows, "id" in columns)
    named = found[columns["label"]].classes if "label" in columns else ()
    return Table(rows, named, held)


def _texts(
    path: Path, columns: Mapping[str, str], found: Mapping[str, Column]
) -> dict[str, list[str]]:
    """The cells of the columns of paths, splits and ids."""
    texts = {
        k: texts_of(str(path), found[c]) for k, c in columns.items() if k != "label"
    }
    for key in texts.keys() - {*_OTHERS}:  # tables made on Windows
        texts[key] = [text.replace("\\", "/") for text in texts[key]]
    return texts


def _labels(
    path: Path, column: Column, separator: str, classes: Sequence[str]
) -> tuple[list[tuple[str, ...]], list[bool]]:
    """(labels of each row, whether they are known).

    Where there may be several they may be none.
    """
    labels, several = labels_of(str(path), column, separator, classes), bool(separator)
    known = [
        bool(some) or (several and not is_missing(cell))
        for some, cell in zip(labels, column.cells, strict=True)
    ]
    return labels, known


def _several(path: Path) -> str:
    """How to make one table of a folder of parquet files, or of those of a pattern."""
    folder = path if path.is_dir() else path.parent
    if not path.is_dir() and not {"*", "?"} & set(path.name):
        return ""
    pattern = "*.parquet" if path.is_dir() else path.name
    return (
        '; a table is one file, so join several once: python -c "import glob,'
        " pyarrow.parquet as p; names = sorted(glob.glob("
        f"'{folder}/{pattern}')); out = p.ParquetWriter('{folder}/all.parquet',"
        " p.read_schema(names[0])); [out.write_table(p.read_table(name),"
        ' row_group_size=100) for name in names]; out.close()"'
    )


def _ids(path, columns, texts, held, lines) -> list[str]:
    """The ids: their column, or the paths in the first one.

    Images that the table holds may have no path or share one; their ids are then the
    rows' numbers.
    """
    key = "id" if "id" in columns else next(k for k in columns if k not in _OTHERS)
    ids = texts[key]
    if key in held and (not all(ids) or len(set(ids)) < len(ids)):
        return [f"{line:07d}" for line in lines]
    if "" in ids:
        raise _nothing(path, lines[ids.index("")], columns[key], _NO_ID[key == "id"])
    return ids


def _split_names(path, columns, texts, splits, lines) -> list[str]:
    """The split of each row; "" without a column of splits."""
    if "split" not in columns:
        return [""] * len(lines)
    words = {word: name for name, word in splits.items()}
    for line, split in zip(lines, texts["split"], strict=True):
        if not split:
            raise _nothing(path, line, columns["split"])
        if split not in words:
            raise ValueError(
                f"{path}, line {line}: split {shown(split)} is not one of"
                f" {', '.join(words)}; name it in a table [splits] of the dataset's"
                f" TOML file, such as val = {shown(split)}"
            )
    return [words[split] for split in texts["split"]]


def _files(path, folder, columns, texts, held, line: int, i: int) -> dict[str, str]:
    """{sensor's key: path} of a row, without blank cells. One sensor must be there."""
    keys = [key for key in columns if key not in _OTHERS]
    files = {k: os.path.join(folder, texts[k][i]) for k in keys if texts[k][i]}
    if not files and not held:
        raise _nothing(path, line, columns[keys[0]])
    return {key: file for key, file in files.items() if key not in held}


_NO_ID = (", whose paths are the ids; name a column of ids (columns.id)", "")


def _nothing(path: Path, line: int, column: str, way: str = "") -> ValueError:
    return ValueError(f"{path}, line {line}: nothing in column {shown(column)}{way}")


def table_entries(
    path: Path, rows: Sequence[Row], split: str, label: str = ""
) -> Listing:
    """Lists a split in the table's order; files that do not exist are absent.

    Without a column of splits a hash of the id makes them. label: the column in which
    each row needs a label; a row whose label is missing is a fault. Raises
    FileNotFoundError for a split without a row, naming the splits that the table has.
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
    bare = [row.line for row in kept if label and not row.is_labelled]
    kept = [row for row in kept if row.is_labelled or not label]
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
    faults = [f"line {line}: no label in column {shown(label)}" for line in bare]
    return Listing(
        entries,
        absent={path: sorted(absent)} if absent else {},
        faults={path: faults} if faults else {},
    )


def check_labels(path: Path, rows: Iterable[Row], classes: Sequence[str]) -> None:
    """Raises ValueError for an unknown label, naming its line and the nearest class."""
    known = dict.fromkeys(classes)
    for row in rows:
        try:
            for label in row.labels:
                look_up(known, label, "label")
        except ValueError as error:
            raise ValueError(f"{path}, line {row.line}: {error}") from None


def _check_ids(path: Path, rows: Sequence[Row], has_column: bool) -> None:
    lines: dict[str, list[int]] = {}
    for row in rows:
        lines.setdefault(row.id, []).append(row.line)
    twice = {id_: at for id_, at in lines.items() if len(at) > 1}
    if twice:
        listed = first_of(
            [f"{shown(id_)} in lines {first_of(at)}" for id_, at in twice.items()], "; "
        )
        way = (
            "give each row its own id"
            if has_column
            else "name a column of ids (columns.id), or put all labels of an image into"
            ' one row (task = "multi")'
        )
        raise ValueError(f"{path}: {len(twice)} id(s) occur twice: {listed}; {way}")


def _absent(files: Iterable[str]) -> Iterable[str]:
    """The files that do not exist, found by listing each folder once."""
    listed: dict[str, set[str]] = {}
    for file in files:
        folder, name = os.path.split(file)
        if folder not in listed:
            listed[folder] = set(os.listdir(folder)) if os.path.isdir(folder) else set()
        if name not in listed[folder]:
            yield file


_Columns = dict[str, Column]


def _read_csv(path: Path, wanted: Sequence[str]) -> tuple[_Columns, list[str]]:
    """({column: its cells}, []): the wanted columns of the rows that are not blank."""
    rows = read_csv(path)
    _, header = next(rows, (0, []))
    _check_columns(path, wanted, header)
    lines, kept = [], []
    for line, cells in rows:
        if len(cells) != len(header):
            raise ValueError(
                f"{path}, line {line}: {len(cells)} cells, but the header has"
                f" {len(header)}; is the file cut short, or a comma not in quotes?"
            )
        lines.append(line)
        kept.append(cells)
    at = {name: header.index(name) for name in wanted}
    return {n: Column(n, "", [c[i] for c in kept], lines) for n, i in at.items()}, []


def _read_parquet(path: Path, wanted: Sequence[str]) -> tuple[_Columns, list[str]]:
    """({column: its cells}, columns of images): of an image its path alone is read."""
    import pyarrow.parquet  # slow to import, and needed only here

    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            schema = file.schema_arrow
            _check_columns(path, wanted, schema.names)
            kinds = {name: schema.field(name).type for name in wanted}
            images = [name for name, kind in kinds.items() if _is_image(kind)]
            table = file.read([f"{n}.path" if n in images else n for n in wanted])
    except (OSError, pyarrow.ArrowException) as error:
        size = path.stat().st_size
        raise ValueError(
            f"{path}: unreadable or cut parquet file ({size:,} bytes;"
            f" {clip(str(error), 300)})"
        ) from error
    lines, names = range(1, len(table) + 1), _class_names(schema.metadata)
    found: _Columns = {}
    for name, kind in kinds.items():
        cells: list[Any] = table[name].to_pylist()
        if name in images:
            cells = [cell and cell["path"] for cell in cells]
        found[name] = Column(name, str(kind), cells, lines, names.get(name, ()))
    return found, images


def _is_image(kind: Any) -> bool:
    """Whether a column holds images {bytes, path}, as Hugging Face's datasets write."""
    import pyarrow.types as types

    return types.is_struct(kind) and {"bytes", "path"} <= {f.name for f in kind}


def _class_names(metadata: Mapping[bytes, bytes] | None) -> dict[str, tuple[str, ...]]:
    """{column: names of its numbers} in the metadata of Hugging Face's datasets.

    A feature is {"_type": "ClassLabel", "names": [...]}, or a list of such.
    """
    try:
        told = json.loads((metadata or {}).get(b"huggingface", b"{}"))
        features = told["info"]["features"].items()
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return {}
    found: dict[str, tuple[str, ...]] = {}
    for column, feature in features:
        for part in (feature, *(feature if isinstance(feature, list) else ())):
            inner = part.get("feature", part) if isinstance(part, dict) else {}
            if isinstance(inner, dict) and isinstance(inner.get("names"), list):
                found[column] = tuple(map(str, inner["names"]))
    return found


def _check_columns(path: Path, wanted: Sequence[str], there: Sequence[str]) -> None:
    if missing := [name for name in wanted if name not in there]:
        raise ValueError(
            f"{path}: no column {clip(', '.join(map(repr, missing)), 200)}; it has"
            f" {clip(', '.join(map(repr, there)), 300) or 'none'} (a csv has commas"
            " between them)"
        )
    if twice := [name for name in wanted if list(there).count(name) > 1]:
        raise ValueError(f"{path}: column {twice[0]!r} occurs twice")

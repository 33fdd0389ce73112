"""Benchmark sets as SkyScript's authors publish them (Wang et al. 2024).

<folder>/classnames.txt                       a class a line, in label order
        /[<name>_]img_txt_pairs_<split>.csv   columns filepath and label
        images                                at filepath, below the folder or beside it

A label is a class's name, or its number counted from 0.
"""

import re
from pathlib import Path

from rsclip_jax.data.catalog.prompts import SKYCLIP_TEMPLATES
from rsclip_jax.data.readers.folders import in_split, no_split, parse_split
from rsclip_jax.data.types import SPLITS, Dataset, Entry, Listing
from rsclip_jax.io.texts import read_csv, read_lines, shown

_TABLE = re.compile(r"(?:\w+_)?img_txt_pairs_(train|val|test)\.csv")


def describe(name: str, folder: Path, path: str) -> Dataset:
    """Describes a dataset by its classnames.txt. name: "skyscript:<path>"."""
    file = folder / "classnames.txt"
    if not file.is_file():
        raise FileNotFoundError(f"{file} is missing: it has the classes, one a line")
    lines = read_lines(file)
    names = tuple(line for _, line in lines)
    if [number for number, _ in lines] != list(range(1, len(names) + 1)):
        raise ValueError(f"{file}: a line within it is empty, so it names no class")
    if len(set(names)) < len(names):
        raise ValueError(f"{file}: a class is named twice; give each its own name")
    return Dataset(
        name,
        "skyscript",
        "single",
        {"rgb": "rgb"},
        names,
        names,
        SKYCLIP_TEMPLATES,
        (path,),
    )


def skyscript_entries(folder: Path, split: str, classes: tuple[str, ...]) -> Listing:
    """Lists a split by its table; rows without a label are left out, as the authors do.

    Raises FileNotFoundError for a split without a table, ValueError for a table without
    the columns, and for a row with an unknown label or a path that is listed twice.
    """
    name, _, _ = parse_split(split)
    there = {
        m[1]: p for p in sorted(folder.iterdir()) if (m := _TABLE.fullmatch(p.name))
    }
    if not there:
        raise FileNotFoundError(f"{folder}: no table such as img_txt_pairs_test.csv")
    if name not in (*there, "all"):
        raise no_split(folder, name, list(there))
    part = in_split(split, made=True)
    entries: list[Entry] = []
    absent: dict[Path, list[str]] = {}
    for one in (s for s in SPLITS if s in there and name in (s, "all")):
        for path, label in _read_table(there[one], classes).items():
            if not part(path):
                continue
            file = next((p for p in _places(folder, path) if p.is_file()), None)
            if file is None:
                absent.setdefault(there[one], []).append(path)
            else:
                id_ = f"{one}/{path}"
                entries.append(Entry(id_, label, {"rgb": file}, hash_key=path))
    return Listing(
        entries, absent=absent, rule=", ".join(p.name for p in there.values())
    )


def _places(folder: Path, path: str) -> tuple[Path, ...]:
    return (folder / path, folder.parent / path, folder / "images" / path)


def _read_table(path: Path, classes: tuple[str, ...]) -> dict[str, str]:
    """{filepath: class} of a table, without rows that have no label."""
    rows = read_csv(path)
    _, header = next(rows, (0, []))
    if lost := [c for c in ("filepath", "label") if c not in header]:
        raise ValueError(
            f"{path}: no column {', '.join(lost)}; it has {shown(header, 300)}"
        )
    image, label = header.index("filepath"), header.index("label")
    numbers = {str(i): name for i, name in enumerate(classes)}
    numbers |= {f"{i}.0": name for i, name in enumerate(classes)}
    known = numbers | {name: name for name in classes}
    found: dict[str, str] = {}
    for line, row in rows:
        if len(row) != len(header):
            raise ValueError(f"{path}, line {line}: cut short: {shown(row)}")
        if not row[label]:
            continue
        if row[label] not in known:
            raise ValueError(
                f"{path}, line {line}: label {shown(row[label])} is neither a line of"
                f" classnames.txt nor a number from 0 to {len(classes) - 1}"
            )
        if row[image] in found:
            raise ValueError(f"{path}, line {line}: {row[image]} is listed twice")
        found[row[image]] = known[row[label]]
    return found

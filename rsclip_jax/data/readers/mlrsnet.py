"""MLRSNet's several labels an image (Qi et al. 2020).

<folder>/Images/<category>/<image>   beside Labels/<category>.csv: a row an image, its
file's name and a column of 0 and 1 for each of the 60 labels.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from rsclip_jax.data.readers.folders import images_in, in_split
from rsclip_jax.data.readers.scenes import class_folders, plain_name
from rsclip_jax.data.types import Entry, Listing
from rsclip_jax.io.texts import read_csv, shown

_SPELLED = {"habor": "harbor"}  # a column's name in the published tables
_BITS = {"0": False, "1": True, "0.0": False, "1.0": True}


def multi_entries(folder: Path, split: str, classes: Sequence[str]) -> Listing:
    """Lists a split in the tables' order; images that do not exist are absent.

    A hash makes the splits. Raises FileNotFoundError for a missing folder, ValueError
    for a table with other labels, and for an image that is listed twice.
    """
    images, labels = _named(folder, "Images"), _named(folder, "Labels")
    tables = {path.stem: path for path in sorted(labels.glob("*.csv"))}
    if not tables:
        raise FileNotFoundError(f"{labels}: no <category>.csv in it")
    there = class_folders(images, list(tables))
    wanted = in_split(split)
    entries: list[Entry] = []
    absent: dict[Path, list[str]] = {}
    for category, path in tables.items():
        below = images_in(there[category]) if category in there else []
        files = {file.name: file for file in below}
        for name, found in _read_table(path, classes).items():
            id_ = f"{category}/{Path(name).stem}"
            if name not in files:
                absent.setdefault(path, []).append(name)
            elif wanted(id_):
                entries.append(Entry(id_, "", {"rgb": files[name]}, found))
    return Listing(entries, absent=absent)


def _named(folder: Path, name: str) -> Path:
    for path in (folder / name, folder / name.lower()):
        if path.is_dir():
            return path
    raise FileNotFoundError(f"{folder}: no folder {name} in it")


def _read_table(path: Path, classes: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """{file name: labels} of a table."""
    rows = read_csv(path)
    _, header = next(rows, (0, []))
    columns = _columns(path, header[1:], classes)
    found: dict[str, tuple[str, ...]] = {}
    for line, (name, *cells) in rows:
        bits = [_BITS.get(cell) for cell in cells]
        if len(cells) != len(columns) or None in bits:
            raise ValueError(
                f"{path}, line {line}: expected a file's name and {len(columns)}"
                f" numbers 0 or 1, found {shown([name, *cells])}"
            )
        if name in found:
            raise ValueError(f"{path}, line {line}: {name} is listed twice")
        found[name] = tuple(
            label for label, bit in zip(columns, bits, strict=True) if bit
        )
    return found


def _columns(path: Path, header: Sequence[str], classes: Sequence[str]) -> list[str]:
    """The class of each column, by its name."""
    known = {plain_name(name): name for name in classes}
    wanted: Mapping[str, str] = {**known, **_SPELLED}
    columns = [wanted.get(plain_name(name), name) for name in header]
    strange = [name for name in columns if name not in classes]
    lost = [name for name in classes if name not in columns]
    if strange or lost or len(columns) != len(classes):
        raise ValueError(
            f"{path}: its columns have no label {shown(lost, 300)}, and"
            f" {shown(strange, 300)} are not known; it should have a column for each of"
            f" the {len(classes)} labels"
        )
    return columns

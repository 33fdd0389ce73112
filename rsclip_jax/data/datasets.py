"""open_source: any dataset of the table as a sequence of records."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

from rsclip_jax.data.readers import bigearthnet, pairs
from rsclip_jax.data.readers.folders import (
    Entry,
    class_folder_entries,
    paired_folder_entries,
)
from rsclip_jax.data.readers.packed import open_packed
from rsclip_jax.data.rows import DATASETS
from rsclip_jax.data.sources import Dataset, FileSource, MiniatureSource, Source
from rsclip_jax.lookup import look_up

# Where a folder is that of no other set: what must lie in it.
_MARKS = {
    "bigearthnet_v1": bigearthnet.S2_V1,
    "bigearthnet_v2": bigearthnet.S2_V2,
}
_SSL4EO_FILES = {
    "s1": ("VV", "VH"),
    "s2c": tuple("B1 B2 B3 B4 B5 B6 B7 B8 B8A B9 B10 B11 B12".split()),
}


def get_dataset(name: str) -> Dataset:
    """The row of that name; ValueError with the nearest and the list otherwise."""
    return look_up(DATASETS, name, "dataset")


def open_source(
    name: str,
    root: str | Path = "",
    split: str = "all",
    *,
    on_error: str = "raise",
    max_nodata: float = 0.0,
    packed: bool = True,
) -> Source:
    """A dataset's split as a random-access sequence of records.

    A record is {"id", "label", "rgb" | "s1" | ...: [h, w, c]} in the file's units,
    bands in SENSORS order; label is an int, multi-hot uint8, or -1 in an unlabelled
    set. root is the data_root: the set lies at root/<name>/ or by its public folder
    name. split: train, val, test, all, or a part such as "train[:90%]" (by hash of the
    id). on_error: "skip" leaves out pairs without a partner, counted, instead of
    raising. max_nodata: the share of a patch's pixels that may be missing, and are then
    filled (see fill_missing); 0 refuses NaN and leaves nodata as it is. Where the set
    lies packed in root/<name>/<split>/ (configs/pack.py), it is read from there as it
    was packed, unless packed is False.
    """
    if not 0 <= max_nodata < 1:
        raise ValueError(
            f"config.data.max_nodata = {max_nodata} should be 0 or more, below 1"
        )
    row = dataclasses.replace(get_dataset(name), max_nodata=max_nodata)
    if packed and (source := open_packed(row, root, split)):
        return source
    if row.kind == "miniature":
        return MiniatureSource(row, split)
    source = _OPENERS[row.kind](row, find_folder(row, root), split, on_error)
    if not len(source):
        folder = find_folder(row, root)
        raise FileNotFoundError(f"{folder}: no images in split {split!r} of {name}")
    return source


def find_folder(row: Dataset, root: str | Path) -> Path:
    """Where the dataset lies; FileNotFoundError says where it was looked for."""
    mark = _MARKS.get(row.kind, "")
    looked = [f"{folder}/{mark}".strip("/") for folder in row.folders]
    if not str(root):
        raise FileNotFoundError(
            f"dataset {row.name} is read from files: set --config.data_root to the"
            f" folder that holds {' or '.join(looked)}"
        )
    if not Path(root).is_dir():
        raise FileNotFoundError(
            f"config.data_root = {root} is not a folder; it should hold"
            f" {' or '.join(looked)}"
        )
    for folder in row.folders:
        if (Path(root) / folder / mark).is_dir():
            return Path(root) / folder
    raise FileNotFoundError(
        f"config.data_root = {root} holds none of {', '.join(looked)}, where"
        f" dataset {row.name} would be"
    )


Opener = Callable[[Dataset, Path, str, str], Source]


def _open_class_folders(
    row: Dataset, folder: Path, split: str, on_error: str
) -> Source:
    key = next(key for key in row.sensors if key not in row.composites)
    return FileSource(row, split, class_folder_entries(folder, split, row.classes, key))


def _open_paired_folders(
    row: Dataset, folder: Path, split: str, on_error: str
) -> Source:
    entries, stray = paired_folder_entries(folder, split, row.subfolders)
    return _pairs(row, split, entries, stray, on_error)


def _open_bigearthnet_v1(
    row: Dataset, folder: Path, split: str, on_error: str
) -> Source:
    entries, stray = bigearthnet.v1_entries(folder, split, row.sensors)
    return _pairs(row, split, entries, stray, on_error)


def _open_bigearthnet_v2(
    row: Dataset, folder: Path, split: str, on_error: str
) -> Source:
    return FileSource(row, split, bigearthnet.v2_entries(folder, split, row.sensors))


def _open_ssl4eo(row: Dataset, folder: Path, split: str, on_error: str) -> Source:
    entries, stray = pairs.ssl4eo_entries(folder, split, _SSL4EO_FILES)
    renamed = [
        dataclasses.replace(e, files={"s1": e.files["s1"], "s2": e.files["s2c"]})
        for e in entries
    ]
    return _pairs(row, split, renamed, stray, on_error)


def _open_sen1floods11(row: Dataset, folder: Path, split: str, on_error: str) -> Source:
    entries, stray = pairs.sen1floods_entries(folder, split)
    return _pairs(row, split, entries, stray, on_error)


_OPENERS: dict[str, Opener] = {
    "class_folders": _open_class_folders,
    "paired_folders": _open_paired_folders,
    "bigearthnet_v1": _open_bigearthnet_v1,
    "bigearthnet_v2": _open_bigearthnet_v2,
    "ssl4eo": _open_ssl4eo,
    "sen1floods11": _open_sen1floods11,
}


def _pairs(
    row: Dataset, split: str, entries: list[Entry], stray: list[Path], on_error: str
) -> Source:
    """The source, unless files without a partner are an error."""
    if stray:
        shown = ", ".join(str(p) for p in stray[:5]) + (", ..." if stray[5:] else "")
        text = f"{len(stray)} file(s) have no partner: {shown}"
        if on_error != "skip":
            raise ValueError(
                f"{text}; add the partner, or --config.data.on_error=skip leaves them"
                " out"
            )
        print(f"warning: {text}; left out", flush=True)
    return FileSource(row, split, entries)

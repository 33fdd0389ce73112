"""open_source: any dataset of the table as a sequence of records."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

from rsclip_jax.data.readers import bigearthnet, pairs
from rsclip_jax.data.readers.arrays import find_arrays, read_arrays
from rsclip_jax.data.readers.fmow import fmow_entries
from rsclip_jax.data.readers.folders import (
    Entry,
    class_folder_entries,
    paired_folder_entries,
    split_folders,
)
from rsclip_jax.data.readers.packed import open_packed
from rsclip_jax.data.readers.split_lists import find_lists, listed_entries, shown
from rsclip_jax.data.rows import DATASETS
from rsclip_jax.data.sources import (
    ArraySource,
    Dataset,
    FileSource,
    MiniatureSource,
    Source,
)
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
_UNPACK = {
    "train": "beside it: mkdir train && tar -xf ILSVRC2012_img_train.tar -C train && cd"
    " train && for t in *.tar; do mkdir ${t%.tar} && tar -xf $t -C ${t%.tar}; done",
    "val": "its images belong into val/<synset>/, by the ground truth and the meta.mat"
    " of ILSVRC2012_devkit_t12",
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
    packed: bool = True,
) -> Source:
    """A dataset's split as a random-access sequence of records.

    A record is {"id", "label", "rgb" | "s1" | ...: [h, w, c]} in the file's units,
    bands in SENSORS order; label is an int, multi-hot uint8, or -1 in an unlabelled
    set. root is the data_root: the set lies at root/<name>/ or by its public folder
    name. split: train, val, test, all, or a part such as "train[:90%]" (by hash of the
    id); the row's official lists make it where they lie, else the archive's folders,
    else a hash. on_error: "skip" leaves out pairs without a partner, and images that a
    list names and that are absent, counted, instead of raising. Where the set lies
    packed in root/<name>/<split>/ (configs/pack.py), it is read from there, unless
    packed is False.
    """
    row = get_dataset(name)
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
    lists = _lists(row, folder)
    if not lists:
        entries = class_folder_entries(folder, split, row.classes, key)
        return FileSource(row, split, entries)
    entries, absent = listed_entries(folder, lists, split, row.classes, key)
    rule = row.split_lists.format(split="*")
    return _listed(row, split, entries, absent, rule, on_error)


def _lists(row: Dataset, folder: Path) -> dict[str, Path]:
    """{split: its list}, in the set's folder or above it, as far as the data root."""
    names = [Path(name).parts for name in row.folders]
    depth = max((len(n) for n in names if folder.parts[-len(n) :] == n), default=0)
    above = [folder, *folder.parents[:depth]] if row.split_lists else []
    lists = find_lists(above, row.split_lists)
    if row.needs_lists and not lists:
        wanted = [row.split_lists.format(split=s) for s in ("train", "val", "test")]
        raise FileNotFoundError(
            f"{row.name} is split by its lists, {', '.join(wanted)}, and none lies in"
            f" {' or '.join(map(str, above))}"
        )
    if lists and (folders := split_folders(folder, row.classes)):
        raise ValueError(
            f"{folder} has folders {', '.join(folders)}, and lists such as"
            f" {next(iter(lists.values()))} lie there: two splits of one set; take the"
            " lists away, or undo the folders"
        )
    return lists


def _listed(
    row: Dataset,
    split: str,
    entries: list[Entry],
    absent: dict[Path, list[str]],
    rule: str,
    on_error: str,
) -> Source:
    """The source, unless images that a list names and that are absent are an error."""
    for file, names in absent.items():
        text = f"{file}: {len(names)} of its images are absent: {shown(names)}"
        if on_error != "skip":
            raise ValueError(
                f"{text}; fetch them, or --config.data.on_error=skip leaves them out"
            )
        print(f"warning: {text}; left out", flush=True)
    return FileSource(row, split, entries, rule)


def _open_arrays(row: Dataset, folder: Path, split: str, on_error: str) -> Source:
    """The arrays where they lie there: their pixels are the original ones."""
    if found := find_arrays(row.name, folder):
        return ArraySource(row, split, read_arrays(*found, split, row.classes))
    return _open_class_folders(row, folder, split, on_error)


def _open_fmow(row: Dataset, folder: Path, split: str, on_error: str) -> Source:
    entries, absent, rule = fmow_entries(folder, split, row.classes)
    return _listed(row, split, entries, absent, rule, on_error)


def _open_imagenet(row: Dataset, folder: Path, split: str, on_error: str) -> Source:
    for name, part in {"train": "train", "val": "val", "all": "train"}.items():
        tar = folder / f"ILSVRC2012_img_{part}.tar"
        if split.startswith(name) and tar.exists() and not (folder / part).is_dir():
            raise FileNotFoundError(f"{tar} is not unpacked; {_UNPACK[part]}")
    return _open_class_folders(row, folder, split, on_error)


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
    "arrays": _open_arrays,
    "fmow": _open_fmow,
    "imagenet": _open_imagenet,
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

"""From an archive's folder to a source: one way for each kind of dataset."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from rsclip_jax.data.catalog.datasets import DATASETS
from rsclip_jax.data.open.locate import MARKS, find_folder
from rsclip_jax.data.readers import bigearthnet, captions, pairs, sen12ms
from rsclip_jax.data.readers.arrays import find_arrays, read_arrays
from rsclip_jax.data.readers.fmow import fmow_entries
from rsclip_jax.data.readers.folders import (
    class_folder_entries,
    find_classes,
    first_of,
    paired_folder_entries,
    plain_folder_entries,
    splits_there,
)
from rsclip_jax.data.readers.split_lists import find_lists, listed_entries
from rsclip_jax.data.readers.tables import check_labels, read_table, table_entries
from rsclip_jax.data.sources import tfds, webdataset
from rsclip_jax.data.sources.files import ArraySource, FileSource, leave_out
from rsclip_jax.data.sources.imagenet_tars import TARS, TarImages
from rsclip_jax.data.sources.so2sat import So2SatSource
from rsclip_jax.data.types import SPLIT_NAMES, Dataset, Entry, LeftOut, Source

_SSL4EO_FILES = {
    "s1": ("VV", "VH"),
    "s2c": tuple("B1 B2 B3 B4 B5 B6 B7 B8 B8A B9 B10 B11 B12".split()),
}


Opener = Callable[[Dataset, Path, str, str], Source]


def _open_class_folders(
    row: Dataset, folder: Path, split: str, on_error: str
) -> Source:
    key = next(key for key in row.sensors if key not in row.composites)
    if lists := _lists(row, folder):
        entries = class_folder_entries(
            folder, "all", row.classes, key, all_there=not row.partial
        )
        return _by_lists(row, split, entries, lists, on_error)
    names, named = _splits_of(row), bool(row.classes)
    if not named:
        row = row.with_classes(find_classes(folder, names))
    strict = named and not row.partial
    entries = class_folder_entries(
        folder, split, row.classes, key, names, all_there=strict
    )
    if row.custom:
        _check_ids(entries)
    return FileSource(row, split, entries)


def _check_ids(entries: Sequence[Entry]) -> None:
    """Raises ValueError for two files that differ in their suffixes alone."""
    seen: dict[str, Entry] = {}
    for entry in entries:
        first = seen.setdefault(entry.id, entry)
        if first is not entry:
            files = ", ".join(str(x) for e in (first, entry) for x in e.files.values())
            raise ValueError(f"{files}: two files of one name; keep one of them")


def _open_folder(row: Dataset, folder: Path, split: str, on_error: str) -> Source:
    key = next(key for key in row.sensors if key not in row.composites)
    return FileSource(row, split, plain_folder_entries(folder, split, key))


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
    if lists and (folders := splits_there(folder, row.classes)):
        raise ValueError(
            f"{folder} has folders {', '.join(folders)}, and lists such as"
            f" {next(iter(lists.values()))} lie there: two splits of one set; take the"
            " lists away, or undo the folders"
        )
    return lists


def _by_lists(
    row: Dataset,
    split: str,
    entries: list[Entry],
    lists: Mapping[str, Path],
    on_error: str,
    stray: Sequence[Path] = (),
) -> Source:
    """The split that the row's lists make of all entries of its set."""
    left_out = _check_stray(stray, on_error)
    entries, absent = listed_entries(entries, lists, split, stray)
    rule = row.split_lists.format(split="*")
    return _listed(row, split, entries, absent, rule, on_error, left_out)


def _listed(
    row: Dataset,
    split: str,
    entries: list[Entry],
    absent: dict[Path, list[str]],
    rule: str,
    on_error: str,
    left_out: Sequence[LeftOut] = (),
) -> Source:
    """The source, unless images that a list names and that are absent are an error."""
    left_out = [*left_out, *_check_absent(absent, on_error)]
    return FileSource(row, split, entries, split_rule=rule, left_out=left_out)


def _open_arrays(row: Dataset, folder: Path, split: str, on_error: str) -> Source:
    """The arrays where they lie there: their pixels are the original ones."""
    if found := find_arrays(row.name, folder):
        return ArraySource(row, split, read_arrays(*found, split, row.classes))
    return _open_class_folders(row, folder, split, on_error)


def _open_fmow(row: Dataset, folder: Path, split: str, on_error: str) -> Source:
    entries, absent, rule = fmow_entries(folder, split, row.classes)
    return _listed(row, split, entries, absent, rule, on_error)


def _open_imagenet(row: Dataset, folder: Path, split: str, on_error: str) -> Source:
    """Unpacked, or as it is downloaded: a tar for train and one for val."""
    tars = [s for s, tar in TARS.items() if (folder / tar).is_file()]
    if tars and not any((folder / part).is_dir() for part in TARS):
        return TarImages(row, folder, split)
    return _open_class_folders(row, folder, split, on_error)


def _open_paired_folders(
    row: Dataset, folder: Path, split: str, on_error: str
) -> Source:
    names, named = _splits_of(row), row.task == "none" or bool(row.classes)
    if not named:
        found = find_classes(folder, names, row.subfolders.values())
        row = row.with_classes(found)
    entries, stray = paired_folder_entries(
        folder,
        split,
        row.subfolders,
        names,
        row.classes,
        all_there=named and not row.partial,
    )
    return _pairs(row, split, entries, stray, on_error)


def _open_eurosat_s1_s2(
    row: Dataset, folder: Path, split: str, on_error: str
) -> Source:
    s2 = find_folder(DATASETS["eurosat_ms"], folder).relative_to(folder)
    trees = {"s2": str(s2), "s1": MARKS[row.kind]}
    lists = _lists(row, folder)
    entries, stray = paired_folder_entries(
        folder,
        "all" if lists else split,
        trees,
        classes=row.classes,
        all_there=not row.partial,
    )
    if not lists:
        return _pairs(row, split, entries, stray, on_error)
    return _by_lists(row, split, entries, lists, on_error, stray)


def _splits_of(row: Dataset) -> Mapping[str, str]:
    return row.custom.splits if row.custom else SPLIT_NAMES


def _open_table(row: Dataset, folder: Path, split: str, on_error: str) -> Source:
    custom = row.custom
    assert custom is not None
    assert custom.table is not None
    rows = read_table(
        custom.table,
        row.kind,
        folder,
        custom.columns,
        separator=custom.separator,
        splits=custom.splits,
    )
    if row.task != "none" and not row.classes:
        row = row.with_classes(sorted({x for r in rows for x in r.labels}))
    if row.task != "none":
        check_labels(custom.table, rows, row.classes)
    entries, absent = table_entries(custom.table, rows, split)
    if absent:
        leave_out(
            f"{custom.table}: {len(absent)} file(s) of {split} are not there:"
            f" {first_of(absent)}",
            "add them; their paths are to be relative to the file's key folder, or"
            " without it to the table",
            on_error,
        )
    left_out = [(str(path), f"not there, but in {custom.table}") for path in absent]
    return FileSource(row, split, entries, left_out=left_out)


def _open_bigearthnet_v1(
    row: Dataset, folder: Path, split: str, on_error: str
) -> Source:
    entries, stray, absent, rule = bigearthnet.v1_entries(folder, split, row.sensors)
    left_out = _check_stray(stray, on_error)
    return _listed(row, split, entries, absent, rule, on_error, left_out)


def _open_bigearthnet_v2(
    row: Dataset, folder: Path, split: str, on_error: str
) -> Source:
    entries, absent = bigearthnet.v2_entries(folder, split, row.sensors)
    return _listed(row, split, entries, absent, bigearthnet.TABLE_V2, on_error)


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


def _open_sen12ms(row: Dataset, folder: Path, split: str, on_error: str) -> Source:
    keys = [key for key in row.sensors if key not in row.composites]
    entries, stray, absent, rule = sen12ms.patch_entries(folder, split, keys)
    left_out = _check_stray(stray, on_error)
    left_out += _check_absent(absent, on_error)
    many = row.task == "multi"
    read = sen12ms.read_present if many else sen12ms.read_largest
    return FileSource(row, split, entries, read, rule, left_out)


def _open_so2sat(row: Dataset, folder: Path, split: str, on_error: str) -> Source:
    return So2SatSource(row, folder, split)


def _open_captions(row: Dataset, folder: Path, split: str, on_error: str) -> Source:
    entries, faults = captions.caption_entries(folder, row.name, split)
    if faults:
        text = f"{len(faults)} fault(s) in split {split!r}: {first_of(faults, '; ')}"
        leave_out(f"{folder}: {text}", "correct the JSON or the images", on_error)
    left_out = [(str(folder), fault) for fault in faults]
    return FileSource(row, split, entries, left_out=left_out)


OPENERS: dict[str, Opener] = {
    "class_folders": _open_class_folders,
    "folder": _open_folder,
    "arrays": _open_arrays,
    "fmow": _open_fmow,
    "imagenet": _open_imagenet,
    "paired_folders": _open_paired_folders,
    "eurosat_s1_s2": _open_eurosat_s1_s2,
    "csv": _open_table,
    "parquet": _open_table,
    "bigearthnet_v1": _open_bigearthnet_v1,
    "bigearthnet_v2": _open_bigearthnet_v2,
    "ssl4eo": _open_ssl4eo,
    "sen1floods11": _open_sen1floods11,
    "sen12ms": _open_sen12ms,
    "so2sat": _open_so2sat,
    "captions": _open_captions,
    "wds": webdataset.open_webdataset,
    "tfds": tfds.open_tfds,
}


def _pairs(
    row: Dataset, split: str, entries: list[Entry], stray: list[Path], on_error: str
) -> Source:
    """The source, unless files without a partner are an error."""
    return FileSource(row, split, entries, left_out=_check_stray(stray, on_error))


def _check_stray(stray: Sequence[Path], on_error: str) -> list[LeftOut]:
    """Files without a partner are an error, or left out with a warning."""
    if stray:
        text = f"{len(stray)} file(s) have no partner: {first_of(stray)}"
        leave_out(text, "add the partner", on_error)
    return [(str(path), "has no partner") for path in stray]


def _check_absent(absent: Mapping[Path, Sequence[str]], on_error: str) -> list[LeftOut]:
    """What a list names and is not there is an error, or left out with a warning."""
    for file, names in absent.items():
        text = f"{file}: {len(names)} of its images are absent: {first_of(names)}"
        leave_out(text, "fetch them", on_error)
    return [
        (name, f"absent, but in {file}")
        for file, names in absent.items()
        for name in names
    ]

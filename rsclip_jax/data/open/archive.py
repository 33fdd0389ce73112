"""From an archive's folder to a source: one opener for each layout."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from rsclip_jax.data.bad_records import leave_out
from rsclip_jax.data.catalog.custom import with_classes
from rsclip_jax.data.catalog.datasets import DATASETS
from rsclip_jax.data.open.locate import MARKS, find_folder
from rsclip_jax.data.readers import bigearthnet, captions, pairs, sen12ms
from rsclip_jax.data.readers.arrays import find_arrays, read_arrays
from rsclip_jax.data.readers.fmow import fmow_entries
from rsclip_jax.data.readers.folders import (
    class_folder_entries,
    find_classes,
    paired_folder_entries,
    plain_folder_entries,
    splits_there,
)
from rsclip_jax.data.readers.mlrsnet import multi_entries
from rsclip_jax.data.readers.scenes import (
    find_flat_classes,
    flat_entries,
    scene_entries,
)
from rsclip_jax.data.readers.skyscript import skyscript_entries
from rsclip_jax.data.readers.split_lists import find_lists, listed_entries
from rsclip_jax.data.readers.tables import check_labels, read_table, table_entries
from rsclip_jax.data.sources import tfds, webdataset
from rsclip_jax.data.sources.files import FileSource
from rsclip_jax.data.sources.geobench import GeoBench
from rsclip_jax.data.sources.imagenet_tars import TARS, TarImages
from rsclip_jax.data.sources.memory import ArraySource
from rsclip_jax.data.sources.parquet import EmbeddedImages, Images
from rsclip_jax.data.sources.so2sat import So2SatSource
from rsclip_jax.data.types import (
    SPLIT_NAMES,
    Dataset,
    Entry,
    LeftOut,
    Listing,
    OpenOptions,
    Source,
)
from rsclip_jax.io.texts import first_of

Opener = Callable[[Dataset, Path, str, OpenOptions], Source]


def _open_listing(
    dataset: Dataset,
    split: str,
    listing: Listing,
    options: OpenOptions,
    read_labels: Callable[[Path], tuple[str, ...]] = bigearthnet.read_labels,
) -> Source:
    """Opens a reader's listing; its faults raise an error or are left out.

    Raises ValueError for two files that differ only in their suffix.
    """
    _check_ids(listing.entries)
    left_out = _leave_out_faults(dataset, split, listing, options.on_error)
    return FileSource(
        dataset, split, listing.entries, options, read_labels, listing.rule, left_out
    )


def _leave_out_faults(
    dataset: Dataset, split: str, listing: Listing, on_error: str
) -> list[LeftOut]:
    left_out = [(str(path), "has no partner") for path in listing.stray]
    if stray := listing.stray:
        text = f"{len(stray)} file(s) have no partner: {first_of(stray)}"
        leave_out(text, "add the partner", on_error)
    for file, names in listing.absent.items():
        text = f"{file}: {len(names)} of its images are absent: {first_of(names)}"
        leave_out(text, f"add them{_relative_to(dataset)}", on_error)
        left_out += [(name, f"absent, but in {file}") for name in names]
    for folder, faults in listing.faults.items():
        shown = first_of(faults, "; ")
        text = f"{folder}: {len(faults)} fault(s) in split {split!r}: {shown}"
        leave_out(text, "correct them", on_error)
        left_out += [(str(folder), fault) for fault in faults]
    return left_out


def _relative_to(dataset: Dataset) -> str:
    """For a custom dataset, what its table's paths are relative to."""
    if dataset.custom is None:
        return ""
    return f" (paths in the table are relative to {dataset.custom.folder})"


def _open_class_folders(
    dataset: Dataset, folder: Path, split: str, options: OpenOptions
) -> Source:
    key = _image_key(dataset)
    names, named = _splits_of(dataset), bool(dataset.classes)
    strict = named and not options.partial
    if lists := _find_lists(dataset, folder):
        listing = scene_entries(folder, "all", dataset.classes, key, all_there=strict)
        return _open_by_lists(dataset, split, listing, lists, options)
    if dataset.custom is None:
        listing = scene_entries(folder, split, dataset.classes, key, all_there=strict)
        return _open_listing(dataset, split, listing, options)
    if not named:
        dataset = with_classes(dataset, find_classes(folder, names))
    listing = class_folder_entries(
        folder, split, dataset.classes, key, names, all_there=strict
    )
    return _open_listing(dataset, split, listing, options)


def _open_flat(
    dataset: Dataset, folder: Path, split: str, options: OpenOptions
) -> Source:
    names = _splits_of(dataset)
    if not dataset.classes:
        dataset = with_classes(dataset, find_flat_classes(folder, names))
    key = _image_key(dataset)
    listing = flat_entries(folder, split, dataset.classes, key, names)
    return _open_listing(dataset, split, listing, options)


def _image_key(dataset: Dataset) -> str:
    """The record key of the files, where there is one file for each record."""
    return next(key for key in dataset.sensors if key not in dataset.composites)


def _check_ids(entries: Sequence[Entry]) -> None:
    if len({entry.id for entry in entries}) == len(entries):
        return
    seen: dict[str, Entry] = {}
    for entry in entries:
        first = seen.setdefault(entry.id, entry)
        if first is not entry:
            files = first_of([x for e in (first, entry) for x in e.files.values()])
            raise ValueError(f"{files}: files with the same name; keep one of them")


def _find_lists(dataset: Dataset, folder: Path) -> dict[str, Path]:
    """{split: its list}, in the dataset's folder or above it, up to the data root."""
    names = [Path(name).parts for name in dataset.folders]
    depth = max((len(n) for n in names if folder.parts[-len(n) :] == n), default=0)
    above = [folder, *folder.parents[:depth]] if dataset.split_lists else []
    lists = find_lists(above, dataset.split_lists)
    if dataset.needs_lists and not lists:
        wanted = [dataset.split_lists.format(split=s) for s in SPLIT_NAMES]
        raise FileNotFoundError(
            f"{dataset.name} needs its split lists, {', '.join(wanted)}; none is in"
            f" {' or '.join(map(str, above))}"
        )
    if lists and (folders := splits_there(folder, dataset.classes)):
        raise ValueError(
            f"{folder} has folders {', '.join(folders)} and lists such as"
            f" {next(iter(lists.values()))}: these split the dataset in two ways;"
            " remove the lists, or merge the folders"
        )
    return lists


def _open_by_lists(
    dataset: Dataset,
    split: str,
    listing: Listing,
    lists: Mapping[str, Path],
    options: OpenOptions,
) -> Source:
    """Opens a split by the dataset's lists; listing: all its examples."""
    listing = dataclasses.replace(
        listed_entries(listing, lists, split),
        rule=dataset.split_lists.format(split="*"),
    )
    return _open_listing(dataset, split, listing, options)


def _open_arrays(
    dataset: Dataset, folder: Path, split: str, options: OpenOptions
) -> Source:
    """Prefers arrays to image files, since their pixels are the original ones."""
    if found := find_arrays(dataset.name, folder):
        arrays = read_arrays(*found, split, dataset.classes)
        return ArraySource(dataset, split, arrays, options)
    return _open_class_folders(dataset, folder, split, options)


def _open_imagenet(
    dataset: Dataset, folder: Path, split: str, options: OpenOptions
) -> Source:
    """Reads unpacked folders, or the downloaded tars: one for train, one for val."""
    tars = [s for s, tar in TARS.items() if (folder / tar).is_file()]
    if tars and not any((folder / part).is_dir() for part in TARS):
        return TarImages(dataset, folder, split, options)
    return _open_class_folders(dataset, folder, split, options)


def _open_paired_folders(
    dataset: Dataset, folder: Path, split: str, options: OpenOptions
) -> Source:
    names = _splits_of(dataset)
    named = dataset.task == "none" or bool(dataset.classes)
    if not named:
        found = find_classes(folder, names, dataset.subfolders.values())
        dataset = with_classes(dataset, found)
    listing = paired_folder_entries(
        folder,
        split,
        dataset.subfolders,
        names,
        dataset.classes,
        all_there=named and not options.partial,
    )
    return _open_listing(dataset, split, listing, options)


def _open_eurosat_s1_s2(
    dataset: Dataset, folder: Path, split: str, options: OpenOptions
) -> Source:
    s2 = find_folder(DATASETS["eurosat_ms"], folder).relative_to(folder)
    lists = _find_lists(dataset, folder)
    listing = paired_folder_entries(
        folder,
        "all" if lists else split,
        {"s2": str(s2), "s1": MARKS[dataset.kind]},
        classes=dataset.classes,
        all_there=not options.partial,
    )
    if lists:
        return _open_by_lists(dataset, split, listing, lists, options)
    return _open_listing(dataset, split, listing, options)


def _splits_of(dataset: Dataset) -> Mapping[str, str]:
    return dataset.custom.splits if dataset.custom else SPLIT_NAMES


def _open_table(
    dataset: Dataset, folder: Path, split: str, options: OpenOptions
) -> Source:
    custom = dataset.custom
    assert custom is not None
    assert custom.table is not None
    table = read_table(
        custom.table,
        dataset.kind,
        folder,
        custom.columns,
        separator=custom.separator,
        splits=custom.splits,
        classes=dataset.classes,
    )
    rows = table.rows
    if dataset.task != "none":
        if not dataset.classes:
            found = sorted({label for row in rows for label in row.labels})
            dataset = with_classes(dataset, table.classes or found)
        check_labels(custom.table, rows, dataset.classes)
    label = custom.columns["label"] if dataset.task != "none" else ""
    listing = table_entries(custom.table, rows, split, label)
    if not table.images:
        return _open_listing(dataset, split, listing, options)
    left_out = _leave_out_faults(dataset, split, listing, options.on_error)
    numbers = {row.id: row.line - 1 for row in rows}
    images = Images(custom.table, table.images, numbers)
    return EmbeddedImages(dataset, split, listing.entries, options, images, left_out)


def _open_sen12ms(
    dataset: Dataset, folder: Path, split: str, options: OpenOptions
) -> Source:
    keys = [key for key in dataset.sensors if key not in dataset.composites]
    listing = sen12ms.patch_entries(folder, split, keys)
    many = dataset.task == "multi"
    read = sen12ms.read_present if many else sen12ms.read_largest
    return _open_listing(dataset, split, listing, options, read)


def _opener(read: Callable[[Dataset, Path, str], Listing]) -> Opener:
    """The opener of a layout that needs only its reader: (dataset, folder, split)."""

    def open_listed(
        dataset: Dataset, folder: Path, split: str, options: OpenOptions
    ) -> Source:
        listing = read(dataset, folder, split)
        return _open_listing(dataset, split, listing, options)

    return open_listed


OPENERS: dict[str, Opener] = {
    "class_folders": _open_class_folders,
    "flat": _open_flat,
    "mlrsnet": _opener(lambda d, f, s: multi_entries(f, s, d.classes)),
    "skyscript": _opener(lambda d, f, s: skyscript_entries(f, s, d.classes)),
    "folder": _opener(lambda d, f, s: plain_folder_entries(f, s, _image_key(d))),
    "arrays": _open_arrays,
    "fmow": _opener(lambda d, f, s: fmow_entries(f, s, d.classes)),
    "imagenet": _open_imagenet,
    "paired_folders": _open_paired_folders,
    "eurosat_s1_s2": _open_eurosat_s1_s2,
    "csv": _open_table,
    "parquet": _open_table,
    "bigearthnet_v1": _opener(lambda d, f, s: bigearthnet.v1_entries(f, s, d.sensors)),
    "bigearthnet_v2": _opener(lambda d, f, s: bigearthnet.v2_entries(f, s, d.sensors)),
    "bigearthnet_txt": _opener(lambda d, f, s: bigearthnet.text_entries(f, s)),
    "bigearthnet_txt_bench": _opener(
        lambda d, f, s: bigearthnet.text_entries(f, s, bench=True)
    ),
    "ssl4eo": _opener(lambda d, f, s: pairs.ssl4eo_entries(f, s)),
    "sen1floods11": _opener(lambda d, f, s: pairs.sen1floods_entries(f, s)),
    "sen12ms": _open_sen12ms,
    "so2sat": So2SatSource,
    "geobench": GeoBench,
    "captions": _opener(lambda d, f, s: captions.caption_entries(f, d.name, s)),
    "wds": webdataset.open_webdataset,
    "tfds": tfds.open_tfds,
}

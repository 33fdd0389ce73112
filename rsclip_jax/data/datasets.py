"""open_source: any dataset as a sequence of records, by its name."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

from rsclip_jax.data.catalog.custom import load_dataset
from rsclip_jax.data.catalog.datasets import DATASETS
from rsclip_jax.data.open.archive import OPENERS
from rsclip_jax.data.open.locate import find_folder
from rsclip_jax.data.sources import tfds, webdataset
from rsclip_jax.data.sources.files import MiniatureSource
from rsclip_jax.data.sources.packed import find_manifest, open_packed
from rsclip_jax.data.types import Dataset, Source
from rsclip_jax.io.lookup import look_up

# Sets that are no row of the table: "kind:path" -> the row, told by the files.
_DESCRIBED: dict[str, Callable[[str, Path, str], Dataset]] = {
    "wds": webdataset.describe,
    "tfds": tfds.describe,
}


def get_dataset(name: str, root: str | Path = "", *, packed: bool = True) -> Dataset:
    """The row of that name, or a file's (see load_dataset) if it ends in .toml.

    ValueError with the three nearest otherwise, or with what a path or a name with a
    split would be.

    "wds:<folder>" and "tfds:<name>/<config>" have none in the table: what such a set
    holds is told by its files under root, or by its pack there, unless packed is False.
    FileNotFoundError and ValueError name what it lacks.
    """
    if str(name).endswith(".toml"):
        return load_dataset(name)
    kind, _, path = name.partition(":")
    if kind not in _DESCRIBED or not path:
        if name not in DATASETS:
            _check_name(name)
        return look_up(DATASETS, kind, "dataset", _ALL_NAMES)
    if packed and (manifest := find_manifest(root, name)):
        return _row_of_pack(name, manifest)
    path = path.partition("#")[0].strip("/")
    bare = Dataset(name, kind, "none", {}, folders=(path,))
    try:
        folder = find_folder(bare, root)
    except FileNotFoundError as error:
        if kind != "tfds":
            raise
        command = tfds.prepare_command(path, root)
        raise FileNotFoundError(f"{error}; {command}") from error
    return _DESCRIBED[kind](name, folder, path)


_ALL_NAMES = (
    "rsclip_jax/data/README.md has them, or"
    ' python -c "from rsclip_jax.data.catalog.datasets import DATASETS;'
    ' print(*DATASETS)"'
)


def _check_name(name: str) -> None:
    """Raises ValueError for a name with a split behind it, and for a path."""
    bare, colon, more = name.partition(":")
    if bare in _DESCRIBED:
        raise ValueError(f"dataset {name!r} names no folder: {bare}:FOLDER would")
    if bare in DATASETS and colon:
        raise ValueError(
            f"dataset {name!r}: a name alone is asked for here, {bare!r}, without"
            f" {more!r}, a split"
        )
    if len(Path(name).parts) > 1:
        near = "such as 'eurosat_rgb'"
        for row in reversed(DATASETS.values()):
            for folder in map(Path, filter(None, row.folders)):
                if Path(name).parts[-len(folder.parts) :] == folder.parts:
                    root = Path(*Path(name).parts[: -len(folder.parts)])
                    near = f"here {row.name!r} with root (config.data_root) = {root}"
        raise ValueError(
            f"dataset {name!r} is a path: a set of the table goes by its name, {near};"
            " a folder of your own is described by a TOML file"
            " (rsclip_jax/data/README.md, section A dataset of your own)"
        )


def _row_of_pack(name: str, manifest: dict) -> Dataset:
    return Dataset(
        name,
        name.partition(":")[0],
        manifest["task"],
        {key: sensor["sensor"] for key, sensor in manifest["sensors"].items()},
        tuple(manifest["classes"]),
        tuple(manifest["classnames"]),
        tuple(manifest["templates"]),
    )


def open_source(
    name: str,
    root: str | Path = "",
    split: str = "all",
    *,
    on_error: str = "raise",
    max_nodata: float = 0.0,
    packed: bool = True,
    partial: bool = False,
) -> Source:
    """A dataset's split as a random-access sequence of records.

    A record is {"id", "label", "rgb" | "s1" | ...: [h, w, c]} in the file's units,
    bands in SENSORS order; label is an int, multi-hot uint8, or -1 in a set without
    labels; a captioned set's records have "captions", a tuple of texts. name: of the
    table, or the path of a TOML file, which says where its set lies. root is the
    data_root: the set lies at root/<name>/ or by its public folder name. split: train,
    val, test, all, or a part such as "train[:90%]" (by hash of the id); the row's
    official lists make it where they lie, else the archive's folders, else a hash.
    on_error: "skip" leaves out pairs without a partner, images without caption (or
    captions without image) and images that a list names and that are absent, counted,
    instead of raising. max_nodata: the share of a patch's pixels that may be missing,
    and are then filled (see fill_missing); 0 refuses NaN and leaves nodata as it is.
    Where the set lies packed in root/<name>/<split>/ (configs/pack.py), it is read from
    there as it was packed, unless packed is False. partial: a class may have no folder.
    """
    if not 0 <= max_nodata < 1:
        raise ValueError(
            f"max_nodata (config.data.max_nodata) = {max_nodata} should be 0 or more,"
            " below 1"
        )
    row = get_dataset(name, root, packed=packed)
    row = dataclasses.replace(row, max_nodata=max_nodata, partial=partial)
    if packed and (source := open_packed(row, root, split)):
        return source
    if row.kind == "miniature":
        return MiniatureSource(row, split)
    source = OPENERS[row.kind](row, find_folder(row, root), split, on_error)
    if not len(source):
        folder = find_folder(row, root)
        raise FileNotFoundError(f"{folder}: no images in split {split!r} of {name}")
    return source

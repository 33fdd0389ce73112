"""open_source: opens any dataset by its name as a sequence of records."""

from collections.abc import Callable
from pathlib import Path

from rsclip_jax.data.catalog.custom import load_dataset
from rsclip_jax.data.catalog.datasets import DATASETS
from rsclip_jax.data.open.archive import OPENERS
from rsclip_jax.data.open.locate import find_folder
from rsclip_jax.data.readers import skyscript
from rsclip_jax.data.readers.folders import files_there
from rsclip_jax.data.sources import tfds, webdataset
from rsclip_jax.data.sources.manifest import find_manifest
from rsclip_jax.data.sources.memory import MiniatureSource
from rsclip_jax.data.sources.packed import open_packed
from rsclip_jax.data.types import MAX_PIXELS, Dataset, OpenOptions, Source
from rsclip_jax.io.lookup import look_up

# Datasets outside the catalog, named "kind:path": kind -> what describes their files.
_DESCRIBED: dict[str, Callable[[str, Path, str], Dataset]] = {
    "wds": webdataset.describe,
    "tfds": tfds.describe,
    "skyscript": skyscript.describe,
}


def get_dataset(name: str, root: str | Path = "", *, packed: bool = True) -> Dataset:
    """Finds a dataset of the catalog by its name, or a custom one by its TOML file.

    "wds:<folder>", "skyscript:<folder>" and "tfds:<name>/<config>" are described by
    their files under root, or by their pack there, unless packed is False.

    Raises:
        ValueError: for an unknown name, with the three nearest names; for a path or a
            name with a split, with the name that was probably meant.
        FileNotFoundError: for a TOML file or folder that does not exist.
    """
    if str(name).endswith(".toml"):
        return load_dataset(name)
    kind, _, path = name.partition(":")
    if kind not in _DESCRIBED or not path:
        if name not in DATASETS:
            _check_name(name)
        return look_up(DATASETS, kind, "dataset", _ALL_NAMES)
    if packed and (manifest := find_manifest(root, name)):
        return _describe_pack(name, manifest)
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
    """Raises ValueError for a name with a split, and for a path."""
    bare, colon, more = name.partition(":")
    if bare in _DESCRIBED:
        raise ValueError(f"dataset {name!r} names no folder; write {bare}:FOLDER")
    if bare in DATASETS and colon:
        raise ValueError(
            f"dataset {name!r}: give only the name {bare!r} here, without the split"
            f" {more!r}"
        )
    if len(Path(name).parts) > 1:
        near = "such as 'eurosat_rgb'"
        for dataset in reversed(DATASETS.values()):
            for folder in map(Path, filter(None, dataset.folders)):
                if Path(name).parts[-len(folder.parts) :] == folder.parts:
                    root = Path(*Path(name).parts[: -len(folder.parts)])
                    near = f"here {dataset.name!r} with root = {root}"
        raise ValueError(
            f"dataset {name!r} is a path: give the name of a dataset, {near}. For a"
            " folder of your own give a TOML file that describes it"
            " (rsclip_jax/data/README.md, section A dataset of your own)"
        )


def _describe_pack(name: str, manifest: dict) -> Dataset:
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
    partial: bool = False,
    max_pixels: int = MAX_PIXELS,
    packed: bool = True,
) -> Source:
    """Opens a dataset's split as a random-access sequence of records.

    A record is {"id", "label", "rgb" | "s1" | ...: [h, w, c]} in the file's units, with
    bands in SENSORS order. label is an int, multi-hot uint8, or -1 without labels;
    records of a captioned dataset have "captions", a tuple of texts.

    A pack in root/<name>/<split>/ (written by configs/pack.py) is read instead of the
    archive.

    Args:
        name: a name of the catalog, or the path of a custom dataset's TOML file, which
            names its folder.
        root: the data root; the dataset is at root/<name>/ or in a public folder name.
        split: train, val, test or all; or a part such as "train[:90%]", chosen by the
            hash of the id. The dataset's official lists define the splits where they
            exist, else the archive's folders, else a hash.
        on_error, max_nodata, partial, max_pixels: see OpenOptions.
        packed: whether a pack may be read.

    Raises:
        ValueError: for an unknown name or option, or an archive that is faulty.
        FileNotFoundError: for a dataset or split that does not exist.
    """
    options = OpenOptions(on_error, max_nodata, partial, max_pixels)
    dataset = get_dataset(name, root, packed=packed)
    if packed and (source := open_packed(dataset, root, split, options)):
        return source
    if dataset.kind == "miniature":
        return MiniatureSource(dataset, split, options)
    folder = find_folder(dataset, root)
    opened = OPENERS[dataset.kind](dataset, folder, split, options)
    if not len(opened):
        raise FileNotFoundError(
            f"{folder}: no images in split {split!r} of {name}{files_there(folder)}"
        )
    return opened

"""The table of datasets, and open_source: any of them as a sequence of records."""

import dataclasses
import functools
import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

from rsclip_jax.data import miniature, prompts
from rsclip_jax.data.readers.folders import (
    Entry,
    class_folder_entries,
    paired_folder_entries,
)
from rsclip_jax.data.readers.images import read_image
from rsclip_jax.data.readers.packed import open_packed
from rsclip_jax.data.sensors import SENSORS, check_array
from rsclip_jax.lookup import look_up

Record = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Dataset:
    """One row: what a dataset's files hold and how its classes are called.

    folders: where it may lie under data_root, by its public names. sensors: record key
    -> row of SENSORS. task: "single" (label is an int), "multi" (multi-hot) or "none".
    classes: folder (or class) names in label order.
    """

    name: str
    kind: str  # class_folders | paired_folders | miniature
    task: str
    sensors: dict[str, str]
    classes: tuple[str, ...] = ()
    classnames: tuple[str, ...] = ()
    templates: tuple[str, ...] = ()
    folders: tuple[str, ...] = ()
    subfolders: dict[str, str] = dataclasses.field(default_factory=dict)


class Source(Protocol):
    """A random-access sequence of records that knows its dataset, split and ids."""

    dataset: Dataset
    split: str
    ids: list[str]  # of the records, in order

    def __len__(self) -> int: ...
    def __getitem__(self, index: int) -> Record: ...


RESISC45_CLASSES = tuple(
    """airplane airport baseball_diamond basketball_court beach bridge chaparral church
    circular_farmland cloud commercial_area dense_residential desert forest freeway
    golf_course ground_track_field harbor industrial_area intersection island lake
    meadow medium_residential mobile_home_park mountain overpass palace parking_lot
    railway railway_station rectangular_farmland river roundabout runway sea_ice ship
    snowberg sparse_residential stadium storage_tank tennis_court terrace
    thermal_power_station
    wetland""".split()
)
CIFAR10_CLASSES = tuple(
    "airplane automobile bird cat deer dog frog horse ship truck".split()
)
_MINIATURE_SENSORS = {"rgb": "rgb", "s1": "s1_grd", "s2": "s2_l1c", "ir": "ir_bt"}


def _photos(name, folders, names: dict[str, str], templates) -> Dataset:
    return Dataset(
        name,
        "class_folders",
        "single",
        {"rgb": "rgb"},
        tuple(names),
        tuple(names.values()),
        templates,
        folders,
    )


def _miniature(name, task, sensors, classes, templates) -> Dataset:
    return Dataset(name, "miniature", task, sensors, classes, classes, templates)


_ROWS = (
    _photos(
        "eurosat_rgb",
        ("eurosat_rgb", "EuroSAT_RGB", "2750"),
        prompts.EUROSAT_NAMES,
        prompts.EUROSAT_TEMPLATES,
    ),
    _photos(
        "resisc45",
        ("resisc45", "NWPU-RESISC45"),
        {c: c.replace("_", " ") for c in RESISC45_CLASSES},
        prompts.RESISC45_TEMPLATES,
    ),
    _photos(
        "cifar10",
        ("cifar10", "CIFAR-10", "CIFAR-10-images"),
        {c: c for c in CIFAR10_CLASSES},
        prompts.CIFAR10_TEMPLATES,
    ),
    _photos(
        "imagenette",
        ("imagenette", "imagenette2", "imagenette2-320", "imagenette2-160"),
        prompts.IMAGENETTE_NAMES,
        prompts.IMAGENETTE_TEMPLATES,
    ),
    Dataset(
        "sentinel_pairs",
        "paired_folders",
        "none",
        {"rgb": "rgb", "s1": "s1_vh_8bit"},
        folders=("sentinel_pairs",),
        subfolders={"rgb": "s2_rgb", "s1": "s1_vh"},
    ),
    _miniature(
        "miniature",
        "single",
        _MINIATURE_SENSORS,
        miniature.CLASSES,
        prompts.SATELLITE_TEMPLATES,
    ),
    _miniature(
        "miniature_multi",
        "multi",
        _MINIATURE_SENSORS,
        miniature.CLASSES,
        prompts.SATELLITE_TEMPLATES,
    ),
    _miniature(
        "miniature_aerial",
        "single",
        {"rgb": "rgb"},
        miniature.CLASSES,
        prompts.AERIAL_TEMPLATES,
    ),
    _miniature(
        "miniature_natural",
        "single",
        {"rgb": "rgb"},
        miniature.NATURAL_CLASSES,
        prompts.PHOTO_TEMPLATES,
    ),
)
DATASETS: dict[str, Dataset] = {row.name: row for row in _ROWS}
# Named by configs that state a published setting, so that they can say what is missing.
WITHOUT_READER = ("bigearthnet",)


def get_dataset(name: str) -> Dataset:
    """The row of that name; ValueError with the nearest and the list otherwise."""
    if name in WITHOUT_READER:
        raise ValueError(
            f"dataset {name!r} has no reader in this version; those that have:"
            f" {', '.join(DATASETS)}"
        )
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
    id). on_error: "skip" leaves out pairs without a partner, counted, instead of
    raising. Where the set lies packed in root/<name>/<split>/ (configs/pack.py), it is
    read from there, unless packed is False.
    """
    row = get_dataset(name)
    if packed and (source := open_packed(row, root, split)):
        return source
    if row.kind == "miniature":
        return MiniatureSource(row, split)
    folder = find_folder(row, root)
    if row.kind == "class_folders":
        entries = class_folder_entries(folder, split, row.classes)
    else:
        entries, stray = paired_folder_entries(folder, split, row.subfolders)
        _report_stray(stray, on_error)
    if not entries:
        raise FileNotFoundError(f"{folder}: no images in split {split!r} of {name}")
    return FileSource(row, split, entries)


def find_folder(row: Dataset, root: str | Path) -> Path:
    """Where the dataset lies; FileNotFoundError says where it was looked for."""
    if not str(root):
        raise FileNotFoundError(
            f"dataset {row.name} is read from files: set --config.data_root to the"
            f" folder that holds {' or '.join(row.folders)}"
        )
    if not Path(root).is_dir():
        raise FileNotFoundError(
            f"config.data_root = {root} is not a folder; it should hold"
            f" {' or '.join(row.folders)}"
        )
    for folder in row.folders:
        if (Path(root) / folder).is_dir():
            return Path(root) / folder
    raise FileNotFoundError(
        f"config.data_root = {root} holds none of {', '.join(row.folders)}, where"
        f" dataset {row.name} would be"
    )


def _report_stray(stray: list[Path], on_error: str) -> None:
    if not stray:
        return
    listed = ", ".join(str(p) for p in stray[:5]) + (", ..." if len(stray) > 5 else "")
    text = f"{len(stray)} file(s) have no partner of the same name: {listed}"
    if on_error != "skip":
        raise ValueError(
            f"{text}; add the partner, or --config.data.on_error=skip leaves them out"
        )
    print(f"warning: {text}; left out", flush=True)


class FileSource:
    """Records read from image files when they are asked for."""

    def __init__(self, dataset: Dataset, split: str, entries: list[Entry]):
        self.dataset, self.split = dataset, split
        self.ids = [entry.id for entry in entries]
        self._entries = entries
        self._labels = {name: i for i, name in enumerate(dataset.classes)}

    def __len__(self) -> int:
        return len(self._entries)

    def __getitem__(self, index: int) -> Record:
        entry = self._entries[index]
        record: Record = {"id": entry.id, "label": self._labels.get(entry.label, -1)}
        for key, path in entry.files.items():
            sensor = SENSORS[self.dataset.sensors[key]]
            array = read_image(path, len(sensor.bands))
            record[key] = check_array(array, sensor, str(path))
        return record


class MiniatureSource:
    """A view of the embedded world, which needs no files."""

    def __init__(self, dataset: Dataset, split: str):
        self.dataset, self.split = dataset, split
        self._records = _open_view(dataset.name, split)
        self.ids = list(self._records.ids)

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index: int) -> Record:
        return self._records[index]


@functools.lru_cache(maxsize=16)
def _open_view(view: str, split: str):
    # Making a split costs seconds and several stages read the same one.
    return miniature.open_miniature(view, split)


class Subset:
    """The records of a source at some places, in their order."""

    def __init__(self, source: Source, places: Sequence[int]):
        self.dataset, self.split = source.dataset, source.split
        self.tile = getattr(source, "tile", None)
        self.ids = [source.ids[i] for i in places]
        self._source, self._places = source, places

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, index: int) -> Record:
        return self._source[self._places[index]]


class TiledSource:
    """Every record of a source cut into a grid of size x size tiles, row by row.

    All records must have the size of the first; on_error "skip": of the first readable.
    """

    def __init__(self, source: Source, size: int, *, on_error: str = "raise"):
        self.dataset, self.split, self.tile = source.dataset, source.split, size
        first = first_record(source, on_error)
        arrays = [first[k] for k in self.dataset.sensors]
        height, width = arrays[0].shape[:2]
        if height < size or width < size:
            raise ValueError(
                f"dataset {self.dataset.name}: images of {height}x{width} hold no"
                f" {size}x{size} tile; set a smaller tile"
            )
        grid = [(y, x) for y in range(height // size) for x in range(width // size)]
        self._places = [(i, y, x) for i in range(len(source)) for y, x in grid]
        self.ids = [f"{source.ids[i]}/tile_{y}_{x}" for i, y, x in self._places]
        self._size, self._shape = size, (height, width)
        # Neighbouring tiles come from one file, and readers run in a few threads.
        self._read: Callable[[int], Record] = functools.lru_cache(maxsize=16)(
            source.__getitem__
        )

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, index: int) -> Record:
        i, y, x = self._places[index]
        record, s = self._read(i), self._size
        out: Record = {"id": self.ids[index], "label": record["label"]}
        for key in self.dataset.sensors:
            if record[key].shape[:2] != self._shape:
                found = "x".join(map(str, record[key].shape[:2]))
                wanted = "x".join(map(str, self._shape))
                raise ValueError(
                    f"{record['id']}: {key} has {found} pixels, but the tiles of"
                    f" {self.dataset.name} are cut from {wanted}"
                )
            out[key] = record[key][y * s : (y + 1) * s, x * s : (x + 1) * s]
        return out


def first_record(source: Source, on_error: str) -> Record:
    """A source's first record; on_error "skip": its first readable one."""
    for i in range(len(source)):
        try:
            return source[i]
        except (ValueError, OSError):
            if on_error != "skip":
                raise
    raise ValueError(f"no record of {source.dataset.name}:{source.split} is readable")


def split_digest(source: Source) -> str:
    """Digest of the ids in order: which examples a number is about."""
    text = "\n".join([source.dataset.name, *source.ids])
    return hashlib.sha256(text.encode()).hexdigest()[:16]

"""The table of datasets, and open_source: any of them as a sequence of records."""

import dataclasses
import functools
import hashlib
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from rsclip_jax.data import classes, corine, miniature, prompts
from rsclip_jax.data.readers import bigearthnet, pairs
from rsclip_jax.data.readers.folders import (
    Entry,
    class_folder_entries,
    paired_folder_entries,
)
from rsclip_jax.data.readers.images import read_image
from rsclip_jax.data.readers.packed import open_packed
from rsclip_jax.data.readers.tiffs import SUFFIXES as TIFF_SUFFIXES
from rsclip_jax.data.readers.tiffs import read_band_files, read_tif
from rsclip_jax.data.sensors import (
    COMPOSITES,
    Composite,
    Sensor,
    check_array,
    get_sensor,
    make_composite,
    select_bands,
    sensor_part,
)
from rsclip_jax.lookup import look_up

Record = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Dataset:
    """One row: what a dataset's files hold and how its classes are called.

    folders: where it may lie under data_root, by its public names; "" is data_root
    itself. sensors: record key -> row of SENSORS. task: "single" (label is an int),
    "multi" (multi-hot) or "none". classes: folder (or class) names in label order.

    file_bands: the bands of a file, where they lie in another order than the sensor's.
    composites: keys made of another's bands: "rgb" -> ("s2", row of COMPOSITES).
    label_map: label as the files spell it -> class, or "" for none.
    """

    name: str
    kind: str  # a name in _READERS, or miniature
    task: str
    sensors: dict[str, str]
    classes: tuple[str, ...] = ()
    classnames: tuple[str, ...] = ()
    templates: tuple[str, ...] = ()
    folders: tuple[str, ...] = ()
    subfolders: dict[str, str] = dataclasses.field(default_factory=dict)
    file_bands: dict[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    composites: dict[str, tuple[str, str]] = dataclasses.field(default_factory=dict)
    label_map: dict[str, str] = dataclasses.field(default_factory=dict)


class Source(Protocol):
    """A random-access sequence of records that knows its dataset, split and ids.

    One whose records are costly may also have read(index, keys): see read_record.
    """

    dataset: Dataset
    split: str
    ids: list[str]  # of the records, in order

    def __len__(self) -> int: ...
    def __getitem__(self, index: int) -> Record: ...


def read_record(source: Source, index: int, keys: Collection[str]) -> Record:
    """A record with at least these of its sensors; the others need not be read."""
    read = getattr(source, "read", None)
    return read(index, keys) if read else source[index]


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


def _bigearthnet(version: int, count: int, with_s1: bool) -> Dataset:
    """One of the sets of classes, with Sentinel-1 beside or without."""
    name = "bigearthnet" if version == 1 else "bigearthnet_v2"
    name += "" if count == 19 else f"_{count}"
    name += "" if with_s1 else "_s2"
    classes = corine.class_names(count)
    sensors = {"rgb": "rgb", "s2": "s2_l2a", **({"s1": "s1_grd"} if with_s1 else {})}
    return Dataset(
        name,
        f"bigearthnet_v{version}",
        "multi",
        sensors,
        classes,
        tuple(c.lower() for c in classes),
        prompts.SATELLITE_TEMPLATES,
        tuple(dict.fromkeys((name, "bigearthnet", "BigEarthNet", ""))),
        composites={"rgb": ("s2", "s2_l2a_rgb")},
        label_map=corine.class_map(count),
    )


# Where a folder is that of no other set: what must lie in it.
_MARKS = {
    "bigearthnet_v1": bigearthnet.S2_V1,
    "bigearthnet_v2": bigearthnet.S2_V2,
}
_EUROSAT_MS_BANDS = tuple("B01 B02 B03 B04 B05 B06 B07 B08 B09 B10 B11 B12 B8A".split())
_SSL4EO_FILES = {
    "s1": ("VV", "VH"),
    "s2c": tuple("B1 B2 B3 B4 B5 B6 B7 B8 B8A B9 B10 B11 B12".split()),
}

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
    _photos(
        "ucmerced",
        ("ucmerced", "UCMerced_LandUse/Images"),
        classes.UCMERCED_NAMES,
        prompts.RESISC45_TEMPLATES,
    ),
    _photos("aid", ("aid", "AID"), classes.AID_NAMES, prompts.RESISC45_TEMPLATES),
    _photos(
        "rsscn7",
        ("rsscn7", "RSSCN7", "RSSCN7-master"),
        classes.RSSCN7_NAMES,
        prompts.RESISC45_TEMPLATES,
    ),
    _photos(
        "patternnet",
        # where upper and lower case are one, "patternnet" is the unpacked folder too
        ("PatternNet/images", "patternnet"),
        classes.PATTERNNET_NAMES,
        prompts.RESISC45_TEMPLATES,
    ),
    _photos(
        "cifar100",
        ("cifar100", "CIFAR-100", "CIFAR-100-images"),
        classes.CIFAR100_NAMES,
        prompts.CIFAR10_TEMPLATES,
    ),
    _photos(
        "stl10",
        ("stl10", "STL-10"),
        classes.STL10_NAMES,
        classes.STL10_TEMPLATES,
    ),
    _photos(
        "imagenet",
        ("imagenet", "ILSVRC2012", "ILSVRC/Data/CLS-LOC"),
        classes.IMAGENET_NAMES,
        classes.IMAGENET_TEMPLATES,
    ),
    Dataset(
        "eurosat_ms",
        "class_folders",
        "single",
        {"rgb": "rgb", "s2": "s2_l1c"},
        tuple(prompts.EUROSAT_NAMES),
        tuple(prompts.EUROSAT_NAMES.values()),
        prompts.EUROSAT_TEMPLATES,
        ("eurosat_ms", "EuroSAT_MS", "EuroSATallBands", "allBands"),
        file_bands={"s2": _EUROSAT_MS_BANDS},
        composites={"rgb": ("s2", "eurosat_rgb")},
    ),
    *(
        _bigearthnet(version, count, with_s1)
        for version, counts in ((1, (19, 5, 43)), (2, (19, 5)))
        for count in counts
        for with_s1 in (True, False)
    ),
    Dataset(
        "ssl4eo_s12",
        "ssl4eo",
        "none",
        {"rgb": "rgb", "s2": "s2_l1c", "s1": "s1_grd"},
        folders=("ssl4eo_s12", "SSL4EO-S12", "ssl4eo-s12"),
        composites={"rgb": ("s2", "s2_l1c_rgb")},
    ),
    Dataset(
        "sen1floods11",
        "sen1floods11",
        "none",
        {"rgb": "rgb", "s2": "s2_l1c", "s1": "s1_grd"},
        folders=("sen1floods11", "HandLabeled"),
        composites={"rgb": ("s2", "s2_l1c_rgb")},
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
    entries, stray = _READERS[row.kind](row, folder, split)
    _report_stray(stray, on_error)
    if not entries:
        raise FileNotFoundError(f"{folder}: no images in split {split!r} of {name}")
    return FileSource(row, split, entries)


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


def _read_class_folders(row: Dataset, folder: Path, split: str):
    key = next(key for key in row.sensors if key not in row.composites)
    return class_folder_entries(folder, split, row.classes, key), []


def _read_ssl4eo(row: Dataset, folder: Path, split: str):
    entries, stray = pairs.ssl4eo_entries(folder, split, _SSL4EO_FILES)
    renamed = [
        dataclasses.replace(e, files={"s1": e.files["s1"], "s2": e.files["s2c"]})
        for e in entries
    ]
    return renamed, stray


# kind: (row, folder, split) -> (entries, files without a partner)
_READERS: dict[str, Callable[[Dataset, Path, str], tuple[list[Entry], list[Path]]]] = {
    "class_folders": _read_class_folders,
    "paired_folders": lambda row, folder, split: paired_folder_entries(
        folder, split, row.subfolders
    ),
    "bigearthnet_v1": lambda row, folder, split: bigearthnet.v1_entries(
        folder, split, row.sensors
    ),
    "bigearthnet_v2": lambda row, folder, split: (
        bigearthnet.v2_entries(folder, split, row.sensors),
        [],
    ),
    "ssl4eo": _read_ssl4eo,
    "sen1floods11": lambda row, folder, split: pairs.sen1floods_entries(folder, split),
}


def _report_stray(stray: list[Path], on_error: str) -> None:
    if not stray:
        return
    listed = ", ".join(str(p) for p in stray[:5]) + (", ..." if len(stray) > 5 else "")
    text = f"{len(stray)} file(s) have no partner: {listed}"
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
        return self.read(index, self.dataset.sensors)

    def read(self, index: int, keys: Collection[str]) -> Record:
        entry, row = self._entries[index], self.dataset
        record: Record = {"id": entry.id, "label": self._label(entry)}
        for key, files in entry.files.items():
            if key in keys:
                sensor = get_sensor(row.sensors[key])
                record[key] = read_sensor(files, sensor, row.file_bands.get(key, ()))
        for key, (source, name) in row.composites.items():
            if key in keys:
                record[key] = self._composite(entry, record, source, COMPOSITES[name])
        return record

    def _composite(self, entry: Entry, record: Record, source: str, made: Composite):
        sensor = get_sensor(self.dataset.sensors[source])
        files = entry.files[source]
        if source in record:
            return make_composite(record[source], sensor.bands, made)
        if isinstance(files, tuple):  # of a file a band, three of them do
            places = [sensor.bands.index(band) for band in made.bands]
            sensor = sensor_part(sensor, places)
            files = tuple(files[i] for i in places)
        file_bands = self.dataset.file_bands.get(source, ())
        array = read_sensor(files, sensor, file_bands)
        return make_composite(array, sensor.bands, made)

    def _label(self, entry: Entry) -> int | np.ndarray:
        if self.dataset.task != "multi":
            return self._labels.get(entry.label, -1)
        names = entry.labels
        if entry.label_file is not None:
            names = bigearthnet.read_labels(entry.label_file)
        hot = np.zeros(len(self._labels), np.uint8)
        for name in names:
            if name not in self.dataset.label_map:
                raise ValueError(
                    f"{entry.label_file or entry.id}: label {name!r} is not one of"
                    f" {self.dataset.name}'s"
                )
            if known := self.dataset.label_map[name]:
                hot[self._labels[known]] = 1
        return hot


def read_sensor(
    files: Path | tuple[Path, ...], sensor: Sensor, file_bands: tuple[str, ...] = ()
) -> np.ndarray:
    """[h, w, bands] of a sensor, checked: from an image, a TIFF, or one for each band.

    file_bands: the order of the bands in the file, where it is not the sensor's.
    """
    if isinstance(files, tuple):
        array, where = read_band_files(files), str(files[0].parent)
    elif sensor.unit != "8-bit" and files.suffix.lower() in TIFF_SUFFIXES:
        array, where = read_tif(files), str(files)
    else:
        array, where = read_image(files, len(sensor.bands)), str(files)
    if file_bands and array.shape[-1] == len(file_bands):
        array = select_bands(array, file_bands, sensor.bands)
    if array.dtype == np.int16 and sensor.dtype == "uint16" and array.min() >= 0:
        array = array.view(np.uint16)  # the same numbers, as some archives keep them
    return check_array(array, sensor, where)


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
        return self.read(index, self.dataset.sensors)

    def read(self, index: int, keys: Collection[str]) -> Record:
        return read_record(self._source, self._places[index], keys)


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
        self._read: Callable[[int, tuple[str, ...]], Record] = functools.lru_cache(
            maxsize=16
        )(functools.partial(read_record, source))

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, index: int) -> Record:
        return self.read(index, self.dataset.sensors)

    def read(self, index: int, keys: Collection[str]) -> Record:
        i, y, x = self._places[index]
        record, s = self._read(i, tuple(keys)), self._size
        out: Record = {"id": self.ids[index], "label": record["label"]}
        for key in (k for k in self.dataset.sensors if k in record):
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

"""Datasets prepared by TensorFlow Datasets as array_record; needs no TensorFlow.

<root>/<name>/[<config>/]<version>/{dataset_info.json,features.json,*.array_record*}
The features describe a record: "image" (3 channels of 8 bits), "sentinel2" (EuroSAT's
13 bands) or one feature for each band of Sentinel-2 (BigEarthNet); "label", or "labels"
for several; "filename", the file's name in the original archive.
"""

import functools
from collections.abc import Collection, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from rsclip_jax.data.catalog import corine, prompts
from rsclip_jax.data.catalog.datasets import DATASETS, EUROSAT_MS_BANDS
from rsclip_jax.data.codecs.geotiff import stack_bands
from rsclip_jax.data.codecs.images import decode_image
from rsclip_jax.data.codecs.patches import as_sensor, make_picture
from rsclip_jax.data.readers.folders import (
    HASH_SPLITS,
    hash_percent,
    parse_split,
)
from rsclip_jax.data.sensors import SENSORS, Sensor, get_sensor
from rsclip_jax.data.types import SPLITS, Dataset, OpenOptions, Record, Source
from rsclip_jax.io.files import read_json
from rsclip_jax.io.texts import first_of

_OURS = {"validation": "val"}  # TFDS's name of a split -> ours
_LONG = 1e9  # bytes of a split from which on reading its names is announced
_BIGEARTHNET = {"": "bigearthnet_43", "19": "bigearthnet", "5": "bigearthnet_5"}


def prepare_command(path: str, root: str | Path) -> str:
    """The command that prepares a dataset; it needs TensorFlow."""
    return (
        "prepare it with TensorFlow (pip install tensorflow-cpu), once: python -c"
        f" \"import tensorflow_datasets as tfds; tfds.builder('{path}',"
        f" data_dir='{root}', file_format='array_record').download_and_prepare()\""
    )


def describe(name: str, folder: Path, path: str) -> Dataset:
    """Describes a prepared dataset by its features and labels.

    name: "tfds:<path>", followed by "#19" or "#5" for these labels of BigEarthNet.
    Class names and templates are those of the catalog's dataset with the same classes.
    Raises ValueError or FileNotFoundError saying how to prepare what is missing.
    """
    features = dict(_builder(_version(name, folder)).info.features)
    dataset = _labels(name, features)
    sensors: dict[str, str] = {}
    composites, bands = {}, {}
    if _is_rgb(features.get("image")):
        sensors["rgb"] = "rgb"
    if set(SENSORS["s2_l2a"].bands) <= set(features):
        sensors["s2"], made = "s2_l2a", "s2_l2a_rgb"
    elif "sentinel2" in features and path.split("/")[0] == "eurosat":
        sensors["s2"], made = "s2_l1c", "eurosat_rgb"
        bands = {"s2": EUROSAT_MS_BANDS}
    if "s2" in sensors and "rgb" not in sensors:
        sensors, composites = {"rgb": "rgb", **sensors}, {"rgb": ("s2", made)}
    if not sensors:
        raise ValueError(
            f"dataset {name!r} has the features {first_of(list(features))}: neither an"
            " 8-bit 'image' of 3 channels, nor bands whose order is known"
        )
    return Dataset(
        name,
        "tfds",
        dataset.task,
        sensors,
        dataset.classes,
        dataset.classnames,
        dataset.templates,
        (path,),
        file_bands=bands,
        composites=composites,
        label_map=dataset.label_map,
    )


def _is_rgb(feature: Any) -> bool:
    return (
        type(feature).__name__ == "Image"
        and feature.shape[-1] == 3
        and np.dtype(feature.np_dtype) == np.uint8
    )


def _labels(name: str, features: Mapping[str, Any]) -> Dataset:
    """A Dataset with only the task, classes, class names and templates."""
    variant = name.partition("#")[2]
    if "labels" in features:
        found = tuple(features["labels"].feature.names)
        if set(found) == set(corine.CODES) and variant in _BIGEARTHNET:
            return DATASETS[_BIGEARTHNET[variant]]
        task = "multi"
    elif "label" in features and hasattr(features["label"], "names"):
        found, task = tuple(features["label"].names), "single"
    else:
        found, task = (), "none"
    if variant:
        raise ValueError(
            f"dataset {name!r}: '#19' and '#5' choose among BigEarthNet's labels, but"
            f" its labels are {first_of(found) or 'none'}"
        )
    for dataset in DATASETS.values():
        if dataset.task == task and found and sorted(dataset.classes) == sorted(found):
            return dataset
    names = tuple(x.replace("_", " ") for x in found)
    templates = prompts.PHOTO_TEMPLATES if found else ()
    same = {x: x for x in found}
    return Dataset(name, "tfds", task, {}, found, names, templates, label_map=same)


def _version(name: str, folder: Path) -> Path:
    """The newest version in the folder, or in the folder of its only config."""
    path = name.partition(":")[2].partition("#")[0].strip("/")
    again = prepare_command(path, str(folder).removesuffix(path).rstrip("/"))
    if (version := _newest(folder)) is None:
        children = sorted(p for p in folder.iterdir() if p.is_dir())
        configs = {p.name: v for p in children if (v := _newest(p))}
        if len(configs) > 1:
            raise ValueError(
                f"dataset {name!r} is prepared as {first_of(list(configs))}: name one,"
                f" such as tfds:{path}/{next(iter(configs))}"
            )
        if not configs:
            raise FileNotFoundError(
                f"{folder}: no version with a dataset_info.json in it; {again}"
            )
        (version,) = configs.values()
    info = read_json(version / "dataset_info.json")
    if (form := info.get("fileFormat", "tfrecord")) != "array_record":
        raise ValueError(
            f"{version}: prepared as {form}, which only TensorFlow can read; move this"
            f" folder away and {again}"
        )
    return version


def _newest(folder: Path) -> Path | None:
    versions = [p.parent for p in folder.glob("*/dataset_info.json")]
    return max(
        versions, key=lambda p: [int(x) for x in p.name.split(".")], default=None
    )


def open_tfds(
    dataset: Dataset, folder: Path, split: str, options: OpenOptions
) -> "TfdsSource":
    """Opens a split; if the dataset has only one, a hash of the ids makes three.

    An id is "<class>/<file name>" (with several labels, the file name) as for class
    folders, so that the hash gives the same splits. Without unique file names it is the
    record's number. All records are read once to find the names. Raises
    FileNotFoundError naming a missing split or file.
    """
    version = _version(dataset.name, folder)
    found: list[tuple[str, int]] = []
    ids: list[str] = []
    for theirs, low, high, top in _parts(version, split):
        for i, name in enumerate(_names(version, theirs)):
            if low <= hash_percent(name) < high:
                found.append((theirs, i))
                ids.append(top + name)
    return TfdsSource(dataset, split, version, ids, found, options)


def _builder(version: Path) -> Any:
    import tensorflow_datasets as tfds  # takes a second, needed only here

    return tfds.builder_from_directory(version)


def _records(version: Path, split: str) -> Any:
    """The split's records by number, with images as the bytes of their files."""
    import tensorflow_datasets as tfds

    builder = _builder(version)
    lost = [p for p in builder.info.splits[split].filepaths if not Path(p).exists()]
    if lost:
        raise FileNotFoundError(f"{lost[0]} is missing ({len(lost)} such files)")
    images = {"image"} & set(builder.info.features)
    raw = {key: tfds.decode.SkipDecoding() for key in images}
    return builder.as_data_source(split=split, decoders=raw)


def _parts(version: Path, split: str) -> list[tuple[str, float, float, str]]:
    """(split of the builder, percent from, to, prefix of the ids) to read."""
    name, low, high = parse_split(split)
    splits = _builder(version).info.splits
    present = {_OURS.get(s, s): s for s in splits if splits[s].num_examples}
    if len(present) == 1:
        start, end = (0, 100) if name == "all" else HASH_SPLITS[name]
        width = (end - start) / 100
        (theirs,) = present.values()
        return [(theirs, start + low * width, start + high * width, "")]
    known = [s for s in SPLITS if s in present]
    wanted = known if name == "all" else [name]
    if not wanted or wanted[0] not in known:
        raise FileNotFoundError(
            f"{version}: no split {name!r}; it has {', '.join(present)}. Use one of"
            " them or a part, such as 'train[90%:]'"
        )
    return [(present[s], low, high, f"{s}/") for s in wanted]


@functools.lru_cache(maxsize=16)
def _names(version: Path, split: str) -> list[str]:
    """The names of a split's records, in order."""
    info, records = _builder(version).info, _records(version, split)
    features = dict(info.features)
    numbers = [f"{i:07d}" for i in range(len(records))]
    if type(features.get("filename")).__name__ != "Text":
        return numbers
    if (size := info.splits[split].num_bytes) > _LONG:
        print(f"{version}: reading file names from {size / 1e9:.1f} GB", flush=True)
    names = []
    for i in range(len(records)):
        try:
            names.append(_name(_record(records, i, version), features))
        except ValueError:  # raised when the record itself is read
            names.append(numbers[i])
    return names if len(set(names)) == len(names) else numbers


def _name(record: Mapping[str, Any], features: Mapping[str, Any]) -> str:
    """ "<class>/<file name>", or the file name without a single class."""
    stem = PurePosixPath(record["filename"].decode("utf-8", "replace")).stem
    classes = getattr(features.get("label"), "names", ())
    single = bool(classes) and 0 <= record["label"] < len(classes)
    return f"{classes[record['label']]}/{stem}" if single else stem


def _record(records: Any, index: int, version: Path) -> dict[str, Any]:
    try:
        return records[index]
    except Exception as error:  # array_record and protobuf raise their own errors
        raise ValueError(
            f"{version}: record {index} of {records.split!r} is damaged ({error});"
            " fetch or prepare the files again"
        ) from error


class TfdsSource(Source):
    """Reads records from array_record files, in any order and from any thread."""

    def __init__(
        self,
        dataset: Dataset,
        split: str,
        version: Path,
        ids: list[str],
        located: list[tuple[str, int]],
        options: OpenOptions,
    ):
        self.max_nodata, self.max_pixels = options.max_nodata, options.max_pixels
        self.dataset, self.split, self.ids = dataset, split, ids
        self._version, self._located = version, located
        self._records = {s: _records(version, s) for s in {s for s, _ in located}}
        features = dict(_builder(version).info.features)
        self._names: list[str] = []  # by the labels' numbers
        if dataset.task != "none":
            multi = dataset.task == "multi"
            label = features["labels"].feature if multi else features["label"]
            self._names = label.names

    def read(self, index: int, keys: Collection[str]) -> Record:
        """Reads a record with at least these sensors."""
        dataset, index = self.dataset, range(len(self))[index]
        split, number = self._located[index]
        found = _record(self._records[split], number, self._version)
        where = f"{self._version}: {self.ids[index]}"
        record: Record = {"id": self.ids[index], "label": self._label(found, where)}
        made = [key for key in dataset.composites if key in keys]
        if "rgb" in keys and not made:
            record["rgb"] = decode_image(
                found["image"], where, max_pixels=self.max_pixels
            )
        if "s2" in keys or made:
            sensor = get_sensor(dataset.sensors["s2"])
            bands = dataset.file_bands.get("s2", ())
            s2 = as_sensor(_s2(found, sensor), sensor, bands, where, self.max_nodata)
            for key in made:
                record[key] = make_picture(dataset, key, s2)
            if "s2" in keys:
                record["s2"] = s2
        return record

    def _label(self, found: Mapping[str, Any], where: str) -> int | np.ndarray:
        """The label by the dataset's classes, whose order may differ."""
        dataset = self.dataset
        if dataset.task == "none":
            return -1
        numbers = [found["label"]] if dataset.task == "single" else found["labels"]
        if wrong := [n for n in numbers if not 0 <= n < len(self._names)]:
            raise ValueError(
                f"{where}: label {wrong[0]} is not a number from 0 to"
                f" {len(self._names) - 1}; TFDS writes -1 for a missing label"
            )
        names = [self._names[n] for n in numbers]
        if dataset.task == "single":
            return dataset.classes.index(names[0])
        hot = np.zeros(len(dataset.classes), np.uint8)
        for known in filter(None, (dataset.label_map[name] for name in names)):
            hot[dataset.classes.index(known)] = 1
        return hot


def _s2(found: Mapping[str, Any], sensor: Sensor) -> np.ndarray:
    """[h, w, bands] from one feature, or from one feature for each band."""
    if "sentinel2" in found:
        return found["sentinel2"]
    return stack_bands([found[name] for name in sensor.bands])

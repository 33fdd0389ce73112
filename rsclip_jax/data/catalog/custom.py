"""Custom datasets: a TOML file describes the images."""

import dataclasses
import hashlib
import json
import tomllib
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rsclip_jax.data.catalog import own_bands
from rsclip_jax.data.catalog.datasets import DATASETS
from rsclip_jax.data.catalog.prompts import SATELLITE_TEMPLATES, fill_templates
from rsclip_jax.data.sensors import get_sensor
from rsclip_jax.data.types import SPLIT_NAMES, CustomDataset, Dataset
from rsclip_jax.io.lookup import look_up
from rsclip_jax.io.texts import clip, shown


@dataclasses.dataclass(frozen=True)
class _Reader:
    """The keys that a reader allows. tasks: the first is the default."""

    needed: tuple[str, ...]
    tasks: tuple[str, ...]
    optional: tuple[str, ...] = ()
    one_sensor: bool = False

    @property
    def keys(self) -> tuple[str, ...]:
        """All keys, in the order of error messages."""
        return ("reader", *self.needed, *self.optional, *_ANY)


_PLACE = ("same_place", "max_shift", "reproject")
_ANY = (*own_bands.KEYS, "file_bands", "task")
_CLASSES = ("classes", "classnames", "templates", "splits")
_TABLE = _Reader(
    ("table", "columns", "sensors"),
    ("none", "single", "multi"),
    ("folder", "separator", *_PLACE, *_CLASSES),
)
_READERS = {
    "class_folders": _Reader(("folder", "sensors"), ("single",), _CLASSES, True),
    "flat": _Reader(("folder", "sensors"), ("single",), _CLASSES, True),
    "folder": _Reader(("folder", "sensors"), ("none",), (), True),
    "paired_folders": _Reader(
        ("folder", "subfolders", "sensors"),
        ("none", "single"),
        (*_PLACE, *_CLASSES),
    ),
    "csv": _TABLE,
    "parquet": _TABLE,
}
_STRINGS = "classes templates".split()
_BOOLEANS = ("same_place", "reproject")
_TABLES = "columns subfolders sensors classnames splits".split()
# Keys that do not change a record: folders, prompts and checks.
_NOT_IN_DIGEST = "folder table classnames templates same_place max_shift".split()
_MAX_SHIFT = 1.0  # pixels of the coarser file


def load_dataset(path: str | Path) -> Dataset:
    """Loads a custom dataset from a TOML file; its name is the file's stem.

    folder and table are relative to the TOML file, whatever the data root is. Paths in
    a table are relative to folder or, without it, to the table. Keys by reader:

        reader = "class_folders"  # <folder>/[<split>/]<class>/<image>
                 "flat"           # <folder>/[<split>/]<class>_<number>.*
                 "folder"         # every image under folder, unlabelled
                 "paired_folders" # <folder>/[<split>/]<subfolder>/[<class>/]<stem>.*
                 "csv", "parquet" # one row for each record
        folder, table = "..."
        task = "single"      # or "multi", "none", if the reader allows it
        separator = ";"      # multi: between the labels in a cell; default "|"
        same_place = false   # a record's GeoTIFFs may differ in CRS or location
        max_shift = 2        # ... may be so many pixels of the coarser apart; default 1
        reproject = true     # warp later sensors onto the grid of the first
        classes = [...]      # in label order; default: those found, sorted
        templates = [...]    # prompts with {c}; default: satellite templates
        [sensors]            # modality -> name in SENSORS, or a sensor's TOML file
        [composites]         # rgb = name in COMPOSITES, "true_colour", or {red = ...,
                             # green = ..., blue = ..., range = [0, 3000]}
        [scale], [offset]    # modality -> number * scale + offset is the sensor's value
        [file_bands]         # modality -> order of the bands in the files
        [subfolders]         # modality -> its folder
        [columns]            # modality -> its column of paths; label, split, id
        [splits]             # train, val, test -> its name in folders or the table
        [classnames]         # class -> its name in prompts; default: with spaces

    Raises FileNotFoundError for a missing file, and ValueError naming it with all
    unknown or missing keys, or a wrong value.
    """
    path = Path(path)
    values = _read(path)
    reader = values["reader"]
    allowed = _READERS[reader]
    sensors = _read_sensors(path, values, allowed)
    task = _read_task(path, values, allowed)
    dataset = Dataset(
        path.stem,
        reader,
        task,
        sensors,
        templates=_read_templates(path, values) if task != "none" else (),
        subfolders=values.get("subfolders", {}),
        file_bands={k: tuple(v) for k, v in values.get("file_bands", {}).items()},
        scaling=own_bands.read_scaling(path, values, sensors),
        composites=own_bands.read_composites(
            path, values, {k: s for k, s in sensors.items() if k in values["sensors"]}
        ),
        custom=_read_custom(path, values, task),
        max_shift=values.get("max_shift", _MAX_SHIFT),
    )
    return with_classes(dataset, values["classes"]) if "classes" in values else dataset


def with_classes(dataset: Dataset, classes: Sequence[str]) -> Dataset:
    """Returns a custom dataset with its classes, their names and its label map.

    Raises ValueError for a class name of an unknown class, and for class names that are
    equal to the tokenizer.
    """
    assert dataset.custom is not None
    given, known = dataset.custom.classnames, dict.fromkeys(classes, "")
    for name in given:
        try:
            look_up(known, name, "class")
        except ValueError as error:
            raise ValueError(f"{dataset.custom.path}: classnames: {error}") from None
    spaced = {c: c.replace("_", " ").replace("-", " ") for c in classes}
    names = {**spaced, **given}
    read = {c: " ".join(name.split()).lower() for c, name in names.items()}
    counts = Counter(read.values())
    if twice := [c for c in names if counts[read[c]] > 1]:
        listed = clip(", ".join(twice), 300)
        raise ValueError(
            f"{dataset.custom.path}: the classes {listed} would have the same name in"
            " prompts, where case and spaces do not count; give them other names in a"
            " table [classnames], or make them one class"
        )
    return dataclasses.replace(
        dataset,
        classes=tuple(classes),
        classnames=tuple(names.values()),
        label_map={c: c for c in classes},
    )


def _read_custom(path: Path, values: Mapping[str, Any], task: str) -> CustomDataset:
    table = values.get("table")
    folder = values.get("folder", str(Path(table or "").parent))
    return CustomDataset(
        path,
        (path.parent / folder).absolute(),
        _digest(values),
        {**SPLIT_NAMES, **values.get("splits", {})},
        values.get("classnames", {}),
        (path.parent / table).absolute() if table else None,
        values.get("columns", {}),
        values.get("separator", "|") if task == "multi" else "",
        values.get("same_place", True),
        values.get("reproject", False),
    )


def _read(path: Path) -> dict[str, Any]:
    """Reads the file's values and checks their keys and types."""
    if path.stem in DATASETS:
        raise ValueError(
            f"{path}: {path.stem} is the name of a public dataset; rename the file"
        )
    try:
        values = tomllib.loads(path.read_text("utf-8-sig"))
    except FileNotFoundError:
        raise FileNotFoundError(f"{path}: this dataset file does not exist") from None
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: not a TOML file: {error}") from error
    reader = values.get("reader")
    if not isinstance(reader, str) or reader not in _READERS:
        raise ValueError(
            f"{path}: reader = {shown(reader)} should be one of {', '.join(_READERS)}"
        )
    allowed = _READERS[reader]
    unknown = [key for key in values if key not in allowed.keys]
    missing = [key for key in allowed.needed if key not in values]
    if unknown or missing:
        raise ValueError(
            f"{path}: unknown keys {shown(unknown, 300)}, missing keys {missing};"
            f" reader {reader!r} has {', '.join(allowed.keys)} (a key below a [table]"
            " is that table's)"
        )
    for key, value in values.items():
        check = own_bands.check_type if key in own_bands.KEYS else _check_type
        check(path, key, value)
    _check_tables(path, values)
    return values


def _check_type(path: Path, key: str, value: Any) -> None:
    """Raises ValueError unless a value has its key's type and is not empty."""

    def strings(items) -> bool:
        return all(isinstance(item, str) and item for item in items)

    if key in _STRINGS:
        good, wanted = isinstance(value, list) and strings(value), "a list of strings"
        good = good and len(set(value)) == len(value)
        wanted += " without repeats"
    elif key in _TABLES:
        good, wanted = isinstance(value, dict) and strings(value.values()), "a table"
        wanted += " of strings"
    elif key == "file_bands":
        good = isinstance(value, dict) and all(
            isinstance(bands, list) and strings(bands) for bands in value.values()
        )
        wanted = "a table of lists of strings"
    elif key in _BOOLEANS:
        good, wanted = isinstance(value, bool), "true or false"
    elif key == "max_shift":
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        good, wanted = number and value >= 0, "a number of pixels, 0 or more"
    else:
        good, wanted = isinstance(value, str), "a string"
    may_be_false = key in (*_BOOLEANS, "max_shift")
    if not good or not (value or may_be_false):
        raise ValueError(
            f"{path}: {key} = {shown(value, 300)} should be {wanted}, not empty"
        )


def _check_tables(path: Path, values: Mapping[str, Any]) -> None:
    """Raises ValueError for unknown or missing keys of a table."""
    sensors = tuple(values["sensors"])
    more = ("label", "split", "id")
    allowed: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
        "columns": (sensors, (*sensors, *more)),
        "subfolders": (sensors, sensors),
        "file_bands": ((), sensors),
        "splits": ((), tuple(SPLIT_NAMES)),
        "composites": ((), ("rgb",)),
        "scale": ((), sensors),
        "offset": ((), sensors),
    }
    for key, (needed, known) in allowed.items():
        there = values.get(key, dict.fromkeys(needed))
        unknown = [name for name in there if name not in known]
        missing = [name for name in needed if name not in there]
        if unknown or missing:
            raise ValueError(
                f"{path}: {key} has unknown keys {shown(unknown, 300)}, missing keys"
                f" {missing}; it can have {', '.join(known)}"
            )
    idle = [key for key in ("max_shift", "same_place") if key in values]
    if values.get("reproject") and idle:
        raise ValueError(
            f"{path}: {idle[0]} has no effect with reproject = true, which warps the"
            " files onto one grid; remove one of the two"
        )
    words = {**SPLIT_NAMES, **values.get("splits", {})}
    if len(set(words.values())) < len(words):
        raise ValueError(f"{path}: two of the splits {words} have the same name")


def _read_sensors(path: Path, values: Mapping, allowed: _Reader) -> dict[str, str]:
    """{record key: sensor's name or path}, with composites first."""
    sensors = {}
    if allowed.one_sensor and len(values["sensors"]) > 1:
        raise ValueError(
            f"{path}: sensors = {shown(values['sensors'])}, but reader"
            f" {values['reader']!r} reads one file for each record; use paired_folders"
            " for several sensors, or composites to make rgb of s2"
        )
    for key, name in values["sensors"].items():
        name = str(path.parent / name) if name.endswith(".toml") else name
        try:
            sensor = get_sensor(name)
        except (ValueError, FileNotFoundError) as error:
            raise type(error)(f"{path}: sensors.{key}: {error}") from error
        if sensor.modality != key:
            raise ValueError(
                f"{path}: sensors.{key} = {name!r}, which has the modality"
                f" {sensor.modality!r}: write {sensor.modality} = {name!r}"
            )
        bands = values.get("file_bands", {}).get(key, sensor.bands)
        lost = [band for band in sensor.bands if band not in bands]
        if lost or len(set(bands)) < len(bands):
            raise ValueError(
                f"{path}: file_bands.{key} = {shown(bands, 300)} should be distinct and"
                f" hold the bands of {name}: {', '.join(sensor.bands)}"
            )
        sensors[key] = name
    if made := [key for key in values.get("composites", {}) if key in sensors]:
        raise ValueError(f"{path}: {made[0]} is in sensors and in composites")
    return {**dict.fromkeys(values.get("composites", ()), "rgb"), **sensors}


def _read_task(path: Path, values: Mapping, allowed: _Reader) -> str:
    """single, multi or none. Raises ValueError for keys that do not fit the task."""
    labelled = "label" in values.get("columns", {})
    task = values.get("task", "single" if labelled else allowed.tasks[0])
    if task not in allowed.tasks:
        raise ValueError(
            f"{path}: task = {shown(task)} should be {' or '.join(allowed.tasks)} with"
            f" reader {values['reader']!r}"
        )
    if "columns" in values and labelled != (task != "none"):
        raise ValueError(
            f"{path}: task = {task!r}, and columns has"
            f" {'a' if labelled else 'no'} label column; change one of the two"
        )
    idle = [k for k in ("classes", "classnames", "templates") if k in values]
    if task == "none" and idle:
        raise ValueError(
            f"{path}: {', '.join(idle)} need labels, and there are none; set"
            f" {'columns.label' if 'columns' in values else 'task'}, or remove them"
        )
    if task != "multi" and "separator" in values:
        raise ValueError(f"{path}: separator needs task = 'multi', not {shown(task)}")
    return task


def _read_templates(path: Path, values: Mapping) -> tuple[str, ...]:
    templates = tuple(values.get("templates", SATELLITE_TEMPLATES))
    try:
        fill_templates(["any"], templates)
    except ValueError as error:
        raise ValueError(f"{path}: templates: {error}") from error
    return templates


def _digest(values: Mapping[str, Any]) -> str:
    kept = {k: v for k, v in values.items() if k not in _NOT_IN_DIGEST}
    text = json.dumps(kept, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]

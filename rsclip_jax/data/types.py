"""What the rooms of data/ pass on: records, datasets, sources."""

import dataclasses
import math
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from rsclip_jax.data.sensors import COMPOSITES, get_sensor
from rsclip_jax.data.sensors.bands import make_composite
from rsclip_jax.io.lookup import look_up

Record = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class CustomDataset:
    """What only a set of the user's own has, from its TOML file (dataset_file.py).

    path: that file. place: the folder of its images. splits: train, val, test -> its
    folder, or the table's word. columns and separator: as of read_table. digest: of all
    keys that say what a record holds. same_place: whether the files of a record must be
    of one place by their GeoTIFF tags.
    """

    path: Path
    place: Path
    digest: str
    splits: dict[str, str]
    classnames: dict[str, str] = dataclasses.field(default_factory=dict)
    table: Path | None = None
    columns: dict[str, str] = dataclasses.field(default_factory=dict)
    separator: str = ""
    same_place: bool = True


@dataclasses.dataclass(frozen=True)
class Dataset:
    """One row: what a dataset's files hold and how its classes are called.

    folders: where it may lie under data_root, by its public names; "" is data_root
    itself. sensors: record key -> row of SENSORS. task: "single" (label is an int),
    "multi" (multi-hot), "none" or "captions" (records have "captions", a tuple of
    texts). classes: folder (or class) names in label order.

    file_bands: the bands of a file, where they lie in another order than the sensor's.
    composites: keys made of another's bands: "rgb" -> ("s2", row of COMPOSITES).
    label_map: label as the files spell it -> class, or "" for none. own: of a set of
    the user's own, whose classes are found when it is opened, unless its file has them.
    split_lists: name of the official lists, such as "eurosat-{split}.txt", which rule
    where they lie; needs_lists: without them there is no such set.

    size: side in pixels of every image at its finest band; 0: they differ. max_shift:
    how many pixels the files of one record may lie apart by their GeoTIFF tags.
    max_nodata: no row's but a run's, see check_array; partial: no row's but an
    inspection's, class folders may be missing.
    """

    name: str
    kind: str  # a name in OPENERS, or miniature
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
    custom: CustomDataset | None = None
    split_lists: str = ""
    needs_lists: bool = False
    size: int = 0
    max_shift: float = math.inf
    max_nodata: float = 0.0
    partial: bool = False

    def composite(self, key: str, array: np.ndarray) -> np.ndarray:
        """The picture `key` of composites, uint8 [..., 3], of its source's array."""
        source, name = self.composites[key]
        bands = get_sensor(self.sensors[source]).bands
        return make_composite(array, bands, COMPOSITES[name])

    def with_classes(self, classes: Sequence[str]) -> "Dataset":
        """The row of a set of the user's own with its classes and their names.

        Raises ValueError for a name of an unknown class, or two classes of one name.
        """
        assert self.custom is not None
        given, known = self.custom.classnames, dict.fromkeys(classes, "")
        for name in given:
            try:
                look_up(known, name, "class")
            except ValueError as error:
                raise ValueError(f"{self.custom.path}: classnames: {error}") from None
        spaced = {c: c.replace("_", " ").replace("-", " ") for c in classes}
        names = {**spaced, **given}
        if twice := [c for c in names if [*names.values()].count(names[c]) > 1]:
            raise ValueError(
                f"{self.custom.path}: the classes {', '.join(twice)} would have one"
                " name in prompts; a table [classnames] gives them others"
            )
        return dataclasses.replace(
            self,
            classes=tuple(classes),
            classnames=tuple(names.values()),
            label_map={c: c for c in classes},
        )


class Source(Protocol):
    """A random-access sequence of records that knows its dataset, split and ids.

    One whose split is by the archive's lists names them in `split_rule`, a text; and
    so does one whose hash parts neighbours.
    One whose records are costly may also have read(index, keys): see read_record.
    One that takes parts by hash of something else than the ids' tails has hash_keys.
    One opened with on_error "skip" has in `left_out` what it does without.
    """

    dataset: Dataset
    split: str
    ids: list[str]  # of the records, in order

    def __len__(self) -> int: ...
    def __getitem__(self, index: int) -> Record: ...


def hash_keys(source: Source) -> list[str]:
    """What parts of the source, such as "train[:90%]", go by: a key a record."""
    return getattr(source, "hash_keys", None) or [tail_of(i) for i in source.ids]


def read_record(source: Source, index: int, keys: Collection[str]) -> Record:
    """A record with at least these of its sensors; the others need not be read."""
    read = getattr(source, "read", None)
    return read(index, keys) if read else source[index]


LeftOut = tuple[str, str]  # (what the archive has or names, why no record is of it)


SPLITS = ("train", "val", "test")


SPLIT_NAMES = {s: s for s in SPLITS}  # split -> its folder


@dataclasses.dataclass(frozen=True)
class Entry:
    """One example: its id, its label, and where each sensor's image lies.

    files: a path, or one for each band. label: its class folder; of several, labels, or
    the file that label names are read from when they are asked for. captions: what is
    said of it. box_file: says which part of the image is the example (fMoW). hash_key:
    what a part such as "[:90%]" goes by, where it is not tail_of(id).
    """

    id: str
    label: str
    files: Mapping[str, Path | tuple[Path, ...]]
    labels: tuple[str, ...] = ()
    label_file: Path | None = None
    captions: tuple[str, ...] = ()
    box_file: Path | None = None
    hash_key: str = ""


def tail_of(id_: str) -> str:
    """What is hashed of an id, unless its source says otherwise (hash_keys): all but
    the split folder's name.
    """
    top, _, rest = id_.partition("/")
    return rest if top in SPLITS else id_

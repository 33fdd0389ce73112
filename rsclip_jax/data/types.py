"""Types that the rooms of data/ share: records, datasets, sources, options, listings.

This module is at the bottom of data/: it imports only specs.py, which imports nothing.
"""

import dataclasses
import math
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from rsclip_jax.data.specs import DatasetSpec

Record = dict[str, Any]  # {"id", "label", record key of each sensor: array, ...}
# (file or name in the archive, why it gives no record)
LeftOut = tuple[str, str]

MAX_PIXELS = 2**28  # of an image: a square of 16,384, or 800 MB in RGB
SPLITS = ("train", "val", "test")
SPLIT_NAMES = {s: s for s in SPLITS}  # split -> its folder


@dataclasses.dataclass(frozen=True)
class CustomDataset:
    """Settings of a custom dataset, read from its TOML file (catalog/custom.py).

    Attributes:
        path: the TOML file.
        folder: the folder of the images.
        digest: digest of all keys that determine the content of a record.
        splits: train, val, test -> folder name, or the table's name of the split.
        classnames: class -> its name in prompts.
        table: the csv or parquet file, if there is one.
        columns, separator: see readers.tables.read_table.
        same_place: whether the files of a record must have the same ground location
            according to their GeoTIFF tags.
        reproject: whether the files of later sensors are warped onto the grid of the
            first.
    """

    path: Path
    folder: Path
    digest: str
    splits: dict[str, str]
    classnames: dict[str, str] = dataclasses.field(default_factory=dict)
    table: Path | None = None
    columns: dict[str, str] = dataclasses.field(default_factory=dict)
    separator: str = ""
    same_place: bool = True
    reproject: bool = False


@dataclasses.dataclass(frozen=True)
class Composite:
    """An 8-bit RGB picture of three bands: clip((x - low) / divisor, 0, 1) * 255.

    sensor: the name of the sensor. bands: the sensor's bands for red, green and blue.
    """

    name: str
    sensor: str
    bands: tuple[str, str, str]
    divisor: float
    low: float = 0.0


MOST_RATIO = 1.5  # of two images' ground, beyond which an encoder's user is warned


def size_words(ratio: float) -> str:
    """The size of things in an image of so many times the ground, after resizing."""
    return (
        f"{ratio:.2g} times smaller" if ratio > 1 else f"{1 / ratio:.2g} times larger"
    )


@dataclasses.dataclass(frozen=True)
class Ground:
    """The ground of an image: its side in pixels, and a pixel's side in metres.

    0: not known.
    """

    pixels: int = 0
    metres: float = 0.0

    @property
    def extent(self) -> float:
        """The side of the image on the ground in metres; 0 where it is not known."""
        return self.pixels * self.metres

    def __str__(self) -> str:
        if not self.metres:
            return f"{self.pixels} pixels"
        return f"{self.pixels} pixels of {self.metres:.3g} m ({self.extent:,.0f} m)"


@dataclasses.dataclass(frozen=True)
class Scaling:
    """value = number * scale + offset, in the sensor's unit; one, or one for each band.

    It stands for what the file says of itself.
    """

    scale: tuple[float, ...] = (1.0,)
    offset: tuple[float, ...] = (0.0,)


@dataclasses.dataclass(frozen=True)
class Dataset:
    """A dataset of the catalog: what its files hold and how its classes are named.

    Attributes:
        kind: the archive's layout, a key of OPENERS; or "miniature".
        task: "single" (a label is an int), "multi" (multi-hot), "none", or "captions"
            (records have "captions", a tuple of texts).
        sensors: record key -> name of the sensor.
        classes: class (or class folder) names in label order.
        classnames: the names of the classes in prompts, in the same order.
        templates: prompt templates with {c} for the class name.
        folders: folders under root where the dataset may be, by its public names; ""
            is root itself.
        subfolders: record key -> folder of that sensor.
        file_bands: record key -> order of the bands in the files, where it differs from
            the sensor's.
        scaling: record key -> how its files' numbers become the sensor's unit.
        composites: record key -> (record key of the bands that it is made of, name in
            COMPOSITES or a composite), such as "rgb" -> ("s2", "s2_l1c_rgb").
        label_map: label as written in the files -> class, or "" to ignore it.
        custom: settings of a custom dataset. Its classes are found when it is opened,
            unless its TOML file lists them.
        split_lists: file name of the official split lists, such as
            "eurosat-{split}.txt"; where the lists exist they define the splits.
        needs_lists: whether the dataset cannot be opened without its lists.
        size: side in pixels of every image at its finest band; 0 if sizes differ.
        max_shift: how many pixels the files of one record may be apart according to
            their GeoTIFF tags.
    """

    name: str
    kind: str
    task: str
    sensors: dict[str, str]
    classes: tuple[str, ...] = ()
    classnames: tuple[str, ...] = ()
    templates: tuple[str, ...] = ()
    folders: tuple[str, ...] = ()
    subfolders: dict[str, str] = dataclasses.field(default_factory=dict)
    file_bands: dict[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    scaling: dict[str, Scaling] = dataclasses.field(default_factory=dict)
    composites: Mapping[str, tuple[str, str | Composite]] = dataclasses.field(
        default_factory=dict
    )
    label_map: dict[str, str] = dataclasses.field(default_factory=dict)
    custom: CustomDataset | None = None
    split_lists: str = ""
    needs_lists: bool = False
    size: int = 0
    max_shift: float = math.inf


def _check_on_error(on_error: str) -> None:
    if on_error not in ("raise", "skip"):
        raise ValueError(f"on_error = {on_error!r} is not known; use 'raise' or 'skip'")


@dataclasses.dataclass(frozen=True)
class OpenOptions:
    """How a run opens a dataset.

    Attributes:
        on_error: "raise", or "skip" to leave out incomplete examples (a pair without a
            partner, an image without a caption, a listed image that is absent) with a
            warning.
        max_nodata: the share of a patch's pixels that may be missing and are then
            filled (codecs.checks.fill_missing). 0 raises an error for NaN and keeps
            nodata values.
        partial: whether class folders may be missing.
        max_pixels: the most pixels that an image may say it has; one of more is
            unreadable (codecs.limits.check_pixels).

    Raises ValueError for an unknown on_error, a max_nodata outside [0, 1), or a
    max_pixels below 1.
    """

    on_error: str = "raise"
    max_nodata: float = 0.0
    partial: bool = False
    max_pixels: int = MAX_PIXELS

    def __post_init__(self) -> None:
        _check_on_error(self.on_error)
        if not 0 <= self.max_nodata < 1:
            raise ValueError(
                f"max_nodata = {self.max_nodata} should be 0 or more, and below 1"
            )
        if self.max_pixels < 1:
            raise ValueError(f"max_pixels = {self.max_pixels} should be 1 or more")


@dataclasses.dataclass(frozen=True)
class ReadOptions:
    """How batches of records are read.

    Attributes:
        batch_size: records at a time, over all processes.
        threads: threads that read.
        on_error: "raise", or "skip" to leave out records that cannot be read.
        skipped: the file that lists the records left out.
        progress: whether a terminal shows a progress bar.

    Raises ValueError for an unknown on_error.
    """

    batch_size: int = 256
    threads: int = 2
    on_error: str = "raise"
    skipped: Path | None = None
    progress: bool = False

    def __post_init__(self) -> None:
        _check_on_error(self.on_error)


DEFAULTS = OpenOptions()
READING = ReadOptions()


class Source:
    """A random-access sequence of records.

    A subclass sets dataset, split and ids, and implements __getitem__, or read where
    sensors can be read separately: each is by default written in terms of the other.

    Attributes:
        ids: the ids of the records, in order.
        split_rule: how the split was made, where the archive's lists or a hash that
            separates neighbours made it; "" otherwise.
        left_out: the files and names that on_error "skip" left out.
        max_nodata, max_pixels: see OpenOptions.
        tile: side of a tile in pixels, where the records are tiles; 0 otherwise.
        tiles: the records that follow each other and are tiles of one scene.
        window: the scenes whose tiles training shuffles together, so that each is read
            once; 0 where all records are shuffled.
        is_packed: whether the records are read from a pack.
    """

    dataset: Dataset
    split: str
    ids: list[str]
    split_rule: str = ""
    left_out: Sequence[LeftOut] = ()
    max_nodata: float = 0.0
    max_pixels: int = MAX_PIXELS
    tile: int = 0
    tiles: int = 1
    window: int = 0
    is_packed: bool = False

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if cls.__getitem__ is Source.__getitem__ and cls.read is Source.read:
            raise TypeError(f"{cls.__name__} implements neither __getitem__ nor read")

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> Record:
        return self.read(index, self.dataset.sensors)

    def read(self, index: int, keys: Collection[str]) -> Record:
        """Returns a record with the sensors `keys`, as far as it has them.

        It may have others, too. A row of a table may lack a sensor; see check_held.
        """
        return self[index]

    @property
    def spec(self) -> DatasetSpec:
        """The source's name, as results write it."""
        return DatasetSpec(self.dataset.name, self.split, self.tile)

    @property
    def classes(self) -> tuple[str, ...]:
        """The classes in label order."""
        return self.dataset.classes

    @property
    def hash_keys(self) -> list[str]:
        """For each record the key whose hash decides parts such as "train[:90%]"."""
        return [tail_of(id_) for id_ in self.ids]

    @property
    def label_length(self) -> int:
        """The length of a multi-hot label; 0 for single labels, or none."""
        return len(self.classes) if self.dataset.task == "multi" else 0


@dataclasses.dataclass(frozen=True)
class Entry:
    """One example of an archive: its id, its label and its files.

    Attributes:
        label: the class; "" where it is not known.
        files: record key -> image file, or one file for each band.
        labels: the classes of a multi-label example.
        label_file: the file from which the labels are read on access.
        captions: texts that describe the image.
        box_file: the file that says which part of the image is the example (fMoW).
        hash_key: the key whose hash decides parts such as "[:90%]", where it is not
            tail_of(id).
    """

    id: str
    label: str
    files: Mapping[str, Path | tuple[Path, ...]]
    labels: tuple[str, ...] = ()
    label_file: Path | None = None
    captions: tuple[str, ...] = ()
    box_file: Path | None = None
    hash_key: str = ""


@dataclasses.dataclass(frozen=True)
class Listing:
    """The result of a reader: the examples of a split, and what is wrong with others.

    Attributes:
        stray: files or folders without a partner.
        absent: list or table -> the names in it whose files do not exist.
        rule: see Source.split_rule.
        faults: file or folder -> its other faults, in words.
    """

    entries: Sequence[Entry] = ()
    stray: Sequence[Path] = ()
    absent: Mapping[Path, Sequence[str]] = dataclasses.field(default_factory=dict)
    rule: str = ""
    faults: Mapping[Path, Sequence[str]] = dataclasses.field(default_factory=dict)


def check_held(record: Record, keys: Collection[str]) -> None:
    """Raises ValueError for a record that lacks a sensor, such as a table's row may."""
    if lacking := [key for key in keys if key not in record]:
        raise ValueError(f"{record['id']}: this record has no {', '.join(lacking)}")


def tail_of(id_: str) -> str:
    """Returns the id without the name of a split folder at its beginning.

    Its hash decides parts such as "train[:90%]", unless Source.hash_keys differs.
    """
    top, _, rest = id_.partition("/")
    return rest if top in SPLITS else id_

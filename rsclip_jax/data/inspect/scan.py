"""Reads many records of a source for statistics, and lists the unreadable ones."""

import dataclasses
import sys
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import Any

import grain
import numpy as np
from tqdm import tqdm

from rsclip_jax.data.bad_records import suggest_skip
from rsclip_jax.data.codecs.checks import find_missing
from rsclip_jax.data.codecs.notes import Note, noting
from rsclip_jax.data.inspect.statistics import Moments, array_digest, measure, merge
from rsclip_jax.data.sensors import get_sensor
from rsclip_jax.data.types import READING, ReadOptions, Source, check_held

# look(array, its missing values or None) -> what is kept of it
Look = Callable[[np.ndarray, np.ndarray | None], Any]


@dataclasses.dataclass
class Scan:
    """Statistics of some records of a source.

    Attributes:
      indices: the indices of the sampled records that could be read.
      labels: their labels.
      all_labels: the labels of all records of the source.
      captions: the captions of all records.
      moments: sensor key -> moments of each band over the sampled records.
      shapes: sensor key -> how often each image size occurs.
      dtypes: sensor key -> how often each dtype occurs.
      digests: sensor key -> the array_digest of each sampled record.
      notes: sensor key -> kind of a note (codecs.notes) -> its amount for each record
        that has one.
      darkest: sensor key -> the lowest value of each sampled record in any band.
      unreadable: index -> why the record cannot be read.
    """

    indices: list[int] = dataclasses.field(default_factory=list)
    labels: list = dataclasses.field(default_factory=list)
    all_labels: list = dataclasses.field(default_factory=list)
    captions: list[tuple[str, ...]] = dataclasses.field(default_factory=list)
    moments: dict[str, Moments] = dataclasses.field(default_factory=dict)
    shapes: dict[str, Counter[str]] = dataclasses.field(default_factory=dict)
    dtypes: dict[str, Counter[str]] = dataclasses.field(default_factory=dict)
    digests: dict[str, list[str]] = dataclasses.field(default_factory=dict)
    notes: dict[str, dict[str, list[float]]] = dataclasses.field(default_factory=dict)
    darkest: dict[str, list[float]] = dataclasses.field(default_factory=dict)
    unreadable: dict[int, str] = dataclasses.field(default_factory=dict)


def scan(
    source: Source, indices: Sequence[int], options: ReadOptions = READING
) -> Scan:
    """Reads the records at these indices, and the labels and captions of all records.

    A record whose reading raises ValueError or OSError is listed as unreadable.
    """
    found = Scan()
    if source.dataset.task != "none":
        reader = _Reader(source, range(len(source)), (), _look)
        for index, look in enumerate(_each(reader, "labels of", options)):
            if isinstance(look["label"], Exception):
                found.unreadable[index] = str(look["label"])
            else:
                found.all_labels.append(look["label"])
                found.captions.append(look["captions"])
    reader = _Reader(source, indices, source.dataset.sensors, _look)
    looks = _each(reader, "read", options)
    for index, look in zip(indices, looks, strict=True):
        if isinstance(look["label"], Exception):
            found.unreadable[index] = str(look["label"])
        else:
            _add(found, index, look)
    return found


def look_at(
    source: Source,
    indices: Sequence[int],
    key: str,
    look: Look,
    *,
    options: ReadOptions = READING,
) -> Iterator[Any]:
    """Yields look(array, missing) of one sensor's arrays of these records.

    missing: see missing_values.

    An unreadable record raises its error; with on_error "skip" it is left out.
    """
    reader = _Reader(source, indices, (key,), look)
    for found in _each(reader, "read", options):
        if not isinstance(found["label"], Exception):
            yield found["keys"][key]
        elif options.on_error != "skip":
            with suggest_skip():
                raise found["label"]


def _each(reader: "_Reader", what: str, options: ReadOptions) -> Iterable:
    count, source = len(reader.indices), reader.source
    threads = options.threads
    reading = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=8 * threads)
    return tqdm(
        grain.MapDataset.range(count).map(reader).to_iter_dataset(reading),
        total=count,
        desc=f"{what} {source.spec}",
        unit="record",
        leave=False,
        disable=not (options.progress and sys.stderr.isatty()),
    )


class _Reader:
    """Reads a record's label (or error), captions and, by sensor key, what look gives.

    look runs in the thread that reads, so that no image is kept.
    """

    def __init__(
        self,
        source: Source,
        indices: Sequence[int],
        keys: Collection[str],
        look: Look,
    ):
        self.source, self.indices, self.keys, self.look = source, indices, keys, look

    def __call__(self, index: int) -> dict:
        try:
            with noting() as notes:
                record = self.source.read(self.indices[index], self.keys)
                check_held(record, self.keys)
        except (ValueError, OSError) as error:
            return {"label": error}
        looks, told = {}, {}
        for key in self.keys:
            array, name = record[key], self.source.dataset.sensors[key]
            told[key] = [x for x in notes if x.sensor == name]
            looks[key] = self.look(array, missing_values(array, name, told[key]))
        captions = record.get("captions", ())
        return {
            "label": record["label"],
            "captions": captions,
            "keys": looks,
            "notes": told,
        }


def missing_values(
    array: np.ndarray, sensor: str, notes: Sequence[Note]
) -> np.ndarray | None:
    """The values of an array that are no measurements, bool [h, w, bands], or None.

    They are missing (codecs.checks.find_missing), or were filled when it was read.
    """
    missing = find_missing(array, get_sensor(sensor)) if array.size else None
    for mask in (x.mask for x in notes if x.mask is not None):
        if mask.shape == array.shape:  # not of a crop
            missing = mask if missing is None else missing | mask
    return missing


def _look(
    array: np.ndarray, missing: np.ndarray | None
) -> tuple[Moments, str, str, str]:
    shape = "x".join(map(str, array.shape[:2]))
    moments = measure(array, missing)
    return moments, shape, str(array.dtype), array_digest(array)


def _add(found: Scan, index: int, look: dict) -> None:
    found.indices.append(index)
    found.labels.append(look["label"])
    for key, notes in look["notes"].items():
        for x in notes:
            kinds = found.notes.setdefault(key, {})
            kinds.setdefault(x.kind, []).append(x.amount)
    for key, (moments, shape, dtype, digest) in look["keys"].items():
        before = found.moments.get(key)
        found.moments[key] = merge(before, moments) if before else moments
        found.shapes.setdefault(key, Counter())[shape] += 1
        found.dtypes.setdefault(key, Counter())[dtype] += 1
        found.digests.setdefault(key, []).append(digest)
        found.darkest.setdefault(key, []).append(float(moments.low.min()))

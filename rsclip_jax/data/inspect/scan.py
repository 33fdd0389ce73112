"""Reading many records of a source for what they are, unreadable ones counted."""

import dataclasses
import sys
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import Any

import grain
import numpy as np
from tqdm import tqdm

from rsclip_jax.data.bad_records import suggest_skip
from rsclip_jax.data.codecs.checks import noting_filled
from rsclip_jax.data.inspect.statistics import Moments, array_digest, measure, merge
from rsclip_jax.data.types import READING, ReadOptions, Source


@dataclasses.dataclass
class Scan:
    """What the records at some places of a source hold, by sensor key."""

    places: list[int] = dataclasses.field(default_factory=list)  # that were readable
    labels: list = dataclasses.field(default_factory=list)  # of these
    all_labels: list = dataclasses.field(default_factory=list)  # of all records
    captions: list[tuple[str, ...]] = dataclasses.field(
        default_factory=list
    )  # likewise
    moments: dict[str, Moments] = dataclasses.field(default_factory=dict)
    shapes: dict[str, Counter[str]] = dataclasses.field(default_factory=dict)
    dtypes: dict[str, Counter[str]] = dataclasses.field(default_factory=dict)
    digests: dict[str, list[str]] = dataclasses.field(default_factory=dict)  # likewise
    # pixels filled, a number for each record with some (config.data.max_nodata)
    filled: dict[str, list[int]] = dataclasses.field(default_factory=dict)
    unreadable: dict[int, str] = dataclasses.field(default_factory=dict)  # with why


def scan(source: Source, places: Sequence[int], options: ReadOptions = READING) -> Scan:
    """Reads the records at these places once, and labels and captions of all records.

    A record that raises ValueError or OSError is unreadable and no error here.
    """
    found = Scan()
    if source.dataset.task != "none":
        reader = _Reader(source, range(len(source)), (), _look)
        for place, look in enumerate(_each(reader, "labels of", options)):
            if isinstance(look["label"], Exception):
                found.unreadable[place] = str(look["label"])
            else:
                found.all_labels.append(look["label"])
                found.captions.append(look["captions"])
    reader = _Reader(source, places, source.dataset.sensors, _look)
    looks = _each(reader, "read", options)
    for place, look in zip(places, looks, strict=True):
        if isinstance(look["label"], Exception):
            found.unreadable[place] = str(look["label"])
        else:
            _add(found, place, look)
    return found


def look_at(
    source: Source,
    places: Sequence[int],
    key: str,
    look: Callable[[np.ndarray], Any],
    *,
    options: ReadOptions = READING,
) -> Iterator[Any]:
    """look(array) of one sensor of the records at these places, in their order.

    A record that cannot be read raises its error; on_error "skip" leaves it out.
    """
    reader = _Reader(source, places, (key,), look)
    for found in _each(reader, "read", options):
        if not isinstance(found["label"], Exception):
            yield found["keys"][key]
        elif options.on_error != "skip":
            with suggest_skip():
                raise found["label"]


def _each(reader: "_Reader", what: str, options: ReadOptions) -> Iterable:
    count, source = len(reader.places), reader.source
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
    """A record's label (or the error), captions and, by sensor key, look(array).

    It is taken in the reader's thread, and no image is kept.
    """

    def __init__(
        self,
        source: Source,
        places: Sequence[int],
        keys: Collection[str],
        look: Callable[[np.ndarray], Any],
    ):
        self.source, self.places, self.keys, self.look = source, places, keys, look

    def __call__(self, index: int) -> dict:
        try:
            with noting_filled() as noted:
                record = self.source.read(self.places[index], self.keys)
        except (ValueError, OSError) as error:
            return {"label": error}
        keys = {key: self.look(record[key]) for key in self.keys}
        captions = record.get("captions", ())
        sensors = self.source.dataset.sensors
        filled = {k: n for name, n in noted for k in keys if sensors[k] == name}
        label = record["label"]
        return {"label": label, "captions": captions, "keys": keys, "filled": filled}


def _look(array: np.ndarray) -> tuple[Moments, str, str, str]:
    shape = "x".join(map(str, array.shape[:2]))
    return measure(array), shape, str(array.dtype), array_digest(array)


def _add(found: Scan, place: int, look: dict) -> None:
    found.places.append(place)
    found.labels.append(look["label"])
    for key, pixels in look["filled"].items():
        if pixels:
            found.filled.setdefault(key, []).append(pixels)
    for key, (moments, shape, dtype, digest) in look["keys"].items():
        before = found.moments.get(key)
        found.moments[key] = merge(before, moments) if before else moments
        found.shapes.setdefault(key, Counter())[shape] += 1
        found.dtypes.setdefault(key, Counter())[dtype] += 1
        found.digests.setdefault(key, []).append(digest)

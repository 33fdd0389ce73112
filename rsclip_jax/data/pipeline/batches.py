"""grain pipelines: seeded, resumable training batches; padded evaluation batches."""

import functools
import itertools
import math
import sys
import threading
from collections.abc import Callable, Collection, Hashable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import grain
import numpy as np

from rsclip_jax.data.bad_records import note_skipped, suggest_skip
from rsclip_jax.data.pipeline.augment import Augment
from rsclip_jax.data.pipeline.geometry import fit_record, make_views
from rsclip_jax.data.pipeline.transforms import augment_record
from rsclip_jax.data.sensors import Sensor, get_sensor
from rsclip_jax.data.sensors.bands import band_places
from rsclip_jax.data.types import READING, ReadOptions, Record, Source

# Of a labelled source: ids [k, templates, n] of its classes' captions; of a captioned
# one: caption -> ids [n].
Tokens = np.ndarray | Mapping[str, np.ndarray]


class Tolerant:
    """A source whose unreadable records are replaced by readable ones, drawn anywhere.

    Each is counted, and not read again; of those with one error, such as the tiles of
    a file, the first is warned of. The stand-in's "mask" is False:
    evaluation leaves it out, training uses it as one more example. keys: the sensors to
    read, by default all. listed: the file that they are noted in, see note_skipped.
    """

    def __init__(
        self,
        source: Source,
        on_error: str,
        keys: Collection[str] = (),
        listed: Path | None = None,
    ):
        self.source, self.skip = source, on_error == "skip"
        self.keys = tuple(keys) or tuple(source.dataset.sensors)
        self.listed = listed
        self._bad: set[int] = set()
        self._said: set[str] = set()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> Record:
        if not self.skip:
            with suggest_skip():
                return {**self._read(index), "mask": True}
        for place in itertools.chain([index], _stand_ins(index, len(self))):
            if place in self._bad:  # so that a gap is read once, not at each visit
                continue
            try:
                return {**self._read(place), "mask": place == index}
            except (ValueError, OSError) as error:
                self._note(place, error)
        raise ValueError(
            f"no record of {self.source.dataset.name}:{self.source.split} is readable"
        )

    def _read(self, index: int) -> Record:
        try:
            return self.source.read(index, self.keys)
        except StopIteration as error:
            # grain takes it for the end of the data, and would stop there in silence
            record_id = self.source.ids[index]
            raise RuntimeError(f"{record_id}: StopIteration in its reader") from error

    def _note(self, place: int, error: Exception) -> None:
        record_id = self.source.ids[place]
        with self._lock:
            if place in self._bad:
                return
            self._bad.add(place)
            count, said = len(self._bad), str(error) in self._said
            self._said.add(str(error))
        if self.listed:
            where = f"{self.source.dataset.name}:{self.source.split}"
            note_skipped(self.listed, where, record_id, str(error))
        if not said:
            message = (
                f"warning: skipped {record_id} ({count} of {len(self)} so far): {error}"
            )
            print(message, file=sys.stderr, flush=True)


def _stand_ins(index: int, count: int) -> Iterator[int]:
    """All places of `count`, each once, in an order that the index alone decides.

    The neighbours of a gap would stand in for all of it; a draw is spread over the set.
    """
    rng = np.random.default_rng(index)
    start, step = int(rng.integers(count)), int(rng.integers(1, count + 1))
    while math.gcd(step, count) > 1:
        step += 1
    return ((start + k * step) % count for k in range(count))


def train_batches(
    sources: Sequence[Source],
    *,
    sizes: dict[str, int],
    augment: Augment,
    seed: int,
    options: ReadOptions = READING,
    sensors: Mapping[str, Sensor] | None = None,
    optional: Collection[str] = (),
    tokens: Sequence[Tokens] | None = None,
    weights: Sequence[float] | None = None,
    process: tuple[int, int] = (0, 1),
) -> Any:
    """An endless grain iterator of batches {key: [b, h, w, c], "label": [b] or [b, k]}.

    sizes: record key -> side in pixels that its encoder takes. sensors: record key ->
    its row with the mean that its encoder subtracts, where that is not the row's own;
    a source with its bands in another order has them moved by name. optional: keys, in
    sensors, that a source or record may lack: zeros stand for them, and the batch has
    "has_<key>" [b], False there. batch_size is the global one; process (index, count)
    takes its share. Several sources are mixed by weight (default: by size), without
    "label" where theirs differ in shape. With tokens (one Tokens a source) a
    batch also has "text", the label's caption with a template, or one of the image's
    captions, drawn at random; and "group", see number_groups. Order and augmentation
    depend on the seed alone, not on the number of threads. on_error "skip" replaces
    what cannot be read and lists it in the file skipped. Raises ValueError for an empty
    or too small source.
    """
    _check_enough(sources, options.batch_size)
    groups = number_groups(sources, tokens) if tokens else []
    lengths = {source.label_length for source in sources}
    parts = []
    for i, source in enumerate(sources):
        # Indices go through grain and records only where they end up: grain measures
        # the size of all that a source gives, which costs as much as augmenting it.
        order = grain.MapDataset.range(len(source)).seed(source_seed(seed, i))
        part = order.shuffle().repeat()
        held = [k for k in sizes if k in source.dataset.sensors or k not in optional]
        reader = Tolerant(source, options.on_error, held, options.skipped)
        texts = (tokens[i], groups[i]) if tokens else (None, None)
        transform = _TrainTransform(
            reader, sizes, augment, sensors or {}, optional, len(lengths) == 1, *texts
        )
        parts.append(part.random_map(transform))
    mixed = parts[0]
    if len(parts) > 1:
        mixed = grain.MapDataset.mix(parts, weights or [len(s) for s in sources])
    index, count = process
    if count > 1:
        mixed = mixed[index::count]
    size = options.batch_size // count
    # Batching in the reader threads beats batching after them.
    mixed = mixed.batch(size, drop_remainder=True, batch_fn=_fill)
    return iter(mixed.to_iter_dataset(_threads(options)))


def _threads(options: ReadOptions) -> grain.ReadOptions:
    return grain.ReadOptions(
        num_threads=options.threads, prefetch_buffer_size=2 * options.threads
    )


def source_seed(seed: int, index: int) -> int:
    """The seed of a run's source at this index: the first source has the run's own.

    The others have children of it (numpy's SeedSequence), so that no source is ordered
    as one of a run with another seed, as it would be with seed + index.
    """
    if index == 0:
        return seed
    (child,) = np.random.SeedSequence(seed, spawn_key=(index,)).generate_state(1)
    return int(child)


def _check_enough(sources: Sequence[Source], batch_size: int) -> None:
    total = sum(len(s) for s in sources)
    if total < batch_size:
        names = ", ".join(f"{s.dataset.name}:{s.split}" for s in sources)
        raise ValueError(
            f"{names}: {total} examples are fewer than one batch of {batch_size};"
            " set a smaller batch_size"
        )


def number_groups(
    sources: Sequence[Source], tokens: Sequence[Tokens]
) -> list[dict[str, int] | list[int]]:
    """For each source the groups of its texts: caption -> group, or a group a class.

    Equal captions are one group, and so are classes of equal names and templates, in
    whichever sources they are: as two they would be each other's negatives.
    """
    numbers: dict[Hashable, int] = {}

    def number(text: Hashable) -> int:
        return numbers.setdefault(text, len(numbers))

    groups: list[dict[str, int] | list[int]] = []
    for source, table in zip(sources, tokens, strict=True):
        row = source.dataset
        if isinstance(table, Mapping):
            groups.append({text: number(text) for text in table})
        else:
            groups.append([number((name, row.templates)) for name in row.classnames])
    return groups


Lazy = Callable[[Mapping[str, np.ndarray]], dict]  # of the places to write to, if any


def _fill(examples: Sequence[Lazy]) -> dict:
    """A batch of examples, each made when its turn comes, and in its place if it can.

    Made all at once before they are stacked, a batch of large patches would be written
    to fresh memory twice, which takes three times as long as reading them.
    """
    batch: dict = {}
    for i, make in enumerate(examples):
        places = {key: array[i] for key, array in batch.items() if array.ndim == 4}
        for key, value in make(places).items():
            if i == 0:
                shape = (len(examples), *np.shape(value))
                batch[key] = np.empty(shape, np.asarray(value).dtype)
            if value is not places.get(key):
                batch[key][i] = value
    return batch


class _TrainTransform:
    def __init__(
        self, reader, sizes, augment, sensors, optional, labelled, tokens, groups
    ):
        self.reader, self.sizes, self.augment = reader, sizes, augment
        self.optional, self.labelled = optional, labelled
        self.tokens, self.groups = tokens, groups
        self._thread = threading.local()  # has a generator of its own
        row = reader.source.dataset
        held = {key: get_sensor(row.sensors[key]) for key in reader.keys}
        self.sensors = {**held, **sensors}
        self._places = {
            key: list(band_places(sensor, seen.bands, seen.unit, row.name))
            for key, sensor in held.items()
            if sensor.bands != (seen := self.sensors[key]).bands
        }

    def __call__(self, index: int, rng: np.random.Generator) -> Lazy:
        # grain lends this generator for this call alone
        return functools.partial(self.make, index, rng.bit_generator.state)

    def make(self, index: int, state: Mapping, places: Mapping) -> dict:
        """The example, drawn with the generator in that state, in places if it can."""
        if not hasattr(self._thread, "rng"):
            self._thread.rng = np.random.Generator(np.random.Philox())
        rng = self._thread.rng
        rng.bit_generator.state = state
        record = self.reader[index]
        for key in self._places.keys() & record.keys():
            record[key] = record[key][..., self._places[key]]
        lacking = [key for key in self.optional if key not in record]
        out = augment_record(
            record,
            rng,
            sizes={k: size for k, size in self.sizes.items() if k not in lacking},
            sensors=self.sensors,
            augment=self.augment,
            places=places,
        )
        out |= {key: self._blank(key) for key in lacking}
        batch = {key: out[key] for key in self.sizes}
        batch |= {f"has_{k}": np.bool_(k not in lacking) for k in self.optional}
        if self.labelled:
            batch["label"] = np.asarray(record["label"], np.int32)
        if "teacher" in out:
            batch["teacher"] = out["teacher"]
        if self.tokens is not None:
            text, group = self._draw_text(record, rng)
            batch["text"] = text
            batch["group"] = np.int32(group)
        return batch

    def _blank(self, key: str) -> np.ndarray:
        side, sensor = self.sizes[key], self.sensors[key]
        return np.zeros((side, side, len(sensor.bands)), sensor.dtype)

    def _draw_text(self, record: Record, rng) -> tuple[np.ndarray, int]:
        if isinstance(self.tokens, np.ndarray):
            texts = self.tokens[record["label"]]
            return texts[rng.integers(len(texts))], self.groups[record["label"]]
        text = record["captions"][rng.integers(len(record["captions"]))]
        return self.tokens[text], self.groups[text]


def eval_batches(
    source: Source, *, sizes: dict[str, int], options: ReadOptions = READING
) -> Iterator[dict]:
    """Every record once, in order, with "label" and "mask"; the last batch is padded.

    mask is False for padding and for records that could not be read, which are listed
    in the file skipped.
    """

    reader = Tolerant(source, options.on_error, sizes, options.skipped)

    def prepare(index: int, _: Mapping) -> dict:  # fit's arrays are its own
        record = reader[index]
        out = fit_record(record, sizes=sizes)
        batch = {key: out[key] for key in sizes}
        batch["label"] = np.asarray(record["label"], np.int32)
        return {**batch, "mask": np.bool_(record["mask"])}

    dataset = grain.MapDataset.range(len(source)).map(
        lambda index: functools.partial(prepare, index)
    )
    dataset = dataset.batch(options.batch_size, drop_remainder=False, batch_fn=_fill)
    for batch in dataset.to_iter_dataset(_threads(options)):
        yield {k: _pad(v, options.batch_size) for k, v in batch.items()}


def view_batches(
    source: Source,
    places: Sequence[int],
    *,
    size: int,
    views: Sequence[int],
    keys: Collection[str] = ("rgb",),
    options: ReadOptions = READING,
) -> Iterator[dict]:
    """{"rgb": [b, v, size, size, 3], "place": [b], "mask": [b]} of records at places.

    views: as make_views has them. keys: the sensors that must be readable, "rgb" among
    them. mask is False for a record that is not, whose images are another's.
    """
    reader = Tolerant(source, options.on_error, keys, options.skipped)

    def prepare(place: int, _: Mapping) -> dict:
        record = reader[place]
        return {
            "rgb": make_views(record["rgb"], size, views),
            "place": np.int64(place),
            "mask": np.bool_(record["mask"]),
        }

    dataset = grain.MapDataset.range(len(places)).map(
        lambda i: functools.partial(prepare, int(places[i]))
    )
    dataset = dataset.batch(options.batch_size, drop_remainder=False, batch_fn=_fill)
    return iter(dataset.to_iter_dataset(_threads(options)))


def _pad(array: np.ndarray, rows: int) -> np.ndarray:
    missing = rows - len(array)
    if not missing:
        return array
    return np.concatenate([array, np.zeros((missing, *array.shape[1:]), array.dtype)])

"""grain pipelines: seeded, resumable training batches; padded evaluation batches."""

import dataclasses
import functools
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

import grain
import numpy as np

from rsclip_jax.data.pipeline.augment import Augment
from rsclip_jax.data.pipeline.examples import ExampleMaker, Make
from rsclip_jax.data.pipeline.fitting import Fit, fit_record
from rsclip_jax.data.pipeline.geometry import make_views
from rsclip_jax.data.pipeline.scene_order import shuffled
from rsclip_jax.data.pipeline.texts import Texts, Tokens, number_groups
from rsclip_jax.data.pipeline.tolerant import Tolerant
from rsclip_jax.data.sampling import shares
from rsclip_jax.data.sensors import Sensor
from rsclip_jax.data.types import READING, ReadOptions, Source


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
    """Endless training batches; order and augmentation depend on the seed alone.

    Args:
      sources: the records. Several sources are mixed, without "label" where their
        labels differ in shape.
      sizes: record key -> side in pixels that its encoder takes.
      augment: the augmentation's settings.
      seed: seed of the order, augmentation and texts.
      options: batch_size is the global one; on_error "skip" replaces unreadable
        records, see Tolerant.
      sensors: record key -> the sensor with the mean that its encoder subtracts, where
        that is not the dataset's; a source's bands in another order are moved by name.
      optional: keys, in sensors, that a source or record may lack. Zeros stand for
        them, and "has_<key>" [b] is False there.
      tokens: the token ids of each source's texts.
      weights: shares of the sources in the mix; by default their sizes.
      process: (index, count) of the process, which reads its share of each batch: the
        index-th block of its rows. A batch's order does not depend on the count.

    Returns:
      A grain iterator of batches {key: [b, h, w, c], "label": [b] or [b, k]}. With
      tokens a batch also has "text" [b, n], one of the class's prompts or the image's
      captions, drawn at random, and "group" [b], see number_groups. "records" [b] are
      the records' numbers, counted through all sources; they are for messages.

    Raises ValueError where all sources together have less than one batch.
    """
    _check_enough(sources, options.batch_size)
    groups = number_groups(sources, tokens) if tokens else []
    with_label = len({source.label_length for source in sources}) == 1
    firsts = np.cumsum([0, *map(len, sources)])
    parts = []
    for i, source in enumerate(sources):
        # grain measures every element: records are slow to measure, so are made last.
        order = shuffled(source, source_seed(seed, i))
        held = [k for k in sizes if k in source.dataset.sensors or k not in optional]
        make_example = ExampleMaker(
            Tolerant(source, options, held, optional),
            sizes=sizes,
            augment=augment,
            sensors=sensors or {},
            optional=optional,
            with_label=with_label,
            texts=Texts(tokens[i], groups[i]) if tokens else None,
            first=int(firsts[i]),
        )
        parts.append(order.random_map(make_example))
    mixed = parts[0]
    if len(parts) > 1:
        mixed = grain.MapDataset.mix(parts, weights or [len(s) for s in sources])
    return _batched(mixed, options, process, drop_remainder=True)


def source_seed(seed: int, index: int) -> int:
    """The seed of a run's source at this index.

    The first source has the run's own seed, the others children of it (numpy's
    SeedSequence). With seed + index, a source would be ordered like another source of a
    run with another seed.
    """
    if index == 0:
        return seed
    (child,) = np.random.SeedSequence(seed, spawn_key=(index,)).generate_state(1)
    return int(child)


def _check_enough(sources: Sequence[Source], batch_size: int) -> None:
    total = sum(len(s) for s in sources)
    if total < batch_size:
        names = ", ".join(str(s.spec) for s in sources)
        raise ValueError(
            f"{names}: {total} examples are fewer than one batch of {batch_size};"
            " set a smaller batch_size"
        )


def eval_batches(
    source: Source,
    *,
    sizes: Mapping[str, int | Fit],
    options: ReadOptions = READING,
    process: tuple[int, int] = (0, 1),
) -> Iterator[dict]:
    """Batches of every record once, in order, the last one padded.

    Each has the keys of sizes, their images fitted to that side, "label" and "mask",
    which is False for padding and for records that could not be read (on_error "skip").

    process: (index, count) of the process, which reads its share of each batch of
    options.batch_size: the index-th block of rows. Every process gets as many batches.
    """
    reader = Tolerant(source, options, sizes)
    block = _share(options.batch_size, process)
    parts = shares(len(source), block, process)
    mine = [index for part in parts for index in part]

    def make(index: int, _: Mapping) -> dict:  # fit makes its own arrays
        record = reader[index]
        fitted = fit_record(record, sizes=sizes)
        example = {key: fitted[key] for key in sizes}
        example["label"] = np.asarray(record["label"], np.int32)
        return {**example, "mask": np.bool_(record["mask"])}

    last: dict = {}
    read = _in_order(mine, make, dataclasses.replace(options, batch_size=block))
    for part in parts:
        # only the end of the last batch can have nothing for this process
        last = next(read) if part else _blank(last or _fill([lambda _: make(0, {})]))
        yield {k: _pad(v, block) for k, v in last.items()}


def _blank(batch: dict) -> dict:
    """No rows, with the shapes and types of a batch."""
    return {key: array[:0] for key, array in batch.items()}


def view_batches(
    source: Source,
    indices: Sequence[int],
    *,
    size: int,
    views: Sequence[int],
    keys: Collection[str] = ("rgb",),
    options: ReadOptions = READING,
) -> Iterator[dict]:
    """Batches of RGB images in several views, of the records at these indices.

    Args:
      source: the records.
      indices: which of them, in order.
      size: side in pixels.
      views: as for make_views.
      keys: the sensors that must be readable, "rgb" among them.
      options: how they are read.

    Returns:
      Batches {"rgb": [b, v, size, size, 3], "index": [b], "mask": [b]}; where mask is
      False the record is unreadable, and the images are another record's.
    """
    reader = Tolerant(source, options, keys)

    def make(index: int, _: Mapping) -> dict:
        record = reader[index]
        return {
            "rgb": make_views(record["rgb"], size, views),
            "index": np.int64(index),
            "mask": np.bool_(record["mask"]),
        }

    return _in_order(indices, make, options)


def _in_order(
    indices: Sequence[int], make: Callable[[int, Mapping], dict], options: ReadOptions
) -> Iterator[dict]:
    """Batches of make(index, out) for these indices, in order."""
    dataset = grain.MapDataset.range(len(indices)).map(
        lambda i: functools.partial(make, int(indices[i]))
    )
    return _batched(dataset, options, (0, 1), drop_remainder=False)


def _batched(
    dataset: grain.MapDataset,
    options: ReadOptions,
    process: tuple[int, int],
    *,
    drop_remainder: bool,
) -> Any:
    index, count = process
    # batching in the threads that read is faster than batching after them
    batches = dataset.batch(
        _share(options.batch_size, process),
        drop_remainder=drop_remainder,
        batch_fn=_fill,
    )
    if count > 1:  # a global batch is `count` of these, one of each process
        batches = batches[index::count]
    threads = grain.ReadOptions(
        num_threads=options.threads, prefetch_buffer_size=2 * options.threads
    )
    return iter(batches.to_iter_dataset(threads))


def _share(batch_size: int, process: tuple[int, int]) -> int:
    """One process's rows of a batch; ValueError where they cannot be equal."""
    index, count = process
    if not 0 <= index < count or batch_size % count:
        raise ValueError(
            f"batch_size = {batch_size} cannot be shared equally: process {index} of"
            f" {count}; choose a multiple of {count}"
        )
    return batch_size // count


def _fill(examples: Sequence[Make]) -> dict:
    """Makes a batch, writing each example into the batch's arrays where possible.

    Stacking finished examples would write them to fresh memory twice, which for large
    patches takes three times as long as reading them.
    """
    batch: dict = {}
    for i, make in enumerate(examples):
        out = {key: array[i] for key, array in batch.items() if array.ndim == 4}
        for key, value in make(out).items():
            if i == 0:
                shape = (len(examples), *np.shape(value))
                batch[key] = np.empty(shape, np.asarray(value).dtype)
            if value is not out.get(key):
                batch[key][i] = value
    return batch


def _pad(array: np.ndarray, length: int) -> np.ndarray:
    missing = length - len(array)
    if not missing:
        return array
    return np.concatenate([array, np.zeros((missing, *array.shape[1:]), array.dtype)])

"""A cache of a frozen teacher's features for the images of a source.

<folder>/teacher_features.npy   float32 [n, v, d]: record, view, feature; memory-mapped
<folder>/teacher_records.npy    for each record, its state and its CRC-32
<folder>/meta.json              teacher, dataset and views of the features

An image that is only flipped and rotated has eight views (geometry.number_view), so the
features of each are computed once. Random crops and colour jitter cannot be cached
(unbounded views).
"""

import contextlib
import dataclasses
import json
import os
import sys
import time
import zlib
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from tqdm import tqdm

from rsclip_jax.data.pipeline.batches import view_batches
from rsclip_jax.data.sampling import shares, spread_indices
from rsclip_jax.data.sources.digests import split_digest
from rsclip_jax.data.sources.wrappers import Wrapper
from rsclip_jax.data.types import READING, ReadOptions, Record, Source
from rsclip_jax.io.files import read_json, write_json
from rsclip_jax.io.lock import locked
from rsclip_jax.io.texts import first_of
from rsclip_jax.train import processes, stopping, watchdog

# uint8 images [m, size, size, 3] -> features [m, d]
EncodePictures = Callable[[np.ndarray], np.ndarray]

_NOT_MADE, _MADE, _UNREADABLE = 0, 1, 2
_MARK = np.dtype([("state", np.uint8), ("crc", np.uint32)])
_SAMPLE = 8  # records to encode again before existing features are used
# Devices round differently (TF32, bfloat16); another image differs far more.
_TOLERANCE = 0.02
_SECONDS = 5.0  # of work that an interruption may lose
_WAY = (
    "use another folder, remove {folder} to compute them again, or train without a"
    " cache"
)


@dataclasses.dataclass(frozen=True)
class Reading:
    """How images are read (see view_batches), and where progress is logged.

    keys: "rgb", and sensors to read with it to check that the record is complete.
    options.batch_size: the number of images to encode at a time.
    """

    keys: Collection[str] = ("rgb",)
    options: ReadOptions = READING
    log: Callable[[str], None] = print

    def records_in(self, meta: dict) -> int:
        """The number of records that are encoded at a time, in all views."""
        return max(1, self.options.batch_size // len(meta["views"]))

    def views_of(
        self, source: Source, indices: Sequence[int], meta: dict
    ) -> Iterator[dict]:
        """view_batches of these records in the cached views."""
        options = dataclasses.replace(self.options, batch_size=self.records_in(meta))
        return view_batches(
            source,
            indices,
            size=meta["pictures"]["size"],
            views=meta["views"],
            keys=self.keys,
            options=options,
        )


class Taught(Wrapper):
    """A source whose records have "teacher": the features of their image by view.

    Reading a record without features raises ValueError, as computing them did.
    """

    def __init__(self, source: Source, features: np.ndarray, made, views: Sequence):
        super().__init__(source)
        self._views = tuple(views)
        self._features, self._made = np.asarray(features), made

    def read(self, index: int, keys: Collection[str]) -> Record:
        if not self._made[index]:
            raise ValueError(
                f"{self.ids[index]}: could not be read when the teacher's features"
                " were computed"
            )
        record = self.source.read(index, keys)
        of_view = dict(zip(self._views, self._features[index], strict=True))
        return {**record, "teacher": of_view}


def open_taught(
    folder: Path,
    source: Source,
    encode: EncodePictures,
    *,
    teacher: dict[str, Any],
    size: int,
    dim: int,
    views: Sequence[int],
    reading: Reading,
) -> Taught:
    """The source with a teacher's features, which are computed unless they exist.

    An interrupted computation resumes. Several runs take turns; the processes of one
    run share the work.

    Args:
        teacher: the teacher's identity (digest, settings).
        size: the side in pixels of encode's images.
        dim: the number of channels of a feature.

    Raises ValueError if existing features are damaged, belong to another teacher, other
    records or fewer views, or if a sample that is encoded again differs.
    """
    shape = (len(source), len(views), dim)
    meta: dict[str, Any] = {
        "teacher": teacher,
        "dataset": describe_source(source),
        "pictures": {"size": size},
        "features": {"dim": dim, "dtype": "float32"},
        "views": list(views),
    }
    wanted = json.loads(json.dumps(meta))  # as the file will return it

    def prepare() -> dict:
        return _prepare(folder, source, shape, encode, wanted, reading)

    with contextlib.ExitStack() as stack:
        if processes.is_first():
            folder.mkdir(parents=True, exist_ok=True)
            stack.enter_context(_locked(folder, reading.log))
        found = processes.first_decides(prepare)
        meta, todo = found["meta"], np.array(found["todo"], np.int64)
        shape = (len(source), len(meta["views"]), dim)
        if len(todo):
            files = open_files(folder, shape, "r+") if processes.is_first() else ()
            with watchdog.during(f"features of {source.spec}"):
                make(source, todo, files, encode, meta, reading)
        processes.wait_for_all(f"the features of {source.spec}")
    features, marks = open_files(folder, shape)
    return Taught(source, features, marks["state"] == _MADE, meta["views"])


def _prepare(
    folder: Path,
    source: Source,
    shape: tuple[int, int, int],
    encode: EncodePictures,
    wanted: dict,
    reading: Reading,
) -> dict[str, Any]:
    """Checks existing features or begins new ones: {"meta", "todo": record indices}."""
    meta = wanted
    if (folder / "meta.json").exists():
        meta = check_meta(folder, wanted)
        shape = (shape[0], len(meta["views"]), shape[2])
    else:
        reading.log(f"{folder}: {describe(shape)} of the teacher's features")
        begin(folder, shape, meta)
    features, marks = open_files(folder, shape)
    check_rows(folder, source, features, marks, reading)
    check_sample(folder, source, features, marks, encode, meta, reading)
    todo = np.flatnonzero(marks["state"] != _MADE)  # a file may be repaired by now
    if made := len(source) - len(todo):
        reading.log(f"{folder}: {made:,} of {len(source):,} records are cached")
    return {"meta": meta, "todo": todo.tolist()}


def describe_source(source: Source) -> dict[str, Any]:
    """The identity of a source's images."""
    return {
        "name": f"{source.dataset.name}:{source.split}",
        "split_digest": split_digest(source),
        "max_nodata": source.max_nodata,
    }


def describe(shape: tuple[int, int, int]) -> str:
    """A cache's size as text."""
    n, v, d = shape
    return (
        f"{n:,} records x {v} view(s) x {d} x 4 bytes = {n * v * d * 4 / 1e6:,.1f} MB"
    )


@contextlib.contextmanager
def _locked(folder: Path, log: Callable[[str], None]) -> Iterator[None]:
    """Locks the folder; a process that is killed releases the lock."""
    with contextlib.ExitStack() as stack:
        # another user's folder may be read-only
        with contextlib.suppress(OSError):
            text = f"{folder}: waiting for another run to compute these features"
            held = locked(folder / "lock", on_wait=lambda: log(text))
            stack.enter_context(held)
        yield


def _way(folder: Path) -> str:
    return _WAY.format(folder=folder)


def check_meta(folder: Path, wanted: dict) -> dict:
    """The meta of existing features; ValueError naming everything that differs.

    wanted: some of its sections. More views than wanted are accepted.
    """
    try:
        found = read_json(folder / "meta.json")
        named = {**{section: {} for section in wanted}, **found}
    except (ValueError, TypeError) as error:
        raise ValueError(
            f"{folder}/meta.json is damaged ({error}): {_way(folder)}"
        ) from error
    lines = [
        f"{section} {key}: {a!r} in the cache, {b!r} in this run"
        for section in wanted.keys() - {"views"}
        for key in sorted({*named[section], *wanted[section]})
        if (a := named[section].get(key)) != (b := wanted[section].get(key))
    ]
    if missing := sorted(set(wanted["views"]) - set(named["views"])):
        lines.append(
            f"views: {named['views']} in the cache, this run also draws {missing}"
        )
    if lines:
        text = first_of(sorted(lines), "\n  ")
        raise ValueError(
            f"{folder} holds features that do not fit this run:\n  {text}\n"
            + _way(folder)
        )
    return found


def begin(folder: Path, shape: tuple[int, int, int], meta: dict) -> None:
    """Writes empty files of full size, then their meta; OSError if the disk is full."""
    for path, dtype, size in _files(folder, shape):
        array = np.lib.format.open_memmap(path, "w+", dtype, size)
        array.flush()
        try:
            with open(path, "r+b") as file:  # reserves the blocks of the sparse file
                if hasattr(os, "posix_fallocate"):
                    os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
        except OSError as error:
            path.unlink()
            raise OSError(
                f"{folder} has no room for {describe(shape)} ({error.strerror}): use"
                " another folder, or train without a cache"
            ) from error
    write_json(folder / "meta.json", meta)


def _files(folder: Path, shape: tuple[int, int, int]):
    """(path, dtype, shape) of both arrays."""
    return (
        (folder / "teacher_features.npy", np.dtype(np.float32), shape),
        (folder / "teacher_records.npy", _MARK, shape[:1]),
    )


def open_files(
    folder: Path, shape: tuple[int, int, int], mode: Literal["r", "r+"] = "r"
):
    """(features, marks), memory-mapped; ValueError for damaged files."""
    arrays = []
    for path, dtype, size in _files(folder, shape):
        try:
            array = np.load(path, mmap_mode=mode)
        except PermissionError:
            raise
        except Exception as error:  # a broken header raises many kinds of error
            raise ValueError(f"{path} is damaged ({error}): {_way(folder)}") from error
        if (array.shape, array.dtype) != (size, dtype):
            raise ValueError(
                f"{path} holds {array.dtype} {array.shape}, not {dtype} {size}:"
                f" {_way(folder)}"
            )
        arrays.append(array)
    return arrays


def check_rows(folder: Path, source: Source, features, marks, reading: Reading) -> None:
    """Raises ValueError for features whose checksum is wrong."""
    made = np.flatnonzero(marks["state"] == _MADE)
    quiet = not (reading.options.progress and sys.stderr.isatty())
    bar = tqdm(made, "check of features", unit="record", leave=False, disable=quiet)
    crc = np.asarray(marks["crc"])
    for index in bar:
        if checksum(features[index]) != crc[index]:
            raise ValueError(
                f"{folder}: the features of record {source.ids[index]} are damaged:"
                f" {_way(folder)}"
            )


def checksum(row: np.ndarray) -> int:
    """The CRC-32 of a record's features [v, d]."""
    return zlib.crc32(np.ascontiguousarray(row).tobytes())


def check_sample(
    folder: Path, source: Source, features, marks, encode, meta: dict, reading: Reading
) -> None:
    """Raises ValueError if a sample of the images has changed since encoding."""
    made = np.flatnonzero(marks["state"] == _MADE)
    if not len(made):
        return
    spread = spread_indices(len(made), _SAMPLE)
    pictures, kept = [], []
    indices: list[int] = []
    for batch in reading.views_of(source, made[spread].tolist(), meta):
        for i in np.flatnonzero(batch["mask"]):
            index, view = int(batch["index"][i]), len(indices) % len(meta["views"])
            pictures.append(batch["rgb"][i, view])
            kept.append(features[index, view])
            indices.append(index)
    if not indices:
        return
    apart = relative_difference(encode(np.stack(pictures)), np.stack(kept))
    if (far := apart > _TOLERANCE).any():
        worst = ", ".join(
            f"{source.ids[indices[i]]} ({100 * apart[i]:.0f} %)"
            for i in np.flatnonzero(far)
        )
        raise ValueError(
            f"{folder}: {len(indices)} records were encoded again, and these differ:"
            f" {worst}; their files or the weights have changed: {_way(folder)}"
        )


def relative_difference(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """|a - b| / |b| of each row."""
    length = np.maximum(np.linalg.norm(b, axis=-1), 1e-12)
    return np.linalg.norm(a - b, axis=-1) / length


def make(
    source: Source, todo: np.ndarray, files, encode, meta, reading: Reading
) -> None:
    """Computes the features of the records todo; an interruption keeps those so far.

    Each process encodes its share of them, and process 0 writes all: two hosts that map
    one file would overwrite each other's part of a page. A record is marked only after
    its features are on disk.

    files: open_files's; () for a process that does not write.
    """
    fresh: list[tuple[int, int, int]] = []
    saved = time.monotonic()

    def save() -> None:
        if not files:
            return
        features, marks = files
        features.flush()
        for index, state, crc in fresh:
            marks[index] = state, crc
        marks.flush()
        fresh.clear()

    bar = tqdm(
        total=len(todo),
        desc="teacher features",
        unit="record",
        disable=not reading.options.progress,
        mininterval=0.5 if sys.stderr.isatty() else 10,
    )
    try:
        for batch in _of_all_processes(source, todo, encode, meta, reading):
            stopping.stop_point("while computing the teacher's features")
            for index, whole, row in zip(*batch, strict=True) if files else ():
                if whole:
                    files[0][index] = row
                state = _MADE if whole else _UNREADABLE
                fresh.append((index, state, checksum(row) if whole else 0))
            if time.monotonic() - saved > _SECONDS:
                save()
                saved = time.monotonic()
            bar.update(len(batch[0]))
    finally:
        save()
        bar.close()


def _of_all_processes(
    source: Source, todo: np.ndarray, encode, meta, reading: Reading
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """(indices [b], which could be read [b], features [b, v, d]) of each batch."""
    block = reading.records_in(meta)
    parts = shares(len(todo), block, (processes.index(), processes.count()))
    mine = [int(todo[i]) for part in parts for i in part]
    read = iter(reading.views_of(source, mine, meta))
    shape = (0, len(meta["views"]), meta["features"]["dim"])
    for number, part in enumerate(parts):
        own = np.zeros(0, np.int64), np.zeros(0, bool), np.zeros(shape, np.float32)
        if part:
            batch = next(read)
            rows = encode_views(encode, batch["rgb"])
            own = batch["index"], batch["mask"], rows
        watchdog.beat(number)
        index, mask, rows = (np.concatenate(processes.gather_rows(x)) for x in own)
        yield index, mask, rows


def encode_views(encode: EncodePictures, pictures: np.ndarray) -> np.ndarray:
    """float32 [b, v, d] of [b, v, size, size, 3]; ValueError unless they are finite."""
    b, v = pictures.shape[:2]
    flat = encode(pictures.reshape(b * v, *pictures.shape[2:]))
    if not np.isfinite(flat).all():
        raise ValueError("the teacher's features are not finite numbers")
    return np.ascontiguousarray(flat.reshape(b, v, -1), np.float32)

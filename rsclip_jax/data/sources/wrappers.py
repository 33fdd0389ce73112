"""Wrappers of a source: a subset of its records, tiles of its images, other labels."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import Future
from typing import Any

import numpy as np

from rsclip_jax.data.bad_records import first_record
from rsclip_jax.data.codecs.checks import check_nodata
from rsclip_jax.data.sensors import get_sensor
from rsclip_jax.data.types import Record, Source


class Wrapper(Source):
    """A source with the records of another one; subclasses change some of it."""

    def __init__(self, source: Source):
        self.source = source
        self.dataset, self.split, self.ids = source.dataset, source.split, source.ids
        self.split_rule, self.left_out = source.split_rule, source.left_out
        self.max_nodata, self.tile = source.max_nodata, source.tile
        self.tiles, self.window = source.tiles, source.window
        self.is_packed = source.is_packed

    def read(self, index: int, keys: Collection[str]) -> Record:
        return self.source.read(index, keys)

    @property
    def label_length(self) -> int:
        return self.source.label_length


class Subset(Wrapper):
    """The records of a source at the given indices, in their order."""

    def __init__(self, source: Source, indices: Sequence[int]):
        super().__init__(source)
        self.ids = [source.ids[i] for i in indices]
        self._indices = indices
        self.tiles, self.window = 1, 0  # some of a scene's tiles, in any order

    def read(self, index: int, keys: Collection[str]) -> Record:
        return self.source.read(self._indices[index], keys)


class SharedLabels(Wrapper):
    """A source whose k classes are classes first, ..., first + k - 1 of `total`.

    Labels of task "single" are shifted by `first`. Labels of task "multi" become
    [total], with -1 (unknown) at the other sources' classes.
    """

    def __init__(self, source: Source, first: int, total: int):
        super().__init__(source)
        self._first, self._total = first, total

    def read(self, index: int, keys: Collection[str]) -> Record:
        record = self.source.read(index, keys)
        label = record["label"]
        if self.dataset.task == "single":
            return {**record, "label": self._first + label}
        shared = np.full(self._total, -1, np.int8)
        shared[self._first : self._first + len(label)] = label
        return {**record, "label": shared}

    @property
    def label_length(self) -> int:
        return self._total if self.dataset.task == "multi" else 0


# Training shuffles the tiles of so many scenes together, or of more where they hold
# fewer than so many tiles, which are two batches of 128.
_WINDOW, _TILES = 8, 256


class _Kept:
    """The scenes read last, each read once however many threads ask for it."""

    def __init__(self, read: Callable[[int, tuple[str, ...]], Record], size: int):
        self._read, self._size = read, size
        self._lock = threading.Lock()
        self._found: OrderedDict[tuple, Future[Record]] = OrderedDict()

    def __call__(self, *wanted: Any) -> Record:
        with self._lock:
            found = self._found.get(wanted)
            is_new = found is None
            if found is None:
                found = self._found[wanted] = Future()
            self._found.move_to_end(wanted)
            while len(self._found) > self._size:
                self._found.popitem(last=False)
        if is_new:
            try:
                found.set_result(self._read(*wanted))
            except BaseException as error:
                found.set_exception(error)
                with self._lock:  # may be readable another time
                    self._found.pop(wanted, None)
        return found.result()


class TiledSource(Wrapper):
    """Every record of a source cut into a grid of size x size tiles, row by row.

    All records must have the size of the first one; with on_error "skip", of the first
    one that can be read. A tile that is all nodata raises ValueError. A record that
    could not be read is not read again: each of its tiles raises the same error.
    """

    def __init__(self, source: Source, size: int, *, on_error: str = "raise"):
        super().__init__(source)
        self.tile = size
        if self.dataset.task == "captions":
            raise ValueError(
                f"dataset {self.dataset.name}: captions describe whole images; leave"
                f" out the tile size {size}"
            )
        first = first_record(source, on_error)
        key = next(key for key in self.dataset.sensors if key in first)
        height, width = first[key].shape[:2]
        if height < size or width < size:
            raise ValueError(
                f"dataset {self.dataset.name}: images of {height}x{width} hold no"
                f" {size}x{size} tile; set a smaller tile"
            )
        grid = [(y, x) for y in range(height // size) for x in range(width // size)]
        self._tiles = [(i, y, x) for i in range(len(source)) for y, x in grid]
        self.ids = [f"{source.ids[i]}/tile_{y}_{x}" for i, y, x in self._tiles]
        self._shape = height, width
        self.tiles = len(grid)
        alive = -(-_TILES // self.tiles)  # scenes that hold so many tiles
        self.window = max(_WINDOW, alive)
        # of two windows at a time, and of the batches that threads are making
        self._read = _Kept(self._read_scene, 2 * self.window + alive)
        self._failed: dict[tuple[int, tuple[str, ...]], Exception] = {}

    def read(self, index: int, keys: Collection[str]) -> Record:
        i, y, x = self._tiles[index]
        wanted = i, tuple(keys)
        if failed := self._failed.get(wanted):
            raise failed.with_traceback(None)
        try:
            record, s = self._read(*wanted), self.tile
        except (ValueError, OSError) as error:
            self._failed[wanted] = error
            raise
        out: Record = {"id": self.ids[index], "label": record["label"]}
        for key in (k for k in self.dataset.sensors if k in record):
            tile = record[key][y * s : (y + 1) * s, x * s : (x + 1) * s]
            if key in keys:
                sensor = get_sensor(self.dataset.sensors[key])
                check_nodata(tile, sensor, self.ids[index])
            out[key] = tile
        return out

    def _read_scene(self, index: int, keys: tuple[str, ...]) -> Record:
        """Returns a record, checked to have the size that the tiles are cut from."""
        record = self.source.read(index, keys)
        for key in (k for k in self.dataset.sensors if k in record):
            if record[key].shape[:2] != self._shape:
                found = "x".join(map(str, record[key].shape[:2]))
                wanted = "x".join(map(str, self._shape))
                raise ValueError(
                    f"{record['id']}: {key} has {found} pixels, but the tiles of"
                    f" {self.dataset.name} are cut from {wanted}"
                )
        return record

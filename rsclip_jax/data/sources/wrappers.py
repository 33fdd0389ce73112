"""Views of a source: some of its records, its images cut into tiles, other labels."""

import functools
from collections.abc import Callable, Collection, Sequence

import numpy as np

from rsclip_jax.data.codecs.checks import check_nodata
from rsclip_jax.data.sensors import get_sensor
from rsclip_jax.data.sources.files import first_record
from rsclip_jax.data.types import Record, Source, read_record


class Subset:
    """The records of a source at some places, in their order."""

    def __init__(self, source: Source, places: Sequence[int]):
        self.dataset, self.split = source.dataset, source.split
        self.tile = getattr(source, "tile", None)
        self.split_rule = getattr(source, "split_rule", "")
        self.ids = [source.ids[i] for i in places]
        self._source, self._places = source, places

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, index: int) -> Record:
        return self.read(index, self.dataset.sensors)

    def read(self, index: int, keys: Collection[str]) -> Record:
        return read_record(self._source, self._places[index], keys)


class SharedLabels:
    """A source whose k classes are those from place `first` on among `total`.

    Of task "single" labels are moved by first; of "multi" they are [total], -1 at the
    classes of others, of which they say nothing.
    """

    def __init__(self, source: Source, first: int, total: int):
        self.dataset, self.split = source.dataset, source.split
        self.tile = getattr(source, "tile", None)
        self.split_rule = getattr(source, "split_rule", "")
        self.ids = source.ids
        self.label_length = total if self.dataset.task == "multi" else 0
        self._source, self._first, self._total = source, first, total

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: int) -> Record:
        return self.read(index, self.dataset.sensors)

    def read(self, index: int, keys: Collection[str]) -> Record:
        record = read_record(self._source, index, keys)
        label = record["label"]
        if self.dataset.task == "single":
            return {**record, "label": self._first + label}
        shared = np.full(self._total, -1, np.int8)
        shared[self._first : self._first + len(label)] = label
        return {**record, "label": shared}


class TiledSource:
    """Every record of a source cut into a grid of size x size tiles, row by row.

    All records must have the size of the first; on_error "skip": of the first readable.
    A tile of nothing but nodata is a ValueError. A record that could not be read is not
    read again: each of its tiles raises the same error.
    """

    def __init__(self, source: Source, size: int, *, on_error: str = "raise"):
        self.dataset, self.split, self.tile = source.dataset, source.split, size
        if self.dataset.task == "captions":
            raise ValueError(
                f"dataset {self.dataset.name}: captions are of whole images; leave the"
                f" tile size {size} out"
            )
        self.split_rule = getattr(source, "split_rule", "")
        first = first_record(source, on_error)
        arrays = [first[k] for k in self.dataset.sensors]
        height, width = arrays[0].shape[:2]
        if height < size or width < size:
            raise ValueError(
                f"dataset {self.dataset.name}: images of {height}x{width} hold no"
                f" {size}x{size} tile; set a smaller tile"
            )
        grid = [(y, x) for y in range(height // size) for x in range(width // size)]
        self._places = [(i, y, x) for i in range(len(source)) for y, x in grid]
        self.ids = [f"{source.ids[i]}/tile_{y}_{x}" for i, y, x in self._places]
        self._size, self._shape = size, (height, width)
        self._source = source
        # Neighbouring tiles come from one file, and readers run in a few threads.
        self._read: Callable[[int, tuple[str, ...]], Record] = functools.lru_cache(
            maxsize=16
        )(self._read_scene)
        self._failed: dict[tuple[int, tuple[str, ...]], Exception] = {}

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, index: int) -> Record:
        return self.read(index, self.dataset.sensors)

    def read(self, index: int, keys: Collection[str]) -> Record:
        i, y, x = self._places[index]
        wanted = i, tuple(keys)
        if failed := self._failed.get(wanted):
            raise failed.with_traceback(None)
        try:
            record, s = self._read(*wanted), self._size
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
        """A record of the size that the tiles are cut from."""
        record = read_record(self._source, index, keys)
        for key in (k for k in self.dataset.sensors if k in record):
            if record[key].shape[:2] != self._shape:
                found = "x".join(map(str, record[key].shape[:2]))
                wanted = "x".join(map(str, self._shape))
                raise ValueError(
                    f"{record['id']}: {key} has {found} pixels, but the tiles of"
                    f" {self.dataset.name} are cut from {wanted}"
                )
        return record

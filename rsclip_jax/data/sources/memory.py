"""Sources of records in memory: arrays of an archive, and the miniature."""

import functools
import threading

import numpy as np

from rsclip_jax.data.miniature import scenes
from rsclip_jax.data.readers.arrays import Arrays
from rsclip_jax.data.types import DEFAULTS, Dataset, OpenOptions, Record, Source


class ArraySource(Source):
    """Records whose pixels are in one array, in memory or memory-mapped."""

    def __init__(
        self,
        dataset: Dataset,
        split: str,
        arrays: Arrays,
        options: OpenOptions = DEFAULTS,
    ):
        self.dataset, self.split, self.ids = dataset, split, arrays.ids
        self.max_nodata = options.max_nodata
        self._labels = [dataset.classes.index(label) for label in arrays.labels]
        self._images = arrays.images

    def __getitem__(self, index: int) -> Record:
        pixels = np.ascontiguousarray(self._images[index])
        return {"id": self.ids[index], "label": self._labels[index], "rgb": pixels}


_DRAWING = threading.Lock()


class MiniatureSource(Source):
    """A view of the embedded miniature world, drawn when the first record is read."""

    def __init__(self, dataset: Dataset, split: str, options: OpenOptions = DEFAULTS):
        self.dataset, self.split = dataset, split
        self.max_nodata = options.max_nodata
        self.ids = scenes.scene_ids(dataset.name, split)

    def __getitem__(self, index: int) -> Record:
        with _DRAWING:  # by one of the threads that read
            records = _open_view(self.dataset.name, self.split)
        return records[index]


@functools.lru_cache(maxsize=16)
def _open_view(view: str, split: str):
    # Drawing a split takes seconds, and several stages read the same one.
    return scenes.open_miniature(view, split)

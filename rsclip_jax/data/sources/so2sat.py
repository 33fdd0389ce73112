"""So2Sat LCZ42 as downloaded (Zhu et al. 2020): one HDF5 file for each split.

training.h5, validation.h5 and testing.h5 have sen1 [n, 32, 32, 8], sen2 [n, 32, 32, 10]
and label [n, 17], one-hot. Version 3 has three splits into training.h5 and testing.h5:
random/, block/ and culture_10/. A record's id is its split and its index in the file.
"""

import os
import shlex
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from rsclip_jax.data.codecs.checks import check_array
from rsclip_jax.data.codecs.patches import make_picture
from rsclip_jax.data.readers.folders import in_split, parse_split
from rsclip_jax.data.sensors import get_sensor
from rsclip_jax.data.types import DEFAULTS, SPLITS, Dataset, OpenOptions, Record, Source

if TYPE_CHECKING:
    import h5py

FILES = {"train": "training.h5", "val": "validation.h5", "test": "testing.h5"}
_FIELDS = {"s1": "sen1", "s2": "sen2"}  # record key -> dataset in the file


class So2SatSource(Source):
    """Reads records from a split's file, in any order and from any thread.

    The files hold float64; records are float32, in the same units. Each process opens
    a file on first access, so a source can be pickled. Raises FileNotFoundError for a
    missing file, ValueError naming a file that is cut or has other contents.
    """

    def __init__(
        self,
        dataset: Dataset,
        folder: Path,
        split: str,
        options: OpenOptions = DEFAULTS,
    ):
        self.dataset, self.split = dataset, split
        self.max_nodata = options.max_nodata
        wanted = in_split(split, made=True)
        self.ids: list[str] = []
        self._located: list[tuple[Path, int]] = []  # file, index in it
        for name, path in _files(folder, split).items():
            for i in range(_count(path, dataset)):
                if wanted(f"{i:06d}"):
                    self.ids.append(f"{name}/{i:06d}")
                    self._located.append((path, i))
        self._open_files: dict[tuple[int, Path], h5py.File] = {}

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_open_files": {}}

    def read(self, index: int, keys: Collection[str]) -> Record:
        """Reads the label and only the sensors `keys`."""
        dataset = self.dataset
        made = [key for key in dataset.composites if key in keys]
        from_file = {*keys, *(dataset.composites[key][0] for key in made)}
        record: Record = {"id": self.ids[index], "label": self._label(index)}
        arrays = {key: self._array(index, key) for key in _FIELDS if key in from_file}
        record |= {key: array for key, array in arrays.items() if key in keys}
        for key in made:
            record[key] = make_picture(dataset, key, arrays[dataset.composites[key][0]])
        return record

    def _array(self, index: int, key: str) -> np.ndarray:
        array = self._take(index, _FIELDS[key]).astype(np.float32)
        where = f"{self._where(index)}, {_FIELDS[key]}"
        sensor = get_sensor(self.dataset.sensors[key])
        return check_array(array, sensor, where, self.max_nodata)

    def _label(self, index: int) -> int:
        hot = self._take(index, "label")
        if np.count_nonzero(hot) != 1 or hot.max() != 1:
            raise ValueError(
                f"{self._where(index)}: its label {hot.tolist()} is not one-hot; fetch"
                " the file again"
            )
        return int(hot.argmax())

    def _take(self, index: int, name: str) -> np.ndarray:
        path, i = self._located[index]
        opened = os.getpid(), path  # a forked process must not share its parent's file
        try:
            if opened not in self._open_files:
                self._open_files[opened] = _open(path)
            return self._open_files[opened][name][i]
        except OSError as error:
            raise ValueError(
                f"{self._where(index)}: {name} is unreadable ({error}); fetch the file"
                " again"
            ) from error

    def _where(self, index: int) -> str:
        path, i = self._located[index]
        return f"{path}: record {i}"


def _files(folder: Path, split: str) -> dict[str, Path]:
    """{split: its file}; for "all", the files that exist."""
    name = parse_split(split)[0]
    there = {s: folder / FILES[s] for s in SPLITS if (folder / FILES[s]).is_file()}
    if not there:
        raise FileNotFoundError(
            f"{folder}: no {' or '.join(FILES.values())} in it; unpack a file that"
            f" ends in .gz: gunzip {shlex.quote(str(folder))}/*.gz"
        )
    if name == "all":
        return there
    if name not in there:
        raise FileNotFoundError(
            f"{folder}: no {FILES[name]} beside {', '.join(FILES[s] for s in there)};"
            f" use one of them or a part, such as '{next(iter(there))}[90%:]'"
        )
    return {name: there[name]}


def _count(path: Path, dataset: Dataset) -> int:
    """Counts the records in a file. Raises ValueError for other contents."""
    last = {"label": len(dataset.classes)}
    for key, field in _FIELDS.items():
        last[field] = len(get_sensor(dataset.sensors[key]).bands)
    try:
        with _open(path) as file:
            shapes = {name: file[name].shape for name in last if name in file}
    except OSError as error:  # h5py reports a cut file so
        raise ValueError(
            f"{path}: unreadable or cut HDF5 ({path.stat().st_size:,} bytes; {error});"
            " fetch the file again"
        ) from error
    good = all(
        name in shapes
        and len(shapes[name]) == (2 if name == "label" else 4)
        and shapes[name][-1] == channels
        for name, channels in last.items()
    )
    if not good or len({shape[0] for shape in shapes.values()}) != 1:
        wanted = {"sen1": "[n, 32, 32, 8]", "sen2": "[n, 32, 32, 10]"}
        raise ValueError(
            f"{path}: holds {shapes}, expected {wanted} and label [n, {last['label']}]"
            " of one n"
        )
    return shapes["label"][0]


def _open(path: Path) -> "h5py.File":
    import h5py  # slow to import, and needed only here

    return h5py.File(path, "r")

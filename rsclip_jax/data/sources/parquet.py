"""Images that a parquet file holds itself, as Hugging Face's datasets write them."""

import bisect
import itertools
import threading
from collections import OrderedDict
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rsclip_jax.data.codecs.checks import check_array
from rsclip_jax.data.codecs.images import decode_image
from rsclip_jax.data.sensors import get_sensor
from rsclip_jax.data.sources.files import FileSource
from rsclip_jax.data.types import (
    Dataset,
    Entry,
    LeftOut,
    OpenOptions,
    Record,
)
from rsclip_jax.io.texts import clip

_KEPT = 256 << 20  # bytes of images kept in memory


class Images(NamedTuple):
    """Where the images are.

    Attributes:
        path: the parquet file.
        columns: record key -> column of images {bytes, path}.
        rows: id of a record -> its row, counted from 0.
    """

    path: Path
    columns: Mapping[str, str]
    rows: Mapping[str, int]


class EmbeddedImages(FileSource):
    """Reads records from the images in a parquet file, and from files beside it.

    A row group is read as a whole, and the last ones are kept. Reading in random order
    from a file that is larger than that is slow: a pack is fast.

    Raises ValueError for a sensor whose files are no 8-bit pictures.
    """

    def __init__(
        self,
        dataset: Dataset,
        split: str,
        entries: Sequence[Entry],
        options: OpenOptions,
        images: Images,
        left_out: Sequence[LeftOut] = (),
    ):
        super().__init__(dataset, split, entries, options, left_out=left_out)
        for key, column in images.columns.items():
            sensor = get_sensor(dataset.sensors[key])
            if sensor.unit != "8-bit":
                raise ValueError(
                    f"{images.path}: column {column!r} holds images of sensor"
                    f" {sensor.name} in {sensor.unit}; only 8-bit pictures are read"
                    " from a table: write its files beside the table, and a column of"
                    " their paths"
                )
        self._images, self._groups = images, _RowGroups(images.path)

    def read(self, index: int, keys: Collection[str]) -> Record:
        held = self._images.columns
        record = super().read(index, [key for key in keys if key not in held])
        path, row = self._images.path, self._images.rows[record["id"]]
        for key in (key for key in held if key in keys):
            where = f"{path}, line {row + 1}, column {held[key]!r}"
            data = self._groups.read(held[key], row)
            if not data:
                raise ValueError(f"{where}: no image; add it, or remove the row")
            sensor = get_sensor(self.dataset.sensors[key])
            array = decode_image(data, where, len(sensor.bands), self.max_pixels)
            record[key] = check_array(array, sensor, where, self.max_nodata)
        return record


class _RowGroups:
    """The bytes of a column's images, read a row group at a time; the last are kept."""

    def __init__(self, path: Path):
        import pyarrow.parquet  # slow to import, and needed only here

        self._path, self._lock = path, threading.Lock()
        self._file = pyarrow.parquet.ParquetFile(path)
        metadata = self._file.metadata
        sizes = [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)]
        self._ends = list(itertools.accumulate(sizes))
        self._kept: OrderedDict[tuple[str, int], Any] = OrderedDict()

    def __reduce__(self) -> tuple:
        return _RowGroups, (self._path,)  # another process opens its own file

    def read(self, column: str, row: int) -> bytes | None:
        """The image's bytes; None where the row has none."""
        group = bisect.bisect_right(self._ends, row)
        start = self._ends[group - 1] if group else 0
        with self._lock:
            cell = self._group(column, group)[row - start].as_py()
        return cell and cell["bytes"]

    def _group(self, column: str, group: int) -> Any:
        import pyarrow

        wanted = column, group
        if wanted not in self._kept:
            try:
                read = self._file.read_row_group(group, [f"{column}.bytes"])
            except (OSError, pyarrow.ArrowException) as error:
                raise ValueError(
                    f"{self._path}: row group {group} of column {column!r} is damaged"
                    f" ({clip(str(error), 300)}); fetch the file again"
                ) from error
            self._kept[wanted] = read[column]
        self._kept.move_to_end(wanted)
        while (
            len(self._kept) > 1 and sum(g.nbytes for g in self._kept.values()) > _KEPT
        ):
            self._kept.popitem(last=False)
        return self._kept[wanted]

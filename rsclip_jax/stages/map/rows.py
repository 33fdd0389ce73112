"""Embeds a scene's tiles row by row; finished rows are kept, and not made again."""

import dataclasses
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from rasterio.windows import Window
from tqdm import tqdm

from rsclip_jax.data.codecs.checks import fill_missing
from rsclip_jax.data.pipeline.fitting import Fit, fit
from rsclip_jax.data.scenes.scene import Scene
from rsclip_jax.evals.encode import Encoder
from rsclip_jax.io.files import read_object, remove_tree, write_json, write_npz
from rsclip_jax.stages.map.settings import Layout
from rsclip_jax.train import sharding, stopping, watchdog


@dataclasses.dataclass(frozen=True)
class Row:
    """A row of tiles.

    z: embeddings [columns, d], NaN for tiles with too few values. seen: pixels of the
    row's cells for the quick look [p, columns of cells * p, bands].
    """

    z: np.ndarray
    seen: np.ndarray


@dataclasses.dataclass(frozen=True)
class Reader:
    """What a row of tiles is read with.

    key: of the sensor's arrays in a record. indices: the encoder's bands in them; None
    takes all. side: the encoder's input. batch_size: tiles that are encoded at a time.
    """

    scene: Scene
    layout: Layout
    key: str
    indices: tuple[int, ...] | None
    side: int | Fit
    encode: Encoder
    batch_size: int
    min_valid: float

    def row(self, index: int, mesh) -> Row:
        """Reads and encodes a row of tiles, and the pixels of its first cells."""
        columns, seen = {}, []
        for at, record in self._strips(index):
            for column, tile in self._tiles(at, record, index):
                columns[column] = tile
            seen.append(self._thumb(index, at, record))
        z = self._encode(columns, mesh)
        return Row(z, np.concatenate(seen, axis=1))

    def _strips(self, index: int) -> Iterator[tuple[range, dict]]:
        """(columns of tiles, their part of the scene): as wide as may be read."""
        y, (_, count) = self.layout.stride * index, self.layout.tiles
        size, stride = self.layout.size, self.layout.stride
        most = max(1, (self.scene.most_pixels // size - size) // stride + 1)
        for start in range(0, count, most):
            columns = range(start, min(start + most, count))
            width = (len(columns) - 1) * stride + size
            yield columns, self.scene.read(Window(start * stride, y, width, size))

    def _tiles(
        self, columns: range, record: dict, index: int
    ) -> Iterator[tuple[int, np.ndarray]]:
        """(column, array fitted to the encoder) of the tiles with enough values."""
        size, stride = self.layout.size, self.layout.stride
        sensor = self.scene.sensors[self.key]
        for i, column in enumerate(columns):
            part = np.s_[:, i * stride : i * stride + size]
            valid, array = record["valid"][part], record[self.key][part]
            if valid.sum() < max(self.min_valid * self._inside(index, column), 1):
                continue
            if not valid.all():
                where = f"{self.scene.id}, row {index} and column {column} of tiles"
                array = fill_missing(array, sensor, where, 1.0, ~valid)
            yield column, fit(np.ascontiguousarray(array), self.side)

    def _inside(self, row: int, column: int) -> int:
        """The pixels of a tile that lie in the scene."""
        here = self.layout
        high = min(here.size, here.height - row * here.stride)
        return high * min(here.size, here.width - column * here.stride)

    def _thumb(self, index: int, columns: range, record: dict) -> np.ndarray:
        """Pixels of these tiles' first cells, and of all cells of the last tiles."""
        (rows, last), cells = self.layout.tiles, self.layout.cells
        high = cells[0] - index if index == rows - 1 else 1
        wide = cells[1] - columns[0] if columns[-1] == last - 1 else len(columns)
        stride, shown = self.layout.stride, self.layout.shown
        inside = ((np.arange(shown) + 0.5) * stride / shown).astype(int)
        y, x = ((np.arange(n)[:, None] * stride + inside).ravel() for n in (high, wide))
        return record[self.key][np.ix_(y, x)]

    def _encode(self, tiles: dict[int, np.ndarray], mesh) -> np.ndarray:
        arrays, parts = list(tiles.values()), []
        for i in range(0, len(arrays), self.batch_size):
            part = np.stack(arrays[i : i + self.batch_size])
            if self.indices is not None:
                part = part[..., list(self.indices)]
            filler = np.repeat(part[:1], self.batch_size - len(part), axis=0)
            batch = {self.key: np.concatenate([part, filler])}
            found = np.asarray(self.encode(sharding.put_batch(batch, mesh)))
            parts.append(found[: len(part)].astype(np.float32))
        count = self.layout.tiles[1]
        if not parts:
            return np.full((count, 0), np.nan, np.float32)
        each = np.concatenate(parts)
        z = np.full((count, each.shape[1]), np.nan, np.float32)
        z[list(tiles)] = each
        return z


def embed(
    folder: Path,
    reader: Reader,
    mesh,
    made_from: dict,
    *,
    progress: bool,
    log: Callable[[str], None],
) -> list[Path]:
    """The files of all rows of tiles, in <folder>/rows; see read_row.

    made_from: what the embeddings depend on; rows of anything else are removed.
    """
    rows = folder / "rows"
    _keep_only(rows, made_from, log)
    count = reader.layout.tiles[0]
    pixel = abs(reader.scene.transform.a * reader.scene.transform.e)
    area = reader.layout.stride * reader.scene.width * pixel / 1e6
    bar = tqdm(
        total=round(count * area, 3),
        desc=f"map {reader.scene.id}",
        unit="km2",
        bar_format="{l_bar}{bar}| {n:,.0f}/{total:,.0f} km2 [{elapsed}, {rate_fmt}]",
        leave=False,
        disable=not progress,
        mininterval=0.5 if sys.stderr.isatty() else 10,
    )
    with bar, watchdog.during(f"mapping {reader.scene.id}"):
        for index in range(count):
            path = rows / f"{index:06d}.npz"
            if not path.exists():
                made = reader.row(index, mesh)
                write_npz(path, z=made.z, seen=made.seen)
            bar.update(area)
            watchdog.beat(index)
            stopping.stop_point("in a map")
    return [rows / f"{index:06d}.npz" for index in range(count)]


def read_row(path: Path) -> Row:
    """A row that embed has kept. Raises ValueError naming a damaged file."""
    try:
        with np.load(path, allow_pickle=False) as file:
            return Row(file["z"], file["seen"])
    except Exception as error:  # a damaged file raises many kinds
        raise ValueError(
            f"{path} is damaged ({type(error).__name__}); remove it, and the command"
            " makes it again"
        ) from error


def _keep_only(rows: Path, made_from: dict, log: Callable[[str], None]) -> None:
    told = rows / "made_from.json"
    wanted = json.loads(json.dumps(made_from))
    if told.exists():
        found = read_object(told)
        if found == wanted:
            return
        changed = [k for k in wanted if found.get(k) != wanted[k]]
        log(f"map: {', '.join(changed)} changed: all tiles are encoded again")
    remove_tree(rows)
    rows.mkdir(parents=True)
    write_json(told, wanted)

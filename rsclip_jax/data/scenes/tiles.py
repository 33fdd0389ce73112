"""Tiles of a scene: square windows with their place on the ground."""

import dataclasses
from collections.abc import Iterator

import numpy as np
from rasterio.windows import Window

from rsclip_jax.data.scenes.grids import Box, to_lonlat, window_box, window_id
from rsclip_jax.data.scenes.scene import Scene
from rsclip_jax.data.types import Record

EDGES = ("pad", "drop")


@dataclasses.dataclass(frozen=True)
class Tile:
    """A window of a scene.

    Attributes:
        id: scene, row, column and box, such as
            "S2A_.../row_0_column_64/600640_4999360_601280_5000000".
        row, column: of the upper left pixel in the scene.
        window: the window to read.
        crs, box: (left, bottom, right, top) on the ground, padding included.
    """

    id: str
    row: int
    column: int
    window: Window
    crs: str
    box: Box

    @property
    def lonlat(self) -> Box:
        """(west, south, east, north) in degrees; see grids.to_lonlat."""
        return to_lonlat(self.crs, self.box)


def tiles(
    scene: Scene,
    size: int,
    stride: int = 0,
    *,
    edges: str = "pad",
    min_valid: float = 0.0,
) -> Iterator[Tile]:
    """The tiles of a scene, row by row.

    Args:
        size: side in pixels.
        stride: pixels from one tile to the next; 0: the size, so that none overlap.
        edges: "pad" for tiles that leave the scene at its right and lower edge, so that
            each pixel is in one; "drop" for none.
        min_valid: the share of a tile's pixels that must have a value. Above 0 the
            tiles are read; read_tiles gives what was read, too.

    Raises ValueError for a setting that is not possible, and where no tile fits.
    """
    if not min_valid:
        yield from _all_tiles(scene, size, stride, edges)
        return
    for tile, _ in read_tiles(scene, size, stride, edges=edges, min_valid=min_valid):
        yield tile


def read_tiles(
    scene: Scene,
    size: int,
    stride: int = 0,
    *,
    edges: str = "pad",
    min_valid: float = 0.0,
) -> Iterator[tuple[Tile, Record]]:
    """The tiles of a scene with their records, each read once; see tiles."""
    if not 0 <= min_valid <= 1:
        raise ValueError(f"min_valid = {min_valid} should be from 0 to 1")
    for tile in _all_tiles(scene, size, stride, edges):
        record = scene.read(tile.window)
        if np.mean(record["valid"]) >= min_valid:
            yield tile, record


def _all_tiles(scene: Scene, size: int, stride: int, edges: str) -> Iterator[Tile]:
    if edges not in EDGES:
        raise ValueError(f"edges = {edges!r} is not known; use 'pad' or 'drop'")
    if size < 1 or stride < 0:
        raise ValueError(
            f"size = {size} should be 1 or more, and stride = {stride} 0 or more"
        )
    step = stride or size
    rows, columns = (
        _starts(length, size, step, edges) for length in (scene.height, scene.width)
    )
    if not rows or not columns:
        raise ValueError(
            f"{scene.id}: no tile of {size} pixels fits in {scene.height:,} x"
            f" {scene.width:,}: set a smaller size, or edges = 'pad'"
        )
    for row in rows:
        for column in columns:
            window = Window(column, row, size, size)
            box = window_box(scene.grid, window)
            name = window_id(scene.id, scene.grid, window)
            yield Tile(name, row, column, window, scene.crs, box)


def _starts(length: int, size: int, step: int, edges: str) -> range:
    """Where tiles begin along a side of the scene."""
    if edges == "drop":
        return range(0, length - size + 1, step)
    # the last one begins where the one before it leaves a pixel uncovered
    count = 1 + max(0, -(-(length - size) // step))
    return range(0, count * step, step)

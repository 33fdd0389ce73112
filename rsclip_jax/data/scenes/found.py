"""Found: the files of a scene, before they are put onto a grid."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
from rasterio.enums import Resampling
from rasterio.warp import transform_bounds
from rasterio.windows import Window

from rsclip_jax.data.codecs.places import Footprint
from rsclip_jax.data.scenes.files import FileLayer, Opened, SceneFile, read_grid
from rsclip_jax.data.scenes.grids import box_grid
from rsclip_jax.data.scenes.scene import Scene
from rsclip_jax.data.sensors import Sensor
from rsclip_jax.data.types import Scaling


@dataclasses.dataclass(frozen=True)
class Found:
    """The files of one sensor of a scene.

    Attributes:
        id: the scene's name.
        files: one file, or one for each band of the sensor, in its order.
        classes: the file of Sentinel-2's scene classification.
        file_bands, scaling, tags, decibels: see FileLayer.
    """

    id: str
    sensor: Sensor
    files: tuple[SceneFile, ...]
    classes: SceneFile | None = None
    file_bands: tuple[str, ...] = ()
    scaling: Scaling | None = None
    tags: Mapping[str, str] = dataclasses.field(default_factory=dict)
    decibels: float = 0.0


@dataclasses.dataclass(frozen=True)
class Target:
    """The grid that a scene is wanted on.

    Attributes:
        grid: the grid itself; None: the scene's own, or one of these.
        crs: a CRS, "" for the scene's own.
        resolution: the side of a pixel in the CRS's units, 0 for the scene's own.
    """

    grid: Footprint | None = None
    crs: str = ""
    resolution: float = 0.0


def place_scene(found: Found, target: Target, *, clear: bool = False) -> Scene:
    """Puts the files of a scene onto one grid: that of the finest, or the target.

    clear: see Scene. Raises ValueError naming a file that has no grid, does not overlap
    the scene, or has no value in it.
    """
    places = [read_grid(file) for file in found.files]
    finest = min(places, key=lambda place: place.metres or place.pixel[0])
    grid = target.grid or finest
    if not target.grid and (target.crs or target.resolution):
        crs = target.crs or finest.crs
        if crs != finest.crs and not target.resolution:
            raise ValueError(
                f"{found.id}: crs = {crs!r} is not its own, {finest.crs}: give the"
                " resolution, too, in units of that crs"
            )
        box = _box_in(finest, crs)
        grid = box_grid(finest.path, crs, box, target.resolution or finest.pixel[0])
    for place in places:
        _check_overlap(place, grid)
    layer = FileLayer(
        found.files,
        found.sensor,
        grid,
        file_bands=found.file_bands,
        scaling=found.scaling,
        tags=found.tags,
        decibels=found.decibels,
    )
    layer.check()
    classes = Classes(found.classes, grid) if found.classes else None
    if clear and not classes:
        raise ValueError(
            f"{found.id}: clear=True needs a scene classification (SCL), and this scene"
            " has none"
        )
    return Scene(found.id, grid, {found.sensor.modality: layer}, classes, clear)


class Classes:
    """The class of each pixel of a grid, from a coarser file: the nearest one."""

    def __init__(self, file: SceneFile, grid: Footprint):
        read_grid(file)
        self._file, self._open = file, Opened(grid, Resampling.nearest)

    def read_classes(self, window: Window) -> np.ndarray:
        """uint8 [h, w] of a window inside the grid."""
        classes: np.ndarray[Any, Any] = self._open.read(self._file, window).pixels
        return classes[..., 0].astype(np.uint8)


def _box_in(place: Footprint, crs: str) -> tuple[float, float, float, float]:
    left, bottom, right, top = place.box
    if crs == place.crs:
        return left, bottom, right, top
    west, south, east, north = transform_bounds(
        place.crs, crs, left, bottom, right, top, densify_pts=21
    )
    return west, south, east, north


def _check_overlap(place: Footprint, grid: Footprint) -> None:
    left, bottom, right, top = _box_in(place, grid.crs)
    a, b, c, d = grid.box
    if left < c and right > a and bottom < d and top > b:
        return
    raise ValueError(f"{place} and {grid} do not overlap: pair the right scenes")

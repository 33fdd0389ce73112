"""Scene: sensors on one grid of the ground, read by windows as records."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Protocol

import numpy as np
from rasterio.transform import Affine
from rasterio.windows import Window

from rsclip_jax.data.codecs.places import Footprint
from rsclip_jax.data.scenes.files import CACHE, Part, fill_value
from rsclip_jax.data.scenes.grids import Box, to_lonlat, window_box, window_id
from rsclip_jax.data.sensors import Sensor
from rsclip_jax.data.types import Record

# Bytes that a scene may take while a window of it is read, GDAL's cache included.
LIMIT = 2**28
_PARTS = LIMIT - CACHE
# Classes of Sentinel-2's scene classification that show no ground: none, defective,
# cloud shadow, cloud of medium and high probability, thin cirrus.
HIDDEN = (0, 1, 3, 8, 9, 10)


class Layer(Protocol):
    """What a scene holds of one sensor.

    cost: the bytes that a pixel of a window takes while it is read.
    """

    sensor: Sensor
    cost: int

    def read(self, window: Window) -> Part:
        """Values [h, w, bands] of a window of the grid, and where there are none."""

    def check(self) -> None:
        """Raises ValueError for a layer without values, or in another unit."""


class ClassLayer(Protocol):
    """The class of each pixel."""

    def read_classes(self, window: Window) -> np.ndarray:
        """uint8 [h, w] of a window inside the grid."""


@dataclasses.dataclass(frozen=True)
class Scene:
    """Sensors on one grid, north up.

    Attributes:
        id: the product's or file's name.
        grid: CRS, transform and size.
        layers: record key -> what is read of a sensor.
        classes: Sentinel-2's scene classification, where the product has it.
        clear: whether pixels that it calls cloud, shadow or defective are not valid.
    """

    id: str
    grid: Footprint
    layers: Mapping[str, Layer]
    classes: ClassLayer | None = None
    clear: bool = False

    @property
    def crs(self) -> str:
        """ "EPSG:32632", or WKT for a CRS without a code."""
        return self.grid.crs

    @property
    def transform(self) -> Affine:
        return Affine(*self.grid.transform)

    @property
    def height(self) -> int:
        return self.grid.height

    @property
    def width(self) -> int:
        return self.grid.width

    @property
    def sensors(self) -> dict[str, Sensor]:
        """Record key -> sensor, whose bands, unit and dtype the arrays have."""
        return {key: layer.sensor for key, layer in self.layers.items()}

    @property
    def most_pixels(self) -> int:
        """The pixels of the largest window that may be read."""
        return _PARTS // sum(layer.cost for layer in self.layers.values())

    @property
    def box(self) -> Box:
        """(left, bottom, right, top) in the CRS."""
        return window_box(self.grid, Window(0, 0, self.width, self.height))

    @property
    def lonlat(self) -> Box:
        """(west, south, east, north) in degrees; see grids.to_lonlat."""
        return to_lonlat(self.crs, self.box)

    def read(self, window: Window) -> Record:
        """Reads a window: {"id", record key: [h, w, bands], ..., "valid", "scl"}.

        Arrays are in the sensor's unit and dtype. Where a value is missing, or the
        window leaves the scene, they have the sensor's nodata (without one, NaN, or 0
        in integers) and valid, bool [h, w], is False. scl: the scene classification,
        uint8 [h, w], where the scene has it; 0 outside.

        Args:
            window: of whole pixels of the grid; rasterio.windows.Window.

        Raises ValueError for a window outside the scene, or so large that reading it
        would take more than 256 MB, and naming a file that cannot be read.
        """
        inside, margins = self._clip(window)
        out: Record = {"id": window_id(self.id, self.grid, window)}
        valid = np.ones((inside.height, inside.width), bool)
        for key, layer in self.layers.items():
            array, missing = layer.read(inside)
            valid &= ~missing.any(-1)
            fill = fill_value(layer.sensor, array.dtype)
            out[key] = _pad(array, margins, fill)
        if self.classes:
            classes = self.classes.read_classes(inside)
            if self.clear:
                valid &= ~np.isin(classes, HIDDEN)
            out["scl"] = _pad(classes, margins, 0)
        out["valid"] = _pad(valid, margins, False)
        return out

    def _clip(self, window: Window) -> tuple[Window, tuple[tuple[int, int], ...]]:
        """The part of a window inside the scene, and the margins that it lacks."""
        numbers = window.flatten()
        if any(n != int(n) for n in numbers) or min(window.width, window.height) < 1:
            raise ValueError(
                f"{self.id}: {window} is not of whole pixels, at least one: round it"
            )
        x, y, width, height = map(int, numbers)
        self._check_size(height, width)
        left, top = max(x, 0), max(y, 0)
        right, bottom = min(x + width, self.width), min(y + height, self.height)
        if left >= right or top >= bottom:
            raise ValueError(
                f"{self.id}: {window} lies outside the scene of {self.height:,} x"
                f" {self.width:,} pixels"
            )
        margins = (top - y, y + height - bottom), (left - x, x + width - right)
        return Window(left, top, right - left, bottom - top), margins

    def _check_size(self, height: int, width: int) -> None:
        cost = sum(layer.cost for layer in self.layers.values())
        if height * width > self.most_pixels:
            side = math.isqrt(self.most_pixels)
            raise ValueError(
                f"{self.id}: a window of {height:,} x {width:,} pixels would take"
                f" {height * width * cost / 2**20:,.0f} MB while it is read, more than"
                f" {_PARTS >> 20} MB: read windows of up to {side} x {side} pixels"
            )


def _pad(array: np.ndarray, margins: tuple, fill: float) -> np.ndarray:
    """An array [h, w, ...] with margins of a value."""
    if not any(map(any, margins)):
        return array
    rest = ((0, 0),) * (array.ndim - 2)
    return np.pad(array, (*margins, *rest), constant_values=fill)


def join_scenes(*scenes: Scene) -> Scene:
    """One scene of the sensors of several, on the grid that they share.

    Raises ValueError if their grids differ (open the later ones with onto=) or two hold
    one record key.
    """
    first, layers = scenes[0], dict[str, Layer]()
    for scene in scenes:
        if scene.grid[1:] != first.grid[1:]:
            raise ValueError(
                f"{scene.id} and {first.id} have two grids: open the later one with"
                " onto=, the first scene"
            )
        if both := sorted(layers.keys() & scene.layers.keys()):
            raise ValueError(f"{scene.id} holds {both[0]}, as does a scene before it")
        layers |= scene.layers
    found = [scene for scene in scenes if scene.classes]
    classes = found[0].classes if found else None
    clear = any(scene.clear for scene in scenes)
    return Scene("+".join(s.id for s in scenes), first.grid, layers, classes, clear)

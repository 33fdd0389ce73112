"""The ground that a raster covers, and whether two rasters cover the same."""

import functools
import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from rasterio.crs import CRS

Transform = tuple[float, float, float, float, float, float]


class Footprint(NamedTuple):
    """The grid of a raster, north up.

    Attributes:
        path: the file.
        crs: "EPSG:32632", or WKT for a CRS without a code; "" if the file names none.
        transform: (a, b, c, d, e, f) for x = a * column + b * row + c and
            y = d * column + e * row + f at the corners of pixels.
        height, width: in pixels.
    """

    path: Path
    crs: str
    transform: Transform
    height: int
    width: int

    @property
    def corners(self) -> list[tuple[float, float]]:
        """(x, y) of the four corners, from the upper left, clockwise."""
        a, b, c, d, e, f = self.transform
        h, w = self.height, self.width
        ends = ((0, 0), (w, 0), (w, h), (0, h))
        return [(a * i + b * j + c, d * i + e * j + f) for i, j in ends]

    @property
    def box(self) -> tuple[float, float, float, float]:
        """(left, bottom, right, top) of the box around the corners."""
        x, y = zip(*self.corners, strict=True)
        return min(x), min(y), max(x), max(y)

    @property
    def pixel(self) -> tuple[float, float]:
        """Width and height of a pixel, in units of the CRS."""
        a, b, _, d, e, _ = self.transform
        return math.hypot(a, d), math.hypot(b, e)

    @property
    def metres(self) -> float | None:
        """The side of a pixel on the ground in metres; None where no CRS tells it."""
        if not self.crs:
            return None
        wide, high = self.pixel
        crs = _parse(self.crs)
        if crs.is_projected:
            return math.sqrt(wide * high) * float(crs.linear_units_factor[1])
        if not crs.is_geographic:  # local, or around the Earth's centre
            return None
        # a degree of latitude has 111.3 km; along a parallel it shrinks
        _, bottom, _, top = self.box
        return 111_320 * math.sqrt(
            wide * high * math.cos(math.radians(top + bottom) / 2)
        )

    def __str__(self) -> str:
        _, _, name = self.crs.partition('"')  # WKT's own name of it
        crs = name.partition('"')[0] or self.crs or "no CRS"
        numbers = ", ".join(f"{x:.10g}" for x in self.box)
        return f"{self.path} ({crs}, {numbers})"


def face_north(array: np.ndarray, transform: Transform) -> tuple[np.ndarray, Transform]:
    """Turns [h, w, ...] so that rows run from north to south, columns to the east.

    Returns it with the new transform. A slight rotation of the grid stays.
    """
    a, b, c, d, e, f = transform
    if abs(b) > abs(a) and abs(d) > abs(e):  # the rows are the columns
        array, (a, b, d, e) = array.swapaxes(0, 1), (b, a, e, d)
    height, width = array.shape[:2]
    if e > 0:
        array = array[::-1]
        b, c, e, f = -b, c + b * height, -e, f + e * height
    if a < 0:
        array = array[:, ::-1]
        a, c, d, f = -a, c + a * width, -d, f + d * width
    return np.ascontiguousarray(array), (a, b, c, d, e, f)


def check_same_location(
    footprints: Sequence[Footprint], max_shift: float, way: str = ""
) -> None:
    """Raises ValueError, naming two files, unless all cover the same ground.

    They must be in one CRS and overlap, and no corner may be farther than max_shift
    pixels (of the coarser file) from that of the finest file. A file that names no CRS
    is not compared with one that does. way: text that names another way out.
    """
    # Most bands of a patch share a grid. numpy would take longer for so few numbers.
    grids = {footprint[1:]: footprint for footprint in reversed(footprints)}
    if len(grids) < 2:
        return
    first = min(grids.values(), key=lambda f: f.pixel)
    for other in grids.values():
        if bool(first.crs) != bool(other.crs):
            continue
        if not _same_crs(first.crs, other.crs):
            fault = "are not in one CRS"
        elif not _overlap(first, other):
            fault = "do not overlap"
        elif (shift := _shift(first, other)) > max_shift * (1 + 1e-6):
            fault = f"are {shift:.3g} pixels apart, more than {max_shift:g}"
        else:
            continue
        raise ValueError(
            f"{other} and {first} {fault}, so they do not cover the same ground: pair"
            f" the right files{way}"
        )


@functools.lru_cache(maxsize=64)
def _parse(crs: str) -> CRS:
    return CRS.from_string(crs)


@functools.lru_cache(maxsize=256)
def _same_crs(one: str, other: str) -> bool:
    """Whether two CRSs are the same, by their definitions."""
    return one == other or _parse(one) == _parse(other)


def _overlap(one: Footprint, other: Footprint) -> bool:
    (a_left, a_bottom, a_right, a_top), b = one.box, other.box
    across = min(a_right, b[2]) > max(a_left, b[0])
    return across and min(a_top, b[3]) > max(a_bottom, b[1])


def _shift(one: Footprint, other: Footprint) -> float:
    """The largest distance between corners, in pixels of the coarser file."""
    wide, high = (max(sides) for sides in zip(one.pixel, other.pixel, strict=True))
    pairs = zip(one.corners, other.corners, strict=True)
    return max(max(abs(x - u) / wide, abs(y - v) / high) for (x, y), (u, v) in pairs)

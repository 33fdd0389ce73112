"""FileLayer: one sensor of a scene, read by windows from files that GDAL opens."""

import contextlib
import dataclasses
import math
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from rasterio.enums import MaskFlags, Resampling
from rasterio.transform import Affine
from rasterio.vrt import WarpedVRT
from rasterio.windows import Window

from rsclip_jax.data.codecs.checks import check_array, find_missing
from rsclip_jax.data.codecs.described import marked_missing, order_bands
from rsclip_jax.data.codecs.dtypes import check_dtype, fit_dtype
from rsclip_jax.data.codecs.gdal import OPTIONS, explaining, read_bands
from rsclip_jax.data.codecs.pictures import as_picture
from rsclip_jax.data.codecs.places import Footprint
from rsclip_jax.data.codecs.raster import Raster, join_rasters
from rsclip_jax.data.codecs.scaling import apply_scaling
from rsclip_jax.data.scenes.grids import grid_of
from rsclip_jax.data.sensors import Sensor
from rsclip_jax.data.sensors.baseline import is_msi
from rsclip_jax.data.types import Scaling

# GDAL keeps decoded blocks: a row of Sentinel-2's JPEG 2000 blocks in all bands has
# 130 MB. The warper has its own buffer.
CACHE, _WARP_MB = 160 << 20, 32  # rasterio takes the first in bytes
_SAMPLE, _BLOCK = 256, 512
# Noise over dark ground is not below this DN, but for a few.
_DARKEST, _FEW = -100, 0.05

# What a reader gives of a window: values [h, w, bands], and where there are none.
Part = tuple[np.ndarray, np.ndarray]


@dataclasses.dataclass(frozen=True)
class SceneFile:
    """A raster of a scene: all bands of a sensor, or one.

    Attributes:
        name: what GDAL opens: a path, /vsizip/..., or an address.
        band: the sensor's band, where it holds one.
        nodata, scale, offset: what the product says of the file beside it.
    """

    name: str
    band: str = ""
    nodata: float | None = None
    scale: float | None = None
    offset: float | None = None

    @property
    def path(self) -> Path:
        return Path(self.name)


class FileLayer:
    """A sensor of a scene, from one file, or from one for each band, in its order.

    Each thread opens the files once.

    Attributes:
        sensor: the sensor; arrays have its bands and dtype, and are in its unit.
        cost: the bytes that a pixel of a window takes while it is read.

    Args:
        grid: the grid onto which files of another one are warped, bilinearly.
        file_bands: the order of the bands in a file that does not name them.
        scaling: from the files' numbers to the sensor's unit, where it is known.
        tags: what the product says beside the files' own tags.
        decibels: of linear radar, 10 for power and 20 for amplitude.
    """

    def __init__(
        self,
        files: Sequence[SceneFile],
        sensor: Sensor,
        grid: Footprint,
        *,
        file_bands: tuple[str, ...] = (),
        scaling: Scaling | None = None,
        tags: Mapping[str, str] | None = None,
        decibels: float = 0.0,
    ):
        self.files, self.sensor, self._grid = tuple(files), sensor, grid
        self._file_bands, self._scaling = file_bands, scaling
        self._tags, self._decibels = dict(tags or {}), decibels
        self._open = Opened(grid)
        item = np.dtype(sensor.dtype).itemsize
        self.cost = len(sensor.bands) * (3 * item + 8 + 4 + 3)

    @property
    def where(self) -> str:
        """The file, or the folder of several, for errors."""
        first = self.files[0].path
        return str(first if len(self.files) == 1 else first.parent)

    def read(self, window: Window) -> Part:
        """Reads a window of the grid: (values, missing), both [h, w, bands].

        Missing values are the sensor's nodata, or NaN (0 in integers) where it has
        none. Raises ValueError naming a file that is unreadable, or whose values are
        not the sensor's.
        """
        array, missing = self._read(window)
        if is_msi(self.sensor):  # a window of dark water may be below 0 everywhere
            array = np.maximum(array, 0)
        return fit_dtype(array, self.sensor, self.where), missing

    def check(self) -> None:
        """Raises ValueError for files without any value, or of another unit."""
        height, width = self._grid.height, self._grid.width
        shape = min(height, _SAMPLE), min(width, _SAMPLE)
        array, missing = self._read(Window(0, 0, width, height), shape)
        if not missing.any(-1).all():
            if is_msi(self.sensor) and self._scaling is not None:
                array = np.maximum(array, 0)
            self._check_offset(array[~missing])
            check_array(array, self.sensor, self.where, 1.0, missing)
        elif not self._has_value():
            raise ValueError(
                f"{self.where}: none of its {height:,} x {width:,} pixels of"
                f" {self.sensor.name} has a value, all are nodata: choose another scene"
            )

    def _check_offset(self, values: np.ndarray) -> None:
        """Raises ValueError if an offset of tags leaves many DN far below 0."""
        if not is_msi(self.sensor) or self._scaling is not None:
            return
        share = (values < _DARKEST).mean()
        if share > _FEW:
            raise ValueError(
                f"{self.where}: with the offset that its tags or metadata tell,"
                f" {100 * share:.3g} % of its values are below {_DARKEST}, so that it"
                " was subtracted already: give scaling=Scaling() for DN as they are"
            )

    def _has_value(self) -> bool:
        height, width = self._grid.height, self._grid.width
        return any(
            not self.read(window)[1].any(-1).all()
            for window in blocks(height, width, _BLOCK)
        )

    def _read(self, window: Window, shape: tuple[int, int] | None = None) -> Part:
        """Values in the sensor's unit, in a dtype that holds them, and where missing.

        shape: (height, width) to which GDAL thins the window out.
        """
        sensor, one = self.sensor, len(self.files) == 1
        count = len(self._file_bands or sensor.bands) if one else 1
        rasters = [self._open.read(f, window, count, shape) for f in self.files]
        raster = _join(rasters, self.files)
        raster.tags |= self._tags
        if sensor.unit == "8-bit":
            raster = as_picture(raster, len(sensor.bands), self.where)
        if one:
            raster = order_bands(raster, sensor, self._file_bands, self.where)
        if self._decibels:
            raster.pixels = to_decibels(raster.pixels, self._decibels)
        missing = find_missing(raster.pixels, sensor, marked_missing(raster, sensor))
        array = apply_scaling(raster, sensor, self._scaling, self.files[0].path)
        check_dtype(array, sensor, self.where)
        if missing is None:
            return array, np.zeros(array.shape, bool)
        return np.where(missing, fill_value(sensor, array.dtype), array), missing


class Opened:
    """Files on a grid (None: their own), which each thread opens at its first read."""

    def __init__(
        self, grid: Footprint | None, resampling: Resampling = Resampling.bilinear
    ):
        self._grid, self._resampling = grid, resampling
        self._local = threading.local()

    def __getstate__(self) -> dict[str, Any]:
        return {"_grid": self._grid, "_resampling": self._resampling}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__ |= {**state, "_local": threading.local()}

    def read(
        self,
        file: SceneFile,
        window: Window,
        bands: int = 1,
        shape: tuple[int, int] | None = None,
    ) -> Raster:
        """Reads a window of the grid from a file; bands, shape: see read_bands."""
        with opening(file.path):
            found = self._local.__dict__.setdefault("found", {})
            if file not in found:
                found[file] = self._open(file)
            data, view = found[file]
            raster = read_bands(data, bands, view=view, window=window, shape=shape)
        return _add_told(raster, file)

    def _open(self, file: SceneFile) -> tuple[rasterio.DatasetReader, WarpedVRT | None]:
        data = rasterio.open(file.name, sharing=False)
        grid = self._grid
        if grid is None or grid_of(data, file.name)[1:] == grid[1:]:
            return data, None
        nodata = data.nodata if file.nodata is None else file.nodata
        kinds = {flag for flags in data.mask_flag_enums for flag in flags}
        options: dict[str, Any] = {"src_nodata": nodata, "nodata": nodata}
        if nodata is None and MaskFlags.alpha not in kinds:
            options = {"add_alpha": True}  # which says where there is no pixel
        view = WarpedVRT(
            data,
            crs=grid.crs,
            transform=Affine(*grid.transform),
            height=grid.height,
            width=grid.width,
            resampling=self._resampling,
            warp_mem_limit=_WARP_MB,
            UNIFIED_SRC_NODATA="NO",  # bands are not missing because others are
            **options,
        )
        return data, view


@contextlib.contextmanager
def opening(path: Path) -> Iterator[None]:
    """Within it GDAL's errors name the file, and its cache is small."""
    with explaining(path), rasterio.Env(**OPTIONS, GDAL_CACHEMAX=CACHE):
        yield


def read_grid(file: SceneFile) -> Footprint:
    """The grid of a file; see grid_of."""
    with opening(file.path):
        data = rasterio.open(file.name, sharing=False)
    with data:
        return grid_of(data, file.name)


def blocks(height: int, width: int, size: int) -> Iterator[Window]:
    """Windows that cover so many rows and columns."""
    for y in range(0, height, size):
        for x in range(0, width, size):
            yield Window(x, y, min(size, width - x), min(size, height - y))


def fill_value(sensor: Sensor, dtype: np.dtype) -> float:
    """What stands for a missing value."""
    if sensor.nodata is not None:
        return sensor.nodata
    return math.nan if dtype.kind == "f" else 0


def to_decibels(pixels: np.ndarray, factor: float) -> np.ndarray:
    """factor * log10 of linear radar, float32; NaN for 0 and below."""
    positive = np.where(pixels > 0, pixels, np.nan)
    return (factor * np.log10(positive)).astype(np.float32)


def _add_told(raster: Raster, file: SceneFile) -> Raster:
    """What the product says of a file goes before what the file says."""
    if file.nodata is not None:
        gone = raster.pixels == file.nodata
        if (marked := raster.missing) is not None:
            gone |= marked if marked.ndim == 3 else marked[..., None]
        raster.missing, raster.nodata = gone, file.nodata
    count = raster.pixels.shape[-1]
    if file.scale is not None or file.offset is not None:
        raster.scales = (1.0 if file.scale is None else file.scale,) * count
        raster.offsets = (file.offset or 0.0,) * count
    return raster


def _join(rasters: Sequence[Raster], files: Sequence[SceneFile]) -> Raster:
    """Stacks files of one band each."""
    if len(rasters) == 1:
        return rasters[0]
    first = rasters[0].pixels
    for raster, file in zip(rasters, files, strict=True):
        if raster.pixels.shape != first.shape or raster.pixels.dtype != first.dtype:
            raise ValueError(
                f"{file.name}: {raster.pixels.shape[-1]} bands of"
                f" {raster.pixels.dtype}, but {files[0].name} is one band of"
                f" {first.dtype}: give one file of one band for each band"
            )
    return join_rasters(rasters)

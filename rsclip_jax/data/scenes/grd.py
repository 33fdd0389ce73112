"""GrdLayer: radar on slanted lines, calibrated and warped by windows.

Control points tell its place; they are warped by thin plate splines.
"""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
from rasterio.control import GroundControlPoint
from rasterio.enums import Resampling
from rasterio.transform import Affine, GCPTransformer
from rasterio.warp import reproject
from rasterio.windows import Window

from rsclip_jax.data.codecs.checks import check_array
from rsclip_jax.data.codecs.places import Footprint
from rsclip_jax.data.scenes.files import (
    Opened,
    Part,
    SceneFile,
    blocks,
    fill_value,
    to_decibels,
)
from rsclip_jax.data.scenes.grids import window_transform
from rsclip_jax.data.sensors import Sensor

_SAMPLE, _BLOCK, _MARGIN, _EDGE = 256, 1024, 4, 9
_POWER = 10.0


@dataclasses.dataclass(frozen=True)
class Calibration:
    """The table of A of one polarisation.

    lines: of its vectors, increasing. pixels, values: of each vector.
    """

    lines: np.ndarray
    pixels: Sequence[np.ndarray]
    values: Sequence[np.ndarray]

    def at(self, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
        """A [rows, columns], bilinear."""
        across = np.stack(
            [
                np.interp(columns, p, v)
                for p, v in zip(self.pixels, self.values, strict=True)
            ]
        )
        if len(self.lines) == 1:
            return across.repeat(len(rows), 0)
        low = np.searchsorted(self.lines, rows, "right") - 1
        low = low.clip(0, len(self.lines) - 2)
        share = (rows - self.lines[low]) / (self.lines[low + 1] - self.lines[low])
        share = share.clip(0, 1)[:, None]
        return across[low] * (1 - share) + across[low + 1] * share


class GrdLayer:
    """The polarisations of a GRD product, calibrated and then warped onto a grid.

    points: control points in the grid's CRS. shape: (lines, samples) of the product.
    spacing: of its pixels in metres.
    """

    def __init__(
        self,
        files: Mapping[str, SceneFile],
        tables: Mapping[str, Calibration],
        sensor: Sensor,
        grid: Footprint,
        points: Sequence[GroundControlPoint],
        shape: tuple[int, int],
        spacing: float,
    ):
        self.sensor, self._grid, self._points = sensor, grid, tuple(points)
        self._files, self._tables, self._shape = dict(files), dict(tables), shape
        self._open = Opened(None)
        coarser = max(1.0, (grid.metres or spacing) / spacing)
        self.cost = int(60 * coarser**2) + 20 * len(files)

    def read(self, window: Window) -> Part:
        """Backscatter in dB of a window of the grid, and where there is none."""
        shape = (len(self.sensor.bands), window.height, window.width)
        warped = np.full(shape, np.nan, np.float32)
        if source := self._source(window):
            for out, band in zip(warped, self.sensor.bands, strict=True):
                self._warp(band, source, window, out)
        array = np.ascontiguousarray(np.moveaxis(warped, 0, -1))
        return self._filled(to_decibels(array, _POWER))

    def check(self) -> None:
        """Raises ValueError for a product without any value, or in another unit."""
        whole = Window(0, 0, self._shape[1], self._shape[0])
        shape = min(whole.height, _SAMPLE), min(whole.width, _SAMPLE)
        bands = [self._power(band, whole, shape) for band in self.sensor.bands]
        array, missing = self._filled(to_decibels(np.stack(bands, -1), _POWER))
        where = next(iter(self._files.values())).name
        if not missing.any(-1).all():
            check_array(array, self.sensor, where, 1.0, missing)
        elif not self._has_value():
            raise ValueError(
                f"{where}: all of its {self._shape[0]:,} x {self._shape[1]:,} pixels"
                " are 0, which is no backscatter: choose another scene"
            )

    def _has_value(self) -> bool:
        file = next(iter(self._files.values()))
        return any(
            self._open.read(file, window).pixels.any()
            for window in blocks(*self._shape, _BLOCK)
        )

    def _filled(self, array: np.ndarray) -> Part:
        missing = np.isnan(array)
        return np.where(
            missing, np.float32(fill_value(self.sensor, array.dtype)), array
        ), missing

    def _power(
        self, band: str, window: Window, shape: tuple[int, int] | None = None
    ) -> np.ndarray:
        """sigma0, float32 [h, w], of a window of the product; NaN where DN are 0."""
        dn = self._open.read(self._files[band], window, 1, shape).pixels[..., 0]
        height, width = dn.shape
        rows = _middles(window.row_off, window.height, height)
        columns = _middles(window.col_off, window.width, width)
        scaled = dn / self._tables[band].at(rows, columns).astype(np.float32)
        return np.where(dn > 0, np.square(scaled, dtype=np.float32), np.float32(np.nan))

    def _source(self, window: Window) -> Window | None:
        """The window of the product that a window of the grid shows; None outside."""
        a, _, c, _, e, f = window_transform(self._grid, window)
        x = c + a * np.linspace(0, window.width, _EDGE)
        y = f + e * np.linspace(0, window.height, _EDGE)
        xs, ys = (part.ravel() for part in np.meshgrid(x, y))
        with GCPTransformer(self._points, tps=True) as transformer:
            rows, columns = transformer.rowcol(xs, ys, op=float)
        top, bottom = np.floor(min(rows)) - _MARGIN, np.ceil(max(rows)) + _MARGIN
        left, right = np.floor(min(columns)) - _MARGIN, np.ceil(max(columns)) + _MARGIN
        top, bottom = (int(v) for v in np.clip([top, bottom], 0, self._shape[0]))
        left, right = (int(v) for v in np.clip([left, right], 0, self._shape[1]))
        if top == bottom or left == right:
            return None
        return Window(left, top, right - left, bottom - top)

    def _warp(self, band: str, source: Window, window: Window, out: np.ndarray) -> None:
        """Warps a window of the product into out [h, w], a window of the grid."""
        x, y = source.col_off, source.row_off
        points = [
            GroundControlPoint(p.row - y, p.col - x, p.x, p.y) for p in self._points
        ]
        reproject(
            self._power(band, source),
            out,
            gcps=points,
            src_crs=self._grid.crs,
            src_nodata=np.nan,
            dst_transform=Affine(*window_transform(self._grid, window)),
            dst_crs=self._grid.crs,
            dst_nodata=np.nan,
            resampling=Resampling.bilinear,
            SRC_METHOD="GCP_TPS",
        )


def _middles(start: int, length: int, count: int) -> np.ndarray:
    """The pixels at the middles of so many equal parts of a side."""
    return start + (np.arange(count) + 0.5) * length / count - 0.5

"""Raster: the pixels of a file and what the file says about them."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from rsclip_jax.data.codecs.places import Footprint


@dataclasses.dataclass
class Raster:
    """The bands of a file, or of one file each.

    Attributes:
        pixels: [h, w, bands] in the file's dtype. Rows run from north to south where
            the file says where it lies, and as they are stored otherwise.
        missing: where the file says that it has no value: bool [h, w], or
            [h, w, bands]; None where it says so nowhere. NaN is not listed.
        nodata: the value by which the file marks missing pixels, if it names one.
        names: the bands' descriptions; "" where a band has none.
        scales, offsets: for each band, value = pixel * scale + offset; None where the
            file names neither.
        places: the grid of each file that says where it lies.
        tags: the file's metadata.
        palette: colours [n, 3] uint8, which the pixels of a single band number.
    """

    pixels: np.ndarray
    missing: np.ndarray | None = None
    nodata: float | None = None
    names: tuple[str, ...] = ()
    scales: tuple[float, ...] | None = None
    offsets: tuple[float, ...] | None = None
    places: tuple[Footprint, ...] = ()
    tags: dict[str, str] = dataclasses.field(default_factory=dict)
    palette: np.ndarray | None = None

    def __post_init__(self) -> None:
        self.names = self.names or ("",) * self.pixels.shape[-1]

    @property
    def place(self) -> Footprint | None:
        """The grid of the (first) file."""
        return self.places[0] if self.places else None


def join_rasters(parts: Sequence[Raster]) -> Raster:
    """The bands of rasters of one size and dtype, one after the other."""
    shape = parts[0].pixels.shape
    missing = None
    if any(part.missing is not None for part in parts):
        missing = np.concatenate(
            [_spread(p.missing, p.pixels.shape) for p in parts], -1
        )
    return Raster(
        np.concatenate([part.pixels for part in parts], -1),
        missing,
        parts[0].nodata,
        sum((part.names for part in parts), ()),
        _join([part.scales for part in parts], shape[-1], 1.0),
        _join([part.offsets for part in parts], shape[-1], 0.0),
        parts[0].places,
        parts[0].tags,
    )


def _spread(mask: np.ndarray | None, shape: tuple[int, ...]) -> np.ndarray:
    """A mask as [h, w, bands]."""
    if mask is None:
        return np.zeros(shape, bool)
    return np.broadcast_to(mask if mask.ndim == 3 else mask[..., None], shape)


def _join(
    values: Sequence[tuple[float, ...] | None], count: int, default: float
) -> tuple[float, ...] | None:
    """The scales (offsets) of rasters of `count` bands each; None if all have none."""
    if all(value is None for value in values):
        return None
    return sum((value or (default,) * count for value in values), ())

"""Raster: the pixels of a file and what the file says about them."""

import dataclasses

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

"""TIFFs of sensors to arrays: many bands in one file, or a file a band."""

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import tifffile

SUFFIXES = (".tif", ".tiff")


def read_tif(path: Path) -> np.ndarray:
    """[h, w, bands] of a TIFF, in its own dtype, whichever way its bands lie.

    Raises ValueError naming the file when it is unreadable or cut short.
    """
    try:
        with tifffile.TiffFile(path) as file:
            # A page of all bands, or (of one band each) a page a band.
            series = file.series[0]
            array, separate = series.asarray(), series.axes.endswith("YX")
    except Exception as error:  # damaged bytes make a decoder fail in any way
        size = path.stat().st_size if path.exists() else 0
        raise ValueError(
            f"{path}: unreadable or cut TIFF ({size:,} bytes; {error}); fetch the file"
            " again, or --config.data.on_error=skip leaves such files out and counts"
            " them"
        ) from error
    if array.ndim == 2:
        return array[..., None]
    if array.ndim != 3:
        raise ValueError(f"{path}: an array of shape {array.shape} is not one image")
    return np.ascontiguousarray(array.transpose(1, 2, 0)) if separate else array


def read_band_files(paths: Sequence[Path]) -> np.ndarray:
    """[size, size, bands] of a file a band; coarser bands are enlarged bilinearly.

    size is that of the finest band. Raises ValueError naming the file that is not one
    square band, or of another dtype than the first.
    """
    bands = [read_tif(path)[..., 0] for path in paths]
    for path, band in zip(paths, bands, strict=True):
        if band.ndim != 2 or band.shape[0] != band.shape[1]:
            raise ValueError(f"{path}: {band.shape} pixels, expected one square band")
        if band.dtype != bands[0].dtype:
            raise ValueError(
                f"{path}: {band.dtype}, but {paths[0].name} is {bands[0].dtype}"
            )
    return stack_bands(bands)


def stack_bands(bands: Sequence[np.ndarray]) -> np.ndarray:
    """[size, size, bands] of square bands, coarser ones enlarged bilinearly."""
    size = max(len(band) for band in bands)
    out = np.empty((size, size, len(bands)), bands[0].dtype)
    for i, band in enumerate(bands):
        if len(band) != size:
            band = cv2.resize(band, (size, size), interpolation=cv2.INTER_LINEAR)
        out[..., i] = band
    return out

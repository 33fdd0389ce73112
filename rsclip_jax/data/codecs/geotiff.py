"""TIFFs of sensors to arrays: many bands in one file, or a file a band."""

import io
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import tifffile

from rsclip_jax.data.codecs.footprints import Footprint, read_footprints

SUFFIXES = (".tif", ".tiff")
# Of every GeoTIFF it warns that it does not know the tags; what it cannot read is read
# again, and that reader's error is raised.
cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_FATAL)


def read_tif(path: Path, footprints: list[Footprint] | None = None) -> np.ndarray:
    """[h, w, bands] of a TIFF, in its own dtype, whichever way its bands lie.

    What its tags say of its place, if anything, is added to footprints. Raises
    ValueError naming the file when it is unreadable or cut short.
    """
    if not path.exists():
        raise FileNotFoundError(f"{path} is missing: fetch it")
    try:
        data = path.read_bytes()
        with tifffile.TiffFile(io.BytesIO(data)) as file:
            # A page of all bands, or (of one band each) a page a band.
            series = file.series[0]
            array, separate = series.asarray(), series.axes.endswith("YX")
    except Exception as error:  # damaged bytes make a decoder fail in any way
        raise ValueError(
            f"{path}: unreadable or cut TIFF ({path.stat().st_size:,} bytes; {error});"
            " fetch the file again"
        ) from error
    if footprints is not None:
        footprints += read_footprints(path, data)
    if array.ndim == 2:
        return array[..., None]
    if array.ndim != 3:
        raise ValueError(f"{path}: an array of shape {array.shape} is not one image")
    return np.ascontiguousarray(array.transpose(1, 2, 0)) if separate else array


def read_band_files(
    paths: Sequence[Path], footprints: list[Footprint] | None = None
) -> np.ndarray:
    """[size, size, bands] of a file a band; coarser bands are enlarged bilinearly.

    size is that of the finest band. footprints: as for read_tif. Raises ValueError
    naming the file that is not one square band, or of another dtype than the first.
    """
    bands = [_read_band(path, footprints) for path in paths]
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


def _read_band(path: Path, footprints: list[Footprint] | None) -> np.ndarray:
    """[h, w] of a TIFF of one band.

    By OpenCV where it can, which takes a sixth of tifffile's time and leaves Python's
    lock to other threads: an archive has millions of such files. It would invert or
    stretch some 8-bit files, which are tifffile's.
    """
    try:
        data = path.read_bytes()
        array = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    except (OSError, cv2.error):
        array = None
    if array is None or array.ndim != 2 or array.itemsize == 1:
        return read_tif(path, footprints)[..., 0]
    if footprints is not None:
        footprints += read_footprints(path, data)
    return array

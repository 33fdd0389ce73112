"""Fits images and sensor arrays of any size to an encoder's input."""

import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import PIL.Image

from rsclip_jax.data.codecs.checks import check_array
from rsclip_jax.data.codecs.images import (
    decode_image,
    decode_other_mode,
    is_raster,
    read_image,
)
from rsclip_jax.data.pipeline.fitting import Fit, fit, fit_of, fit_picture
from rsclip_jax.data.sensors import Sensor
from rsclip_jax.data.types import MOST_RATIO, size_words
from rsclip_jax.models.sensor import SensorSpec, input_indices

Image = np.ndarray | PIL.Image.Image | str | Path
# Objects of this many pixels shrink to one pixel; larger ratios lose a scene's content.
MAX_SHRINK = 8.0


def fit_images(
    images: Image | Sequence[Image],
    fit_to: int | Fit,
    max_shrink: float | None = MAX_SHRINK,
    value_range: tuple[float, float] | None = None,
) -> list[np.ndarray]:
    """Converts images to uint8 [size, size, 3], as the CLIP's preprocessing does.

    Args:
        images: uint8 [h, w, 3] arrays, PIL images or paths, or one of these. Images
            that are neither RGB nor grey (with alpha, of a palette, bilevel) are
            converted to RGB before or after resizing, as the Fit's library does it.
        fit_to: the tower's Fit; a side alone is CLIP's.
        max_shrink: the largest ratio of an image's short side to the size; None for
            any.
        value_range: (lowest, highest) value of images of more than 8 bits, which become
            0 and 255; None refuses them.

    Raises ValueError, TypeError or FileNotFoundError naming the image that is invalid
    or too large.
    """
    fitted = []
    for index, image in enumerate(_as_list(images)):
        where = str(image) if isinstance(image, str | Path) else f"image {index}"
        found = _open_image(image, where, value_range)
        size = found.shape[:2] if isinstance(found, np.ndarray) else found.size[::-1]
        _check_size(size, fit_of(fit_to).size, max_shrink, where)
        if isinstance(found, np.ndarray):
            fitted.append(fit(found, fit_to))
        else:
            fitted.append(fit_picture(found, fit_to))
    return fitted


def fit_arrays(
    arrays: np.ndarray | Sequence[np.ndarray],
    spec: SensorSpec,
    held: Sensor,
    max_shrink: float | None = MAX_SHRINK,
) -> list[np.ndarray]:
    """Converts arrays [h, w, c] of sensor `held` to the encoder's [size, size, bands].

    Bands are matched by name. max_shrink: as in fit_images. Raises ValueError naming
    the array that does not fit the sensor or is too large.
    """
    indices = list(input_indices(spec, held))
    fitted = []
    for index, array in enumerate(_as_list(arrays)):
        where = f"array {index}"
        checked = check_array(np.asarray(array), held, where)
        _check_size(checked.shape, spec.image_size, max_shrink, where)
        if index == 0 and max_shrink is not None:
            _warn_of_ground(checked, spec, where)
        fitted.append(fit(checked[..., indices], spec.image_size))
    return fitted


def _as_list(images) -> Sequence[Image]:
    one = isinstance(images, np.ndarray) and images.ndim in (2, 3)  # 2 is refused
    if one or isinstance(images, str | Path | PIL.Image.Image):
        return [images]
    return images


def _check_size(
    shape: Sequence[int], size: int, max_shrink: float | None, where: str
) -> None:
    h, w = shape[:2]
    if not min(h, w):
        raise ValueError(f"{where}: {h} x {w} pixels: it is empty")
    if max_shrink is not None and min(h, w) > max_shrink * size:
        raise ValueError(
            f"{where}: {h} x {w} pixels, but the encoder takes {size} x {size}:"
            f" resizing would lose objects smaller than {min(h, w) // size} pixels."
            " Encode tiles (slices of the array; for a dataset, open"
            f" 'name:split:tile'), or allow it: max_shrink=None (now {max_shrink:g})"
        )


def _warn_of_ground(array: np.ndarray, spec: SensorSpec, where: str) -> None:
    """Warns of an array of another size than those that the encoder was trained on."""
    side = min(array.shape[:2])
    ratio = side / (spec.pixels or side)
    if 1 / MOST_RATIO <= ratio <= MOST_RATIO:
        return
    way = f"encode tiles of {spec.pixels} pixels" if ratio > 1 else "use larger images"
    warnings.warn(
        f"{where}: {side} pixels, and the {spec.modality} encoder was trained on images"
        f" of {spec.ground}: where pixels are as large, things are {size_words(ratio)}"
        f" than in training; {way}",
        stacklevel=4,
    )


def _open_image(
    image: Image, where: str, value_range: tuple[float, float] | None
) -> np.ndarray | PIL.Image.Image:
    """An image as uint8 RGB, or as Pillow's picture where it is resized before that."""
    if isinstance(image, str | Path):
        return _read(Path(image), value_range)
    if isinstance(image, PIL.Image.Image):
        return _of_picture(image, where, value_range)
    if not isinstance(image, np.ndarray):
        raise TypeError(
            f"{where}: an image is an array, a PIL image or a path, not"
            f" {type(image).__name__}"
        )
    if value_range and image.dtype != np.uint8:
        image = _scaled(image, where, value_range)
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[-1] != 3:
        raise ValueError(
            f"{where}: an image array must be uint8 [h, w, 3], got {image.dtype}"
            f" {image.shape}; value_range= scales other values"
        )
    return image


_RGB = ("RGB", "L")  # converted before or after resizing, a picture is the same
_DEEP = ("I", "F")  # the first letters of Pillow's modes of more than 8 bits


def _of_picture(
    image: PIL.Image.Image, where: str, value_range: tuple[float, float] | None
) -> np.ndarray | PIL.Image.Image:
    if image.mode.startswith(_DEEP):
        grey = _scaled(np.asarray(image), where, value_range)
        return np.repeat(grey[..., None], 3, axis=-1)
    return np.array(image.convert("RGB")) if image.mode in _RGB else image


def _scaled(
    array: np.ndarray, where: str, value_range: tuple[float, float] | None
) -> np.ndarray:
    """Values of value_range as 0 to 255, in 8 bits; ValueError without a range."""
    if value_range is None:
        raise ValueError(
            f"{where}: {array.dtype} values of {array.min()} to {array.max()}, not 8"
            " bits: pass value_range=(lowest, highest), which become 0 and 255"
        )
    low, high = value_range
    if not low < high:
        raise ValueError(f"value_range = {value_range}: give (lowest, highest)")
    scaled = (array.astype(np.float64) - low) / (high - low)
    if not np.isfinite(scaled).all():
        raise ValueError(f"{where}: NaN or infinite values")
    return np.rint(scaled.clip(0, 1) * 255).astype(np.uint8)


def _read(
    path: Path, value_range: tuple[float, float] | None
) -> np.ndarray | PIL.Image.Image:
    if path.is_dir():
        raise ValueError(
            f"{path} is a folder, not an image: give the paths of its images, such as"
            f" sorted(pathlib.Path({str(path)!r}).glob('*.png'))"
        )
    if not path.exists():
        raise FileNotFoundError(
            f"{path}: there is no such image file (looked for in {Path.cwd()})"
        )
    data, where = path.read_bytes(), str(path)
    if is_raster(data):
        return read_image(path)
    if (picture := decode_other_mode(data, where)) is not None:
        return _of_picture(picture, where, value_range)
    return decode_image(data, where)

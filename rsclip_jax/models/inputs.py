"""Fits images and sensor arrays of any size to an encoder's input."""

import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import PIL.Image

from rsclip_jax.data.codecs.checks import check_array
from rsclip_jax.data.codecs.images import read_image
from rsclip_jax.data.pipeline.geometry import fit
from rsclip_jax.data.sensors import Sensor
from rsclip_jax.data.types import MOST_RATIO, size_words
from rsclip_jax.models.sensor import SensorSpec, input_indices

Image = np.ndarray | PIL.Image.Image | str | Path
# Objects of this many pixels shrink to one pixel; larger ratios lose a scene's content.
MAX_SHRINK = 8.0


def fit_images(
    images: Image | Sequence[Image], size: int, max_shrink: float | None = MAX_SHRINK
) -> list[np.ndarray]:
    """Converts images to uint8 [size, size, 3], as CLIP's preprocessing does.

    Resizes the short side and crops the centre.

    Args:
        images: uint8 [h, w, 3] arrays, PIL images or paths, or one of these.
        max_shrink: the largest ratio of an image's short side to `size`; None for any.

    Raises ValueError, TypeError or FileNotFoundError naming the image that is invalid
    or too large.
    """
    fitted = []
    for index, image in enumerate(_as_list(images)):
        where = str(image) if isinstance(image, str | Path) else f"image {index}"
        array = _to_rgb(image, where)
        _check_size(array, size, max_shrink, where)
        fitted.append(fit(array, size))
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
        _check_size(checked, spec.image_size, max_shrink, where)
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
    array: np.ndarray, size: int, max_shrink: float | None, where: str
) -> None:
    h, w = array.shape[:2]
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


def _to_rgb(image: Image, where: str) -> np.ndarray:
    if isinstance(image, str | Path):
        return _read(Path(image))
    if isinstance(image, PIL.Image.Image):
        return np.array(image.convert("RGB"))
    if not isinstance(image, np.ndarray):
        raise TypeError(
            f"{where}: an image is an array, a PIL image or a path, not"
            f" {type(image).__name__}"
        )
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[-1] != 3:
        raise ValueError(
            f"{where}: an image array must be uint8 [h, w, 3], got {image.dtype}"
            f" {image.shape}"
        )
    return image


def _read(path: Path) -> np.ndarray:
    if path.is_dir():
        raise ValueError(
            f"{path} is a folder, not an image: give the paths of its images, such as"
            f" sorted(pathlib.Path({str(path)!r}).glob('*.png'))"
        )
    if not path.exists():
        raise FileNotFoundError(
            f"{path}: there is no such image file (looked for in {Path.cwd()})"
        )
    return read_image(path)

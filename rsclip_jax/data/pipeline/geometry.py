"""Geometric transforms: crops, flips, quarter turns, resizing."""

from collections.abc import Sequence

import cv2
import numpy as np
from PIL import Image

INTERPOLATIONS = {
    "bicubic": Image.Resampling.BICUBIC,
    "bilinear": Image.Resampling.BILINEAR,
}
_ROTATIONS = (cv2.ROTATE_90_COUNTERCLOCKWISE, cv2.ROTATE_180, cv2.ROTATE_90_CLOCKWISE)


def number_view(flip_y: bool, flip_x: bool, quarters: int) -> int:
    """The number, 0 to 7, of a view: quarter turns, plus 4 where it is flipped first.

    A flip up-down equals a flip left-right and a half turn.
    """
    return (quarters + 2 * flip_y) % 4 + 4 * (flip_x != flip_y)


def make_views(array: np.ndarray, size: int, views: Sequence[int]) -> np.ndarray:
    """An image in these views [v, size, size, c], as augment_record makes them."""
    return np.stack([turn_to_size(array, size, False, v >= 4, v % 4) for v in views])


def turn_to_size(
    array: np.ndarray,
    size: int,
    flip_y: bool,
    flip_x: bool,
    quarters: int,
    out: np.ndarray | None = None,
) -> np.ndarray:
    """turn, and resize to [size, size, c]; out: as for resize."""
    if array.shape[0] == array.shape[1] < size:  # turning the smaller one is faster
        return resize(turn(array, flip_y, flip_x, quarters), size, out=out)
    return turn(resize(array, size), flip_y, flip_x, quarters)


def cut(
    array: np.ndarray, crop: tuple[int, int, int, int], shape: tuple[int, int]
) -> np.ndarray:
    """Cuts a crop's ground area from a sensor's array.

    crop: (top, left, height, width) in pixels of a sensor with images of this shape.
    """
    top, left, side_h, side_w = crop
    scale = array.shape[0] / shape[0]
    y0, y1 = _span(top, side_h, scale, array.shape[0])
    x0, x1 = _span(left, side_w, scale, array.shape[1])
    return array[y0:y1, x0:x1]


def _span(start: int, side: int, scale: float, length: int) -> tuple[int, int]:
    """(first, end) of a crop at another pixel size, at least one pixel."""
    first = min(round(start * scale), length - 1)
    return first, max(round((start + side) * scale), first + 1)


def resize(
    array: np.ndarray,
    height: int,
    width: int | None = None,
    *,
    exact: bool = False,
    interpolation: str = "bicubic",
    out: np.ndarray | None = None,
) -> np.ndarray:
    """Resizes [h, w, c] to [height, width, c]: bicubic, antialiased when shrinking.

    OpenCV enlarges, four times as fast as Pillow; its bicubic does not antialias.
    Pillow shrinks 8-bit images, as CLIP's preprocessing does; measurements shrink by
    area, which keeps their mean.

    Args:
      array: any dtype; the result has the same.
      height: height of the result.
      width: width of the result; by default its height.
      exact: Pillow also enlarges 8-bit images. Its cubic's parameter is -0.5, OpenCV's
        -0.75, and results differ by a few grey levels.
      interpolation: Pillow's, of 8-bit images; one of INTERPOLATIONS.
      out: a buffer that is written to and returned where OpenCV enlarges and it has the
        result's shape and dtype.
    """
    width = height if width is None else width
    h, w, c = array.shape
    if (h, w) == (height, width):
        return array
    is_image = array.dtype == np.uint8 and c in (1, 3)
    if h <= height and w <= width and not (exact and is_image):
        return _resize_bands(array, height, width, cv2.INTER_CUBIC, out)
    if is_image:
        image = Image.fromarray(array if c == 3 else array[..., 0])
        resized = image.resize((width, height), INTERPOLATIONS[interpolation])
        return np.asarray(resized).reshape(height, width, c)
    return _resize_bands(array, height, width, cv2.INTER_AREA)


def _resize_bands(
    array: np.ndarray,
    height: int,
    width: int,
    interpolation: int,
    out: np.ndarray | None = None,
) -> np.ndarray:
    """cv2.resize, which takes four bands at most, for any number of bands."""
    shape = (height, width, array.shape[-1])
    if out is None or out.shape != shape or out.dtype != array.dtype:
        out = np.empty(shape, array.dtype)
    if array.shape[-1] <= 4:
        cv2.resize(array, (width, height), out, interpolation=interpolation)
        return out
    for i in range(0, array.shape[-1], 4):
        part = np.ascontiguousarray(array[..., i : i + 4])
        resized = cv2.resize(part, (width, height), interpolation=interpolation)
        out[..., i : i + 4] = resized.reshape(height, width, -1)
    return out


def turn(array: np.ndarray, flip_y: bool, flip_x: bool, quarters: int) -> np.ndarray:
    """[s, s, c] flipped, then turned counterclockwise by quarters; contiguous.

    OpenCV is many times faster than numpy's strided copy but takes four bands at most;
    with more bands, numpy moves whole pixels instead of single numbers.
    """
    if array.shape[-1] > 4:
        pixels = np.ascontiguousarray(array).view(f"V{array[0, 0].nbytes}")
        pixels = pixels[:: -1 if flip_y else 1, :: -1 if flip_x else 1]
        pixels = np.ascontiguousarray(np.rot90(pixels, quarters))
        return pixels.view(array.dtype)
    out = array
    if flip_y or flip_x:
        out = cv2.flip(out, -1 if flip_y and flip_x else int(flip_x))
    if quarters:
        out = cv2.rotate(out, _ROTATIONS[quarters - 1])
    return np.ascontiguousarray(out.reshape(array.shape))

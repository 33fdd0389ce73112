"""Geometric transforms: crops, flips, quarter turns, resizing."""

import dataclasses
from collections.abc import Mapping, Sequence

import cv2
import numpy as np
from PIL import Image

LIBRARIES = ("open_clip", "transformers")
MODES = ("shortest", "longest", "squash")
INTERPOLATIONS = {
    "bicubic": Image.Resampling.BICUBIC,
    "bilinear": Image.Resampling.BILINEAR,
}
_ROTATIONS = (cv2.ROTATE_90_COUNTERCLOCKWISE, cv2.ROTATE_180, cv2.ROTATE_90_CLOCKWISE)


@dataclasses.dataclass(frozen=True)
class Resize:
    """How a CLIP's preprocessing makes an image square.

    mode: "shortest" resizes the short side, "longest" the long side, and fills up what
    is missing with grey level `fill`; "squash" resizes both. side: what the side is
    resized to, of which the centre is cut; 0 is the image's size. like: the library
    that is followed where two differ. transformers (its Pillow processors) converts a
    picture to RGB first, on white, and rounds the centre's offset down; open_clip
    resizes it, then drops alpha, and rounds the offset to the nearest.

    Raises ValueError for an unknown mode, interpolation or library.
    """

    mode: str = "shortest"
    interpolation: str = "bicubic"
    side: int = 0
    fill: int = 0
    like: str = "open_clip"

    def __post_init__(self):
        known = {"mode": MODES, "interpolation": tuple(INTERPOLATIONS)}
        known["like"] = LIBRARIES
        for name, values in known.items():
            if (value := getattr(self, name)) not in values:
                raise ValueError(f"{name} {value!r}: use one of {', '.join(values)}")


AS_CLIP = Resize()


@dataclasses.dataclass(frozen=True)
class Fit:
    """The side in pixels that images are fitted to, and how; see fit."""

    size: int
    resize: Resize = AS_CLIP


def fit_of(size: int | Fit) -> Fit:
    """The Fit of a side alone is CLIP's."""
    return size if isinstance(size, Fit) else Fit(size)


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


def fit_record(record: dict, *, sizes: Mapping[str, int | Fit]) -> dict:
    """The record with the images of sizes' keys fitted to these sides, see fit."""
    return {**record, **{key: fit(record[key], size) for key, size in sizes.items()}}


def fit(array: np.ndarray, size: int | Fit) -> np.ndarray:
    """Makes an image [size, size, c], as CLIP does or as the Fit says.

    CLIP resizes the short side and cuts the centre. 8-bit images are resized by Pillow
    and equal open_clip's pixel for pixel.
    """
    size, how = fit_of(size).size, fit_of(size).resize
    h, w = array.shape[:2]
    if (h, w) == (size, size) and how.side in (0, size):
        return array
    height, width = resized_shape(h, w, how.side or size, how.mode)
    array = resize(array, height, width, exact=True, interpolation=how.interpolation)
    return cut_centre(array, size, how) if (height, width) != (size, size) else array


def resized_shape(h: int, w: int, side: int, mode: str) -> tuple[int, int]:
    """(height, width) to which a mode of Resize resizes h x w pixels."""
    if mode == "squash":
        return side, side
    if mode == "longest":  # in open_clip's floats, which are rounded
        ratio = max(h / side, w / side)
        return max(round(h / ratio), 1), max(round(w / ratio), 1)
    # whole numbers: a float scale may be a pixel short of torchvision's long side
    return h * side // min(h, w), w * side // min(h, w)


def cut_centre(array: np.ndarray, size: int, how: Resize) -> np.ndarray:
    """The centre [size, size, c], filled up where the array is smaller."""
    missing = [max(size - length, 0) for length in array.shape[:2]]
    if any(missing):
        margins = [(m // 2, m - m // 2) for m in missing]
        array = np.pad(array, [*margins, (0, 0)], constant_values=how.fill)
    top, left = (_offset(length, size, how) for length in array.shape[:2])
    return np.ascontiguousarray(array[top : top + size, left : left + size])


def _offset(length: int, size: int, how: Resize) -> int:
    """Where the centre of this size begins."""
    extra = length - size
    return extra // 2 if how.like == "transformers" else round(extra / 2)


def fit_picture(picture: Image.Image, size: int | Fit) -> np.ndarray:
    """fit of Pillow's picture of any mode of 8 bits or less: uint8 RGB [size, size, 3].

    It is resized in its own mode where the library that is followed does so.
    """
    size, how = fit_of(size).size, fit_of(size).resize
    if how.like == "transformers":
        return fit(np.array(_on_white(picture)), Fit(size, how))
    height, width = resized_shape(
        picture.height, picture.width, how.side or size, how.mode
    )
    resized = picture.resize((width, height), INTERPOLATIONS[how.interpolation])
    tall, wide = max(height, size), max(width, size)
    if (tall, wide) != (height, width):
        resized = _filled(resized, wide, tall, how.fill)
    left, top = _offset(wide, size, how), _offset(tall, size, how)
    cut_out = resized.crop((left, top, left + size, top + size))
    return np.array(cut_out.convert("RGB"))


def _on_white(picture: Image.Image) -> Image.Image:
    """The picture in RGB, what is transparent white."""
    if "A" not in picture.getbands() and "transparency" not in picture.info:
        return picture.convert("RGB")
    picture = picture.convert("RGBA")
    white = Image.new("RGBA", picture.size, (255, 255, 255, 255))
    return Image.alpha_composite(white, picture).convert("RGB")


def _filled(picture: Image.Image, width: int, height: int, fill: int) -> Image.Image:
    """The picture amid one of a single value; of a palette, an index."""
    bands = len(picture.getbands())
    value = fill if bands == 1 else (fill,) * bands
    canvas = Image.new(picture.mode, (width, height), value)
    if picture.palette is not None:
        canvas.putpalette(picture.palette)
    left, top = (width - picture.width) // 2, (height - picture.height) // 2
    canvas.paste(picture, (left, top))
    return canvas


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

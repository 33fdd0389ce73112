"""Fits images to a tower's input, as the CLIP's own library does it."""

import dataclasses
from collections.abc import Mapping

import numpy as np
from PIL import Image

from rsclip_jax.data.pipeline.geometry import INTERPOLATIONS, resize

LIBRARIES = ("open_clip", "transformers")
MODES = ("shortest", "longest", "squash")


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

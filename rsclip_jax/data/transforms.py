"""Crops, flips and resizes, drawn once a record and applied to its sensors alike.

And what changes values, drawn for each sensor by its kind: colour, speckle, bands.
"""

import dataclasses
import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import cv2
import numpy as np
from PIL import Image

from rsclip_jax.data.sensors import Sensor

_ROTATIONS = (
    cv2.ROTATE_90_COUNTERCLOCKWISE,
    cv2.ROTATE_180,
    cv2.ROTATE_90_CLOCKWISE,
)


@dataclasses.dataclass(frozen=True)
class Augment:
    """What training does to a record. crop_scale: area range of a random resized crop.

    crop_pixels > 0 cuts a square of that many pixels at a random place instead (for
    large tiles whose pixel size must be kept; a smaller image is an error). flip_ud and
    rotate (quarter turns) are for images without an up side; with flip_lr they make the
    square's whole symmetry.

    jitter, grey, blur act on RGB pictures only. speckle_looks > 0 (multiplicative noise
    of that many looks) and sar_gain_db (an offset of at most that, one an image) act on
    radar in dB; band_dropout, a probability for each band, on sensors of more than
    three bands that are not radar. Raises ValueError, "augment.<key> = ...", for a
    value out of its range.
    """

    crop_scale: tuple[float, float] = (1.0, 1.0)
    crop_pixels: int = 0
    flip_lr: bool = True
    flip_ud: bool = False
    rotate: bool = False
    jitter: float = 0.0
    jitter_prob: float = 0.8
    grey_prob: float = 0.0
    blur_prob: float = 0.0
    speckle_looks: float = 0.0
    sar_gain_db: float = 0.0
    band_dropout: float = 0.0

    def __post_init__(self):
        low, high = self.crop_scale if len(self.crop_scale) == 2 else (0, 0)
        shares = ("jitter", "jitter_prob", "grey_prob", "blur_prob")
        looks = self.speckle_looks
        for key, fits, wanted in (
            (
                "crop_scale",
                0 < low <= high <= 1,
                "(least, most), 0 < least <= most <= 1",
            ),
            ("crop_pixels", self.crop_pixels >= 0, "0 (off) or more"),
            *((key, 0 <= getattr(self, key) <= 1, "between 0 and 1") for key in shares),
            ("speckle_looks", looks == 0 or looks >= 1, "0 (off), or 1 look or more"),
            ("sar_gain_db", 0 <= self.sar_gain_db < np.inf, "0 dB (off) or more"),
            ("band_dropout", 0 <= self.band_dropout < 1, "0 (off) or more, below 1"),
        ):
            if not fits:
                raise ValueError(
                    f"augment.{key} = {getattr(self, key)!r} should be {wanted}"
                )


def check_augment(augment: Augment, sensors: Iterable[Sensor]) -> None:
    """Raises ValueError for what would change nothing in any of these sensors.

    Speckle of an 8-bit picture of radar is refused so, too: the stretch that made the
    picture is not known, and without it neither is the noise in its grey levels.
    """
    sensors = list(sensors)
    kinds: dict[str, tuple[Any, str]] = {
        "jitter": (is_rgb, "RGB pictures"),
        "grey_prob": (is_rgb, "RGB pictures"),
        "blur_prob": (is_rgb, "RGB pictures"),
        "speckle_looks": (is_decibel, "radar in dB"),
        "sar_gain_db": (is_decibel, "radar in dB"),
        "band_dropout": (is_multispectral, "more than three bands, not of radar"),
    }
    for key, (kind, words) in kinds.items():
        value = getattr(augment, key)
        if value and not any(map(kind, sensors)):
            read = ", ".join(f"{s.name} ({len(s.bands)} x {s.unit})" for s in sensors)
            raise ValueError(
                f"augment.{key} = {value!r} acts on {words}, and none is read:"
                f" {read}; set it to 0"
            )


def check_crop(augment: Augment, shape: tuple[int, ...], where: str) -> None:
    """Raises ValueError where crop_pixels is more than an image of [h, w, ...] has.

    where: what the image is called.
    """
    if augment.crop_pixels > min(shape[:2]):
        raise ValueError(
            f"augment.crop_pixels = {augment.crop_pixels} is more than {where} has,"
            f" {shape[0]} x {shape[1]} pixels: set it to {min(shape[:2])} or less, or"
            " to 0, which resizes whole images"
        )


def is_rgb(sensor: Sensor) -> bool:
    """Whether a sensor's images are RGB pictures."""
    return sensor.unit == "8-bit" and sensor.bands == ("R", "G", "B")


def is_decibel(sensor: Sensor) -> bool:
    """Whether a sensor is radar, its backscatter in dB."""
    return sensor.unit == "dB"


def is_multispectral(sensor: Sensor) -> bool:
    """Whether a sensor has more bands than a picture, all of light (so no radar)."""
    return len(sensor.bands) > 3 and not any(map(math.isnan, sensor.wavelengths))


def augment_record(
    record: dict,
    rng: np.random.Generator,
    *,
    sizes: dict[str, int],
    sensors: Mapping[str, Sensor],
    augment: Augment,
    places: Mapping[str, np.ndarray] | None = None,
) -> dict:
    """The record with each sensor cut, flipped and turned alike, to its square size.

    sensors: of each key of sizes its row, which says what may be done to its values;
    its mean is the one that the encoder subtracts. Of record["teacher"], features by
    view, those of the view that was drawn are taken. places: where the results may be
    written, by key; what comes out is that array, or another where it cannot be.
    """
    first = record[next(iter(sizes))]
    check_crop(augment, first.shape, record.get("id", "the image"))
    crop = draw_crop(rng, first.shape[:2], augment)
    turned = draw_turn(rng, augment)
    out = dict(record)
    for key, size in sizes.items():
        array, sensor = record[key], sensors[key]
        if not is_whole(augment):
            array = cut(array, crop, first.shape[:2])
        if is_decibel(sensor):  # speckle is of the sensor's own pixels: before resizing
            array = vary_backscatter(array, rng, augment)
        elif is_multispectral(sensor):
            array = drop_bands(array, sensor, rng, augment)
        array = turn_to_size(array, size, *turned, out=(places or {}).get(key))
        out[key] = photometric(array, rng, augment) if is_rgb(sensor) else array
    if "teacher" in record:
        out["teacher"] = record["teacher"][number_view(*turned)]
    return out


def draw_turn(rng: np.random.Generator, augment: Augment) -> tuple[bool, bool, int]:
    """(flip_y, flip_x, quarter turns) of a record."""
    up, left = (rng.random(2) < 0.5).tolist()
    turns = int(rng.integers(4)) if augment.rotate else 0
    return augment.flip_ud and up, augment.flip_lr and left, turns


def number_view(flip_y: bool, flip_x: bool, quarters: int) -> int:
    """Which of the square's eight views it is: quarters, and 4 more if flipped first.

    A flip up-down is one left-right and a half turn.
    """
    return (quarters + 2 * flip_y) % 4 + 4 * (flip_x != flip_y)


def is_whole(augment: Augment) -> bool:
    """Whether records are not cut."""
    return not augment.crop_pixels and augment.crop_scale == (1.0, 1.0)


def possible_views(augment: Augment) -> tuple[int, ...]:
    """The views, as number_view has them, that RGB pictures can be seen in.

    Raises ValueError for settings that make more of a picture than these.
    """
    off = {"crop_scale": (1.0, 1.0), "crop_pixels": 0, "jitter": 0.0}
    off |= {"grey_prob": 0.0, "blur_prob": 0.0}
    changing = [key for key in off if getattr(augment, key) != off[key]]
    if changing:
        found = ", ".join(f"{key} = {getattr(augment, key)!r}" for key in changing)
        needed = ", ".join(f"{key} = {off[key]!r}" for key in changing)
        raise ValueError(
            f"augment has {found}, and so draws ever new images, not one of eight"
            f" views; that needs {needed}"
        )
    ways = itertools.product(
        {False, augment.flip_ud},
        {False, augment.flip_lr},
        range(4) if augment.rotate else (0,),
    )
    return tuple(sorted({number_view(*way) for way in ways}))


def make_views(array: np.ndarray, size: int, views: Sequence[int]) -> np.ndarray:
    """[v, size, size, c]: an image in these views, as augment_record makes them."""
    return np.stack([turn_to_size(array, size, False, v >= 4, v % 4) for v in views])


def turn_to_size(
    array: np.ndarray,
    size: int,
    flip_y: bool,
    flip_x: bool,
    quarters: int,
    out: np.ndarray | None = None,
) -> np.ndarray:
    """turn and resize to [size, size, c]; out: as resize has it."""
    if array.shape[0] == array.shape[1] < size:  # turned while it is small
        return resize(turn(array, flip_y, flip_x, quarters), size, out=out)
    return turn(resize(array, size), flip_y, flip_x, quarters)


def cut(
    array: np.ndarray, crop: tuple[int, int, int, int], shape: tuple[int, int]
) -> np.ndarray:
    """The ground of a crop, in pixels of a sensor of that shape, in another sensor."""
    top, left, side_h, side_w = crop
    scale = array.shape[0] / shape[0]
    y0, y1 = _span(top, side_h, scale, array.shape[0])
    x0, x1 = _span(left, side_w, scale, array.shape[1])
    return array[y0:y1, x0:x1]


def _span(start: int, side: int, scale: float, length: int) -> tuple[int, int]:
    """A crop's first pixel and one past its last, at another pixel size; never none."""
    first = min(round(start * scale), length - 1)
    return first, max(round((start + side) * scale), first + 1)


def draw_crop(rng, shape: tuple[int, int], augment: Augment):
    """(top, left, height, width) of a random crop, in pixels of the first sensor."""
    h, w = shape
    if augment.crop_pixels:
        side_h = side_w = augment.crop_pixels
    elif is_whole(augment):
        return 0, 0, h, w
    else:
        area = rng.uniform(*augment.crop_scale)
        ratio = np.exp(rng.uniform(np.log(3 / 4), np.log(4 / 3)))
        side_h = min(h, max(1, round(h * np.sqrt(area / ratio))))
        side_w = min(w, max(1, round(w * np.sqrt(area * ratio))))
    top = int(rng.integers(h - side_h + 1))
    left = int(rng.integers(w - side_w + 1))
    return top, left, side_h, side_w


def fit_record(record: dict, *, sizes: dict[str, int]) -> dict:
    """The record with each sensor's short side resized to its size, the centre cut."""
    return {**record, **{key: fit(record[key], size) for key, size in sizes.items()}}


def fit(array: np.ndarray, size: int) -> np.ndarray:
    """Short side to size, then the centre: [size, size, c] (CLIP's preprocessing).

    8-bit images are resized by Pillow, pixel for pixel what open_clip makes of them.
    """
    h, w = array.shape[:2]
    if (h, w) == (size, size):
        return array
    if h != w:
        # whole numbers: a float scale falls a pixel short of torchvision's long side
        long_h, long_w = h * size // min(h, w), w * size // min(h, w)
        array = resize(array, long_h, long_w, exact=True)
        # torchvision's centre crop, which CLIP's preprocessing uses, rounds the offset
        top = round((array.shape[0] - size) / 2)
        left = round((array.shape[1] - size) / 2)
        return np.ascontiguousarray(array[top : top + size, left : left + size])
    return resize(array, size, exact=True)


def resize(
    array: np.ndarray,
    height: int,
    width: int | None = None,
    *,
    exact: bool = False,
    out: np.ndarray | None = None,
) -> np.ndarray:
    """[h, w, c] to [height, width, c], same dtype: bicubic, antialiased when shrinking.

    OpenCV's bicubic does not antialias, so it only enlarges, four times as fast as
    Pillow; 8-bit images shrink with Pillow, CLIP's own way, and measurements by area,
    which keeps their mean. exact: Pillow enlarges 8-bit images too; the two cubics'
    parameters differ (-0.75 and -0.5), by a few grey levels. out: written to, and
    returned, when OpenCV enlarges into an array of this shape and dtype.
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
        out = np.asarray(image.resize((width, height), Image.Resampling.BICUBIC))
        return out.reshape(height, width, c)
    return _resize_bands(array, height, width, cv2.INTER_AREA)


def _resize_bands(
    array: np.ndarray,
    height: int,
    width: int,
    interpolation: int,
    out: np.ndarray | None = None,
) -> np.ndarray:
    """cv2.resize of any number of bands: it takes four at a time."""
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

    OpenCV is many times faster than numpy's strided copy, but takes four bands at most;
    of more, numpy moves whole pixels, not each band's number.
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


def photometric(
    rgb: np.ndarray, rng: np.random.Generator, augment: Augment
) -> np.ndarray:
    """Colour jitter (brightness, contrast, saturation), grey and blur of uint8 RGB."""
    if augment.jitter and rng.random() < augment.jitter_prob:
        low, high = 1 - augment.jitter, 1 + augment.jitter
        bright, contrast, saturation = rng.uniform(low, high, 3)
        rgb = jitter_colour(rgb, bright, contrast, saturation)
    if augment.grey_prob and rng.random() < augment.grey_prob:
        grey = cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)
        rgb = cv2.cvtColor(grey, cv2.COLOR_GRAY2RGB)
    if augment.blur_prob and rng.random() < augment.blur_prob:
        rgb = cv2.GaussianBlur(rgb, (0, 0), float(rng.uniform(0.1, 2.0)))
    return rgb


_LEAST_SPECKLE = np.float32(1e-5)  # -50 dB: a draw can be 0, which has no logarithm


def vary_backscatter(
    decibel: np.ndarray, rng: np.random.Generator, augment: Augment
) -> np.ndarray:
    """Radar backscatter in dB with speckle, pixel by pixel, and one offset for all.

    Speckle multiplies intensity by draws of a gamma distribution of mean 1 and variance
    1 / looks (Goodman's fully developed speckle). The offset is the same in all bands:
    what radars differ in, and the ratio of the polarisations stays, which tells plants
    from water.
    """
    if looks := augment.speckle_looks:
        draws = rng.standard_gamma(looks, decibel.shape, np.float32)
        np.maximum(draws, _LEAST_SPECKLE, out=draws)
        np.log10(draws, out=draws)
        draws *= 10
        draws -= np.float32(10 * np.log10(looks))
        decibel = draws + decibel
    if gain := augment.sar_gain_db:
        decibel = decibel + decibel.dtype.type(rng.uniform(-gain, gain))
    return decibel


def drop_bands(
    array: np.ndarray, sensor: Sensor, rng: np.random.Generator, augment: Augment
) -> np.ndarray:
    """Some bands replaced by the sensor's mean, which its encoder sees as zero.

    A mean that the array's dtype does not hold becomes its nearest value. At least one
    band stays.
    """
    if not augment.band_dropout:
        return array
    dropped = rng.random(len(sensor.bands)) < augment.band_dropout
    if dropped.all():
        dropped[rng.integers(len(dropped))] = False
    if not dropped.any():
        return array
    array, mean = array.copy(), np.asarray(sensor.mean)[dropped]
    if np.issubdtype(array.dtype, np.integer):
        held = np.iinfo(array.dtype)
        mean = np.clip(np.rint(mean), held.min, held.max)
    array[..., dropped] = mean.astype(array.dtype)
    return array


def jitter_colour(
    rgb: np.ndarray, bright: float, contrast: float, saturation: float
) -> np.ndarray:
    """Brightness, then contrast about the image's mean, then saturation, of uint8 RGB.

    The three are one affine map of a pixel's colour, which OpenCV applies in one pass.
    """
    scale = bright * contrast
    matrix = np.full((3, 4), scale * (1 - saturation) / 3)
    matrix[:, :3] += scale * saturation * np.eye(3)
    matrix[:, 3] = (1 - contrast) * bright * np.mean(cv2.mean(rgb)[:3])
    return cv2.transform(rgb, matrix)

"""What training does to a record: the settings, and what they can act on."""

import dataclasses
import itertools
import math
from collections.abc import Iterable
from typing import Any

import numpy as np

from rsclip_jax.data.pipeline.geometry import number_view
from rsclip_jax.data.sensors import Sensor


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

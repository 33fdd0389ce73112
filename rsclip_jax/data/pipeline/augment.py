"""Settings of the augmentation, and checks of what they act on."""

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
    """How training records are augmented. Raises ValueError for values out of range.

    Attributes:
      crop_scale: range of the area of a random resized crop, as shares of the image.
      crop_pixels: where above 0, the side of a square that is cut at a random position
        instead, for large tiles whose pixel size must be kept.
      flip_lr: whether to flip left-right, in half of the records.
      flip_ud: the same up-down, for images seen from above.
      rotate: whether to turn by quarters, for images seen from above.
      jitter: strength of colour jitter; RGB images only, as the next three.
      jitter_prob: its probability.
      grey_prob: probability of greyscale.
      blur_prob: probability of a Gaussian blur.
      speckle_looks: where above 0, multiplicative noise of that many looks; radar in dB
        only.
      sar_gain_db: the largest offset of an image; radar in dB only.
      band_dropout: each band's probability of being dropped; sensors with more than
        three bands that are not radar only.
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
    """Raises ValueError for settings that act on none of these sensors.

    Speckle does not act on 8-bit radar images: without their stretch, the noise in
    their grey levels is not known.
    """
    sensors = list(sensors)
    kinds: dict[str, tuple[Any, str]] = {
        "jitter": (is_rgb, "RGB images"),
        "grey_prob": (is_rgb, "RGB images"),
        "blur_prob": (is_rgb, "RGB images"),
        "speckle_looks": (is_decibel, "radar in dB"),
        "sar_gain_db": (is_decibel, "radar in dB"),
        "band_dropout": (is_multispectral, "more than three optical bands"),
    }
    for key, (kind, words) in kinds.items():
        value = getattr(augment, key)
        if value and not any(map(kind, sensors)):
            read = ", ".join(f"{s.name} ({len(s.bands)} x {s.unit})" for s in sensors)
            raise ValueError(
                f"augment.{key} = {value!r} acts only on {words}, but the sensors are"
                f" {read}; set it to 0"
            )


def check_crop(augment: Augment, shape: tuple[int, ...], where: str) -> None:
    """Raises ValueError where crop_pixels exceeds an image of shape [h, w, ...].

    where: the image's name for the message.
    """
    if augment.crop_pixels > min(shape[:2]):
        raise ValueError(
            f"augment.crop_pixels = {augment.crop_pixels} exceeds {where}, which has"
            f" {shape[0]} x {shape[1]} pixels: set it to {min(shape[:2])} or less, or"
            " to 0, which resizes whole images"
        )


def is_rgb(sensor: Sensor) -> bool:
    """Whether a sensor's images are 8-bit RGB."""
    return sensor.unit == "8-bit" and sensor.bands == ("R", "G", "B")


def is_decibel(sensor: Sensor) -> bool:
    """Whether a sensor is radar with backscatter in dB."""
    return sensor.unit == "dB"


def is_multispectral(sensor: Sensor) -> bool:
    """Whether a sensor has more than three bands, all of them optical."""
    return len(sensor.bands) > 3 and not any(map(math.isnan, sensor.wavelengths))


def is_whole(augment: Augment) -> bool:
    """Whether records are not cropped."""
    return not augment.crop_pixels and augment.crop_scale == (1.0, 1.0)


def possible_views(augment: Augment) -> tuple[int, ...]:
    """The views (see number_view) that the settings make of an RGB image.

    Raises ValueError for settings with random crops or changes of colour.
    """
    off = {"crop_scale": (1.0, 1.0), "crop_pixels": 0, "jitter": 0.0}
    off |= {"grey_prob": 0.0, "blur_prob": 0.0}
    changing = [key for key in off if getattr(augment, key) != off[key]]
    if changing:
        found = ", ".join(f"{key} = {getattr(augment, key)!r}" for key in changing)
        needed = ", ".join(f"{key} = {off[key]!r}" for key in changing)
        raise ValueError(
            f"augment has {found}: random crops and colour changes cannot be cached"
            f" (unbounded views); set {needed}"
        )
    ways = itertools.product(
        {False, augment.flip_ud},
        {False, augment.flip_lr},
        range(4) if augment.rotate else (0,),
    )
    return tuple(sorted({number_view(*way) for way in ways}))

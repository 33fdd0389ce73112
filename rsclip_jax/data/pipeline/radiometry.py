"""Radiometric augmentation by kind of sensor: colour, speckle, gain, band dropout."""

import cv2
import numpy as np

from rsclip_jax.data.pipeline.augment import Augment
from rsclip_jax.data.sensors import Sensor

_LEAST_SPECKLE = np.float32(1e-5)  # -50 dB: a draw may be 0, which has no logarithm


def photometric(
    rgb: np.ndarray, rng: np.random.Generator, augment: Augment
) -> np.ndarray:
    """Colour jitter, greyscale and blur of uint8 RGB, each drawn by its probability."""
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


def jitter_colour(
    rgb: np.ndarray, bright: float, contrast: float, saturation: float
) -> np.ndarray:
    """Changes brightness, contrast about the image's mean and saturation of uint8 RGB.

    Together they are an affine map of a pixel's colour, which OpenCV applies in one
    pass.
    """
    scale = bright * contrast
    matrix = np.full((3, 4), scale * (1 - saturation) / 3)
    matrix[:, :3] += scale * saturation * np.eye(3)
    matrix[:, 3] = (1 - contrast) * bright * np.mean(cv2.mean(rgb)[:3])
    return cv2.transform(rgb, matrix)


def vary_backscatter(
    decibel: np.ndarray, rng: np.random.Generator, augment: Augment
) -> np.ndarray:
    """Adds speckle to each pixel of radar backscatter in dB, and one offset to all.

    Speckle multiplies intensity by draws of a gamma distribution with mean 1 and
    variance 1 / looks (Goodman's fully developed speckle). The offset is equal in all
    bands, as calibration differences between radars are; it keeps the ratio of the
    polarisations, which separates plants from water.
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
    """Replaces random bands by the sensor's mean, which its encoder sees as zero.

    At least one band stays. A mean is rounded to the array's dtype.
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

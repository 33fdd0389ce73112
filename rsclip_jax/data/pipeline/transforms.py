"""A training record's transforms, drawn once and applied to all its sensors."""

from collections.abc import Mapping

import numpy as np

from rsclip_jax.data.pipeline.augment import (
    Augment,
    check_crop,
    is_decibel,
    is_multispectral,
    is_rgb,
    is_whole,
)
from rsclip_jax.data.pipeline.geometry import cut, number_view, turn_to_size
from rsclip_jax.data.pipeline.radiometry import (
    drop_bands,
    photometric,
    vary_backscatter,
)
from rsclip_jax.data.sensors import Sensor


def augment_record(
    record: dict,
    rng: np.random.Generator,
    *,
    sizes: dict[str, int],
    sensors: Mapping[str, Sensor],
    augment: Augment,
    out: Mapping[str, np.ndarray] | None = None,
) -> dict:
    """Crops, flips and turns all sensors of a record alike, and resizes them.

    Args:
      record: the images [h, w, c] by key. record["teacher"] may hold features by view.
      rng: draws the crop, the view and the changes of values.
      sizes: record key -> side of the square result in pixels.
      sensors: each key's sensor, which decides how its values are augmented; its mean
        is the one that the encoder subtracts.
      augment: the settings.
      out: buffers that results are written to where they fit, by key.

    Returns:
      The record with new images; "teacher" has the features of the view drawn.

    Raises:
      ValueError: where crop_pixels exceeds the image.
    """
    first = record[next(iter(sizes))]
    check_crop(augment, first.shape, record.get("id", "the image"))
    crop = draw_crop(rng, first.shape[:2], augment)
    turned = draw_turn(rng, augment)
    made = dict(record)
    for key, size in sizes.items():
        array, sensor = record[key], sensors[key]
        if not is_whole(augment):
            array = cut(array, crop, first.shape[:2])
        if is_decibel(sensor):  # before resizing: speckle is in the sensor's own pixels
            array = vary_backscatter(array, rng, augment)
        elif is_multispectral(sensor):
            array = drop_bands(array, sensor, rng, augment)
        array = turn_to_size(array, size, *turned, out=(out or {}).get(key))
        made[key] = photometric(array, rng, augment) if is_rgb(sensor) else array
    if "teacher" in record:
        made["teacher"] = record["teacher"][number_view(*turned)]
    return made


def draw_turn(rng: np.random.Generator, augment: Augment) -> tuple[bool, bool, int]:
    """Draws a record's (flip_y, flip_x, quarter turns)."""
    up, left = (rng.random(2) < 0.5).tolist()
    turns = int(rng.integers(4)) if augment.rotate else 0
    return augment.flip_ud and up, augment.flip_lr and left, turns


def draw_crop(rng, shape: tuple[int, int], augment: Augment):
    """Draws a crop's (top, left, height, width), in pixels of the first sensor."""
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

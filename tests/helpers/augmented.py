"""Augmentations of single records, and arrays that show where each pixel came from."""

import numpy as np

from rsclip_jax.data.pipeline.augment import Augment
from rsclip_jax.data.pipeline.transforms import augment_record
from rsclip_jax.data.sensors import SENSORS

STILL = Augment(flip_lr=False)
SYMMETRY = Augment(flip_lr=True, flip_ud=True, rotate=True)


def ground(size, pixel=1.0, dtype=np.float32):
    """[size, size, 2]: the y and x of each pixel's centre on the ground."""
    axis = (np.arange(size) + 0.5) * pixel
    return np.stack(np.meshgrid(axis, axis, indexing="ij"), -1).astype(dtype)


def noise(*shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


ROWS = {"rgb": "rgb", "s1": "s1_grd", "s2": "s2_l1c", "ir": "ir_bt"}
SENSOR_OF = {key: SENSORS[name] for key, name in ROWS.items()}


def run(record, seed, augment, sizes, sensors=SENSOR_OF):
    rng = np.random.default_rng(seed)
    return augment_record(record, rng, sizes=sizes, sensors=sensors, augment=augment)

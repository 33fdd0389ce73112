"""Feature caches of a linear teacher over random pictures."""

import numpy as np

from rsclip_jax.data.types import Dataset, ReadOptions, Source
from rsclip_jax.train.feature_cache import Reading, open_taught

SIZE, DIM = 12, 5
WEIGHTS = np.random.default_rng(0).normal(size=(SIZE * SIZE * 3, DIM))
TEACHER = {"digest": "1a", "activation": "gelu", "image_mean": (0.1, 0.2, 0.3)}


class Pictures(Source):
    """n random pictures, and radar of the same place; some cannot be read."""

    split = "train"

    def __init__(self, n=20, *, broken=(), seed=0, name="pictures"):
        rows = {"rgb": "rgb", "s1": "s1_grd"}
        self.dataset = Dataset(name, "folders", "none", rows)
        self.ids = [f"train/{i}" for i in range(n)]
        self.broken, self.seed, self.read_keys = set(broken), seed, []

    def read(self, index, keys):
        self.read_keys.append(tuple(keys))
        if index in self.broken:
            raise ValueError(f"picture {index} is broken")
        rng = np.random.default_rng((self.seed, index))
        rgb = rng.integers(0, 256, (SIZE, SIZE, 3), np.uint8)
        s1 = np.full((4, 4, 2), -index, np.float32)
        return {"id": self.ids[index], "label": -1, "rgb": rgb, "s1": s1}


class Encoder:
    """A linear map of the pixels, which counts what it sees."""

    def __init__(self, scale=1.0):
        self.count, self.scale = 0, scale

    def __call__(self, pictures):
        self.count += len(pictures)
        flat = pictures.reshape(len(pictures), -1) / 255.0
        return (self.scale * flat @ WEIGHTS).astype(np.float32)


def taught(folder, source=None, encode=None, **changes):
    """open_taught of Pictures() in all views, but for the changes."""
    reading = {k: changes.pop(k) for k in ("log",) if k in changes}
    options = ReadOptions(24, on_error=changes.pop("on_error", "raise"))
    told = {"teacher": TEACHER, "size": SIZE, "dim": DIM, "views": range(8)}
    return open_taught(
        folder,
        source or Pictures(),
        encode or Encoder(),
        **{**told, **changes},
        reading=Reading(("rgb", "s1"), options, **reading),
    )

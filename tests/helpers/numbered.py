"""Sources whose records hold their own number, and training batches of them."""

import itertools
import json

import numpy as np

from rsclip_jax.data.pipeline.augment import Augment
from rsclip_jax.data.pipeline.batches import eval_batches, train_batches
from rsclip_jax.data.types import Dataset, ReadOptions, Source

STILL = Augment(flip_lr=False)
FULL = Augment(
    crop_scale=(0.3, 1.0),
    flip_ud=True,
    rotate=True,
    jitter=0.4,
    grey_prob=0.2,
    blur_prob=0.4,
    speckle_looks=4,
    sar_gain_db=1,
    band_dropout=0.2,
)
SYMMETRY = Augment(crop_scale=(0.3, 1.0), flip_ud=True, rotate=True)
SIZES = {"rgb": 6, "s1": 6}
ROWS = {"rgb": "rgb", "s1": "s1_grd"}


class Numbers(Source):
    """n records whose first pixel is their number; label: the number modulo classes."""

    split = "train"

    def __init__(self, n, *, first=0, classes=3, broken=(), template="{c}"):
        names = tuple(f"class {i}" for i in range(classes))
        told = ("numbers", "folders", "single", ROWS, names, names, (template,))
        self.dataset = Dataset(*told)
        self.n, self.first, self.broken = n, first, broken
        self.ids = [f"train/{i}" for i in range(n)]

    def __getitem__(self, index):
        if index in self.broken:
            raise ValueError(f"number {index} is broken")
        number = self.first + index
        return {
            "id": self.ids[index],
            "label": index % len(self.dataset.classes) if self.dataset.classes else -1,
            "rgb": np.full((6, 6, 3), number, np.uint8),
            "s1": np.full((6, 6, 2), -number / 7, np.float32),
        }


class Pictures(Numbers):
    """The same with random pictures, on which every augmentation shows."""

    def __getitem__(self, index):
        rng = np.random.default_rng(index)
        return {
            **super().__getitem__(index),
            "rgb": rng.integers(0, 256, (12, 12, 3), np.uint8),
            "s1": rng.normal(-12, 5, (12, 12, 2)).astype(np.float32),
        }


def split_options(batch_size=4, **options):
    """(ReadOptions, the other options) of keyword options."""
    names = ("threads", "on_error", "skipped")
    told = {name: options.pop(name) for name in names if name in options}
    return ReadOptions(batch_size, **told), options


def batches_of(*sources, augment=STILL, seed=0, sizes=SIZES, **options):
    reading, options = split_options(**options)
    return train_batches(
        sources,
        sizes=sizes,
        options=reading,
        augment=augment,
        seed=seed,
        **options,
    )


class Deadly(Numbers):
    """One of its records raises what it is told to, whatever that is."""

    def __init__(self, n, error, *, at=17):
        super().__init__(n)
        self.error, self.at = error, at

    def __getitem__(self, index):
        if index == self.at:
            raise self.error
        return super().__getitem__(index)


def evaluate(source, sizes=SIZES, **options):
    reading, _ = split_options(**options)
    return eval_batches(source, sizes=sizes, options=reading)


def take(n, batches):
    return list(itertools.islice(batches, n))


def numbers(batches):
    return np.concatenate([b["rgb"][:, 0, 0, 0] for b in batches]).tolist()


def assert_same(first, second):
    assert len(first) == len(second)
    for a, b in zip(first, second, strict=True):
        assert a.keys() == b.keys()
        for key in a:
            assert a[key].dtype == b[key].dtype
            np.testing.assert_array_equal(a[key], b[key])


def resume(start, stop):
    """The eight batches after `stop`, which a state from there gives again."""
    straight = start()
    take(stop, straight)
    state = json.loads(json.dumps(straight.get_state()))
    after = take(8, straight)
    resumed = start()
    resumed.set_state(state)
    assert_same(take(8, resumed), after)
    return after

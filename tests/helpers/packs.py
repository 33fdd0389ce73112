"""Packs made of archives, and the comparison of a pack with its archive."""

import functools
import hashlib
import itertools

import numpy as np
from PIL import Image

from rsclip_jax.data.catalog.classes import STL10_NAMES
from rsclip_jax.data.datasets import open_source
from rsclip_jax.data.pack.write import pack_source, write_all
from rsclip_jax.data.sources.digests import split_digest
from rsclip_jax.data.sources.packed import open_packed
from tests.helpers.pack_sources import ROW


def assert_same_record(found, want):
    assert found.keys() == want.keys()  # a pack has sensors in its dataset's order
    for key, value in want.items():
        if isinstance(value, np.ndarray):
            assert found[key].dtype == value.dtype
            np.testing.assert_array_equal(found[key], value)
        else:
            assert found[key] == value


def assert_same_source(found, want):
    assert found.dataset == want.dataset
    assert found.split == want.split
    assert found.ids == want.ids
    assert len(found) == len(want) == len(want.ids)
    assert split_digest(found) == split_digest(want)
    assert found.split_rule == want.split_rule
    for i in range(len(want)):
        assert_same_record(found[i], want[i])


def open_numbers(folder, split="train"):
    return open_packed(ROW, folder, split)


def shards_of(folder):
    return sorted((folder / "numbers" / "train").glob("*.array_record"))


def shas(folder):
    return [hashlib.sha256(p.read_bytes()).hexdigest() for p in shards_of(folder)]


def pack_archive(name, root, out, splits=("train", "val", "test"), **options):
    """What stage pack does, for the archive in root."""

    def opener(split):
        return functools.partial(open_source, name, root, split, packed=False)

    def half(split):
        try:
            return opener(f"{split}[:50%]")().ids
        except ValueError:
            return None

    for split in splits:
        pack_source(
            opener(split)(),
            opener(split),
            out / name / split,
            half=half(split),
            provenance={},
            **{"shard_mb": 0.002, **options},
        )
    return write_all(opener("all")(), half("all"), out / name)


def save(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)


def noise(seed, *shape):
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def make_archive(layout, root):
    """An archive without split folders, with them, or of pairs; its dataset's name."""
    if layout == "pairs":
        for split, i in itertools.product(("train", "val"), range(12)):
            folder = root / "sentinel_pairs" / split
            save(folder / "s2_rgb" / f"{i}.png", noise(i, 8, 8, 3))
            save(folder / "s1_vh" / f"{i}.png", noise(100 + i, 8, 8))
        return "sentinel_pairs", ("train", "val")
    tops = ("train", "val") if layout == "split folders" else ("",)
    for top, name, i in itertools.product(tops, STL10_NAMES, range(8)):
        save(root / "STL-10" / top / name / f"{i}.png", noise(i, 5, 4, 3))
    return "stl10", tops if tops[0] else ("train", "val", "test")

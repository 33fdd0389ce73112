"""The miniature: synthetic co-registered scenes as several sensors see them.

Everything is drawn from a seed, so the whole method runs without a download. A scene
is a map of land-cover fractions, drawn with anti-aliased shapes, over fields of height,
moisture and roughness. All sensors are rendered from that map (sensing.py), so they are
co-registered and differ only by their physics.
"""

from collections.abc import Sequence

import numpy as np

from rsclip_jax.data.miniature.covers import CLASSES, draw_covers, draw_mosaic
from rsclip_jax.data.miniature.natural import NATURAL_CLASSES, draw_natural
from rsclip_jax.data.miniature.sensing import make_world, sense_aerial, sense_satellite
from rsclip_jax.data.types import Record

__all__ = ["CLASSES", "NATURAL_CLASSES", "SIZES", "SPLITS", "VIEWS", "open_miniature"]


VIEWS = ("miniature", "miniature_multi", "miniature_aerial", "miniature_natural")
SPLITS = ("train", "val", "test", "all")
SIZES = {view: {"train": 3000, "val": 500, "test": 1000} for view in VIEWS}
SIZES["miniature_multi"]["train"] = 2000  # mosaics take longer to draw
_BLOCK = 100  # scenes drawn at once: their arrays fit the processor's caches


def _make_block(view: str, rng, n: int, size: int) -> dict[str, np.ndarray]:
    """Arrays of n scenes of a view by record key; classes have equal numbers."""
    labels = rng.permutation(np.arange(n) % len(CLASSES))
    if view == "miniature_natural":
        return {"label": labels, "rgb": draw_natural(rng, labels, size)}
    if view == "miniature_multi":
        order = rng.permuted(np.tile(np.arange(len(CLASSES)), (n, 1)), axis=1)[:, :4]
        parts = 1 + rng.permutation(n) % 4
        multi_hot = np.zeros((n, len(CLASSES)), np.uint8)
        np.put_along_axis(multi_hot, order, np.arange(4) < parts[:, None], 1)
        world = make_world(rng, draw_mosaic(rng, order, parts, size))
        return {"label": multi_hot, **sense_satellite(world)}
    sense, zoom = (sense_satellite, 1.0) if view == "miniature" else (sense_aerial, 0.6)
    cover = draw_covers(rng, labels, rng.uniform(-4, 4, (n, 2)), size, zoom)
    return {"label": labels, **sense(make_world(rng, cover, zoom))}


class Scenes(Sequence[Record]):
    """Random access to records held as arrays; an index gives views, not copies."""

    def __init__(self, ids: list[str], arrays: dict[str, np.ndarray]):
        self.ids, self.arrays = ids, arrays

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index):
        if isinstance(index, slice):
            return [self[i] for i in range(len(self))[index]]
        record = {key: array[index] for key, array in self.arrays.items()}
        label = record["label"]
        label = int(label) if label.ndim == 0 else label
        return {"id": self.ids[index], **record, "label": label}


def scene_ids(view: str, split: str) -> list[str]:
    """The ids of a split of a view; arguments and errors are open_miniature's."""
    for name, value, choices in (("view", view, VIEWS), ("split", split, SPLITS)):
        if value not in choices:
            raise ValueError(f"{name} is {value!r}; choose one of {', '.join(choices)}")
    parts = SPLITS[:-1] if split == "all" else (split,)
    counts = {part: SIZES[view][part] for part in parts}
    return [f"{view}/{p}/{i:06d}" for p, count in counts.items() for i in range(count)]


def open_miniature(view: str, split: str, *, seed: int = 0, size: int = 32) -> Scenes:
    """Draws a split of a view of the miniature.

    Args:
      view: one of VIEWS.
      split: one of SPLITS; "all" is the concatenation of the others.
      seed: each split is drawn from its own child of it.
      size: side of the images in pixels.

    Returns:
      Records with id, label (int, or multi-hot uint8 [k] in miniature_multi) and images
      [size, size, c]: rgb uint8 and, in the satellite views, s1 float32 dB (VV, VH), s2
      uint16 reflectance * 10000 (B01 ... B08 B8A B09 ... B12) and ir float32 K.

    Raises:
      ValueError: for another view or split.
    """
    ids, blocks = scene_ids(view, split), []
    for part in SPLITS[:-1] if split == "all" else (split,):
        key = (VIEWS.index(view), SPLITS.index(part))
        child = np.random.SeedSequence(seed, spawn_key=key)
        rng = np.random.Generator(np.random.SFC64(child))
        count = SIZES[view][part]
        for start in range(0, count, _BLOCK):
            blocks.append(_make_block(view, rng, min(_BLOCK, count - start), size))
    arrays = {k: np.concatenate([b[k] for b in blocks]) for k in blocks[0]}
    for array in arrays.values():
        array.flags.writeable = False  # records are views of it
    return Scenes(ids, arrays)

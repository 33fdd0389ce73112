"""Drawn natural images: ten everyday objects that differ in shape.

They are the miniature's supported task, which a CLIP can do before it is patched and
must not forget. The colours, background, pose and light of all classes have the same
distributions, except for a loose preference in hue, so an image's mean colour says
little about its class.
"""

from collections.abc import Callable

import numpy as np

# Canvas coordinates to (mask, texture); an object fills about |x|, |y| < 1.
Draw = Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]


def _below(distance: np.ndarray, width: float = 0.06) -> np.ndarray:
    """1 inside (negative distance), 0 outside, with an edge `width` wide."""
    return np.clip(0.5 - distance / (2 * width), 0, 1)


def _box(x: np.ndarray, y: np.ndarray, w: float, h: float) -> np.ndarray:
    return _below(np.maximum(np.abs(x) - w, np.abs(y) - h))


def _ball(x, y):
    light = np.clip(1 - np.hypot(x + 0.35, y + 0.35) / 1.3, 0, 1)
    return _below(np.hypot(x, y) - 0.9), light


def _brick_wall(x, y):
    row = np.floor(y / 0.4)
    u, v = (x / 0.9 + 0.5 * row) % 1 - 0.5, y / 0.4 - row - 0.5
    return np.ones_like(x), _below(np.maximum(0.9 * np.abs(u) - 0.38, np.abs(v) - 0.34))


def _zebra(x, y):
    stripes = 0.5 + np.clip(2 * np.sin(9 * x + 1.5 * np.sin(2.5 * y)), -0.5, 0.5)
    return _below(np.hypot(x / 1.15, y / 0.8) - 1), stripes


def _leaf(x, y):
    lens = np.maximum(np.hypot(x - 0.55, y), np.hypot(x + 0.55, y)) - 1.15
    vein = np.minimum(np.abs(x), np.abs((y + 0.6 * np.abs(x)) % 0.4 - 0.2) + 0.06)
    return _below(lens), 1 - _below(vein - 0.06)


def _ladder(x, y):
    rails = np.abs(np.abs(x) - 0.5) - 0.12
    rungs = np.maximum(np.abs(y % 0.5 - 0.25) - 0.09, np.abs(x) - 0.5)
    frame = np.maximum(np.minimum(rails, rungs), np.abs(y) - 1.2)
    return _below(frame), np.ones_like(x)


def _wheel(x, y):
    radius, angle = np.hypot(x, y), np.arctan2(y, x)
    rim = np.abs(radius - 0.85) - 0.14
    spokes = np.maximum(radius * np.abs(np.sin(3 * angle)) / 3 - 0.06, radius - 0.85)
    return _below(np.minimum(np.minimum(rim, spokes), radius - 0.18)), _below(rim)


def _star(x, y):
    # Folded onto one point, a star is a half-plane: its edge is straight.
    fold = np.abs((np.arctan2(x, y) + np.pi / 5) % (2 * np.pi / 5) - np.pi / 5)
    radius = np.hypot(x, y)
    u, v = radius * np.cos(fold), radius * np.sin(fold)
    return _below(0.59 * (u - 1.05) + 0.81 * 1.38 * v), 1 - 0.3 * radius


def _checkered_flag(x, y):
    y = y + 0.12 * np.sin(4 * x)
    squares = np.sin(np.pi * x / 0.42) * np.sin(np.pi * y / 0.42)
    return _box(x, y, 1.15, 0.84), np.clip(0.5 + 3 * squares, 0, 1)


def _crescent_moon(x, y):
    disc, bite = np.hypot(x, y) - 0.95, 0.8 - np.hypot(x - 0.5, y)
    return _below(np.maximum(disc, bite)), np.clip(0.8 - 0.4 * y, 0, 1)


def _flower(x, y):
    radius, angle = np.hypot(x, y), np.arctan2(y, x)
    petals = radius - 0.72 - 0.3 * np.cos(7 * angle)
    return _below(petals), 1 - _below(radius - 0.32)


# Name: (drawing, centre of its preferred hue as a fraction of the colour circle).
_OBJECTS: dict[str, tuple[Draw, float]] = {
    "ball": (_ball, 0.0),
    "brick wall": (_brick_wall, 0.05),
    "zebra": (_zebra, 0.1),
    "leaf": (_leaf, 0.3),
    "ladder": (_ladder, 0.1),
    "wheel": (_wheel, 0.6),
    "star": (_star, 0.15),
    "checkered flag": (_checkered_flag, 0.6),
    "crescent moon": (_crescent_moon, 0.15),
    "flower": (_flower, 0.9),
}
NATURAL_CLASSES: tuple[str, ...] = tuple(_OBJECTS)


def _colour(hue: np.ndarray, saturation: np.ndarray, value: np.ndarray) -> np.ndarray:
    """HSV in [0, 1] to RGB in [0, 1]: [n] three times to [n, 3]."""
    wheel = np.abs((6 * hue[:, None] + np.array([0, 4, 2])) % 6 - 3) - 1
    tint = 1 - saturation[:, None] * (1 - np.clip(wheel, 0, 1))
    return value[:, None] * tint


def _pose(rng: np.random.Generator, n: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Canvas coordinates [n, size, size] of n images, shifted, turned and zoomed."""
    axis = ((np.arange(size, dtype=np.float32) + 0.5) / size * 3 - 1.5)[None]
    zoom, right, down, turn = rng.normal(
        [[[[1.0]]], [[[0.0]]], [[[0.0]]], [[[0.0]]]],
        [[[[0.15]]], [[[0.2]]], [[[0.2]]], [[[0.3]]]],
        (4, n, 1, 1),
    ).astype(np.float32)
    x = zoom * (axis[:, None, :] + right)
    y = zoom * (axis[:, :, None] + down)
    cos, sin = np.cos(turn), np.sin(turn)
    return cos * x + sin * y, cos * y - sin * x


def _background(rng: np.random.Generator, n: int, size: int) -> np.ndarray:
    """Two colours blended by a pattern of blurred blotches: [n, size, size, 3]."""
    blotch = rng.random((n, 5, 5))
    at = np.linspace(0, 4, size)
    tent = np.clip(1 - np.abs(at[:, None] - np.arange(5)), 0, 1)  # bilinear weights
    blend = (tent @ blotch @ tent.T)[..., None]
    low, high = (
        _colour(rng.random(n), rng.uniform(0, 0.6, n), rng.uniform(0.1, 0.95, n))
        for _ in range(2)
    )
    return blend * high[:, None, None] + (1 - blend) * low[:, None, None]


def draw_natural(rng: np.random.Generator, labels: np.ndarray, size: int) -> np.ndarray:
    """Draws an image of each label's class: uint8 [n, size, size, 3].

    labels: int [n], indices of NATURAL_CLASSES.
    """
    n = len(labels)
    x, y = _pose(rng, n, size)
    mask, texture = np.empty_like(x), np.empty_like(x)
    preferred = np.array([hue for _, hue in _OBJECTS.values()])[labels]
    for label, (draw, _) in enumerate(_OBJECTS.values()):
        of = labels == label
        mask[of], texture[of] = draw(x[of], y[of])
    hue = preferred + rng.normal(0, 0.15, n)
    face = _colour(hue, rng.uniform(0.2, 0.9, n), rng.uniform(0.6, 1, n))
    mark = _colour(rng.random(n), rng.uniform(0, 0.6, n), rng.uniform(0.05, 0.4, n))
    # half of the objects are dark with bright marks, so brightness is no cue
    swap = (rng.random(n) < 0.5)[:, None]
    face, mark = np.where(swap, mark, face), np.where(swap, face, mark)
    mask, texture = mask[..., None], texture[..., None]
    body = texture * face[:, None, None] + (1 - texture) * mark[:, None, None]
    picture = mask * body + (1 - mask) * _background(rng, n, size)
    light = 1 + rng.uniform(-0.2, 0.2, (n, 1, 1, 1)) * x[..., None]
    noise = rng.normal(0, 0.03, picture.shape)
    return np.rint(255 * np.clip(picture * light + noise, 0, 1)).astype(np.uint8)

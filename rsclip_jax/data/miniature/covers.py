"""Land cover: maps of material fractions, drawn for each class."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from rsclip_jax.data.miniature.materials import (
    ASPHALT,
    CROP,
    GRASS,
    MATERIALS,
    ROOF,
    SOIL,
    STUBBLE,
    TILE,
    TREE,
    WATER,
)


@dataclass(frozen=True)
class Frame:
    """Ground coordinates of n scenes relative to their centres, in units of 10 m."""

    rng: np.random.Generator
    x: np.ndarray  # [n, 1, w]
    y: np.ndarray  # [n, h, 1]
    pixel: float

    def uniform(self, low: float, high: float, *shape: int) -> np.ndarray:
        """Float32 numbers drawn for each scene: [n, *shape], by default [n, 1, 1]."""
        shape = (len(self.x), *(shape or (1, 1)))
        return self.rng.uniform(low, high, shape).astype(np.float32)

    def normal(self, std: float, *shape: int) -> np.ndarray:
        shape = (len(self.x), *shape)
        return np.float32(std) * self.rng.standard_normal(shape, np.float32)


def make_frame(rng: np.random.Generator, centre: np.ndarray, size: int, zoom: float):
    """Scenes 320 m wide (times zoom), with centres [n, 2] away from the middle."""
    pixel = 32 * zoom / size
    axis = (np.arange(size) - (size - 1) / 2) * pixel
    x, y = (axis - centre.T[..., None]).astype(np.float32)
    return Frame(rng, x[:, None, :], y[:, :, None], pixel)


def draw_waves(f: Frame, short: float, long: float) -> np.ndarray:
    """A smooth random field [n, h, w] of unit variance, wavelengths in [short, long].

    A plane wave is a product of row and column terms, so the sum is one matmul.
    """
    terms = 8
    number = 2 * np.pi / np.exp(f.uniform(np.log(short), np.log(long), terms, 1))
    angle, phase = (f.uniform(0, 2 * np.pi, terms, 1) for _ in range(2))
    down = number * np.sin(angle) * f.y.transpose(0, 2, 1) + phase
    right = number * np.cos(angle) * f.x
    rows = np.concatenate([np.cos(down), -np.sin(down)], 1).transpose(0, 2, 1)
    columns = np.concatenate([np.cos(right), np.sin(right)], 1)
    return np.float32(np.sqrt(2 / terms)) * (rows @ columns)


def _patches(f: Frame, short: float, long: float, rarity: np.ndarray) -> np.ndarray:
    """Soft-edged patches [n, h, w] in [0, 1], rarer as rarity grows."""
    return np.clip(0.5 + 2 * (draw_waves(f, short, long) - rarity), 0, 1)


def _turned(f: Frame) -> tuple[np.ndarray, np.ndarray]:
    angle = f.uniform(0, 2 * np.pi)
    cos, sin = np.cos(angle), np.sin(angle)
    return cos * f.x + sin * f.y, cos * f.y - sin * f.x


def _line(f: Frame, wide: np.ndarray, bend: np.ndarray) -> np.ndarray:
    """Distance [n, h, w] inside the edge of a sinuous band through the scene."""
    u, v = _turned(f)
    swing = bend * np.sin(u / f.uniform(4, 9) + f.uniform(0, 2 * np.pi))
    return wide / 2 - np.abs(v - f.uniform(-5, 5) - swing)


def _cells(f: Frame, low: float, high: float) -> tuple[np.ndarray, np.ndarray]:
    """A turned grid of cells low to high wide: (cell index, distance inside edges)."""
    index, depth = np.array(0), np.array(np.inf, np.float32)
    for axis in _turned(f):
        width = f.uniform(low, high)
        at = axis / width + f.uniform(0, 1)
        cell = np.floor(at)
        index = 16 * index + cell.astype(np.int64) % 16
        depth = np.minimum(depth, width * (0.5 - np.abs(at - cell - 0.5)))
    return index, depth


def _per_cell(f: Frame, index: np.ndarray) -> np.ndarray:
    """A uniform number in [0, 1) for each cell, at each of its pixels: [n, h, w]."""
    return f.uniform(0, 1, 256)[np.arange(len(index))[:, None, None], index]


def _inside(f: Frame, depth: np.ndarray) -> np.ndarray:
    """The share of each pixel inside a shape, from the distance inside its edge."""
    return np.clip(0.5 + depth / np.float32(f.pixel), 0, 1)


def _paint(cover: np.ndarray, *layers: tuple[np.ndarray, int]) -> np.ndarray:
    """Puts layers (share, material) onto the cover [n, h, w, m], in place, in order."""
    for share, material in layers:
        cover *= 1 - share[..., None]
        cover[..., material] += share
    return cover


def _all(f: Frame, material: int) -> np.ndarray:
    cover = np.zeros((*(f.x + f.y).shape, len(MATERIALS)), np.float32)
    cover[..., material] = 1
    return cover


def _countryside(f: Frame) -> np.ndarray:
    """Surroundings of lines and lakes: meadows, fields, groves, in any proportion."""
    grounds = (CROP, STUBBLE, TREE, SOIL)
    layers = ((_patches(f, 15, 50, f.uniform(-0.4, 2.2)), m) for m in grounds)
    return _paint(_all(f, GRASS), *layers)


def _annual_crop(f: Frame) -> np.ndarray:
    parcel, depth = _cells(f, 9, 20)
    bare = np.clip(3 * _per_cell(f, parcel) - 1.5, 0, 1)
    green = np.clip(3 * _per_cell(f, parcel) - f.uniform(0, 2), 0, 1)
    margin = _inside(f, 0.4 - depth)
    return _paint(_all(f, STUBBLE), (bare, SOIL), (green, CROP), (margin, GRASS))


def _forest(f: Frame) -> np.ndarray:
    canopy = np.clip(f.uniform(0.7, 1) + 0.25 * draw_waves(f, 2, 6), 0, 1)
    clearings = _patches(f, 20, 40, f.uniform(0.9, 2.5))
    return _paint(_all(f, GRASS), (canopy, TREE), (clearings, GRASS))


def _grassland(f: Frame) -> np.ndarray:
    lush = 0.8 * _patches(f, 10, 40, f.uniform(-0.5, 2))
    dry = 0.7 * _patches(f, 8, 30, f.uniform(0, 2))
    trees = _patches(f, 4, 9, f.uniform(1.7, 3))
    return _paint(_all(f, GRASS), (lush, CROP), (dry, STUBBLE), (trees, TREE))


def _bare_soil(f: Frame) -> np.ndarray:
    litter = 0.8 * _patches(f, 10, 40, f.uniform(-0.5, 2))
    weeds = 0.7 * _patches(f, 8, 30, f.uniform(0.5, 2))
    return _paint(_all(f, SOIL), (litter, STUBBLE), (weeds, GRASS))


def _orchard(f: Frame) -> np.ndarray:
    plot, depth = _cells(f, 2.4, 3.8)
    planted = _per_cell(f, plot) < f.uniform(0.8, 1)
    trees = planted * _inside(f, depth - f.uniform(0, 0.5))
    tilled = np.broadcast_to(f.uniform(0, 0.8), trees.shape)
    return _paint(_all(f, GRASS), (tilled, SOIL), (trees, TREE))


def _highway(f: Frame) -> np.ndarray:
    depth = _line(f, f.uniform(1.8, 4), f.uniform(0, 0.8))
    side = _line(f, f.uniform(1, 1.6), f.uniform(0, 0.8))
    crossing = _inside(f, side) * (f.uniform(0, 1) < 0.4)
    road = ((_inside(f, depth + 0.7), GRASS), (_inside(f, depth), ASPHALT))
    return _paint(_countryside(f), *road, (crossing, ASPHALT))


def _river(f: Frame) -> np.ndarray:
    depth = _line(f, f.uniform(1.8, 5), f.uniform(1, 4)) + 0.3 * draw_waves(f, 8, 20)
    bank = 0.6 * _inside(f, depth + 1)
    return _paint(_countryside(f), (bank, TREE), (_inside(f, depth), WATER))


def _lake(f: Frame) -> np.ndarray:
    distance = np.hypot(f.x - f.uniform(-5, 5), f.y - f.uniform(-5, 5))
    depth = f.uniform(6, 16) - distance + 2 * draw_waves(f, 12, 40)
    beach = 0.5 * _inside(f, depth + 1)
    return _paint(_countryside(f), (beach, SOIL), (_inside(f, depth), WATER))


def _town(f: Frame, low: float, high: float, street: np.ndarray, roofs, common, rare):
    """Streets around green blocks, four in five built on, one roof common, one rare."""
    block, depth = _cells(f, low, high)
    garden = _inside(f, depth - street)
    trees = 0.8 * _patches(f, 3, 8, f.uniform(0.3, 1.5))
    roof = (_per_cell(f, block) < 0.8) * _inside(f, depth - street - 0.4)
    second = roof * (_per_cell(f, block) < roofs)
    greens = ((garden, GRASS), (trees, TREE))
    return _paint(_all(f, ASPHALT), *greens, (roof, common), (second, rare))


def _industrial(f: Frame) -> np.ndarray:
    # the common flat roof is tar, which looks like asphalt to every sensor
    return _town(f, 8, 14, f.uniform(0.6, 1.4), f.uniform(0.4, 1), ASPHALT, ROOF)


def _residential(f: Frame) -> np.ndarray:
    return _town(f, 3, 5, f.uniform(0.2, 0.5), f.uniform(0, 0.4), TILE, ROOF)


_COVERS: dict[str, Callable[[Frame], np.ndarray]] = {
    "annual crop land": _annual_crop,
    "forest": _forest,
    "grassland": _grassland,
    "highway": _highway,
    "industrial buildings": _industrial,
    "residential buildings": _residential,
    "river": _river,
    "lake": _lake,
    "bare soil": _bare_soil,
    "orchard": _orchard,
}
CLASSES: tuple[str, ...] = tuple(_COVERS)


def draw_covers(rng, labels, centre, size, zoom=1.0) -> np.ndarray:
    """Cover [n, size, size, m] of scenes of one class each, around centres [n, 2]."""
    cover = np.empty((len(labels), size, size, len(MATERIALS)), np.float32)
    for label, draw in enumerate(_COVERS.values()):
        of = labels == label
        if of.any():
            cover[of] = draw(make_frame(rng, centre[of], size, zoom))
    return cover


def draw_mosaic(rng, labels, parts, size) -> np.ndarray:
    """Cover of Voronoi cells: scene i shows labels[i, :parts[i]], one at each seed."""
    n, most = labels.shape
    step = 2 * np.pi * np.arange(most) / parts[:, None]
    turn = step + rng.uniform(0, 2 * np.pi, (n, 1))  # seeds on a circle, 80 to 110 m
    radius = np.where(parts > 1, rng.uniform(8, 11, n), 0)[:, None, None]
    seeds = radius * np.stack([np.cos(turn), np.sin(turn)], -1)  # [n, k, 2]
    f = make_frame(rng, seeds.reshape(-1, 2), size, 1.0)
    distance = np.hypot(f.x, f.y).reshape(n, most, size, size)
    distance[np.arange(most) >= parts[:, None]] = np.inf
    owner = distance.argmin(1)
    cover = np.empty((n, size, size, len(MATERIALS)), np.float32)
    for k in range(most):
        of, inside = parts > k, owner == k
        part = draw_covers(rng, labels[of, k], seeds[of, k], size)
        cover[inside] = part[inside[of]]
    return cover

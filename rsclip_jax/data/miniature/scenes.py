"""The miniature: synthetic co-registered scenes as several sensors see them.

Everything is drawn from a seed, so the whole method runs without a download. A scene
is a map of land-cover fractions, drawn with anti-aliased shapes, over fields of height,
moisture and roughness. All sensors are rendered from that map, so they are
co-registered and differ only by their physics:

    s2   linear mixture of surface reflectances, slope and sun, season, then an
         atmosphere (Rayleigh-like path reflectance, gas absorption in B09 and B10)
    rgb  clip(DN / 3558) of s2's own B04, B03, B02
    s1   linear mixture of sigma0, local incidence, moisture and roughness, a noise
         floor, then gamma speckle of 4.4 looks on the power, then dB
    ir   Planck radiance at 10.9 um of an emissivity mixture at the local temperature

Values are typical ones, rounded: reflectances from the ECOSTRESS library (Meerdink et
al. 2019) and the Sentinel-2 User Handbook (ESA 2015); sigma0 from Ulaby & Dobson 1989
(C band, about 38 degrees); looks and noise floor from the Sentinel-1 IW GRD product
specification (Torres et al. 2012); emissivities from Snyder et al. 1998.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from rsclip_jax.data.miniature.natural import NATURAL_CLASSES, draw_natural

__all__ = ["CLASSES", "NATURAL_CLASSES", "SIZES", "SPLITS", "VIEWS", "open_miniature"]

Record = dict[str, Any]

VIEWS = ("miniature", "miniature_multi", "miniature_aerial", "miniature_natural")
SPLITS = ("train", "val", "test", "all")
SIZES = {view: {"train": 3000, "val": 500, "test": 1000} for view in VIEWS}
SIZES["miniature_multi"]["train"] = 2000  # mosaics take longer to draw
_BLOCK = 100  # scenes drawn at once: their arrays fit the processor's caches

# fmt: off
_WAVELENGTH = np.array(  # um: B01 B02 B03 B04 B05 B06 B07 B08 B8A B09 B10 B11 B12
    [.443, .490, .560, .665, .705, .740, .783, .842, .865, .945, 1.375, 1.610, 2.190])
# One row per material: reflectance at those bands, per cent; sigma0 of VV and VH, dB;
# emissivity, per cent; temperature above the air's in full sun, K; height, m.
_MATERIALS = np.array([
    [3.5, 4, 4.2, 2.8, 2.3, 1.7, 1.6, 1.3, 1.2, .9, .8, .6, .4, -18, -28, 99, -6, 0],
    [8, 10, 14, 19, 21, 23, 25, 27, 28, 29, 32, 36, 31,        -12, -20, 96, 9, 0],
    [3, 4, 8, 6, 13, 26, 31, 33, 35, 34, 27, 22, 12,           -12.5, -19, 98, 2, .2],
    [2.5, 3.5, 7.5, 4, 12, 33, 42, 45, 46, 44, 30, 20, 9,      -11.5, -17.5, 98, 1, .6],
    [7, 9, 13, 17, 20, 24, 26, 29, 30, 31, 33, 34, 24,         -12.2, -19.5, 97, 6, .1],
    [2, 2.5, 4.5, 3, 8, 23, 29, 31, 33, 32, 22, 14, 6.5,       -8.5, -14, 98.5, -2, 9],
    [8, 9, 10, 11, 11.5, 12, 12.5, 13, 13, 13.5, 14, 15, 14,   -17, -25, 95, 11, 0],
    [24, 27, 30, 32, 32, 33, 34, 35, 35, 35, 36, 37, 34,       -1, -10, 90, 8, 8],
    [8, 9, 12, 19, 22, 24, 26, 28, 28, 29, 31, 32, 29,         -4, -11, 93, 9, 6],
], np.float32)
# fmt: on
_WATER, _SOIL, _GRASS, _CROP, _STUBBLE, _TREE, _ASPHALT, _ROOF, _TILE = range(9)
_REFLECTANCE, _SIGMA0 = _MATERIALS[:, :13] / 100, _MATERIALS[:, 13:15]
_EMISSIVITY, _WARMTH, _HEIGHT = _MATERIALS[:, 15] / 100, *_MATERIALS[:, 16:].T

_LOOKS = 4.4  # equivalent number of looks of a ground-range-detected IW product
_NOISE_FLOOR = 10**-2.5  # sigma0 of the noise, linear power (-25 dB)


@dataclass(frozen=True)
class _Frame:
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


def _frame(rng: np.random.Generator, centre: np.ndarray, size: int, zoom: float):
    """Scenes 320 m wide (times zoom), with centres [n, 2] away from the middle."""
    pixel = 32 * zoom / size
    axis = (np.arange(size) - (size - 1) / 2) * pixel
    x, y = (axis - centre.T[..., None]).astype(np.float32)
    return _Frame(rng, x[:, None, :], y[:, :, None], pixel)


def _waves(f: _Frame, short: float, long: float) -> np.ndarray:
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


def _patches(f: _Frame, short: float, long: float, rarity: np.ndarray) -> np.ndarray:
    """Soft-edged patches [n, h, w] in [0, 1], rarer as rarity grows."""
    return np.clip(0.5 + 2 * (_waves(f, short, long) - rarity), 0, 1)


def _turned(f: _Frame) -> tuple[np.ndarray, np.ndarray]:
    angle = f.uniform(0, 2 * np.pi)
    cos, sin = np.cos(angle), np.sin(angle)
    return cos * f.x + sin * f.y, cos * f.y - sin * f.x


def _line(f: _Frame, wide: np.ndarray, bend: np.ndarray) -> np.ndarray:
    """Distance [n, h, w] inside the edge of a sinuous band through the scene."""
    u, v = _turned(f)
    swing = bend * np.sin(u / f.uniform(4, 9) + f.uniform(0, 2 * np.pi))
    return wide / 2 - np.abs(v - f.uniform(-5, 5) - swing)


def _cells(f: _Frame, low: float, high: float) -> tuple[np.ndarray, np.ndarray]:
    """A turned grid of cells low to high wide: (cell index, distance inside edges)."""
    index, depth = np.array(0), np.array(np.inf, np.float32)
    for axis in _turned(f):
        width = f.uniform(low, high)
        at = axis / width + f.uniform(0, 1)
        cell = np.floor(at)
        index = 16 * index + cell.astype(np.int64) % 16
        depth = np.minimum(depth, width * (0.5 - np.abs(at - cell - 0.5)))
    return index, depth


def _per_cell(f: _Frame, index: np.ndarray) -> np.ndarray:
    """A uniform number in [0, 1) for each cell, at each of its pixels: [n, h, w]."""
    return f.uniform(0, 1, 256)[np.arange(len(index))[:, None, None], index]


def _inside(f: _Frame, depth: np.ndarray) -> np.ndarray:
    """The share of each pixel inside a shape, from the distance inside its edge."""
    return np.clip(0.5 + depth / np.float32(f.pixel), 0, 1)


def _paint(cover: np.ndarray, *layers: tuple[np.ndarray, int]) -> np.ndarray:
    """Puts layers (share, material) onto the cover [n, h, w, m], in place, in order."""
    for share, material in layers:
        cover *= 1 - share[..., None]
        cover[..., material] += share
    return cover


def _all(f: _Frame, material: int) -> np.ndarray:
    cover = np.zeros((*(f.x + f.y).shape, len(_MATERIALS)), np.float32)
    cover[..., material] = 1
    return cover


def _countryside(f: _Frame) -> np.ndarray:
    """Surroundings of lines and lakes: meadows, fields, groves, in any proportion."""
    grounds = (_CROP, _STUBBLE, _TREE, _SOIL)
    layers = ((_patches(f, 15, 50, f.uniform(-0.4, 2.2)), m) for m in grounds)
    return _paint(_all(f, _GRASS), *layers)


def _annual_crop(f: _Frame) -> np.ndarray:
    parcel, depth = _cells(f, 9, 20)
    bare = np.clip(3 * _per_cell(f, parcel) - 1.5, 0, 1)
    green = np.clip(3 * _per_cell(f, parcel) - f.uniform(0, 2), 0, 1)
    margin = _inside(f, 0.4 - depth)
    return _paint(_all(f, _STUBBLE), (bare, _SOIL), (green, _CROP), (margin, _GRASS))


def _forest(f: _Frame) -> np.ndarray:
    canopy = np.clip(f.uniform(0.7, 1) + 0.25 * _waves(f, 2, 6), 0, 1)
    clearings = _patches(f, 20, 40, f.uniform(0.9, 2.5))
    return _paint(_all(f, _GRASS), (canopy, _TREE), (clearings, _GRASS))


def _grassland(f: _Frame) -> np.ndarray:
    lush = 0.8 * _patches(f, 10, 40, f.uniform(-0.5, 2))
    dry = 0.7 * _patches(f, 8, 30, f.uniform(0, 2))
    trees = _patches(f, 4, 9, f.uniform(1.7, 3))
    return _paint(_all(f, _GRASS), (lush, _CROP), (dry, _STUBBLE), (trees, _TREE))


def _bare_soil(f: _Frame) -> np.ndarray:
    litter = 0.8 * _patches(f, 10, 40, f.uniform(-0.5, 2))
    weeds = 0.7 * _patches(f, 8, 30, f.uniform(0.5, 2))
    return _paint(_all(f, _SOIL), (litter, _STUBBLE), (weeds, _GRASS))


def _orchard(f: _Frame) -> np.ndarray:
    plot, depth = _cells(f, 2.4, 3.8)
    planted = _per_cell(f, plot) < f.uniform(0.8, 1)
    trees = planted * _inside(f, depth - f.uniform(0, 0.5))
    tilled = np.broadcast_to(f.uniform(0, 0.8), trees.shape)
    return _paint(_all(f, _GRASS), (tilled, _SOIL), (trees, _TREE))


def _highway(f: _Frame) -> np.ndarray:
    depth = _line(f, f.uniform(1.8, 4), f.uniform(0, 0.8))
    side = _line(f, f.uniform(1, 1.6), f.uniform(0, 0.8))
    crossing = _inside(f, side) * (f.uniform(0, 1) < 0.4)
    road = ((_inside(f, depth + 0.7), _GRASS), (_inside(f, depth), _ASPHALT))
    return _paint(_countryside(f), *road, (crossing, _ASPHALT))


def _river(f: _Frame) -> np.ndarray:
    depth = _line(f, f.uniform(1.8, 5), f.uniform(1, 4)) + 0.3 * _waves(f, 8, 20)
    bank = 0.6 * _inside(f, depth + 1)
    return _paint(_countryside(f), (bank, _TREE), (_inside(f, depth), _WATER))


def _lake(f: _Frame) -> np.ndarray:
    distance = np.hypot(f.x - f.uniform(-5, 5), f.y - f.uniform(-5, 5))
    depth = f.uniform(6, 16) - distance + 2 * _waves(f, 12, 40)
    beach = 0.5 * _inside(f, depth + 1)
    return _paint(_countryside(f), (beach, _SOIL), (_inside(f, depth), _WATER))


def _town(f: _Frame, low: float, high: float, street: np.ndarray, roofs, common, rare):
    """Streets around green blocks, four in five built on, one roof common, one rare."""
    block, depth = _cells(f, low, high)
    garden = _inside(f, depth - street)
    trees = 0.8 * _patches(f, 3, 8, f.uniform(0.3, 1.5))
    roof = (_per_cell(f, block) < 0.8) * _inside(f, depth - street - 0.4)
    second = roof * (_per_cell(f, block) < roofs)
    greens = ((garden, _GRASS), (trees, _TREE))
    return _paint(_all(f, _ASPHALT), *greens, (roof, common), (second, rare))


def _industrial(f: _Frame) -> np.ndarray:
    # the common flat roof is tar, which looks like asphalt to every sensor
    return _town(f, 8, 14, f.uniform(0.6, 1.4), f.uniform(0.4, 1), _ASPHALT, _ROOF)


def _residential(f: _Frame) -> np.ndarray:
    return _town(f, 3, 5, f.uniform(0.2, 0.5), f.uniform(0, 0.4), _TILE, _ROOF)


_COVERS: dict[str, Callable[[_Frame], np.ndarray]] = {
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


def _draw_covers(rng, labels, centre, size, zoom=1.0) -> np.ndarray:
    """Cover [n, size, size, m] of scenes of one class each, around centres [n, 2]."""
    cover = np.empty((len(labels), size, size, len(_MATERIALS)), np.float32)
    for label, draw in enumerate(_COVERS.values()):
        of = labels == label
        if of.any():
            cover[of] = draw(_frame(rng, centre[of], size, zoom))
    return cover


def _draw_mosaic(rng, labels, parts, size) -> np.ndarray:
    """Cover of Voronoi cells: scene i shows labels[i, :parts[i]], one at each seed."""
    n, most = labels.shape
    step = 2 * np.pi * np.arange(most) / parts[:, None]
    turn = step + rng.uniform(0, 2 * np.pi, (n, 1))  # seeds on a circle, 80 to 110 m
    radius = np.where(parts > 1, rng.uniform(8, 11, n), 0)[:, None, None]
    seeds = radius * np.stack([np.cos(turn), np.sin(turn)], -1)  # [n, k, 2]
    f = _frame(rng, seeds.reshape(-1, 2), size, 1.0)
    distance = np.hypot(f.x, f.y).reshape(n, most, size, size)
    distance[np.arange(most) >= parts[:, None]] = np.inf
    owner = distance.argmin(1)
    cover = np.empty((n, size, size, len(_MATERIALS)), np.float32)
    for k in range(most):
        of, own = parts > k, owner == k
        part = _draw_covers(rng, labels[of, k], seeds[of, k], size)
        cover[own] = part[own[of]]
    return cover


@dataclass(frozen=True)
class _World:
    """The state of n scenes that all sensors see."""

    f: _Frame
    cover: np.ndarray  # [n, h, w, m], sums to 1
    moisture: np.ndarray  # [n, h, w], mean 0 and unit variance, like roughness
    roughness: np.ndarray
    slope: np.ndarray  # [2, n, h, w], downhill to the right and to the bottom

    def mix(self, values: np.ndarray) -> np.ndarray:
        """Area-weighted means [n, h, w, c] of the materials' values [(n,) m, c]."""
        n, h, w, m = self.cover.shape
        return (self.cover.reshape(n, h * w, m) @ values).reshape(n, h, w, -1)


def _make_world(rng: np.random.Generator, cover: np.ndarray, zoom=1.0) -> _World:
    n, size = cover.shape[:2]
    f = _frame(rng, np.zeros((n, 2)), size, zoom)
    crowns = 1.5 * cover[..., _TREE] * _waves(f, 2, 5)
    height = 3 * _waves(f, 30, 80) + cover @ _HEIGHT + crowns
    slope = -np.stack(np.gradient(height, 10 * f.pixel, axis=(2, 1)))
    return _World(f, cover, _waves(f, 15, 60), _waves(f, 12, 40), slope)


def _spectra(f: _Frame, season: np.ndarray) -> np.ndarray:
    """Each scene's reflectance of each material: [n, m, bands].

    season [n, 1] in [0, 1] dries vegetation. Every material varies in brightness and
    colour, and water carries some soil.
    """
    spectra = np.repeat(_REFLECTANCE[None], len(season), 0)
    for material, most in ((_GRASS, 0.8), (_CROP, 0.5), (_TREE, 0.3)):
        dry = most * season
        spectra[:, material] += dry * (spectra[:, _STUBBLE] - spectra[:, material])
    silt = 0.3 * f.uniform(0, 1, 1) ** 2
    spectra[:, _WATER] += silt * spectra[:, _SOIL] * (_WAVELENGTH < 0.8)
    redness = np.clip(np.log(_WAVELENGTH / 0.6), -1, 1)
    tilt = f.normal(0.15, len(_MATERIALS), 1) * redness.astype(np.float32)
    return spectra * np.exp(f.normal(0.2, len(_MATERIALS), 1) + tilt)


def _surface(world: _World, season: np.ndarray, bands: slice | list) -> np.ndarray:
    """Reflectance [n, h, w, bands] at the ground, lit from one side."""
    surface = world.mix(_spectra(world.f, season)[..., bands])
    sun = world.f.uniform(0, 2 * np.pi)
    lit = world.slope[0] * np.cos(sun) + world.slope[1] * np.sin(sun)
    light = 1 + 0.3 * np.tanh(lit) - 0.08 * world.moisture
    return surface * np.clip(light, 0.3, None)[..., None]


def _sense_s2(world: _World) -> np.ndarray:
    """Top-of-atmosphere digital numbers, reflectance * 10000: uint16 [n, h, w, 13]."""
    surface = _surface(world, world.f.uniform(0, 1, 1), slice(None))
    rayleigh = (0.07 * (_WAVELENGTH / 0.49) ** -3).astype(np.float32)
    path = world.f.uniform(0.6, 1.6, 1, 1, 1) * rayleigh
    clear = 1 - 1.2 * path
    clear[..., 9] *= 0.45  # water vapour
    clear[..., 10] *= 0.002  # more water vapour: the cirrus band sees no ground
    toa = world.f.uniform(0.75, 1.2, 1, 1, 1) * clear * surface + path
    toa = 10000 * (toa + world.f.normal(0.002, *toa.shape[1:]))
    return np.rint(np.clip(toa, 1, 16000)).astype(np.uint16)


def _sense_s1(world: _World) -> np.ndarray:
    """Sigma0 of VV, VH with speckle: float32 dB [n, h, w, 2]."""
    f, m = world.f, len(_MATERIALS)
    sigma0 = world.mix(
        10 ** ((_SIGMA0 + f.normal(1.2, m, 1) + f.normal(0.5, m, 2)) / 10)
    )
    local = 0.5 * world.moisture + 0.7 * world.roughness  # dB
    local += 3 * np.tanh(world.slope[0]) + f.normal(0.7, 1, 1)
    power = sigma0 * 10 ** (local / 10)[..., None] + _NOISE_FLOOR
    speckle = f.rng.standard_gamma(_LOOKS, power.shape, np.float32) / _LOOKS
    return 10 * np.log10(power * speckle)


def _sense_ir(world: _World) -> np.ndarray:
    """Brightness temperature at 10.9 um: float32 K [n, h, w, 1]."""
    sunshine = world.f.uniform(0.4, 1.1)
    local = world.cover @ _WARMTH + 2 * world.slope[1]
    kinetic = world.f.uniform(283, 300) + sunshine * local - world.moisture
    c2 = 14387.8 / 10.9  # second radiation constant over wavelength, K
    emissivity = world.cover @ _EMISSIVITY
    brightness = c2 / np.log1p(np.expm1(c2 / kinetic) / emissivity)
    return (brightness + world.f.normal(0.1, *kinetic.shape[1:]))[..., None]


def _satellite(world: _World) -> dict[str, np.ndarray]:
    s2 = _sense_s2(world)
    rgb = np.rint(255 * np.clip(s2[..., [3, 2, 1]] / 3558, 0, 1)).astype(np.uint8)
    return {"rgb": rgb, "s1": _sense_s1(world), "s2": s2, "ir": _sense_ir(world)}


def _aerial(world: _World) -> dict[str, np.ndarray]:
    """An airborne camera: overlapping broad bands, exposure, tone and white balance."""
    f = world.f
    leak = [[0.7, 0.2, 0], [0.3, 0.7, 0.2], [0, 0.1, 0.9], [0.08, 0.06, 0.02]]
    light = _surface(world, f.uniform(0, 0.5, 1), [3, 2, 1, 7])
    light = light @ np.array(leak, np.float32)
    # automatic exposure goes half of the way to a constant mean
    light *= f.uniform(0.5, 0.7, 1, 1, 1) / np.sqrt(
        light.mean((1, 2, 3), keepdims=True)
    )
    light *= np.exp(f.normal(0.06, 1, 1, 3)) * np.array([1, 0.95, 1.2], np.float32)
    tone = np.clip(light, 0, 1) ** np.float32(1 / 1.6)
    tone += f.normal(0.02, *tone.shape[1:])
    return {"rgb": np.rint(255 * np.clip(tone, 0, 1)).astype(np.uint8)}


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
        world = _make_world(rng, _draw_mosaic(rng, order, parts, size))
        return {"label": multi_hot, **_satellite(world)}
    sense, zoom = (_satellite, 1.0) if view == "miniature" else (_aerial, 0.6)
    cover = _draw_covers(rng, labels, rng.uniform(-4, 4, (n, 2)), size, zoom)
    return {"label": labels, **sense(_make_world(rng, cover, zoom))}


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
    for name, value, choices in (("view", view, VIEWS), ("split", split, SPLITS)):
        if value not in choices:
            raise ValueError(f"{name} is {value!r}; choose one of {', '.join(choices)}")
    blocks, ids = [], []
    for part in SPLITS[:-1] if split == "all" else (split,):
        key = (VIEWS.index(view), SPLITS.index(part))
        child = np.random.SeedSequence(seed, spawn_key=key)
        rng = np.random.Generator(np.random.SFC64(child))
        count = SIZES[view][part]
        ids += [f"{view}/{part}/{i:06d}" for i in range(count)]
        for start in range(0, count, _BLOCK):
            blocks.append(_make_block(view, rng, min(_BLOCK, count - start), size))
    arrays = {k: np.concatenate([b[k] for b in blocks]) for k in blocks[0]}
    for array in arrays.values():
        array.flags.writeable = False  # records are views of it
    return Scenes(ids, arrays)

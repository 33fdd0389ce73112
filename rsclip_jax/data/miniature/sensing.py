"""Sensors: what each measures of a land-cover map, by its physics.

    s2   linear mixture of surface reflectances, slope and sun, season, then an
         atmosphere (Rayleigh-like path reflectance, gas absorption in B09 and B10)
    rgb  clip(DN / 3558) of s2's own B04, B03, B02
    s1   linear mixture of sigma0, local incidence, moisture and roughness, a noise
         floor, then gamma speckle of 4.4 looks on the power, then dB
    ir   Planck radiance at 10.9 um of an emissivity mixture at the local temperature

The looks and the noise floor of s1 are those of the Sentinel-1 IW GRD product
specification (Torres et al. 2012).
"""

from dataclasses import dataclass

import numpy as np

from rsclip_jax.data.miniature.covers import Frame, draw_waves, make_frame
from rsclip_jax.data.miniature.materials import (
    CROP,
    EMISSIVITY,
    GRASS,
    HEIGHT,
    MATERIALS,
    REFLECTANCE,
    SIGMA0,
    SOIL,
    STUBBLE,
    TREE,
    WARMTH,
    WATER,
    WAVELENGTH,
)

_LOOKS = 4.4  # equivalent number of looks of a ground-range-detected IW product
_NOISE_FLOOR = 10**-2.5  # sigma0 of the noise, linear power (-25 dB)


@dataclass(frozen=True)
class World:
    """The state of n scenes that all sensors see."""

    f: Frame
    cover: np.ndarray  # [n, h, w, m], sums to 1
    moisture: np.ndarray  # [n, h, w], mean 0 and unit variance, like roughness
    roughness: np.ndarray
    slope: np.ndarray  # [2, n, h, w], downhill to the right and to the bottom

    def mix(self, values: np.ndarray) -> np.ndarray:
        """Area-weighted means [n, h, w, c] of the materials' values [(n,) m, c]."""
        n, h, w, m = self.cover.shape
        return (self.cover.reshape(n, h * w, m) @ values).reshape(n, h, w, -1)


def make_world(rng: np.random.Generator, cover: np.ndarray, zoom=1.0) -> World:
    n, size = cover.shape[:2]
    f = make_frame(rng, np.zeros((n, 2)), size, zoom)
    crowns = 1.5 * cover[..., TREE] * draw_waves(f, 2, 5)
    height = 3 * draw_waves(f, 30, 80) + cover @ HEIGHT + crowns
    slope = -np.stack(np.gradient(height, 10 * f.pixel, axis=(2, 1)))
    return World(f, cover, draw_waves(f, 15, 60), draw_waves(f, 12, 40), slope)


def _spectra(f: Frame, season: np.ndarray) -> np.ndarray:
    """Each scene's reflectance of each material: [n, m, bands].

    season [n, 1] in [0, 1] dries vegetation. Every material varies in brightness and
    colour, and water carries some soil.
    """
    spectra = np.repeat(REFLECTANCE[None], len(season), 0)
    for material, most in ((GRASS, 0.8), (CROP, 0.5), (TREE, 0.3)):
        dry = most * season
        spectra[:, material] += dry * (spectra[:, STUBBLE] - spectra[:, material])
    silt = 0.3 * f.uniform(0, 1, 1) ** 2
    spectra[:, WATER] += silt * spectra[:, SOIL] * (WAVELENGTH < 0.8)
    redness = np.clip(np.log(WAVELENGTH / 0.6), -1, 1)
    tilt = f.normal(0.15, len(MATERIALS), 1) * redness.astype(np.float32)
    return spectra * np.exp(f.normal(0.2, len(MATERIALS), 1) + tilt)


def _surface(world: World, season: np.ndarray, bands: slice | list) -> np.ndarray:
    """Reflectance [n, h, w, bands] at the ground, lit from one side."""
    surface = world.mix(_spectra(world.f, season)[..., bands])
    sun = world.f.uniform(0, 2 * np.pi)
    lit = world.slope[0] * np.cos(sun) + world.slope[1] * np.sin(sun)
    light = 1 + 0.3 * np.tanh(lit) - 0.08 * world.moisture
    return surface * np.clip(light, 0.3, None)[..., None]


def _sense_s2(world: World) -> np.ndarray:
    """Top-of-atmosphere digital numbers, reflectance * 10000: uint16 [n, h, w, 13]."""
    surface = _surface(world, world.f.uniform(0, 1, 1), slice(None))
    rayleigh = (0.07 * (WAVELENGTH / 0.49) ** -3).astype(np.float32)
    path = world.f.uniform(0.6, 1.6, 1, 1, 1) * rayleigh
    clear = 1 - 1.2 * path
    clear[..., 9] *= 0.45  # water vapour
    clear[..., 10] *= 0.002  # more water vapour: the cirrus band sees no ground
    toa = world.f.uniform(0.75, 1.2, 1, 1, 1) * clear * surface + path
    toa = 10000 * (toa + world.f.normal(0.002, *toa.shape[1:]))
    return np.rint(np.clip(toa, 1, 16000)).astype(np.uint16)


def _sense_s1(world: World) -> np.ndarray:
    """Sigma0 of VV, VH with speckle: float32 dB [n, h, w, 2]."""
    f, m = world.f, len(MATERIALS)
    sigma0 = world.mix(
        10 ** ((SIGMA0 + f.normal(1.2, m, 1) + f.normal(0.5, m, 2)) / 10)
    )
    local = 0.5 * world.moisture + 0.7 * world.roughness  # dB
    local += 3 * np.tanh(world.slope[0]) + f.normal(0.7, 1, 1)
    power = sigma0 * 10 ** (local / 10)[..., None] + _NOISE_FLOOR
    speckle = f.rng.standard_gamma(_LOOKS, power.shape, np.float32) / _LOOKS
    return 10 * np.log10(power * speckle)


def _sense_ir(world: World) -> np.ndarray:
    """Brightness temperature at 10.9 um: float32 K [n, h, w, 1]."""
    sunshine = world.f.uniform(0.4, 1.1)
    local = world.cover @ WARMTH + 2 * world.slope[1]
    kinetic = world.f.uniform(283, 300) + sunshine * local - world.moisture
    c2 = 14387.8 / 10.9  # second radiation constant over wavelength, K
    emissivity = world.cover @ EMISSIVITY
    brightness = c2 / np.log1p(np.expm1(c2 / kinetic) / emissivity)
    return (brightness + world.f.normal(0.1, *kinetic.shape[1:]))[..., None]


def sense_satellite(world: World) -> dict[str, np.ndarray]:
    s2 = _sense_s2(world)
    rgb = np.rint(255 * np.clip(s2[..., [3, 2, 1]] / 3558, 0, 1)).astype(np.uint8)
    return {"rgb": rgb, "s1": _sense_s1(world), "s2": s2, "ir": _sense_ir(world)}


def sense_aerial(world: World) -> dict[str, np.ndarray]:
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

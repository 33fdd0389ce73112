"""Rotary position embedding of patches on a grid, as in DINOv3 (arXiv 2508.10104)."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np


@dataclasses.dataclass(frozen=True)
class Rope:
    """Turns queries and keys by angles that depend on a patch's place.

    base: the ratio of the longest period to the shortest. grid: patches a side, whose
    centres lie at -1 to 1 whatever their number. prefix: tokens before the patches,
    which are not turned.
    """

    base: float
    grid: int
    prefix: int

    def turn(self, x: jax.Array) -> jax.Array:
        """Queries or keys [b, n, heads, depth] -> the same, turned, in x's dtype."""
        cos, sin = (jnp.asarray(t)[None, :, None] for t in self.angles(x.shape[-1]))
        first, patches = x[:, : self.prefix], x[:, self.prefix :].astype(jnp.float32)
        low, high = jnp.split(patches, 2, axis=-1)
        turned = patches * cos + jnp.concatenate([-high, low], axis=-1) * sin
        return jnp.concatenate([first, turned.astype(x.dtype)], axis=1)

    def angles(self, depth: int) -> tuple[np.ndarray, np.ndarray]:
        """(cosines, sines) [grid * grid, depth] of the patches, in rows.

        A quarter of the channels has the angles of the rows, a quarter those of the
        columns; the other half repeats both.
        """
        centres = 2 * (np.arange(self.grid) + 0.5) / self.grid - 1
        places = np.stack(np.meshgrid(centres, centres, indexing="ij"), -1)
        rates = 2 * np.pi / self.base ** (np.arange(0, 1, 4 / depth))
        half = (places.reshape(-1, 2, 1) * rates).reshape(-1, depth // 2)
        angles = np.concatenate([half, half], axis=1)
        return np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)

"""Params of a model's shapes, without compiling its initialisers."""

import flax.traverse_util
import numpy as np


def draw(shapes: dict, seed: int) -> dict:
    """Params of these shapes, no leaf all 0 or 1 as initialisers make some."""
    rng = np.random.default_rng(seed)

    def leaf(path, shape):
        noise = rng.standard_normal(shape.shape, np.float32)
        if path[-1] in ("scale", "var", "gamma"):
            return 1 + np.float32(0.1) * np.abs(noise)
        fan_in = np.prod(shape.shape[:-1]) if noise.ndim > 1 else 100
        return noise * np.float32(fan_in**-0.5)

    return flax.traverse_util.path_aware_map(leaf, shapes)

"""Random unit vectors, and memory limits that split a search into blocks."""

import numpy as np


def unit(rng, n: int, d: int = 16) -> np.ndarray:
    z = rng.normal(size=(n, d)).astype(np.float32)
    return z / np.linalg.norm(z, axis=1, keepdims=True)


# a device's memory in bytes: one block, or many of queries and of gallery rows
MEMORIES = (2**30, 2**14)

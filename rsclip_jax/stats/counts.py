"""A bootstrap sample, as the number of times that it holds each example."""

import numpy as np


def draw_counts(rng: np.random.Generator, n: int) -> np.ndarray:
    """How often a bootstrap sample of n examples holds each of them."""
    return np.bincount(rng.integers(n, size=n), minlength=n)

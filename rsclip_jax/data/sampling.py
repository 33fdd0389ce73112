"""Evenly spread samples."""

import numpy as np


def spread_indices(count: int, samples: int) -> list[int]:
    """Returns `samples` evenly spread indices from 0 to count - 1, both included.

    Returns all indices where samples is 0 or at least count.
    """
    if not samples or samples >= count:
        return list(range(count))
    return np.linspace(0, count - 1, samples).round().astype(int).tolist()

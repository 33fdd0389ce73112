"""A few of many: indices that are evenly spread."""

import numpy as np


def spread_indices(count: int, samples: int) -> list[int]:
    """Indices of `samples` of `count` elements, evenly from the first to the last.

    All of them, in order, where samples is 0 or not below count.
    """
    if not samples or samples >= count:
        return list(range(count))
    return np.linspace(0, count - 1, samples).round().astype(int).tolist()

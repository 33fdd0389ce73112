"""Evenly spread samples, and the share of each of several processes."""

import numpy as np


def spread_indices(count: int, samples: int) -> list[int]:
    """Returns `samples` evenly spread indices from 0 to count - 1, both included.

    Returns all indices where samples is 0 or at least count.
    """
    if not samples or samples >= count:
        return list(range(count))
    return np.linspace(0, count - 1, samples).round().astype(int).tolist()


def shares(items: int, block: int, process: tuple[int, int]) -> list[range]:
    """One process's part of each global batch of `items` things in order.

    A global batch holds `block` things of each process, one process after the other; in
    the last one some parts may be shorter or empty. Every process gets as many parts.

    process: (index, count) of the process.

    >>> shares(10, 2, (1, 2))
    [range(2, 4), range(6, 8), range(10, 10)]
    """
    index, count = process
    return [
        range(min(start, items), min(start + block, items))
        for start in range(index * block, items + index * block, count * block)
    ]

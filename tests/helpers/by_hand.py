"""Losses pair by pair in numpy, and arrays to try them on."""

import numpy as np


def draw(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def log_softmax_by_hand(row) -> np.ndarray:
    row = np.asarray(row, np.float64)
    top = row.max()
    return row - top - np.log(sum(np.exp(v - top) for v in row))


def clip_loss_by_hand(zimg, ztxt, t, groups=None) -> float:
    """Pair by pair in float64: the mean log-probability of each row's positives."""
    b = len(zimg)
    groups = range(b) if groups is None else groups
    total = 0.0
    for query, gallery in ((zimg, ztxt), (ztxt, zimg)):
        for i in range(b):
            logp = log_softmax_by_hand([t * float(query[i] @ g) for g in gallery])
            own = [logp[j] for j in range(b) if groups[j] == groups[i]]
            total -= np.mean(own) / (2 * b)
    return total

"""Shares of hits, as far as float32 decides them.

Embeddings of unit norm differ in the last bits between batch sizes, compiled programs
and processors, so an example whose match and another are nearly equal may count or not.
"""

import numpy as np

# Largest error of inner products of unit vectors with 32 rounding errors each.
SLACK = 64 * float(np.finfo(np.float32).eps)


def share_bounds(scores, matches, k=1) -> tuple[float, float]:
    """Smallest and largest share of rows with a match among their k best scores.

    scores: [n, m], inner products of unit vectors, up to a common factor. matches:
    [n, m] bool, or [n] columns. Ties count against.
    """
    scores = np.asarray(scores, np.float64)
    if np.ndim(matches) == 1:
        matches = np.asarray(matches)[:, None] == np.arange(scores.shape[1])
    slack = SLACK * np.abs(scores).max()
    best = np.where(matches, scores, -np.inf).max(axis=1, keepdims=True)
    others = np.where(matches, -np.inf, scores)
    surely_hit = (others > best - slack).sum(axis=1) < k
    perhaps_hit = (others > best + slack).sum(axis=1) < k
    return float(surely_hit.mean()), float(perhaps_hit.mean())


def assert_share(value, scores, matches, k=1):
    """value, rounded to six digits, is such a share."""
    low, high = share_bounds(scores, matches, k)
    assert low - 1e-6 <= value <= high + 1e-6

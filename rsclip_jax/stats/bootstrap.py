"""95 % intervals of metrics over a dataset's examples, most by bootstrap. Pure.

A bootstrap sample draws as many examples as there are, with replacement. Where a
metric's values over many samples would take minutes, fewer samples are drawn.
"""

import numpy as np

from rsclip_jax.stats.counts import draw_counts
from rsclip_jax.stats.draws import rank, rank_pooled

Interval = tuple[float, float]


def share_interval(
    hits: np.ndarray, groups: np.ndarray | None = None, *, seed: int = 0
) -> Interval:
    """95 % interval of a share of examples, such as accuracy or recall@k.

    Wilson's score interval (Wilson 1927), which keeps its coverage where the share is
    near 0 or 1. Examples in groups are not independent: whole groups are bootstrapped
    instead; where all examples are alike, every sample is too, and the interval is
    Wilson's for the number of groups.

    Args:
      hits: bool [n].
      groups: [n], equal for examples that are drawn together, such as the captions of
        one image; None where examples are independent.
      seed: seed of the bootstrap over groups.

    Returns:
      (low, high), each between 0 and 1; (nan, nan) without examples.
    """
    n = len(hits)
    if not n:
        return float("nan"), float("nan")
    found = int(np.sum(hits))
    if groups is not None and 0 < found < n:
        times, rng = _affordable(2000, n), np.random.default_rng(seed)
        return interval_of(draw_group_means(hits, groups, times, rng))
    if groups is not None:
        n = len(np.unique(groups))
        found = n if found else 0
    from scipy.stats import binomtest  # half a second, which a run's start can spare

    ends = binomtest(found, n).proportion_ci(0.95, method="wilson")
    return float(ends.low), float(ends.high)


def mean_interval(
    values: np.ndarray, *, bootstraps: int = 1000, seed: int = 0
) -> Interval:
    """95 % bootstrap interval of the mean of values [n]."""
    if not len(values):
        return float("nan"), float("nan")
    n, rng = len(values), np.random.default_rng(seed)
    count = _affordable(bootstraps, n)
    means = [values[rng.integers(n, size=n)].mean() for _ in range(count)]
    return interval_of(np.asarray(means))


def median_interval(
    values: np.ndarray,
    groups: np.ndarray | None = None,
    *,
    bootstraps: int = 10_000,
    seed: int = 0,
) -> Interval:
    """95 % bootstrap interval of the median of values [n].

    A bootstrap sample's m-th smallest value is the original value at a rank that is
    n times the m-th smallest of n uniform draws, which has a beta distribution: so the
    medians are drawn directly. groups: as for share_interval; with groups at most 2000
    samples are drawn.
    """
    n, rng = len(values), np.random.default_rng(seed)
    if not n:
        return float("nan"), float("nan")
    if groups is not None:
        times = _affordable(min(bootstraps, 2000), n)
        return interval_of(_draw_group_medians(values, groups, times, rng))
    ranked, m = np.sort(values), (n + 1) // 2
    low = rng.beta(m, n - m + 1, bootstraps)
    high = low
    if n % 2 == 0:  # the mean of two: the second is the smallest of the n - m above
        high = low + (1 - low) * (1 - rng.random(bootstraps) ** (1 / (n - m)))
    indices = [np.minimum((n * u).astype(int), n - 1) for u in (low, high)]
    return interval_of(ranked[indices].mean(axis=0))


def mean_recall_interval(
    hits: np.ndarray, labels: np.ndarray, *, bootstraps: int = 1000, seed: int = 0
) -> Interval:
    """95 % bootstrap interval of the mean of the classes' recalls.

    hits [n]: whether each example's label was found; labels [n]. The counts of a
    class's hits and misses in a bootstrap sample are multinomial, so they are drawn
    directly. A sample's mean leaves out the classes that it lacks.
    """
    if not len(hits):
        return float("nan"), float("nan")
    classes, indices = np.unique(labels, return_inverse=True)
    cells = np.bincount(2 * indices + hits, minlength=2 * len(classes))
    drawn = np.random.default_rng(seed).multinomial(
        len(hits), cells / len(hits), bootstraps
    )
    found, there = drawn[:, 1::2], drawn[:, ::2] + drawn[:, 1::2]
    recalls = found / np.maximum(there, 1)
    return interval_of(recalls.sum(axis=1) / (there > 0).sum(axis=1))


def calibration_interval(
    gaps: np.ndarray, *, bootstraps: int = 1000, seed: int = 0
) -> Interval:
    """95 % bootstrap interval of the calibration error.

    gaps [n, bins]: metrics.calibration_gaps. Chance widens gaps, so a sample's
    error is on average above the measured one; that excess is subtracted from both
    ends.
    """
    if not len(gaps):
        return float("nan"), float("nan")
    n, rng = len(gaps), np.random.default_rng(seed)
    drawn = np.empty(_affordable(bootstraps, n))
    for i in range(len(drawn)):
        drawn[i] = np.abs(draw_counts(rng, n).astype(float) @ gaps / n).sum()
    excess = drawn.mean() - np.abs(gaps.mean(axis=0)).sum()
    low, high = interval_of(drawn - excess)
    return max(low, 0.0), min(high, 1.0)


def map_intervals(
    scores: np.ndarray, targets: np.ndarray, *, bootstraps: int = 1000, seed: int = 0
) -> dict[str, Interval]:
    """95 % bootstrap intervals of the mAP, {"macro": ..., "micro": ...}.

    scores, targets [n, k]. Above 500,000 scores fewer samples are drawn.
    """
    scores, targets = np.asarray(scores), np.asarray(targets)
    n, k = scores.shape
    if not n:
        return dict.fromkeys(("macro", "micro"), (float("nan"), float("nan")))
    ranked = {"macro": rank(scores, targets), "micro": rank_pooled(scores, targets)}
    rng, left = np.random.default_rng(seed), _affordable(bootstraps, n * k)
    found: dict[str, list[float]] = {"macro": [], "micro": []}
    while left:
        samples = [draw_counts(rng, n) for _ in range(min(left, 24))]
        left -= len(samples)
        for name, one in ranked.items():
            found[name] += one.mean_aps(samples)
    return {name: interval_of(np.asarray(values)) for name, values in found.items()}


def _affordable(bootstraps: int, size: int) -> int:
    """`bootstraps`, or fewer where `size` is large, so that they take seconds.

    It is 100 at least.
    """
    return min(bootstraps, max(100, int(5e8 // max(size, 1))))


def draw_group_means(
    values: np.ndarray, groups: np.ndarray, bootstraps: int, rng: np.random.Generator
) -> np.ndarray:
    """Means [bootstraps] of values [n], where each sample draws whole groups [n]."""
    _, indices = np.unique(groups, return_inverse=True)
    sizes = np.bincount(indices)
    sums = np.bincount(indices, weights=values)
    draws = []
    for _ in range(bootstraps):
        counts = draw_counts(rng, len(sizes))
        draws.append((counts @ sums) / (counts @ sizes))
    return np.array(draws)


def _draw_group_medians(
    values: np.ndarray, groups: np.ndarray, bootstraps: int, rng: np.random.Generator
) -> np.ndarray:
    order = np.argsort(values)
    ranked = values[order]
    names, indices = np.unique(groups[order], return_inverse=True)
    draws = []
    for _ in range(bootstraps):
        ends = np.cumsum(draw_counts(rng, len(names))[indices])
        middle = [(ends[-1] - 1) // 2, ends[-1] // 2]
        draws.append(ranked[np.searchsorted(ends, middle, side="right")].mean())
    return np.array(draws)


def interval_of(values: np.ndarray) -> Interval:
    """The middle 95 % of values, nan left out; (nan, nan) where no value is left."""
    found = values[~np.isnan(values)]  # a sample without a positive has no mAP
    if not len(found):
        return float("nan"), float("nan")
    low, high = np.percentile(found, [2.5, 97.5])
    return float(low), float(high)


def rounded(interval: Interval) -> list[float | None]:
    """An interval for results.jsonl; None stands for nan, which JSON lacks."""
    return [None if np.isnan(end) else round(end, 6) for end in interval]


def known(value: float) -> float | None:
    """A value for results.jsonl; None stands for nan, which JSON lacks."""
    return None if np.isnan(value) else float(value)

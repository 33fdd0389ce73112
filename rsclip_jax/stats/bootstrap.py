"""95 % intervals of metrics over a dataset's examples, most by bootstrap. Pure.

A bootstrap sample draws as many examples as there are, with replacement. Where a
metric's values over many samples would take minutes, fewer samples are drawn.
"""

import dataclasses
from collections.abc import Callable, Mapping

import numpy as np
from scipy.stats import binomtest

# generator -> a metric's value on one bootstrap sample, for each alpha
Draw = Callable[[np.random.Generator], dict[float, float]]
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
        drawn[i] = np.abs(_draw_counts(rng, n).astype(float) @ gaps / n).sum()
    excess = drawn.mean() - np.abs(gaps.mean(axis=0)).sum()
    low, high = interval_of(drawn - excess)
    return max(low, 0.0), min(high, 1.0)


def map_intervals(
    scores: np.ndarray, targets: np.ndarray, *, bootstraps: int = 1000, seed: int = 0
) -> dict[str, Interval]:
    """95 % bootstrap intervals of the mAP, {"macro": ..., "micro": ...}.

    scores, targets [n, k]. Above 500,000 scores fewer samples are drawn.
    """
    scores, positive = np.asarray(scores), np.asarray(targets).astype(bool)
    n, k = scores.shape
    if not n:
        return dict.fromkeys(("macro", "micro"), (float("nan"), float("nan")))
    macro = _rank(scores, positive)
    micro = _rank(scores.reshape(-1, 1), positive.reshape(-1, 1), k)
    rng = np.random.default_rng(seed)
    found: dict[str, list[float]] = {"macro": [], "micro": []}
    for _ in range(_affordable(bootstraps, n * k)):
        counts = _draw_counts(rng, n)
        found["macro"].append(macro.mean_ap(counts))
        found["micro"].append(micro.mean_ap(counts))
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
        counts = _draw_counts(rng, len(sizes))
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
        ends = np.cumsum(_draw_counts(rng, len(names))[indices])
        middle = [(ends[-1] - 1) // 2, ends[-1] // 2]
        draws.append(ranked[np.searchsorted(ends, middle, side="right")].mean())
    return np.array(draws)


def _draw_counts(rng: np.random.Generator, n: int) -> np.ndarray:
    """How often a bootstrap sample of n examples holds each of them."""
    return np.bincount(rng.integers(n, size=n), minlength=n)


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


def bootstrap_mean(scores: Mapping[float, np.ndarray]) -> Draw:
    """A Draw of the mean over examples: scores {alpha: [n]}.

    All alphas see the same bootstrap sample.
    """
    table = np.stack([np.asarray(s, float) for s in scores.values()], axis=1)
    n = len(table)

    def draw(rng: np.random.Generator) -> dict[float, float]:
        means = _draw_counts(rng, n).astype(float) @ table / n
        return dict(zip(scores, means.tolist(), strict=True))

    return draw


def bootstrap_map(scores: Mapping[float, np.ndarray], targets: np.ndarray) -> Draw:
    """A Draw of the macro mAP: scores {alpha: [n, k]}, targets [n, k].

    Equal to metrics.mean_ap of the examples drawn; each class is sorted only once.
    """
    positive = np.asarray(targets).astype(bool)
    ranked = {alpha: _rank(np.asarray(s), positive) for alpha, s in scores.items()}

    def draw(rng: np.random.Generator) -> dict[float, float]:
        counts = _draw_counts(rng, len(positive))
        return {alpha: one.mean_ap(counts) for alpha, one in ranked.items()}

    return draw


def bootstrap_pooled(scores: Mapping[float, np.ndarray], targets: np.ndarray) -> Draw:
    """A Draw of the micro mAP; as bootstrap_map."""
    positive = np.asarray(targets).astype(bool)
    n, k = positive.shape
    flat = positive.reshape(-1, 1)
    pooled = {alpha: _rank(s.reshape(-1, 1), flat, k) for alpha, s in scores.items()}

    def draw(rng: np.random.Generator) -> dict[float, float]:
        counts = _draw_counts(rng, n)
        return {alpha: ranked.mean_ap(counts) for alpha, ranked in pooled.items()}

    return draw


@dataclasses.dataclass(frozen=True)
class _Ranked:
    """k classes, each with its m scores sorted, for their mean average precision.

    The p positives of all classes follow each other, class by class.
    """

    examples: np.ndarray  # [k, m]: the example of each score, best score first
    ends: np.ndarray  # [p]: its flat index in examples; for equal scores, the last one
    owners: np.ndarray  # [p]: its example
    last: np.ndarray  # [p]: the last positive of an equal score
    classes: np.ndarray  # [p]

    def mean_ap(self, counts: np.ndarray) -> float:
        """The mAP where example i is drawn counts[i] times; nan without a positive."""
        counts = counts.astype(np.int32)
        drawn = np.cumsum(counts[self.examples], axis=1, dtype=np.int32)
        seen = drawn.ravel()[self.ends]
        times = counts[self.owners]
        total = np.bincount(self.classes, times, minlength=len(self.examples))
        before = np.cumsum(total) - total  # positives of earlier classes
        hits = np.cumsum(times)[self.last] - before[self.classes]
        known = total > 0
        precision = times * hits / np.maximum(seen, 1)
        sums = np.bincount(self.classes, precision, minlength=len(self.examples))
        return float(np.mean(sums[known] / total[known])) if known.any() else np.nan


def _rank(scores: np.ndarray, positive: np.ndarray, each: int = 1) -> _Ranked:
    """Ranks scores [m, k], where score i belongs to example i // each; nan is last."""
    scores = np.where(np.isnan(scores), -np.inf, scores).T
    order = np.argsort(-scores, axis=1, kind="stable")
    ranked = np.take_along_axis(scores, order, axis=1)
    hot = np.take_along_axis(positive.T, order, axis=1)
    ends = np.ones_like(hot)
    ends[:, :-1] = ranked[:, 1:] != ranked[:, :-1]
    # Runs of equal scores, numbered through all classes; no run spans two classes.
    runs = np.cumsum(ends.ravel()) - ends.ravel()
    classes, _ = np.nonzero(hot)
    of_positives = runs[hot.ravel()]
    return _Ranked(
        examples=(order // each).astype(np.int32),
        ends=np.flatnonzero(ends)[of_positives],
        owners=(order // each)[hot],
        last=np.searchsorted(of_positives, of_positives, side="right") - 1,
        classes=classes,
    )

"""Bootstrap over a set's examples: draws of metrics, and their 95 % intervals. Pure."""

from collections.abc import Callable, Mapping

import numpy as np

# a resample's values along alpha
Draw = Callable[[np.random.Generator], dict[float, float]]
Interval = tuple[float, float]


def share_interval(hits: np.ndarray, seed: int = 0) -> Interval:
    """95 % interval of a share of examples, as accuracy and recall@k are.

    hits [n] of bool. The number of hits in n draws with replacement is binomial, so it
    is drawn at once. (nan, nan) of no examples.
    """
    n = len(hits)
    if not n:
        return float("nan"), float("nan")
    draws = np.random.default_rng(seed).binomial(n, np.mean(hits), 10_000) / n
    return interval_of(draws)


def map_intervals(
    scores: np.ndarray, targets: np.ndarray, *, resamples: int = 1000, seed: int = 0
) -> dict[str, Interval]:
    """95 % intervals of the mAP "macro" and "micro" of [n, k]: rows are resampled.

    Of many numbers n * k there are fewer resamples, so that it takes seconds; 100 at
    least.
    """
    scores, positive = np.asarray(scores), np.asarray(targets).astype(bool)
    n, k = scores.shape
    if not n:
        return dict.fromkeys(("macro", "micro"), (float("nan"), float("nan")))
    times = min(resamples, max(100, int(2e8 // max(n * k, 1))))
    found = {}
    for name, make_draw in (("macro", resample_map), ("micro", resample_pooled)):
        rng, draw = np.random.default_rng(seed), make_draw({0.0: scores}, positive)
        found[name] = interval_of(np.array([draw(rng)[0.0] for _ in range(times)]))
    return found


def interval_of(values: np.ndarray) -> Interval:
    """The middle 95 % of resamples' values, nan left out; (nan, nan) of none."""
    known = values[~np.isnan(values)]  # a resample may have no positive
    if not len(known):
        return float("nan"), float("nan")
    low, high = np.percentile(known, [2.5, 97.5])
    return float(low), float(high)


def rounded(interval: Interval) -> list[float | None]:
    """As results.jsonl has it: JSON has no nan."""
    return [None if np.isnan(end) else round(end, 6) for end in interval]


def resample_mean(scores: Mapping[float, np.ndarray]) -> Draw:
    """A draw of a mean over examples: {alpha: its [n] scores}.

    All alphas see the same resample.
    """
    table = np.stack([np.asarray(s, float) for s in scores.values()], axis=1)
    n = len(table)

    def draw(rng: np.random.Generator) -> dict[float, float]:
        counts = np.bincount(rng.integers(n, size=n), minlength=n)
        return dict(zip(scores, (counts @ table / n).tolist(), strict=True))

    return draw


def resample_map(scores: Mapping[float, np.ndarray], targets: np.ndarray) -> Draw:
    """A draw of the macro mAP: {alpha: scores [n, k]}, targets.

    Equal to metrics.mean_ap of the resampled rows; each class is sorted once.
    """
    positive = np.asarray(targets).astype(bool)
    n = len(positive)
    sorted_ = {
        alpha: [_sort_class(s[:, c], positive[:, c]) for c in range(s.shape[1])]
        for alpha, s in scores.items()
    }

    def draw(rng: np.random.Generator) -> dict[float, float]:
        counts = np.bincount(rng.integers(n, size=n), minlength=n)
        return {
            alpha: _known_mean([_counted_ap(counts, *c) for c in classes])
            for alpha, classes in sorted_.items()
        }

    return draw


def resample_pooled(scores: Mapping[float, np.ndarray], targets: np.ndarray) -> Draw:
    """A draw of the micro mAP, as resample_map's of the macro one."""
    positive = np.asarray(targets).astype(bool)
    n, k = positive.shape
    sorted_ = {
        alpha: _sort_class(np.ravel(s), positive.ravel()) for alpha, s in scores.items()
    }

    def draw(rng: np.random.Generator) -> dict[float, float]:
        counts = np.bincount(rng.integers(n, size=n), minlength=n)
        each = np.repeat(counts, k)
        return {alpha: _counted_ap(each, *pooled) for alpha, pooled in sorted_.items()}

    return draw


def _known_mean(values: list[float]) -> float:
    known = [value for value in values if value == value]
    return sum(known) / len(known) if known else float("nan")


def _sort_class(scores: np.ndarray, positive: np.ndarray) -> tuple:
    """(order, its positives, places of the last of each run of equal scores)."""
    order = np.argsort(-scores, kind="stable")
    ranked = scores[order]
    last = np.flatnonzero(np.append(ranked[1:] != ranked[:-1], True))
    return order, positive[order], last


def _counted_ap(counts, order, positive, last) -> float:
    """Average precision where example i stands counts[i] times; nan: no positive."""
    times = counts[order]
    hits, seen = np.cumsum(times * positive)[last], np.cumsum(times)[last]
    if not hits[-1]:
        return float("nan")
    precision = hits / np.maximum(seen, 1)
    return float(np.sum(np.diff(hits / hits[-1], prepend=0.0) * precision))

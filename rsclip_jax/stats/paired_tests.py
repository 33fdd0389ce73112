"""Two models on the same examples: differences of metrics, intervals, p-values. Pure.

The paired bootstrap (Efron and Tibshirani 1993; Koehn 2004): each resample of the
examples is scored for both models. Of its differences the middle 95 % are the interval,
and the p-value is that interval turned round: twice the share of them on the rarer side
of zero, those at zero counted on both. So p is below 0.05 where the interval leaves out
zero. The difference as it was found counts as one resample more, on that side: p is
never 0, but 2 / (resamples + 1) at least.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from rsclip_jax import metrics
from rsclip_jax.stats.bootstrap import (
    Interval,
    bootstrap_map,
    bootstrap_pooled,
    draw_group_means,
    interval_of,
)

NAN = float("nan")


@dataclasses.dataclass(frozen=True)
class Paired:
    """A metric of models a and b on n examples; difference = b - a."""

    a: float
    b: float
    ci95: Interval
    p_value: float
    n: int

    @property
    def difference(self) -> float:
        """Above zero where b is the better one."""
        return self.b - self.a


NOTHING = Paired(NAN, NAN, (NAN, NAN), NAN, 0)  # of no example


def compare_shares(
    a: np.ndarray,
    b: np.ndarray,
    groups: np.ndarray | None = None,
    *,
    bootstraps: int = 10_000,
    seed: int = 0,
) -> Paired:
    """Of a share of examples, as accuracy and recall@k are: hits [n] of each model.

    groups [n]: which are drawn together, such as the captions of one image. Of recall
    the queries are drawn, and the gallery stays whole. Raises ValueError for hits of
    other lengths.
    """
    a, b = np.asarray(a, bool), np.asarray(b, bool)
    _check_alike(a, b)
    if not len(a):
        return NOTHING
    gains, rng = b.astype(int) - a, np.random.default_rng(seed)
    if groups is None:
        draws = _draw_gains(gains, bootstraps, rng)
    else:
        draws = draw_group_means(gains, groups, bootstraps, rng)
    return _paired(a.mean(), b.mean(), draws, len(a))


def compare_means(
    a: np.ndarray, b: np.ndarray, *, bootstraps: int = 10_000, seed: int = 0
) -> Paired:
    """Of a mean over examples, as mAP@k is over queries: values [n] of each model.

    Of many examples there are fewer resamples; 1000 at least.
    """
    a, b = np.asarray(a, float), np.asarray(b, float)
    _check_alike(a, b)
    if not len(a):
        return NOTHING
    times = min(bootstraps, max(1000, int(1e8 // len(a))))
    rng = np.random.default_rng(seed)
    draws = draw_group_means(b - a, np.arange(len(a)), times, rng)
    return _paired(a.mean(), b.mean(), draws, len(a))


def compare_medians(
    a: np.ndarray, b: np.ndarray, *, bootstraps: int = 4000, seed: int = 0
) -> Paired:
    """Of a median over examples, as the median rank is: values [n] of each model.

    Of many examples there are fewer resamples; 1000 at least.
    """
    a, b = np.asarray(a, float), np.asarray(b, float)
    _check_alike(a, b)
    if not len(a):
        return NOTHING
    times = min(bootstraps, max(1000, int(4e7 // len(a))))
    both, rng = np.stack([a, b]), np.random.default_rng(seed)
    rows = (rng.integers(len(a), size=len(a)) for _ in range(times))
    draws = np.array([np.subtract(*np.median(both[::-1, r], axis=1)) for r in rows])
    return _paired(np.median(a), np.median(b), draws, len(a))


def compare_recalls(
    a: np.ndarray,
    b: np.ndarray,
    labels: np.ndarray,
    *,
    bootstraps: int = 10_000,
    seed: int = 0,
) -> Paired:
    """Of the mean over classes of the share of hits: hits [n] of each, labels [n].

    A class that a resample lacks is left out of its mean.
    """
    a, b = np.asarray(a, bool), np.asarray(b, bool)
    _check_alike(a, b)
    if not len(a):
        return NOTHING
    classes, places = np.unique(labels, return_inverse=True)
    k = len(classes)
    # How often a class is drawn, and each model hits it, is multinomial.
    cells = np.bincount(4 * places + 2 * a + b, minlength=4 * k)
    rng = np.random.default_rng(seed)
    drawn = rng.multinomial(len(a), cells / len(a), size=bootstraps)
    drawn = np.concatenate([cells[None], drawn]).reshape(-1, k, 4)
    there = drawn.sum(axis=2)
    share = 1 / np.maximum(there, 1)
    of_a, of_b = (
        ((drawn[..., i] + drawn[..., 3]) * share).sum(axis=1) / (there > 0).sum(axis=1)
        for i in (2, 1)
    )
    draws = (of_b - of_a)[1:]
    return _paired(of_a[0], of_b[0], draws, len(a))


def _paired(a: float, b: float, draws: np.ndarray, n: int) -> Paired:
    return Paired(float(a), float(b), interval_of(draws), p_value(draws), n)


def _check_alike(a: np.ndarray, b: np.ndarray) -> None:
    """Raises ValueError for values that cannot be of the same examples."""
    if a.shape != b.shape:
        raise ValueError(f"values of the same examples: got {a.shape} and {b.shape}")


def _draw_gains(gains: np.ndarray, bootstraps: int, rng) -> np.ndarray:
    """Mean gains of resamples: lost, kept and won are drawn as their numbers."""
    shares = np.bincount(gains + 1, minlength=3) / len(gains)
    lost, _, won = rng.multinomial(len(gains), shares, size=bootstraps).T
    return (won - lost) / len(gains)


def compare_maps(
    a: np.ndarray,
    b: np.ndarray,
    targets: np.ndarray,
    *,
    bootstraps: int = 4000,
    seed: int = 0,
) -> dict[str, Paired]:
    """Of the mAP "macro" and "micro": scores [n, k] of each model, targets [n, k].

    Of many numbers n * k there are fewer resamples, so that it takes about a minute;
    1000 at least. Raises ValueError for scores of other shapes.
    """
    a, b, targets = np.asarray(a), np.asarray(b), np.asarray(targets)
    if not a.shape == b.shape == targets.shape:
        raise ValueError(
            f"scores of the same examples and classes: got {a.shape} and {b.shape} for"
            f" targets {targets.shape}"
        )
    if not len(a):
        return {"macro": NOTHING, "micro": NOTHING}
    scores = {0.0: a, 1.0: b}
    times = min(bootstraps, max(1000, int(5e8 // max(a.size, 1))))
    found = {}
    for average, make_draw in (("macro", bootstrap_map), ("micro", bootstrap_pooled)):
        rng, draw = np.random.default_rng(seed), make_draw(scores, targets)
        values = np.array([[*draw(rng).values()] for _ in range(times)])
        draws = values[:, 1] - values[:, 0]
        of_a, of_b = (metrics.mean_ap(x, targets, average) for x in (a, b))
        found[average] = _paired(of_a, of_b, draws, len(a))
    return found


def p_value(draws: np.ndarray) -> float:
    """Two-sided, of the differences of resamples; nan where none has a value."""
    known = draws[~np.isnan(draws)]
    if not len(known):
        return NAN
    # equal scores summed in another order differ by rounding
    sides = np.sum(known <= 1e-12), np.sum(known >= -1e-12)
    return min(1.0, 2 * (1 + float(min(sides))) / (1 + len(known)))


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values adjusted for their number (Holm 1979); nan stays, and does not count.

    Those below 0.05 hold together: the chance that one of them is false is 5 %, however
    they depend on each other.
    """
    values = np.asarray(p_values, float)
    out = np.full(len(values), NAN)
    order = [i for i in np.argsort(values, kind="stable") if not np.isnan(values[i])]
    highest = 0.0
    for rank, i in enumerate(order):
        highest = max(highest, min(1.0, (len(order) - rank) * values[i]))
        out[i] = highest
    return out.tolist()

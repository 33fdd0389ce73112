"""Two models on the same examples: differences of metrics, intervals, p-values. Pure.

The paired bootstrap (Efron and Tibshirani 1993; Koehn 2004) scores both models on each
bootstrap sample. The interval is the middle 95 % of the samples' differences. The
p-value inverts the interval: twice the share of differences on the rarer side of zero,
where those at zero count for both sides. So p is below 0.05 if the interval excludes
zero.
The difference as measured counts as one more sample on that side, so p is never 0 but
at least 2 / (samples + 1).
"""

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np

from rsclip_jax import metrics
from rsclip_jax.stats.bootstrap import Interval, draw_group_means, interval_of
from rsclip_jax.stats.draws import bootstrap_map, bootstrap_pooled, draw_many

NAN = float("nan")


@dataclasses.dataclass(frozen=True)
class Paired:
    """A metric of models a and b on the same n examples; difference = b - a."""

    a: float
    b: float
    ci95: Interval
    p_value: float
    n: int

    @property
    def difference(self) -> float:
        """Above zero where b's value is higher."""
        return self.b - self.a


NOTHING = Paired(NAN, NAN, (NAN, NAN), NAN, 0)  # without examples


def compare_shares(
    a: np.ndarray,
    b: np.ndarray,
    groups: np.ndarray | None = None,
    *,
    bootstraps: int = 10_000,
    seed: int = 0,
) -> Paired:
    """Compares a share of examples, such as accuracy or recall@k.

    a, b: each model's hits [n]. groups [n]: equal for examples that are drawn together,
    such as the captions of one image. For recall the queries are drawn and the gallery
    stays whole. Raises ValueError where a and b have different lengths.
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
    """Compares a mean over examples, such as mAP@k over queries.

    a, b: each model's values [n]. Many examples get fewer samples, 1000 at least.
    """

    def draw(a: np.ndarray, b: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        times = min(bootstraps, max(1000, int(1e8 // len(a))))
        return draw_group_means(b - a, np.arange(len(a)), times, rng)

    return _compare_values(a, b, np.mean, draw, seed)


def compare_medians(
    a: np.ndarray, b: np.ndarray, *, bootstraps: int = 4000, seed: int = 0
) -> Paired:
    """Compares a median over examples, such as the median rank.

    a, b: each model's values [n]. Many examples get fewer samples, 1000 at least.
    """

    def draw(a: np.ndarray, b: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        both, n = np.stack([b, a]), len(a)
        times = min(bootstraps, max(1000, int(4e7 // n)))
        samples = (rng.integers(n, size=n) for _ in range(times))
        medians = [np.median(both[:, sample], axis=1) for sample in samples]
        return np.array([np.subtract(*pair) for pair in medians])

    return _compare_values(a, b, np.median, draw, seed)


def _compare_values(
    a: np.ndarray,
    b: np.ndarray,
    measure: Callable[[np.ndarray], float],
    draw: Callable[[np.ndarray, np.ndarray, np.random.Generator], np.ndarray],
    seed: int,
) -> Paired:
    a, b = np.asarray(a, float), np.asarray(b, float)
    _check_alike(a, b)
    if not len(a):
        return NOTHING
    draws = draw(a, b, np.random.default_rng(seed))
    return _paired(measure(a), measure(b), draws, len(a))


def compare_recalls(
    a: np.ndarray,
    b: np.ndarray,
    labels: np.ndarray,
    *,
    bootstraps: int = 10_000,
    seed: int = 0,
) -> Paired:
    """Compares the mean of the classes' recalls.

    a, b: each model's hits [n]; labels [n]. A sample's mean leaves out the classes that
    it lacks.
    """
    a, b = np.asarray(a, bool), np.asarray(b, bool)
    _check_alike(a, b)
    if not len(a):
        return NOTHING
    classes, indices = np.unique(labels, return_inverse=True)
    k = len(classes)
    # Counts of a class's examples by which of the models hit them are multinomial.
    cells = np.bincount(4 * indices + 2 * a + b, minlength=4 * k)
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
    """Raises ValueError where a and b cannot have the same examples."""
    if a.shape != b.shape:
        raise ValueError(
            "both models need values of the same examples: got shapes"
            f" {a.shape} and {b.shape}"
        )


def _draw_gains(gains: np.ndarray, bootstraps: int, rng) -> np.ndarray:
    """The samples' mean gains, from multinomial counts of lost, kept and won."""
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
    """Compares the mAP, {"macro": ..., "micro": ...}.

    a, b: each model's scores [n, k]; targets [n, k]. Many scores n * k get fewer
    samples, 1000 at least, so that they take about a minute. Raises ValueError where
    shapes differ.
    """
    a, b, targets = np.asarray(a), np.asarray(b), np.asarray(targets)
    if not a.shape == b.shape == targets.shape:
        raise ValueError(
            "both models need scores of the same examples and classes: got shapes"
            f" {a.shape} and {b.shape} for targets {targets.shape}"
        )
    if not len(a):
        return {"macro": NOTHING, "micro": NOTHING}
    scores = {0.0: a, 1.0: b}
    times = min(bootstraps, max(1000, int(5e8 // max(a.size, 1))))
    found = {}
    for average, make_draw in (("macro", bootstrap_map), ("micro", bootstrap_pooled)):
        rng, draw = np.random.default_rng(seed), make_draw(scores, targets)
        values = np.array([[*one.values()] for one in draw_many(draw, times, rng)])
        draws = values[:, 1] - values[:, 0]
        of_a, of_b = (metrics.mean_ap(x, targets, average) for x in (a, b))
        found[average] = _paired(of_a, of_b, draws, len(a))
    return found


def p_value(draws: np.ndarray) -> float:
    """The two-sided p-value of samples' differences; nan where all are nan."""
    known = draws[~np.isnan(draws)]
    if not len(known):
        return NAN
    # sums of equal scores in another order differ by rounding
    sides = np.sum(known <= 1e-12), np.sum(known >= -1e-12)
    return min(1.0, 2 * (1 + float(min(sides))) / (1 + len(known)))


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values adjusted for multiple tests (Holm 1979).

    With those below 0.05 taken as significant, the chance of any false one is at most
    5 %, however the tests depend on each other. nan stays and is not counted.
    """
    values = np.asarray(p_values, float)
    out = np.full(len(values), NAN)
    order = [i for i in np.argsort(values, kind="stable") if not np.isnan(values[i])]
    highest = 0.0
    for rank, i in enumerate(order):
        highest = max(highest, min(1.0, (len(order) - rank) * values[i]))
        out[i] = highest
    return out.tolist()

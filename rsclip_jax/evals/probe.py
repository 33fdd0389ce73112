"""Probes: small classifiers on frozen embeddings.

A linear probe as in CLIP's paper (Radford et al. 2021, A.3), also with few examples per
class, and nearest neighbours weighted by similarity (Wu et al. 2018).
"""

import functools
import warnings
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, ParamSpec, TypeVar

import numpy as np
from threadpoolctl import ThreadpoolController

from rsclip_jax import metrics
from rsclip_jax.stats.bootstrap import (
    Interval,
    interval_of,
    known,
    rounded,
    share_interval,
)
from rsclip_jax.stats.draws import bootstrap_map, bootstrap_mean, draw_many

P = ParamSpec("P")
R = TypeVar("R")
# The search for C, in decades: every second one, then around the best with a step that
# is halved four times.
DECADES, STEP, HALVINGS = (-6.0, 6.0), 2.0, 4
MAX_ITER = 1000


@functools.cache
def _thread_pools() -> ThreadpoolController:
    # It knows the libraries that are loaded: scikit-learn brings its own. A run takes
    # its first steps a second earlier without it.
    import sklearn.linear_model  # noqa: F401

    return ThreadpoolController()


def one_thread(function: Callable[P, R]) -> Callable[P, R]:
    """The function with matrix products on one thread.

    Fits and bootstrap samples multiply small matrices. With several threads, which wait
    for each other, this takes up to a hundred times as long on busy cores.
    """

    @functools.wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        with _thread_pools().limit(limits=1):
            return function(*args, **kwargs)

    return run


class Examples(NamedTuple):
    """Unit-norm embeddings z [n, d], and labels [n] or multi-hot [n, k]."""

    z: np.ndarray
    labels: np.ndarray


class Probe(NamedTuple):
    """A linear classifier: weights [d, k], bias [k]; c is scikit-learn's C."""

    weights: np.ndarray
    bias: np.ndarray
    c: float
    converged: bool

    def scores(self, z: np.ndarray) -> np.ndarray:
        """[n, k]; -inf for a class that could not be fitted."""
        return z @ self.weights + self.bias


@one_thread
def linear_probe_records(
    train: Examples, val: Examples, test: Examples, *, sensor: str, classes: int
) -> list[dict]:
    """Logistic regression by L-BFGS: accuracy, or mAP_macro for multi-hot labels.

    It is fitted on train alone, with the C that is best on val (choose_probe). CLIP's
    authors fit it again on train and val; here every probe is fitted on train only.
    """
    probe = choose_probe(train, val, classes)
    found = _score([probe.scores(test.z)], test.labels)
    about = {"C": probe.c, "converged": probe.converged}
    return [{"sensor": sensor, "task": "linear_probe", **found, **about}]


@one_thread
def few_shot_records(
    train: Examples,
    val: Examples,
    test: Examples,
    *,
    sensor: str,
    classes: int,
    shots: Sequence[int] = (1, 2, 4, 8, 16),
    seeds: int = 3,
) -> list[dict]:
    """The linear probe's metric with `shots` training examples per class.

    A record's value is the mean over seeds, whose values are per_seed; ci95 is over the
    test examples, with the seeds' probes fixed. For each seed C is the best of every
    second decade on the whole of val.
    """
    records = []
    for count in shots:
        picked = [shot_subset(train.labels, count, s, classes) for s in range(seeds)]
        subsets = [Examples(train.z[i], train.labels[i]) for i in picked]
        probes = [choose_probe(one, val, classes, halvings=0) for one in subsets]
        found = _score([probe.scores(test.z) for probe in probes], test.labels)
        about = {
            "shots": count,
            "C": [probe.c for probe in probes],
            "converged": all(probe.converged for probe in probes),
        }
        records.append({"sensor": sensor, "task": "linear_probe", **found, **about})
    return records


def shot_subset(labels: np.ndarray, shots: int, seed: int, classes: int) -> np.ndarray:
    """Indices of `shots` examples of each class, or of all where it has fewer.

    With the same seed, more shots include those of fewer. An example with several
    labels counts for each of them.
    """
    order = np.random.default_rng(seed).permutation(len(labels))
    hot = one_hot(labels, classes)[order]
    first = hot & (np.cumsum(hot, axis=0) <= shots)
    return np.sort(order[first.any(axis=1)])


def knn_records(
    train: Examples,
    test: Examples,
    *,
    sensor: str,
    classes: int,
    k: int = 20,
    temperature: float = 0.07,
) -> list[dict]:
    """Votes of the k nearest training examples: accuracy, or mAP_macro for multi-hot.

    Each votes for its labels with exp(cosine / temperature) (Wu et al. 2018); k and
    temperature default to DINO's (Caron et al. 2021). Classes with equal votes count as
    wrong. Where several examples tie for the k-th nearest, any of them may vote. Raises
    ValueError for fewer than k training examples.
    """
    scores = knn_scores(train, test.z, classes, k, temperature)
    found = _score([scores], test.labels)
    return [{"sensor": sensor, "task": "knn", **found, "k": k}]


def knn_scores(
    train: Examples, z: np.ndarray, classes: int, k: int, temperature: float
) -> np.ndarray:
    """Share of the votes for each class [n, classes]; blocks bound the memory."""
    if not 1 <= k <= len(train.z):
        raise ValueError(
            f"k = {k} nearest neighbours cannot be found among {len(train.z)} training"
            f" examples: choose a k between 1 and {len(train.z)}"
        )
    hot = one_hot(train.labels, classes).astype(np.float64)
    block = max(1, 2**24 // len(train.z))
    parts = []
    for i in range(0, len(z), block):
        near = z[i : i + block] @ train.z.T
        indices = np.argpartition(near, -k, axis=1)[:, -k:]
        near = np.take_along_axis(near, indices, axis=1).astype(np.float64)
        votes = np.exp((near - near.max(axis=1, keepdims=True)) / temperature)
        votes /= votes.sum(axis=1, keepdims=True)
        parts.append(np.einsum("bk,bkc->bc", votes, hot[indices]))
    # Shares that are equal but for rounding, such as those of two equal votes, tie.
    return np.concatenate(parts).round(9) if parts else np.zeros((0, classes))


def choose_probe(
    train: Examples, val: Examples, classes: int, halvings: int = HALVINGS
) -> Probe:
    """The probe with the C that is best on val; in a tie, the smallest C.

    C is searched as in CLIP's paper: every second decade from 1e-6 to 1e6, then with
    halved steps around the best, down to an eighth of a decade.
    """
    (low, high), step = DECADES, STEP
    probes: dict[float, Probe] = {}
    values: dict[float, float] = {}
    wanted, best = np.arange(low, high + 1, step).tolist(), low
    for _ in range(halvings + 1):
        for at in wanted:
            probes[at] = fit_probe(train, 10.0**at, classes)
            values[at] = _value(probes[at].scores(val.z), val.labels)
        best = max(sorted(values), key=lambda at: np.nan_to_num(values[at], nan=-1))
        step /= 2
        wanted = [at for at in (best - step, best + step) if low <= at <= high]
    return probes[best]


@one_thread
def fit_probe(train: Examples, c: float, classes: int) -> Probe:
    """Fits LogisticRegression(C=c); for multi-hot labels one classifier per class.

    A class without examples has scores of -inf; so has a multi-hot class that every
    example has.
    """
    z, labels = np.asarray(train.z, np.float64), train.labels
    weights, bias = np.zeros((z.shape[1], classes)), np.full(classes, -np.inf)
    if labels.ndim == 1:
        present = np.unique(labels)
        if len(present) == 1:
            bias[present] = 0
            return Probe(weights, bias, c, True)
        model, converged = _fit(z, labels, c)
        coef, intercept = model.coef_, model.intercept_
        if len(present) == 2:  # scikit-learn gives one score, the second class's
            coef, intercept = _two_sided(coef), _two_sided(intercept)
        weights[:, present], bias[present] = coef.T, intercept
        return Probe(weights, bias, c, converged)
    done = True
    for i in range(classes):
        if 0 < labels[:, i].astype(bool).sum() < len(labels):
            model, converged = _fit(z, labels[:, i], c)
            weights[:, i], bias[i] = model.coef_[0], model.intercept_[0]
            done &= converged
    return Probe(weights, bias, c, done)


def one_hot(labels: np.ndarray, classes: int) -> np.ndarray:
    """Class ids [n] or multi-hot labels [n, classes] as bool [n, classes]."""
    if labels.ndim == 2:
        return labels.astype(bool)
    return labels[:, None] == np.arange(classes)


def _fit(z: np.ndarray, labels: np.ndarray, c: float) -> tuple[Any, bool]:
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(C=c, max_iter=MAX_ITER)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # recorded
        model.fit(z, labels)
    return model, bool(model.n_iter_.max() < MAX_ITER)


def _two_sided(row: np.ndarray) -> np.ndarray:
    return np.concatenate([np.zeros_like(row), row])


def _value(scores: np.ndarray, labels: np.ndarray) -> float:
    if labels.ndim == 2:
        return metrics.mean_ap(scores, labels, "macro")
    return metrics.top_k_accuracy(scores, labels)


def _score(scores: Sequence[np.ndarray], labels: np.ndarray) -> dict[str, Any]:
    """metric, value (the classifiers' mean), ci95, n; with several also per_seed."""
    values = [_value(one, labels) for one in scores]
    return {
        "metric": "mAP_macro" if labels.ndim == 2 else "accuracy",
        "value": known(float(np.mean(values))),
        "ci95": rounded(_interval(scores, labels)),
        "n": len(labels),
        **({"per_seed": [*map(known, values)]} if len(values) > 1 else {}),
    }


def _interval(scores: Sequence[np.ndarray], labels: np.ndarray) -> Interval:
    """95 % interval over the test examples of the classifiers' mean value."""
    rng, bootstraps = np.random.default_rng(0), 1000
    each = {float(i): one for i, one in enumerate(scores)}
    if labels.ndim == 2:
        draw = bootstrap_map(each, labels)
        size = labels.size * len(scores)
        bootstraps = min(bootstraps, max(100, int(2e8 // size)))
    elif len(scores) == 1:
        return share_interval(metrics.in_top_k(scores[0], labels))
    else:
        hits = {i: metrics.in_top_k(one, labels) for i, one in each.items()}
        draw = bootstrap_mean(hits)
    means = [np.mean([*one.values()]) for one in draw_many(draw, bootstraps, rng)]
    return interval_of(np.array(means))

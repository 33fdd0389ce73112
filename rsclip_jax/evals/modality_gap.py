"""Distances between the modalities of an embedding space, and the spread of each.

Liang et al. 2022, Mind the Gap (distance of the centroids); Wang and Isola 2020
(alignment with their alpha = 2, uniformity with their t = 2).
"""

import itertools
from collections.abc import Callable, Iterator

import numpy as np

from rsclip_jax.data.sampling import spread_indices
from rsclip_jax.evals.fuse import parts_of
from rsclip_jax.evals.probe import Examples, fit_probe, one_thread
from rsclip_jax.records.outcomes import Outcome
from rsclip_jax.stats.bootstrap import interval_of, known, rounded

# As many records are used, evenly spread, where there are more.
UNIFORMITY_RECORDS = 1024  # in all pairs
SEPARABILITY_RECORDS = 4096

Bootstrap = Callable[[np.ndarray], np.ndarray]  # counts [r, n] -> values [r, ...]


@one_thread
def gap_records(outcome: Outcome) -> list[dict]:
    """pair_records of every two modalities of an outcome, uniformity_record of each.

    Pairs are named "rgb->s1": RGB is first, then the other sensors in the outcome's
    order, last the text (text_side). A sensor is not paired with a fusion of itself.
    Uniformity covers captions but not class texts, which are few. Empty for fewer than
    two records.
    """
    sensors = sorted(outcome.z, key=lambda sensor: sensor != "rgb")
    records = []
    for a, b in itertools.combinations(sensors, 2):
        if set(parts_of(a)).isdisjoint(parts_of(b)):
            records += pair_records(outcome.z[a], outcome.z[b], f"{a}->{b}")
    if (side := text_side(outcome)) is not None:
        indices, ztxt = side
        for sensor in sensors:
            z = outcome.z[sensor][indices]
            records += pair_records(z, ztxt, f"{sensor}->text")
    spread = {sensor: outcome.z[sensor] for sensor in sensors}
    if outcome.ztxt is not None:
        spread["text"] = outcome.ztxt
    for sensor, z in spread.items():
        records += uniformity_record(z, sensor)
    return records


def text_side(outcome: Outcome) -> tuple[np.ndarray, np.ndarray] | None:
    """(indices of records with a text, the unit-norm text of each [n, d]).

    A record's text is its class's column of the head; for several classes or captions
    it is their mean, normalised again. None where the outcome has no text.
    """
    n, labels = len(outcome.ids), outcome.labels
    if outcome.ztxt is not None and outcome.owners is not None:
        sums = np.zeros((n, outcome.ztxt.shape[1]))
        np.add.at(sums, outcome.owners, outcome.ztxt)
        known = np.bincount(outcome.owners, minlength=n) > 0
    elif outcome.head is not None and labels is not None:
        texts = _unit(np.asarray(outcome.head, np.float64).T)
        if labels.ndim == 1:
            sums, known = texts[labels], labels >= 0
        else:
            sums, known = labels.astype(bool) @ texts, np.max(labels, axis=1) > 0
    else:
        return None
    return np.flatnonzero(known), _unit(sums[known])


def pair_records(za: np.ndarray, zb: np.ndarray, sensor: str) -> list[dict]:
    """The gap between two modalities [n, d] whose rows i show the same location.

    centroid_distance: distance of the mean embeddings. cosine_paired: mean cosine of a
    location's two embeddings; cosine_unpaired: of embeddings of different locations,
    one in each modality. separability: see held_out_hits; 0.5 is no gap. alignment:
    mean squared distance of a location's two embeddings.

    ci95 is by bootstrap over locations. The classifiers of separability are not fitted
    anew; for the centroids, whose distance chance only lengthens, the component along
    the measured gap is bootstrapped.
    """
    n = len(za)
    if n < 2:
        return []
    za, zb = np.asarray(za, np.float64), np.asarray(zb, np.float64)
    means = location_means(za, zb)
    found = {name: _bootstrap(_mean_of(x), n) for name, x in means.items()}
    found["cosine_unpaired"] = _bootstrap(lambda c: unpaired_cosines(za, zb, c), n)
    some = spread_indices(n, SEPARABILITY_RECORDS)
    hits, m = held_out_hits(za[some], zb[some]), len(some)
    found["separability"] = _bootstrap(_mean_of(hits), m)
    return [
        _record(sensor, name, *found[name], m if name == "separability" else n)
        for name in (
            "centroid_distance",
            "cosine_paired",
            "cosine_unpaired",
            "separability",
            "alignment",
        )
    ]


def location_means(za: np.ndarray, zb: np.ndarray) -> dict[str, np.ndarray]:
    """{metric: [n]} for the metrics that are means over locations.

    The centroids' distance is the mean of each location's difference along the gap.
    """
    apart = za - zb
    gap = apart.mean(axis=0)
    along = apart @ (gap / max(np.linalg.norm(gap), 1e-12))
    return {
        "centroid_distance": along,
        "cosine_paired": (za * zb).sum(axis=1),
        "alignment": (apart**2).sum(axis=1),
    }


def unpaired_cosines(za: np.ndarray, zb: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Mean cosine [r] over all pairs of different locations, exact, in O(n d).

    counts [r, n]: how often each bootstrap sample holds a location; nan for a sample
    that holds a single location.
    """
    same = counts**2 @ (za * zb).sum(axis=1)
    pairs = counts.sum(axis=1) ** 2 - (counts**2).sum(axis=1)
    total = ((counts @ za) * (counts @ zb)).sum(axis=1)
    return np.where(pairs > 0, (total - same) / np.maximum(pairs, 1), np.nan)


def held_out_hits(za: np.ndarray, zb: np.ndarray) -> np.ndarray:
    """The share of each location's two embeddings whose modality is recognised, [n].

    By logistic regression (C = 1) fitted on the other half of the locations, halved at
    random, so that both embeddings of a location are in one half. A tie counts as a.
    """
    n = len(za)
    half = np.random.default_rng(0).permutation(n) % 2 == 0
    hits = np.zeros(n)
    for test in (half, ~half):
        z = np.concatenate([za[~test], zb[~test]])
        side = np.repeat([0, 1], (~test).sum())
        probe = fit_probe(Examples(z, side), 1.0, 2)
        right_a = probe.scores(za[test]).argmax(axis=1) == 0
        right_b = probe.scores(zb[test]).argmax(axis=1) == 1
        hits[test] = (right_a.astype(float) + right_b) / 2
    return hits


def uniformity_record(z: np.ndarray, sensor: str) -> list[dict]:
    """How evenly a modality [n, d] covers the sphere; lower is more even.

    log of the mean of exp(-2 |x - y|^2) over all pairs of different records, at most
    UNIFORMITY_RECORDS of them. Empty for fewer than two records.
    """
    z = np.asarray(z, np.float64)[spread_indices(len(z), UNIFORMITY_RECORDS)]
    n = len(z)
    if n < 2:
        return []
    near = np.exp(-4 * (1 - z @ z.T))  # |x - y|^2 = 2 - 2 x y
    np.fill_diagonal(near, 0)

    def measure(counts: np.ndarray) -> np.ndarray:
        pairs = counts.sum(axis=1) ** 2 - (counts**2).sum(axis=1)
        total = ((counts @ near) * counts).sum(axis=1)
        known = pairs > 0
        return np.log(
            np.divide(total, pairs, out=np.full(len(counts), np.nan), where=known)
        )

    return [_record(sensor, "uniformity", *_bootstrap(measure, n), n)]


def _unit(x: np.ndarray) -> np.ndarray:
    return x / np.maximum(np.linalg.norm(x, axis=-1, keepdims=True), 1e-12)


def _mean_of(x: np.ndarray) -> Bootstrap:
    return lambda counts: counts @ x / len(x)


def _bootstrap(measure: Bootstrap, n: int) -> tuple[float, list[float | None]]:
    """(the value with each of n records counted once, its 95 % interval)."""
    draws = [measure(counts) for counts in _draw_counts(n)]
    value = float(measure(np.ones((1, n)))[0])
    return value, rounded(interval_of(np.concatenate(draws)))


def _draw_counts(n: int, times: int = 1000, block: int = 50) -> Iterator[np.ndarray]:
    """How often bootstrap samples hold each of n records, [block, n] at a time."""
    rng = np.random.default_rng(0)
    times = min(times, max(100, int(4e6 // n)))
    for _ in range(times // block):
        drawn = rng.integers(n, size=(block, n)) + n * np.arange(block)[:, None]
        counts = np.bincount(drawn.ravel(), minlength=block * n)
        yield counts.reshape(block, n).astype(np.float64)


def _record(
    sensor: str, metric: str, value: float, ci95: list[float | None], n: int
) -> dict:
    base = {"sensor": sensor, "task": "modality_gap", "metric": metric}
    return {**base, "value": known(value), "ci95": ci95, "n": n}
